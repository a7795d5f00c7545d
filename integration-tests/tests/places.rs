//! Where outputs go and what is there: each place is treated as the compiler treats it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use zccache_integration_tests::{Expect, Sandbox, Scenario};

const A_C: &str = "#include \"h.h\"\nint f(int n) { return n * H; }\n";

fn project() -> Scenario {
    let s = Scenario::new();
    s.write("a.c", A_C);
    s.write("h.h", "#define H 1\n");
    s.write("out/keep", "");
    s
}

/// A shell command in which `$@` stands for the tool, or for the wrapper and the tool.
fn script(text: &str, tool: &str, wrapped: bool) -> impl FnOnce(&Sandbox) -> Command + use<> {
    let (text, tool) = (text.to_owned(), tool.to_owned());
    move |sandbox: &Sandbox| {
        let mut shell = sandbox.command("bash");
        shell.args(["-c", &text, "bash"]);
        if wrapped {
            shell.arg(sandbox.wrapper([""; 0]).get_program());
        }
        shell.arg(tool);
        shell
    }
}

#[track_caller]
fn both(s: &mut Scenario, expect: Expect, text: &str, tool: &str) {
    s.compare(expect, script(text, tool, false), script(text, tool, true));
}

#[test]
fn outputs_by_way_of_links_and_parents() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        s.edit(|w| {
            fs::create_dir_all(w.join("far/away")).unwrap();
            symlink("far/away", w.join("link")).unwrap();
            symlink("nowhere", w.join("dangling")).unwrap();
        });
        // Rules for make name the output, each compiler in its way.
        for place in [
            "link/a.o",
            "link/../a.o",
            "out/../out/./a.o",
            "./a.o",
            "a.o",
            ".//b.o",
            "././c.o",
            "out//a.o",
            "link/../away/a.o",
            "with blank.o",
            "with$dollar.o",
            "with#hash.o",
            "with:colon.o",
            "with%percent.o",
            "with\\backslash.o",
            "with\ttab.o",
            "\u{e4}.o",
            "plain.o",
        ] {
            let words = [tool, "-c", "-MMD", "a.c", "-o", place];
            s.step_of(Expect::Anything, &words);
            s.step_of(Expect::Hit, &words);
        }
        for place in ["dangling/a.o", "out/a.o/", "nowhere/../a.o", "a.c/a.o", "link/", "", "."] {
            let words = [tool, "-c", "a.c", "-o", place];
            for _ in 0..2 {
                s.step_of(Expect::Anything, &words);
            }
        }
        // Where it leads is where it goes.
        let line = format!("{tool} -c -MMD a.c -o link/a.o");
        s.edit(|w| {
            fs::remove_file(w.join("link")).unwrap();
            symlink("out", w.join("link")).unwrap();
        });
        s.step(Expect::Anything, &line);
        s.edit(|w| {
            fs::remove_file(w.join("link")).unwrap();
            fs::create_dir(w.join("link")).unwrap();
        });
        s.step(Expect::Anything, &line);
    }
}

/// Somebody reads from the other end.
#[test]
fn outputs_into_named_pipes() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        for flags in
            ["-S a.c -o pipe", "-E a.c -o pipe", "-c -MD -MF pipe a.c", "-c a.c -o pipe", "-M a.c -MF pipe"]
        {
            let text = format!(
                "rm -f pipe; mkfifo pipe; timeout 5 cat pipe > got & \"$@\" {flags} 2>/dev/null; code=$?; : <>pipe; wait; rm -f pipe a.o; exit $code"
            );
            for _ in 0..2 {
                both(&mut s, Expect::Anything, &text, tool);
            }
        }
    }
}

#[test]
fn outputs_into_what_is_open_already() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        for flags in [
            "-S a.c -o /dev/stdout",
            "-E a.c -o /dev/fd/3",
            "-c -MD -MF /dev/fd/3 a.c",
            "-S a.c -o /proc/self/fd/3",
        ] {
            for redirection in ["3>got", ">got", "3>>got >&3", "3>/dev/null"] {
                let text = format!("\"$@\" {flags} {redirection} 2>/dev/null");
                both(&mut s, Expect::Anything, &text, tool);
                both(&mut s, Expect::Anything, &text, tool);
            }
        }
    }
}

/// One file for both streams: with one place in it (`2>&1`), with two, or always at its end.
#[test]
fn both_streams_into_one_file() {
    let mut s = project();
    s.script(
        "both",
        "echo first; echo second >&2; cat a.c h.h >/dev/null; echo third; echo fourth, and longer >&2",
    );
    for redirection in [
        ">f 2>f",
        ">f 2>&1",
        "2>f >&2",
        ">>f 2>>f",
        ">>f 2>&1",
        ">f 2>>f",
        ">>f 2>f",
        "1<>f 2>f",
        ">f 2>g",
        "3>f >&3 2>&3",
    ] {
        let text = format!("rm -f f g; echo old > f; \"$@\" a.c {redirection}");
        for _ in 0..3 {
            both(&mut s, Expect::Anything, &text, "./both");
        }
        let text =
            format!("rm -f f g; \"$@\" -Wall -v -c a.c -o /nowhere/a.o {redirection}; cut -c1-9 f; rm f");
        both(&mut s, Expect::Anything, &text, "clang");
    }
}

/// Streams that take nothing: their reader is gone, they are open for reading alone, or a device that is full.
#[test]
fn streams_that_nothing_can_be_written_to() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        s.write("warns.c", "#include \"h.h\"\n#warning here\nint w = H;\n");
        both(&mut s, Expect::Miss, "\"$@\" -c warns.c 2>&1 | cat", tool);
        // The reader has gone for certain before the tool begins.
        let merged = "{ { sleep 0.3; \"$@\" -c warns.c; echo $? >&3; } 2>&1 | true; } 3>&1";
        let stderr_alone = "{ { sleep 0.3; \"$@\" -c warns.c 2>&1 >/dev/null; echo $? >&3; } | true; } 3>&1";
        let readable = "{ \"$@\" -c warns.c 2<warns.c; } 2>/dev/null; echo $?";
        let full = "{ \"$@\" -c warns.c 2>/dev/full; } 2>/dev/null; echo $?";
        for text in [merged, stderr_alone, readable, full] {
            for _ in 0..2 {
                both(&mut s, Expect::Anything, &format!("rm -f warns.o; {text}; sleep 0.3"), tool);
            }
        }
    }
}

/// What is attached to an older output stays with it where the compiler writes into it.
#[test]
fn attributes_of_older_outputs() {
    let mut s = project();
    let flags = rustix::fs::XattrFlags::empty();
    let set = |w: &Path, name: &str| rustix::fs::setxattr(w.join(name), "user.origin", b"hand", flags);
    s.write("out/try", "");
    if set(&s.sandbox.path("bare"), "out/try").is_err() {
        eprintln!("note: this file system has no such attributes, so this test shows nothing");
        return;
    }
    for (mode, tools) in [("-S", ["gcc", "clang"]), ("-c", ["gcc", "clang"])] {
        for tool in tools {
            let line = format!("{tool} {mode} a.c -MD -o out/a.x");
            s.edit(|w| ["out/a.x", "out/a.d"].into_iter().for_each(|made| _ = fs::remove_file(w.join(made))));
            s.step(Expect::Miss, &line);
            s.step(Expect::Hit, &line);
            s.edit(|w| fs::write(w.join("out/a.x"), "").unwrap());
            s.edit(|w| ["out/a.x", "out/a.d"].into_iter().for_each(|made| set(w, made).unwrap()));
            s.step(Expect::Anything, &line);
            let attribute = |twin: &str, made: &str| {
                let mut value = [0; 16];
                let path = s.sandbox.path(twin).join("out").join(made);
                rustix::fs::getxattr(path, "user.origin", &mut value[..])
                    .ok()
                    .map(|length| value[..length].to_vec())
            };
            for made in ["a.x", "a.d"] {
                assert_eq!(attribute("bare", made), attribute("cached", made), "{line}: {made}");
            }
        }
    }
}

/// A mask that changes from one build to the next, and modes that older outputs have.
#[test]
fn masks_and_older_modes() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        let line = format!("{tool} -c -MD -save-temps=obj a.c -o out/a.o");
        for mask in [0o022, 0o077, 0o000, 0o777, 0o022, 0o027] {
            s.umask(mask);
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
            for mode in [0o600, 0o666, 0o444, 0o755, 0o000] {
                s.edit(|w| {
                    for name in ["out/a.o", "out/a.d"] {
                        if let Ok(file) = w.join(name).metadata()
                            && file.is_file()
                        {
                            fs::set_permissions(w.join(name), PermissionsExt::from_mode(mode)).unwrap();
                        }
                    }
                });
                s.step(Expect::Anything, &line);
            }
        }
    }
}

/// Directories that hand their group or their restrictions on to what is made in them.
#[test]
fn directories_with_bits_of_their_own() {
    let mut s = project();
    for (tool, mode) in
        [("gcc", 0o2755), ("clang", 0o2755), ("gcc", 0o1777), ("gcc", 0o555), ("clang", 0o555)]
    {
        s.edit(|w| {
            fs::set_permissions(w.join("out"), PermissionsExt::from_mode(mode)).unwrap();
            let _ = std::os::unix::fs::chown(w.join("out"), None, Some(12));
            let _ = fs::remove_file(w.join("out/a.o"));
        });
        let line = format!("{tool} -c a.c -o out/a.o");
        for _ in 0..3 {
            s.step(Expect::Anything, &line);
            let group = |twin: &str| {
                fs::metadata(s.sandbox.path(twin).join("out/a.o")).map(|m| (m.uid(), m.gid())).ok()
            };
            assert_eq!(group("bare"), group("cached"), "{line} with {mode:o}");
            s.edit(|w| _ = fs::remove_file(w.join("out/a.o")));
        }
    }
}

/// A directory's default list of permissions counts there, and no umask does.
#[test]
fn directories_that_hand_permissions_on() {
    let set = |w: &Path, permissions: [u16; 3]| {
        // As the kernel has it: a version, and for owner, group and others a tag, the permissions, nobody's number.
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions) in [1_u16, 4, 0x20].into_iter().zip(permissions) {
            list.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
            list.extend(u32::MAX.to_le_bytes());
        }
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(w.join("out"), "system.posix_acl_default", &list, flags)
    };
    let unset = |w: &Path| rustix::fs::removexattr(w.join("out"), "system.posix_acl_default").unwrap();
    let mut s = project();
    if set(&s.sandbox.path("bare"), [7, 7, 7]).is_err() {
        eprintln!("note: this file system has no such lists, so this test shows nothing");
        return;
    }
    for tool in ["gcc", "clang"] {
        let line = format!("{tool} -c -MD a.c -o out/a.o");
        let clean = |w: &Path| ["out/a.o", "out/a.d"].map(|made| _ = fs::remove_file(w.join(made)));
        s.edit(|w| _ = set(w, [7, 7, 0]));
        s.edit(|w| unset(w));
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        for permissions in [[7, 7, 0], [7, 7, 7], [6, 0, 0]] {
            s.edit(|w| _ = (set(w, permissions), clean(w)));
            s.step(Expect::NotStored, &line);
            s.step(Expect::NotStored, &line);
            s.edit(|w| _ = (unset(w), clean(w)));
            s.step(Expect::Hit, &line);
        }
        s.rewrite("h.h", "#define H 7\n");
        s.edit(|w| _ = (set(w, [7, 7, 0]), clean(w)));
        s.step(Expect::NotStored, &line);
        s.edit(|w| _ = (unset(w), clean(w)));
        s.step(Expect::Miss, &line);
        s.rewrite("h.h", "#define H 1\n");
    }
}

/// The directory that a command stands in is gone, or is somewhere else by now.
#[test]
fn working_directories_that_are_gone() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        let here = s.sandbox.work().display().to_string();
        for text in [
            format!("mkdir gone; cd gone; rmdir ../gone; \"$@\" -c {here}/a.c -o {here}/a.o"),
            format!("mkdir gone; cd gone; rmdir ../gone; \"$@\" -c {here}/a.c"),
            format!("mkdir was; cd was; mv ../was ../is; \"$@\" -g -c {here}/a.c; rm -r {here}/is"),
            "ln -s out way; cd way; \"$@\" -g -c ../a.c; rm a.o ../way".into(),
            "ln -s out way; cd way; PWD=$PWD \"$@\" -g -c ../a.c; rm ../way".into(),
            format!("cd -P out; PWD={here} \"$@\" -g -c ../a.c"),
        ] {
            for _ in 0..2 {
                both(&mut s, Expect::Anything, &text, tool);
            }
        }
    }
}

/// Sources that are no files, or are files of another kind than their names say.
#[test]
fn sources_of_other_kinds() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        s.edit(|w| fs::create_dir(w.join("dir.c")).unwrap());
        for text in [
            "\"$@\" -c dir.c",
            "\"$@\" -c a.c/",
            "\"$@\" -c ./nowhere/../a.c",
            "rm -f p.c; mkfifo p.c; cat a.c > p.c & \"$@\" -c p.c; code=$?; wait; rm p.c; exit $code",
            "\"$@\" -x c -c <(echo 'int x;') -o a.o",
            "\"$@\" -x c -c /dev/fd/3 -o a.o 3<a.c",
            "cp a.c odd.c; printf '\\r\\nint r;\\r\\n\\0\\n' >> odd.c; \"$@\" -w -c odd.c",
            "printf '\\xef\\xbb\\xbfint bom;\\n' > odd.c; \"$@\" -c odd.c",
            ": > odd.c; \"$@\" -c odd.c",
            "truncate -s 100000 odd.c; \"$@\" -w -c odd.c 2>/dev/null",
        ] {
            for _ in 0..2 {
                both(&mut s, Expect::Anything, text, tool);
            }
        }
    }
}

/// An output that something else is reading, executing, locking or mapping while it is replaced.
#[test]
fn outputs_that_others_hold_open() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        let line = format!("{tool} -c a.c");
        s.step(Expect::Anything, &line);
        s.step(Expect::Hit, &line);
        for holder in [
            "exec 9<a.o; \"$@\" -c a.c; cat <&9 | wc -c",
            "exec 9>>a.o; \"$@\" -c a.c; echo x >&9",
            "(flock 9; \"$@\" -c a.c) 9<a.o",
            "(exec 9<>a.o; echo spoilt >&9; \"$@\" -c a.c; sleep 0.1; echo late >&9)",
        ] {
            both(&mut s, Expect::Anything, holder, tool);
            both(&mut s, Expect::Anything, holder, tool);
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
        }
    }
}

/// Space runs out and comes back: with messages that are heard, thrown away, or nowhere to go.
#[test]
fn a_full_disk_is_not_remembered() {
    let place = tempfile::Builder::new().prefix("zcm-").tempdir().unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=1M", "none"]).arg(place.path()).output();
    if !mounted.as_ref().is_ok_and(|m| m.status.success()) {
        eprintln!("note: nothing can be mounted here, so this test shows nothing: {mounted:?}");
        return;
    }
    let _unmount = Unmount(place.path());
    let mut s = project();
    s.write("big.c", "const char table[300000] = { 1 };\n");
    let out = place.path().display().to_string();
    for tool in ["gcc", "clang"] {
        for redirection in ["", "2>/dev/null", "2>&-", ">/dev/null 2>&1", "2>said"] {
            let compile =
                format!("\"$@\" -c big.c -o {out}/a.o {redirection}; code=$?; rm -f said; exit $code");
            fs::write(place.path().join("fill"), vec![0; 900_000]).unwrap();
            for _ in 0..2 {
                let full =
                    s.compare(Expect::Anything, quiet(&compile, tool, false), quiet(&compile, tool, true));
                assert!(!full.success());
            }
            fs::remove_file(place.path().join("fill")).unwrap();
            // Without any standard error the wrapper leaves the tool to itself.
            let second = if redirection == "2>&-" { Expect::Anything } else { Expect::Hit };
            for expect in [Expect::Anything, second] {
                let free = s.compare(expect, quiet(&compile, tool, false), quiet(&compile, tool, true));
                assert!(free.success(), "{compile}: {free:?}");
            }
            for name in fs::read_dir(place.path()).unwrap() {
                fs::remove_file(name.unwrap().path()).unwrap();
            }
        }
    }
}

/// An output that may not be written, by the mount that it is on or by its attributes, and then may be. clang looks whether
/// it may before it opens it, and says something else than the system would.
#[test]
fn what_may_not_be_written_for_a_while_is_not_remembered() {
    let place = tempfile::Builder::new().prefix("zcm-").tempdir().unwrap();
    let run = |line: &str| {
        let mut words =
            line.split(' ').map(|word| word.replace("PLACE", &place.path().display().to_string()));
        Command::new(words.next().unwrap()).args(words).output().is_ok_and(|o| o.status.success())
    };
    if !run("mount -t tmpfs none PLACE") {
        eprintln!("note: nothing can be mounted here, so this test shows nothing");
        return;
    }
    let _unmount = Unmount(place.path());
    let mut s = project();
    let out = place.path().display().to_string();
    let ways = [
        ("mount -o remount,ro PLACE", "mount -o remount,rw PLACE"),
        ("chattr +i PLACE/a.o", "chattr -i PLACE/a.o"),
    ];
    for tool in ["gcc", "clang"] {
        for (forbid, allow) in ways {
            let compile = format!("\"$@\" -c a.c -o {out}/a.o");
            fs::write(place.path().join("a.o"), "older").unwrap();
            if !run(forbid) {
                eprintln!("note: not to be had here: {forbid}");
                continue;
            }
            for _ in 0..2 {
                let forbidden =
                    s.compare(Expect::NotStored, quiet(&compile, tool, false), quiet(&compile, tool, true));
                assert!(!forbidden.success(), "{tool}, {forbid}");
            }
            assert!(run(allow));
            for _ in 0..2 {
                let allowed =
                    s.compare(Expect::Anything, quiet(&compile, tool, false), quiet(&compile, tool, true));
                assert!(allowed.success(), "{tool}, {allow}: {allowed:?}");
            }
        }
    }
}

/// As `script`, its messages left out of what is compared: they hold random names.
fn quiet(text: &str, tool: &str, wrapped: bool) -> impl FnOnce(&Sandbox) -> Command + use<> {
    let text = text.replace("exit $code", "(exit $code)");
    script(&format!("{{ {text}; }} 2>unheard; code=$?; rm -f unheard; exit $code"), tool, wrapped)
}

/// Unmounts when dropped.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}
