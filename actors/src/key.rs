//! `RequestKey`: equal for two requests only if the same tool run could answer both, file contents aside.
//!
//! Everything goes through one visitor, in a fixed order and length-prefixed, so that a key can be described
//! as well as hashed. A shared key has marks in place of what may differ between places (`sharing`). Nothing else is left out
//! without the reason written here:
//! - the environment beyond the plan's table: the family's programs do not read it (a record of a run in which
//!   another program took part carries a digest of the whole environment instead);
//! - file contents: they are observations of the records behind the key.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use zccache_proto::ByteStrings;
use zccache_proto::message::StreamKind;

use crate::digest::Digest;
use crate::exec::Declaration;
use crate::invocation::Invocation;
use crate::plan::Plan;
use crate::signature::Signature;

/// Raised whenever the fields of a key, or the meaning of a record, change.
const KEY_VERSION: u32 = 1;

/// The digest of all that a request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestKey(pub Digest);

impl RequestKey {
    /// The key of an invocation with its plan.
    pub fn of(invocation: &Invocation, plan: &Plan) -> Self {
        let mut hash = HashVisitor(blake3::Hasher::new());
        visit(invocation, plan, &mut hash);
        Self(Digest(*hash.0.finalize().as_bytes()))
    }

    /// The key that an invocation has in common with those from elsewhere: of the arguments as `argv` has them, with
    /// marks instead of its own places, and of `place` instead of the working directory.
    pub fn shared(invocation: &Invocation, plan: &Plan, argv: &[Vec<u8>], place: &[u8]) -> Self {
        let mut hash = HashVisitor(blake3::Hasher::new());
        hash.field("shared", b"shared");
        let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        visit_from(invocation, plan, &argv, place, &mut hash);
        Self(Digest(*hash.0.finalize().as_bytes()))
    }
}

/// The fields of a key as readable lines, in the order in which they are hashed.
pub fn describe(invocation: &Invocation, plan: &Plan) -> Vec<String> {
    let mut lines = DescribeVisitor(Vec::new());
    visit(invocation, plan, &mut lines);
    lines.0
}

trait Visitor {
    fn field(&mut self, name: &'static str, value: &[u8]);
}

fn visit(invocation: &Invocation, plan: &Plan, v: &mut impl Visitor) {
    let argv: Vec<&[u8]> = invocation.argv.iter().collect();
    let is_cwd_declared_away = Declaration::in_environment(&invocation.env).is_some_and(|d| d.no_cwd);
    let cwd: &[u8] = if is_cwd_declared_away { b"" } else { &invocation.cwd };
    visit_from(invocation, plan, &argv, cwd, v);
}

fn visit_from(invocation: &Invocation, plan: &Plan, argv: &[&[u8]], cwd: &[u8], v: &mut impl Visitor) {
    v.field("key version", &KEY_VERSION.to_le_bytes());
    v.field("family", plan.policy.family.as_bytes());
    // Tools look at the processor (`-march=native`), and a cache directory may be shared by image or backup.
    v.field("processor", processor());
    let locale = crate::sys::locale();
    if !locale.is_empty() {
        v.field("locale", &locale);
    }
    v.field("tool", &invocation.tool);
    v.field("arguments", &(argv.len() as u64).to_le_bytes());
    for argument in argv {
        v.field("argument", argument);
    }
    v.field("cwd", cwd);
    v.field("umask", &invocation.umask.to_le_bytes());
    // A file and a pipe look the same to a tool: neither is a terminal. What cannot be told apart is one.
    v.field("stdout", &stream(invocation.stdio.stdout));
    v.field("stderr", &stream(invocation.stdio.stderr));
    v.field("merged", &[u8::from(invocation.stdio.merged)]);
    v.field("variables", &(plan.key_env.len() as u64).to_le_bytes());
    for variable in &plan.key_env {
        v.field("variable", variable);
    }
}

fn stream(kind: StreamKind) -> Vec<u8> {
    match kind {
        StreamKind::File | StreamKind::Pipe => b"captured".to_vec(),
        other => format!("{other:?}").into_bytes(),
    }
}

/// What identifies the processor's abilities: the first processor's lines in `/proc/cpuinfo` that do not change
/// from one reading to the next.
fn processor() -> &'static [u8] {
    static PROCESSOR: OnceLock<Vec<u8>> = OnceLock::new();
    PROCESSOR.get_or_init(|| abilities(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()))
}

fn abilities(cpuinfo: &str) -> Vec<u8> {
    // x86's, then Arm's.
    const STABLE: [&str; 11] = [
        "vendor_id",
        "cpu family",
        "model\t",
        "model name",
        "stepping",
        "flags",
        "CPU implementer",
        "CPU variant",
        "CPU part",
        "CPU revision",
        "Features",
    ];
    let first = cpuinfo.split("\n\n").next().unwrap_or_default();
    let lines = first.lines().filter(|l| STABLE.iter().any(|s| l.starts_with(s)));
    lines.collect::<Vec<_>>().join("\n").into_bytes()
}

/// The digest of an invocation's whole environment, in order, less the names that tell nothing about what a tool does.
pub fn environment_digest(invocation: &Invocation) -> Digest {
    environment_digest_of(&invocation.env, &invocation.cwd)
}

/// As [`environment_digest`], of this environment in this working directory. `PWD` tells something only if it is
/// another name of that; otherwise it is where somebody's shell happens to be.
pub fn environment_digest_of(env: &ByteStrings, cwd: &[u8]) -> Digest {
    let mut hash = HashVisitor(blake3::Hasher::new());
    let is_cwd_declared_away = Declaration::in_environment(env).is_some_and(|d| d.no_cwd);
    let is_other_name = |pwd: &[u8]| {
        let identity = |path: &[u8]| Signature::of(path).ok().map(|s| (s.dev, s.ino));
        pwd != cwd && pwd.starts_with(b"/") && identity(pwd).is_some_and(|id| Some(id) == identity(cwd))
    };
    for entry in env.iter() {
        let name = entry.split(|&b| b == b'=').next().unwrap_or_default();
        if let Some(pwd) = entry.strip_prefix(b"PWD=")
            && (is_cwd_declared_away || !is_other_name(pwd))
        {
            continue;
        }
        let is_unimportant = UNIMPORTANT_VARIABLES.iter().any(|v| v.as_bytes() == name);
        if !is_unimportant && !name.starts_with(UNIMPORTANT_PREFIX) {
            hash.field("variable", entry);
        }
    }
    Digest(*hash.0.finalize().as_bytes())
}

/// Variables that differ from shell to shell and on which no tool's result hangs: shell bookkeeping, session
/// and window identities, the make and ninja that called. Where a text that took part names one, it counts by itself
/// (`named_variables`).
pub const UNIMPORTANT_VARIABLES: [&str; 23] = [
    "_",
    "SHLVL",
    "OLDPWD",
    "PPID",
    "WINDOWID",
    "WINDOWPATH",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "SSH_AUTH_SOCK",
    "TMUX",
    "TMUX_PANE",
    "STY",
    "XDG_SESSION_ID",
    "DBUS_SESSION_BUS_ADDRESS",
    "GPG_AGENT_INFO",
    "CARGO_MAKEFLAGS",
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKE_TERMOUT",
    "MAKE_TERMERR",
    "NINJA_STATUS",
];

/// The same, of our own.
pub const UNIMPORTANT_PREFIX: &[u8] = b"ZCCACHE_";

struct HashVisitor(blake3::Hasher);

impl Visitor for HashVisitor {
    fn field(&mut self, _: &'static str, value: &[u8]) {
        self.0.update(&(value.len() as u64).to_le_bytes());
        self.0.update(value);
    }
}

struct DescribeVisitor(Vec<String>);

impl Visitor for DescribeVisitor {
    fn field(&mut self, name: &'static str, value: &[u8]) {
        self.0.push(format!("{name}: {}", value.escape_ascii()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{invocation, plan};

    #[test]
    fn processors_of_other_kinds_have_other_keys_and_clock_rates_do_not_count() {
        let x86 = |model, mhz| {
            format!(
                "processor\t: 0\nmodel\t\t: {model}\ncpu MHz\t\t: {mhz}\nflags\t\t: sse\n\nprocessor\t: 1\n"
            )
        };
        assert_eq!(abilities(&x86(1, 1000)), b"model\t\t: 1\nflags\t\t: sse");
        assert_eq!(abilities(&x86(1, 1000)), abilities(&x86(1, 2000)));
        assert_ne!(abilities(&x86(1, 1000)), abilities(&x86(2, 1000)));
        let arm = |variant, part| {
            format!(
                "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n\
                CPU architecture: 8\nCPU variant\t: {variant}\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
            )
        };
        assert_ne!(abilities(&arm("0x0", "0xd08")), abilities(&arm("0x0", "0xd07")));
        assert_ne!(abilities(&arm("0x0", "0xd08")), abilities(&arm("0x1", "0xd08")));
    }

    #[test]
    fn whatever_the_tool_can_tell_apart_has_another_key() {
        let base = (invocation(&["gcc", "-DA", "-UA", "-c", "a.c"]), plan());
        let mut others = vec![
            (invocation(&["gcc", "-UA", "-DA", "-c", "a.c"]), plan()),
            (invocation(&["gcc", "-DA", "-UA", "-ca.c"]), plan()),
            (invocation(&["gcc", "-DA", "-UA", "-c", "a.c", ""]), plan()),
        ];
        for change in [
            |i: &mut Invocation| i.cwd = b"/elsewhere".to_vec(),
            |i: &mut Invocation| i.umask = 0o077,
            |i: &mut Invocation| i.tool = b"/usr/bin/other".to_vec(),
            |i: &mut Invocation| i.stdio.stderr = StreamKind::Terminal { rows: 24, columns: 80 },
            |i: &mut Invocation| i.stdio.merged = true,
        ] {
            let mut other = base.clone();
            change(&mut other.0);
            others.push(other);
        }
        let mut env = plan();
        env.key_env.push(b"CPATH=/x".to_vec());
        others.push((base.0.clone(), env));
        let key = RequestKey::of(&base.0, &base.1);
        for (i, p) in &others {
            assert_ne!(key, RequestKey::of(i, p), "{i:?}");
            assert_ne!(describe(&base.0, &base.1), describe(i, p));
        }
        assert_eq!(key, RequestKey::of(&base.0.clone(), &base.1.clone()));
    }

    #[test]
    fn a_pipe_and_a_file_are_the_same_to_a_tool() {
        let piped = invocation(&["gcc"]);
        let mut filed = piped.clone();
        filed.stdio.stdout = StreamKind::File;
        assert_eq!(RequestKey::of(&piped, &plan()), RequestKey::of(&filed, &plan()));
    }

    #[test]
    fn shell_bookkeeping_is_no_environment_of_a_tool() {
        let digest = |vars: &[&str]| environment_digest_of(&vars.iter().collect(), b"/");
        assert_eq!(digest(&["A=1", "SHLVL=1", "_=/bin/x"]), digest(&["A=1", "SHLVL=2"]));
        assert_ne!(digest(&["A=1"]), digest(&["A=2"]));
        assert_ne!(digest(&["A=1", "B=2"]), digest(&["A=1B=2"]));
    }
}
