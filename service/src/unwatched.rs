//! Planners for where the kernel does not show what tools do. What cannot be stored anyway is passed through: run by the
//! service, it would only cost time, and be without its user's terminal.

use zccache_actors::invocation::Invocation;
use zccache_actors::plan::{PassThrough, Planned, Planner};

use crate::planner::ToolPlanner;

/// Why everything is passed through where no tool can be observed.
pub const UNOBSERVED_SYSTEM: &str = "unobserved_system";

/// Why a command is passed through of which neither it nor its dependency file tells all inputs.
pub const UNDECLARED: &str = "undeclared";

/// Nothing is cached.
pub struct Nothing;

impl Planner for Nothing {
    fn plan(&self, _: &Invocation) -> Planned {
        Planned::PassThrough(PassThrough { reason: UNOBSERVED_SYSTEM })
    }
}

/// What declares all its inputs is cached.
pub struct Declared(pub ToolPlanner);

impl Planner for Declared {
    fn plan(&self, invocation: &Invocation) -> Planned {
        match self.0.plan(invocation) {
            Planned::Cache(plan) if plan.declared.unsupported.is_some() && plan.units.is_empty() => {
                Planned::PassThrough(PassThrough { reason: UNDECLARED })
            }
            planned => planned,
        }
    }
}
