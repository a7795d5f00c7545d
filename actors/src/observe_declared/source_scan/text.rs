//! A source's text made simple to look at: lines joined, comments left out where they are comments for certain.

/// The text with continued lines joined and plain comments replaced by a blank.
///
/// # Errors
/// What makes it ambiguous.
pub fn tidy(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    if bytes.windows(3).any(|w| w == b"??=" || w == b"??/") {
        return Err("trigraphs");
    }
    let joined = join_lines(bytes)?;
    // The lines of a raw string look like code, and whether it is one hangs on the language.
    if has_raw_string(&joined) { Ok(joined) } else { Ok(without_comments(&joined)) }
}

/// Without backslashes at the ends of lines (blanks may follow them), and with plain newlines.
fn join_lines(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut joined = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.contains(&b'\r') {
            return Err("a carriage return within a line");
        }
        match super::blanks::trim_end(text).strip_suffix(b"\\") {
            Some(continued) => joined.extend_from_slice(continued),
            None => {
                joined.extend_from_slice(text);
                joined.push(b'\n');
            }
        }
    }
    Ok(joined)
}

/// Whether what looks like a line of code may be within a string or a comment.
pub fn hides_lines(tidy: &[u8]) -> bool {
    tidy.windows(2).any(|pair| pair == b"/*") || has_raw_string(tidy)
}

fn has_raw_string(text: &[u8]) -> bool {
    text.windows(2).enumerate().any(|(at, w)| {
        let start = text[..at].iter().rposition(|&b| !super::is_identifier_byte(b)).map_or(0, |p| p + 1);
        w == b"R\"" && matches!(&text[start..at], b"" | b"u8" | b"u" | b"U" | b"L")
    })
}

/// Leaves out the comments that are comments beyond doubt: before them on their line are only whole strings,
/// characters and header names, and nothing that could begin another kind of comment.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut line_begins_at = 0;
    // Whether a comment may begin in what is left of this line.
    let mut open = true;
    while let Some(&b) = rest.first() {
        if open && rest.starts_with(b"/*") {
            let Some(end) = rest[2..].windows(2).position(|w| w == b"*/") else { return kept };
            rest = &rest[2 + end + 2..];
            kept.push(b' ');
            continue;
        }
        if open && rest.starts_with(b"//") {
            rest = &rest[rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())..];
            continue;
        }
        let is_directive = || kept[line_begins_at..].iter().any(|&b| b == b'#' || b == b'%');
        let names_header = || {
            [&b"include"[..], b"import", b"embed"]
                .iter()
                .any(|word| kept[line_begins_at..].windows(word.len()).any(|part| part == *word))
        };
        let whole = match b {
            // A header's name knows no escapes.
            b'"' => quoted(rest, b'"').filter(|&n| !rest[..n].contains(&b'\\') || !is_directive()),
            b'<' if is_directive() && names_header() => quoted(rest, b'>'),
            b'\'' if kept.last().is_none_or(|&b| !super::is_identifier_byte(b)) => character(rest),
            b'\'' => None,
            // Behind a doubt, this is one more.
            b'/' if rest.starts_with(b"//") => None,
            _ => Some(1),
        };
        open &= whole.is_some();
        let (token, after) = rest.split_at(whole.unwrap_or(1));
        kept.extend_from_slice(token);
        rest = after;
        if b == b'\n' {
            (open, line_begins_at) = (true, kept.len());
        }
    }
    kept
}

/// The length of a string, or of a header's name, that `text` begins with and that ends on its line.
fn quoted(text: &[u8], close: u8) -> Option<usize> {
    let mut escaped = false;
    for (at, &b) in text.iter().enumerate().skip(1) {
        match b {
            b'\n' => return None,
            _ if b == close && !escaped => return Some(at + 1),
            _ => escaped = close == b'"' && b == b'\\' && !escaped,
        }
    }
    None
}

/// The length of a character of the plainest kind: `'x'` or `'\n'`.
fn character(text: &[u8]) -> Option<usize> {
    match text {
        [_, b'\\', escaped, b'\'', ..] if *escaped != b'\n' => Some(4),
        [_, b, b'\'', ..] if !matches!(b, b'\\' | b'\'' | b'\n') => Some(3),
        _ => None,
    }
}
