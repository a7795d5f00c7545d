//! Assembler within a source: whether it may have the assembler read a file (`.incbin`, `.include`).

use super::flow::{Flow, Macro, Site};
use super::harmless::{UNKNOWN, is_harmless, is_harmless_piece};
use super::mentions::{directive, line_around};
use super::text::hides_lines;
use super::tokens::{Token, tokens};
use super::{identifier_length, is_identifier_byte, line_before};

/// What makes the next words and brackets a text for the assembler.
const KEYWORDS: &[&[u8]] = &[b"asm", b"__asm", b"__asm__", b"_asm"];

/// What may stand between `asm` and its bracket.
const QUALIFIERS: &[&[u8]] =
    &[b"volatile", b"__volatile", b"__volatile__", b"inline", b"__inline", b"__inline__", b"goto", b"const"];

const COMPOSED: &str = "assembler that macros put together";

/// The first reason to think that assembler in `text` may read a file. What hangs on macros is added to `sites`.
pub fn hazard(text: &[u8], sites: &mut Vec<Site>) -> Option<&'static str> {
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
    statements(text, sites).or_else(|| {
        // Which macro they are in is not clear there.
        (!sites.is_empty() && hides_lines(text)).then_some(COMPOSED)
    })
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

/// Looks at every `asm` statement and label.
fn statements(text: &[u8], sites: &mut Vec<Site>) -> Option<&'static str> {
    let mut at = 0;
    while at < text.len() {
        if !is_identifier_byte(text[at]) {
            at += 1;
            continue;
        }
        let length = identifier_length(&text[at..]);
        if KEYWORDS.contains(&&text[at..at + length]) {
            match statement(text, at, at + length) {
                Ok(site) => sites.extend(site),
                Err(hazard) => return Some(hazard),
            }
        }
        at += length;
    }
    None
}

fn statement(text: &[u8], begin: usize, end: usize) -> Result<Option<Site>, &'static str> {
    let within = directive(text, begin);
    let (owner, rest) = match within {
        Some(b"define") => {
            let line = line_around(text, begin);
            let owner = Macro::of(line).ok_or(COMPOSED)?.0;
            (Some(owner), &line[line_before(text, begin).len() + end - begin..])
        }
        // Asked about, or part of a header's name.
        Some(_) if !hides_lines(text) => return Ok(None),
        _ => (None, &text[end..]),
    };
    let crosses_lines = owner.is_none();
    let mut between = Vec::new();
    let mut last = None;
    for token in tokens(rest, crosses_lines) {
        last = token;
        match token {
            Some((Token::Word(word), _)) if QUALIFIERS.contains(&word) => {}
            Some((word @ Token::Word(_), _)) => between.push(word),
            _ => break,
        }
    }
    let site = |owner: Option<Macro>, tokens: &[Token<'_>]| {
        let flow = Flow::of(tokens, owner.as_ref()).ok_or(COMPOSED)?;
        Ok(Some(Site { owner, flow }))
    };
    match last {
        Some((Token::Open, inside)) => {
            let template = template(inside, crosses_lines).ok_or(COMPOSED)?;
            let is_plain = template.iter().all(|token| matches!(token, Token::String(_)));
            if !is_harmless(&known(&template).ok_or("assembler that may read files")?) {
                return Err("assembler that may read files");
            }
            if is_plain && between.is_empty() {
                return Ok(None);
            }
            // What stands by itself has been looked at together with what is beside it.
            let mut depth = 0_usize;
            between.extend(template.into_iter().map(|token| {
                match token {
                    Token::Open => depth += 1,
                    Token::Close => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth == 0 && matches!(token, Token::String(_)) { Token::Plain } else { token }
            }));
            site(owner, &between)
        }
        _ if owner.is_some() => Err("another name for asm"),
        _ if rest.trim_ascii_start().starts_with(b"{") => Err("a block of assembler"),
        // Without brackets: of another compiler, or with a macro for the bracket.
        _ if rest.trim_ascii_start().starts_with(b".") => Err("assembler that may read files"),
        _ if between.is_empty() => Ok(None),
        _ => site(None, &between),
    }
}

/// The tokens of a template, up to its end or its operands; those of strings alone without brackets around them.
fn template(inside: &[u8], crosses_lines: bool) -> Option<Vec<Token<'_>>> {
    let (mut template, mut depth) = (Vec::new(), 0_usize);
    let mut listed = tokens(inside, crosses_lines);
    loop {
        match listed.next()??.0 {
            Token::Close | Token::Colon if depth == 0 => break,
            token => {
                match token {
                    Token::Open => depth += 1,
                    Token::Close => depth -= 1,
                    _ => {}
                }
                template.push(token);
            }
        }
    }
    if template.iter().all(|token| matches!(token, Token::String(_) | Token::Open | Token::Close)) {
        template.retain(|token| matches!(token, Token::String(_)));
    }
    Some(template)
}

/// The template's text, with [`UNKNOWN`] where macros put in something; none if a string that a macro may put somewhere
/// else is not harmless there.
fn known(template: &[Token<'_>]) -> Option<Vec<u8>> {
    let (mut text, mut depth) = (Vec::new(), 0_usize);
    for token in template {
        match *token {
            Token::String(string) if depth == 0 => {
                if string.contains(&UNKNOWN) {
                    return None;
                }
                text.extend_from_slice(string);
                continue;
            }
            Token::String(string) if !is_harmless_piece(string) => return None,
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        text.push(UNKNOWN);
    }
    Some(text)
}
