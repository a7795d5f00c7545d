//! Blanks, as compilers skip them: more kinds than `trim_ascii` knows, and comments.

/// What compilers take for blanks within a line: more than `trim_ascii` does.
pub fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0)
}

/// Without blanks and ends of lines at its end.
pub fn trim_end(text: &[u8]) -> &[u8] {
    &text[..text.iter().rposition(|&b| !is_blank(b) && b != b'\n').map_or(0, |last| last + 1)]
}

/// Without blanks and ends of lines at its beginning.
pub fn trim_start(text: &[u8]) -> &[u8] {
    &text[text.iter().position(|&b| !is_blank(b) && b != b'\n').unwrap_or(text.len())..]
}

/// `text` from its first byte that is neither blank nor in a comment.
pub fn skip_blanks(mut text: &[u8]) -> &[u8] {
    loop {
        let blanks = text.iter().position(|&b| !is_blank(b)).unwrap_or(text.len());
        text = &text[blanks..];
        if !text.starts_with(b"/*") {
            return text;
        }
        let end = text[2..].windows(2).position(|w| w == b"*/");
        text = end.map_or(&[], |end| &text[2 + end + 2..]);
    }
}
