//! Supervision, written once: start from a factory, probe, restart with back-off, pass over, escalate.
//!
//! actix closes a mailbox for good when a handler panics, and its own `Supervisor` restarts only on request, with
//! the same instance. So every long-lived actor is made by a factory, and its peers hold a [`Supervised`]
//! handle, whose address is replaced when the actor is. A message sent meanwhile fails, and the client that
//! it was for falls back. So does one that waits for, or is meant for, an actor that does not answer.
//!
//! Nobody is probed while nobody wants anything of the service: what was sent last is over then, and the probe that
//! follows the next request finds out as soon as any.
//!
//! ```text
//! serving --probe: mailbox closed--> restarted (back-off) --RESTARTS_MAX within RESTART_WINDOW--> escalated
//! serving --probe: no answer within STUCK_AFTER--> passed over: sends fail at once
//!                      --answers after all--> serving
//!                      --no answer within the actor's patience--> escalated, or restarted on a new thread
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use actix::dev::ToEnvelope;
use actix::prelude::*;
use tokio::sync::watch;

use crate::work::Work;

/// How often an actor is asked whether it lives, at a cost of microseconds: with `STUCK_AFTER`, whoever is stuck is found
/// within 5 s, on a machine that has other things to do, too.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

/// How long an actor may take to answer a probe before it counts as stuck, and nobody waits for it any more. One that
/// never blocks is then given up.
pub const STUCK_AFTER: Duration = Duration::from_secs(4);

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

/// What is done about an actor that is stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenStuck {
    /// It never blocks, so it will not come back: escalate at once.
    Escalate,
    /// It may wait for a disk: it is passed over, and given up only after so long.
    WaitFor(Duration),
    /// It can be done without and made anew, on another thread.
    Restart,
}

/// A handle on an actor that may be replaced.
pub struct Supervised<A: Actor> {
    name: &'static str,
    current: Arc<RwLock<Addr<A>>>,
    start: Arc<dyn Fn() -> Addr<A> + Send + Sync>,
    stuck: Arc<watch::Sender<bool>>,
}

impl<A: Actor> Clone for Supervised<A> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            current: Arc::clone(&self.current),
            start: Arc::clone(&self.start),
            stuck: Arc::clone(&self.stuck),
        }
    }
}

impl<A: Actor> Supervised<A> {
    /// Starts an actor with `start`, which must make a fresh one each time it is called.
    pub fn start(name: &'static str, start: impl Fn() -> Addr<A> + Send + Sync + 'static) -> Self {
        let current = Arc::new(RwLock::new(start()));
        Self { name, current, start: Arc::new(start), stuck: Arc::new(watch::Sender::new(false)) }
    }

    /// The actor's address now.
    pub fn addr(&self) -> Addr<A> {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Why the actor cannot be asked just now, if it cannot.
    pub fn trouble(&self) -> Option<String> {
        self.stuck.borrow().then(|| format!("the {} does not answer", self.name))
    }

    /// Sends a message and waits for its result.
    ///
    /// # Errors
    /// If the actor is gone (the next one is there within about a second), or is stuck, or gets stuck meanwhile.
    pub async fn send<M>(&self, message: M) -> Result<M::Result, MailboxError>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let mut stuck = self.stuck.subscribe();
        if *stuck.borrow_and_update() {
            return Err(MailboxError::Timeout);
        }
        tokio::select! {
            biased;
            result = self.addr().send(message) => result,
            Ok(_) = stuck.wait_for(|is_stuck| *is_stuck) => Err(MailboxError::Timeout),
        }
    }

    /// Probes the actor for ever, as long as `work` is wanted; restarts it when it is gone; returns why when that does not
    /// help.
    pub async fn watch(self, when_stuck: WhenStuck, work: Arc<Work>) -> String
    where
        A: Handler<Probe>,
        A::Context: ToEnvelope<A, Probe>,
    {
        let mut restarts = Restarts::default();
        loop {
            work.is_wanted().await;
            tokio::time::sleep(PROBE_INTERVAL).await;
            let answer = match self.probe(when_stuck).await {
                Answer::Alive => continue,
                answer => answer,
            };
            let after = match (answer, when_stuck) {
                (Answer::Gone, _) => "is gone".to_owned(),
                (Answer::Silent(after), WhenStuck::Restart) => format!("is stuck for {} s", after.as_secs()),
                (Answer::Silent(after), _) => {
                    return format!("the {} has not answered for {} s", self.name, after.as_secs());
                }
                (Answer::Alive, _) => continue,
            };
            let Some(pause) = restarts.allow(Instant::now()) else {
                return format!("the {} was restarted too often", self.name);
            };
            tracing::error!(
                actor = self.name,
                after,
                ?pause,
                "an actor is of no use any more; restarting it"
            );
            tokio::time::sleep(pause).await;
            let fresh = (self.start)();
            *self.current.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
            self.stuck.send_replace(false);
        }
    }

    /// Asks once whether the actor lives. While it leaves that open, it is passed over.
    async fn probe(&self, when_stuck: WhenStuck) -> Answer
    where
        A: Handler<Probe>,
        A::Context: ToEnvelope<A, Probe>,
    {
        let addr = self.addr();
        let asked = addr.send(Probe);
        tokio::pin!(asked);
        let answer = |answered: Result<(), MailboxError>| match answered {
            Ok(()) => Answer::Alive,
            Err(_) => Answer::Gone,
        };
        if let Ok(answered) = tokio::time::timeout(STUCK_AFTER, &mut asked).await {
            return answer(answered);
        }
        let WhenStuck::WaitFor(patience) = when_stuck else { return Answer::Silent(STUCK_AFTER) };
        tracing::error!(actor = self.name, "an actor does not answer; going on without it");
        self.stuck.send_replace(true);
        let rest = patience.saturating_sub(STUCK_AFTER);
        let Ok(answered) = tokio::time::timeout(rest, asked).await else { return Answer::Silent(patience) };
        tracing::info!(actor = self.name, "the actor answers again");
        self.stuck.send_replace(false);
        answer(answered)
    }
}

/// How a probe was answered.
enum Answer {
    Alive,
    Gone,
    /// Not at all, for so long.
    Silent(Duration),
}

/// Probes an actor that nobody can replace, for ever; returns why when it is gone or stuck.
pub async fn guard<A>(name: &'static str, addr: Addr<A>) -> String
where
    A: Actor + Handler<Probe>,
    A::Context: ToEnvelope<A, Probe>,
{
    loop {
        tokio::time::sleep(PROBE_INTERVAL).await;
        match tokio::time::timeout(STUCK_AFTER, addr.send(Probe)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return format!("the {name} is gone"),
            Err(_) => return format!("the {name} has not answered for {} s", STUCK_AFTER.as_secs()),
        }
    }
}

/// The sign of life of whoever supervises all others; looked at by a thread that depends on nobody.
#[derive(Debug, Default)]
pub struct Pulse(AtomicU64);

impl Pulse {
    /// How often [`Pulse::beat`] is to be called.
    pub const INTERVAL: Duration = PROBE_INTERVAL;

    /// Says: alive.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts a thread that calls `stopped` when there was no beat for too long, and ends then.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn watch(self: &Arc<Self>, stopped: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let pulse = Arc::clone(self);
        let watch = move || {
            let (mut last, mut silent) = (pulse.0.load(Ordering::Relaxed), Duration::ZERO);
            while silent < STUCK_AFTER {
                std::thread::sleep(PROBE_INTERVAL);
                let now = pulse.0.load(Ordering::Relaxed);
                // Counted in naps: while the machine sleeps, or this process is stopped, nobody beats.
                silent = if now == last { silent + PROBE_INTERVAL } else { Duration::ZERO };
                last = now;
            }
            stopped();
        };
        std::thread::Builder::new().name("watchdog".into()).spawn(watch).map(drop)
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
    use crate::work::AFTERMATH;

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

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Block(Duration);

    impl Handler<Block> for Fragile {
        type Result = ();
        fn handle(&mut self, message: Block, _: &mut Self::Context) {
            std::thread::sleep(message.0);
        }
    }

    fn fragile() -> Supervised<Fragile> {
        Supervised::start("fragile", || Fragile::start_in_arbiter(&Arbiter::new().handle(), |_| Fragile))
    }

    /// The work of a service that is always wanted.
    fn wanted() -> Arc<Work> {
        let work = Arc::<Work>::default();
        work.drain();
        work
    }

    /// Longer than an actor may be silent, with what probing takes besides.
    const LONG: Duration = STUCK_AFTER.saturating_add(Duration::from_secs(3));

    #[actix::test]
    async fn a_stuck_actor_is_passed_over_until_it_answers() {
        // The promise: whoever is stuck is found within 5 s.
        const { assert!(PROBE_INTERVAL.as_millis() + STUCK_AFTER.as_millis() <= 5000) };
        let supervised = fragile();
        let watch = actix::spawn(supervised.clone().watch(WhenStuck::WaitFor(LONG * 10), wanted()));
        supervised.addr().do_send(Block(LONG));
        // Who waits for it already is let go, and who comes later does not wait at all.
        assert_eq!(supervised.send(Probe).await, Err(MailboxError::Timeout));
        assert_eq!(supervised.send(Probe).await, Err(MailboxError::Timeout));
        assert!(supervised.trouble().is_some_and(|t| t.contains("fragile")));
        while supervised.send(Probe).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await; // until it is free again
        }
        assert_eq!(supervised.trouble(), None);
        watch.abort();
    }

    #[actix::test]
    async fn a_stuck_actor_is_given_up_or_replaced() {
        let is_given_up = |when_stuck| async move {
            let supervised = fragile();
            supervised.addr().do_send(Block(LONG));
            assert!(supervised.watch(when_stuck, wanted()).await.contains("the fragile has not answered"));
        };
        let is_replaced = async {
            let supervised = fragile();
            let watch = actix::spawn(supervised.clone().watch(WhenStuck::Restart, wanted()));
            let stuck = supervised.addr();
            stuck.do_send(Block(LONG));
            while supervised.addr() == stuck {
                tokio::time::sleep(Duration::from_millis(10)).await; // until it was replaced
            }
            assert_eq!(supervised.send(Probe).await, Ok(()));
            watch.abort();
        };
        // They mostly wait, so all at once.
        tokio::join!(
            is_given_up(WhenStuck::Escalate),
            is_given_up(WhenStuck::WaitFor(STUCK_AFTER + Duration::from_millis(100))),
            is_replaced
        );
    }

    #[actix::test]
    async fn nobody_is_probed_while_nothing_is_wanted() {
        let probes = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&probes);
        let start = move || {
            let probes = Arc::clone(&counted);
            Counting::start_in_arbiter(&Arbiter::new().handle(), |_| Counting { probes })
        };
        let work = Arc::<Work>::default();
        let watch =
            actix::spawn(Supervised::start("counting", start).watch(WhenStuck::Escalate, Arc::clone(&work)));
        let during = async |time| {
            let before = probes.load(Ordering::SeqCst);
            tokio::time::sleep(time).await;
            probes.load(Ordering::SeqCst) - before
        };
        assert!(during(AFTERMATH).await >= 2, "it has just begun");
        during(PROBE_INTERVAL * 3).await; // the last one
        assert_eq!(during(PROBE_INTERVAL * 3).await, 0);
        work.want();
        assert!(during(PROBE_INTERVAL * 3).await >= 1);
        watch.abort();
    }

    struct Counting {
        probes: Arc<AtomicU64>,
    }

    impl Actor for Counting {
        type Context = Context<Self>;
    }

    impl Handler<Probe> for Counting {
        type Result = ();
        fn handle(&mut self, _: Probe, _: &mut Self::Context) {
            self.probes.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[actix::test]
    async fn a_guard_tells_when_its_ward_is_gone() {
        let addr = Fragile::start_in_arbiter(&Arbiter::new().handle(), |_| Fragile);
        addr.do_send(Break);
        assert_eq!(guard("ward", addr).await, "the ward is gone");
    }

    #[test]
    fn a_pulse_that_stops_is_noticed() {
        let (sender, stopped) = std::sync::mpsc::channel();
        let pulse = Arc::<Pulse>::default();
        pulse.watch(move || sender.send(()).unwrap()).unwrap();
        for _ in 0..2 {
            pulse.beat();
            assert!(stopped.recv_timeout(STUCK_AFTER / 2).is_err());
        }
        stopped.recv_timeout(LONG).unwrap();
    }

    #[actix::test]
    async fn an_actor_that_panicked_is_replaced_under_the_same_handle() {
        let arbiter = Arbiter::new().handle();
        let start = move || Fragile::start_in_arbiter(&arbiter, |_| Fragile);
        let supervised = Supervised::start("fragile", start);
        let watch = actix::spawn(supervised.clone().watch(WhenStuck::Escalate, wanted()));
        assert!(supervised.send(Break).await.is_err());
        while supervised.send(Probe).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await; // until the next probe notices
        }
        watch.abort();
    }
}
