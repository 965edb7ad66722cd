//! What a dialect is: tables, and a function. A further one is a file like `ksqldb.rs` and a line in [`Dialect::ALL`].

use super::Kind;
use super::compose::{ComposeError, quote_identifier, quoted};
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
    /// Likewise names in backticks.
    pub(super) backticks: bool,
    /// Marks that stand in expressions beside those of all dialects: `~`.
    pub(super) marks: &'static str,
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
    /// Whether the same window may be written again where it is selected: it counts once.
    pub(super) repeats_windows: bool,
    /// Reads a SELECT in brackets within an expression, if one may stand there.
    pub(super) subquery: Option<for<'p, 'a> fn(&'p mut Parser<'a>) -> Parse<()>>,
    /// What to do where none may.
    pub(super) instead_of_subquery: &'static str,
    /// What other dialects write: a sequence of tokens (behind `^` only at the statement's beginning), the fault's code, and
    /// what to write here instead.
    pub(super) foreign: &'static [(&'static [&'static str], &'static str, &'static str)],
    /// Reads a whole query.
    pub(super) query: for<'p, 'a> fn(&'p mut Parser<'a>, Kind) -> Parse<()>,
    /// What its types are called.
    pub(super) types: TypeWords,
}

/// What an engine calls types, where engines differ.
#[derive(Debug, Clone, Copy)]
pub struct TypeWords {
    /// 32 bits.
    pub int: &'static str,
    /// Text, also as the key of a map.
    pub string: &'static str,
    /// A point in time.
    pub timestamp: &'static str,
    /// Whether the digits of a second stand behind it.
    pub has_digits: bool,
    /// Fields with names.
    pub row: &'static str,
}

impl Dialect {
    /// All of them.
    pub const ALL: [&'static Dialect; 3] = [&super::flink::FLINK, &super::ksqldb::KSQLDB, &super::embedded::EMBEDDED];

    /// A type in this dialect's words, names in it quoted.
    pub fn data_type(&self, data_type: &DataType) -> Result<String, ComposeError> {
        self.types.write(data_type)
    }

    /// What its types are called.
    pub fn types(&self) -> TypeWords {
        self.types
    }

    /// A name in the quotes that it has, those in it doubled.
    pub fn quote(&self, name: &str) -> Result<String, ComposeError> {
        let quote = if self.backticks { '`' } else { '"' };
        quoted(name, quote).filter(|_| !name.is_empty()).ok_or_else(|| ComposeError::Unquotable(name.to_owned()))
    }

    /// What its names are quoted in, in words.
    pub(super) const fn quotes(&self) -> &'static str {
        if self.backticks { "backticks" } else { "double quotes" }
    }

    /// Whether that is a quote here.
    pub(super) const fn has_quote(&self, quote: char) -> bool {
        match quote {
            '`' => self.backticks,
            '"' => self.double_quotes,
            _ => true,
        }
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

impl TypeWords {
    /// A type in these words, names in it quoted.
    pub fn write(&self, data_type: &DataType) -> Result<String, ComposeError> {
        Ok(match data_type {
            DataType::Boolean => "BOOLEAN".to_owned(),
            DataType::Int => self.int.to_owned(),
            DataType::BigInt => "BIGINT".to_owned(),
            DataType::Double => "DOUBLE".to_owned(),
            DataType::Decimal { precision, scale } => format!("DECIMAL({precision}, {scale})"),
            DataType::String => self.string.to_owned(),
            DataType::Bytes => "BYTES".to_owned(),
            DataType::Date => "DATE".to_owned(),
            DataType::Time => "TIME".to_owned(),
            DataType::Timestamp(digits) if self.has_digits => format!("{}({digits})", self.timestamp),
            DataType::Timestamp(_) => self.timestamp.to_owned(),
            DataType::Array(of) => format!("ARRAY<{}>", self.write(of)?),
            DataType::Map(of) => format!("MAP<{}, {}>", self.string, self.write(of)?),
            DataType::Row(fields) => {
                let field =
                    |(name, of): &(String, DataType)| Ok(format!("{} {}", quote_identifier(name)?, self.write(of)?));
                let fields: Result<Vec<String>, ComposeError> = fields.iter().map(field).collect();
                format!("{}<{}>", self.row, fields?.join(", "))
            }
        })
    }
}
