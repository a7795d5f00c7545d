//! Standard input, looked at without taking it.
//!
//! A tool that reads its source from standard input is served from the cache only if the whole input can be known
//! before anything is decided, and be left where it is: whoever runs the tool then (the service, or the client
//! itself when all else fails) finds it untouched. A file is read without moving its offset. A pipe is looked at
//! by `tee`, once all who could write to it have closed it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, SeekFrom};
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::digest::Digest;
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// The longest input from a file in bytes (16 MiB): far beyond any source.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How much a pipe is asked to hold, in bytes: what Linux allows any user (`/proc/sys/fs/pipe-max-size`).
const PIPE_BYTES_MAX: usize = 1 << 20;

/// How long a pipe's writers may take to write the next bytes, or to close it. Who is slower than that is waited for
/// by the tool itself.
const WRITER_PATIENCE: Duration = Duration::from_millis(200);

/// How often a pipe is looked at meanwhile.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// How long a young file is waited for until any later change must show in its signature: a little more than the longest
/// clock tick (10 ms at 100 Hz).
const SETTLE_MAX: Duration = Duration::from_millis(12);

/// The pause between two looks at its signature: as long as the shortest tick.
const SETTLE_STEP: Duration = Duration::from_millis(1);

/// An input that is known whole, and untouched as yet.
#[derive(Debug)]
pub struct StandardInput {
    /// The digest of what there is to read.
    pub digest: Digest,
    from: From,
}

#[derive(Debug)]
enum From {
    File { file: File, signature: Signature, end: u64 },
    Pipe(File),
}

impl StandardInput {
    /// Looks at what there is to read. Waits for a pipe's writers, `WRITER_PATIENCE` each time.
    ///
    /// # Errors
    /// If it cannot be known whole without being taken: it is too long, its writers are too slow, it is a terminal, or
    /// the system refuses.
    pub fn look(input: OwnedFd) -> io::Result<Self> {
        let file = File::from(input);
        match Signature::at(&file, c"", AtFlags::EMPTY_PATH)?.kind() {
            FileKind::File => Self::of_file(file),
            _ => Self::of_pipe(file),
        }
    }

    fn of_file(file: File) -> io::Result<Self> {
        let signature = settled_signature(&file)?;
        let start = rustix::fs::tell(&file)?;
        let end = signature.size.max(start);
        if end - start > FILE_BYTES_MAX {
            return Err(too_long());
        }
        let mut content = vec![0; usize::try_from(end - start).map_err(|_| too_long())?];
        file.read_exact_at(&mut content, start)?;
        let digest = Digest::of(&content);
        Ok(Self { digest, from: From::File { file, signature, end } })
    }

    fn of_pipe(pipe: File) -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Larger is better; as large as it is will mostly do.
        for end in [pipe.as_fd(), writer.as_fd()] {
            let _ = rustix::pipe::fcntl_setpipe_size(end, PIPE_BYTES_MAX);
        }
        let length = wait_for_writers(&pipe)?;
        let mut content = vec![0; length];
        if length > 0 {
            let copied = rustix::pipe::tee(&pipe, &writer, length, SpliceFlags::NONBLOCK)?;
            if copied != length {
                return Err(too_long());
            }
            File::from(reader).read_exact(&mut content)?;
        }
        Ok(Self { digest: Digest::of(&content), from: From::Pipe(pipe) })
    }

    /// Whether the tool has read all of what was known, and nothing else.
    pub fn is_used_up(&self) -> bool {
        match &self.from {
            From::File { file, signature, end } => {
                rustix::fs::tell(file) == Ok(*end)
                    && Signature::at(file, c"", AtFlags::EMPTY_PATH).as_ref() == Ok(signature)
            }
            From::Pipe(pipe) => rustix::io::ioctl_fionread(pipe) == Ok(0),
        }
    }

    /// Takes what is there, as the tool would have.
    ///
    /// # Errors
    /// Those of reading.
    pub fn use_up(&self) -> io::Result<()> {
        match &self.from {
            From::File { file, end, .. } => rustix::fs::seek(file, SeekFrom::Start(*end)).map(drop)?,
            From::Pipe(pipe) => drop(io::copy(&mut &*pipe, &mut io::sink())?),
        }
        Ok(())
    }
}

fn too_long() -> io::Error {
    io::Error::other("standard input is too long to be known beforehand")
}

/// The signature of a file that no later change can leave as it is.
fn settled_signature(file: &File) -> io::Result<Signature> {
    let start = Instant::now();
    loop {
        let now_ns = coarse_now_ns();
        let signature = Signature::at(file, c"", AtFlags::EMPTY_PATH)?;
        if signature.is_settled(now_ns) {
            return Ok(signature);
        }
        if start.elapsed() > SETTLE_MAX {
            return Err(io::Error::other("standard input is too young"));
        }
        std::thread::sleep(SETTLE_STEP);
    }
}

/// Waits until nobody can write to a pipe any more. Returns how many bytes are in it.
fn wait_for_writers(pipe: &File) -> io::Result<usize> {
    let mut length = rustix::io::ioctl_fionread(pipe)?;
    let mut last_growth = Instant::now();
    loop {
        let mut polled = [PollFd::new(pipe, PollFlags::empty())];
        match poll(&mut polled, Some(&LOOK_EVERY)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let is_closed = polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR);
        let now = rustix::io::ioctl_fionread(pipe)?;
        if is_closed {
            return usize::try_from(now).map_err(|_| too_long());
        }
        if now != length {
            (length, last_growth) = (now, Instant::now());
        } else if last_growth.elapsed() > WRITER_PATIENCE {
            return Err(io::Error::other("standard input's writers are slow"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn rest(file: &mut File) -> Vec<u8> {
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        rest
    }

    #[test]
    fn a_file_is_read_from_where_it_stands_and_stays_there() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"int a;\nint b;\n").unwrap();
        file.seek(io::SeekFrom::Start(7)).unwrap();
        let input = StandardInput::look(file.try_clone().unwrap().into()).unwrap();
        assert_eq!(input.digest, Digest::of(b"int b;\n"));
        assert!(!input.is_used_up());
        assert_eq!(rest(&mut file), b"int b;\n");
        assert!(input.is_used_up());
        file.seek(io::SeekFrom::Start(0)).unwrap();
        input.use_up().unwrap();
        assert_eq!(rest(&mut file), b"");
        file.write_all(b"more").unwrap();
        assert!(!input.is_used_up());
    }

    #[test]
    fn more_than_any_source_is_not_looked_at() {
        let file = tempfile::tempfile().unwrap();
        for (bytes, is_taken) in [(FILE_BYTES_MAX, true), (FILE_BYTES_MAX + 1, false)] {
            file.set_len(bytes).unwrap();
            let looked = StandardInput::look(file.try_clone().unwrap().into());
            assert_eq!(looked.is_ok(), is_taken, "{bytes}");
        }
    }

    #[test]
    fn a_pipe_keeps_what_is_in_it_until_it_is_used_up() {
        for content in [&b""[..], b"int a;\n", &[b'x'; 60_000]] {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            File::from(writer).write_all(content).unwrap();
            let mut pipe = File::from(reader);
            let input = StandardInput::look(pipe.try_clone().unwrap().into()).unwrap();
            assert_eq!(input.digest, Digest::of(content));
            assert_eq!(input.is_used_up(), content.is_empty());
            assert_eq!(rest(&mut pipe), content);
            assert!(input.is_used_up());
            let again = StandardInput::look(pipe.into()).unwrap();
            again.use_up().unwrap();
            assert!(again.is_used_up());
        }
    }

    #[test]
    fn a_pipe_whose_writer_goes_on_is_not_waited_for() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut writer = File::from(writer);
        writer.write_all(b"int a;").unwrap();
        assert!(StandardInput::look(reader.try_clone().unwrap()).is_err());
        writer.write_all(b"\n").unwrap();
        drop(writer);
        assert_eq!(rest(&mut File::from(reader)), b"int a;\n");
    }

    #[test]
    fn what_is_neither_file_nor_pipe_is_left_alone() {
        assert!(StandardInput::look(File::open("/dev/zero").unwrap().into()).is_err());
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(StandardInput::look(socket.into()).is_err());
    }

    #[test]
    fn a_file_that_stays_young_is_not_waited_for() {
        let file = tempfile::tempfile().unwrap();
        // Its stamps lie ahead of every clock for longer than anybody waits.
        file.set_modified(std::time::SystemTime::now() + Duration::from_secs(3600)).unwrap();
        let begun = Instant::now();
        assert!(StandardInput::look(file.into()).is_err());
        assert!(begun.elapsed() > SETTLE_MAX);
    }

    #[test]
    fn more_than_a_pipe_holds_is_not_known_beforehand() {
        for (bytes, is_taken) in [(PIPE_BYTES_MAX, true), (PIPE_BYTES_MAX + 1, false)] {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            // Ends when all is written, or nobody is left to read.
            let writes = std::thread::spawn(move || File::from(writer).write_all(&vec![b'x'; bytes]));
            assert_eq!(StandardInput::look(reader).is_ok(), is_taken, "{bytes}");
            assert_eq!(writes.join().unwrap().is_ok(), is_taken, "{bytes}");
        }
    }
}
