//! Which observer watches the tools, on systems other than Linux: none does as yet.
//!
//! What cannot be observed cannot be stored, and running a tool for a client would only cost it time. So every compile
//! is passed through: the client runs the tool itself, and the reason is counted.

use std::sync::Arc;

use zccache_actors::observe_none::Unobserved;
use zccache_actors::observer::Observer;
use zccache_actors::plan::Planner;

use crate::config::Config;
use crate::unwatched::Nothing;

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

/// Chooses; there is no choice.
pub fn choose(_: &Config) -> Chosen {
    let why =
        "zccache cannot observe tools on this system yet, so nothing is cached: every tool runs by itself";
    let observer = Unobserved { why: why.into() };
    Chosen {
        observer: Arc::new(observer),
        planner: Box::new(Nothing),
        name: "none",
        trouble: Some(why.into()),
    }
}
