//! Runs tools without observing them: for systems on which nothing can be observed. Nothing is stored then, and
//! the reason says why.

use std::io;

use crate::observer::{Job, Observed, Observer, Unstorable, Watcher};
use crate::tool_run;

/// Observes nothing.
pub struct Unobserved {
    /// Why not.
    pub why: String,
}

impl Observer for Unobserved {
    fn run(&self, job: Job, watcher: &mut dyn Watcher) -> io::Result<Observed> {
        let ended = tool_run::run(job, watcher, None)?;
        let why =
            if ended.cancelled { Unstorable::Cancelled } else { Unstorable::NotObservable(self.why.clone()) };
        Ok(Observed {
            exit: ended.exit,
            sightings: Vec::new(),
            listings: Vec::new(),
            effects: Vec::new(),
            reread: Vec::new(),
            programs: Vec::new(),
            asked_time: false,
            unstorable: Some(why),
        })
    }
}
