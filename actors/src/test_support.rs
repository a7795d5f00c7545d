//! What several unit tests build on: a plain invocation, a plan for it, a policy that knows every program.

use actix::dev::ToEnvelope;
use actix::prelude::*;
use zccache_proto::message::{Stdio, StreamKind};

use crate::invocation::Invocation;
use crate::plan::{Caution, DeclaredInputs, Plan, Policy};

/// Knows every program.
pub static POLICY: Policy = Policy {
    family: "test",
    knows_program: |_| true,
    reads_links_on_its_way_only: false,
    searches: |_| false,
    ignored_reads: &[],
    review: None,
    caution: Caution::NONE,
};

/// An invocation in `/` with piped output.
pub fn invocation(argv: &[&str]) -> Invocation {
    let (stdout, stderr) = (StreamKind::Pipe, StreamKind::Pipe);
    Invocation {
        tool: b"/usr/bin/gcc".to_vec(),
        argv: argv.iter().collect(),
        cwd: b"/".to_vec(),
        env: ["PATH=/usr/bin:/bin"].iter().collect(),
        umask: 0o022,
        stdio: Stdio { stdin: StreamKind::Null, stdout, stderr, merged: false },
    }
}

/// A plan that names nothing.
pub fn plan() -> Plan {
    Plan {
        policy: &POLICY,
        key_env: Vec::new(),
        declared: DeclaredInputs::default(),
        argv: None,
        outputs: Vec::new(),
        reads_input: false,
        pin_mtimes: false,
        timeless: Vec::new(),
        foreign_code: false,
        sharing: None,
        target: None,
        units: Vec::new(),
        checkout: None,
        time_is_fixed: false,
    }
}

/// How many messages an actor that is at something else takes, until it takes no more; they are answered afterwards.
pub async fn mailbox_takes<A, M>(addr: &Addr<A>, message: impl Fn() -> M) -> usize
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message<Result = ()> + Send + 'static,
{
    // Once it has answered, it has started, and said how many it takes.
    addr.send(message()).await.unwrap();
    // It lives on this thread, which does not come to it before the end of this.
    let taken = (0..100_000).take_while(|_| addr.try_send(message()).is_ok()).count();
    addr.send(message()).await.unwrap();
    taken
}
