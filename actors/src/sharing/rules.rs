//! Rules for make, as compilers write them (`-MD`), taken apart so that they can be written for another place.
//!
//! They are text of a known form, in which long lines are broken by a width that hangs on the names in them; so a
//! name cannot just be replaced. A file is understood if writing what was read gives the same bytes again, in the
//! manner of gcc (`mkdeps.cc`) or clang (`DependencyFile.cpp`); otherwise it is left alone.

use super::Standpoint;

/// The manner in which a compiler breaks lines. Short ones look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// A name that would reach beyond column 72 goes to the next line.
    Gcc,
    /// One whose end would lie beyond column 75.
    Clang,
}

/// A name within a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// It says nothing of the place.
    Plain(Vec<u8>),
    /// Below the base: what follows it.
    InBase(Vec<u8>),
    /// The output with this number.
    Output(usize),
}

/// One rule: targets and what they are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    blank_lines_before: usize,
    targets: Vec<Name>,
    sources: Vec<Name>,
}

/// A file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    manner: Manner,
    rules: Vec<Rule>,
}

impl Rules {
    /// Takes apart what a compiler of this `manner` wrote for a request that stood at `origin`; nothing if it is not
    /// understood to the last byte, or tells of the place otherwise than by a name.
    pub fn parse(text: &[u8], origin: &Standpoint, manner: Manner) -> Option<Self> {
        // Quoted characters are left alone: what they mean differs.
        if text.iter().any(|b| matches!(b, b'$' | b'#' | b'%' | b'\t' | b'\r' | 0)) {
            return None;
        }
        let mut rules = Vec::new();
        let mut blank_lines_before = 0;
        for line in joined_lines(text)? {
            if line.is_empty() {
                blank_lines_before += 1;
            } else {
                rules.push(read_rule(&line, std::mem::take(&mut blank_lines_before), origin)?);
            }
        }
        Some(Self { manner, rules }).filter(|rules| rules.written_at(origin) == text)
    }

    /// The text that the compiler would write for a request that stands at `here`.
    pub fn written_at(&self, here: &Standpoint) -> Vec<u8> {
        let mut text = Vec::new();
        for rule in &self.rules {
            self.manner.write(&mut text, rule, here);
        }
        text
    }
}

impl Name {
    fn read(name: &[u8], is_target: bool, origin: &Standpoint) -> Option<Self> {
        if let (true, Some(number)) = (is_target, origin.outputs.iter().position(|output| output.0 == name)) {
            return Some(Self::Output(number));
        }
        match origin.below_base(name) {
            Some(rest) => (!origin.is_named_in(rest)).then(|| Self::InBase(rest.to_vec())),
            None => (!origin.is_named_in(name)).then(|| Self::Plain(name.to_vec())),
        }
    }

    fn at(&self, here: &Standpoint) -> Vec<u8> {
        match self {
            Self::Plain(name) => name.clone(),
            Self::InBase(rest) => [&here.base[..], rest].concat(),
            Self::Output(number) => {
                here.outputs.get(*number).map_or_else(Vec::new, |output| output.0.clone())
            }
        }
    }
}

/// The lines of a file, broken ones joined; nothing if the last one has no end.
fn joined_lines(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut lines = vec![Vec::new()];
    let mut rest = text.strip_suffix(b"\n")?;
    while let Some(&byte) = rest.first() {
        if let Some(next) = rest.strip_prefix(b"\\\n") {
            rest = next;
            continue;
        }
        match byte {
            b'\\' => return None,
            b'\n' => lines.push(Vec::new()),
            byte => lines.last_mut()?.push(byte),
        }
        rest = &rest[1..];
    }
    Some(lines)
}

fn read_rule(rule: &[u8], blank_lines_before: usize, origin: &Standpoint) -> Option<Rule> {
    // The colon after the targets is the first that a blank or the end follows.
    let colon = (0..rule.len()).find(|&i| rule[i] == b':' && matches!(rule.get(i + 1), None | Some(b' ')))?;
    let names = |part: &[u8], is_target: bool| -> Option<Vec<Name>> {
        let words = part.split(|&b| b == b' ').filter(|word| !word.is_empty());
        words.map(|word| Name::read(word, is_target, origin)).collect()
    };
    Some(Rule {
        blank_lines_before,
        targets: names(&rule[..colon], true)?,
        sources: names(&rule[colon + 1..], false)?,
    })
}

impl Manner {
    /// The manner of a family's compilers.
    pub fn of_family(family: &str) -> Option<Self> {
        match family {
            "gcc" => Some(Self::Gcc),
            "clang" => Some(Self::Clang),
            _ => None,
        }
    }

    fn write(self, text: &mut Vec<u8>, rule: &Rule, here: &Standpoint) {
        text.extend(std::iter::repeat_n(b'\n', rule.blank_lines_before));
        let mut line = Line { manner: self, text, column: 0 };
        for target in &rule.targets {
            line.target(&target.at(here));
        }
        line.text.push(b':');
        line.column += 1;
        for source in &rule.sources {
            line.source(&source.at(here));
        }
        line.text.push(b'\n');
    }
}

/// A rule being written.
struct Line<'a> {
    manner: Manner,
    text: &'a mut Vec<u8>,
    /// As each compiler counts it.
    column: usize,
}

impl Line<'_> {
    fn target(&mut self, name: &[u8]) {
        match self.manner {
            _ if self.column == 0 => self.word(b"", name),
            Manner::Clang if self.column + name.len() + 2 > Manner::CLANG_WIDTH => {
                self.column = 1;
                self.word(b" \\\n  ", name);
                self.column += 1;
            }
            Manner::Clang => {
                self.column += 1;
                self.word(b" ", name);
            }
            Manner::Gcc => self.source(name),
        }
    }

    fn source(&mut self, name: &[u8]) {
        let (is_full, next) = match self.manner {
            Manner::Gcc => (self.column + name.len() > Manner::GCC_WIDTH, 0),
            Manner::Clang => (self.column + name.len() + 3 > Manner::CLANG_WIDTH, 2),
        };
        if is_full {
            self.text.extend_from_slice(if self.manner == Manner::Gcc { b" \\\n" } else { b" \\\n " });
            self.column = next;
        }
        self.column += 1;
        self.word(b" ", name);
    }

    fn word(&mut self, before: &[u8], name: &[u8]) {
        self.text.extend_from_slice(before);
        self.text.extend_from_slice(name);
        self.column += name.len();
    }
}

impl Manner {
    /// Columns beyond which gcc breaks a line.
    const GCC_WIDTH: usize = 72;
    /// Columns beyond which clang does.
    const CLANG_WIDTH: usize = 75;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;

    fn standpoint(base: &str, outputs: &[&str]) -> Standpoint {
        let outputs = outputs.iter().map(|output| Spelled(output.as_bytes().into())).collect();
        Standpoint { base: base.into(), within: Vec::new(), outputs }
    }

    #[test]
    fn names_of_the_place_are_replaced_and_lines_broken_anew() {
        let origin = standpoint("/p/one", &["out/a.o"]);
        let text = b"out/a.o: /p/one/a.c /usr/include/stdc-predef.h /p/one/inc/a.h inc/b.h\n/usr/x.h:\n";
        let rules = Rules::parse(text, &origin, Manner::Gcc).unwrap();
        let here = standpoint("/another/place", &["elsewhere/a.o"]);
        let expect = "elsewhere/a.o: /another/place/a.c /usr/include/stdc-predef.h \\\n \
             /another/place/inc/a.h inc/b.h\n/usr/x.h:\n";
        assert_eq!(String::from_utf8(rules.written_at(&here)).unwrap(), expect);
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        let origin = standpoint("/p", &["a.o"]);
        for text in [
            "",
            "a.o: a.c",
            "a.o: \\\n a.c\n",
            "a.o: a\\ b.c\n",
            "a.o: x/p/y.c\n",
            "a.o: $$x\n",
            "nothing\n",
            "a.o:  a.c\n",
        ] {
            for manner in [Manner::Gcc, Manner::Clang] {
                assert_eq!(Rules::parse(text.as_bytes(), &origin, manner), None, "{text}");
            }
        }
    }

    /// The compilers' own files, with names of all lengths, are understood, and moved as the compilers would.
    #[test]
    fn the_compilers_files_are_understood() {
        let temp = tempfile::tempdir().unwrap();
        let bases = ["b", "a-much-longer-name-of-a-directory"]
            .map(|name| temp.path().canonicalize().unwrap().join(name));
        for base in &bases {
            std::fs::create_dir_all(base.join("inc")).unwrap();
            let mut source = String::new();
            for i in 1..60 {
                let header = format!("inc/{}.h", "h".repeat(i * 7 % 61 + 1));
                std::fs::write(base.join(&header), "").unwrap();
                source += &format!("#include \"{header}\"\n");
            }
            std::fs::write(base.join("a.c"), source).unwrap();
        }
        for compiler in ["gcc", "clang"] {
            let manner = Manner::of_family(compiler).unwrap();
            for flags in [
                "-MD",
                "-MD -MP",
                "-MMD -MP -MT t1 -MT a_rather_long_name_of_a_target.o -MT another_such_target.o",
            ] {
                for width in 1..80 {
                    let rules = |base: &std::path::Path| {
                        let source = base.join("a.c");
                        let output = format!("{}.o", "o".repeat(width));
                        let status = std::process::Command::new(compiler)
                            .current_dir(base)
                            .args(flags.split(' '))
                            .args(["-fsyntax-only", "-MF", "a.d", "-o", &output])
                            .arg(&source)
                            .status()
                            .unwrap();
                        assert!(status.success());
                        (
                            std::fs::read(base.join("a.d")).unwrap(),
                            standpoint(base.to_str().unwrap(), &[&output]),
                        )
                    };
                    if width % 13 != 1 {
                        continue;
                    }
                    let [(text, origin), (expect, here)] = [rules(&bases[0]), rules(&bases[1])];
                    let moved = Rules::parse(&text, &origin, manner).map(|rules| rules.written_at(&here));
                    assert!(
                        moved == Some(expect),
                        "{compiler} {flags} {width}: {}",
                        String::from_utf8_lossy(&text)
                    );
                }
            }
        }
    }
}
