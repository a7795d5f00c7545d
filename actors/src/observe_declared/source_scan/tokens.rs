//! A stretch of a source as tokens of the preprocessor, as far as it takes to say what macros can make of them.

use super::blanks::is_blank;
use super::{identifier_length, is_identifier_byte};

/// Before a string without a blank: it is then of another kind.
const STRING_PREFIXES: &[&[u8]] = &[b"R", b"L", b"u", b"U", b"u8", b"LR", b"uR", b"UR", b"u8R"];

/// One token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// An identifier, or a number that begins with a digit.
    Word(&'a [u8]),
    /// A plain string: what is between its quotes, as it is written.
    String(&'a [u8]),
    /// `#`
    Hash,
    /// `##`
    Paste,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `:`
    Colon,
    /// Of no meaning here, and without a dot that could begin a directive's name.
    Plain,
    /// All else.
    Odd,
}

/// The tokens of a text, each with what is behind it, up to what cannot be told apart, a comment among it: then the last
/// is [`None`].
pub fn tokens(text: &[u8], crosses_lines: bool) -> impl Iterator<Item = Option<(Token<'_>, &[u8])>> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let skipped = |b: u8| is_blank(b) || crosses_lines && b == b'\n';
        let text = &text[text.iter().position(|&b| !skipped(b))?..];
        if text.first() == Some(&b'\n') {
            return None;
        }
        let token = token(text);
        rest = token.map(|(_, length)| &text[length..]);
        Some(token.map(|(token, length)| (token, &text[length..])))
    })
}

fn token(text: &[u8]) -> Option<(Token<'_>, usize)> {
    if text.starts_with(b"...") {
        return Some((Token::Plain, 3));
    }
    if text.starts_with(b"##") || text.starts_with(b"%:%:") {
        return Some((Token::Paste, if text[0] == b'#' { 2 } else { 4 }));
    }
    let short = match *text.first()? {
        b'"' => {
            let end = string_end(&text[1..])?;
            return Some((Token::String(&text[1..=end]), end + 2));
        }
        b'\'' => return Some((Token::Odd, character_length(text)?)),
        b if b.is_ascii_digit() => {
            let length = number_length(text);
            return Some((Token::Word(&text[..length]), length));
        }
        b if is_identifier_byte(b) => {
            let length = identifier_length(text);
            let word = &text[..length];
            return match text.get(length) {
                Some(b'"') if STRING_PREFIXES.contains(&word) => None,
                Some(b'\'') => None,
                _ => Some((Token::Word(word), length)),
            };
        }
        b'%' if text.get(1) == Some(&b':') => return Some((Token::Hash, 2)),
        b'/' if matches!(text.get(1), Some(b'/' | b'*')) => return None,
        b'#' => Token::Hash,
        b'(' => Token::Open,
        b')' => Token::Close,
        b',' => Token::Comma,
        b':' => Token::Colon,
        b';' | b'*' | b'=' | b'+' | b'-' | b'&' | b'[' | b']' | b'<' | b'>' | b'!' | b'?' | b'{' | b'}'
        | b'|' | b'~' | b'^' | b'%' | b'/' => Token::Plain,
        _ => Token::Odd,
    };
    Some((short, 1))
}

/// The length of a number. The dots in it are behind a digit, and so begin no directive.
fn number_length(text: &[u8]) -> usize {
    let mut length = 0;
    while let Some(&b) = text.get(length) {
        let is_sign = matches!(b, b'+' | b'-') && text[..length].last().is_some_and(|b| b"eEpP".contains(b));
        if !is_identifier_byte(b) && b != b'.' && !is_sign {
            break;
        }
        length += 1;
    }
    length
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

/// The length of a plain character, quotes included.
fn character_length(text: &[u8]) -> Option<usize> {
    match text {
        [_, b'\\', escaped, b'\'', ..] if *escaped != b'\n' => Some(4),
        [_, b, b'\'', ..] if !matches!(b, b'\\' | b'\'' | b'\n') => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Option<Vec<Token<'_>>> {
        tokens(text.as_bytes(), true).map(|token| token.map(|(token, _)| token)).collect()
    }

    #[test]
    fn texts_are_taken_apart_as_the_preprocessor_does() {
        use Token::*;
        assert_eq!(
            all("f(a, \"x\\\"y\"\n) ... ## %:%: # %: :").unwrap(),
            [
                Word(b"f"),
                Open,
                Word(b"a"),
                Comma,
                String(b"x\\\"y"),
                Close,
                Plain,
                Paste,
                Paste,
                Hash,
                Hash,
                Colon
            ]
        );
        assert_eq!(all("a.b 1.5e+x \\ '\"'").unwrap()[1..], [Odd, Word(b"b"), Word(b"1.5e+x"), Odd, Odd]);
        for unclear in ["\"a", "R\"(x)\"", "u8\"x\"", "'ab'", "a /* b", "// a"] {
            assert_eq!(all(unclear), None, "{unclear}");
        }
        assert_eq!(tokens(b" a\nb", false).count(), 1);
    }
}
