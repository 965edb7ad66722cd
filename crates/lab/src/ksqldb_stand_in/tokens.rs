//! Cuts text into tokens and statements. Knows words, quotes and comments, not what they mean.

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A word without quotes, folded to upper case.
    Word(String),
    /// A name in backticks, as it is.
    Name(String),
    /// What stands between single quotes.
    Text(String),
    /// A number, as it is written.
    Number(String),
    /// Anything else.
    Mark(&'static str),
}

/// A token and where it begins.
#[derive(Debug, Clone)]
pub struct Placed {
    /// What.
    pub token: Token,
    /// Its line, from 1.
    pub line: usize,
    /// Its column, from 1.
    pub column: usize,
}

/// One statement.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Its text with the `;`.
    pub text: String,
    /// Its tokens without the `;`.
    pub tokens: Vec<Placed>,
    /// Where it ends: line and column.
    pub end: (usize, usize),
    /// Whether it has its `;`.
    pub closed: bool,
}

const MARKS: [&str; 22] = [
    "->", "=>", "<=", ">=", "<>", "!=", "||", "(", ")", ",", ".", "*", "/", "+", "-", "<", ">", "=", "%", "[", "]", ":",
];

/// What is no token, and where: line, column, the words after it.
pub type NoToken = (usize, usize, String);

/// The statements of a text, in order.
///
/// # Errors
/// Where something is no token.
pub fn statements(text: &str) -> Result<Vec<Piece>, NoToken> {
    let mut pieces = Vec::new();
    let mut reader = Reader { text, at: 0, line: 1, column: 1 };
    let (mut tokens, mut begun) = (Vec::new(), 0);
    loop {
        reader.skip_blanks()?;
        let end = (reader.line, reader.column);
        let closed = reader.rest().starts_with(';');
        if closed || reader.rest().is_empty() {
            if closed {
                reader.step(1);
            }
            let text = text[begun..reader.at].trim().to_owned();
            begun = reader.at;
            if !tokens.is_empty() || closed {
                pieces.push(Piece { text, tokens: std::mem::take(&mut tokens), end, closed });
            }
            if !closed {
                return Ok(pieces);
            }
            continue;
        }
        tokens.push(reader.token()?);
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
    column: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn step(&mut self, bytes: usize) {
        for letter in self.text[self.at..self.at + bytes].chars() {
            (self.line, self.column) = if letter == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.at += bytes;
    }

    fn skip_blanks(&mut self) -> Result<(), NoToken> {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            if blank > 0 {
                self.step(blank);
            } else if rest.starts_with("--") {
                let length = rest.find('\n').unwrap_or(rest.len());
                self.step(length);
            } else if rest.starts_with("/*") {
                let length = rest.find("*/").map(|end| end + 2);
                let length = length.ok_or_else(|| (self.line, self.column, "an open comment".to_owned()))?;
                self.step(length);
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Placed, NoToken> {
        let (line, column) = (self.line, self.column);
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or_default();
        let token = if first == '\'' || first == '`' || first == '"' {
            let (inside, length) = quoted(rest, first).ok_or_else(|| (line, column, "an open quote".to_owned()))?;
            self.step(length);
            if first == '\'' { Token::Text(inside) } else { Token::Name(inside) }
        } else if first.is_ascii_digit() {
            let length = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
            let number = rest[..length].to_owned();
            self.step(length);
            Token::Number(number)
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
            let word = rest[..length].to_uppercase();
            self.step(length);
            Token::Word(word)
        } else {
            let mark = MARKS.iter().find(|mark| rest.starts_with(**mark));
            let mark = mark.ok_or_else(|| (line, column, format!("'{first}'")))?;
            self.step(mark.len());
            Token::Mark(mark)
        };
        Ok(Placed { token, line, column })
    }
}

/// What is between quotes, a doubled one being one, and how many bytes it takes with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inside = String::new();
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter != quote {
            inside.push(letter);
        } else if letters.peek().is_some_and(|(_, next)| *next == quote) {
            inside.push(quote);
            letters.next();
        } else {
            return Some((inside, at + quote.len_utf8()));
        }
    }
    None
}
