//! Links, by compilers and by linkers: libraries where they are and where they are not, scripts, side outputs, and
//! what stands in the output's place.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use zccache_integration_tests::sandbox::system_tool;
use zccache_integration_tests::scenario::set_mtime;
use zccache_integration_tests::{Expect, Scenario};

const MAIN: &str = "int value(void);\nint main(void) { return value(); }\n";

/// Objects, an archive, and a shared library, built without the cache in front.
fn project() -> Scenario {
    let s = Scenario::new();
    s.write("main.c", MAIN);
    s.write("value.c", "int value(void) { return 0; }\n");
    s.write("other.c", "int value(void) { return 1; }\n");
    s.write("export.map", "{ global: value; local: *; };\n");
    s.edit(|w| {
        std::fs::create_dir_all(w.join("first")).unwrap();
        std::fs::create_dir_all(w.join("second")).unwrap();
        for line in [
            "gcc -c -fPIC main.c value.c other.c",
            "ar rcs second/libvalue.a value.o",
            "ar rcs other.a other.o",
            "ar rcsT thin.a value.o",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let status = Command::new(system_tool(words[0])).args(&words[1..]).current_dir(w).status();
            assert!(status.unwrap().success(), "{line}");
        }
    });
    s
}

/// A miss; a hit over the output; a hit where there is none.
#[track_caller]
fn comes_back(s: &mut Scenario, line: &str, output: &str) {
    let first = s.step(Expect::Miss, line);
    assert!(first.success(), "{line}: {first:?}");
    s.step(Expect::Hit, line);
    s.edit(|w| std::fs::remove_file(w.join(output)).unwrap());
    s.step(Expect::Hit, line);
}

#[test]
fn programs_and_libraries_of_objects_and_sources_come_back() {
    let mut s = project();
    for compiler in ["gcc", "clang"] {
        for (line, output) in [
            ("main.o value.o -o p1", "p1"),
            ("main.c value.c -o p2", "p2"),
            ("-g main.c value.o", "a.out"),
            ("-shared -Wl,--version-script=export.map value.o -o libv.so", "libv.so"),
            ("-static main.o value.o -o p3", "p3"),
            ("-r main.o value.o -o p4.o", "p4.o"),
            ("main.o thin.a -o p5", "p5"),
            ("-Wl,--build-id main.o value.o -o p6", "p6"),
            ("-Wl,-Map=p7.map main.o value.o -o p7", "p7"),
            ("-Wl,--dependency-file=p8.d main.o value.o -o p8", "p8"),
        ] {
            comes_back(&mut s, &format!("{compiler} {line}"), output);
        }
    }
    comes_back(&mut s, "g++ -x c++ -D_=1 -fpermissive -x none main.o value.o -o p9", "p9");
}

#[test]
fn every_linker_is_served() {
    ["ld.gold", "ld.lld", "mold"].iter().for_each(|tool| _ = system_tool(tool));
    let mut s = project();
    for linker in ["bfd", "gold", "lld"] {
        comes_back(
            &mut s,
            &format!("gcc -fuse-ld={linker} main.o value.o -o g{linker}"),
            &format!("g{linker}"),
        );
    }
    comes_back(&mut s, "clang -fuse-ld=mold main.o value.o -o cmold", "cmold");
    for linker in ["ld", "ld.gold", "ld.lld", "mold"] {
        comes_back(&mut s, &format!("{linker} -shared value.o -o {linker}.so"), &format!("{linker}.so"));
        s.write("objects.rsp", "-shared value.o\n");
        s.step(Expect::Anything, &format!("{linker} @objects.rsp -o {linker}2.so"));
        s.write("objects.rsp", "-shared other.o\n");
        s.step(Expect::Run, &format!("{linker} @objects.rsp -o {linker}2.so"));
    }
}

/// Every driver with every linker, to shared objects and to programs, with all that a link can be given and can leave.
#[test]
fn every_driver_links_with_every_linker() {
    let mut s = project();
    s.write("objects", "main.o thin.a\n");
    let old = s.tree().file("value.o").unwrap().to_vec();
    let other = s.tree().file("other.o").unwrap().to_vec();
    for driver in ["gcc", "g++", "clang", "clang++"] {
        for linker in ["bfd", "gold", "lld", "mold"] {
            let program = format!("{driver}-{linker}");
            let line =
                format!("{driver} -fuse-ld={linker} -Wl,--build-id -Wl,-Map=map @objects -o {program}");
            s.step(Expect::Miss, &line);
            ["map", &program].iter().for_each(|output| s.remove(output));
            s.step(Expect::Hit, &line);
            s.write("value.o", &other);
            s.step(Expect::Run, &line);
            s.write("value.o", &old);
            if matches!(driver, "gcc" | "clang++") {
                let library =
                    format!("{driver} -fuse-ld={linker} -shared -Wl,--version-script=export.map value.o");
                s.step(Expect::Miss, &library);
                s.remove("a.out");
                s.step(Expect::Hit, &library);
            }
            ["map", "a.out", &program]
                .iter()
                .for_each(|output| s.edit(|w| _ = std::fs::remove_file(w.join(output))));
        }
    }
}

/// Debug information beside the objects, and put together: by the linkers' own programs, and in one command with a link.
#[test]
fn packages_of_split_debug_information_come_back() {
    ["dwp", "llvm-dwp"].iter().for_each(|tool| _ = system_tool(tool));
    let mut s = project();
    let split = "-g -gdwarf-4 -gsplit-dwarf";
    for line in ["-c main.c -o s1.o", "-c value.c -o s2.o"] {
        s.step(Expect::Miss, &format!("gcc {split} {line}"));
    }
    comes_back(&mut s, &format!("gcc {split} s1.o s2.o -o p"), "p");
    let old = s.tree().file("s2.dwo").unwrap().to_vec();
    for (line, package) in [
        ("dwp -e p", "p.dwp"),
        ("dwp s1.dwo s2.dwo -o d.dwp", "d.dwp"),
        ("llvm-dwp -e p -o l.dwp", "l.dwp"),
        ("llvm-dwp s1.dwo s2.dwo -o m.dwp", "m.dwp"),
    ] {
        comes_back(&mut s, line, package);
        s.write("value.c", "int value(void) { int more = 7; return more; }\n");
        s.step(Expect::Anything, &format!("gcc {split} -c value.c -o s2.o"));
        s.step(Expect::Run, line);
        s.write("s2.dwo", &old);
        s.step(Expect::Anything, line);
    }
    for line in [format!("gcc {split} main.c value.c -o q"), format!("clang {split} main.c value.c -o q")] {
        let before: Vec<String> = names_of(&s, "dwo");
        s.step(Expect::Miss, &line);
        for made in names_of(&s, "dwo").iter().filter(|name| !before.contains(name)) {
            s.remove(made);
        }
        s.step(Expect::Anything, &line);
        s.step(Expect::Hit, &line);
    }
}

/// The names of the files that end so.
fn names_of(s: &Scenario, extension: &str) -> Vec<String> {
    let entries = std::fs::read_dir(s.sandbox.path("cached")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(&format!(".{extension}"))).collect()
}

#[test]
fn link_time_optimisation_is_served_or_right() {
    let mut s = project();
    comes_back(&mut s, "gcc -O2 -flto main.c value.c -o l1", "l1");
    comes_back(&mut s, "clang -O2 -flto=thin -fuse-ld=lld main.c value.c -o l2", "l2");
    s.write("value.c", "int value(void) { return 2; }\n");
    s.step(Expect::Miss, "gcc -O2 -flto main.c value.c -o l1");
    for (compiler, linker) in
        [("gcc", "gold"), ("gcc", "bfd"), ("clang", "lld"), ("clang", "mold"), ("clang", "bfd")]
    {
        let line = format!("{compiler} -O2 -flto -fuse-ld={linker} main.c value.c -o l{linker}");
        s.step(Expect::Anything, &line);
        s.step(Expect::Anything, &line);
        s.write("value.c", "int value(void) { return 3; }\n");
        s.step(Expect::Run, &line);
        s.write("value.c", "int value(void) { return 2; }\n");
        s.step(Expect::Anything, &line);
    }
    s.step(Expect::Run, "gcc -O2 -flto=auto main.c value.c -o l3");
    s.step(Expect::Anything, "gcc -O2 -flto=auto main.c value.c -o l3");
}

#[test]
fn a_library_is_noticed_where_it_was_not_and_where_it_changed() {
    let mut s = project();
    let line = "gcc main.o -Lfirst -Lsecond -lvalue -o p";
    comes_back(&mut s, line, "p");
    let copy = |from: &'static str, to: &'static str| {
        move |w: &std::path::Path| _ = std::fs::copy(w.join(from), w.join(to)).unwrap()
    };
    s.edit(copy("other.a", "first/libvalue.a"));
    s.step(Expect::Miss, line);
    s.remove("first/libvalue.a");
    s.step(Expect::Hit, line);
    s.edit(copy("other.a", "second/libvalue.a"));
    s.step(Expect::Miss, line);
    s.sandbox.set("LIBRARY_PATH", "elsewhere");
    s.step(Expect::Miss, line);
}

#[test]
fn scripts_and_response_files_are_inputs() {
    let mut s = project();
    let shared = "gcc -shared -Wl,--version-script=export.map value.o -o libv.so";
    comes_back(&mut s, shared, "libv.so");
    s.write("export.map", "{ global: *; };\n");
    s.step(Expect::Miss, shared);
    s.write("objects", "main.o value.o\n");
    comes_back(&mut s, "gcc @objects -o p", "p");
    s.write("objects", "main.o other.o\n");
    s.step(Expect::Miss, "gcc @objects -o p");
    s.write("implicit.ld", "INPUT(main.o value.o)\n");
    comes_back(&mut s, "gcc implicit.ld -o q", "q");
    s.write("implicit.ld", "INPUT(main.o other.o)\n");
    s.step(Expect::Miss, "gcc implicit.ld -o q");
}

#[test]
fn failing_links_come_back_with_their_messages() {
    let mut s = project();
    let line = "gcc main.o -o p";
    let first = s.step(Expect::Miss, line);
    assert!(!first.success() && first.err().contains("undefined reference"));
    s.step(Expect::Hit, line);
    s.write("p", "an older one");
    s.step(Expect::Run, line);
    s.step(Expect::Anything, "gcc main.o -lnowhere -o p");
    s.step(Expect::Anything, "gcc main.o value.o -o nowhere/p");
    s.edit(|w| std::fs::create_dir(w.join("nowhere")).unwrap());
    s.step(Expect::Run, "gcc main.o value.o -o nowhere/p");
}

#[test]
fn what_hangs_on_chance_passes_through() {
    let mut s = project();
    s.unlike("p");
    s.step(Expect::PassThrough, "gcc -Wl,--build-id=uuid main.o value.o -o p");
    s.write("@rsp", "");
    s.step(Expect::PassThrough, "gcc -Wl,@rsp main.o value.o -o p");
    s.step(Expect::NotStored, "ld --build-id=uuid -shared value.o -o p");
    // gold's incremental links hold the times of what was linked.
    s.step(Expect::PassThrough, "gcc -fuse-ld=gold -Wl,--incremental-full,-z,norelro main.o value.o -o p");
    for time in [1_500_000_000, 1_500_000_001] {
        s.edit(|w| ["main.o", "value.o"].iter().for_each(|object| set_mtime(&w.join(object), time)));
        s.step(Expect::Run, "ld.gold --incremental-full -z norelro -e main main.o value.o -o q");
    }
    // A program for Windows holds the time of its link, whoever asks for one.
    s.step(Expect::NotStored, "ld -mi386pep main.o value.o -e main -o p");
    s.sandbox.set("LDEMULATION", "i386pep");
    s.step(Expect::NotStored, "ld main.o value.o -e main -o p");
}

/// Hard-linked, read-only, of another mode, empty, a link: each is what the linker makes of it.
#[test]
fn what_stands_in_the_outputs_place_is_treated_as_the_linker_does() {
    let mut s = project();
    for line in ["gcc main.o value.o -o p", "ld.lld -shared value.o -o p", "ld.gold -shared value.o -o p"] {
        s.step(Expect::Miss, line);
        // Now it is known what becomes of an older one.
        s.write("value.c", "int value(void) { return 7; }\n");
        s.step(Expect::Anything, line);
        s.edit(|w| _ = std::fs::hard_link(w.join("p"), w.join("twin")));
        s.step(Expect::Run, line);
        s.edit(|w| {
            std::fs::remove_file(w.join("twin")).unwrap();
            std::fs::hard_link(w.join("p"), w.join("twin")).unwrap();
        });
        s.step(Expect::Hit, line);
        s.edit(|w| std::fs::set_permissions(w.join("p"), PermissionsExt::from_mode(0o500)).unwrap());
        s.step(Expect::Anything, line);
        s.edit(|w| {
            std::fs::write(w.join("empty"), "").unwrap();
            std::fs::set_permissions(w.join("empty"), PermissionsExt::from_mode(0o600)).unwrap();
            std::fs::rename(w.join("empty"), w.join("p")).unwrap();
        });
        s.step(Expect::Anything, line);
        s.edit(|w| {
            std::fs::rename(w.join("p"), w.join("target")).unwrap();
            std::os::unix::fs::symlink("target", w.join("p")).unwrap();
        });
        s.step(Expect::Anything, line);
        s.edit(|w| ["p", "twin", "target"].iter().for_each(|name| _ = std::fs::remove_file(w.join(name))));
    }
}

/// Some linkers take an older program's name away, some say that it is busy, and so does whoever stands for them.
#[test]
fn a_running_program_is_linked_over_as_the_linker_does() {
    let s = &mut project();
    s.write("main.c", "#include <unistd.h>\nint main(void) { char c; return read(0, &c, 1) != 0; }\n");
    let bare = s.sandbox.path("bare/p");
    let cached = s.sandbox.path("cached/p");
    for linker in ["bfd", "gold", "lld", "mold"] {
        let line = format!("gcc -fuse-ld={linker} main.c -o p");
        s.step(Expect::Anything, &line);
        for _ in 0..2 {
            let start = |p: &std::path::Path| Command::new(p).stdin(Stdio::piped()).spawn().unwrap();
            let mut running = [start(&bare), start(&cached)];
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, "objcopy -g p p");
            s.step(Expect::Anything, "cp main.c p");
            for child in &mut running {
                drop(child.stdin.take());
                assert!(child.wait().unwrap().success());
            }
            s.step(Expect::Anything, &line);
        }
        s.remove("p");
    }
}
