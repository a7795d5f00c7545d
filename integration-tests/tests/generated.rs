//! Random projects and random edits, each step built bare and through the wrapper, everything compared.
//!
//! A round is one project and some dozens of compiles; it hangs on its seed alone. When a step fails, what led to
//! it is printed, with the words that repeat the round:
//!
//! ```text
//! SOAK_SEED=17 SOAK_STEPS=1 cargo nextest run -p zccache-integration-tests --test generated
//! ```
//!
//! `SOAK_STEPS` compiles are made at least (without it: as many as a test run can afford), beginning with the
//! round of seed `SOAK_SEED` (without it: one taken from the clock).

#[path = "generated/chance.rs"]
mod chance;
#[path = "generated/command.rs"]
mod command;
#[path = "generated/project.rs"]
mod project;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use chance::Chance;
use command::Mischief;
use project::{HEADER_DIRECTORIES, Node, Project, SOURCES, Way};
use zccache_integration_tests::{Expect, Scenario, scenario};

/// Compiles in an ordinary test run: about a minute on two cores.
const STEPS: u64 = 600;

/// Compiles with one project: enough for it to come back to earlier states, few enough to read through.
const STEPS_A_ROUND: u64 = 40;

/// Rounds at a time: as many as the smallest machine in use has processors.
const ROUNDS_AT_ONCE: usize = 2;

/// How many of 100 compiles must be served, and how many must not: with fewer, the test would show nothing.
const HITS_PERCENT_MIN: u64 = 15;
const MISSES_PERCENT_MIN: u64 = 10;
/// And how many must succeed: a failing compile tells only of its messages.
const SUCCEEDED_PERCENT_MIN: u64 = 30;

/// So many failures in a row, and somebody mends the project: one that stays broken would fail for all of its round.
const FAILURES_IN_A_ROW_MAX: u32 = 3;

/// In a few rounds the shares are as they fall: one project whose header is broken fails all along.
const ROUNDS_FOR_SHARES_MIN: u64 = 10;

/// Where the other checkout of the project is.
const ELSEWHERE: &str = "further/away";

/// Commands that a round goes through again and again.
const COMMANDS: usize = 5;

#[test]
fn random_projects_and_edits() {
    let number = |name| std::env::var(name).ok().and_then(|v: String| v.parse::<u64>().ok());
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
    let first = number("SOAK_SEED").unwrap_or(now);
    let rounds = number("SOAK_STEPS").unwrap_or(STEPS).div_ceil(STEPS_A_ROUND);
    println!("seeds {first} to {}, {STEPS_A_ROUND} steps each", first + rounds - 1);
    let (next, totals) = (AtomicU64::new(first), [const { AtomicU64::new(0) }; 3]);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + rounds {
                break;
            }
            for (total, of_round) in totals.iter().zip(round(seed)) {
                total.fetch_add(of_round, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..ROUNDS_AT_ONCE {
            scope.spawn(worker);
        }
    });
    let (steps, [hits, misses, succeeded]) = (rounds * STEPS_A_ROUND, totals.map(AtomicU64::into_inner));
    println!("{steps} compiles: {hits} hits, {misses} misses; {succeeded} succeeded");
    // Under the declared observer, most of what these projects do is not stored.
    if rounds < ROUNDS_FOR_SHARES_MIN || scenario::under_the_declared_observer() {
        return;
    }
    assert!(hits * 100 >= steps * HITS_PERCENT_MIN, "only {hits} of {steps} compiles were served");
    assert!(misses * 100 >= steps * MISSES_PERCENT_MIN, "only {misses} of {steps} compiles were run");
    assert!(
        succeeded * 100 >= steps * SUCCEEDED_PERCENT_MIN,
        "only {succeeded} of {steps} compiles succeeded"
    );
}

/// One project. Returns hits, misses, and how many compiles succeeded.
fn round(seed: u64) -> [u64; 3] {
    let mut session = Session::new(seed);
    let run = catch_unwind(AssertUnwindSafe(|| (0..STEPS_A_ROUND).for_each(|_| session.step())));
    if let Err(panic) = run {
        println!("=== round {seed}; again: SOAK_SEED={seed} SOAK_STEPS=1 ===\n{}", session.story.join("\n"));
        if std::env::var_os("SOAK_KEEP").is_some() {
            println!("kept: {}", session.scenario.sandbox.path("").display());
            std::mem::forget(session);
        }
        std::panic::resume_unwind(panic);
    }
    let counters = session.scenario.sandbox.stats().counters;
    [counters.hits, counters.misses, session.succeeded]
}

/// A project being worked on.
struct Session {
    scenario: Scenario,
    chance: Chance,
    project: Project,
    /// The state of another checkout, in `ELSEWHERE`.
    elsewhere: Project,
    /// Earlier states, to come back to.
    commits: Vec<Project>,
    commands: Vec<Vec<String>>,
    /// What happened so far.
    story: Vec<String>,
    /// Compiles that did.
    succeeded: u64,
    /// The last state in which one did.
    good: Project,
    /// How many have failed since.
    failures: u32,
}

impl Session {
    fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let project = Project::random(&mut chance);
        let commands = (0..COMMANDS).map(|_| command::random(&mut chance)).collect();
        let scenario = Scenario::new();
        scenario.edit(|work| {
            for checkout in ["", ELSEWHERE] {
                std::fs::create_dir_all(work.join(checkout).join("out")).expect("a directory can be made");
                Project::default().change_into(&project, &work.join(checkout), Way::InPlace);
            }
        });
        let elsewhere = project.clone();
        let (commits, good) = (vec![project.clone()], project.clone());
        Self {
            scenario,
            chance,
            project,
            elsewhere,
            commits,
            commands,
            story: Vec::new(),
            succeeded: 0,
            good,
            failures: 0,
        }
    }

    /// Some edits, and a compile.
    fn step(&mut self) {
        if self.failures >= FAILURES_IN_A_ROW_MAX {
            self.mend();
        } else if !self.chance.percent(35) {
            for _ in 0..=self.chance.below(2) {
                self.edit();
            }
        }
        let at = self.chance.below(self.commands.len());
        if self.chance.percent(10) {
            self.commands[at] = command::random(&mut self.chance);
        }
        let words = self.commands[at].clone();
        if self.chance.percent(40) {
            self.spoil_output(&words);
        }
        let checkout = if self.chance.percent(30) { ELSEWHERE } else { "" };
        self.story.push(format!("  {checkout}$ {}", words.join(" ")));
        let outcome = self.scenario.step_in(checkout, Expect::Anything, &words);
        self.succeeded += u64::from(outcome.success());
        self.failures = if outcome.success() { 0 } else { self.failures + 1 };
        if outcome.success() {
            self.good = if checkout.is_empty() { self.project.clone() } else { self.elsewhere.clone() };
        }
    }

    /// Brings both checkouts into a state in which something was compiled, and tries other commands.
    fn mend(&mut self) {
        self.story.push("mend".to_owned());
        self.failures = 0;
        self.commands = (0..COMMANDS).map(|_| command::random(&mut self.chance)).collect();
        let mut next = self.project.clone();
        next.nodes = self.good.nodes.clone();
        let (elsewhere, project) = (&self.elsewhere, &self.project);
        self.scenario.edit(|work| {
            for (state, checkout) in [(project, ""), (elsewhere, ELSEWHERE)] {
                let _ = std::fs::create_dir(work.join(checkout).join("out"));
                state.change_into(&next, &work.join(checkout), Way::RenameOver);
            }
        });
        (self.project, self.elsewhere) = (next.clone(), next);
    }

    fn edit(&mut self) {
        let mut next = self.project.clone();
        let way = [Way::InPlace, Way::RenameOver, Way::Anew][self.chance.below(3)];
        let told = match self.chance.below(20) {
            0..=3 => self.edit_header(&mut next),
            4 => self.touch(&mut next),
            5 | 6 => self.add_header(&mut next),
            7 => self.remove_header(&mut next),
            8 => self.link_header(&mut next),
            9 | 10 => self.edit_source(&mut next),
            11 => self.retarget(&mut next),
            12 => return self.rename_directories(),
            13 | 14 => return self.set_variable(),
            15 => self.edit_keeping_time(&mut next),
            16 => {
                self.commits.push(self.project.clone());
                "commit".to_owned()
            }
            _ => {
                let at = self.chance.below(self.commits.len());
                next.nodes = self.commits[at].nodes.clone();
                if self.chance.percent(50) {
                    self.story.push(format!("check out {at} {ELSEWHERE}"));
                    let work = |work: &std::path::Path| {
                        self.elsewhere.change_into(&next, &work.join(ELSEWHERE), way);
                    };
                    self.scenario.edit(work);
                    self.elsewhere = next;
                    return;
                }
                format!("check out {at}")
            }
        };
        self.story.push(format!("{told} ({way:?})"));
        self.become_(next, way);
    }

    fn become_(&mut self, next: Project, way: Way) {
        self.scenario.edit(|work| self.project.change_into(&next, work, way));
        self.project = next;
    }

    fn edit_header(&mut self, next: &mut Project) -> String {
        let Some(path) = next.some_header(&mut self.chance) else { return "nothing to edit".into() };
        let (directory, name) = path.rsplit_once('/').expect("a header is in a directory");
        let number = name[1..2].parse().expect("a header has a number");
        next.nodes.remove(&path);
        next.add_header(directory, number, &mut self.chance);
        format!("edit {path}: {:?}", next.nodes[&path])
    }

    /// One digit, the same size, the old time.
    fn edit_keeping_time(&mut self, next: &mut Project) -> String {
        let Some(path) = next.some_header(&mut self.chance) else { return "nothing to edit".into() };
        let digit = self.chance.below(10).to_string();
        if let Some(Node::File(text, _)) = next.nodes.get_mut(&path)
            && let Some(at) = text.find(" = ").map(|at| at + " = ".len())
            && text[at..].starts_with(|c: char| c.is_ascii_digit())
        {
            text.replace_range(at..=at, &digit);
        }
        format!("edit {path}: its value is {digit}, size and time are as before")
    }

    fn touch(&mut self, next: &mut Project) -> String {
        let Some(path) = next.some_header(&mut self.chance) else { return "nothing to touch".into() };
        let now = next.tick();
        if let Some(Node::File(_, time)) = next.nodes.get_mut(&path) {
            *time = now;
        }
        format!("touch {path}")
    }

    fn add_header(&mut self, next: &mut Project) -> String {
        let (directory, number) = (self.chance.of(&HEADER_DIRECTORIES), self.chance.below(5));
        let path = format!("{directory}/h{number}.h");
        next.nodes.remove(&path);
        next.add_header(directory, number, &mut self.chance);
        format!("put {path}: {:?}", next.nodes[&path])
    }

    fn remove_header(&mut self, next: &mut Project) -> String {
        let Some(path) = next.some_header(&mut self.chance) else { return "nothing to remove".into() };
        next.nodes.remove(&path);
        format!("remove {path}")
    }

    /// A header becomes a link to one of the same name elsewhere (or to nothing).
    fn link_header(&mut self, next: &mut Project) -> String {
        let (directory, number) = (self.chance.of(&HEADER_DIRECTORIES), self.chance.below(5));
        let path = format!("{directory}/h{number}.h");
        let up = "../".repeat(directory.split('/').count());
        let elsewhere = self.chance.of(&HEADER_DIRECTORIES);
        if elsewhere == directory {
            return "nothing to link".into();
        }
        let target = format!("{up}{elsewhere}/h{number}.h");
        next.nodes.insert(path.clone(), Node::Link(target.clone()));
        format!("link {path} -> {target}")
    }

    fn edit_source(&mut self, next: &mut Project) -> String {
        if self.chance.percent(20) {
            let value = format!("{:04}", self.chance.below(3));
            next.put("src/data.bin", value.clone());
            return format!("src/data.bin: {value}");
        }
        let path = self.chance.of(&SOURCES);
        next.add_source(path, &mut self.chance);
        format!("edit {path}: {:?}", next.nodes[path])
    }

    fn retarget(&mut self, next: &mut Project) -> String {
        let target = self.chance.of(&["a", "b", "c", "not/there"]);
        next.nodes.insert("inc/link".into(), Node::Link(target.into()));
        format!("link inc/link -> {target}")
    }

    /// Two header directories change places, by renames alone.
    fn rename_directories(&mut self) {
        let pair = [self.chance.of(&HEADER_DIRECTORIES[1..]), self.chance.of(&HEADER_DIRECTORIES[1..])];
        if pair[0] == pair[1] {
            return;
        }
        self.story.push(format!("rename {} <-> {}", pair[0], pair[1]));
        self.scenario.edit(|work| {
            for directory in pair {
                std::fs::create_dir_all(work.join(directory)).expect("a directory can be made");
            }
            for (from, to) in [(pair[0], "aside"), (pair[1], pair[0]), ("aside", pair[1])] {
                std::fs::rename(work.join(from), work.join(to)).expect("a directory can be renamed");
            }
        });
        let moved = |path: String| {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let other = match directory {
                d if d == pair[0] => pair[1],
                d if d == pair[1] => pair[0],
                _ => return path,
            };
            format!("{other}/{name}")
        };
        let nodes = std::mem::take(&mut self.project.nodes);
        self.project.nodes = nodes.into_iter().map(|(path, node)| (moved(path), node)).collect();
    }

    fn set_variable(&mut self) {
        let choices: [(&str, &[&str]); 7] = [
            ("CPATH", &["env", "inc/a:env", "", ":env"]),
            ("C_INCLUDE_PATH", &["env", "inc/b"]),
            ("CPLUS_INCLUDE_PATH", &["env"]),
            ("LC_ALL", &["C", "C.UTF-8"]),
            ("SOURCE_DATE_EPOCH", &["1000000000", "1100000000"]),
            ("GCC_COLORS", &["error=01;31", ""]),
            ("NOBODY_READS_THIS", &["1", "2"]),
        ];
        let (name, values) = choices[self.chance.below(choices.len())];
        if self.chance.percent(50) {
            self.story.push(format!("unset {name}"));
            self.scenario.sandbox.unset(name);
        } else {
            let value = self.chance.of(values);
            self.story.push(format!("{name}={value}"));
            self.scenario.sandbox.set(name, value);
        }
    }

    fn spoil_output(&mut self, words: &[String]) {
        let named = words.iter().find_map(|w| w.strip_prefix("-oout/").or_else(|| w.strip_prefix("out/")));
        let Some(name) = named else { return };
        let mischief = Mischief::random(&mut self.chance);
        self.story.push(format!("{mischief:?} out/{name}"));
        self.scenario.edit(|work| {
            let path = work.join("out").join(name);
            mischief.commit(&path);
            if !matches!(mischief, Mischief::NoDirectory) {
                return;
            }
            // Mostly the build tool makes it again.
            if name.len() % 2 == 0 {
                std::fs::create_dir(work.join("out")).expect("a directory can be made");
            }
        });
    }
}
