//! Tokens of a statement, names and texts in quotes, and a SELECT joined to our own text. What the gate has let through is
//! read here again, and what cannot be quoted or joined safely is refused.

use crate::engines::{Refusal, Select, Trouble};

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
    /// Of this text; refused if a quote or comment is left open.
    pub fn of(text: &str) -> Result<Tokens, Trouble> {
        let mut rest = text;
        let mut tokens = Vec::new();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '\'' | '`' => {
                    let length = quoted(rest, first).ok_or_else(|| unfit("a quote in it is not closed"))?;
                    let inside = &rest[1..length - 1];
                    tokens.push(match first {
                        '`' => Token::Name(inside.replace("``", "`")),
                        _ => Token::Literal(rest[..length].to_owned()),
                    });
                    length
                }
                '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => {
                    rest.find("*/").map(|end| end + 2).ok_or_else(|| unfit("a comment in it is not closed"))?
                }
                _ if first.is_ascii_digit() => {
                    let length = span(rest, |letter| letter.is_ascii_alphanumeric() || letter == '.');
                    tokens.push(Token::Literal(rest[..length].to_owned()));
                    length
                }
                _ if first.is_alphabetic() || first == '_' => {
                    let length = span(rest, |letter| letter.is_alphanumeric() || letter == '_');
                    tokens.push(Token::Word(rest[..length].to_owned()));
                    length
                }
                _ => {
                    if !first.is_whitespace() {
                        tokens.push(Token::Mark(first));
                    }
                    first.len_utf8()
                }
            };
            rest = &rest[length..];
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

fn span(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|letter| !belongs(letter)).unwrap_or(text.len())
}

/// The length of a text in quotes, doubled ones inside.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == quote && letters.next_if(|(_, next)| *next == quote).is_none() {
            return Some(at + 1);
        }
    }
    None
}

/// A name in backticks, whatever it holds.
pub(super) fn quote_identifier(name: &str) -> Result<String, Trouble> {
    if name.is_empty() { Err(unfit("a name is empty")) } else { in_quotes(name, '`') }
}

/// A text in single quotes.
pub(super) fn string_literal(text: &str) -> Result<String, Trouble> {
    in_quotes(text, '\'')
}

fn in_quotes(text: &str, quote: char) -> Result<String, Trouble> {
    if text.chars().any(char::is_control) || text.contains("${") {
        return Err(unfit(&format!("{text:?} holds a control character or `${{`, and cannot be quoted")));
    }
    Ok(format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}"))))
}

/// A statement with a user's SELECT in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joined {
    /// What is sent.
    pub text: String,
    /// How many lines of ours stand before the SELECT.
    lines_before: u32,
}

impl Joined {
    /// A refusal by the position in what was sent as one by the position in the SELECT; without one if it is in our text.
    pub fn in_select(&self, mut refusal: Refusal) -> Refusal {
        refusal.line = refusal.line.and_then(|line| line.checked_sub(self.lines_before)).filter(|line| *line > 0);
        refusal.column = refusal.column.filter(|_| refusal.line.is_some());
        refusal
    }

    /// The same for any trouble.
    pub fn trouble_in_select(&self, trouble: Trouble) -> Trouble {
        match trouble {
            Trouble::Refused(refusal) => Trouble::Refused(self.in_select(refusal)),
            other => other,
        }
    }
}

/// Our text, and a user's SELECT behind it on lines of its own: a comment at the end of one cannot swallow the other.
pub(super) fn join(prefix: &str, select: &Select) -> Result<Joined, Trouble> {
    if Tokens::of(&select.sql)?.0.contains(&Token::Mark(';')) {
        return Err(unfit("it holds a `;`"));
    }
    if prefix.is_empty() {
        return Ok(Joined { text: format!("{}\n", select.sql), lines_before: 0 });
    }
    let lines_before = u32::try_from(prefix.lines().count()).unwrap_or(u32::MAX);
    Ok(Joined { text: format!("{prefix}\n{}\n", select.sql), lines_before })
}

fn unfit(why: &str) -> Trouble {
    let message = format!("the statement cannot be sent: {why}");
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
        let at = |line, column| Refusal {
            code: "x".to_owned(),
            message: String::new(),
            line: Some(line),
            column: Some(column),
        };
        assert_eq!(joined.in_select(at(3, 6)), at(2, 6));
        assert_eq!(joined.in_select(at(1, 6)).column, None);
        assert!(join("", &Select { sql: "SELECT 1; DROP TABLE x".to_owned(), sources: Vec::new() }).is_err());
    }
}
