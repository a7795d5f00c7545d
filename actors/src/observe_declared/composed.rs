//! Assembler that macros are a part of: whether all texts of a compile together let them bring a directive into it.
//!
//! Headers give functions other names in the assembler by `asm` labels, and spell those by `#`. Nothing is
//! preprocessed to see what becomes of them. Instead everything is followed that may come there: the words of a label, all
//! definitions of each of these, and what the macro that the label is in is called with, in any text. Each must be
//! of a kind ([`Flow`]) of which no macro can make a directive. Where that is not so, or not clear, nothing is stored.

use std::cell::OnceCell;
use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::closure::read;
use super::source_scan::{Flow, Macro, Scan, Tidy, Use, fingerprint, pieces_of};
use crate::signature::Signature;

/// Built-in names that stand for strings which a user has a say in.
const STRINGS: &[&[u8]] =
    &[b"__FILE__", b"__BASE_FILE__", b"__FILE_NAME__", b"__FUNCTION__", b"__func__", b"__PRETTY_FUNCTION__"];

/// What built-in macros whose names do not show that they are, stand for; and [`KNOWN`] ones.
const BUILT_IN: &[&[u8]] = &[b"0", b"1", b"_", b"__attribute__"];

/// Names that look like those of built-in macros, and are keywords, or stand for what [`BUILT_IN`] lists.
const KNOWN: &[&[u8]] = &[
    b"__USER_LABEL_PREFIX__",
    b"__attribute__",
    b"__extension__",
    b"__inline__",
    b"__asm__",
    b"__volatile__",
    b"__const__",
    b"__restrict__",
    b"__typeof__",
];

/// Into how many pieces the name of a macro that makes assembler may be cut to be pasted together again. The short words of
/// Windows' headers make `__buildmov` of four. See `docs/observers.md`.
const PIECES_MAX: usize = 3;

/// Into how many pieces a name in [`STRINGS`] may be cut: `__` and `FILE` are words of every `<stdio.h>` and `<math.h>`. See
/// `docs/observers.md`.
const STRING_PIECES_MAX: usize = 2;

/// One text of a compile.
pub struct Text {
    source: Source,
    scan: Arc<Scan>,
    tidy: OnceCell<Tidy>,
}

/// Where a text is from.
pub enum Source {
    /// A file, and its signature when it was scanned.
    File(PathBuf, Signature),
    /// The command line, as directives.
    CommandLine(Vec<u8>),
}

/// Looks at all assembler in the texts that hangs on macros. `defined` are the names of all macros.
///
/// # Errors
/// What may be a directive.
pub fn check(texts: &[Text], defined: &HashSet<u64>) -> Result<(), String> {
    let mut following = Following::new(texts, defined);
    for text in texts {
        for site in &text.scan.sites {
            match &site.owner {
                Some(owner) => following.pass_on(owner, &site.flow)?,
                None => following.add(&site.flow)?,
            }
        }
    }
    following.follow_all()
}

fn composed(name: &[u8]) -> String {
    format!("assembler that macros put together ({})", String::from_utf8_lossy(name))
}

impl Text {
    /// A text that was scanned.
    pub fn new(source: Source, scan: Arc<Scan>) -> Self {
        Self { source, scan, tidy: OnceCell::new() }
    }

    fn tidy(&self) -> Result<Tidy, String> {
        if let Some(known) = self.tidy.get() {
            return Ok(known.clone());
        }
        let tidy = match &self.source {
            Source::CommandLine(text) => Tidy::of(text),
            Source::File(path, signature) => match read(path) {
                Ok((now, text)) if now == *signature => Tidy::of(&text),
                _ => return Err(format!("{} changes", path.display())),
            },
        };
        Ok(self.tidy.get_or_init(|| tidy).clone())
    }
}

/// What comes into assembler, followed back to where it is from.
struct Following<'a> {
    texts: &'a [Text],
    defined: &'a HashSet<u64>,
    /// Words to look at, and all that were found.
    words: Vec<Vec<u8>>,
    known_words: BTreeSet<Vec<u8>>,
    /// Macros whose argument at this place, of so many, comes there.
    calls: Vec<(Vec<u8>, usize, usize)>,
    known_calls: HashSet<(Vec<u8>, usize, usize)>,
    /// `##` makes other words of them.
    pastes: bool,
    /// Some macro anywhere opens a bracket that it does not close.
    breaks_brackets: bool,
}

impl<'a> Following<'a> {
    fn new(texts: &'a [Text], defined: &'a HashSet<u64>) -> Self {
        Self {
            texts,
            defined,
            words: Vec::new(),
            known_words: BTreeSet::new(),
            calls: Vec::new(),
            known_calls: HashSet::new(),
            pastes: false,
            breaks_brackets: texts.iter().any(|text| text.scan.breaks_brackets),
        }
    }

    fn add(&mut self, flow: &Flow) -> Result<(), String> {
        flow.words.iter().try_for_each(|word| self.add_word(word))?;
        self.pastes |= flow.pastes;
        Ok(())
    }

    fn add_word(&mut self, word: &[u8]) -> Result<(), String> {
        // A name that is not ASCII has several spellings.
        if STRINGS.contains(&word) || !word.is_ascii() {
            return Err(composed(word));
        }
        if self.known_words.insert(word.to_vec()) && self.defined.contains(&fingerprint(word)) {
            self.words.push(word.to_vec());
        }
        Ok(())
    }

    fn follow_all(&mut self) -> Result<(), String> {
        loop {
            if let Some(word) = self.words.pop() {
                self.follow_word(&word)?;
            } else if let Some(call) = self.calls.pop() {
                if self.known_calls.insert(call.clone()) {
                    self.follow_calls(&call)?;
                }
            } else if !self.paste()? {
                return Ok(());
            }
        }
    }

    /// Looks at all definitions of a word.
    fn follow_word(&mut self, word: &[u8]) -> Result<(), String> {
        for text in self.texts.iter().filter(|text| text.scan.defines(word)) {
            let bodies = text.scan.bodies(word, || text.tidy())?;
            if bodies.is_empty() {
                return Err(composed(word));
            }
            for body in bodies.iter() {
                // Its arguments come from where the word does.
                self.add(body.as_ref().ok_or_else(|| composed(word))?)?;
            }
        }
        Ok(())
    }

    /// Looks at all calls of a macro, one argument of which comes into assembler.
    fn follow_calls(&mut self, (name, place, count): &(Vec<u8>, usize, usize)) -> Result<(), String> {
        let unclear = || composed(name);
        if !name.is_ascii() {
            return Err(unclear());
        }
        let mut pieces = BTreeSet::new();
        for text in self.texts {
            let mentions = text.scan.mentions(name, || text.tidy())?;
            pieces.extend(mentions.pieces.iter().cloned());
            for used in mentions.uses.as_ref().ok_or_else(unclear)? {
                match used {
                    Use::Alias(alias) => self.calls.push((alias.clone(), *place, *count)),
                    Use::Call(arguments) | Use::CallWithin(_, arguments) if arguments.len() != *count => {
                        return Err(unclear());
                    }
                    // Where one argument ends is settled before any of them is looked at.
                    Use::Call(arguments) => self.add(arguments[*place].as_ref().ok_or_else(unclear)?)?,
                    Use::CallWithin(owner, arguments) => {
                        // But here one argument may come to hold two, if some bracket makes up for it.
                        let all = 0..if self.breaks_brackets { *count } else { 0 };
                        for place in all.chain([*place]) {
                            self.pass_on(owner, arguments[place].as_ref().ok_or_else(unclear)?)?;
                        }
                    }
                }
            }
        }
        match pieces_of(name, &pieces) {
            Some(fewest) if fewest <= PIECES_MAX => Err(unclear()),
            _ => Ok(()),
        }
    }

    /// Adds what comes into assembler from within the body of a macro.
    fn pass_on(&mut self, owner: &Macro, flow: &Flow) -> Result<(), String> {
        self.add(flow)?;
        if owner.is_variadic && !flow.params.is_empty() {
            return Err(composed(&owner.name));
        }
        let count = owner.params.as_ref().map_or(0, Vec::len);
        self.calls.extend(flow.params.iter().map(|&param| (owner.name.clone(), param, count)));
        Ok(())
    }

    /// Finds the macros whose names `##` may make of the words. Returns whether there are any.
    fn paste(&mut self) -> Result<bool, String> {
        if !self.pastes {
            return Ok(false);
        }
        let is_built_in = |word: &Vec<u8>| {
            word.len() > 4
                && word.starts_with(b"__")
                && word.ends_with(b"__")
                && !self.defined.contains(&fingerprint(word))
                && !KNOWN.contains(&&word[..])
        };
        if let Some(word) = self.known_words.iter().find(|word| is_built_in(word)) {
            return Err(composed(word));
        }
        let mut pieces = self.known_words.clone();
        pieces.extend(BUILT_IN.iter().map(|word| word.to_vec()));
        let begins: HashSet<u8> = pieces.iter().filter_map(|piece| piece.first().copied()).collect();
        for name in self.texts.iter().flat_map(|text| text.scan.names_defined()) {
            if begins.contains(&name[0]) && pieces_of(name, &pieces).is_some() {
                self.add_word(name)?;
            }
        }
        let is_made =
            |name: &&&[u8]| pieces_of(name, &pieces).is_some_and(|fewest| fewest <= STRING_PIECES_MAX);
        if let Some(name) = STRINGS.iter().find(is_made) {
            return Err(composed(name));
        }
        Ok(!self.words.is_empty())
    }
}

#[cfg(test)]
mod tests;
