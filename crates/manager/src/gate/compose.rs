//! The only place that makes statements. A user's SELECT is joined to our text by tokens, and what comes out is read again:
//! it is one statement, ours in front, theirs in the middle, ours behind, or an error.

use std::fmt::{self, Display, Formatter};

use super::lexer::{Token, TokenKind, lex};
use super::{Dialect, Fault};
use crate::engines::Select;

/// The longest name of ours in an engine.
const MAX_NAME: usize = 63;

/// Why a statement was not made. None of these is a user's fault: the gate, the catalogue or a setting let something through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// Not a name that we give to engines.
    #[error(
        "`{0}` is no name for an engine: it needs a letter first, then letters, digits and _, at most {MAX_NAME} in all"
    )]
    Name(String),
    /// It can't be quoted safely.
    #[error("{0:?} can't be quoted: it is empty, or holds a control character or `${{`")]
    Unquotable(String),
    /// It is not read as what it should be.
    #[error("the statement is not what it should be: {0}")]
    Skeleton(String),
}

impl From<Fault> for ComposeError {
    fn from(fault: Fault) -> ComposeError {
        ComposeError::Skeleton(fault.to_string())
    }
}

/// A name that we give to something in an engine. It needs no quotes, though it may have them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EngineName(String);

impl EngineName {
    /// Letters, digits and `_`, ASCII, a letter first, at most 63.
    pub fn parse(name: &str) -> Result<EngineName, ComposeError> {
        let letters_only = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let is_name =
            letters_only && name.len() <= MAX_NAME && name.starts_with(|first: char| first.is_ascii_alphabetic());
        if is_name { Ok(EngineName(name.to_owned())) } else { Err(ComposeError::Name(name.to_owned())) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for EngineName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name in backticks, those in it doubled: of columns and sources, whatever they hold.
pub fn quote_identifier(name: &str) -> Result<String, ComposeError> {
    quoted(name, '`').filter(|_| !name.is_empty()).ok_or_else(|| ComposeError::Unquotable(name.to_owned()))
}

/// A text in single quotes, those in it doubled.
pub fn string_literal(text: &str) -> Result<String, ComposeError> {
    quoted(text, '\'').ok_or_else(|| ComposeError::Unquotable(text.to_owned()))
}

/// Quoted, if it is read as one token again, by every dialect that has these quotes.
pub(super) fn quoted(text: &str, quote: char) -> Option<String> {
    let quoted = format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")));
    let mut dialects = Dialect::ALL.iter().filter(|dialect| dialect.has_quote(quote));
    let is_one = dialects.all(|dialect| lex(&quoted, dialect).is_ok_and(|tokens| tokens.len() == 1));
    is_one.then_some(quoted)
}

/// A statement with a user's SELECT in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composed {
    text: String,
    select_line: u32,
    select_lines: u32,
}

impl Composed {
    /// What is sent; it ends with a line feed and without `;`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A position in [`Composed::text`] as one in [`Select::sql`]; `None` if it is in our own text. From there
    /// [`super::Gated::map_position`] leads to the user's text.
    pub fn position_in_select(&self, line: u32, column: u32) -> Option<(u32, u32)> {
        let is_inside = line >= self.select_line && line < self.select_line + self.select_lines;
        is_inside.then(|| (line - self.select_line + 1, column))
    }
}

/// Our text, a user's SELECT on lines of its own, our text again. `prefix` and `suffix` are made of [`quote_identifier`],
/// [`string_literal`] and words that stand in the code; either may be empty. No `;` anywhere.
pub fn join(dialect: &Dialect, prefix: &str, select: &Select, suffix: &str) -> Result<Composed, ComposeError> {
    let mut expected = part(dialect, prefix, "our text before the SELECT")?;
    let users = part(dialect, &select.sql, "the SELECT")?;
    let behind = part(dialect, suffix, "our text behind the SELECT")?;
    closed(&users, "the SELECT")?;
    closed(&[&expected[..], &behind[..]].concat(), "our text around the SELECT")?;
    if !users.first().is_some_and(|first| dialect.query_words.iter().any(|word| first.is_word(word))) {
        return Err(ComposeError::Skeleton("the SELECT does not begin with SELECT".to_owned()));
    }
    expected.extend(users);
    expected.extend(behind);

    let before = if prefix.is_empty() { String::new() } else { format!("{prefix}\n") };
    let text = format!("{before}{}\n{suffix}", select.sql);
    let composed = part(dialect, &text, "the statement")?;
    let is_same = |(one, other): (&Token, &Token)| (one.kind, one.text) == (other.kind, other.text);
    if composed.len() != expected.len() || !composed.iter().zip(&expected).all(is_same) {
        return Err(ComposeError::Skeleton("its parts are read differently when they are joined".to_owned()));
    }
    let (select_line, select_lines) = (lines(&before), lines(&select.sql));
    Ok(Composed { select_line, select_lines, text })
}

/// A statement of ours alone, made of the same pieces; a `;` at its end is fine. It is given back as it came.
pub fn statement(dialect: &Dialect, text: &str) -> Result<String, ComposeError> {
    let body = text.trim_end().strip_suffix(';').unwrap_or(text);
    let tokens = part(dialect, body, "the statement")?;
    closed(&tokens, "the statement")?;
    if tokens.is_empty() {
        return Err(ComposeError::Skeleton("it is empty".to_owned()));
    }
    Ok(text.to_owned())
}

/// Whether two texts are the same to an engine: it writes what it runs in its own way, with other spaces and letters.
pub fn same_statement(dialect: &Dialect, one: &str, other: &str) -> bool {
    let words = |text: &str| -> Option<Vec<String>> {
        let tokens = lex(text, dialect).ok()?;
        let code = tokens.iter().filter(|token| token.is_code() && !token.is_symbol(";"));
        Some(code.map(|token| dialect.folded(token)).collect())
    };
    words(one).is_some_and(|one| words(other) == Some(one))
}

/// The tokens of a part, which holds neither a comment nor a `;`.
fn part<'a>(dialect: &Dialect, text: &'a str, what: &str) -> Result<Vec<Token<'a>>, ComposeError> {
    let tokens = lex(text, dialect)?;
    if tokens.iter().any(|token| token.kind == TokenKind::Comment) {
        return Err(ComposeError::Skeleton(format!("{what} holds a comment")));
    }
    if tokens.iter().any(|token| token.is_symbol(";")) {
        return Err(ComposeError::Skeleton(format!("{what} holds a `;`")));
    }
    Ok(tokens.into_iter().filter(Token::is_code).collect())
}

/// Brackets that are opened are closed, and the other way round.
fn closed(tokens: &[Token], what: &str) -> Result<(), ComposeError> {
    match super::brackets::deepest(tokens) {
        Ok(_) => Ok(()),
        Err(fault) => Err(ComposeError::Skeleton(format!("{what}: {}", fault.message))),
    }
}

/// On which line a text goes on that follows this one; for a text without a line end at its end also how many it has.
fn lines(text: &str) -> u32 {
    1 + u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX - 1)
}
