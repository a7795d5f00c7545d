//! Symbolic links on the way to headers: gcc resolves them, and what it learns shows in `__FILE__`.

use std::os::unix::fs::symlink;
use std::time::Duration;

use zccache_integration_tests::{Expect, Scenario};

/// A link that was made in the same tick of the clock as a compile began is not trusted.
fn let_time_pass() {
    std::thread::sleep(Duration::from_millis(15));
}

/// Compiles `a.c` with the system headers in `include`, by its absolute path.
fn compile(s: &Scenario, tool: &str) -> String {
    format!("{tool} -g -isystem {} -c a.c", s.sandbox.work().join("include").display())
}

#[test]
fn a_header_behind_a_link_is_compiled_again_when_the_link_leads_elsewhere() {
    // (clang shows the path as spelled, so that equal headers are equal to it.)
    for tool in ["gcc", "g++"] {
        let mut s = Scenario::new();
        s.write("a.c", "#include <a_long_name.h>\nconst char *a = NAME;\n");
        s.write("s/r.h", "#define NAME __FILE__\n");
        s.write("t/r.h", "#define NAME __FILE__\n");
        s.write("include/placeholder", "");
        s.edit(|work| symlink("../s/r.h", work.join("include/a_long_name.h")).unwrap());
        let_time_pass();
        let line = compile(&s, tool);
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.edit(|work| {
            std::fs::remove_file(work.join("include/a_long_name.h")).unwrap();
            symlink("../t/r.h", work.join("include/a_long_name.h")).unwrap();
        });
        let_time_pass();
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
    }
}

#[test]
fn a_directory_of_headers_that_becomes_a_link_to_itself_is_noticed() {
    for tool in ["gcc", "g++"] {
        let mut s = Scenario::new();
        s.write("a.c", "#include <a_long_directory/h.h>\nconst char *a = NAME;\n");
        s.write("include/a_long_directory/h.h", "#define NAME __FILE__\n");
        let_time_pass();
        let line = compile(&s, tool);
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.edit(|work| {
            std::fs::rename(work.join("include/a_long_directory"), work.join("d")).unwrap();
            symlink("../d", work.join("include/a_long_directory")).unwrap();
        });
        let_time_pass();
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
    }
}

#[test]
fn a_search_directory_behind_a_link_that_leads_elsewhere_is_noticed() {
    let mut s = Scenario::new();
    s.write("a.c", "#include <h.h>\nconst char *a = NAME;\n");
    s.write("s/h.h", "#define NAME __FILE__\n");
    s.write("t/h.h", "#define NAME __FILE__\n");
    s.edit(|work| symlink("s", work.join("include")).unwrap());
    let_time_pass();
    let line = compile(&s, "gcc");
    s.step(Expect::Miss, &line);
    s.step(Expect::Hit, &line);
    s.edit(|work| {
        std::fs::remove_file(work.join("include")).unwrap();
        symlink("t", work.join("include")).unwrap();
    });
    let_time_pass();
    s.step(Expect::Miss, &line);
    s.step(Expect::Hit, &line);
}

#[test]
fn headers_named_by_macros_are_cached_from_the_second_compile_on() {
    let mut s = Scenario::new();
    s.write("a.c", "#define H <a_long_name.h>\n#include H\nconst char *a = NAME;\n");
    s.write("s/r.h", "#define NAME __FILE__\n");
    s.write("t/r.h", "#define NAME __FILE__\n");
    s.write("include/placeholder", "");
    s.edit(|work| symlink("../s/r.h", work.join("include/a_long_name.h")).unwrap());
    let_time_pass();
    let line = compile(&s, "gcc");
    s.step(Expect::Anything, &line);
    s.step(Expect::Miss, &line);
    s.step(Expect::Hit, &line);
    s.edit(|work| {
        std::fs::remove_file(work.join("include/a_long_name.h")).unwrap();
        symlink("../t/r.h", work.join("include/a_long_name.h")).unwrap();
    });
    let_time_pass();
    s.step(Expect::Miss, &line);
    s.step(Expect::Hit, &line);
}
