//! The declared observer against the observed one: what the kernel saw a compile read and miss, the other must have
//! known beforehand.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
#![allow(unused_crate_dependencies)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use zccache_actors::invocation::Invocation;
use zccache_actors::observation::{Seen, Spelled};
use zccache_actors::observe_declared::DeclaredObserver;
use zccache_actors::observe_linux::ObservedObserver;
use zccache_actors::observer::{Job, Observed, Observer, Watcher};
use zccache_actors::plan::{Caution, DeclaredInputs, Policy};
use zccache_proto::message::{OutputStream, Stdio, StreamKind};

static GCC: Policy = Policy {
    family: "gcc",
    knows_program: |_| true,
    ignored_reads: &[],
    reads_links_on_its_way_only: false,
    searches: |_| false,
    review: None,
    caution: Caution { harmless: |_| true, ..Caution::NONE },
};
static CLANG: Policy = Policy {
    family: "clang",
    knows_program: |_| true,
    ignored_reads: &["/dev/urandom"],
    review: None,
    reads_links_on_its_way_only: false,
    searches: |_| false,
    caution: Caution { harmless: |_| true, ..Caution::NONE },
};

struct Nobody(OwnedFd);

impl Watcher for Nobody {
    fn starting(&mut self, _pid: u32) -> std::io::Result<()> {
        Ok(())
    }
    fn output(&mut self, _stream: OutputStream, bytes: &[u8]) {
        eprint!("{}", String::from_utf8_lossy(bytes));
    }
    fn cancelled(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn job(dir: &Path, tool: &str, dirs: &[&str], source: &str) -> Job {
    let mut argv: Vec<String> = vec![tool.into(), "-c".into(), source.into(), "-o".into(), "x.o".into()];
    argv.extend(dirs.iter().map(|d| format!("-I{d}")));
    let stdio =
        Stdio { stdin: StreamKind::Null, stdout: StreamKind::Pipe, stderr: StreamKind::Pipe, merged: false };
    let spelled = |s: &str| Spelled(s.as_bytes().to_vec());
    Job {
        foreign_code: true,
        input_is_known: false,
        invocation: Invocation {
            tool: format!("/usr/bin/{tool}").into_bytes(),
            argv: argv.iter().map(String::as_bytes).collect(),
            cwd: dir.as_os_str().as_bytes().to_vec(),
            env: ["PATH=/usr/bin:/bin", "LC_ALL=C"].iter().collect(),
            umask: 0o022,
            stdio,
        },
        descriptors: Vec::new(),
        client_pid: None,
        policy: if tool.starts_with("clang") { &CLANG } else { &GCC },
        declared: DeclaredInputs {
            source: Some(spelled(source)),
            search_dirs: dirs.iter().map(|d| spelled(d)).collect(),
            ..DeclaredInputs::default()
        },
        outputs: vec![spelled("x.o")],
    }
}

fn run(observer: &dyn Observer, job: Job) -> Observed {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let observed = observer.run(job, &mut Nobody(reader)).unwrap();
    assert_eq!(observed.unstorable, None);
    observed
}

/// A path by which two spellings of one place compare.
fn place(dir: &Path, spelled: &Spelled) -> PathBuf {
    let path = dir.join(OsStr::from_bytes(&spelled.0));
    let mut rest = PathBuf::new();
    let mut at = path.as_path();
    loop {
        if let Ok(real) = at.canonicalize() {
            return real.join(rest);
        }
        rest = Path::new(at.file_name().unwrap_or(OsStr::new(".."))).join(rest);
        at = at.parent().unwrap();
    }
}

fn places(dir: &Path, observed: &Observed, wanted: impl Fn(&Seen) -> bool) -> HashSet<PathBuf> {
    observed.sightings.iter().filter(|s| wanted(&s.seen)).map(|s| place(dir, &s.path)).collect()
}

#[test]
fn whatever_the_kernel_saw_was_known_beforehand() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().canonicalize().unwrap();
    for sub in ["one", "two", "src"] {
        std::fs::create_dir(dir.join(sub)).unwrap();
    }
    let include = "#include \"h.h\"\n#if __has_include(<none.h>) || __has_include(\"two.h\")\n#endif\n";
    std::fs::write(dir.join("src/a.c"), format!("{include}#include <stdio.h>\n#include <math.h>\n")).unwrap();
    std::fs::write(dir.join("src/a.cc"), format!("{include}#include <string>\n#include <cmath>\n")).unwrap();
    std::fs::write(dir.join("two/h.h"), "#include_next <limits.h>\n").unwrap();
    std::fs::write(dir.join("two/two.h"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50)); // signatures have to settle
    let (seen, declared) = (ObservedObserver::new().unwrap(), DeclaredObserver::default());
    for (tool, source) in
        [("gcc", "src/a.c"), ("clang", "src/a.c"), ("g++", "src/a.cc"), ("clang++", "src/a.cc")]
    {
        let dirs = ["one", "two", "no/such"];
        let seen = run(&seen, job(&dir, tool, &dirs, source));
        let known = run(&declared, job(&dir, tool, &dirs, source));
        let is_read = |s: &Seen| matches!(s, Seen::Read { .. });
        let read = places(&dir, &known, is_read);
        for path in places(&dir, &seen, is_read) {
            assert!(read.contains(&path) || path.starts_with("/proc"), "{tool}: {} was read", path.display());
        }
        let absent = places(&dir, &known, |s| *s == Seen::Absent);
        for path in places(&dir, &seen, |s| *s == Seen::Absent) {
            let is_header = path.to_string_lossy().contains("include") || path.starts_with(&dir);
            // Nothing can be below what is not there.
            let above = path.ancestors().any(|above| absent.contains(above));
            // That a directory appears matters only for what is looked for in it.
            let is_known = above || absent.iter().any(|below| below.starts_with(&path));
            assert!(is_known || !is_header, "{tool}: {} was looked for", path.display());
        }
    }
}
