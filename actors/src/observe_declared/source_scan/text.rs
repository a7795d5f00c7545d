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
        match text.trim_ascii_end().strip_suffix(b"\\") {
            Some(continued) => joined.extend_from_slice(continued),
            None => {
                joined.extend_from_slice(text);
                joined.push(b'\n');
            }
        }
    }
    Ok(joined)
}

fn has_raw_string(text: &[u8]) -> bool {
    text.windows(2).enumerate().any(|(at, w)| {
        let start = text[..at].iter().rposition(|&b| !super::is_identifier_byte(b)).map_or(0, |p| p + 1);
        w == b"R\"" && matches!(&text[start..at], b"" | b"u8" | b"u" | b"U" | b"L")
    })
}

/// Leaves out the comments that nothing before them on their line can make anything else.
fn without_comments(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    let mut rest = text;
    // Whether a comment may begin in what is left of this line.
    let mut line_begins_at = 0;
    let mut open = true;
    while let Some(&b) = rest.first() {
        if b == b'\n' {
            (open, line_begins_at) = (true, kept.len() + 1);
        } else if matches!(b, b'"' | b'\'') || rest.starts_with(b"//") {
            open = false;
        } else if b == b'<' && kept[line_begins_at..].iter().any(|&b| b == b'#' || b == b'%') {
            open = false;
        }
        if open && rest.starts_with(b"/*") {
            let Some(end) = rest[2..].windows(2).position(|w| w == b"*/") else { return kept };
            rest = &rest[2 + end + 2..];
            kept.push(b' ');
            continue;
        }
        kept.push(b);
        rest = &rest[1..];
    }
    kept
}
