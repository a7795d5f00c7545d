//! Emscripten: compiles, links and archives by its scripts come from the cache, at the price of any hit.

use zccache_integration_tests::sandbox::{run, system_tool};
use zccache_integration_tests::{Expect, Scenario};

/// Where Debian's package keeps the file that tells Emscripten where its parts are.
const CONFIGURATION: &str = "/usr/share/emscripten/.emscripten";

fn project() -> Scenario {
    ["emcc", "em++", "emar", "node"].iter().for_each(|tool| _ = system_tool(tool));
    let mut s = Scenario::new();
    // Where Debian keeps the modules of Emscripten's optimizer.
    s.sandbox.set("NODE_PATH", "/usr/share/nodejs:/usr/lib/nodejs");
    s.write("a.c", "#include <stdio.h>\n#include \"a.h\"\nint main(void) { puts(A); return 0; }\n");
    s.write("a.h", "#define A \"one\"\n");
    s
}

#[test]
fn a_compile_an_archive_and_a_link_come_back() {
    let mut s = project();
    s.step(Expect::Miss, "emcc -c a.c -o a.o");
    s.step(Expect::Hit, "emcc -c a.c -o a.o");
    s.step(Expect::Miss, "emar rcs liba.a a.o");
    s.step(Expect::Miss, "emcc a.o -o a.js");
    s.step(Expect::Hit, "emcc a.o -o a.js");
    s.edit(|w| std::fs::remove_file(w.join("a.wasm")).unwrap());
    s.step(Expect::Hit, "emcc a.o -o a.js");
    let mut node = s.sandbox.command("node");
    node.args(["--no-experimental-fetch", "a.js"]).current_dir(s.sandbox.path("cached"));
    assert_eq!(run(&mut node).expect_success().out(), "one\n");
    s.write("a.h", "#define A \"two\"\n");
    s.step(Expect::Miss, "emcc -c a.c -o a.o");
    s.step(Expect::Miss, "emcc a.o -o a.js");
    s.write("a.h", "#define A \"one\"\n");
    s.step(Expect::Hit, "emcc -c a.c -o a.o");
    s.step(Expect::Hit, "emcc a.o -o a.js");
}

#[test]
fn side_outputs_and_variables_count() {
    let mut s = project();
    let line = "em++ -x c a.c -g -gsource-map --source-map-base / -o p.html";
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
    // The packager gives each package a random number.
    s.write("data.txt", "data\n");
    s.unlike("q.js");
    s.step(Expect::NotStored, "emcc a.c --preload-file data.txt -o q.js");
    s.step(Expect::Miss, "emcc -c a.c");
    s.sandbox.set("EMCC_CFLAGS", "-DB=1");
    s.step(Expect::Miss, "emcc -c a.c");
    s.write("a.c", "const char *when = __TIME__;\n");
    s.unlike("a.o");
    s.step(Expect::NotStored, "emcc -c a.c");
}

/// A page with a worker and its threads, and a module alone.
#[test]
fn pages_workers_and_modules_come_back() {
    let mut s = project();
    for (line, outputs) in [
        ("emcc -pthread a.c -o t.html", &["t.html", "t.js", "t.wasm", "t.worker.js"][..]),
        ("emcc a.c -o m.wasm", &["m.wasm"]),
    ] {
        s.step(Expect::Miss, line);
        outputs.iter().for_each(|output| s.remove(output));
        s.step(Expect::Hit, line);
    }
}

/// The file that tells Emscripten where its parts are, wherever a variable says that it is.
#[test]
fn the_configuration_is_an_input() {
    let mut s = project();
    let installed = std::fs::read_to_string(CONFIGURATION).expect("Debian's configuration of Emscripten");
    s.write("config", &installed);
    s.sandbox.set("EM_CONFIG", s.sandbox.work().join("config"));
    let line = "em++ -x c -c a.c -o a.o";
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
    s.write("config", format!("{installed}\n# edited\n"));
    s.step(Expect::Miss, line);
    s.write("config", installed);
    s.step(Expect::Hit, line);
    s.sandbox.set("EMSDK_QUIET", "1");
    s.step(Expect::Miss, line);
}

/// Debian's cache of system libraries is frozen; another is locked each time, and filled when something is missing.
#[test]
fn emscriptens_own_cache_is_its_own_business() {
    let mut s = project();
    let installed = std::fs::read_to_string(CONFIGURATION).expect("Debian's configuration of Emscripten");
    s.write("config", installed.replace("FROZEN_CACHE = True", "FROZEN_CACHE = False"));
    s.sandbox.set("EM_CONFIG", s.sandbox.work().join("config"));
    s.sandbox.set("EM_CACHE", s.sandbox.path("emscripten-cache"));
    // The tool itself says that it fills its cache, and neither that nor a result of it is stored.
    s.edit(|_| {
        run(&mut s.sandbox.wrapper(["emcc", "-c", "a.c", "-o", "filling.o"])).expect_success();
    });
    assert_eq!(s.sandbox.stats().counters.hits, 0);
    let line = "emcc -c a.c -o a.o";
    s.step(Expect::Miss, line);
    s.remove("a.o");
    s.step(Expect::Hit, line);
    // A header of that cache is an input like any other.
    let header = s.sandbox.path("emscripten-cache/sysroot/include/stdio.h");
    let old = std::fs::read_to_string(&header).expect("the cache has been filled");
    std::fs::write(&header, format!("{old}\nstatic const int added = 1;\n"))
        .expect("a header can be written");
    s.step(Expect::Miss, line);
}
