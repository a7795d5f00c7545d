//! Whatever a compile's surroundings have to say: variables, the tools it is made of, the terminal it talks to.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use zccache_integration_tests::sandbox::system_tool;
use zccache_integration_tests::{Expect, Sandbox, Scenario};

fn with(files: &[(&str, &str)]) -> Scenario {
    let s = Scenario::new();
    for (path, text) in files {
        s.write(path, text);
    }
    s
}

/// A program that warns.
const WARNS: &str = "int f(void) { int unused; return \"x\" != 0; }\n";

/// Each value of a variable has its own results, which come back with it.
fn each_value_counts(s: &mut Scenario, name: &str, values: &[&str], line: &str) {
    for expect in [Expect::Miss, Expect::Hit] {
        for value in values {
            s.sandbox.set(name, value);
            s.step(expect, line);
        }
    }
    s.sandbox.unset(name);
}

#[test]
fn variables_that_say_where_headers_are() {
    let files =
        [("a.c", "#include <h.h>\nint h = H;\n"), ("one/h.h", "#define H 1\n"), ("two/h.h", "#define H 2\n")];
    for tool in ["gcc", "clang"] {
        for name in ["CPATH", "C_INCLUDE_PATH"] {
            each_value_counts(
                &mut with(&files),
                name,
                &["one", "two", "one:two", "two:one"],
                &format!("{tool} -c a.c"),
            );
        }
    }
    for tool in ["g++", "clang++"] {
        let mut s = with(&files);
        each_value_counts(&mut s, "CPLUS_INCLUDE_PATH", &["one", "two"], &format!("{tool} -x c++ -c a.c"));
    }
}

#[test]
fn variables_that_change_messages() {
    for (tool, name, values) in [
        ("gcc", "LC_ALL", &["C", "C.UTF-8", "POSIX"][..]),
        ("gcc", "LANG", &["C", "de_DE.UTF-8"]),
        ("gcc", "LANGUAGE", &["de", "en"]),
        ("gcc", "GCC_COLORS", &["", "error=01;31", "warning=01;32"]),
        ("gcc", "TERM", &["dumb", "xterm-256color"]),
        ("gcc", "COLUMNS", &["40", "200"]),
        ("gcc", "GCC_EXTRA_DIAGNOSTIC_OUTPUT", &["fixits-v1", "fixits-v2"]),
        ("clang", "LC_ALL", &["C", "C.UTF-8"]),
        ("clang", "COLUMNS", &["40", "200"]),
        ("clang", "CLICOLOR_FORCE", &["0", "1"]),
        ("clang", "NO_COLOR", &["1"]),
    ] {
        let mut s = with(&[("a.c", WARNS)]);
        each_value_counts(&mut s, name, values, &format!("{tool} -Wall -fdiagnostics-color=always -c a.c"));
    }
}

#[test]
fn a_variable_that_nobody_reads_does_not_matter() {
    let mut s = with(&[("a.c", WARNS)]);
    s.step(Expect::Miss, "gcc -c a.c");
    for name in ["SOME_OTHER_VARIABLE", "MAKEFLAGS", "SHLVL", "OLDPWD"] {
        s.sandbox.set(name, "1");
        s.step(Expect::Hit, "gcc -c a.c");
    }
}

#[test]
fn gccs_own_search_for_its_programs_is_followed() {
    let mut s = with(&[("a.c", WARNS)]);
    s.step(Expect::Miss, "gcc -c a.c");
    // An assembler of the project's own, by COMPILER_PATH, GCC_EXEC_PREFIX, -B, and the path.
    let assembler = |n: u32| format!("exec /usr/bin/as --defsym own_{n}=1 \"$@\"");
    s.script("own/as", &assembler(1));
    // (Under GCC_EXEC_PREFIX gcc looks in directories named after itself; whether it looks here is its affair.)
    for (name, value, expect) in
        [("COMPILER_PATH", "own", Expect::Run), ("GCC_EXEC_PREFIX", "own/", Expect::Anything)]
    {
        s.sandbox.set(name, s.sandbox.work().join(value));
        s.script("own/as", &assembler(1));
        s.step(expect, "gcc -c a.c");
        s.step(Expect::Anything, "gcc -c a.c");
        s.script("own/as", &assembler(2));
        s.step(expect, "gcc -c a.c");
        s.sandbox.unset(name);
        s.step(Expect::Hit, "gcc -c a.c");
    }
    s.script("own/as", &assembler(1));
    s.step(Expect::Miss, "gcc -Bown/ -c a.c");
    s.step(Expect::Hit, "gcc -Bown/ -c a.c");
    s.rewrite("own/as", format!("#!/bin/sh\n{}\n", assembler(2)));
    s.step(Expect::Miss, "gcc -Bown/ -c a.c");
    s.remove("own/as");
    s.step(Expect::Miss, "gcc -Bown/ -c a.c");
    // Where there was none, one appears.
    s.script("own/as", &assembler(3));
    s.step(Expect::Miss, "gcc -Bown/ -c a.c");
}

#[test]
fn an_assembler_that_appears_on_the_path_is_found() {
    let mut s = with(&[("a.c", WARNS), ("early/nothing", "")]);
    let path = format!("{}:{}", s.sandbox.work().join("early").display(), s.sandbox.var("PATH").display());
    s.sandbox.set("PATH", &path);
    // (clang looks beside itself first.)
    for (tool, expect) in [("gcc", Expect::Run), ("clang -fno-integrated-as", Expect::Anything)] {
        let line = format!("{tool} -c a.c");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.script("early/as", "exec /usr/bin/as --defsym early=1 \"$@\"");
        s.step(expect, &line);
        s.remove("early/as");
        s.step(Expect::Hit, &line);
    }
}

/// A script that stands for a part of the compiler may tell the time, which the compiler itself is trusted not to.
#[test]
fn an_assembler_of_somebodys_own_may_tell_the_time() {
    let mut s = with(&[("a.c", WARNS), ("a.cc", "int a;\n")]);
    s.edit(|w| {
        let script = "#!/bin/bash\nexec /usr/bin/as --defsym at_$EPOCHSECONDS=1 \"$@\"\n";
        fs::create_dir(w.join("early")).unwrap();
        fs::write(w.join("early/as"), script).unwrap();
        fs::set_permissions(w.join("early/as"), PermissionsExt::from_mode(0o755)).unwrap();
    });
    let path = format!("{}:{}", s.sandbox.work().join("early").display(), s.sandbox.var("PATH").display());
    s.sandbox.set("PATH", &path);
    s.unlike("a.o");
    for line in ["gcc -c a.c", "g++ -c a.cc", "gcc -O2 -c a.c"] {
        (0..3).for_each(|_| _ = s.step(Expect::NotStored, line));
    }
}

/// Everything that a compile is made of is copied, so that it can be replaced.
#[test]
fn a_replaced_cc1_is_another_compiler() {
    let mut s = with(&[("a.c", "int f(void) { return ONE; }\n")]);
    let real = Command::new("gcc").arg("-print-prog-name=cc1").output().unwrap().stdout;
    let real = String::from_utf8(real).unwrap().trim().to_owned();
    let body = |n: u32| format!("exec {real} -DONE={n} \"$@\"");
    for (first, second) in [(1, 2), (2, 1)] {
        s.script("own/cc1", &body(first));
        s.step(Expect::Anything, "gcc -Bown -c a.c");
        s.rewrite("own/cc1", format!("#!/bin/sh\n{}\n", body(second)));
        s.step(Expect::Anything, "gcc -Bown -c a.c");
    }
    s.step(Expect::Hit, "gcc -Bown -c a.c");
    s.edit(|w| fs::set_permissions(w.join("own/cc1"), PermissionsExt::from_mode(0o644)).unwrap());
    s.step(Expect::Run, "gcc -Bown -c a.c");
}

#[test]
fn a_compiler_replaced_in_place_with_its_old_time_is_another_compiler() {
    let mut s = with(&[("a.c", WARNS)]);
    let gcc = fs::read(fs::canonicalize(system_tool("gcc")).unwrap()).unwrap();
    s.edit(|w| {
        fs::create_dir(w.join("bin")).unwrap();
        fs::write(w.join("bin/gcc"), &gcc).unwrap();
        fs::set_permissions(w.join("bin/gcc"), PermissionsExt::from_mode(0o755)).unwrap();
    });
    let line = format!("{} -c a.c", s.sandbox.work().join("bin/gcc").display());
    s.step(Expect::Miss, &line);
    s.step(Expect::Hit, &line);
    // Other bytes behind the end of the program: it does the same, but nobody can know that.
    let mut padded = gcc.clone();
    padded.extend_from_slice(b"padding");
    s.rewrite("bin/gcc", &padded);
    s.step(Expect::Miss, &line);
    s.rewrite("bin/gcc", &gcc);
    s.step(Expect::Hit, &line);
    s.rewrite("bin/gcc", "#!/bin/sh\necho other >&2\nexit 3\n");
    s.step(Expect::Run, &line);
}

#[test]
fn a_compiler_that_is_a_script_hangs_on_what_the_script_reads() {
    for name in ["gcc", "clang"] {
        let mut s = with(&[("a.c", "int f(void) { return ONE; }\n"), ("flags", "-DONE=1\n")]);
        s.script(
            &format!("bin/{name}"),
            &format!("if [ -e extra ]; then set -- -DEXTRA \"$@\"; fi\nexec /usr/bin/{name} $(cat flags) $OWN \"$@\""),
        );
        let line = format!("{} -c a.c", s.sandbox.work().join("bin").join(name).display());
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.rewrite("flags", "-DONE=2\n");
        s.step(Expect::Miss, &line);
        s.sandbox.set("OWN", "-g");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.sandbox.set("OWN", "-O2");
        s.step(Expect::Miss, &line);
        s.sandbox.unset("OWN");
        s.step(Expect::Hit, &line);
        s.write("extra", "");
        s.step(Expect::Miss, &line);
        s.remove("extra");
        s.step(Expect::Hit, &line);
    }
}

#[test]
fn a_compiler_that_is_a_link_is_what_it_leads_to() {
    let mut s = with(&[("a.c", "#ifdef __clang__\nint clang;\n#else\nint gcc;\n#endif\n")]);
    let link: fn(&Path, &str) = |w, target| {
        let _ = fs::remove_file(w.join("cc"));
        symlink(target, w.join("cc")).unwrap();
    };
    let line = format!("{} -c a.c", s.sandbox.work().join("cc").display());
    for (target, expect) in [
        ("/usr/bin/gcc", Expect::Miss),
        ("/usr/bin/clang", Expect::Miss),
        ("/usr/bin/gcc", Expect::Hit),
        ("/usr/bin/clang", Expect::Hit),
    ] {
        s.edit(|w| link(w, target));
        s.step(expect, &line);
    }
}

#[test]
fn the_processor_is_asked_by_the_compiler_itself() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[("a.c", "float f(float *a, float *b) { return a[0] * b[0] + a[1]; }\n")]);
        for flag in ["-march=native", "-mtune=native", "-mcpu=native"] {
            let line = format!("{tool} -O2 {flag} -c a.c");
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
        }
        let line = format!("{tool} -O2 -march=native -c a.c");
        s.step(Expect::Hit, &line);
        s.step(Expect::Anything, &format!("{tool} -O2 -march=x86-64 -c a.c"));
    }
}

#[test]
fn clangs_override_options_are_followed() {
    let mut s = with(&[("a.c", "#ifdef X\nint x;\n#endif\nint f(int n) { return n * 3; }\n")]);
    each_value_counts(&mut s, "CCC_OVERRIDE_OPTIONS", &["# +-DX", "# O2", "# x-g"], "clang -g -c a.c");
}

#[test]
fn dependencies_output_is_the_compilers_own() {
    for name in ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"] {
        let mut s = with(&[("a.c", "#include \"h.h\"\n"), ("h.h", "")]);
        s.sandbox.set(name, "deps target");
        for tool in ["gcc", "clang", "gcc"] {
            s.step(Expect::PassThrough, &format!("{tool} -c a.c"));
        }
        s.sandbox.unset(name);
        s.step(Expect::Miss, "gcc -c a.c");
    }
}

#[test]
fn logs_that_clang_appends_to_are_its_own() {
    let mut s = with(&[("a.c", "int x;\n")]);
    s.sandbox.set("CC_PRINT_OPTIONS", "1");
    s.sandbox.set("CC_PRINT_OPTIONS_FILE", "options.log");
    s.unlike("options.log");
    s.step(Expect::PassThrough, "clang -c a.c");
    s.step(Expect::PassThrough, "clang -c a.c");
}

#[test]
fn where_temporary_files_go_does_not_matter_unless_it_shows() {
    let mut s = with(&[("a.c", "int x;\n")]);
    s.step(Expect::Miss, "gcc -c a.c");
    let other = s.sandbox.path("home");
    s.sandbox.set("TMPDIR", other);
    s.step(Expect::Anything, "gcc -c a.c");
    s.sandbox.set("TMPDIR", "/nowhere/at/all");
    s.step(Expect::Anything, "gcc -c a.c");
}

#[test]
fn another_name_of_the_working_directory_shows_in_debug_information() {
    let mut s = with(&[("real/a.c", "int x;\n")]);
    s.edit(|w| symlink("real", w.join("link")).unwrap());
    let work = s.sandbox.work();
    let within = |pwd: &'static str, wrapped: bool| {
        let work = work.clone();
        move |sandbox: &Sandbox| {
            let mut command = if wrapped { sandbox.wrapper(["gcc"]) } else { sandbox.command("gcc") };
            command.args(["-g", "-c", "a.c"]).current_dir(work.join("real")).env("PWD", work.join(pwd));
            command
        }
    };
    for (pwd, expect) in
        [("real", Expect::Miss), ("link", Expect::Miss), ("real", Expect::Hit), ("link", Expect::Hit)]
    {
        s.compare(expect, within(pwd, false), within(pwd, true));
    }
}

/// At a terminal there are colours, in a pipe there are none; neither is replayed for the other.
#[test]
fn a_terminal_gets_what_the_compiler_prints_at_a_terminal() {
    let script = system_tool("script").display().to_string();
    for tool in ["gcc", "clang"] {
        let mut s = with(&[("a.c", WARNS)]);
        s.sandbox.set("TERM", "xterm");
        let at_terminal = |wrapped: bool| {
            let script = script.clone();
            move |sandbox: &Sandbox| {
                let wrapper = sandbox.wrapper([""; 0]);
                let prefix =
                    if wrapped { wrapper.get_program().display().to_string() } else { String::new() };
                let mut command = sandbox.command(&script);
                command.args(["-qec", &format!("{prefix} {tool} -Wall -c a.c"), "/dev/null"]);
                command
            }
        };
        let line = format!("{tool} -Wall -c a.c");
        let piped = s.step(Expect::Miss, &line);
        let shown = s.compare(Expect::Anything, at_terminal(false), at_terminal(true));
        assert!(shown.out().contains("\u{1b}["), "no colours at a terminal: {shown:?}");
        assert!(!piped.err().contains("\u{1b}["), "colours in a pipe: {piped:?}");
        s.compare(Expect::Anything, at_terminal(false), at_terminal(true));
        s.step(Expect::Hit, &line);
    }
}

/// A plugin is a library that the compiler loads: it is read like any other file.
#[test]
fn a_gcc_plugin_is_an_input() {
    let directory = Command::new("gcc").arg("-print-file-name=plugin").output().unwrap().stdout;
    let headers = format!("{}/include", String::from_utf8(directory).unwrap().trim());
    assert!(Path::new(&headers).is_dir(), "this test needs gcc's plugin headers: run `make tools`");
    let s = Scenario::new();
    let made = s.sandbox.path("home");
    for version in ["one", "two"] {
        let text = format!(
            "#include <gcc-plugin.h>\n#include <plugin-version.h>\nint plugin_is_GPL_compatible;\n\
             static void unit(void *, void *) {{ inform(UNKNOWN_LOCATION, \"{version}\"); }}\n\
             int plugin_init(plugin_name_args *a, plugin_gcc_version *) {{\n\
             register_callback(a->base_name, PLUGIN_START_UNIT, unit, nullptr); return 0; }}\n"
        );
        // What `inform` is declared in is heavy; its declaration is not.
        let text = text.replace("#include <plugin-version.h>", "#include <diagnostic-core.h>");
        fs::write(made.join("p.cc"), text).unwrap();
        let output = Command::new("g++")
            .args(["-shared", "-fPIC", "-fno-rtti", "-w", &format!("-I{headers}"), "p.cc", "-o", version])
            .current_dir(&made)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut s = s;
    s.write("a.c", "int x;\n");
    let use_version = |s: &Scenario, version: &str| s.write("p.so", fs::read(made.join(version)).unwrap());
    let line = "gcc -fplugin=./p.so -c a.c";
    use_version(&s, "one");
    let first = s.step(Expect::Miss, line);
    assert!(first.err().contains("one"), "{first:?}");
    s.step(Expect::Hit, line);
    use_version(&s, "two");
    let second = s.step(Expect::Miss, line);
    assert!(second.err().contains("two"), "{second:?}");
    use_version(&s, "one");
    s.step(Expect::Hit, line);
}

/// clang loads any library; what that does when it is loaded, it does to the compile. Edited in place, its old time put
/// back.
#[test]
fn a_clang_plugin_is_an_input() {
    let mut s = with(&[("a.c", "int x;\n")]);
    let made = s.sandbox.path("home");
    for version in ["one", "two"] {
        let text = format!(
            "#include <unistd.h>\n__attribute__((constructor)) void f(void) {{ write(2, \"{version}\\n\", 4); }}\n"
        );
        fs::write(made.join("p.c"), text).unwrap();
        let status = Command::new("gcc")
            .args(["-w", "-shared", "-fPIC", "p.c", "-o", version])
            .current_dir(&made)
            .status();
        assert!(status.unwrap().success());
    }
    s.write("p.so", fs::read(made.join("one")).unwrap());
    for line in ["clang -fplugin=./p.so -c a.c", "clang -Xclang -load -Xclang ./p.so -c a.c"] {
        for version in ["one", "two"] {
            s.rewrite("p.so", fs::read(made.join(version)).unwrap());
            let first = s.step(Expect::Miss, line);
            assert!(first.err().contains(version), "{first:?}");
            s.step(Expect::Hit, line);
        }
        s.rewrite("p.so", fs::read(made.join("one")).unwrap());
        s.step(Expect::Hit, line);
    }
    s.remove("p.so");
    for line in ["clang -fplugin=./p.so -c a.c", "clang -fplugin=p.so -c a.c"] {
        let missing = s.step(Expect::Run, line);
        assert!(!missing.success());
    }
}

#[test]
fn what_is_loaded_into_the_compiler_is_an_input() {
    let mut s = with(&[("a.c", "int f(void) { return 1; }\n")]);
    let made = s.sandbox.path("home");
    for value in [1, 2] {
        fs::write(
            made.join("p.c"),
            format!(
                "__attribute__((constructor)) void f(void) {{ static volatile int x = {value}; (void)x; }}\n"
            ),
        )
        .unwrap();
        let status = Command::new("gcc")
            .args(["-shared", "-fPIC", "p.c", "-o", &format!("{value}.so")])
            .current_dir(&made)
            .status();
        assert!(status.unwrap().success());
    }
    s.sandbox.set("LD_PRELOAD", s.sandbox.work().join("p.so"));
    for (value, expect) in [(1, Expect::Miss), (1, Expect::Hit), (2, Expect::Miss), (1, Expect::Hit)] {
        s.write("p.so", fs::read(made.join(format!("{value}.so"))).unwrap());
        s.step(expect, "gcc -c a.c");
    }
}
