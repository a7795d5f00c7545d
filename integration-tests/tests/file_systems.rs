//! The store and the project together on each kind of file system that can be had: what is done to an output in place
//! never reaches the store, also where the two share their blocks, and edits are seen.
//!
//! Each kind is made in a file and mounted, which needs the superuser and loop devices. Where that is not to be had
//! (containers), a note says so, and the kind that temporary files lie on is all that the other tests show.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use zccache_integration_tests::sandbox::system_tool;
use zccache_integration_tests::{Expect, Scenario};

/// Enough for two twins, a cache with its index, and the smallest image that xfs accepts.
const IMAGE_BYTES: u64 = 400 << 20;

/// A file system of its own, gone when dropped.
struct Mounted {
    place: TempDir,
    root: PathBuf,
}

impl Mounted {
    /// A new one of this kind, or a note why there is none.
    fn new(kind: &str) -> Option<Self> {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !known.lines().any(|line| line.split_whitespace().next_back() == Some(kind)) {
            eprintln!("note: this kernel has no {kind}; its test shows nothing");
            return None;
        }
        let place = tempfile::Builder::new().prefix("zcm-").tempdir().unwrap();
        let (image, root) = (place.path().join("image"), place.path().join("root"));
        fs::create_dir(&root).unwrap();
        let mut mount = Command::new("mount");
        if kind == "tmpfs" {
            mount.args(["-t", "tmpfs", "none"]);
        } else {
            fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
            let made = Command::new(make_tool(kind)).arg("-q").arg(&image).output().unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            mount.args(["-o", "loop"]).arg(&image);
        }
        let mounted = mount.arg(&root).output().unwrap();
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).into_owned();
            eprintln!("note: {kind} cannot be mounted here; its test shows nothing: {why}");
            return None;
        }
        Some(Self { place, root })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("--lazy").arg(&self.root).status();
        if !gone.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.place.path().display());
        }
    }
}

/// The command that makes such a file system. It may lie where only the superuser looks.
fn make_tool(kind: &str) -> PathBuf {
    let name = format!("mkfs.{kind}");
    let there = ["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).join(&name));
    there.into_iter().find(|path| path.is_file()).unwrap_or_else(|| system_tool(&name))
}

/// Some hundred thousand bytes of object, so that they lie in blocks of their own.
const BIG_C: &str =
    "#include \"h.h\"\nconst char table[100000] = { H, 1, 2 };\nint f(int n) { return table[n]; }\n";

type Deed = Box<dyn Fn(&Path)>;

/// What people and tools do to outputs in place.
fn deeds() -> Vec<Deed> {
    let run = |program: PathBuf, arguments: &'static [&'static str]| {
        move |work: &Path| {
            let status = Command::new(&program).args(arguments).current_dir(work).status();
            assert!(status.unwrap().success());
        }
    };
    let open = |work: &Path| fs::File::options().write(true).open(work.join("a.o")).unwrap();
    let map = "import mmap; f = open('a.o', 'r+b'); m = mmap.mmap(f.fileno(), 0); m[4096:4104] = b'poisoned'; m.flush()";
    vec![
        Box::new(run(system_tool("strip"), &["-g", "a.o"])),
        Box::new(run(system_tool("objcopy"), &["--add-section", "x=h.h", "a.o"])),
        Box::new(run(system_tool("python3"), Vec::leak(vec!["-c", map]))),
        Box::new(move |w| open(w).write_all_at(b"poison", 4096).unwrap()),
        Box::new(move |w| open(w).set_len(5000).unwrap()),
        Box::new(move |w| {
            fs::File::options()
                .append(true)
                .open(w.join("a.o"))
                .map(|f| f.write_at(b"x", 0))
                .map(|_| ())
                .unwrap()
        }),
        Box::new(|w| fs::write(w.join("a.o"), "").unwrap()),
    ]
}

/// Whether a file shares blocks with another, as `filefrag` says.
fn shares_blocks(file: &Path) -> bool {
    let told = Command::new("/usr/sbin/filefrag").arg("-v").arg(file).output().unwrap();
    String::from_utf8_lossy(&told.stdout).contains("shared")
}

#[track_caller]
fn is_never_wrong_on(kind: &str, has_reflinks: bool) {
    let Some(mounted) = Mounted::new(kind) else { return };
    let mut s = Scenario::below(&mounted.root);
    s.write("a.c", BIG_C);
    s.write("h.h", "#define H 1\n");
    let line = "gcc -g -c a.c";
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
    let object = s.sandbox.path("cached/a.o");
    // Blocks are given to a file when it is written back.
    rustix::fs::sync();
    assert_eq!(shares_blocks(&object), has_reflinks, "{kind}");
    for deed in deeds() {
        s.edit(deed);
        s.step(Expect::Hit, line);
    }
    for (text, expect) in
        [("#define H 2\n", Expect::Miss), ("#define H 1\n", Expect::Hit), ("#define H 3\n", Expect::Miss)]
    {
        s.rewrite("h.h", text);
        s.step(expect, line);
    }
    s.edit(|w| fs::rename(w.join("h.h"), w.join("old.h")).unwrap());
    s.step(Expect::Run, line);
    s.edit(|w| fs::hard_link(w.join("old.h"), w.join("h.h")).unwrap());
    s.step(Expect::Hit, line);
    // Made again as the service is, with whatever is on the disk.
    s.sandbox.stop();
    s.sandbox.start();
    s.step(Expect::Hit, line);
}

#[test]
fn on_ext4() {
    is_never_wrong_on("ext4", false);
}

#[test]
fn in_memory() {
    is_never_wrong_on("tmpfs", false);
}

#[test]
fn on_xfs_with_shared_blocks() {
    is_never_wrong_on("xfs", true);
}

#[test]
fn on_btrfs_with_shared_blocks() {
    is_never_wrong_on("btrfs", true);
}

/// Mounts `from` over `onto`, both below a directory; false where the system does not allow it.
fn bind(directory: &Path, from: &str, onto: &str) -> bool {
    let mut mount = Command::new("mount");
    let mounted = mount.arg("--bind").arg(directory.join(from)).arg(directory.join(onto)).status();
    mounted.is_ok_and(|status| status.success())
}

fn unbind(path: &Path) -> bool {
    Command::new("umount").arg(path).status().is_ok_and(|status| status.success())
}

/// Below this nothing stays mounted, however a test ends.
struct NothingMountedBelow(PathBuf);

impl Drop for NothingMountedBelow {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        // The latest first: it may lie on another.
        for place in places.filter(|place| Path::new(place).starts_with(&self.0)).rev() {
            if !unbind(Path::new(place)) {
                eprintln!("{place} stays mounted");
            }
        }
    }
}

/// What is mounted over a file or a directory changes what its name means, and nothing of the directory that the name
/// is in. Asked often enough before that the headers are kept open.
#[test]
fn what_is_mounted_over_headers_is_noticed() {
    const CHECKS: usize = 6;
    let mut s = Scenario::new();
    let names = ["1.h", "2.h", "3.h", "4.h", "5.h"];
    let includes: String = names.map(|name| format!("#include \"{name}\"\n")).concat();
    for name in names {
        s.write(&format!("inc/{name}"), format!("int a{};\n", &name[..1]));
        s.write(&format!("other/{name}"), format!("long b{};\n", &name[..1]));
    }
    s.write("a.c", &includes);
    let line = "gcc -Iinc -c a.c -o out/a.o";
    s.edit(|w| fs::create_dir(w.join("out")).unwrap());
    let _mounts = NothingMountedBelow(s.sandbox.path(""));
    s.edit(|w| fs::write(w.join("probe"), "").unwrap());
    if !bind(&s.sandbox.path("bare"), "a.c", "probe") {
        eprintln!("note: nothing can be mounted here; this test shows nothing");
        return;
    }
    assert!(unbind(&s.sandbox.path("bare/probe")));
    s.step(Expect::Miss, line);
    for (from, onto) in [("other/3.h", "inc/3.h"), ("other", "inc")] {
        for _ in 0..CHECKS {
            s.step(Expect::Hit, line);
        }
        s.edit(|w| assert!(bind(w, from, onto)));
        s.step(Expect::Miss, line);
        for _ in 0..CHECKS {
            s.step(Expect::Hit, line);
        }
        s.edit(|w| assert!(unbind(&w.join(onto))));
        s.step(Expect::Hit, line);
    }
}

/// Headers by absolute paths, asked for often enough that all directories on the way are kept open; then something on the
/// way changes that says nothing of the headers' own directory.
#[test]
fn what_changes_on_the_way_to_headers_is_noticed() {
    const CHECKS: usize = 6;
    let place = tempfile::tempdir_in("/var/tmp").unwrap(); // where others seldom make anything
    let at = |name: &str| place.path().join(name);
    for version in ["one", "two"] {
        fs::create_dir_all(at(version).join("inc/sub")).unwrap();
        for name in ["1.h", "sub/2.h"] {
            fs::write(at(version).join("inc").join(name), format!("int {version}{};\n", &name[..1])).unwrap();
        }
    }
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, at("new")).unwrap();
        fs::rename(at("new"), at(name)).unwrap();
    };
    link("one", "now");
    let mut s = Scenario::new();
    s.write("a.c", "#include \"1.h\"\n#include <sub/../sub/2.h>\n");
    let p = place.path().display();
    let line = format!("gcc -I{p}/early/inc -I{p}/now/inc -c a.c -o a.o");
    let exchange = |one: &str, other: &str| {
        fs::rename(at(one), at("third")).unwrap();
        fs::rename(at(other), at(one)).unwrap();
        fs::rename(at("third"), at(other)).unwrap();
    };
    type Change<'a> = &'a dyn Fn();
    let changes: [(&str, Change, Change); 5] = [
        ("a link leads elsewhere", &|| link("two", "now"), &|| link("one", "now")),
        ("a directory is another's", &|| exchange("one", "two"), &|| exchange("one", "two")),
        ("one below is", &|| exchange("one/inc/sub", "two/inc/sub"), &|| {
            exchange("one/inc/sub", "two/inc/sub")
        }),
        ("what was not there leads somewhere", &|| link("two", "early"), &|| {
            fs::remove_file(at("early")).unwrap()
        }),
        (
            "a directory becomes a link",
            &|| {
                fs::rename(at("one/inc"), at("aside")).unwrap();
                link("../two/inc", "one/inc");
            },
            &|| {
                fs::remove_file(at("one/inc")).unwrap();
                fs::rename(at("aside"), at("one/inc")).unwrap();
            },
        ),
    ];
    s.step(Expect::Miss, &line);
    for (what, change, back) in changes {
        for _ in 0..CHECKS {
            s.step(Expect::Hit, &line);
        }
        eprintln!("{what}");
        change();
        s.step(Expect::Miss, &line);
        for _ in 0..CHECKS {
            s.step(Expect::Hit, &line);
        }
        back();
        s.step(Expect::Hit, &line);
    }
}

/// A tool that may not be executed for the mount that it is on is passed over, as any search on `PATH` does.
#[test]
fn a_tool_on_a_mount_that_forbids_execution_is_none() {
    let Some(mounted) = Mounted::new("tmpfs") else { return };
    let mut s = Scenario::new();
    s.write("a.c", "int a;\n");
    let place = mounted.place.path().join("bin");
    fs::create_dir_all(&place).unwrap();
    let mount = |words: &[&str]| {
        let done = Command::new("mount").args(words).arg(&place).status().unwrap();
        assert!(done.success(), "{words:?}");
    };
    let _mounts = NothingMountedBelow(place.clone());
    mount(&["-t", "tmpfs", "none"]);
    let path = format!("{}:{}", place.display(), s.sandbox.var("PATH").to_str().unwrap());
    s.sandbox.set("PATH", path);
    let script = place.join("gcc");
    fs::write(&script, "#!/bin/sh\nexit 3\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (options, status) in [("exec", 3), ("noexec", 0), ("exec", 3)] {
        mount(&["-o", &format!("remount,{options}")]);
        for _ in 0..2 {
            let (bare, cached) = (["gcc", "-c", "a.c"], ["gcc", "-c", "a.c"]);
            let outcome = s.compare(
                Expect::Anything,
                |sandbox| {
                    let mut command = sandbox.command("env");
                    command.args(bare);
                    command
                },
                |sandbox| sandbox.wrapper(cached),
            );
            assert_eq!(outcome.status, status, "{options}: {outcome:?}");
        }
    }
}
