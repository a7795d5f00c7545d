//! Which observer watches the tools: the kernel if it can, else what the tools declare.

use std::sync::Arc;

use zccache_actors::observe_declared::DeclaredObserver;
use zccache_actors::observe_linux::ObservedObserver;
use zccache_actors::observe_none::Unobserved;
use zccache_actors::observer::Observer;
use zccache_actors::plan::Planner;

use crate::config::{Config, ObserverKind};
use crate::planner::ToolPlanner;
use crate::unwatched::{Declared, Nothing};

/// The observer in use.
pub struct Chosen {
    /// It.
    pub observer: Arc<dyn Observer>,
    /// Who says what invocations mean, and what of them can be observed.
    pub planner: Box<dyn Planner>,
    /// Its name, for `status`.
    pub name: &'static str,
    /// Why it is not the one that was hoped for, if it is not.
    pub trouble: Option<String>,
}

/// Chooses. Never fails: what cannot be observed still runs, it is only not stored.
pub fn choose(config: &Config) -> Chosen {
    if config.observer == ObserverKind::Declared {
        return declared(config, None);
    }
    match ObservedObserver::new() {
        Ok(observer) => {
            let planner = Box::new(ToolPlanner::new(config.strip_incremental));
            Chosen { observer: Arc::new(observer), planner, name: "observed", trouble: None }
        }
        Err(why) if config.observer == ObserverKind::Auto => {
            declared(config, Some(format!("tools cannot be observed, so less is stored: {why}")))
        }
        Err(why) => {
            let trouble = Some(format!("tools cannot be observed, so nothing is stored: {why}"));
            let observer = Arc::new(Unobserved { why });
            Chosen { observer, planner: Box::new(Nothing), name: "none", trouble }
        }
    }
}

fn declared(config: &Config, trouble: Option<String>) -> Chosen {
    let planner = Box::new(Declared(ToolPlanner::new(config.strip_incremental)));
    Chosen { observer: Arc::new(DeclaredObserver::default()), planner, name: "declared", trouble }
}
