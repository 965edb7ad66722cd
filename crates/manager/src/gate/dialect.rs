//! What a dialect is: tables, and two functions. A further one is a file like `ksqldb.rs` and a line in [`Dialect::ALL`].

use super::Kind;
use super::lexer::{Token, TokenKind};
use super::parser::{Parse, Parser};
use crate::catalog::DataType;

/// How an engine reads SQL, as far as the gate must know it.
#[derive(Debug)]
pub struct Dialect {
    /// What people call it.
    pub name: &'static str,
    /// Whether `"…"` is a name; else it is refused.
    pub(super) double_quotes: bool,
    /// Whether names without quotes are read in upper case.
    pub(super) folds_names: bool,
    /// Whether the engine's columns count UTF-16 units; else characters.
    pub(super) counts_utf16: bool,
    /// The words with which a query begins.
    pub(super) query_words: &'static [&'static str],
    /// Keywords of other statements that no column can be called without quotes.
    pub(super) statement_words: &'static [&'static str],
    /// Keywords that begin or join clauses: in an expression they are out of place.
    pub(super) clause_words: &'static [&'static str],
    /// Those of them that may stand in brackets all the same: `OVER (PARTITION BY …)`.
    pub(super) bracket_clauses: &'static [&'static str],
    /// Keywords and types that may stand before a bracket.
    pub(super) bracket_words: &'static [&'static str],
    /// The engine's own functions, in upper case, sorted, one a line.
    pub(super) functions: &'static str,
    /// Calls with a FROM inside that names no source: `EXTRACT(YEAR FROM ts)`.
    pub(super) from_calls: &'static [&'static str],
    /// Calls that make a window.
    pub(super) window_calls: &'static [&'static str],
    /// Reads a SELECT in brackets, if one may stand there.
    pub(super) subquery: Option<for<'p, 'a> fn(&'p mut Parser<'a>) -> Parse<()>>,
    /// What other dialects write: a sequence of tokens (behind `^` only at the statement's beginning), the fault's code, and
    /// what to write here instead.
    pub(super) foreign: &'static [(&'static [&'static str], &'static str, &'static str)],
    /// Reads a whole query.
    pub(super) query: for<'p, 'a> fn(&'p mut Parser<'a>, Kind) -> Parse<()>,
    /// Writes a type whose names are quoted.
    pub(super) write_type: fn(&DataType) -> Result<String, super::compose::ComposeError>,
}

impl Dialect {
    /// All of them.
    pub const ALL: [&'static Dialect; 2] = [&super::flink::FLINK, &super::ksqldb::KSQLDB];

    /// A type in this dialect's words, names in it quoted.
    pub fn data_type(&self, data_type: &DataType) -> Result<String, super::compose::ComposeError> {
        (self.write_type)(data_type)
    }

    /// A token as the engine compares it: names as they are resolved, everything else as it is written.
    pub(super) fn folded(&self, token: &Token) -> String {
        match token.kind {
            TokenKind::Word if self.folds_names => token.text.to_ascii_uppercase(),
            TokenKind::Quoted => token.name(),
            _ => token.text.to_owned(),
        }
    }

    pub(super) fn has_function(&self, upper: &str) -> bool {
        self.functions.lines().any(|name| name == upper)
    }
}
