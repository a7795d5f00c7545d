//! Overdue: a tool has ended, and what it left does not come into the store, since a disk hangs.
//!
//! Its client is told how the tool ended, and the result is not stored. Nobody captures anything then until that disk
//! has answered: each would wait for as long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::blobs::Blobs;
use crate::runner::RunReport;

/// How long nothing may come into the store, from anybody, while a client waits for its tool's outputs to be captured.
/// As long as bytes come, it is a large output; 5 s without one is no disk that works.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What the runner says of a run, or that it says nothing.
type Said = Result<std::io::Result<RunReport>, oneshot::error::RecvError>;

/// The report of a run whose tool has ended; `None` if it is not worth waiting for.
pub async fn in_time(
    mut report: oneshot::Receiver<std::io::Result<RunReport>>,
    blobs: &Arc<Blobs>,
) -> Option<Said> {
    loop {
        let before = blobs.received_bytes();
        match tokio::time::timeout(SILENCE_MAX, &mut report).await {
            Ok(said) => return Some(said),
            Err(_) if blobs.received_bytes() != before => {}
            Err(_) => break,
        }
    }
    tracing::warn!("what a tool left does not come into the store; going on without it");
    let overdue = blobs.note_overdue();
    actix::spawn(async move {
        let _ = report.await; // However late; what it has captured goes with it.
        drop(overdue);
        tracing::info!("the store takes contents again");
    });
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn outputs_that_do_not_come_are_not_waited_for_and_large_ones_are() {
        tokio::time::pause();
        let temp = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::new(temp.path()));
        let (sender, report) = oneshot::channel();
        let (begun, slow) = (tokio::time::Instant::now(), Arc::clone(&blobs));
        // One that is slow, though something comes all the time.
        let receiving = actix::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(SILENCE_MAX * 9 / 10).await;
                slow.receive_bytes(b"some").unwrap();
            }
        });
        assert!(in_time(report, &blobs).await.is_none());
        receiving.await.unwrap();
        let waited = begun.elapsed();
        assert!((SILENCE_MAX * 5..SILENCE_MAX * 7).contains(&waited), "{waited:?}");
        assert!(blobs.trouble().is_some());
        sender.send(Err(std::io::Error::other("at last"))).unwrap();
        while blobs.trouble().is_some() {
            tokio::task::yield_now().await;
        }
        let (sender, report) = oneshot::channel();
        sender.send(Err(std::io::Error::other("at once"))).unwrap();
        assert!(in_time(report, &blobs).await.is_some());
    }
}
