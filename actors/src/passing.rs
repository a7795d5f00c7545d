//! Passing failures: what failed for want of memory, space, descriptors or leave, not for what it read.
//!
//! Nothing that was observed tells such a failure from one that will be the same tomorrow, but its message does, if
//! it is in a language that we read. A failure that may be of this kind is not stored: running a failing tool again
//! costs little, and telling somebody of a full disk that was emptied long since costs a lot.

use zccache_proto::ByteStrings;
use zccache_proto::message::{Exit, Stdio, StreamKind};

/// By this much an exit status is greater than the number of the signal that it tells of, as shells and clang do it.
const SIGNAL_STATUS: i32 = 128;

/// The greatest number of a signal.
const SIGNAL_MAX: i32 = 64;

/// What tools say, and the system in their name (`strerror`, English), when the machine fails them.
const PHRASES: [&str; 20] = [
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "Read-only file system",
    // Also by mounts, attributes and rules of the system, of which nothing shows in the files.
    "Permission denied",
    "Operation not permitted",
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
    "failed to map segment",
    "signal",
    // gcc's own crashes: a broken compiler, or a broken machine.
    "internal compiler error",
];

/// Languages in which we understand tools: those of a locale's name.
const LANGUAGES: [&[u8]; 3] = [b"C", b"POSIX", b"en"];

/// Whether a status says that a part of the tool died of a signal.
pub fn tells_of_signal(exit: Exit) -> bool {
    matches!(exit, Exit::Code(code) if (1..=SIGNAL_MAX).contains(&(code - SIGNAL_STATUS)))
}

/// Whether a failure that told this, to these streams in this environment, may pass by itself.
pub fn may_pass(told: &[&[u8]], stdio: &Stdio, environment: &ByteStrings) -> bool {
    !is_heard(stdio)
        || !is_understood(environment)
        || told.iter().any(|text| PHRASES.iter().any(|phrase| contains(text, phrase)))
}

/// Whether we get to hear what a tool says of its failure: what is thrown away does not come by us.
fn is_heard(stdio: &Stdio) -> bool {
    let messages = if stdio.merged { stdio.stdout } else { stdio.stderr };
    !matches!(messages, StreamKind::Null | StreamKind::Closed)
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

    const HEARD: Stdio =
        Stdio { stdin: StreamKind::Null, stdout: StreamKind::Null, stderr: StreamKind::Pipe, merged: false };

    #[test]
    fn what_the_machine_lacks_passes_and_what_a_source_lacks_does_not() {
        let none = env(&[]);
        for text in [
            "a.c:1: fatal error: error writing to /tmp/x.s: No space left on device",
            "gcc: fatal error: Killed signal terminated program cc1",
            "error: unable to open output file 'a.o': 'Operation not permitted'",
            "a.c:1:10: fatal error: h.h: Permission denied",
            "cc1: out of memory allocating 65536 bytes after a total of 0 bytes",
            "virtual memory exhausted: Cannot allocate memory",
        ] {
            assert!(may_pass(&[b"", text.as_bytes()], &HEARD, &none), "{text}");
        }
        for text in
            ["a.c:1:10: fatal error: missing.h: No such file or directory", "", "a.c:2: error: expected ';'"]
        {
            assert!(!may_pass(&[text.as_bytes()], &HEARD, &none), "{text}");
        }
    }

    #[test]
    fn what_nobody_hears_may_be_anything() {
        for (stderr, merged, passes) in [
            (StreamKind::Null, false, true),
            (StreamKind::Closed, false, true),
            (StreamKind::Null, true, true),
            (StreamKind::File, false, false),
        ] {
            assert_eq!(may_pass(&[b""], &Stdio { stderr, merged, ..HEARD }, &env(&[])), passes);
        }
    }

    #[test]
    fn statuses_that_stand_for_signals() {
        for (exit, tells) in [
            (Exit::Code(139), true),
            (Exit::Code(1), false),
            (Exit::Code(128), false),
            (Exit::Code(255), false),
        ] {
            assert_eq!(tells_of_signal(exit), tells);
        }
    }

    #[test]
    fn what_is_told_in_another_language_may_be_anything() {
        for known in [&["LANG=C"][..], &["LC_ALL=C.UTF-8", "LANG=de_DE"], &["LANG=en_GB.UTF-8"], &["LANG="]] {
            assert!(!may_pass(&[b"error"], &HEARD, &env(known)), "{known:?}");
        }
        for other in
            [&["LANG=de_DE.UTF-8"][..], &["LC_MESSAGES=fr", "LANG=C"], &["LANG=en_US", "LANGUAGE=de:en"]]
        {
            assert!(may_pass(&[b"error"], &HEARD, &env(other)), "{other:?}");
        }
    }

    #[test]
    fn a_status_tells_of_a_signal_that_there_is() {
        let tells =
            [0, 1, SIGNAL_MAX, SIGNAL_MAX + 1].map(|n| tells_of_signal(Exit::Code(SIGNAL_STATUS + n)));
        assert_eq!(tells, [false, true, true, false]);
    }
}
