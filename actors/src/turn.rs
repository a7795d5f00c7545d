//! A request's turn: it follows the flights of equal requests, leads one itself, or runs alone.

use crate::flights::Landing;

/// How many flights of others a request follows before it runs for itself: each landing "stored" whose record
/// then does not hold means that inputs are being edited under a running build.
const FLIGHTS_FOLLOWED_MAX: usize = 3;

/// What entering a flight came to.
pub enum Entry<F> {
    /// It is this request's own.
    Lead(F),
    /// Another's, which has landed meanwhile.
    Landed(Landing),
}

/// What a request is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<F, H> {
    /// Nothing more: somebody's result holds for it.
    Served(H),
    /// Run for all who wait.
    Lead(F),
    /// Run for itself.
    Alone,
}

/// Enters flights, and follows those of others, until one leaves a result that `look` finds to hold, or it is this
/// request's turn.
pub async fn follow<F, H>(
    enter: impl AsyncFn() -> Entry<F>,
    look: impl AsyncFn() -> Option<H>,
) -> Turn<F, H> {
    for _ in 0..FLIGHTS_FOLLOWED_MAX {
        match enter().await {
            Entry::Lead(flight) => return Turn::Lead(flight),
            Entry::Landed(Landing::NotStored) => break,
            Entry::Landed(Landing::Abandoned) => {}
            Entry::Landed(Landing::Stored) => {
                if let Some(found) = look().await {
                    return Turn::Served(found);
                }
            }
        }
    }
    Turn::Alone
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_few_flights_are_followed_and_then_no_more() {
        let (entered, looked) = (Cell::new(0), Cell::new(0));
        let mut turns = Vec::new();
        // Of a result that holds at the last look, that never does, and of none.
        for (landing, holds_at) in [
            (Landing::Stored, FLIGHTS_FOLLOWED_MAX),
            (Landing::Stored, usize::MAX),
            (Landing::Abandoned, usize::MAX),
            (Landing::NotStored, usize::MAX),
        ] {
            entered.set(0);
            looked.set(0);
            let enter = async || {
                entered.set(entered.get() + 1);
                Entry::<()>::Landed(landing)
            };
            let look = async || {
                looked.set(looked.get() + 1);
                (looked.get() == holds_at).then_some("result")
            };
            turns.push((follow(enter, look).await, entered.get(), looked.get()));
        }
        let most = FLIGHTS_FOLLOWED_MAX;
        let expected = [
            (Turn::Served("result"), most, most),
            (Turn::Alone, most, most),
            (Turn::Alone, most, 0),
            (Turn::Alone, 1, 0),
        ];
        assert_eq!(turns, expected);
        let first = follow(async || Entry::Lead("flight"), async || Some(())).await;
        assert_eq!(first, Turn::Lead("flight"));
    }
}
