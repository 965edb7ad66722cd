//! The SQL gate: a user's text is one SELECT over sources of the catalogue, or it is refused. No I/O, no clock.
//!
//! ```text
//!   user's text ─ lexer ─▶ tokens ─ first looks ─▶ query ─▶ sources, functions, limits ─▶ Gated ─ compose ─▶ statement
//!                  │ unterminated,    │ one statement, │ the shape of a SELECT in this dialect     │ read again:
//!                  │ look-alikes      │ no blocked word│                                           │ ours + theirs + ours
//! ```
//!
//! Three layers, each enough against what it is for:
//! 1. **What the engine reads is what was judged.** Comments are never sent, outside quotes only plain ASCII passes, and what
//!    the engines' lexers read differently from each other (`//`, `/*+`, `E'\''`, `"…"`, `1FROM`, `${`) is refused.
//! 2. **Allowed is what is named.** Clauses in their order, sources of the catalogue, functions of the dialect's list. What a
//!    place may hold is listed; what is not listed is a fault with its position.
//! 3. **What is sent is read again** ([`compose`]): our text, one SELECT, our text, by tokens.
//!
//! The rest (types, columns, whether a join makes sense) is the engine's to judge, by its EXPLAIN.

use std::fmt::{self, Display, Formatter};

use crate::catalog::Source;
use crate::engines::{EngineKind, Refusal, Select};
use crate::settings::Limits;

pub use self::dialect::{Dialect, TypeWords};
use self::lexer::Token;
use self::positions::Positions;

mod brackets;
pub mod compose;
mod dialect;
mod embedded;
mod flink;
mod functions;
mod ksqldb;
pub mod lexer;
mod looks;
mod parser;
mod positions;
mod rewrite;

/// What a SELECT is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody looks at its rows.
    AdHoc {
        /// Ask for what is there now, instead of for changes (ksqlDB only).
        pull: bool,
    },
    /// It fills a topic until it is stopped.
    Persistent,
}

/// The sources that may be read.
pub trait Catalogue {
    /// The source of this name. The same spelling wins; else one that differs in case only, if there is just one.
    fn source(&self, name: &str) -> Option<&Source>;

    /// All names, to say which one was perhaps meant.
    fn names(&self) -> Vec<&str>;

    /// Whether a name that is no source here is a view of the service, which another engine reads.
    fn is_view_elsewhere(&self, _name: &str) -> bool {
        false
    }
}

impl Catalogue for [Source] {
    fn source(&self, name: &str) -> Option<&Source> {
        let exact = self.iter().find(|source| source.name == name);
        exact.or_else(|| {
            let mut like = self.iter().filter(|source| source.name.eq_ignore_ascii_case(name));
            like.next().filter(|_| like.next().is_none())
        })
    }

    fn names(&self) -> Vec<&str> {
        self.iter().map(|source| source.name.as_str()).collect()
    }
}

/// The sources of an engine, and the names of views that it cannot read.
pub struct WithViews<'a> {
    /// What it can read.
    pub sources: &'a [Source],
    /// What it cannot.
    pub views: &'a [String],
}

impl Catalogue for WithViews<'_> {
    fn source(&self, name: &str) -> Option<&Source> {
        self.sources.source(name)
    }

    fn names(&self) -> Vec<&str> {
        self.sources.names()
    }

    fn is_view_elsewhere(&self, name: &str) -> bool {
        self.views.iter().any(|view| view.eq_ignore_ascii_case(name))
    }
}

impl Catalogue for Vec<Source> {
    fn source(&self, name: &str) -> Option<&Source> {
        self.as_slice().source(name)
    }

    fn names(&self) -> Vec<&str> {
        self.as_slice().names()
    }
}

/// What is wrong with a text, and where. `Display` puts the place in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// A stable word, `snake_case`; docs/sql-gate.md lists them.
    pub code: &'static str,
    /// One sentence: what is there, and what to do.
    pub message: String,
    /// Line in the user's text, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Fault {
    fn at(token: &Token, code: &'static str, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into(), line: token.line, column: token.column }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal {
            code: fault.code.to_owned(),
            message: fault.message,
            line: Some(fault.line),
            column: Some(fault.column),
        }
    }
}

/// A SELECT that has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gated {
    /// What engines get: no comments, sources by their names in the catalogue, on the lines of the user's text.
    pub select: Select,
    /// The same on one line.
    pub normalized: String,
    /// The clauses of the outermost SELECT in their order, each on one line. Two texts whose `FROM`, `GROUP BY` and `WINDOW`
    /// are the same keep the same state.
    pub clauses: Vec<(Clause, String)>,
    counts_utf16: bool,
    positions: Positions,
}

/// A part of a SELECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clause {
    /// Common table expressions.
    With,
    /// What is selected.
    Select,
    /// Sources and joins, with the windows that stand among them.
    From,
    /// ksqlDB's WINDOW.
    Window,
    /// Which rows.
    Where,
    /// Which groups.
    GroupBy,
    /// ksqlDB's new key.
    PartitionBy,
    /// Which groups stay.
    Having,
    /// Order, set operations, LIMIT and what else follows.
    Rest,
}

impl Gated {
    /// A position that an engine gives in [`Select::sql`] as one in the user's text. Columns are counted as the engine counts
    /// them.
    pub fn map_position(&self, line: u32, column: u32) -> (u32, u32) {
        let column = if self.counts_utf16 { self.characters(line, column) } else { column };
        self.positions.user_position(line, column)
    }

    /// A column in UTF-16 units as one in characters.
    fn characters(&self, line: u32, column: u32) -> u32 {
        let text = usize::try_from(line).ok().and_then(|line| self.select.sql.lines().nth(line.saturating_sub(1)));
        let mut units = 1;
        let before = text.unwrap_or_default().chars().take_while(|letter| {
            let is_before = units < column;
            units += if letter.len_utf16() == 2 { 2 } else { 1 };
            is_before
        });
        let before = u32::try_from(before.count()).unwrap_or(u32::MAX - 1);
        (before + 1).max(column.saturating_sub(before))
    }

    /// The text of a clause, if it is there.
    pub fn clause(&self, clause: Clause) -> Option<&str> {
        self.clauses.iter().find(|(each, _)| *each == clause).map(|(_, text)| text.as_str())
    }
}

/// Judges a text. All faults of one step are told at once, by their places; a step that fails hides the next ones.
pub fn check(
    text: &str,
    dialect: &'static Dialect,
    kind: Kind,
    limits: &Limits,
    catalogue: &dyn Catalogue,
) -> Result<Gated, Vec<Fault>> {
    looks::length(text, limits).map_err(|fault| vec![fault])?;
    let tokens = lexer::lex(text, dialect).map_err(|fault| vec![fault])?;
    let code: Vec<Token> = tokens.iter().filter(|token| token.is_code()).copied().collect();
    let code = looks::one_statement(&code, dialect).map_err(|fault| vec![fault])?;
    looks::words_and_depth(code, dialect, limits)?;
    let query = parser::parse(code, dialect, kind, limits).map_err(|fault| vec![fault])?;
    rewrite::resolve(&tokens, code, &query, dialect, catalogue)
}

impl Dialect {
    /// The dialect of an engine.
    pub fn of(engine: EngineKind) -> &'static Dialect {
        match engine {
            EngineKind::Flink => &flink::FLINK,
            EngineKind::Ksqldb => &ksqldb::KSQLDB,
            EngineKind::Embedded => &embedded::EMBEDDED,
        }
    }
}
