//! The standard streams of a tool: a pipe each, or a terminal where the user has one.
//!
//! A tool can tell a terminal from a pipe (and colours its messages accordingly), so it gets the kind its
//! client has. The terminal is raw: what the tool writes arrives unchanged.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Winsize};
use zccache_proto::message::{OutputStream, Stdio, StreamKind};

/// Both ends of a tool's output.
pub struct ToolIo {
    /// What we read, and which stream it is.
    pub ours: Vec<(OutputStream, OwnedFd)>,
    /// What the tool gets: (number there, descriptor).
    pub theirs: Vec<(i32, OwnedFd)>,
}

impl ToolIo {
    /// Streams of these kinds. Standard input comes from `given`, or else from `/dev/null`, unless the client's is closed; the
    /// rest of `given` is passed on.
    ///
    /// # Errors
    /// If the system has no pipe, terminal or descriptor left.
    pub fn new(stdio: &Stdio, given: Vec<(i32, OwnedFd)>) -> io::Result<Self> {
        let mut io = Self { ours: Vec::new(), theirs: given };
        io.theirs.retain(|(number, _)| *number != 1 && *number != 2);
        if stdio.stdin != StreamKind::Closed && !io.theirs.iter().any(|(number, _)| *number == 0) {
            io.theirs.push((0, null(OFlags::RDONLY)?));
        }
        io.add(OutputStream::Stdout, stdio.stdout)?;
        match (stdio.merged, io.theirs.iter().find(|(number, _)| *number == 1)) {
            (true, Some((_, stdout))) => {
                let stderr = stdout.try_clone()?;
                io.theirs.push((2, stderr));
            }
            (true, None) => {}
            (false, _) => io.add(OutputStream::Stderr, stdio.stderr)?,
        }
        Ok(io)
    }

    fn add(&mut self, stream: OutputStream, kind: StreamKind) -> io::Result<()> {
        let number = match stream {
            OutputStream::Stdout => 1,
            OutputStream::Stderr => 2,
        };
        let (ours, theirs) = match kind {
            StreamKind::Closed => return Ok(()),
            StreamKind::Null => {
                self.theirs.push((number, null(OFlags::WRONLY)?));
                return Ok(());
            }
            StreamKind::Terminal { rows, columns } => terminal(rows, columns)?,
            StreamKind::File | StreamKind::Pipe | StreamKind::Other => {
                rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?
            }
        };
        self.ours.push((stream, ours));
        self.theirs.push((number, theirs));
        Ok(())
    }
}

fn null(access: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", access | OFlags::CLOEXEC, Mode::empty())?)
}

/// A raw pseudo-terminal of this size: (our end, the tool's end).
fn terminal(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
    let mut modes = rustix::termios::tcgetattr(&theirs)?;
    modes.make_raw();
    rustix::termios::tcsetattr(&theirs, OptionalActions::Now, &modes)?;
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&theirs, size)?;
    Ok((ours, theirs))
}
