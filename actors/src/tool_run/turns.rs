//! Whose turn it is when both a system call and something else may wait: the calls', but not for ever.

/// How many system calls are answered before anything else gets its turn, should a tree of processes ask
/// without a pause: a fraction of a millisecond's worth.
const CALLS_IN_A_ROW_MAX: u32 = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Turns {
    /// System calls answered since anything else was looked for.
    calls_in_a_row: u32,
}

impl Turns {
    /// Whether it is the turn of a call, where `waits` says that there is one.
    pub fn is_calls(&mut self, waits: bool) -> bool {
        let is_calls = waits && self.calls_in_a_row < CALLS_IN_A_ROW_MAX;
        self.calls_in_a_row = if is_calls { self.calls_in_a_row + 1 } else { 0 };
        is_calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_so_many_calls_in_a_row_the_others_have_a_turn() {
        let mut turns = Turns::default();
        for _ in 0..2 {
            assert!((0..CALLS_IN_A_ROW_MAX).all(|_| turns.is_calls(true)));
            assert!(!turns.is_calls(true));
        }
        // A pause counts as a turn of the others.
        assert!((1..CALLS_IN_A_ROW_MAX).all(|_| turns.is_calls(true)));
        assert!(!turns.is_calls(false));
        assert!((0..CALLS_IN_A_ROW_MAX).all(|_| turns.is_calls(true)));
    }
}
