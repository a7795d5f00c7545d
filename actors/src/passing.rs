//! Passing failures: what failed for want of memory, space or descriptors, not for what it read.
//!
//! Nothing that was observed tells such a failure from one that will be the same tomorrow, but its message does, if
//! it is in a language that we read. A failure that may be of this kind is not stored: running a failing tool again
//! costs little, and telling somebody of a full disk that was emptied long since costs a lot.

use zccache_proto::ByteStrings;

/// What tools say, and the system in their name (`strerror`, English), when the machine fails them.
const PHRASES: [&str; 16] = [
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "Read-only file system",
    "Cannot allocate memory",
    "out of memory",
    "Out of memory",
    "memory exhausted",
    "memory allocation of",
    "Too many open files",
    "Resource temporarily unavailable",
    "Input/output error",
    "Stale file handle",
    "Text file busy",
    "Device or resource busy",
    "signal",
];

/// Languages in which we understand tools: those of a locale's name.
const LANGUAGES: [&[u8]; 3] = [b"C", b"POSIX", b"en"];

/// Whether a failure that told this in this environment may pass by itself.
pub fn may_pass(told: &[&[u8]], environment: &ByteStrings) -> bool {
    !is_understood(environment) || told.iter().any(|text| PHRASES.iter().any(|phrase| contains(text, phrase)))
}

fn contains(text: &[u8], phrase: &str) -> bool {
    memchr::memmem::find(text, phrase.as_bytes()).is_some()
}

/// Whether messages come in a language that we read.
fn is_understood(environment: &ByteStrings) -> bool {
    let set = |name: &[u8]| environment.value_of(name).filter(|value| !value.is_empty());
    let Some(locale) = set(b"LC_ALL").or_else(|| set(b"LC_MESSAGES")).or_else(|| set(b"LANG")) else {
        return true;
    };
    let is_ours = |name: &[u8]| {
        let language = name.split(|b| b"_.@:".contains(b)).next().unwrap_or_default();
        LANGUAGES.contains(&language)
    };
    // `LANGUAGE` is a list of wishes, which only counts where there is a locale at all.
    is_ours(locale) && set(b"LANGUAGE").is_none_or(is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(entries: &[&str]) -> ByteStrings {
        entries.iter().collect()
    }

    #[test]
    fn what_the_machine_lacks_passes_and_what_a_source_lacks_does_not() {
        let none = env(&[]);
        for text in [
            "a.c:1: fatal error: error writing to /tmp/x.s: No space left on device",
            "gcc: fatal error: Killed signal terminated program cc1",
            "cc1: out of memory allocating 65536 bytes after a total of 0 bytes",
            "virtual memory exhausted: Cannot allocate memory",
        ] {
            assert!(may_pass(&[b"", text.as_bytes()], &none), "{text}");
        }
        for text in
            ["a.c:1:10: fatal error: missing.h: No such file or directory", "", "a.c:2: error: expected ';'"]
        {
            assert!(!may_pass(&[text.as_bytes()], &none), "{text}");
        }
    }

    #[test]
    fn what_is_told_in_another_language_may_be_anything() {
        for known in [&["LANG=C"][..], &["LC_ALL=C.UTF-8", "LANG=de_DE"], &["LANG=en_GB.UTF-8"], &["LANG="]] {
            assert!(!may_pass(&[b"error"], &env(known)), "{known:?}");
        }
        for other in
            [&["LANG=de_DE.UTF-8"][..], &["LC_MESSAGES=fr", "LANG=C"], &["LANG=en_US", "LANGUAGE=de:en"]]
        {
            assert!(may_pass(&[b"error"], &env(other)), "{other:?}");
        }
    }
}
