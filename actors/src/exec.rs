//! What a user declares about a run (`zccache-client exec`): it comes as variables beside the request, which the tool
//! itself never sees. Declared things add to what is observed; only `--no-cwd` takes something away, on the user's
//! word.

use std::path::Path;

use zccache_proto::ByteStrings;

use crate::freshness::WorkingDirectory;
use crate::observation::{Seen, Sighting, Spelled};
use crate::observer::{Effect, Left, Observed, Origin, Unstorable};
use crate::signature::{FileKind, Signature};
use crate::sys::fs::AtFlags;
use crate::sys::io::Errno;

/// What all these variables begin with.
pub const PREFIX: &[u8] = b"ZCCACHE_EXEC_";

/// What a user declares about a run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Declaration {
    /// Files that are inputs whether the tool is seen to read them or not, as spelled.
    pub inputs: Vec<Spelled>,
    /// Variables that are inputs, by name.
    pub variables: Vec<Vec<u8>>,
    /// Files that are outputs whether the tool is seen to write them or not, as spelled.
    pub outputs: Vec<Spelled>,
    /// The result does not hang on the name of the working directory.
    pub no_cwd: bool,
}

impl Declaration {
    /// What is declared in this environment; none if nothing is.
    pub fn in_environment(env: &ByteStrings) -> Option<Self> {
        let mut declaration = Self::default();
        let mut is_declared = false;
        for entry in env.iter() {
            let Some((name, value)) = entry.strip_prefix(PREFIX).and_then(split_at_equals) else { continue };
            is_declared = true;
            if name.starts_with(b"INPUT_") {
                declaration.inputs.push(Spelled(value.to_vec()));
            } else if name.starts_with(b"VARIABLE_") {
                declaration.variables.push(value.to_vec());
            } else if name.starts_with(b"OUTPUT_") {
                declaration.outputs.push(Spelled(value.to_vec()));
            } else if name == b"NO_CWD" {
                declaration.no_cwd = true;
            }
        }
        is_declared.then_some(declaration)
    }

    /// What of the declaration enters the request key, written like variables with names that none can have.
    pub fn key_entries(&self, env: &ByteStrings) -> Vec<Vec<u8>> {
        let list = |what: &str, of: &[Spelled]| -> Vec<Vec<u8>> {
            of.iter().map(|path| [format!("=exec {what}=").as_bytes(), &path.0].concat()).collect()
        };
        let variable = |name: &Vec<u8>| match env.value_of(name) {
            Some(value) => [b"=exec variable=", &name[..], b"=", value].concat(),
            None => [b"=exec no variable=", &name[..]].concat(),
        };
        let mut entries = list("input", &self.inputs);
        entries.extend(list("output", &self.outputs));
        entries.extend(self.variables.iter().map(variable));
        entries.push(format!("=exec no cwd={}", self.no_cwd).into_bytes());
        entries
    }

    /// The declared inputs as they are now, before the run.
    pub fn look(&self, cwd: &WorkingDirectory) -> Vec<Sighting> {
        let is_link = |path: &Spelled| {
            let name = Signature::at(cwd.fd(), &path.0[..], AtFlags::SYMLINK_NOFOLLOW);
            name.is_ok_and(|name| name.kind() == FileKind::Symlink)
        };
        let seen = |path: &Spelled| match Signature::at(cwd.fd(), &path.0[..], AtFlags::empty()) {
            Ok(signature) if signature.kind() == FileKind::File => {
                Seen::Read { signature, executed: false, linked: is_link(path) }
            }
            Ok(signature) if signature.kind() == FileKind::Directory => Seen::Listed { signature },
            Ok(signature) => Seen::Kind { follow: true, kind: signature.kind() },
            Err(_) => Seen::Absent,
        };
        self.inputs.iter().map(|path| Sighting { path: path.clone(), seen: seen(path) }).collect()
    }

    /// Adds what is declared to what was observed.
    pub fn add_to(
        &self,
        observed: &mut Observed,
        inputs: Vec<Sighting>,
        cwd: &WorkingDirectory,
        name: &Path,
    ) {
        let is_known = |path: &Spelled, observed: &Observed| {
            observed.sightings.iter().any(|s| {
                s.path == *path
                    && matches!(s.seen, Seen::Read { .. } | Seen::Before { .. } | Seen::Listed { .. })
            })
        };
        for input in inputs {
            if !is_known(&input.path, observed) {
                observed.sightings.push(input);
            }
        }
        for path in &self.outputs {
            if observed.effects.iter().any(|effect| effect.path == *path) || !observed.exit.success() {
                continue;
            }
            match Signature::at(cwd.fd(), &path.0[..], AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => observed.effects.push(Effect { path: path.clone(), left: Left::File(Origin::Kept) }),
                Err(Errno::NOENT | Errno::NOTDIR) | Err(_) => {
                    let name = String::from_utf8_lossy(&path.0).into_owned();
                    observed.unstorable.get_or_insert(Unstorable::NotCaptured(name));
                }
            }
        }
        if self.no_cwd && names_directory(observed, name) {
            let why = "the working directory is named in what was read or written".into();
            observed.unstorable.get_or_insert(Unstorable::NotObservable(why));
        }
    }
}

/// Whether some path that was read or written names this directory, so that the same run elsewhere means others.
fn names_directory(observed: &Observed, directory: &Path) -> bool {
    use crate::sys::OsStrExt;
    let canonical = std::fs::canonicalize(directory).unwrap_or_default();
    let is_within = |path: &Spelled| {
        let path = Path::new(std::ffi::OsStr::from_bytes(&path.0));
        path.is_absolute() && (path.starts_with(directory) || path.starts_with(&canonical))
    };
    observed.effects.iter().any(|effect| is_within(&effect.path))
        || observed.sightings.iter().any(|sighting| is_within(&sighting.path))
}

fn split_at_equals(entry: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = entry.iter().position(|&b| b == b'=')?;
    Some((&entry[..equals], &entry[equals + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_is_read_from_the_environment_and_enters_the_key() {
        let env: ByteStrings = [
            "A=1",
            "ZCCACHE_EXEC_INPUT_0=a b",
            "ZCCACHE_EXEC_OUTPUT_0=out",
            "ZCCACHE_EXEC_VARIABLE_0=A",
            "ZCCACHE_EXEC_VARIABLE_1=B",
            "ZCCACHE_EXEC_NO_CWD=1",
        ]
        .iter()
        .collect();
        let declaration = Declaration::in_environment(&env).unwrap();
        assert_eq!(declaration.inputs, [Spelled(b"a b".to_vec())]);
        assert_eq!(declaration.outputs, [Spelled(b"out".to_vec())]);
        assert!(declaration.no_cwd);
        let keys: Vec<_> =
            declaration.key_entries(&env).into_iter().map(|k| String::from_utf8(k).unwrap()).collect();
        assert!(keys.contains(&"=exec variable=A=1".into()) && keys.contains(&"=exec no variable=B".into()));
        assert_eq!(Declaration::in_environment(&["A=1"].iter().collect()), None);
    }
}
