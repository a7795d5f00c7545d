//! Which observer watches the tools: the kernel if it can, else what the tools declare.

use std::sync::Arc;

use zccache_actors::observe_linux::ObservedObserver;
use zccache_actors::observer::Observer;

use crate::config::ObserverKind;

/// The observer in use.
pub struct Chosen {
    /// It.
    pub observer: Arc<dyn Observer>,
    /// Its name, for `status`.
    pub name: &'static str,
    /// Why it is not the one that was hoped for, if it is not.
    pub trouble: Option<String>,
}
