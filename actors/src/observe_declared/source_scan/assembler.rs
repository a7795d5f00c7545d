//! Assembler within a source: whether it may have the assembler read a file (`.incbin`, `.include`).

use super::{identifier_length, is_identifier_byte, skip_blanks};

/// What may stand between `asm` and its parenthesis, and what libc's headers make symbol names of.
const TEMPLATE_MACROS: &[&[u8]] = &[b"__ASMNAME", b"__ASMNAME2", b"__STRING"];

/// Assembler directives that read no file and define no macro, without the dot.
const HARMLESS: &[&str] = &[
    "2byte",
    "4byte",
    "8byte",
    "align",
    "ascii",
    "asciz",
    "balign",
    "bss",
    "byte",
    "cpu",
    "data",
    "else",
    "endif",
    "endfunc",
    "endr",
    "equ",
    "even",
    "fill",
    "fpu",
    "func",
    "global",
    "globl",
    "hidden",
    "ident",
    "if",
    "ifc",
    "ifdef",
    "ifndef",
    "ifnc",
    "int",
    "internal",
    "lcomm",
    "local",
    "long",
    "octa",
    "org",
    "p2align",
    "popsection",
    "previous",
    "protected",
    "pushsection",
    "quad",
    "rept",
    "rodata",
    "section",
    "set",
    "short",
    "size",
    "skip",
    "space",
    "string",
    "subsection",
    "symver",
    "syntax",
    "text",
    "thumb",
    "thumb_func",
    "type",
    "uleb128",
    "sleb128",
    "weak",
    "weakref",
    "word",
    "zero",
    "arch",
    "arch_extension",
    "code16",
    "code32",
    "code64",
    "code16gcc",
    "att_syntax",
    "intel_syntax",
    "note",
    "init_array",
    "fini_array",
    "comm",
    "inst",
    "insn",
    "init",
    "fini",
    "tbss",
    "tdata",
    "eh_frame",
];

/// The first reason to think that assembler in `text` may read a file.
pub fn hazard(text: &[u8]) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    if contains(&lower, b"incbin") {
        return Some(".incbin");
    }
    if contains(&lower, b".include") || begins_include(&lower) {
        return Some(".include");
    }
    if has_split_directive(&lower) {
        return Some("an assembler directive in pieces");
    }
    statements(text)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w == part)
}

/// A string that begins with the word `include`, as the second of two strings of which the first ends in a dot.
fn begins_include(text: &[u8]) -> bool {
    text.windows(8).enumerate().any(|(at, w)| {
        w == b"\"include" && matches!(text.get(at + 8), None | Some(b' ' | b'\t' | b'\\' | b'"' | b'\''))
    })
}

/// A string that ends within a directive's name, which begins where a directive may begin.
fn has_split_directive(text: &[u8]) -> bool {
    let is_piece =
        |word: &[u8]| !word.is_empty() && (b"incbin".starts_with(word) || b"include".starts_with(word));
    text.iter().enumerate().filter(|&(_, &b)| b == b'"').any(|(quote, _)| {
        let Some(dot) = text[..quote].iter().rposition(|b| !b.is_ascii_alphabetic()) else { return false };
        text[dot] == b'.'
            && is_piece(&text[dot + 1..quote])
            && (matches!(text[..dot].last(), Some(b'"' | b';' | b' ' | b'\t'))
                || text[..dot].ends_with(b"\\n")
                || text[..dot].ends_with(b"\\t"))
    })
}

/// Looks at every `asm` statement.
fn statements(text: &[u8]) -> Option<&'static str> {
    let mut at = 0;
    while at < text.len() {
        if !is_identifier_byte(text[at]) {
            at += 1;
            continue;
        }
        let length = identifier_length(&text[at..]);
        if matches!(&text[at..at + length], b"asm" | b"__asm" | b"__asm__")
            && let Some(hazard) = statement(text, at, at + length)
        {
            return Some(hazard);
        }
        at += length;
    }
    None
}

fn statement(text: &[u8], begin: usize, end: usize) -> Option<&'static str> {
    let mut rest = blanks_and_lines(&text[end..]);
    while rest.first().copied().is_some_and(is_identifier_byte) {
        rest = blanks_and_lines(&rest[identifier_length(rest)..]);
    }
    match rest.first() {
        Some(b'(') => match template(&rest[1..]) {
            Some(template) => (!is_harmless(&template)).then_some("assembler that may read files"),
            None => Some("assembler that macros put together"),
        },
        Some(b'{') => Some("a block of assembler"),
        _ => is_in_definition(text, begin).then_some("another name for asm"),
    }
}

fn blanks_and_lines(mut text: &[u8]) -> &[u8] {
    loop {
        text = skip_blanks(text);
        match text.strip_prefix(b"\n") {
            Some(rest) => text = rest,
            None => return text,
        }
    }
}

fn is_in_definition(text: &[u8], at: usize) -> bool {
    let begin = text[..at].iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    contains(&text[begin..at], b"define")
}

/// The template's text, if it is made of plain strings (and libc's macros for symbol names) alone.
fn template(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut template = Vec::new();
    let mut depth = 0;
    loop {
        rest = blanks_and_lines(rest);
        let &first = rest.first()?;
        match first {
            b'"' => {
                let end = string_end(&rest[1..])?;
                template.extend_from_slice(&rest[1..=end]);
                rest = &rest[end + 2..];
                continue;
            }
            b'(' => depth += 1,
            b')' if depth == 0 => return Some(template),
            b')' => depth -= 1,
            b':' if depth == 0 => return Some(template),
            // A macro's argument as a string: `#alias`.
            b'#' if depth > 0 => {
                let after = skip_blanks(&rest[1..]);
                rest = &after[identifier_length(after)..];
                continue;
            }
            b if is_identifier_byte(b) => {
                let length = identifier_length(rest);
                if !TEMPLATE_MACROS.contains(&&rest[..length]) {
                    return None;
                }
                rest = &rest[length..];
                continue;
            }
            _ => return None,
        }
        rest = &rest[1..];
    }
}

/// Where a string's closing quote is.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    for (at, &b) in text.iter().enumerate() {
        match b {
            b'\n' => return None,
            b'"' if !escaped => return Some(at),
            _ => escaped = b == b'\\' && !escaped,
        }
    }
    None
}

/// Whether every directive in an assembler template is one that reads nothing.
fn is_harmless(template: &[u8]) -> bool {
    let odd_escape =
        template.windows(2).any(|w| w[0] == b'\\' && !matches!(w[1], b'n' | b't' | b'"' | b'\''));
    !odd_escape && dots(template).all(|at| is_harmless_dot(&template[..at], &template[at + 1..]))
}

fn dots(template: &[u8]) -> impl Iterator<Item = usize> + '_ {
    template.iter().enumerate().filter(|&(_, &b)| b == b'.').map(|(at, _)| at)
}

fn is_harmless_dot(before: &[u8], after: &[u8]) -> bool {
    let is_newline = before.ends_with(b"\\n") || before.ends_with(b"\\t");
    if !is_newline && before.last().copied().is_some_and(is_identifier_byte) {
        return !matches!(after.first(), None | Some(b'%' | b'{' | b'|' | b'\\'));
    }
    let word = &after[..identifier_length(after)];
    let name = word.to_ascii_lowercase();
    match word.first() {
        None => matches!(after.first(), Some(b' ' | b'-' | b'+' | b',' | b')')),
        Some(b'0'..=b'9' | b'L') => true,
        // No harmless name is the beginning of another one that reads files, so what follows does not matter.
        _ => name.starts_with(b"cfi_") || HARMLESS.iter().any(|h| h.as_bytes() == name),
    }
}
