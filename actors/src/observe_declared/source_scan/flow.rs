//! What may come into a text for the assembler by macros: words that may be macros themselves, parameters, and words
//! that `##` makes.
//!
//! Only stretches of a source are let in that hold no dot but within whole, harmless strings, and no brackets without
//! their other half. Whatever macros with such bodies make of such arguments is of that kind again, strings of `#`
//! among it: it cannot have a directive in it.

use std::collections::BTreeSet;

use super::blanks::skip_blanks;
use super::harmless::is_harmless_piece;
use super::identifier_length;
use super::tokens::{Token, tokens};

/// What a stretch of a source is made of.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Words that are no parameters.
    pub words: BTreeSet<Vec<u8>>,
    /// Parameters of the macro that it is in, by their places.
    pub params: BTreeSet<usize>,
    /// `##` makes words of those that come here.
    pub pastes: bool,
}

/// A macro, as its definition begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Macro {
    /// Its name.
    pub name: Vec<u8>,
    /// Its parameters' names; none if it takes none, not even empty ones.
    pub params: Option<Vec<Vec<u8>>>,
    /// The last one takes all arguments that are left.
    pub is_variadic: bool,
}

/// Something for the assembler that is not made of strings alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The macro whose body it stands in.
    pub owner: Option<Macro>,
    /// What it is made of.
    pub flow: Flow,
}

impl Flow {
    /// What is in these tokens, of the body of a macro (with its parameters) or of other text.
    pub fn of(tokens: &[Token<'_>], owner: Option<&Macro>) -> Option<Self> {
        let param = |word: &[u8]| owner?.params.as_ref()?.iter().position(|param| param == word);
        let mut flow = Self::default();
        let mut depth = 0_usize;
        for (at, token) in tokens.iter().enumerate() {
            match *token {
                Token::Word(word) => match param(word) {
                    Some(place) => drop(flow.params.insert(place)),
                    None => drop(flow.words.insert(word.to_vec())),
                },
                Token::String(string) if !is_harmless_piece(string) => return None,
                Token::Paste => {
                    let sides = [at.checked_sub(1).and_then(|before| tokens.get(before)), tokens.get(at + 1)];
                    if !matches!(sides, [Some(Token::Word(_)), Some(Token::Word(_))]) {
                        return None;
                    }
                    flow.pastes = true;
                }
                Token::Hash if owner.is_none() => return None,
                Token::Open => depth += 1,
                Token::Close => depth = depth.checked_sub(1)?,
                Token::Odd => return None,
                Token::String(_) | Token::Hash | Token::Comma | Token::Colon | Token::Plain => {}
            }
        }
        (depth == 0).then_some(flow)
    }
}

/// Whether all brackets in a macro's body, or in another stretch that lies on one line, have their other half.
pub fn is_balanced(body: &[u8]) -> bool {
    let mut depth = 0_usize;
    for token in tokens(body, false) {
        match token {
            Some((Token::Open, _)) => depth += 1,
            Some((Token::Close, _)) if depth == 0 => return false,
            Some((Token::Close, _)) => depth -= 1,
            Some(_) => {}
            None => return false,
        }
    }
    depth == 0
}

impl Macro {
    /// The macro that a line `#define …` defines, and where in the line its body begins.
    pub fn of(line: &[u8]) -> Option<(Self, usize)> {
        let rest = skip_blanks(line);
        let rest = skip_blanks(rest.strip_prefix(b"#").or_else(|| rest.strip_prefix(b"%:"))?);
        let rest = skip_blanks(rest.strip_prefix(b"define")?);
        let (name, rest) = rest.split_at(identifier_length(rest));
        let mut found = Self { name: name.to_vec(), params: None, is_variadic: false };
        let mut body = rest;
        if let Some(inside) = rest.strip_prefix(b"(") {
            let mut params = Vec::new();
            let mut listed = tokens(inside, false);
            loop {
                let (token, after) = listed.next()??;
                body = after;
                match token {
                    Token::Word(param) => params.push(param.to_vec()),
                    Token::Comma => {}
                    Token::Close => break,
                    Token::Plain => {
                        found.is_variadic = true;
                        params.push(b"__VA_ARGS__".to_vec());
                    }
                    _ => return None,
                }
            }
            found.params = Some(params);
        }
        (!name.is_empty()).then_some((found, line.len() - body.len()))
    }
}
