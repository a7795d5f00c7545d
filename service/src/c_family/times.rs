//! `#pragma GCC dependency "file"`: the compiler warns if that file is newer than the one which says so.
//!
//! It is the one way in which the times of ordinary sources show without the compiler asking for the time. No system
//! call tells that it happened, so texts are searched for it. A comment that speaks of such a thing is taken for it as
//! well: a result is then bound to times needlessly, and is no less right.

use memchr::memmem;

/// The pragma's own word.
const WORD: &[u8] = b"dependency";

/// What stands before it, near by, however it is put together: `#pragma GCC`, `#pragma clang`, `_Pragma("…`.
const BEFORE: &[&[u8]] = &[b"GCC", b"clang", b"ragma"];

/// How far before the word those are looked for, in bytes: a line, comments included.
const NEAR_BYTES_MAX: usize = 1000;

/// What policies of tools that read C say of it.
pub const TELLS_TIMES: Option<fn(&[u8]) -> bool> = Some(may_tell_times);

/// The same, for tools that are scripts themselves, which speak of compilers and dependencies in plain words: a text
/// counts that speaks of a pragma as well, or has the word right behind a compiler's name.
pub const TELLS_TIMES_AMONG_SCRIPTS: Option<fn(&[u8]) -> bool> = Some(may_tell_times_among_scripts);

fn may_tell_times_among_scripts(text: &[u8]) -> bool {
    let names_pragma = || memmem::find(text, b"ragma").is_some();
    let follows_a_name = || {
        memmem::find_iter(text, WORD).any(|at| {
            let before = text[..at].trim_ascii_end();
            before.len() < at && (before.ends_with(b"GCC") || before.ends_with(b"clang"))
        })
    };
    may_tell_times(text) && (names_pragma() || follows_a_name())
}

/// Whether a text, or an argument, may hold the pragma.
pub fn may_tell_times(text: &[u8]) -> bool {
    let is_split = memchr::memchr_iter(b'\\', text).any(|at| splits_a_word(text, at));
    if is_split {
        return holds_pragma(&without_splices(text));
    }
    holds_pragma(text)
}

fn holds_pragma(text: &[u8]) -> bool {
    memmem::find_iter(text, WORD).any(|at| {
        let near = &text[at.saturating_sub(NEAR_BYTES_MAX)..at];
        BEFORE.iter().any(|before| memmem::find(near, before).is_some())
    })
}

/// Whether the backslash at `at` ends a line in the middle of a word.
fn splits_a_word(text: &[u8], at: usize) -> bool {
    let is_letter = |b: Option<&u8>| b.is_some_and(u8::is_ascii_lowercase);
    splice_end(text, at).is_some_and(|end| {
        at > 0
            && is_letter(text.get(at - 1))
            && text.get(end).is_some_and(|b| b.is_ascii_lowercase() || *b == b'\\')
    })
}

/// Where the line after a backslash begins, if that ends its line: gcc lets blanks stand between.
fn splice_end(text: &[u8], backslash: usize) -> Option<usize> {
    let blank = |b: &&u8| matches!(b, b' ' | b'\t' | b'\r' | 0x0b | 0x0c);
    let end = backslash + 1 + text[backslash + 1..].iter().take_while(blank).count();
    (text.get(end) == Some(&b'\n')).then_some(end + 1)
}

fn without_splices(text: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at] == b'\\').then(|| splice_end(text, at)).flatten() {
            Some(end) => at = end,
            None => {
                joined.push(text[at]);
                at += 1;
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pragma_is_found_in_every_form_and_plain_words_are_not_taken_for_it() {
        for text in [
            "#pragma GCC dependency \"parse.y\"",
            "# pragma /* why */ GCC\tdependency <parse.y> more",
            "#pragma clang dependency \"x\"",
            "_Pragma(\"GCC dependency \\\"x\\\"\")",
            "PRAGMA(GCC dependency \"x\")",
            "-DX=_Pragma(\"GCC dependency \\\"x\\\"\")",
            "#pragma GCC depen\\\ndency \"x\"",
            "#pragma GCC d\\  \nepen\\\r\ndency \"x\"",
            "#pragma GCC depen\\\n\\\ndency \"x\"",
        ] {
            assert!(may_tell_times(text.as_bytes()), "{text}");
            assert!(may_tell_times_among_scripts(text.as_bytes()), "{text}");
        }
        let script = b"# clang and gcc behave differently here\nraise Error('dependency not found')\n";
        assert!(may_tell_times(script) && !may_tell_times_among_scripts(script));
        let far = format!("#pragma once\n{}dependency\n", "// words\n".repeat(120));
        for text in
            ["// a circular dependency of headers", "#pragma once\n#define A x\\\ny", "", "dependency", &far]
        {
            assert!(!may_tell_times(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_looked_for_before_the_word_may_be_so_far_off() {
        let text = |between: usize| format!("ragma{}dependency", " ".repeat(between));
        assert!(holds_pragma(text(NEAR_BYTES_MAX - 5).as_bytes()));
        assert!(!holds_pragma(text(NEAR_BYTES_MAX - 4).as_bytes()));
    }
}
