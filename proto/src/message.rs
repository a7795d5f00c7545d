//! Every message between a client and the service, by direction.
//!
//! Fields may be added with `#[serde(default)]`, and so may requests: a service that does not know one closes the
//! connection, and the client says so. Anything else is a new `PROTOCOL_VERSION`.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ByteStrings;
use crate::report::{StatsReport, StatusReport};
use crate::root::Root;
use crate::spelling::is_absolute;
use crate::transport::DESCRIPTORS_MAX;

/// The version of everything in this crate that both sides must agree on. Part of the endpoint's name, so
/// services of different versions run side by side.
pub const PROTOCOL_VERSION: u32 = 1;

/// The version that this process speaks: [`PROTOCOL_VERSION`]. A build with debug assertions speaks another one if
/// `ZCCACHE_TEST_PROTOCOL` says so: real neighbours of other versions, for tests.
pub fn protocol_version() -> u32 {
    #[cfg(debug_assertions)]
    if let Some(version) = std::env::var("ZCCACHE_TEST_PROTOCOL").ok().and_then(|v| v.parse().ok()) {
        return version;
    }
    PROTOCOL_VERSION
}

/// The most output bytes one `Output` frame carries: small enough to reach a watching person soon, large
/// enough that the frame's own cost vanishes.
pub const OUTPUT_CHUNK_BYTES_MAX: usize = 64 * 1024;

// ---- client -> service ----------------------------------------------------------------------------------

/// What a client may ask. One request at a time on a connection; each has its own kind of answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Is anybody there? Answered by `Reply::Pong` with the same number.
    Ping {
        /// Any number; comes back.
        nonce: u64,
    },
    /// The wrapper: this is what was typed. Answered by `PassThrough`, or by any number of `Started`,
    /// `Heartbeat` and `Output` and then `Finished`, or by `Refused`.
    Compile(Box<Compile>),
    /// `zccache-client stats`. Answered by `Reply::Stats`.
    Stats {
        /// Set every counter to zero after reading it.
        zero: bool,
    },
    /// `zccache-client status`. Answered by `Reply::Status`.
    Status,
    /// `zccache-client clear`: forget every record and blob. Answered by `Reply::Cleared`.
    Clear,
    /// `zccache-client evict`: forget results of a kind. Answered by `Reply::Evicted`.
    Evict(Evict),
    /// `zccache-client gc`: look through all that is stored, put right what is not, and enforce the limits.
    /// Answered by `Reply::Evicted`.
    Gc,
    /// `zccache-client stop`: finish what runs, refuse new work, flush, exit. Answered by
    /// `Reply::ShuttingDown`; the service is gone when its lock file is free.
    Shutdown,
}

/// Which results to forget: those for which everything that is given is true.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evict {
    /// Not used for so many seconds.
    pub older_than_s: Option<u64>,
    /// Made in one of these directories or below, or with outputs there. Absolute; none means anywhere.
    pub roots: Vec<ByteBuf>,
}

/// An invocation as the wrapper saw it. Descriptors travel beside the frame (`SCM_RIGHTS`).
#[derive(Debug, Serialize, Deserialize)]
pub struct Compile {
    /// The real tool's path, as found on `PATH`; never the wrapper itself.
    #[serde(with = "serde_bytes")]
    pub tool: Vec<u8>,
    /// The arguments, `argv[0]` first, as the tool is to see them.
    pub argv: ByteStrings,
    /// The absolute working directory.
    #[serde(with = "serde_bytes")]
    pub cwd: Vec<u8>,
    /// The environment, `NAME=value` each, in the client's order.
    pub env: ByteStrings,
    /// The file mode creation mask, 0 to 0o777.
    pub umask: u32,
    /// What the standard streams are.
    pub stdio: Stdio,
    /// The client's numbers of the descriptors that travel with this frame, in the same order: standard
    /// input first, then those of a jobserver.
    pub descriptors: Vec<i32>,
    /// Do not serve, do store (`ZCCACHE_RECACHE`).
    pub recache: bool,
    /// Until when the client waits for the first frame of an answer at least, in nanoseconds of `CLOCK_MONOTONIC`;
    /// 0 if it does not say. Beyond that it may be running the tool itself.
    #[serde(default)]
    pub patient_until_ns: u64,
    /// Where the client's paths begin; `None` if its kernel does not say.
    #[serde(default)]
    pub root: Option<Root>,
}

/// The highest number of a client's descriptor that is taken, exclusive: the most that Linux lets a process have
/// unless told otherwise (`fs.nr_open`).
pub const DESCRIPTOR_NUMBER_MAX: i32 = 1 << 20;

impl Compile {
    /// Whether a wrapper of ours could have sent this. What comes over the wire is a stranger's word until then.
    pub fn is_sound(&self) -> bool {
        let mut numbers = self.descriptors.clone();
        numbers.sort_unstable();
        numbers.dedup();
        is_absolute(&self.cwd)
            && !self.cwd.contains(&0)
            && !self.tool.is_empty()
            && !self.tool.contains(&0)
            && self.argv.iter().next().is_some()
            && self.umask <= 0o777
            && numbers.len() == self.descriptors.len()
            && numbers.len() <= DESCRIPTORS_MAX
            && numbers.iter().all(|number| (0..DESCRIPTOR_NUMBER_MAX).contains(number))
    }
}

/// What kinds of file a process has as its standard streams. A tool can tell, so it is part of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    /// Standard input.
    pub stdin: StreamKind,
    /// Standard output.
    pub stdout: StreamKind,
    /// Standard error.
    pub stderr: StreamKind,
    /// Standard output and error are one file (`2>&1`), so the order between them shows.
    pub merged: bool,
}

/// The kind of one standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StreamKind {
    /// Not open.
    Closed,
    /// `/dev/null`.
    Null,
    /// A regular file.
    File,
    /// A pipe, FIFO or socket.
    Pipe,
    /// A terminal, with its size in characters (0 if unknown).
    Terminal {
        /// Height.
        rows: u16,
        /// Width.
        columns: u16,
    },
    /// Anything else.
    Other,
}

// ---- service -> client ----------------------------------------------------------------------------------

/// What the service answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Answers `Request::Ping`.
    Pong {
        /// The number that came in.
        nonce: u64,
    },
    /// Answers `Compile`: not ours to run; `exec` the tool.
    PassThrough {
        /// A word or two from the list in `docs/pass-through.md`.
        reason: String,
    },
    /// The tool is about to run; the client kills this process group before it runs the tool itself.
    Started {
        /// Process and process group id, as the service sees it.
        pid: u32,
    },
    /// The tool is still at work. Sent every `HEARTBEAT_INTERVAL_MS` between other frames.
    Heartbeat,
    /// Some of the tool's output, as it comes.
    Output {
        /// Which stream.
        stream: OutputStream,
        /// At most `OUTPUT_CHUNK_BYTES_MAX` bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The end of a compile, served or run.
    Finished(Finished),
    /// The service cannot do this one; the client runs the tool itself.
    Refused {
        /// For people and logs.
        reason: String,
    },
    /// Answers `Stats`.
    Stats(Box<StatsReport>),
    /// Answers `Status`.
    Status(Box<StatusReport>),
    /// Answers `Clear`.
    Cleared {
        /// Records forgotten.
        records: u64,
        /// Blobs deleted.
        blobs: u64,
    },
    /// Answers `Evict` and `Gc`.
    Evicted {
        /// Records forgotten.
        records: u64,
        /// Blobs deleted.
        blobs: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Answers `Clear`, `Stats` and the like when they cannot be done.
    Failed {
        /// For people: what went wrong and what to do.
        message: String,
    },
    /// Answers `Shutdown`.
    ShuttingDown {
        /// Tools still running, which are waited for.
        running: u64,
    },
}

/// How often the service says that a tool is still at work, in milliseconds. A fourth of the client's
/// patience (`SILENCE_MAX_MS`), so that one or two late beats on a loaded machine are not taken for death.
pub const HEARTBEAT_INTERVAL_MS: u64 = 250;

/// How long a client waits for the next frame of an answer before it runs the tool itself, in milliseconds:
/// the project's promise of "within 1 s" (design §10).
pub const SILENCE_MAX_MS: u64 = 1000;

/// A standard output stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output (or both, when they are one file).
    Stdout,
    /// Standard error.
    Stderr,
}

/// The end of a compile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// How the tool ended.
    pub exit: Exit,
    /// What remains to be written to standard output. Longer output came in `Output` frames before.
    pub stdout: ByteBuf,
    /// What remains to be written to standard error.
    pub stderr: ByteBuf,
}

/// How a tool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exit {
    /// By `exit`, with this status (0 to 255).
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Whether the tool says that all went well.
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    const CWD: &[u8] = b"/work";
    #[cfg(windows)]
    const CWD: &[u8] = br"C:\work";

    /// A request as a wrapper sends it.
    fn compile() -> Compile {
        Compile {
            tool: b"gcc".to_vec(),
            argv: [b"gcc"].into_iter().collect(),
            cwd: CWD.to_vec(),
            env: ByteStrings::default(),
            umask: 0o022,
            stdio: Stdio {
                stdin: StreamKind::Null,
                stdout: StreamKind::Pipe,
                stderr: StreamKind::Pipe,
                merged: false,
            },
            descriptors: vec![0, 9],
            recache: false,
            patient_until_ns: 0,
            root: None,
        }
    }

    #[test]
    fn what_no_wrapper_would_send_is_told() {
        assert!(compile().is_sound());
        let spoil: [fn(&mut Compile); 9] = [
            |c| c.cwd = b"relative".to_vec(),
            |c| c.cwd = b"/a\0b".to_vec(),
            |c| c.tool.clear(),
            |c| c.tool = b"g\0cc".to_vec(),
            |c| c.argv = ByteStrings::default(),
            |c| c.umask = 0o1000,
            |c| c.descriptors = vec![-1],
            |c| c.descriptors = vec![i32::MAX],
            |c| c.descriptors = vec![3, 3],
        ];
        for (number, spoil) in spoil.into_iter().enumerate() {
            let mut spoilt = compile();
            spoil(&mut spoilt);
            assert!(!spoilt.is_sound(), "case {number}");
        }
        let descriptors = (0..=i32::try_from(DESCRIPTORS_MAX).unwrap()).collect();
        assert!(!Compile { descriptors, ..compile() }.is_sound());
    }
}
