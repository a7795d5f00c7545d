//! The system's wish that the service end, on Windows.

use actix::prelude::*;
use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_shutdown};
use zccache_actors::root::{BeginShutdown, Root};

/// Has root begin the shutdown at Ctrl-C, Ctrl-Break, and when the machine shuts down.
///
/// # Errors
/// If the system does not let us wait for them.
pub fn shut_down_on(root: Addr<Root>) -> anyhow::Result<()> {
    let (mut interrupt, mut brk, mut shutdown) = (ctrl_c()?, ctrl_break()?, ctrl_shutdown()?);
    actix::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = brk.recv() => {}
                _ = shutdown.recv() => {}
            }
            root.do_send(BeginShutdown); // repeated wishes are one request
        }
    });
    Ok(())
}
