//! Command lines and the plans they become, as data: `tests/args/<tool>/*.txt`.
//!
//! A case is a command after `$ ` (variables first, then the tool; quotes and `\xNN` as in a shell's `$'…'`),
//! before it lines `< name: text` for response files in its working directory, below it the plan as rendered
//! here. `BLESS=1` (`make bless`) rewrites what is below. Lines with `#` are comments and stay.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use zccache_actors::invocation::Invocation;
use zccache_actors::observation::Spelled;
use zccache_actors::plan::{Plan, Planned, Planner};
use zccache_proto::ByteStrings;
use zccache_proto::message::{Stdio, StreamKind};
use zccache_service::c_family::options::OPTIONS;
use zccache_service::planner::ToolPlanner;

#[test]
fn command_lines_become_the_plans_written_below_them() {
    let mut cases = 0;
    let mut wrong = Vec::new();
    for file in golden_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let (rendered, count) = render_file(&text);
        cases += count;
        if rendered != text {
            if std::env::var_os("BLESS").is_some() {
                std::fs::write(&file, &rendered).unwrap();
            } else {
                wrong.push(format!("{}:\n{}", file.display(), first_difference(&text, &rendered)));
            }
        }
    }
    assert!(wrong.is_empty(), "plans differ (BLESS=1 accepts them)\n{}", wrong.join("\n"));
    assert!(cases >= 100, "only {cases} cases were found: the data are not where they should be");
}

/// Any words at all become some plan, the same one each time.
#[test]
fn no_command_line_is_too_strange_to_plan() {
    const WORDS: &[&[u8]] = &[
        b"a.c", b"-", b"--", b"", b"@none", b"x.o", b"\xff", b"-\xff", b"=", b",", b"c", b"none", b"-c",
        b"-o",
    ];
    let dir = tempfile::tempdir().unwrap();
    let planner = ToolPlanner::default();
    // Marsaglia's xorshift with a fixed seed: the same commands in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit as u64).unwrap()
    };
    let mut cached = 0;
    for round in 0..20_000 {
        let mut argv: Vec<Vec<u8>> =
            vec![if round % 2 == 0 { b"gcc".into() } else { b"clang".into() }, b"-c".into()];
        for _ in 0..below(6) {
            let option = OPTIONS[below(OPTIONS.len())].name.as_bytes();
            let word = WORDS[below(WORDS.len())];
            argv.push(match below(4) {
                0 => word.to_vec(),
                1 => [option, word].concat(),
                2 => option[..=below(option.len())].to_vec(),
                _ => option.to_vec(),
            });
        }
        argv.push(b"a.c".into());
        let invocation = invocation(&argv, &[], dir.path());
        let plan = planner.plan(&invocation);
        assert_eq!(format!("{plan:?}"), format!("{:?}", planner.plan(&invocation)));
        if let Planned::Cache(plan) = plan {
            cached += 1;
            let is_several = plan.declared.unsupported.as_deref() == Some("several sources");
            let is_named = plan.declared.source.is_some_and(|source| !source.0.is_empty());
            assert!(is_named || is_several, "{:?}", invocation.argv);
            assert!(plan.outputs.iter().all(|path| !path.0.is_empty()), "{:?}", invocation.argv);
        }
    }
    assert!(cached > 1000, "only {cached} were of any interest");
}

fn golden_files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/args");
    let mut files: Vec<PathBuf> = ["gcc", "clang", "rustc"]
        .iter()
        .flat_map(|tool| std::fs::read_dir(root.join(tool)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// The file with every plan made anew, and the number of its cases.
fn render_file(text: &str) -> (String, usize) {
    let mut rendered = String::new();
    let mut count = 0;
    let mut response_files: Vec<(&str, &str)> = Vec::new();
    for line in text.lines() {
        if let Some(file) = line.strip_prefix("< ") {
            response_files.push(file.split_once(": ").expect("`< name: text`"));
        } else if line.starts_with("$ ") {
            count += 1;
        } else if !line.starts_with('#') {
            continue; // The plan that was below, and the blank line after it.
        }
        rendered.push_str(line);
        rendered.push('\n');
        if let Some(command) = line.strip_prefix("$ ") {
            rendered.push_str(&render_case(command, &std::mem::take(&mut response_files)));
            rendered.push('\n');
        }
    }
    while rendered.ends_with("\n\n") {
        rendered.pop();
    }
    (rendered, count)
}

fn render_case(command: &str, response_files: &[(&str, &str)]) -> String {
    let cwd = tempfile::tempdir().unwrap();
    for (name, text) in response_files {
        std::fs::write(cwd.path().join(name), text.replace("\\n", "\n")).unwrap();
    }
    let words = words(command);
    let env_count = words.iter().take_while(|word| word.contains(&b'=')).count();
    let (env, argv) = words.split_at(env_count);
    let invocation = invocation(argv, env, cwd.path());
    match ToolPlanner::default().plan(&invocation) {
        Planned::PassThrough(pass_through) => format!("pass through: {}\n", pass_through.reason),
        Planned::Cache(plan) => render_plan(&plan),
    }
}

fn invocation(argv: &[Vec<u8>], env: &[Vec<u8>], cwd: &Path) -> Invocation {
    Invocation {
        // Where nothing is, so that the name decides and not what this machine has installed.
        tool: [b"/nowhere/", argv[0].as_slice()].concat(),
        argv: argv.iter().collect::<ByteStrings>(),
        cwd: cwd.to_str().unwrap().into(),
        env: env.iter().collect::<ByteStrings>(),
        umask: 0o022,
        stdio: Stdio {
            stdin: StreamKind::Null,
            stdout: StreamKind::Pipe,
            stderr: StreamKind::Pipe,
            merged: false,
        },
    }
}

/// One line for everything that is not as in the plainest compile.
fn render_plan(plan: &Plan) -> String {
    let declared = &plan.declared;
    let mut text = format!("cache as {}\n", plan.policy.family);
    let mut list = |name: &str, items: Vec<String>| {
        if !items.is_empty() {
            writeln!(text, "  {name}: {}", items.join(" ")).unwrap();
        }
    };
    let paths = |paths: &[Spelled]| paths.iter().map(|path| show(&path.0)).collect::<Vec<_>>();
    list("source", paths(declared.source.as_slice()));
    list("outputs", paths(&plan.outputs));
    list("dependency file", paths(declared.dependency_file.as_slice()));
    list("quote dirs", paths(&declared.quote_dirs));
    list("search dirs", paths(&declared.search_dirs));
    list("environment", plan.key_env.iter().map(|entry| show_entry(entry)).collect());
    list("pins mtimes", plan.pin_mtimes.then(|| "yes".into()).into_iter().collect());
    list("timeless", paths(&plan.timeless));
    list("time is fixed", plan.time_is_fixed.then(|| "yes".into()).into_iter().collect());
    let unit = |argv: &ByteStrings| argv.iter().map(show).collect::<Vec<_>>().join("_");
    list("units", plan.units.iter().map(unit).collect());
    list("undeclared", declared.unsupported.iter().map(|what| what.to_string()).collect());
    text
}

/// Of an entry of several lines (the processor) the first, since the rest is this machine's.
fn show_entry(entry: &[u8]) -> String {
    let first = entry.split(|&b| b == b'\n').next().unwrap();
    show(first).replace("native\\x20processor", "(processor)")
}

/// Bytes as a word of a command.
fn show(bytes: &[u8]) -> String {
    let mut word = String::new();
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\\' {
            word.push(byte.into());
        } else {
            write!(word, "\\x{byte:02x}").unwrap();
        }
    }
    if word.is_empty() { "''".into() } else { word }
}

/// A command's words: separated by spaces, kept together by quotes of either kind, `\xNN` a byte.
fn words(command: &str) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<Vec<u8>>, None);
    let mut rest = command.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b' ' if quote.is_none() => words.extend(word.take()),
            b'\'' | b'"' if quote.is_none_or(|open| open == byte) => {
                quote = if quote.is_none() { Some(byte) } else { None };
                word.get_or_insert_default();
            }
            b'\\' => {
                let digits: String = rest.by_ref().skip(1).take(2).map(char::from).collect();
                word.get_or_insert_default().push(u8::from_str_radix(&digits, 16).expect("`\\xNN`"));
            }
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

fn first_difference(old: &str, new: &str) -> String {
    let same = old.lines().zip(new.lines()).take_while(|(a, b)| a == b).count();
    let command = new.lines().take(same + 1).filter(|line| line.starts_with("$ ")).last().unwrap_or_default();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(end)").to_owned();
    format!("  line {}: {command}\n  is   {}\n  want {}", same + 1, line(new), line(old))
}
