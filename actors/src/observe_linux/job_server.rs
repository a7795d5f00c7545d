//! The job server that a run takes part in (GNU make's or Cargo's): what is read there says when to work, not what
//! comes of it. Everything else that is read from a pipe is an input that cannot be read again.

use zccache_proto::ByteStrings;

/// The variables that announce a job server.
const VARIABLES: [&[u8]; 3] = [b"CARGO_MAKEFLAGS", b"MAKEFLAGS", b"MFLAGS"];

/// How they do so.
const OPTIONS: [&[u8]; 2] = [b"--jobserver-auth=", b"--jobserver-fds="];

/// Where it is reached.
#[derive(Debug, Default)]
pub struct JobServer {
    /// Paths that mean the pipe: the kernel's links to descriptors, or the name of a FIFO.
    paths: Vec<Vec<u8>>,
}

impl JobServer {
    /// As the environment announces it.
    pub fn of(env: &ByteStrings) -> Self {
        let values = VARIABLES.iter().filter_map(|name| env.value_of(name));
        let words = values.flat_map(|flags| flags.split(|&b| b == b' '));
        let places = words.filter_map(|word| OPTIONS.iter().find_map(|option| word.strip_prefix(*option)));
        Self { paths: places.flat_map(paths).collect() }
    }

    /// Whether a process that opens this path joins it.
    pub fn is_at(&self, path: &[u8]) -> bool {
        self.paths.iter().any(|p| p == path)
    }
}

fn paths(place: &[u8]) -> Vec<Vec<u8>> {
    if let Some(fifo) = place.strip_prefix(b"fifo:") {
        return vec![fifo.to_vec()];
    }
    let is_number = |number: &&[u8]| !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    let numbers = place.split(|&b| b == b',').filter(is_number);
    let links = |number: &[u8]| [[&b"/dev/fd/"[..], number].concat(), [b"/proc/self/fd/", number].concat()];
    numbers.flat_map(links).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_server_is_known_by_descriptors_or_by_name() {
        let server = |entry: &str| JobServer::of(&[entry].iter().collect());
        let pipe = server("CARGO_MAKEFLAGS=-j --jobserver-fds=6,7 --jobserver-auth=6,7");
        assert!(pipe.is_at(b"/dev/fd/6") && pipe.is_at(b"/proc/self/fd/7"));
        assert!(!pipe.is_at(b"/dev/fd/0") && !pipe.is_at(b"/dev/fd/"));
        assert!(server("MAKEFLAGS= -j2 --jobserver-auth=fifo:/tmp/GM1").is_at(b"/tmp/GM1"));
        assert!(!server("MAKEFLAGS=--jobserver-auth=-2,-2").is_at(b"/dev/fd/-2"));
        assert!(!server("FLAGS=--jobserver-auth=6,7").is_at(b"/dev/fd/6"));
    }
}
