//! Supervision, written once: start from a factory, probe, restart with back-off, escalate.
//!
//! actix closes a mailbox for good when a handler panics, and its own `Supervisor` restarts only on request, with
//! the same instance. So every long-lived actor is made by a factory, and its peers hold a [`Supervised`]
//! handle, whose address is replaced when the actor is. A message sent meanwhile fails, and the client that
//! it was for falls back.
//!
//! ```text
//! serving --probe: mailbox closed--> restarted (back-off) --RESTARTS_MAX within RESTART_WINDOW--> escalated
//! serving --probe: no answer within the actor's patience--> escalated
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::prelude::*;

/// How often an actor is asked whether it lives: a panic is noticed within a second, at a cost of microseconds.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How long an actor that never blocks may take to answer a probe before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Restarts within the window that are taken for bad luck; one more is a fault that restarting does not cure.
const RESTARTS_MAX: usize = 5;

/// The window in which restarts are counted.
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// The pause before the first restart in a window; doubled for each further one.
const BACK_OFF: Duration = Duration::from_millis(10);

/// Asks an actor whether it lives. Sent by its supervisor; may be repeated.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Probe;

/// A handle on an actor that may be replaced.
pub struct Supervised<A: Actor> {
    name: &'static str,
    current: Arc<RwLock<Addr<A>>>,
    start: Arc<dyn Fn() -> Addr<A> + Send + Sync>,
}

impl<A: Actor> Clone for Supervised<A> {
    fn clone(&self) -> Self {
        Self { name: self.name, current: Arc::clone(&self.current), start: Arc::clone(&self.start) }
    }
}

impl<A: Actor> Supervised<A> {
    /// Starts an actor with `start`, which must make a fresh one each time it is called.
    pub fn start(name: &'static str, start: impl Fn() -> Addr<A> + Send + Sync + 'static) -> Self {
        Self { name, current: Arc::new(RwLock::new(start())), start: Arc::new(start) }
    }

    /// The actor's address now.
    pub fn addr(&self) -> Addr<A> {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Sends a message and waits for its result.
    ///
    /// # Errors
    /// If the actor is gone; the next one is there within about a second.
    pub async fn send<M>(&self, message: M) -> Result<M::Result, MailboxError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        self.addr().send(message).await
    }

    /// Probes the actor for ever, restarts it when it is gone; returns why when that does not help.
    pub async fn watch(self, patience: Duration) -> String
    where
        A: Handler<Probe>,
        A::Context: ToEnvelope<A, Probe>,
    {
        let mut restarts = Restarts::default();
        loop {
            tokio::time::sleep(PROBE_INTERVAL).await;
            match tokio::time::timeout(patience, self.addr().send(Probe)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => match restarts.allow(Instant::now()) {
                    Some(pause) => {
                        tracing::error!(actor = self.name, ?pause, "an actor is gone; restarting it");
                        tokio::time::sleep(pause).await;
                        let fresh = (self.start)();
                        *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
                    }
                    None => return format!("{} was restarted too often", self.name),
                },
                Err(_) => return format!("{} has not answered for {} s", self.name, patience.as_secs()),
            }
        }
    }
}

/// The restarts of one actor: decides whether one more makes sense, and after what pause.
#[derive(Default)]
struct Restarts(VecDeque<Instant>);

impl Restarts {
    fn allow(&mut self, now: Instant) -> Option<Duration> {
        self.0.retain(|at| now.duration_since(*at) < RESTART_WINDOW);
        if self.0.len() >= RESTARTS_MAX {
            return None;
        }
        let doublings = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push_back(now);
        Some(BACK_OFF * 2u32.saturating_pow(doublings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_back_off_and_give_up_within_a_window() {
        let mut restarts = Restarts::default();
        let start = Instant::now();
        let pauses: Vec<_> = (0..6).map(|i| restarts.allow(start + Duration::from_secs(i))).collect();
        let ms = |n| Some(Duration::from_millis(n));
        assert_eq!(pauses, [ms(10), ms(20), ms(40), ms(80), ms(160), None]);
        assert_eq!(restarts.allow(start + RESTART_WINDOW * 2), ms(10));
    }

    #[derive(Default)]
    struct Fragile;

    impl Actor for Fragile {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Break;

    impl Handler<Probe> for Fragile {
        type Result = ();
        fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
    }

    impl Handler<Break> for Fragile {
        type Result = ();
        fn handle(&mut self, _: Break, _: &mut Self::Context) {
            panic!("on purpose");
        }
    }

    #[actix::test]
    async fn an_actor_that_panicked_is_replaced_under_the_same_handle() {
        let arbiter = Arbiter::new().handle();
        let start = move || Fragile::start_in_arbiter(&arbiter, |_| Fragile);
        let supervised = Supervised::start("fragile", start);
        let watch = actix::spawn(supervised.clone().watch(PATIENCE));
        assert!(supervised.send(Break).await.is_err());
        while supervised.send(Probe).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await; // until the next probe notices
        }
        watch.abort();
    }
}
