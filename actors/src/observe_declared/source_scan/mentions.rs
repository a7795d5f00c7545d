//! Where a text mentions a macro, and how: what it is called with, what its definitions are made of, and of which words
//! of the text its name could be pasted together.

use std::collections::{BTreeSet, HashMap};

use super::blanks::{skip_blanks, trim_end, trim_start};
use super::flow::{Flow, Macro};
use super::text::hides_lines;
use super::tokens::{Token, tokens};
use super::{identifier_length, is_identifier_byte, line_before};

/// A macro is called, or is what another one stands for.
#[derive(Debug, PartialEq, Eq)]
pub enum Use {
    /// With these arguments; none for one that may hold anything.
    Call(Vec<Option<Flow>>),
    /// In another macro's body.
    CallWithin(Macro, Vec<Option<Flow>>),
    /// Another macro is this one by another name.
    Alias(Vec<u8>),
}

/// All there is of one name in a text.
#[derive(Debug)]
pub struct Mentions {
    /// How it is used; none if that is not clear.
    pub uses: Option<Vec<Use>>,
    /// Words that are a part of it, where `##` may reach them.
    pub pieces: BTreeSet<Vec<u8>>,
}

/// A text with all its words.
#[derive(Debug)]
pub struct Words {
    text: Vec<u8>,
    /// Where each is.
    places: HashMap<Vec<u8>, Vec<usize>>,
    hides_lines: bool,
}

impl Words {
    /// Of a text that was made simple to look at.
    pub fn of(text: Vec<u8>) -> Self {
        let mut places: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, word) in words(&text) {
            match places.get_mut(word) {
                Some(known) => known.push(at),
                None => drop(places.insert(word.to_vec(), vec![at])),
            }
        }
        Self { hides_lines: hides_lines(&text), places, text }
    }

    /// All mentions of the macro `name`.
    pub fn mentions(&self, name: &[u8]) -> Mentions {
        let is_part =
            |word: &[u8]| word.len() < name.len() && name.windows(word.len()).any(|part| part == word);
        let parts = self
            .places
            .iter()
            .filter(|(word, places)| is_part(word) && places.iter().any(|&at| self.is_piece(at, word, name)));
        let pieces = parts.map(|(word, _)| word.clone()).collect();
        let places = self.places.get(name).map_or(&[][..], |places| places);
        if self.hides_lines && !places.is_empty() {
            return Mentions { uses: None, pieces };
        }
        let uses = places.iter().filter_map(|&at| use_at(&self.text, at, name).transpose());
        Mentions { uses: uses.collect::<Result<_, _>>().ok(), pieces }
    }

    /// What every definition of the macro `name` is made of; none for one that may hold anything.
    pub fn bodies(&self, name: &[u8]) -> Vec<Option<Flow>> {
        if self.hides_lines {
            return vec![None];
        }
        let places = self.places.get(name).map_or(&[][..], |places| places);
        let defining = places.iter().filter(|&&at| directive(&self.text, at) == Some(b"define"));
        let bodies = defining.filter_map(|&at| {
            let line = line_around(&self.text, at);
            match Macro::of(line) {
                Some((defined, _)) if defined.name != name => None,
                Some((defined, body)) => Some(flow_of(&line[body..], &defined)),
                None => Some(None),
            }
        });
        bodies.collect()
    }

    /// Whether the word can be pasted to others, so that `name` comes about: at its beginning, it must be the last of
    /// a body or an argument, or before what may be nothing; at its end, the first.
    fn is_piece(&self, at: usize, word: &[u8], name: &[u8]) -> bool {
        let (text, end) = (&self.text, at + word.len());
        let line = line_around(text, at);
        let is_definition = match directive(text, at) {
            Some(b"define") => true,
            Some(_) if !self.hides_lines => return false,
            _ => false,
        };
        let joins = |beside: Option<&u8>, bracket: u8| match beside {
            None | Some(b',' | b'#' | b'%' | b':' | b'/') => true,
            Some(&b) => b == bracket || is_definition && is_identifier_byte(b),
        };
        let (mut before, mut after) = (&text[..at], &text[end..]);
        if let Some((defined, body)) = Macro::of(line).filter(|_| is_definition) {
            let place = line_before(text, at).len();
            // A macro is not expanded where it is defined, and for its parameters stand others.
            if place < body || defined.params.is_some_and(|params| params.iter().any(|param| param == word)) {
                return false;
            }
            (before, after) = (&line[body..place], &line[place + word.len()..]);
        }
        let left = joins(trim_end(before).last(), b'(');
        let right = joins(trim_start(after).first(), b')');
        match (left, right) {
            (true, true) => true,
            (true, false) => name.ends_with(word),
            (false, true) => name.starts_with(word),
            (false, false) => false,
        }
    }
}

fn flow_of(body: &[u8], of: &Macro) -> Option<Flow> {
    let tokens: Option<Vec<_>> = tokens(body, false).map(|token| token.map(|(token, _)| token)).collect();
    Flow::of(&tokens?, Some(of))
}

/// Every identifier, those within strings as well, and where it is.
fn words(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += text[at..].iter().position(|&b| is_identifier_byte(b))?;
        let begin = at;
        at += identifier_length(&text[at..]);
        Some((begin, &text[begin..at]))
    })
}

/// The name of the directive in whose line `at` is.
pub fn directive(text: &[u8], at: usize) -> Option<&[u8]> {
    let before = line_before(text, at);
    let rest = skip_blanks(before);
    let rest = skip_blanks(rest.strip_prefix(b"#").or_else(|| rest.strip_prefix(b"%:"))?);
    Some(&rest[..identifier_length(rest)])
}

/// The whole line that `at` is in.
pub fn line_around(text: &[u8], at: usize) -> &[u8] {
    let begin = at - line_before(text, at).len();
    let end = text[at..].iter().position(|&b| b == b'\n').map_or(text.len(), |newline| at + newline);
    &text[begin..end]
}

/// How the macro is used where its name is.
fn use_at(text: &[u8], at: usize, name: &[u8]) -> Result<Option<Use>, ()> {
    match directive(text, at) {
        Some(b"define") => {
            let line = line_around(text, at);
            let (owner, body) = Macro::of(line).ok_or(())?;
            let place = line_before(text, at).len();
            if place < body {
                return Ok(None);
            }
            if trim_start(trim_end(&line[body..])) == name && owner.params.is_none() {
                return Ok(Some(Use::Alias(owner.name)));
            }
            let arguments = arguments(&line[place + name.len()..], false, Some(&owner)).ok_or(())?;
            Ok(Some(Use::CallWithin(owner, arguments)))
        }
        // No macro that makes assembler is expanded there.
        Some(_) => Ok(None),
        None => arguments(&text[at + name.len()..], true, None)
            .map(|arguments| Some(Use::Call(arguments)))
            .ok_or(()),
    }
}

/// The arguments of a call.
fn arguments(rest: &[u8], crosses_lines: bool, owner: Option<&Macro>) -> Option<Vec<Option<Flow>>> {
    let mut tokens = tokens(rest, crosses_lines);
    if tokens.next()??.0 != Token::Open {
        return None;
    }
    let (mut found, mut argument, mut depth) = (Vec::new(), Vec::new(), 0_usize);
    loop {
        let (token, _) = tokens.next()??;
        match token {
            Token::Comma if depth == 0 => {
                found.push(Flow::of(&argument, owner));
                argument.clear();
                continue;
            }
            Token::Close if depth == 0 => {
                found.push(Flow::of(&argument, owner));
                return Some(found);
            }
            Token::Open => depth += 1,
            Token::Close => depth -= 1,
            _ => {}
        }
        argument.push(token);
    }
}
