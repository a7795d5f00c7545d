//! Places: the directories that a result belongs to, for those who want it forgotten with one of them.

use serde_bytes::ByteBuf;

use crate::record::{Record, RecordUse};
use crate::spelling;

/// The directories that a result belongs to: the request's own, and those elsewhere that its outputs went to.
pub fn places(record: &Record, root: &[u8]) -> Vec<ByteBuf> {
    let mut places = vec![ByteBuf::from(&spelling::plain(root)[..])];
    for output in record.result.outputs.iter().map(|output| &output.path.0) {
        let parent = output.iter().rposition(|&b| b == b'/').map_or(&b""[..], |slash| &output[..slash]);
        if spelling::is_absolute(output) && !places.iter().any(|place| is_below(parent, place)) {
            places.push(ByteBuf::from(parent));
        }
    }
    places
}

/// Whether a record so used belongs to `root` or to a directory below it.
pub fn is_at_home_in(used: &RecordUse, root: &[u8]) -> bool {
    let root = spelling::plain(root);
    used.places.iter().any(|place| is_below(place, &root))
}

/// Whether `path` is `directory` or lies below it; both absolute.
fn is_below(path: &[u8], directory: &[u8]) -> bool {
    let directory = directory.strip_suffix(b"/").unwrap_or(directory);
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;
    use crate::record::{Output, RunResult};
    use zccache_proto::message::Exit;

    #[test]
    fn a_result_belongs_where_it_was_made_and_where_it_went() {
        let mut record = Record {
            observations: vec![],
            identities: vec![],
            environment: None,
            variables: vec![],
            origin: None,
            result: RunResult {
                exit: Exit::Code(0),
                stdout: Default::default(),
                stderr: Default::default(),
                outputs: vec![],
            },
        };
        for path in ["a.o", "/project/b.o", "/out/c.o", "/out/d.o"] {
            record.result.outputs.push(Output { path: Spelled(path.into()), file: None });
        }
        assert_eq!(places(&record, b"/project"), ["/project", "/out"].map(ByteBuf::from));
    }
}
