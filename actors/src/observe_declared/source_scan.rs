//! What a source or header may ask the compiler to read, found by looking at its text alone.
//!
//! Nothing is preprocessed: a directive counts whether or not its condition holds. All doubts go one way. A comment
//! is left out only where it is one beyond doubt, words are found within strings as well, and what the text
//! does not settle (a computed `#include`, assembler that macros put together) is a [`Scan::hazard`].

mod assembler;
mod blanks;
mod flow;
mod harmless;
mod mentions;
mod text;
mod tokens;

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};

use blanks::{skip_blanks, trim_end, trim_start};

pub use flow::{Flow, Macro, Site};
pub use mentions::{Mentions, Use};

/// A header's name as a directive or an operator spells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name {
    /// Between the quotes or angle brackets.
    pub text: Vec<u8>,
    /// `"…"`: looked for beside the file that asks, too.
    pub is_quoted: bool,
}

/// What one file may ask for.
#[derive(Debug, Default)]
pub struct Scan {
    /// Headers, whether included or only asked about, each once.
    pub names: Vec<Name>,
    /// Identifiers that are a piece of a [`WORDS`] entry, or all of it.
    pub pieces: BTreeSet<Vec<u8>>,
    /// Macros that a directive includes by (`#include CONFIG`).
    pub computed: BTreeSet<Vec<u8>>,
    /// Its lines are said to be another file's (`#line 1 "parse.y"`), of which a message may show some.
    pub is_anothers: bool,
    /// Fingerprints of the macros that are defined here, sorted.
    pub defined: Vec<u64>,
    /// Their names, each with a blank behind it.
    names_defined: Vec<u8>,
    /// What one of them stands for may open a bracket that it does not close, or the other way round.
    pub breaks_brackets: bool,
    /// Assembler of which macros are a part, so that other texts have a say in it.
    pub sites: Vec<Site>,
    /// What was asked later, about this or that name.
    answers: Mutex<Answers>,
    /// The first reason why this text says too little.
    pub hazard: Option<&'static str>,
}

/// Built-in names that must not come about unnoticed, not even by `##`.
pub const WORDS: &[&str] =
    &["__DATE__", "__TIME__", "__TIMESTAMP__", "__has_include", "__has_include_next", "__has_embed"];

/// How many of [`WORDS`] ask for the time.
const TIME_WORDS: usize = 3;

/// Words after which the compiler may read a file that nobody names: each is refused wherever it stands.
const REFUSED: &[(&str, &str)] = &[
    ("__has_embed", "__has_embed"),
    ("pch_preprocess", "a precompiled header"),
    ("include_alias", "#pragma include_alias"),
    ("__include_macros", "a computed #include"),
];

/// Into how many pieces a name may be cut to be pasted together again. With more, the single letters that every
/// template has for parameters would do, and nothing could be stored; see `docs/observers.md`.
const PIECES_MAX: usize = 4;

/// How many names a text is remembered to have been asked about: many times what the headers of one system take.
const ANSWERS_MAX: usize = 2000;

#[derive(Debug, Default)]
struct Answers {
    mentions: HashMap<Vec<u8>, Arc<Mentions>>,
    bodies: HashMap<Vec<u8>, Arc<Vec<Option<Flow>>>>,
}

impl Scan {
    /// Whether a macro of this name is defined here.
    pub fn defines(&self, name: &[u8]) -> bool {
        self.defined.binary_search(&fingerprint(name)).is_ok()
    }

    /// The names of all macros that are defined here.
    pub fn names_defined(&self) -> impl Iterator<Item = &[u8]> {
        self.names_defined.split(|&b| b == b' ').filter(|name| !name.is_empty())
    }

    /// How the text that was scanned mentions a macro. `text` gives it once more, made simple.
    ///
    /// # Errors
    /// Those of `text`.
    pub fn mentions<E>(
        &self,
        name: &[u8],
        text: impl FnOnce() -> Result<Tidy, E>,
    ) -> Result<Arc<Mentions>, E> {
        if let Some(known) = self.answers().mentions.get(name) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(text()?.0.mentions(name));
        self.answers().mentions.insert(name.to_vec(), Arc::clone(&found));
        Ok(found)
    }

    /// What the definitions of a macro are made of in the text that was scanned.
    ///
    /// # Errors
    /// Those of `text`.
    pub fn bodies<E>(
        &self,
        name: &[u8],
        text: impl FnOnce() -> Result<Tidy, E>,
    ) -> Result<Arc<Vec<Option<Flow>>>, E> {
        if let Some(known) = self.answers().bodies.get(name) {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(text()?.0.bodies(name));
        self.answers().bodies.insert(name.to_vec(), Arc::clone(&found));
        Ok(found)
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.mentions.len() + answers.bodies.len() >= ANSWERS_MAX {
            *answers = Answers::default();
        }
        answers
    }
}

/// A text made simple to ask about.
#[derive(Debug, Clone)]
pub struct Tidy(Arc<mentions::Words>);

impl Tidy {
    /// Of a text that was scanned; nothing of one that is ambiguous, which is a hazard already.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Arc::new(mentions::Words::of(text::tidy(bytes).unwrap_or_default())))
    }
}

/// A macro's name in [`Scan::defined`]: two of one fingerprint are taken for one.
pub fn fingerprint(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name);
    hasher.finish()
}

/// Scans a text.
pub fn scan(bytes: &[u8]) -> Scan {
    let mut found = Scan::default();
    match text::tidy(bytes) {
        Ok(text) => {
            directives(&text, &mut found);
            words(&text, &mut found);
            if let Some(hazard) = assembler::hazard(&text, &mut found.sites) {
                found.hazard.get_or_insert(hazard);
            }
        }
        Err(hazard) => found.hazard = Some(hazard),
    }
    found.defined.sort_unstable();
    found.defined.dedup();
    let mut once = std::collections::HashSet::new();
    found.names.retain(|name| once.insert(name.clone()));
    found
}

/// The [`Scan::pieces`] of a text, without anything else; none if it is ambiguous.
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "for the observed observer"))]
pub fn pieces(bytes: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let text = text::tidy(bytes).ok()?;
    let mut found = Scan::default();
    words(&text, &mut found);
    Some(found.pieces)
}

/// Whether the pieces of all texts together can make a name that tells the time.
pub fn asks_time(pieces: &BTreeSet<Vec<u8>>) -> bool {
    WORDS[..TIME_WORDS].iter().any(|word| composes(word.as_bytes(), pieces, true))
}

/// Whether the pieces can be pasted to an operator that asks about files.
pub fn pastes_question(pieces: &BTreeSet<Vec<u8>>) -> bool {
    WORDS[TIME_WORDS..].iter().any(|word| composes(word.as_bytes(), pieces, false))
}

/// Into how few pieces this name can be cut, if it can; itself does not count as one.
pub fn pieces_of(name: &[u8], pieces: &BTreeSet<Vec<u8>>) -> Option<usize> {
    let fewest = fewest_pieces(name, |piece| piece.len() < name.len() && pieces.contains(piece));
    (fewest < usize::MAX).then_some(fewest)
}

fn composes(word: &[u8], pieces: &BTreeSet<Vec<u8>>, whole: bool) -> bool {
    let is_piece = |piece: &[u8]| {
        // An operator that is not asked with at once, as pasting would have it, is a hazard by itself.
        let is_operator = WORDS.iter().any(|w| w.as_bytes() == piece);
        (whole || !is_operator) && pieces.contains(piece)
    };
    fewest_pieces(word, is_piece) <= PIECES_MAX
}

/// How many pieces a word takes at least; the greatest number if it cannot be had.
fn fewest_pieces(word: &[u8], is_piece: impl Fn(&[u8]) -> bool) -> usize {
    // How many pieces it takes at least to get so far.
    let mut fewest = vec![usize::MAX; word.len() + 1];
    fewest[0] = 0;
    for end in 1..=word.len() {
        let starts = (0..end).filter(|&start| fewest[start] < usize::MAX && is_piece(&word[start..end]));
        fewest[end] = starts.map(|start| fewest[start] + 1).min().unwrap_or(usize::MAX);
    }
    fewest[word.len()]
}

/// Finds `#include` and its kin: at the start of a line, or after the end of a comment.
fn directives(text: &[u8], found: &mut Scan) {
    for (at, len) in hashes(text) {
        let before = trim_end(line_before(text, at));
        // A text in UTF-8 may begin with a mark.
        let before = before.strip_suffix(b"\xef\xbb\xbf").unwrap_or(before);
        if !before.is_empty() && !before.ends_with(b"*/") {
            continue;
        }
        let rest = skip_blanks(&text[at + len..]);
        let word = &rest[..identifier_length(rest)];
        match word {
            b"include" | b"include_next" | b"import" => {
                let operand = &rest[word.len()..];
                match macro_name(operand) {
                    Some(name) => drop(found.computed.insert(name.to_vec())),
                    None => name(operand, "a computed #include", found),
                }
            }
            b"define" => {
                let operand = skip_blanks(&rest[word.len()..]);
                let name = &operand[..identifier_length(operand)];
                found.names_defined.extend_from_slice(name);
                found.names_defined.push(b' ');
                found.defined.push(fingerprint(name));
                let line = operand.split(|&b| b == b'\n').next().unwrap_or_default();
                found.breaks_brackets |= !flow::is_balanced(line);
            }
            b"line" => found.is_anothers = true,
            [b'0'..=b'9', ..] => found.is_anothers = true,
            b"embed" => drop(found.hazard.get_or_insert("#embed")),
            _ => {}
        }
    }
}

/// Where `#` or its other spelling `%:` stands, and its length.
fn hashes(text: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    text.iter().enumerate().filter_map(|(at, &b)| match b {
        b'#' => Some((at, 1)),
        b'%' if text.get(at + 1) == Some(&b':') => Some((at, 2)),
        _ => None,
    })
}

/// The macro that a directive's operand is, if it is just one and not the compiler's own.
fn macro_name(operand: &[u8]) -> Option<&[u8]> {
    let operand = skip_blanks(operand);
    let (name, rest) = operand.split_at(identifier_length(operand));
    let ends = matches!(skip_blanks(rest).first(), None | Some(b'\n'));
    (ends && name.first().is_some_and(u8::is_ascii_alphabetic)).then_some(name)
}

/// The header's name that `rest` begins with.
fn name(rest: &[u8], otherwise: &'static str, found: &mut Scan) {
    let rest = skip_blanks(rest);
    let close = match rest.first() {
        Some(b'"') => b'"',
        Some(b'<') => b'>',
        _ => {
            found.hazard.get_or_insert(otherwise);
            return;
        }
    };
    let line = &rest[1..rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())];
    match line.iter().position(|&b| b == close) {
        Some(end) if end > 0 => {
            found.names.push(Name { text: line[..end].to_vec(), is_quoted: close == b'"' });
        }
        _ => drop(found.hazard.get_or_insert(otherwise)),
    }
}

/// Looks at every identifier, those within strings as well.
fn words(text: &[u8], found: &mut Scan) {
    let mut at = 0;
    while at < text.len() {
        if !is_identifier_byte(text[at]) {
            at += 1;
            continue;
        }
        let length = identifier_length(&text[at..]);
        let word = &text[at..at + length];
        if let Some((_, hazard)) = REFUSED.iter().find(|(refused, _)| refused.as_bytes() == word) {
            found.hazard.get_or_insert(hazard);
        }
        if word == b"dependency" && is_pragma(text, at) {
            found.hazard.get_or_insert("#pragma GCC dependency");
        }
        let is_part =
            WORDS.iter().any(|w| w.len() >= length && w.as_bytes().windows(length).any(|p| p == word));
        if is_part && (WORDS.iter().any(|w| w.as_bytes() == word) || may_be_pasted(text, at, length)) {
            found.pieces.insert(word.to_vec());
        }
        if word == b"__has_include" || word == b"__has_include_next" {
            question(text, at, length, found);
        }
        at += length;
    }
}

/// Whether `##` may join the word at `at` to another: it does so with what stands beside it in a macro's definition,
/// or with the first and the last word of a macro's argument.
fn may_be_pasted(text: &[u8], at: usize, length: usize) -> bool {
    let line = line_before(text, at);
    let before = trim_end(&text[..at]).last();
    let after = trim_start(&text[at + length..]).first();
    matches!(before, Some(b'(' | b',' | b':' | b'#' | b'/')) && !is_directive_word(line)
        || matches!(after, Some(b')' | b',' | b'%' | b'#' | b'/'))
        || line.windows(6).any(|w| w == b"define")
}

/// Whether what follows `line` is the name of a directive.
fn is_directive_word(line: &[u8]) -> bool {
    let line = trim_end(line);
    line.strip_suffix(b"#")
        .or_else(|| line.strip_suffix(b"%:"))
        .is_some_and(|before| trim_end(before).is_empty())
}

/// Whether the word at `at` can be one of a pragma, or become one by a macro.
fn is_pragma(text: &[u8], at: usize) -> bool {
    let line = line_before(text, at);
    let contains = |word: &[u8]| line.windows(word.len()).any(|w| w == word);
    trim_end(line).ends_with(b"GCC") || contains(b"pragma") || contains(b"_Pragma") || contains(b"define")
}

/// The part of a line that stands before `at`.
fn line_before(text: &[u8], at: usize) -> &[u8] {
    &text[text[..at].iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1)..at]
}

/// `__has_include`: with a name, or asked about itself (`#ifdef __has_include`).
fn question(text: &[u8], at: usize, length: usize, found: &mut Scan) {
    let rest = skip_blanks(&text[at + length..]);
    if let Some(argument) = rest.strip_prefix(b"(") {
        name(argument, "a computed __has_include", found);
        return;
    }
    let before = trim_end(&text[..at]);
    let before = trim_end(before.strip_suffix(b"(").unwrap_or(before));
    let line = line_before(text, at);
    // What follows `#endif` and `#else` is not looked at.
    let directive = skip_blanks(skip_blanks(line).strip_prefix(b"#").unwrap_or_default());
    if directive.starts_with(b"endif") || directive.starts_with(b"else ") {
        return;
    }
    let is_asked_about = [&b"defined"[..], b"ifdef", b"ifndef", b"elifdef", b"elifndef"];
    if !is_asked_about.iter().any(|word| before.ends_with(word)) {
        found.hazard.get_or_insert("a computed __has_include");
    }
}

fn is_identifier_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

fn identifier_length(text: &[u8]) -> usize {
    text.iter().position(|&b| !is_identifier_byte(b)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let scan = scan(text.as_bytes());
        assert_eq!(scan.hazard, None, "{text}");
        let quote = |n: &Name| if n.is_quoted { ('"', '"') } else { ('<', '>') };
        let shown = |n: &Name| format!("{}{}{}", quote(n).0, String::from_utf8_lossy(&n.text), quote(n).1);
        scan.names.iter().map(shown).collect()
    }

    #[test]
    fn directives_are_found_in_all_their_spellings() {
        for text in [
            "#include \"a.h\"",
            " \t# \tinclude\t\"a.h\"",
            "#inc\\\nlude \"a.h\"",
            "#inc\\  \r\nlude \"a.h\"",
            "#inc\\ \x0b\0\nlude \"a.h\"",
            "%:include \"a.h\"",
            "/* x */ #include \"a.h\"",
            "/* \"'\n */ # /* y\n */ include /* z */ \"a.h\" // no",
            "char *s = \"/*\";\n#include \"a.h\"\nchar *t = \"*/\";",
            "int c = '\"'; /* \" */\n#include \"a.h\"\n",
            "// it's /* not one\n#include \"a.h\"\n// */",
            "#import \"a.h\"",
            "\x0b#\x0binclude\x0c\"a.h\"",
            "\x0c \0# include \"a.h\"",
            "\u{feff}#include \"a.h\"",
            "\u{feff} /* x */ %: include \"a.h\"",
            "#include_next \"a.h\"",
            "#if __has_include(\"a.h\")",
            "#if defined __has_include && __has_include_next ( \"a.h\" )",
            "R\"(\n/*)\"\n#include \"a.h\"\nR\"(*/)\"",
        ] {
            assert_eq!(names(text), ["\"a.h\""], "{text}");
        }
        assert_eq!(names("#include <a/b.h>\n#include \"c\"\n#include <a/b.h>"), ["<a/b.h>", "\"c\""]);
        assert!(names("/*\n#include \"a.h\"\n*/ int x; #include \"b.h\"").is_empty());
    }

    #[test]
    fn what_cannot_be_known_is_a_hazard() {
        for text in [
            "#include HEADER(x)",
            "#include __FILE__",
            "#define H __has_include",
            "#if __has_include(H)",
            "#embed \"x\"",
            "??=include \"x\"",
            "// what??/\n#include \"x\"",
            "a\rb",
            "asm(\".incbin \\\"x\\\"\");",
            "asm(\".inc\" \"bin \\\"x\\\"\");",
            "__asm__ volatile (\".INCLUDE \\\"x\\\"\");",
            "#define A asm\n",
            "#define S(x) #x\nasm(S(.incbin \"x\"));",
            "asm(\".macro m a\\n.\\\\a \\\"x\\\"\\n.endm\");",
            "asm(\".%c0 \\\"x\\\"\" :: \"i\"(&include));",
            "int x __attribute__((section(\".data\\n.incbin 'x'\")));",
            "#pragma GCC dependency \"x\"",
        ] {
            assert!(scan(text.as_bytes()).hazard.is_some(), "{text}");
        }
        for text in [
            "asm volatile (\"mov %1, %0\\n\\t\" : \"=r\"(a) : \"r\"(b) : \"memory\");",
            "extern int f(void) __asm__ (\"\" \"__isoc99_f\");",
            "#define R(name, proto, alias) name proto __asm__ (__ASMNAME (#alias))",
            "__asm__(\".symver a, b@C\");",
            "/* asm (x) */ char *s = \"done.\";",
            "char *path = \"include/x.h\";",
        ] {
            assert_eq!(scan(text.as_bytes()).hazard, None, "{text}");
        }
    }

    #[test]
    fn names_of_the_time_are_seen_through_pasting() {
        let asks = |text: &str| asks_time(&scan(text.as_bytes()).pieces);
        for text in [
            "f(__DATE__)",
            "__DA\\\nTE__",
            "#define C(a, b) a##b\nC(__TI, ME__)",
            "#define C(a) __##a##__\nC(TIMESTAMP)",
            "#define C(a, b, c) a %:%: b ## c\nC(_, _, TIME__)",
        ] {
            assert!(asks(text), "{text}");
        }
        for text in ["/* __DATE__ */", "__DA TE__", "DATE", "TIME__ T E", "__DATE___", "x__TIME__"] {
            assert!(!asks(text), "{text}");
        }
        assert!(pastes_question(&scan(b"C(__has_, include)").pieces));
        assert!(!pastes_question(&scan(b"#ifdef __has_include\n#include <x>\n#endif").pieces));
    }

    #[test]
    fn a_name_may_be_cut_into_so_many_pieces() {
        let pieces = |pieces: &[&str]| pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect();
        // The underscores count twice: four pieces, and five.
        assert!(asks_time(&pieces(&["__", "TI", "ME"])));
        assert!(!asks_time(&pieces(&["__", "T", "I", "ME"])));
    }
    #[test]
    fn so_many_answers_are_remembered_and_then_none() {
        let text = b"#define A x";
        let (scan, tidy) = (scan(text), Tidy::of(text));
        let ask = |name: String| scan.bodies(name.as_bytes(), || Ok::<_, ()>(tidy.clone())).unwrap();
        for at in 0..ANSWERS_MAX {
            _ = ask(format!("N{at}"));
        }
        assert_eq!(scan.answers.lock().unwrap().bodies.len(), ANSWERS_MAX);
        assert_eq!(ask("A".to_owned()).len(), 1);
        assert_eq!(scan.answers.lock().unwrap().bodies.len(), 1);
    }
}
