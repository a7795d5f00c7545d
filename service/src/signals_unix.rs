//! The system's wish that the service end, on Unix.

use actix::prelude::*;
use tokio::signal::unix::{SignalKind, signal};
use zccache_actors::root::{BeginShutdown, Root};

/// Has root begin the shutdown at `SIGTERM` and `SIGINT`.
///
/// # Errors
/// If the system does not let us wait for signals.
pub fn shut_down_on(root: Addr<Root>) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, root) = (signal(kind)?, root.clone());
        actix::spawn(async move {
            while signals.recv().await.is_some() {
                root.do_send(BeginShutdown); // repeated signals are one request
            }
        });
    }
    Ok(())
}
