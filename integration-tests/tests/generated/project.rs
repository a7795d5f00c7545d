//! A random project as data: which files it has, what is in them, and how one state of it becomes another.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use zccache_integration_tests::scenario::set_mtime;

use crate::chance::Chance;

/// Directories that headers live in; which of them a compile searches, and in which order, its flags say.
pub const HEADER_DIRECTORIES: [&str; 8] = ["src", "inc/a", "inc/b", "inc/c", "quote", "sys", "after", "env"];

/// Header names. Each may exist in any directory, and includes only later ones, so that nothing goes round.
const HEADER_COUNT: usize = 5;

/// What is compiled.
pub const SOURCES: [&str; 4] = ["src/m0.c", "src/m1.c", "src/m2.cc", "src/m3.c"];

/// File times are set, never left to the clock, so that both twins have the same: `__TIMESTAMP__` tells them, and
/// a precompiled header or `#pragma once` compares them. They begin here (seconds since the epoch).
const TIME_BEGIN: u64 = 1_500_000_000;

/// One name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A file: its text, and its modification time in seconds since the epoch.
    File(String, u64),
    /// A symbolic link.
    Link(String),
}

/// Everything of a project that no tool has made, by path.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Project {
    pub nodes: BTreeMap<String, Node>,
    clock: u64,
}

/// How a changed file gets its new content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// By the same inode.
    InPlace,
    /// As editors and `git` do: written beside, renamed over.
    RenameOver,
    /// Removed and made anew.
    Anew,
}

impl Project {
    /// A random one.
    pub fn random(chance: &mut Chance) -> Self {
        let mut project = Self { clock: TIME_BEGIN, ..Self::default() };
        for number in 0..HEADER_COUNT {
            // Most names are found whatever the flags: failing compiles are wanted, but not all of the time.
            for directory in HEADER_DIRECTORIES {
                if directory == "src" || chance.percent(35) {
                    project.add_header(directory, number, chance);
                }
            }
        }
        for source in SOURCES {
            project.add_source(source, chance);
        }
        project.put("src/data.bin", "0123".into());
        project.nodes.insert("inc/link".into(), Node::Link("a".into()));
        project
    }

    /// A time that no file has yet.
    pub fn tick(&mut self) -> u64 {
        self.clock += 3;
        self.clock
    }

    /// Writes a file with a new time.
    pub fn put(&mut self, path: &str, text: String) {
        let time = self.tick();
        self.nodes.insert(path.into(), Node::File(text, time));
    }

    /// A header with new content.
    pub fn add_header(&mut self, directory: &str, number: usize, chance: &mut Chance) {
        let text = header(directory, number, chance);
        self.put(&format!("{directory}/h{number}.h"), text);
    }

    /// A source with new content.
    pub fn add_source(&mut self, path: &str, chance: &mut Chance) {
        let text = source(path, chance);
        self.put(path, text);
    }

    /// Some header that is there.
    pub fn some_header(&self, chance: &mut Chance) -> Option<String> {
        let headers: Vec<&str> =
            self.nodes.keys().filter(|p| p.ends_with(".h")).map(String::as_str).collect();
        (!headers.is_empty()).then(|| chance.of(&headers).to_owned())
    }

    /// Makes what is in `work` go from this state to `next`.
    pub fn change_into(&self, next: &Self, work: &Path, way: Way) {
        for (path, node) in &self.nodes {
            let kept = match (node, next.nodes.get(path)) {
                (Node::File(..), Some(Node::File(..))) => true,
                (old, Some(new)) => old == new,
                (_, None) => false,
            };
            if !kept {
                std::fs::remove_file(work.join(path)).expect("a file can be removed");
            }
        }
        for (path, node) in &next.nodes {
            if self.nodes.get(path) != Some(node) {
                write(&work.join(path), node, self.nodes.get(path), way);
            }
        }
    }
}

/// Puts a node in place of `old`, which is there still if both are files.
fn write(path: &Path, node: &Node, old: Option<&Node>, way: Way) {
    std::fs::create_dir_all(path.parent().expect("a path in the project")).expect("a directory can be made");
    match node {
        Node::Link(target) => std::os::unix::fs::symlink(target, path).expect("a link can be made"),
        Node::File(text, time) => {
            if matches!(old, Some(Node::File(same, _)) if same == text) {
                // `touch`.
            } else if way == Way::RenameOver {
                let beside = path.with_extension("new");
                std::fs::write(&beside, text).expect("a file can be written");
                std::fs::rename(&beside, path).expect("a file can be renamed");
            } else {
                if way == Way::Anew {
                    let _ = std::fs::remove_file(path);
                }
                std::fs::write(path, text).expect("a file can be written");
            }
            set_mtime(path, *time);
        }
    }
}

/// The text of a header: other values each time, drawn from few, so that old contents come back.
fn header(directory: &str, number: usize, chance: &mut Chance) -> String {
    let id = format!("{}_{number}", directory.replace('/', "_"));
    let mut text = if chance.percent(20) {
        "#pragma once\n".to_owned()
    } else {
        format!("#ifndef G_{id}\n#define G_{id}\n")
    };
    let guarded = !text.starts_with("#pragma");
    for later in number + 1..HEADER_COUNT {
        if chance.percent(25) {
            include(&mut text, later, chance);
        }
    }
    if chance.percent(20) {
        let _ = write!(text, "#if __has_include_next(<h{number}.h>)\n#include_next <h{number}.h>\n#endif\n");
    }
    let _ = writeln!(text, "int k_{id} = {};", chance.below(5));
    match chance.below(40) {
        0 => text.push_str("syntax error\n"),
        1 | 2 => _ = writeln!(text, "static int unused_{id}(int p) {{ return 1; }}"),
        3 => text.push_str("#warning \"a warning\"\n"),
        4 | 5 => _ = writeln!(text, "const char *file_{id} = __FILE__;"),
        6 => _ = writeln!(text, "const char *stamp_{id} = __TIMESTAMP__;"),
        7 => _ = writeln!(text, "int level_{id} = __INCLUDE_LEVEL__;"),
        8 => _ = writeln!(text, "const char *base_{id} = __BASE_FILE__;"),
        _ => {}
    }
    if guarded {
        text.push_str("#endif\n");
    }
    text
}

/// One of the ways to include a header.
fn include(text: &mut String, number: usize, chance: &mut Chance) {
    let name = format!("h{number}.h");
    let _ = match chance.below(10) {
        0..=3 => writeln!(text, "#include \"{name}\""),
        4 | 5 => writeln!(text, "#include <{name}>"),
        6 => {
            writeln!(text, "#if __has_include(<{name}>)\n#include <{name}>\n#else\nint no_{number};\n#endif")
        }
        7 => writeln!(text, "#if __has_include(\"../inc/b/{name}\")\n#define HAS_{number}\n#endif"),
        8 => {
            writeln!(
                text,
                "#undef INC\n#undef STR\n#define STR(x) #x\n#define INC STR(h{number}.h)\n#include INC"
            )
        }
        _ => writeln!(text, "#include \"../inc/link/../c/{name}\""),
    };
}

/// The text of a source.
fn source(path: &str, chance: &mut Chance) -> String {
    let mut text = String::new();
    for number in 0..HEADER_COUNT {
        if chance.percent(40) {
            include(&mut text, number, chance);
        }
    }
    let id = path.replace(['/', '.'], "_");
    let _ = writeln!(text, "int f_{id}(int x) {{ return x + {}; }}", chance.below(5));
    text.push_str("#ifdef X\nint x = X;\n#endif\n");
    match chance.below(20) {
        0 => text.push_str("int broken(void) { return missing; }\n"),
        1 => text.push_str("int warned(void) { int unused; return \"x\" != 0; }\n"),
        2 | 3 => text.push_str("__asm__(\".data\\n.incbin \\\"src/data.bin\\\"\\n.text\\n\");\n"),
        4 => text.push_str("const char *here = __FILE__;\n"),
        5 => text.push_str("const char *stamp = __TIMESTAMP__;\n"),
        6 => text.push_str("#ifdef DATED\nconst char *date = __DATE__ __TIME__;\n#endif\n"),
        _ => {}
    }
    text
}
