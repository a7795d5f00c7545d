//! `ByteStrings`: a list of byte strings as one block, each ended by NUL, as `/proc/PID/environ` has them.
//!
//! Arguments and environment entries may be any bytes but NUL. One block costs one allocation to receive,
//! where a list would cost one for each of a hundred variables on every request.

use std::ffi::CStr;

use serde::{Deserialize, Serialize};

use crate::spelling::is_same_variable;

/// A list of byte strings that hold no NUL, kept as one block.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteStrings {
    #[serde(with = "serde_bytes")]
    block: Vec<u8>,
}

impl ByteStrings {
    /// Adds `item`. Bytes from a NUL on are left out: no argument or variable can hold one.
    pub fn push(&mut self, item: &[u8]) {
        let end = item.iter().position(|&b| b == 0).unwrap_or(item.len());
        self.block.extend_from_slice(&item[..end]);
        self.block.push(0);
    }

    /// The items, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.block[..];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            // Looks at many bytes at a time. A block from the wire may lack the last NUL; its tail is an item all the same.
            let item = CStr::from_bytes_until_nul(rest).map_or(rest, CStr::to_bytes);
            rest = rest.get(item.len() + 1..).unwrap_or_default();
            Some(item)
        })
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// The value of the first `NAME=value` item whose name is `name`: what `getenv` would return.
    pub fn value_of(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find_map(|item| {
            let (start, rest) = item.split_at_checked(name.len())?;
            rest.strip_prefix(b"=").filter(|_| is_same_variable(start, name))
        })
    }

    /// The whole block, each item ended by NUL.
    pub fn as_block(&self) -> &[u8] {
        &self.block
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for ByteStrings {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut strings = Self::default();
        for item in items {
            strings.push(item.as_ref());
        }
        strings
    }
}

/// Items up to their first `=`: values of variables are nobody's business, and a message for debugging may end up in
/// a log.
impl std::fmt::Debug for ByteStrings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let without_value = |item: &[u8]| match item.iter().position(|&b| b == b'=') {
            Some(at) => format!("{}=…", String::from_utf8_lossy(&item[..at])),
            None => String::from_utf8_lossy(item).into_owned(),
        };
        f.debug_list().entries(self.iter().map(without_value)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_variable_is_printed() {
        let strings: ByteStrings = [&b"TOKEN=secret=x"[..], b"-c"].into_iter().collect();
        assert_eq!(format!("{strings:?}"), r#"["TOKEN=…", "-c"]"#);
    }

    #[test]
    fn items_come_back_in_order_and_empty_ones_are_kept() {
        for items in [&[][..], &[&b""[..]], &[b"a", b"", b"b"], &[b"\xff=1", b""]] {
            let strings: ByteStrings = items.iter().collect();
            assert_eq!(strings.iter().collect::<Vec<_>>(), items);
            assert_eq!(strings.len(), items.len());
        }
    }

    #[test]
    fn a_block_without_its_last_nul_has_a_last_item_all_the_same() {
        for (block, items) in
            [(&b"a\0b"[..], &[&b"a"[..], b"b"][..]), (b"a", &[b"a"]), (b"\0", &[b""]), (b"", &[])]
        {
            let strings = ByteStrings { block: block.to_vec() };
            assert_eq!(strings.iter().collect::<Vec<_>>(), items, "{block:?}");
        }
    }

    #[test]
    fn value_of_is_the_first_of_that_name() {
        let env: ByteStrings = ["PATHS=no", "PATH=a", "PATH=b"].iter().collect();
        assert_eq!(env.value_of(b"PATH"), Some(&b"a"[..]));
        assert_eq!(env.value_of(b"HOME"), None);
    }
}
