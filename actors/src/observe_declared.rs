//! The declared observer: what a C or C++ compile can read follows from its command line, its compiler and the
//! texts, so it need not be watched.
//!
//! Before the tool runs, everything that it may come to read is found and noted, with everything that must stay
//! absent (`closure`, `toolchain`); while it runs, the names on the way there are watched (`watch`); after it,
//! all must be as it was (`facts`). The command is run as it was typed. What cannot be known in this way is run
//! and not stored; `docs/observers.md` says what that is.

mod closure;
mod composed;
mod facts;
#[cfg_attr(target_os = "linux", path = "observe_declared/host_linux.rs")]
#[cfg_attr(target_os = "macos", path = "observe_declared/host_macos.rs")]
#[cfg_attr(windows, path = "observe_declared/host_windows.rs")]
mod host;
pub(crate) mod source_scan;
mod toolchain;
#[cfg_attr(target_os = "linux", path = "observe_declared/watch_linux.rs")]
#[cfg_attr(target_os = "macos", path = "observe_declared/watch_macos.rs")]
#[cfg_attr(windows, path = "observe_declared/watch_windows.rs")]
mod watch;

use std::io;

use zccache_proto::message::{Exit, OutputStream};

use crate::invocation::Invocation;
use crate::observation::Spelled;
use crate::observer::{Effect, Job, Left, Observed, Observer, Origin, Unstorable, Watcher, wants_terminal};
use crate::plan::Policy;
use crate::sys::BorrowedFd;
use crate::tool_run::{self, Ended};
use closure::Scans;
use facts::{Facts, Found};
use toolchain::Toolchains;
use watch::Watch;

/// Knows by looking beforehand.
#[derive(Default)]
pub struct DeclaredObserver {
    scans: Scans,
    toolchains: Toolchains,
}

/// What was found before the run.
struct Survey {
    facts: Facts,
    watch: Watch,
    programs: Vec<Vec<u8>>,
    asks_time: bool,
    /// Messages may show lines of files that were not looked at.
    quotes: bool,
}

impl Observer for DeclaredObserver {
    fn run(&self, job: Job, watcher: &mut dyn Watcher) -> io::Result<Observed> {
        let survey = self.survey(&job);
        let (outputs, invocation, policy) = (job.outputs.clone(), job.invocation.clone(), job.policy);
        let mut heard = Hearing { watcher, anything: false };
        let ended = tool_run::run(job, &mut heard, None)?;
        let is_plain = !heard.anything || speaks_plainly(&invocation, policy);
        let mut observed = Observed {
            exit: ended.exit,
            sightings: Vec::new(),
            listings: Vec::new(),
            effects: Vec::new(),
            reread: Vec::new(),
            programs: Vec::new(),
            asked_time: false,
            unstorable: None,
        };
        match survey.and_then(|survey| verdict(survey, ended, heard.anything, is_plain)) {
            Ok(survey) => {
                observed.sightings = survey.facts.into_sightings();
                observed.effects =
                    outputs.into_iter().map(|path| Effect { path, left: Left::File(Origin::Kept) }).collect();
                observed.programs = survey.programs.into_iter().map(Spelled).collect();
                observed.asked_time = survey.asks_time;
            }
            Err(why) => observed.unstorable = Some(why),
        }
        if ended.cancelled {
            observed.unstorable = Some(Unstorable::Cancelled);
        }
        Ok(observed)
    }
}

impl DeclaredObserver {
    fn survey(&self, job: &Job) -> Result<Survey, Unstorable> {
        let unknown = |why: String| Unstorable::NotObservable(why);
        if let Some(why) = &job.declared.unsupported {
            return Err(unknown(why.to_string()));
        }
        if job.outputs.is_empty() {
            return Err(unknown("no output is declared".into()));
        }
        let mut facts = Facts::new(job.invocation.cwd_path());
        add_argument_files(job, &mut facts)?;
        let toolchain = self.toolchains.find(&job.invocation, job.policy, &job.declared, &mut facts);
        let toolchain = toolchain.map_err(unknown)?;
        let words = definitions(&job.declared.arguments);
        let closed = self.scans.close(&job.declared, &toolchain, &words, &mut facts);
        let mut closure = closed.map_err(unknown)?;
        if let Some(trouble) = facts.trouble() {
            return Err(trouble.clone());
        }
        for word in words {
            let scan = source_scan::scan(&word);
            // With no definition anywhere, including by a macro is an error, and errors are not stored.
            if let Some(name) =
                closure.computed.iter().find(|name| word.windows(name.len()).any(|w| w == &name[..]))
            {
                return Err(unknown(format!("#include {}", String::from_utf8_lossy(name))));
            }
            if scan.hazard.is_some() || !scan.names.is_empty() {
                return Err(unknown(format!("{} on the command line", word.escape_ascii())));
            }
            closure.pieces.extend(scan.pieces);
        }
        if source_scan::pastes_question(&closure.pieces) {
            return Err(unknown("__has_include put together by ##".into()));
        }
        let asks_time = source_scan::asks_time(&closure.pieces);
        let watch =
            Watch::new(facts.steps()).map_err(|e| unknown(format!("inputs cannot be watched: {e}")))?;
        let quotes = closure.is_anothers;
        Ok(Survey { facts, watch, programs: toolchain.programs.clone(), asks_time, quotes })
    }
}

/// Adds the response files, which must be as they were when the plan was made.
fn add_argument_files(job: &Job, facts: &mut Facts) -> Result<(), Unstorable> {
    for (path, signature) in &job.declared.argument_files {
        let found = match facts.read(&path.0, false) {
            Found::File(signature) => Some(signature),
            Found::Nothing | Found::Directory => None,
        };
        if found != *signature {
            return Err(Unstorable::InputChanged(String::from_utf8_lossy(&path.0).into_owned()));
        }
    }
    Ok(())
}

/// The arguments as a scan is to see them: those that may define a macro as definitions.
fn definitions(arguments: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut after_define = false;
    let mut words = Vec::new();
    for argument in arguments {
        let defines =
            [&b"-D"[..], b"--define-macro", b"-Wp,"].iter().any(|option| argument.starts_with(option));
        let prefix: &[u8] = if defines || after_define { b"#define " } else { b"" };
        words.push([prefix, &argument[..]].concat());
        after_define = argument == b"-D" || argument == b"--define-macro";
    }
    words
}

/// Whether what the tool printed hangs on nothing but what it read: no translations, no terminal's abilities.
fn speaks_plainly(invocation: &Invocation, policy: &Policy) -> bool {
    let value = |name: &str| invocation.env.value_of(name.as_bytes()).filter(|value| !value.is_empty());
    let names: &[&str] =
        if value("LC_ALL").is_some() { &["LC_ALL"] } else { &["LC_MESSAGES", "LC_CTYPE", "LANG"] };
    let is_plain = |name: &&str| value(name).is_none_or(|locale| locale == b"C" || locale == b"POSIX");
    let is_asked = names.iter().any(|name| value(name).is_some());
    let speaks_plainly = names.iter().all(is_plain) && (is_asked || host::is_plain_unasked());
    let stdio = &invocation.stdio;
    (speaks_plainly || host::is_always_plain(policy.family))
        && !wants_terminal(stdio.stdout)
        && !wants_terminal(stdio.stderr)
}

/// Whether the survey still stands after the run.
fn verdict(mut survey: Survey, ended: Ended, is_heard: bool, is_plain: bool) -> Result<Survey, Unstorable> {
    match ended.exit {
        Exit::Signal(_) => return Err(Unstorable::Signalled),
        Exit::Code(0) => {}
        // How far it came, and so what it read and wrote, is not known.
        Exit::Code(_) => return Err(Unstorable::NotObservable("a failing compile".into())),
    }
    if ended.left_processes {
        return Err(Unstorable::LeftProcess);
    }
    if !is_plain {
        return Err(Unstorable::NotObservable("messages in a language or for a terminal".into()));
    }
    if is_heard && survey.quotes {
        return Err(Unstorable::NotObservable("messages about lines of another file".into()));
    }
    survey.facts.check()?;
    // After the look: what changed during it has been seen as well.
    match survey.watch.changed() {
        Some(name) => Err(Unstorable::InputChanged(name)),
        None => Ok(survey),
    }
}

/// Notes whether the tool said anything.
struct Hearing<'a> {
    watcher: &'a mut dyn Watcher,
    anything: bool,
}

impl Watcher for Hearing<'_> {
    fn starting(&mut self, pid: u32) -> std::io::Result<()> {
        self.watcher.starting(pid)
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        self.anything |= !bytes.is_empty();
        self.watcher.output(stream, bytes);
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.watcher.cancelled()
    }
}
