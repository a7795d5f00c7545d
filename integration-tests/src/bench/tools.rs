//! Tools beside compilers: links, archives, Emscripten, a checker; each cold and warm, by everyone who can.

use std::io;
use std::path::Path;

use super::contestant::{Contestant, in_turn};
use super::table::Table;
use super::timed;
use crate::sandbox::SYSTEM_PATH;

/// Rounds of each: these tools take up to seconds.
const ROUNDS: usize = 7;

/// One tool at its work.
struct Task {
    name: &'static str,
    /// The command lines that make what is needed, run bare once a round.
    before: &'static [&'static str],
    line: &'static str,
    outputs: &'static [&'static str],
}

const TASKS: &[Task] = &[
    Task {
        name: "link, g++",
        before: &["g++ -O1 -c tool.cpp -o tool.o", "g++ -O1 -c rest.cpp -o rest.o"],
        line: "g++ tool.o rest.o -o tool",
        outputs: &["tool"],
    },
    Task {
        name: "archive, ar",
        before: &["g++ -O1 -c tool.cpp -o tool.o", "g++ -O1 -c rest.cpp -o rest.o"],
        line: "ar rcs libtool.a tool.o rest.o",
        outputs: &["libtool.a"],
    },
    Task { name: "clang-tidy", before: &[], line: "clang-tidy tool.cpp --", outputs: &[] },
    Task { name: "emcc -c", before: &[], line: "emcc -c tool.c -o tool.o", outputs: &["tool.o"] },
    Task {
        name: "emcc, link",
        before: &["emcc -c tool.c -o tool.o"],
        line: "emcc tool.o -o tool.js",
        outputs: &["tool.js", "tool.wasm"],
    },
];

/// Measures every task whose tool is installed.
///
/// # Errors
/// If a file cannot be written, or the bare tool or ours fails.
pub fn run(contestants: &[Contestant], place: &Path) -> io::Result<()> {
    for task in TASKS {
        let tool = task.line.split(' ').next().unwrap_or_default();
        if SYSTEM_PATH.split(':').any(|directory| Path::new(directory).join(tool).is_file()) {
            measure(task, contestants, place)?;
        } else {
            println!("missing, not measured: {tool}");
        }
    }
    Ok(())
}

fn measure(task: &Task, contestants: &[Contestant], place: &Path) -> io::Result<()> {
    let title = |heat: &str| format!("{}, {heat} ({ROUNDS} rounds)", task.name);
    let mut cold = Table::new(title("cold"), "bare", None);
    let mut warm = Table::new(title("warm"), "bare", None);
    let words = |line: &str| -> Vec<String> { line.split(' ').map(String::from).collect() };
    let mut failed: Vec<&str> = Vec::new();
    // The first round is not measured: it starts what is started only once.
    for round in 0..=ROUNDS {
        write_sources(place, task.name, round)?;
        for contestant in in_turn(contestants, Contestant::is_bare) {
            for line in task.before {
                timed(contestant, &words(line), place)?;
            }
        }
        for contestant in in_turn(contestants, Contestant::compiles) {
            if failed.contains(&contestant.name) {
                continue;
            }
            let mut took = Vec::new();
            for _ in 0..2 {
                task.outputs.iter().for_each(|output| _ = std::fs::remove_file(place.join(output)));
                match timed(contestant, &words(task.line), place) {
                    Ok(time) => took.push(time),
                    Err(error) if contestant.is_bare() => return Err(error),
                    Err(_) => break,
                }
            }
            match took[..] {
                [first, second] if round > 0 => {
                    cold.add(contestant.name, first);
                    warm.add(contestant.name, second);
                }
                [_, _] => {}
                _ => failed.push(contestant.name),
            }
        }
    }
    cold.print();
    warm.print();
    for name in failed {
        println!("{name}: cannot do this");
    }
    Ok(())
}

/// Sources that no round before has had.
fn write_sources(place: &Path, task: &str, round: usize) -> io::Result<()> {
    let mark = format!("\"{task} {round}\"");
    std::fs::write(
        place.join("tool.cpp"),
        format!(
            "#include <map>\n#include <string>\nstd::map<std::string, int> m;\nint rest();\nint main() {{ m[{mark}]++; return rest(); }}\n"
        ),
    )?;
    std::fs::write(
        place.join("rest.cpp"),
        format!(
            "#include <vector>\nint rest() {{ std::vector<const char *> v{{{mark}}}; return (int)v.size(); }}\n"
        ),
    )?;
    std::fs::write(
        place.join("tool.c"),
        format!("#include <stdio.h>\nint main(void) {{ puts({mark}); return 0; }}\n"),
    )
}
