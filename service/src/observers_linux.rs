//! Which observer watches the tools: the kernel if it can, else what the tools declare.

use std::sync::Arc;

use zccache_actors::observe_declared::DeclaredObserver;
use zccache_actors::observe_linux::ObservedObserver;
use zccache_actors::observe_none::Unobserved;
use zccache_actors::observer::Observer;
use zccache_actors::plan::Planner;

use crate::config::{Config, ObserverKind};
use crate::planner::ToolPlanner;

/// The observer in use.
pub struct Chosen {
    /// It.
    pub observer: Arc<dyn Observer>,
    /// Its name, for `status`.
    pub name: &'static str,
    /// Why it is not the one that was hoped for, if it is not.
    pub trouble: Option<String>,
}

/// Chooses. Never fails: what cannot be observed still runs, it is only not stored.
pub fn choose(kind: ObserverKind) -> Chosen {
    if kind == ObserverKind::Declared {
        return declared(None);
    }
    match ObservedObserver::new() {
        Ok(observer) => Chosen { observer: Arc::new(observer), name: "observed", trouble: None },
        Err(why) if kind == ObserverKind::Auto => {
            declared(Some(format!("tools cannot be observed, so less is stored: {why}")))
        }
        Err(why) => {
            let trouble = Some(format!("tools cannot be observed, so nothing is stored: {why}"));
            Chosen { observer: Arc::new(Unobserved { why }), name: "none", trouble }
        }
    }
}

fn declared(trouble: Option<String>) -> Chosen {
    Chosen { observer: Arc::new(DeclaredObserver::default()), name: "declared", trouble }
}

/// Who says what invocations mean.
pub fn planner(config: &Config) -> Box<dyn Planner> {
    Box::new(ToolPlanner::new(config.strip_incremental))
}
