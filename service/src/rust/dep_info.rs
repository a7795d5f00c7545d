//! Dependency information: the variables that a source asked for, in the lines that begin with `# env-dep:`.

/// What such a line begins with.
const MARK: &[u8] = b"# env-dep:";

/// The names of the variables that the text of a dependency file tells of, sorted, each once.
pub fn variables(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split(|&b| b == b'\n').filter_map(|line| line.strip_prefix(MARK));
    let mut names: Vec<Vec<u8>> = lines.map(name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The name in `NAME=value` or `NAME`; a backslash or a line's end within it is escaped by a backslash.
fn name(entry: &[u8]) -> Vec<u8> {
    let end = entry.iter().position(|&b| b == b'=').unwrap_or(entry.len());
    let (mut name, mut escaped) = (Vec::with_capacity(end), false);
    for &byte in &entry[..end] {
        match (byte, escaped) {
            (b'\\', false) => escaped = true,
            (byte, false) => name.push(byte),
            (byte, true) => {
                escaped = false;
                name.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    other => other,
                });
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_set_or_not() {
        let text = b"a.d: a.rs\n\na.rs:\n\n# env-dep:OUT_DIR=/t=1\n# env-dep:UNSET\n# env-dep:OUT_DIR=/t=1\n# env-dep:A\\\\B=x\n";
        assert_eq!(variables(text), [&b"A\\B"[..], b"OUT_DIR", b"UNSET"]);
        assert!(variables(b"a.d: a.rs\n").is_empty());
    }
}
