//! Runs a command observed and prints what it asked for and did: `observe [--quiet | --bare | --compare N] TOOL ARGUMENT...`
//!
//! It is planned as the service would, so the observer is told the same of it. `--quiet` prints counts alone, `--bare`
//! runs without a filter (the same code otherwise), and `--compare N` runs both N times in turn and prints the median
//! of the paired ratios.

#![allow(unused_crate_dependencies)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Instant;

use zccache_actors::invocation::Invocation;
use zccache_actors::observe_linux::ObservedObserver;
use zccache_actors::observer::{Job, Observed, Observer, Watcher};
use zccache_actors::plan::{Plan, Planned, Planner};
use zccache_actors::tool_run;
use zccache_proto::ByteStrings;
use zccache_proto::message::{Exit, OutputStream, Stdio, StreamKind};
use zccache_service::planner::ToolPlanner;

/// Passes output on to our own streams; is never cancelled.
struct PassOn(OwnedFd);

impl Watcher for PassOn {
    fn starting(&mut self, _pid: u32) -> std::io::Result<()> {
        Ok(())
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        use std::io::Write;
        let _ = match stream {
            OutputStream::Stdout => std::io::stdout().write_all(bytes),
            OutputStream::Stderr => std::io::stderr().write_all(bytes),
        };
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn invocation(tool: &[u8], arguments: &[Vec<u8>]) -> std::io::Result<Invocation> {
    let env = std::env::vars_os().map(|(k, v)| [k.into_vec(), v.into_vec()].join(&b'='));
    let stdio =
        Stdio { stdin: StreamKind::Null, stdout: StreamKind::Pipe, stderr: StreamKind::Pipe, merged: false };
    Ok(Invocation {
        tool: tool.to_vec(),
        argv: ByteStrings::from_iter(arguments),
        cwd: std::env::current_dir()?.into_os_string().into_vec(),
        env: env.collect(),
        umask: 0o022,
        stdio,
    })
}

fn job(invocation: &Invocation, plan: &Plan) -> Job {
    Job {
        invocation: invocation.clone(),
        descriptors: Vec::new(),
        client_pid: None,
        policy: plan.policy,
        declared: plan.declared.clone(),
        outputs: plan.outputs.clone(),
        foreign_code: plan.foreign_code,
        input_is_known: false,
    }
}

fn find(tool: &[u8]) -> Vec<u8> {
    let path = std::env::var_os("PATH").map(OsStringExt::into_vec).unwrap_or_default();
    let candidates = path.split(|&b| b == b':').map(|dir| [dir, tool].join(&b'/'));
    let is_there = |p: &Vec<u8>| std::fs::metadata(std::ffi::OsString::from_vec(p.clone())).is_ok();
    if tool.contains(&b'/') {
        tool.to_vec()
    } else {
        candidates.into_iter().find(is_there).unwrap_or(tool.to_vec())
    }
}

/// Processor time used by us and our children that have ended, in clock ticks. It says more than wall time
/// on a machine that has other things to do.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
    fields.skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn print(observed: &Observed, details: bool) {
    if details {
        for s in &observed.sightings {
            println!("{:40} {:?}", String::from_utf8_lossy(&s.path.0), s.seen);
        }
    }
    for e in &observed.effects {
        println!("effect {} {:?}", String::from_utf8_lossy(&e.path.0), e.left);
    }
    for p in &observed.programs {
        println!("program {}", String::from_utf8_lossy(&p.0));
    }
    println!(
        "{:?}, {} sightings, time {}, unstorable {:?}",
        observed.exit,
        observed.sightings.len(),
        observed.asked_time,
        observed.unstorable
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<Vec<u8>> = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let option = |name: &[u8]| arguments.first().is_some_and(|a| a == name);
    let (quiet, bare, compare) = (option(b"--quiet"), option(b"--bare"), option(b"--compare"));
    let mut rounds = 0;
    if compare {
        rounds = String::from_utf8(arguments.remove(1))?.parse()?;
    }
    if quiet || bare || compare {
        arguments.remove(0);
    }
    let tool = find(arguments.first().ok_or("which tool?")?);
    let invocation = invocation(&tool, &arguments)?;
    let plan = match ToolPlanner::new(false).plan(&invocation) {
        Planned::Cache(plan) => plan,
        Planned::PassThrough(why) => return Err(format!("not observed: {}", why.reason).into()),
    };
    let job = || job(&invocation, &plan);
    let observer = ObservedObserver::new()?;
    let (_keep, never) = rustix::pipe::pipe()?;
    let mut watcher = PassOn(never);
    if compare {
        let mut ratios = Vec::new();
        let mut times = Vec::new();
        let mut ticks = [0; 2];
        for round in 0..rounds {
            let mut seconds = [0.0; 2];
            for turn in 0..2 {
                let observed = (round + turn) % 2;
                let start = Instant::now();
                let ticks_before = processor_ticks();
                if observed == 1 {
                    observer.run(job(), &mut watcher)?;
                } else {
                    tool_run::run(job(), &mut watcher, None)?;
                }
                ticks[observed] += processor_ticks() - ticks_before;
                seconds[observed] = start.elapsed().as_secs_f64();
            }
            ratios.push(seconds[1] / seconds[0]);
            times.push(seconds[0]);
        }
        ratios.sort_by(f64::total_cmp);
        times.sort_by(f64::total_cmp);
        println!(
            "bare {:.2} ms, observed {:.4} x; processor time {:.4} x",
            times[rounds / 2] * 1e3,
            ratios[rounds / 2],
            ticks[1] as f64 / ticks[0] as f64
        );
    } else if bare {
        let ended = tool_run::run(job(), &mut watcher, None)?;
        println!("{ended:?}");
    } else {
        let observed = observer.run(job(), &mut watcher)?;
        print(&observed, !quiet);
        if let Exit::Code(code) = observed.exit {
            std::process::exit(code);
        }
    }
    Ok(())
}
