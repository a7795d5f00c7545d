//! What a user may type: any words become a plan or are passed through, and the same ones the same way.
//!
//! The first byte chooses the tool, the rest are its arguments, each ended by a line's end.

use std::sync::LazyLock;

use zccache_actors::invocation::Invocation;
use zccache_actors::key::RequestKey;
use zccache_actors::plan::{Planned, Planner};
use zccache_proto::ByteStrings;
use zccache_proto::message::{Stdio, StreamKind};
use zccache_service::planner::ToolPlanner;

const TOOLS: [&[u8]; 6] = [b"gcc", b"g++", b"clang", b"clang++", b"cc", b"rustc"];

static PLANNER: LazyLock<ToolPlanner> = LazyLock::new(ToolPlanner::default);

/// Panics if that is not so. Says whether the words became a plan.
pub fn check(typed: &[u8]) -> bool {
    let Some((&choice, rest)) = typed.split_first() else { return false };
    let tool = TOOLS[usize::from(choice) % TOOLS.len()];
    let words = [tool].into_iter().chain(rest.split(|&b| b == b'\n'));
    let invocation = Invocation {
        tool: [&b"/nonexistent/"[..], tool].concat(),
        argv: words.collect::<ByteStrings>(),
        cwd: b"/nonexistent".to_vec(),
        env: [&b"PATH=/nonexistent"[..], b"CPATH=include"].into_iter().collect(),
        umask: 0o022,
        stdio: Stdio {
            stdin: StreamKind::Null,
            stdout: StreamKind::Pipe,
            stderr: StreamKind::Pipe,
            merged: false,
        },
    };
    match (PLANNER.plan(&invocation), PLANNER.plan(&invocation)) {
        (Planned::Cache(plan), Planned::Cache(again)) => {
            assert!(RequestKey::of(&invocation, &plan) == RequestKey::of(&invocation, &again));
            true
        }
        (Planned::PassThrough(why), Planned::PassThrough(again)) => {
            assert_eq!(why.reason, again.reason);
            false
        }
        _ => panic!("the same words were planned in two ways"),
    }
}
