//! Statements are put together by the gate's composers and read by its lexer. What they refuse here is no fault of the
//! user's text, which has passed the gate: it is refused all the same.

use crate::engines::{EngineKind, Refusal, Select, Trouble};
use crate::gate::Dialect;
use crate::gate::compose::{self, ComposeError, Composed};
use crate::gate::lexer::{TokenKind, lex};

/// A piece of a statement, without spaces and comments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword or a name without quotes, as it is written.
    Word(String),
    /// A name in backticks, without them.
    Name(String),
    /// A text or a number, as it is written.
    Literal(String),
    /// Anything else: one character.
    Mark(char),
}

impl Token {
    /// Whether it is this keyword, which is given in upper case.
    pub fn is_word(&self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

/// The tokens of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens(pub Vec<Token>);

impl Tokens {
    /// Of this text.
    pub fn of(text: &str) -> Result<Tokens, Trouble> {
        let mut tokens = Vec::new();
        for token in lex(text, dialect()).map_err(|fault| unfit(ComposeError::from(fault)))? {
            match token.kind {
                TokenKind::Word => tokens.push(Token::Word(token.text.to_owned())),
                TokenKind::Quoted => tokens.push(Token::Name(token.name())),
                TokenKind::Text | TokenKind::Number => tokens.push(Token::Literal(token.text.to_owned())),
                TokenKind::Symbol => tokens.extend(token.text.chars().map(Token::Mark)),
                TokenKind::Space | TokenKind::Comment => {}
            }
        }
        Ok(Tokens(tokens))
    }

    /// All words and names.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().filter_map(|token| match token {
            Token::Word(name) | Token::Name(name) => Some(name.clone()),
            _ => None,
        })
    }
}

/// Flink's, to the gate.
pub(super) fn dialect() -> &'static Dialect {
    Dialect::of(EngineKind::Flink)
}

/// A name in backticks, whatever it holds.
pub(super) fn quote_identifier(name: &str) -> Result<String, Trouble> {
    compose::quote_identifier(name).map_err(unfit)
}

/// A text in single quotes.
pub(super) fn string_literal(text: &str) -> Result<String, Trouble> {
    compose::string_literal(text).map_err(unfit)
}

/// A statement of ours alone.
pub(super) fn statement(text: &str) -> Result<String, Trouble> {
    compose::statement(dialect(), text).map_err(unfit)
}

/// A statement with a user's SELECT in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joined(Composed);

impl Joined {
    /// What is sent.
    pub fn text(&self) -> &str {
        self.0.text()
    }

    /// Trouble with a position in what was sent as one with the position in the SELECT; without one if it is in our text.
    pub fn trouble_in_select(&self, trouble: Trouble) -> Trouble {
        let Trouble::Refused(refusal) = trouble else { return trouble };
        let position =
            refusal.line.zip(refusal.column).and_then(|(line, column)| self.0.position_in_select(line, column));
        let (line, column) = position.unzip();
        Trouble::Refused(Refusal { line, column, ..refusal })
    }
}

/// Our text, and a user's SELECT behind it on lines of its own.
pub(super) fn join(prefix: &str, select: &Select) -> Result<Joined, Trouble> {
    compose::join(dialect(), prefix, select, "").map(Joined).map_err(unfit)
}

/// A statement that the composers refuse.
pub(super) fn unfit(error: ComposeError) -> Trouble {
    let message = format!("the statement cannot be sent: {error}");
    Trouble::Refused(Refusal { code: "unfit_statement".to_owned(), message, line: None, column: None })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_come_back_as_they_were() {
        for text in ["orders", "odd `na;me -- x", "it's"] {
            assert_eq!(Tokens::of(&quote_identifier(text).unwrap()).unwrap().0, [Token::Name(text.to_owned())]);
            let literal = string_literal(text).unwrap();
            assert_eq!(Tokens::of(&literal).unwrap().0, [Token::Literal(literal)]);
        }
        for text in ["a\nb", "${x}"] {
            assert!(string_literal(text).is_err() && quote_identifier(text).is_err());
        }
    }

    #[test]
    fn positions_lead_back_to_the_users_text() {
        let select = Select { sql: "SELECT a\nFROM b".to_owned(), sources: Vec::new() };
        let joined = join("CREATE VIEW x AS", &select).unwrap();
        let at =
            |line, column| Trouble::Refused(Refusal { code: "x".to_owned(), message: String::new(), line, column });
        assert_eq!(joined.trouble_in_select(at(Some(3), Some(6))), at(Some(2), Some(6)));
        assert_eq!(joined.trouble_in_select(at(Some(1), Some(6))), at(None, None));
        assert!(join("", &Select { sql: "SELECT 1; DROP TABLE x".to_owned(), sources: Vec::new() }).is_err());
    }
}
