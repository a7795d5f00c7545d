//! A command line as Windows has it: one text, which every program takes apart for itself.
//!
//! Only how the first arguments are taken apart matters here (the C runtime's rules); the rest is passed on unread.

const SPACE: u16 = b' ' as u16;
const TAB: u16 = b'\t' as u16;
const QUOTE: u16 = b'"' as u16;
const BACKSLASH: u16 = b'\\' as u16;

/// What follows the program's name and `arguments` more arguments.
pub fn rest(line: &[u16], arguments: usize) -> &[u16] {
    let mut rest = without_space(without_program(line));
    for _ in 0..arguments {
        rest = without_space(without_argument(rest));
    }
    rest
}

fn without_space(line: &[u16]) -> &[u16] {
    let space = line.iter().take_while(|&&unit| unit == SPACE || unit == TAB).count();
    &line[space..]
}

/// In a program's name a backslash means nothing special.
fn without_program(line: &[u16]) -> &[u16] {
    let mut quoted = false;
    for (at, &unit) in line.iter().enumerate() {
        match unit {
            QUOTE => quoted = !quoted,
            SPACE | TAB if !quoted => return &line[at..],
            _ => {}
        }
    }
    &[]
}

/// In an argument a backslash before a quote takes its meaning, two are one.
fn without_argument(line: &[u16]) -> &[u16] {
    let (mut quoted, mut backslashes) = (false, 0);
    for (at, &unit) in line.iter().enumerate() {
        match unit {
            BACKSLASH => {
                backslashes += 1;
                continue;
            }
            // Two quotes within quotes are one that means itself: left and entered again, which comes to the same.
            QUOTE if backslashes % 2 == 0 => quoted = !quoted,
            SPACE | TAB if !quoted => return &line[at..],
            _ => {}
        }
        backslashes = 0;
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_is_left_as_it_was_typed() {
        for (line, arguments, expected) in [
            (r"zccache gcc -c a.c", 1, r"-c a.c"),
            (r#""C:\Program Files\zccache" gcc  -DX="a b""#, 1, r#"-DX="a b""#),
            (r#"zccache "C:\a b\gcc.exe" \"x\" y"#, 1, r#"\"x\" y"#),
            (r#"zccache "C:\a b\\" -c"#, 1, r"-c"),
            (r#"zccache a\"b" c" -c"#, 1, r"-c"),
            (r"gcc -c a.c", 0, r"-c a.c"),
            ("zccache\tgcc\t -c", 1, "-c"),
            (r"zccache", 1, ""),
            (r"zccache gcc", 1, ""),
            (r"zccache zccache gcc -c", 2, "-c"),
        ] {
            let units: Vec<u16> = line.encode_utf16().collect();
            assert_eq!(String::from_utf16_lossy(rest(&units, arguments)), expected, "{line}");
        }
    }
}
