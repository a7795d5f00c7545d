//! Which observer watches the tools, on systems other than Linux: what they declare is believed.
//!
//! What cannot be observed cannot be stored, and running a tool for a client would only cost it time. So whatever is not
//! declared is passed through: the client runs the tool itself, and the reason is counted.

use std::sync::Arc;

use zccache_actors::observe_declared::DeclaredObserver;
use zccache_actors::observe_none::Unobserved;
use zccache_actors::observer::Observer;
use zccache_actors::plan::Planner;

use crate::config::{Config, ObserverKind};
use crate::planner::ToolPlanner;
use crate::planner_elsewhere::Elsewhere;
use crate::unwatched::{Declared, Nothing};

/// The observer in use.
pub struct Chosen {
    /// It.
    pub observer: Arc<dyn Observer>,
    /// Who says what invocations mean, and what of them can be observed.
    pub planner: Box<dyn Planner>,
    /// Its name, for `status`.
    pub name: &'static str,
    /// Why it is not the one that was hoped for.
    pub trouble: Option<String>,
}

/// Chooses. Never fails: what cannot be observed still runs, it is only not stored.
pub fn choose(config: &Config) -> Chosen {
    if config.observer == ObserverKind::Observed {
        let why = "tools cannot be observed on this system, so nothing is stored: take the declared observer";
        let observer = Arc::new(Unobserved { why: why.into() });
        return Chosen { observer, planner: Box::new(Nothing), name: "none", trouble: Some(why.into()) };
    }
    let planner = Box::new(Elsewhere(Declared(ToolPlanner::new(config.strip_incremental))));
    Chosen { observer: Arc::new(DeclaredObserver::default()), planner, name: "declared", trouble: None }
}
