//! Observations in memory: each of them once, however many records hang on it.
//!
//! The files of a project include the same headers and look for them in the same places, so most of what their records
//! say is the same. Sharing it takes a tenth of the memory, and a check finds it in the processor's caches.

use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashSet;

use crate::observation::Observation;
use crate::record::Record;

/// With fewer, those that no record has any more are left where they are.
const SWEPT_MIN: usize = 10_000;

/// See the module.
#[derive(Default)]
pub struct ObservationPool {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    observations: FxHashSet<Arc<Observation>>,
    /// How many were left by the last sweep.
    swept: usize,
}

impl ObservationPool {
    /// Has `record` share its observations with those that came before it.
    pub fn share(&self, record: &mut Record) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for observation in &mut record.observations {
            match known.observations.get(&**observation) {
                Some(shared) => *observation = Arc::clone(shared),
                None => drop(known.observations.insert(Arc::clone(observation))),
            }
        }
        // So that each stays for as long as it takes to add as many: on average a sweep costs each of them one look.
        if known.observations.len() >= known.swept.saturating_mul(2).max(SWEPT_MIN) {
            known.sweep();
        }
    }

    /// How many distinct observations records have.
    pub fn count(&self) -> usize {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.sweep();
        known.observations.len()
    }

    /// The most that [`Self::count`] could tell: those that no record has any more are counted as well.
    pub fn count_at_most(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).observations.len()
    }
}

impl Known {
    /// Forgets what no record has any more.
    fn sweep(&mut self) {
        self.observations.retain(|observation| Arc::strong_count(observation) > 1);
        self.swept = self.observations.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Fact, Spelled};
    use crate::record::{NO_FILE, RunResult};
    use zccache_proto::message::Exit;

    fn record(numbers: std::ops::Range<usize>) -> Record {
        let observation = |n: usize| {
            Arc::new(Observation { path: Spelled(format!("{n}.h").into_bytes()), fact: Fact::Absent })
        };
        let result = RunResult {
            exit: Exit::Code(0),
            stdout: Default::default(),
            stderr: Default::default(),
            outputs: Vec::new(),
        };
        Record {
            identities: vec![NO_FILE; numbers.len()],
            observations: numbers.map(observation).collect(),
            environment: None,
            variables: Vec::new(),
            origin: None,
            result,
        }
    }

    #[test]
    fn equal_observations_are_one_and_others_are_not() {
        let pool = ObservationPool::default();
        let (mut one, mut other) = (record(0..3), record(1..4));
        let as_it_was = other.clone();
        pool.share(&mut one);
        pool.share(&mut other);
        assert_eq!(other, as_it_was);
        for number in 1..3 {
            assert!(Arc::ptr_eq(&one.observations[number], &other.observations[number - 1]));
        }
        assert_eq!((pool.count(), pool.count_at_most()), (4, 4));
        drop(one);
        assert_eq!((pool.count_at_most(), pool.count()), (4, 3));
    }

    #[test]
    fn what_no_record_has_any_more_is_forgotten_before_it_is_as_much_as_the_rest() {
        let pool = ObservationPool::default();
        let mut kept = record(0..SWEPT_MIN);
        pool.share(&mut kept);
        for round in 1..10 {
            let mut gone = record(round * SWEPT_MIN..(round + 1) * SWEPT_MIN);
            pool.share(&mut gone);
            assert!(pool.count_at_most() <= 3 * SWEPT_MIN, "round {round}");
        }
        assert_eq!(pool.count(), SWEPT_MIN);
        pool.share(&mut kept);
        assert_eq!(pool.count(), SWEPT_MIN);
    }
}
