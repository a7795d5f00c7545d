//! Flights: which request keys are being worked on, so that equal requests at once run the tool once.
//!
//! ```text
//!            enter                    land(Stored)      followers look again and hit
//! (no entry) -----> leader at work -> land(NotStored)   followers run for themselves, all at once
//!                     ^  enter        land(Abandoned)   one follower becomes the leader
//!                     +-- follower
//! ```

use std::collections::HashMap;
use std::hash::Hash;

/// How a leader's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// The result is stored: look again.
    Stored,
    /// The result cannot be stored: everybody runs for themselves.
    NotStored,
    /// The leader went away before there was a result.
    Abandoned,
}

/// What an entrant is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Do the work, then land.
    Lead,
    /// Wait for the landing.
    Follow,
}

/// The keys in flight, and who waits for each (`W` is whatever wakes a waiter).
#[derive(Debug)]
pub struct Flights<K, W> {
    waiters: HashMap<K, Vec<W>>,
}

impl<K: Eq + Hash, W> Default for Flights<K, W> {
    fn default() -> Self {
        Self { waiters: HashMap::new() }
    }
}

impl<K: Eq + Hash, W> Flights<K, W> {
    /// Leads if nobody does; otherwise keeps `waiter()` until the landing.
    pub fn enter(&mut self, key: K, waiter: impl FnOnce() -> W) -> Role {
        match self.waiters.get_mut(&key) {
            Some(waiters) => {
                waiters.push(waiter());
                Role::Follow
            }
            None => {
                self.waiters.insert(key, Vec::new());
                Role::Lead
            }
        }
    }

    /// Ends the flight of `key`; returns who waited for it.
    pub fn land(&mut self, key: &K) -> Vec<W> {
        self.waiters.remove(key).unwrap_or_default()
    }

    /// The number of keys in flight.
    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Whether nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_leads_the_others_follow_until_it_lands() {
        let mut flights = Flights::default();
        assert_eq!(flights.enter("k", || 1), Role::Lead);
        assert_eq!(flights.enter("k", || 2), Role::Follow);
        assert_eq!(flights.enter("other", || 3), Role::Lead);
        assert_eq!(flights.land(&"k"), [2]);
        assert_eq!(flights.enter("k", || 4), Role::Lead);
    }

    proptest! {
        /// Whatever the order of events: never two leaders of a key, and every follower is woken exactly once.
        #[test]
        fn every_follower_is_woken_once_and_there_is_one_leader(events in prop::collection::vec((0u8..3, any::<bool>()), 0..60)) {
            let mut flights = Flights::default();
            let mut leading = [false; 3];
            let (mut waiting, mut woken) = (Vec::new(), Vec::new());
            for (number, (key, enters)) in events.into_iter().enumerate() {
                if enters {
                    match flights.enter(key, || number) {
                        Role::Lead => {
                            prop_assert!(!leading[key as usize]);
                            leading[key as usize] = true;
                        }
                        Role::Follow => {
                            prop_assert!(leading[key as usize]);
                            waiting.push(number);
                        }
                    }
                } else {
                    woken.extend(flights.land(&key));
                    leading[key as usize] = false;
                }
            }
            for key in 0..3 {
                woken.extend(flights.land(&key));
            }
            woken.sort_unstable();
            prop_assert_eq!(waiting, woken);
            prop_assert!(flights.is_empty());
        }
    }
}
