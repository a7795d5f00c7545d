//! Follows libraries to those that they need in turn.

use std::collections::HashSet;
use std::hash::Hash;

/// The most libraries of one program: most of them are the system's own, some hundred in all.
const LIBRARIES_MAX: usize = 1000;

/// Has `needs` tell of each of `first`, and of all that it names in turn, once.
///
/// # Errors
/// Its own, and that there are too many.
pub fn follow<T: Clone + Eq + Hash>(
    first: Vec<T>,
    mut needs: impl FnMut(&T) -> Result<Vec<T>, String>,
) -> Result<(), String> {
    let mut known = HashSet::new();
    let mut pending = first;
    while let Some(next) = pending.pop() {
        if known.contains(&next) {
            continue;
        }
        if known.len() >= LIBRARIES_MAX {
            return Err("a program that needs very many libraries".into());
        }
        pending.extend(needs(&next)?);
        known.insert(next);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_libraries_are_followed_and_no_more() {
        let chain = |length: usize| {
            follow(vec![1], |&number| Ok(if number < length { vec![number + 1, 1] } else { Vec::new() }))
        };
        assert!(chain(LIBRARIES_MAX).is_ok());
        assert!(chain(LIBRARIES_MAX + 1).is_err());
    }
}
