//! The names that a text could include, read off generously: every name that a directive or `__has_include`
//! holds, whether the preprocessor would get there or not.
//!
//! Why: gcc resolves the links of a system header's path, and if the result is shorter it opens that one alone.
//! The name it began with is then known from the text only. What must never happen: a name that the
//! preprocessor can look for and that is neither listed nor makes the text `unclear`.

use std::hash::{DefaultHasher, Hasher};

/// What a text includes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct IncludeNames {
    /// Names in quotes, each once.
    pub quoted: Vec<Vec<u8>>,
    /// Names in angle brackets, each once.
    pub angled: Vec<Vec<u8>>,
    /// Macros that stand where a name should (`#include MACRO`), each once: if one of them is defined anywhere, there
    /// are names that are not listed.
    pub computed: Vec<Vec<u8>>,
    /// The marks ([`mark_of`]) of all macros that the text defines, sorted.
    pub defined: Vec<u32>,
    /// There may be names that are not listed.
    pub unclear: bool,
}

/// A small number that stands for a macro's name; two names may share one.
pub fn mark_of(name: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish() as u32
}

/// What stands at the start of a file that says it is UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Directives that look for a file.
const DIRECTIVES: &[&[u8]] = &[b"include", b"include_next", b"import", b"embed"];

/// Operators that look for a file.
const OPERATORS: &[&[u8]] = &[b"__has_include", b"__has_include_next", b"__has_embed"];

/// Pragmas that look for a file.
const PRAGMAS: &[&[u8]] = &[b"dependency", b"pch_preprocess"];

impl IncludeNames {
    /// Reads `text`.
    pub fn of(text: &[u8]) -> Self {
        let joined;
        let text = match joined_lines(text) {
            Some(text) => {
                joined = text;
                &joined[..]
            }
            None => text,
        };
        let mut names = Self::default();
        names.unclear |= contains(text, b"??/");
        names.directives(text);
        names.operators(text);
        for list in [&mut names.quoted, &mut names.angled, &mut names.computed] {
            list.sort_unstable();
            list.dedup();
        }
        names.defined.sort_unstable();
        names.defined.dedup();
        names
    }

    fn directives(&mut self, text: &[u8]) {
        let mut line_start = 0;
        let mut at = 0;
        while let Some(step) =
            text[at..].iter().position(|&b| matches!(b, b'\n' | b'\r' | b'#' | b'%' | b'?'))
        {
            at += step;
            let mark = match text[at] {
                b'\n' | b'\r' => {
                    line_start = at + 1;
                    0
                }
                b'#' => 1,
                b'%' if text[at..].starts_with(b"%:") => 2,
                b'?' if text[at..].starts_with(b"??=") => 3,
                _ => 0,
            };
            if mark > 0 && may_begin_directive(&text[line_start..at]) {
                self.directive(&text[at + mark..]);
            }
            at += mark.max(1);
        }
    }

    fn directive(&mut self, text: &[u8]) {
        let text = skip_blanks(text);
        let (word, rest) = word(text);
        if DIRECTIVES.contains(&word) {
            let rest = skip_blanks(rest);
            self.name(rest);
        } else if word == b"define" {
            self.defined.push(mark_of(self::word(skip_blanks(rest)).0));
        } else if word == b"pragma" {
            let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            self.unclear |= PRAGMAS.iter().any(|pragma| contains(&rest[..end], pragma));
        }
    }

    fn operators(&mut self, text: &[u8]) {
        // A pragma may stand in a string as well.
        self.unclear |= contains(text, b"_Pragma") && PRAGMAS.iter().any(|pragma| contains(text, pragma));
        let mut at = 0;
        while let Some(step) = find(&text[at..], b"__has_") {
            let start = at + step;
            let (operator, rest) = word(&text[start..]);
            at = start + operator.len();
            // Pasted together from pieces, one of which may be given elsewhere.
            self.unclear |=
                operator == b"__has_" && (contains(text, b"(include") || contains(text, b"(embed"));
            if !OPERATORS.contains(&operator) || is_being_defined(&text[..start]) {
                continue;
            }
            match skip_blanks(rest).split_first() {
                Some((b'(', rest)) => {
                    let rest = skip_blanks(rest);
                    // What stands there may be a parameter, given elsewhere.
                    self.unclear |=
                        is_in_definition(&text[..start]) && !matches!(rest.first(), Some(b'"' | b'<'));
                    self.name(rest);
                }
                // Another name for it.
                _ => self.unclear |= is_in_definition(&text[..start]),
            }
        }
    }

    /// The name that `text` begins with.
    fn name(&mut self, text: &[u8]) {
        let (close, list) = match text.first() {
            Some(b'"') => (b'"', &mut self.quoted),
            Some(b'<') => (b'>', &mut self.angled),
            // A macro's name, which is what may stand here besides; the rest is an error, or the prose of a comment.
            first => {
                match word(text) {
                    // Reserved names may be the compiler's own (`#include __FILE__`), others are not plain.
                    (name, rest) if is_plain(name, rest) => self.computed.push(name.to_vec()),
                    _ => self.unclear |= first.is_some_and(|b| is_identifier(*b)),
                }
                return;
            }
        };
        let end = text[1..].iter().position(|&b| b == close || b == b'\n');
        match end {
            Some(end) if text[1 + end] == close => list.push(text[1..=end].to_vec()),
            // Without an end it is an error.
            _ => self.unclear = true,
        }
    }
}

/// The text with lines that end in a backslash joined to the next ones; none if there are no such lines.
fn joined_lines(text: &[u8]) -> Option<Vec<u8>> {
    let mut joined: Option<Vec<u8>> = None;
    let mut kept = 0;
    let mut at = 0;
    while let Some(step) = text[at..].iter().position(|&b| b == b'\\') {
        let backslash = at + step;
        at = backslash + 1;
        let blanks = text[at..].iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | 11 | 12)).count();
        if text.get(at + blanks) == Some(&b'\n') {
            joined.get_or_insert_default().extend_from_slice(&text[kept..backslash]);
            at += blanks + 1;
            kept = at;
        }
    }
    if let Some(joined) = &mut joined {
        joined.extend_from_slice(&text[kept..]);
    }
    joined
}

/// Whether what stands before a `#` on its line leaves it the first token, as far as the line tells.
fn may_begin_directive(before: &[u8]) -> bool {
    let before = before.strip_prefix(BYTE_ORDER_MARK).unwrap_or(before);
    let end = before.iter().rposition(|b| !is_blank(*b)).map_or(0, |last| last + 1);
    end == 0 || before[..end].ends_with(b"*/")
}

/// Whether the text ends in `#define`, so that what follows is the macro's own name.
fn is_being_defined(before: &[u8]) -> bool {
    let end = before.iter().rposition(|b| !is_blank(*b)).map_or(0, |last| last + 1);
    end < before.len() && before[..end].ends_with(b"define")
}

/// Whether the line that the text ends in is a definition.
fn is_in_definition(before: &[u8]) -> bool {
    let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    contains(&before[start..], b"define ") || contains(&before[start..], b"define\t")
}

/// Whether a macro's name may begin so (`$` and what is beyond ASCII among the rest, and `\u` for the latter).
fn is_identifier(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$' | b'\\' | 0x80..)
}

/// Whether `name`, before `rest`, is a whole macro's name of plain letters that is not reserved.
fn is_plain(name: &[u8], rest: &[u8]) -> bool {
    let ends = rest.first().is_none_or(|&b| is_blank(b) || matches!(b, b'\n' | b'(' | b')' | b'/'));
    let begins = name.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_');
    ends && begins && !name.starts_with(b"__")
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0 | 11 | 12)
}

/// Without blanks and comments at its start; a line's end stays.
fn skip_blanks(mut text: &[u8]) -> &[u8] {
    loop {
        let blanks = text.iter().take_while(|b| is_blank(**b) && **b != b'\r').count();
        text = &text[blanks..];
        match text.strip_prefix(b"/*") {
            Some(comment) => text = find(comment, b"*/").map_or(&[], |end| &comment[end + 2..]),
            None => return text,
        }
    }
}

fn word(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    find(text, part).is_some()
}

/// Where `part` (not empty) first is.
fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text.get(at..)?.iter().position(|&b| b == part[0])?;
        if text[at..].starts_with(part) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_written() {
        for (text, quoted, angled, unclear) in [
            ("#include <a.h>\n#include \"b/c.h\"\n", "b/c.h", "a.h", false),
            ("  # /* x */ include_next /* y\n z */ <a.h> // more", "", "a.h", false),
            ("/* end\n of comment */ #import \"a.h\"\n", "a.h", "", false),
            ("%:include <a>\n??=include <b>\n", "", "a b", false),
            ("#\\\ninc\\  \r\nlude <a\\\n.h>", "", "a.h", false),
            ("\u{feff}#include <a>\r\n#include <b>\r\n", "", "a b", false),
            (
                "#if defined(__has_include) && __has_include (<a>)\n# if __has_include(\"b\")\n",
                "b",
                "a",
                false,
            ),
            ("#ifndef __has_include\n#define __has_include(x) 0\n#endif // __has_include\n", "", "", false),
            ("#define HAS __has_include\n", "", "", true),
            ("#define HAS(x) __has_include(x)\n", "", "", true),
            ("/* several\n   #include's in prose */\n", "", "", false),
            ("#include_next\n", "", "", false),
            ("#pragma GCC dependency \"parse.y\"\n", "", "", true),
            ("_Pragma(\"GCC dependency \\\"a\\\"\")\n", "", "", true),
            ("#pragma once\nint a = b % c ? 1 : 2; // #include X\n", "", "", false),
            ("a ??/\nb", "", "", true),
            ("#define S #include X\n#define G(a) #a\n", "", "", false),
            ("", "", "", false),
            ("#define HAS(x) __has_##x\n#if HAS(include)(<a>)\n", "", "", true),
            ("#define HAS(x) __has_##x\n", "", "", false),
            ("#include <a", "", "", true),
            ("#include <a>\n#include <a>\n", "", "a", false),
        ] {
            let split =
                |s: &str| s.split(' ').filter(|n| !n.is_empty()).map(|n| n.as_bytes().to_vec()).collect();
            let names = IncludeNames::of(text.as_bytes());
            let expected =
                IncludeNames { quoted: split(quoted), angled: split(angled), unclear, ..names.clone() };
            assert_eq!(names, expected, "{text:?}");
        }
    }

    #[test]
    fn macros_in_the_place_of_names_are_told() {
        for (text, computed, defined, unclear) in [
            ("#include NAME\n", "NAME", "", false),
            ("#include NAME(x)\n#if __has_include(OTHER)\n", "NAME OTHER", "", false),
            ("# define NAME <a.h>\n%:define F(x) x\n", "", "NAME F", false),
            ("#include __FILE__\n", "", "", true),
            ("#include $NAME\n", "", "", true),
            ("#include NAME$\n", "", "", true),
            ("#define HAS(x) __has_include(x)\n", "x", "HAS", true),
        ] {
            let names = IncludeNames::of(text.as_bytes());
            let split = |s: &str| {
                s.split(' ').filter(|n| !n.is_empty()).map(|n| n.as_bytes().to_vec()).collect::<Vec<_>>()
            };
            let mut marks: Vec<_> = split(defined).iter().map(|name| mark_of(name)).collect();
            marks.sort_unstable();
            assert_eq!(
                (names.computed, names.defined, names.unclear),
                (split(computed), marks, unclear),
                "{text:?}"
            );
        }
    }
}
