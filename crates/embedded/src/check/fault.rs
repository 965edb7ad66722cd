//! A fault, and where in the text it is.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use streamview_manager::engines::Refusal;

/// What is wrong, before its place is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    pub(crate) message: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    At {
        line: u32,
        column: u32,
    },
    /// At the first of these words that the text has.
    Words(Vec<String>),
}

impl Fault {
    pub(crate) fn at(code: &'static str, message: impl Into<String>, line: u32, column: u32) -> Fault {
        Fault { code, message: message.into(), place: Place::At { line, column } }
    }

    /// At the first of these words that stands in the text; else at its begin.
    pub(crate) fn at_word(code: &'static str, message: impl Into<String>, words: &[&str]) -> Fault {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Fault { code, message: message.into(), place: Place::Words(words) }
    }

    pub(crate) fn refusal(self, sql: &str) -> Refusal {
        let (line, column) = match &self.place {
            Place::At { line, column } => (*line, *column),
            Place::Words(words) => words.iter().find_map(|word| place_of(sql, word)).unwrap_or((1, 1)),
        };
        Refusal { code: self.code.to_owned(), message: self.message, line: Some(line), column: Some(column) }
    }
}

/// Line and column of the first word like this, both from 1.
pub(crate) fn place_of(sql: &str, word: &str) -> Option<(u32, u32)> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().ok()?;
    let found = tokens.iter().find(|token| match &token.token {
        Token::Word(found) => found.value.eq_ignore_ascii_case(word),
        other => other.to_string() == word,
    })?;
    let start = found.span.start;
    Some((u32::try_from(start.line).ok()?, u32::try_from(start.column).ok()?))
}
