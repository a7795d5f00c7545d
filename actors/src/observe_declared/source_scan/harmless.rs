//! Which texts for the assembler have it read nothing: every directive in them is known to read no file and to define
//! no macro.

use super::{identifier_length, is_identifier_byte};

/// Stands for a part of a text that is not known, but has no directive in it, nor a part of one.
pub const UNKNOWN: u8 = 0;

/// Families of directives, and of labels, by what their names begin with.
const HARMLESS_FAMILIES: &[&str] = &["cfi_", "seh_", "l_"];

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
    "def",
    "scl",
    "endef",
    "rva",
    "secrel32",
    "secidx",
    "linkonce",
];

/// Whether a string of which nobody knows what it will be put between is harmless wherever that is.
pub fn is_harmless_piece(string: &[u8]) -> bool {
    !string.contains(&UNKNOWN) && is_harmless(&[&[UNKNOWN], string, &[UNKNOWN]].concat())
}

/// Whether every directive in an assembler template is one that reads nothing.
pub fn is_harmless(template: &[u8]) -> bool {
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
        return !matches!(after.first(), None | Some(&(b'%' | b'{' | b'|' | b'\\' | UNKNOWN)));
    }
    let word = &after[..identifier_length(after)];
    let name = word.to_ascii_lowercase();
    match word.first() {
        None => matches!(after.first(), Some(b' ' | b'-' | b'+' | b',' | b')')),
        Some(b'0'..=b'9' | b'L') => true,
        // No harmless name is the beginning of another one that reads files, so what follows does not matter.
        _ => {
            HARMLESS_FAMILIES.iter().any(|family| name.starts_with(family.as_bytes()))
                || HARMLESS.iter().any(|h| h.as_bytes() == name)
        }
    }
}
