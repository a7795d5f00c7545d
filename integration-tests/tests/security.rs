//! Nobody gets in, nothing gets out: directories and sockets, strangers, planted files, secrets.
//!
//! The tests with a second user need root, as CI is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use zccache_integration_tests::sandbox::run;
use zccache_integration_tests::{Outcome, Sandbox, binaries, processes, sources, wait};
use zccache_proto::endpoint::Endpoint;

/// A user who is not root and has no other process.
const STRANGER: u32 = 54_321;

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[track_caller]
fn must_be_root() {
    assert!(rustix::process::geteuid().is_root(), "this test needs a second user, so it must be run by root");
}

/// A compile that works whatever the service does.
#[track_caller]
fn compiles(sandbox: &Sandbox) -> Outcome {
    sandbox.write("a.c", sources::SMALL);
    let _ = std::fs::remove_file(sandbox.work().join("a.o"));
    let outcome = sandbox.compile("gcc -c a.c").expect_success();
    assert!(outcome.err().is_empty() && outcome.out().is_empty(), "{outcome:?}");
    assert!(sandbox.work().join("a.o").exists());
    outcome
}

/// The wrapper's compile works, no service comes up, and a person who asks is told why.
#[track_caller]
fn is_refused(sandbox: &Sandbox, word: &str) {
    compiles(sandbox);
    assert_eq!(processes::services_of(sandbox), []);
    let said = sandbox.client("start");
    assert_eq!(said.status, 1, "{said:?}");
    assert!(said.err().contains(word), "`{word}` should be in {said:?}");
    assert_eq!(processes::services_of(sandbox), []);
}

#[test]
fn directories_that_are_ours_but_open_to_readers_are_narrowed() {
    let sandbox = Sandbox::new();
    for directory in [sandbox.runtime_dir(), sandbox.cache_dir()] {
        std::fs::create_dir(&directory).unwrap();
        chmod(&directory, 0o755);
    }
    sandbox.start();
    compiles(&sandbox);
    assert_eq!(sandbox.stats().counters.stored, 1);
    assert_eq!([sandbox.runtime_dir(), sandbox.cache_dir()].map(|d| mode(&d)), [0o700, 0o700]);
    let socket = Endpoint::in_directory(sandbox.runtime_dir()).socket();
    assert_eq!(mode(&socket), 0o600);
    // What lies in the cache is readable by nobody else, were the directory ever opened.
    let mut open_to_others = Vec::new();
    each_file(&sandbox.cache_dir().join("blobs"), &mut |path| {
        if mode(path) & 0o077 != 0 {
            open_to_others.push(path.to_owned());
        }
    });
    assert_eq!(open_to_others, Vec::<PathBuf>::new());
}

fn each_file(directory: &Path, with: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(directory).unwrap().filter_map(Result::ok) {
        match entry.file_type().unwrap().is_dir() {
            true => each_file(&entry.path(), with),
            false => with(&entry.path()),
        }
    }
}

#[test]
fn a_runtime_directory_that_is_a_link_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("elsewhere")).unwrap();
    symlink(sandbox.path("elsewhere"), sandbox.runtime_dir()).unwrap();
    is_refused(&sandbox, "run");
}

#[test]
fn a_runtime_directory_that_others_may_write_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.runtime_dir()).unwrap();
    chmod(&sandbox.runtime_dir(), 0o770);
    is_refused(&sandbox, "can be written by others");
}

#[test]
fn a_runtime_directory_of_another_user_is_refused() {
    must_be_root();
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.runtime_dir()).unwrap();
    chown(sandbox.runtime_dir(), Some(STRANGER), Some(STRANGER)).unwrap();
    is_refused(&sandbox, "belongs to another user");
}

#[test]
fn a_runtime_directory_in_a_place_open_to_all_is_refused_unless_names_are_safe_there() {
    let mut sandbox = Sandbox::new();
    let parent = sandbox.path("open");
    std::fs::create_dir(&parent).unwrap();
    sandbox.set("ZCCACHE_RUNTIME_DIR", parent.join("run"));
    chmod(&parent, 0o777);
    is_refused(&sandbox, "anybody could put another in its place");
    chmod(&parent, 0o1777);
    sandbox.start();
    compiles(&sandbox);
}

#[test]
fn a_cache_that_others_could_have_filled_is_not_used() {
    must_be_root();
    let open_to_all: fn(&Path) = |cache| chmod(cache, 0o777);
    let anothers: fn(&Path) = |cache| chown(cache, Some(STRANGER), None).unwrap();
    for (spoil, word) in [(open_to_all, "written by others"), (anothers, "belongs to another user")] {
        let sandbox = Sandbox::new();
        std::fs::create_dir(sandbox.cache_dir()).unwrap();
        std::fs::write(sandbox.cache_dir().join("planted"), "").unwrap();
        spoil(&sandbox.cache_dir());
        sandbox.start();
        compiles(&sandbox);
        compiles(&sandbox);
        assert_eq!((sandbox.stats().counters.hits, sandbox.stats().counters.stored), (0, 0));
        let status = sandbox.client("status");
        assert!(status.out().contains(word), "{status:?}");
    }
}

/// A sandbox that belongs to another user, with programs that he can reach.
struct Other {
    sandbox: Sandbox,
}

impl Other {
    fn new() -> Self {
        must_be_root();
        let sandbox = Sandbox::new();
        let programs = sandbox.path("bin");
        std::fs::create_dir(&programs).unwrap();
        for name in ["zccache", "zccache-client", "zccache-service"] {
            std::fs::copy(binaries::directory().join(name), programs.join(name)).unwrap();
        }
        sandbox.write("a.c", sources::SMALL);
        let other = Self { sandbox };
        for path in ["", "home", "tmp", "work", "work/a.c", "bin"] {
            chown(other.sandbox.path(path), Some(STRANGER), Some(STRANGER)).unwrap();
        }
        other
    }

    fn run(&self, program: impl AsRef<OsStr>, words: &[&str]) -> Outcome {
        let mut command: Command = self.sandbox.command("setpriv");
        let user = STRANGER.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
        run(command.arg(program).args(words))
    }

    fn ours(&self, program: &str, words: &[&str]) -> Outcome {
        self.run(self.sandbox.path("bin").join(program), words)
    }

    fn stats(&self) -> serde_json::Value {
        let said = self.ours("zccache-client", &["stats", "--json"]).expect_success();
        serde_json::from_slice(&said.stdout).unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Root's own client would not be let in.
        self.ours("zccache-client", &["stop"]);
    }
}

#[test]
fn two_users_have_a_service_and_a_cache_each() {
    // Both by default places, as far as two users share them.
    let shared = tempfile::Builder::new().prefix("zct-shared-").tempdir().unwrap();
    let mut other = Other::new();
    let ours = Sandbox::new();
    ours.start();
    chmod(shared.path(), 0o1777);
    other.sandbox.set("ZCCACHE_RUNTIME_DIR", shared.path().join("other"));
    for _ in 0..2 {
        other.ours("zccache", &["gcc", "-c", "a.c"]).expect_success();
        compiles(&ours);
    }
    let theirs = other.stats();
    assert_eq!((&theirs["hits"], &theirs["misses"]), (&1.into(), &1.into()), "{theirs}");
    assert_eq!((ours.stats().counters.hits, ours.stats().counters.misses), (1, 1));
    assert_ne!(theirs["service"]["pid"], ours.stats().json["service"]["pid"]);
    // Each keeps out of the other's: root could get in, and does not.
    let mut command = ours.wrapper(["gcc", "-c", "a.c"]);
    let outcome = run(command.env("ZCCACHE_RUNTIME_DIR", shared.path().join("other")));
    assert!(outcome.success() && outcome.err().is_empty(), "{outcome:?}");
    assert_eq!(other.stats()["requests"], 2);
}

/// Root reads everything; another user does not, and is told so, and not for ever.
#[test]
fn what_may_not_be_read_or_written_for_a_while_is_neither() {
    let other = Other::new();
    let work = other.sandbox.work();
    other.sandbox.write("a.c", "#include \"h.h\"\nint f(void) { return H; }\n");
    other.sandbox.write("inc/h.h", "#define H 1\n");
    other.sandbox.write("late/h.h", "#define H 2\n");
    other.sandbox.write("args", "-O1");
    for path in ["inc", "inc/h.h", "late", "late/h.h", "args", "a.c"] {
        chown(work.join(path), Some(STRANGER), Some(STRANGER)).unwrap();
    }
    for tool in ["gcc", "clang"] {
        let words = [tool, "-Iinc", "-Ilate", "-c", "a.c", "@args"];
        let same = |what: &str| {
            let object = || std::fs::read(work.join("a.o")).ok();
            let bare = (other.run(tool, &words[1..]), object());
            assert_eq!((other.ours("zccache", &words), object()), bare, "{tool}: {what}");
        };
        same("at first");
        for path in ["inc/h.h", "inc", "a.c", "args", "."] {
            let path = work.join(path);
            let before = mode(&path);
            for _ in 0..2 {
                chmod(&path, if path == work { 0o555 } else { 0 });
                same(&format!("{} is forbidden", path.display()));
                chmod(&path, before);
                same(&format!("{} is allowed", path.display()));
            }
        }
    }
}

#[test]
fn a_socket_in_another_users_hands_is_not_talked_to() {
    let other = Other::new();
    other.ours("zccache", &["gcc", "-c", "a.c"]).expect_success();
    assert_eq!(other.stats()["requests"], 1);
    let mut ours = Sandbox::new();
    ours.set("ZCCACHE_RUNTIME_DIR", other.sandbox.runtime_dir());
    compiles(&ours);
    assert_eq!(other.stats()["requests"], 1, "root talked to another user's service");
    ours.set("ZCCACHE_RUNTIME_DIR", ours.path("run"));
}

#[test]
fn a_stranger_at_an_open_socket_is_sent_away_unheard() {
    let other = Other::new();
    let mut sandbox = Sandbox::new();
    sandbox.set("ZCCACHE_LOG", "debug");
    sandbox.start();
    // As if somebody had opened everything up by hand.
    chmod(&sandbox.path(""), 0o755);
    chmod(&sandbox.runtime_dir(), 0o755);
    chmod(&Endpoint::in_directory(sandbox.runtime_dir()).socket(), 0o666);
    let socket = Endpoint::in_directory(sandbox.runtime_dir()).socket();
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
                  s.settimeout(30)\nprint(len(s.recv(1)))";
    let said = other.run("python3", &["-c", script, socket.to_str().unwrap()]);
    assert_eq!((said.status, said.out().trim()), (0, "0"), "{said:?}");
    compiles(&sandbox);
    sandbox.client("stop").expect_success();
    let log = text_below(&sandbox.path("home"));
    assert!(log.contains(&format!("refused a connection of user {STRANGER}")), "{log}");
}

/// All that the files below a directory hold.
fn text_below(directory: &Path) -> String {
    let mut text = String::new();
    each_file(directory, &mut |path| {
        let mut bytes = Vec::new();
        if let Ok(mut file) = std::fs::File::open(path) {
            file.read_to_end(&mut bytes).unwrap();
        }
        text.push_str(&String::from_utf8_lossy(&bytes));
    });
    text
}

#[test]
fn values_of_variables_are_written_nowhere() {
    let secret = "hunter2-correct-horse";
    let mut sandbox = Sandbox::new();
    sandbox.set("ZCCACHE_LOG", "trace");
    sandbox.set("API_TOKEN", secret);
    // One that enters the key of a compile, too.
    sandbox.set("SOURCE_DATE_EPOCH", "1234567891");
    sandbox.start();
    sandbox.write("a.c", sources::SMALL);
    sandbox.write("time.c", "const char *t = __TIME__;\n");
    // Miss, hit, failure, not stored, passed through, and a tool whose whole environment counts.
    use std::os::unix::fs::OpenOptionsExt;
    let script = sandbox.write("my-gcc", "");
    std::fs::File::options().write(true).truncate(true).mode(0o755).open(&script).unwrap();
    std::fs::write(&script, "#!/bin/sh\nexec gcc \"$@\"\n").unwrap();
    chmod(&script, 0o755);
    let lines =
        ["gcc -c a.c", "gcc -c a.c", "gcc -c missing.c", "gcc -c time.c", "gcc --version", "./my-gcc -c a.c"];
    for line in lines {
        sandbox.compile(line);
    }
    let printed = ["status", "status --json", "stats", "stats --json", "config"].map(|line| {
        let said = sandbox.client(line);
        said.out() + &said.err()
    });
    sandbox.client("stop").expect_success();
    let mut places = printed.concat();
    for directory in [sandbox.cache_dir(), sandbox.runtime_dir(), sandbox.path("home")] {
        places.push_str(&text_below(&directory));
    }
    assert!(places.contains("gcc -c time.c"), "the journal should tell of the commands");
    assert!(places.len() > 2000);
    for value in [secret, "1234567891"] {
        let at = places.find(value).unwrap_or(0);
        assert!(!places.contains(value), "a value was written down: {}", &places[at.saturating_sub(200)..at]);
    }
}

#[test]
fn links_planted_under_our_temporary_names_are_not_followed() {
    let sandbox = Sandbox::new();
    compiles(&sandbox);
    let victim = sandbox.path("victim");
    std::fs::write(&victim, "precious").unwrap();
    let pid = sandbox.service_pid().unwrap();
    for number in 0..64 {
        symlink(&victim, sandbox.work().join(format!(".zccache-{pid}-{number}.tmp"))).unwrap();
    }
    for _ in 0..3 {
        compiles(&sandbox);
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert_eq!(mode(&victim), mode(&sandbox.path("config.toml")));
}

#[test]
fn links_planted_in_the_store_are_not_followed() {
    let sandbox = Sandbox::new();
    compiles(&sandbox);
    let expected = std::fs::read(sandbox.work().join("a.o")).unwrap();
    let victim = sandbox.path("victim");
    std::fs::write(&victim, "precious").unwrap();
    // Asked for, since until then the content may lie under its temporary name.
    assert_eq!(sandbox.stats().counters.stored, 1);
    let mut blobs = Vec::new();
    each_file(&sandbox.cache_dir().join("blobs"), &mut |path| blobs.push(path.to_owned()));
    let [blob] = &blobs[..] else { panic!("one content: {blobs:?}") };
    std::fs::remove_file(blob).unwrap();
    symlink(&victim, blob).unwrap();
    for _ in 0..2 {
        compiles(&sandbox);
        assert_eq!(std::fs::read(sandbox.work().join("a.o")).unwrap(), expected);
    }
    wait::until("the service has stored the content again", || blob.is_file().then_some(()));
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}

/// The last `old` in `bytes`, replaced; whether there was one.
fn replace_last(bytes: &mut Vec<u8>, old: &[u8], new: &[u8]) -> bool {
    let Some(at) = bytes.windows(old.len()).rposition(|window| window == old) else { return false };
    bytes.splice(at..at + old.len(), new.iter().copied());
    true
}

/// A path as records hold it: its length, then its bytes.
fn in_record(path: &str) -> Vec<u8> {
    [&[0xc4, u8::try_from(path.len()).unwrap()], path.as_bytes()].concat()
}

/// Replaces bytes in every record of a cache whose service has stopped. There is no other copy of them then.
fn doctor(sandbox: &Sandbox, old: &[u8], new: &[u8]) {
    std::fs::remove_file(sandbox.cache_dir().join("head-start")).unwrap();
    let index = sled::open(sandbox.cache_dir().join("index")).unwrap();
    let records = index.open_tree("records").unwrap();
    let mut doctored = 0;
    for (key, value) in records.iter().map(Result::unwrap).collect::<Vec<_>>() {
        let (version, packed) = value.split_first().unwrap();
        let mut record = lz4_flex::block::decompress_size_prepended(packed).unwrap();
        if replace_last(&mut record, old, new) {
            let packed = lz4_flex::block::compress_prepend_size(&record);
            records.insert(key, [&[*version], &packed[..]].concat()).unwrap();
            doctored += 1;
        }
    }
    index.flush().unwrap();
    assert!(doctored > 0, "no record names this output: have they changed their shape?");
}

#[test]
fn a_doctored_record_writes_nothing_where_its_request_could_not() {
    let outside = Sandbox::new();
    let [victim, none] = ["victim", "none"].map(|name| outside.path(name));
    std::fs::write(&victim, "precious").unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o644)).unwrap();
    let names = |path: &Path| path.to_str().unwrap().to_owned();
    let mut paths = vec![names(&victim), names(&none), "a.o/../../a.o".into()];
    for name in ["victim", "none"] {
        // Up to the root and down again; up from below; and through a link, which anybody may have in his project.
        let outside = names(&outside.path(name));
        paths.push(format!("../../../../../../../../..{outside}"));
        paths.push(format!("below/../../../../../../../../../..{outside}"));
        paths.push(format!("below/link/{name}"));
    }
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.work().join("below")).unwrap();
    symlink(outside.path(""), sandbox.work().join("below/link")).unwrap();
    compiles(&sandbox);
    let object = sandbox.work().join("a.o");
    let expected = std::fs::read(&object).unwrap();
    for path in paths {
        sandbox.client("clear").expect_success();
        compiles(&sandbox);
        sandbox.client("stop").expect_success();
        doctor(&sandbox, &in_record("a.o"), &in_record(&path));
        sandbox.start();
        sandbox.stats(); // once the index is open
        for _ in 0..2 {
            std::fs::remove_file(&object).unwrap();
            compiles(&sandbox);
            assert_eq!(std::fs::read(&object).unwrap(), expected, "{path}");
            assert_eq!(std::fs::read(&victim).unwrap(), b"precious", "{path}");
            assert!(!none.exists(), "{path}");
        }
        // The first was not served, and its run has put things right.
        let stats = sandbox.stats();
        assert_eq!((stats.counters.hits, stats.counters.misses), (1, 1), "{path}");
        assert!(stats.reasons("degraded")["record_out_of_reach"] >= 1, "{path}: {}", stats.json);
    }
    // A mode by which a program would run as its owner: 04755 for 0644, as records hold it.
    sandbox.client("clear").expect_success();
    compiles(&sandbox);
    sandbox.client("stop").expect_success();
    doctor(&sandbox, &[0xcd, 0x01, 0xa4], &[0xcd, 0x09, 0xed]);
    sandbox.start();
    sandbox.stats();
    std::fs::remove_file(&object).unwrap();
    compiles(&sandbox);
    assert_eq!((mode(&object), sandbox.stats().counters.hits), (0o644, 0));
    assert!(sandbox.log().contains("a stored record is not sound"), "{}", sandbox.log());
}
