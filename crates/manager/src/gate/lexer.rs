//! Text into tokens, without loss: the tokens' texts, one after the other, are the text. What no engine should ever see is
//! refused here, by its position; what the tokens mean is left to others.
//!
//! The engines' own lexers differ (nested comments, `//`, `E'\''`, `"…"`). Two rules make that harmless: what they read
//! differently is refused, and comments are never sent.

use super::{Dialect, Fault};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Letters, digits and `_`, not beginning with a digit: a keyword or a name.
    Word,
    /// A name in backticks or, where the dialect has them, in double quotes.
    Quoted,
    /// `'…'`.
    Text,
    /// Digits, with point and exponent.
    Number,
    /// An operator, a bracket, a comma, `;`.
    Symbol,
    /// Spaces, tabs and line ends.
    Space,
    /// `-- …` up to the line's end, or `/* … */`.
    Comment,
}

/// A piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: TokenKind,
    /// As it is written.
    pub text: &'a str,
    /// Line of its first character, from 1.
    pub line: u32,
    /// Column of its first character in characters, from 1.
    pub column: u32,
}

impl Token<'_> {
    /// Whether it is this keyword, which is given in upper case.
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }

    /// Whether it is this operator or mark.
    pub fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == TokenKind::Symbol && self.text == symbol
    }

    /// Whether engines read it: neither space nor comment.
    pub fn is_code(&self) -> bool {
        !matches!(self.kind, TokenKind::Space | TokenKind::Comment)
    }

    /// The name that it writes: quotes are taken off, doubled ones are one.
    pub fn name(&self) -> String {
        match self.kind {
            TokenKind::Quoted => {
                let quote = &self.text[..1];
                self.text[1..self.text.len() - 1].replace(&quote.repeat(2), quote)
            }
            _ => self.text.to_owned(),
        }
    }
}

/// Operators of two characters. No engine here has one of three.
const PAIRS: [&str; 8] = ["->", "=>", ":=", "<>", "<=", ">=", "!=", "||"];

/// Marks that stand alone.
const MARKS: &str = "()[],.;*+-/%=<>|:";

/// All tokens of a text.
pub fn lex<'a>(text: &'a str, dialect: &Dialect) -> Result<Vec<Token<'a>>, Fault> {
    let mut lexer = Lexer { rest: text, line: 1, column: 1, dialect };
    let mut tokens = Vec::new();
    while !lexer.rest.is_empty() {
        tokens.push(lexer.token()?);
    }
    Ok(tokens)
}

struct Lexer<'a, 'd> {
    rest: &'a str,
    line: u32,
    column: u32,
    dialect: &'d Dialect,
}

impl<'a> Lexer<'a, '_> {
    fn token(&mut self) -> Result<Token<'a>, Fault> {
        let first = self.rest.chars().next().unwrap_or_default();
        let (kind, length) = match first {
            ' ' | '\t' | '\n' | '\r' => (TokenKind::Space, self.space()?),
            '\'' => (TokenKind::Text, self.quoted('\'')?),
            '`' if self.dialect.backticks => (TokenKind::Quoted, self.quoted('`')?),
            '"' if self.dialect.double_quotes => (TokenKind::Quoted, self.quoted('"')?),
            '-' if self.rest.starts_with("--") => (TokenKind::Comment, self.line_comment()?),
            '/' if self.rest.starts_with("/*") => (TokenKind::Comment, self.block_comment()?),
            'a'..='z' | 'A'..='Z' | '_' => (TokenKind::Word, self.word()?),
            '0'..='9' => (TokenKind::Number, self.number()?),
            '.' if self.rest[1..].starts_with(|next: char| next.is_ascii_digit()) => {
                (TokenKind::Number, self.number()?)
            }
            _ => (TokenKind::Symbol, self.symbol(first)?),
        };
        let token = Token { kind, text: &self.rest[..length], line: self.line, column: self.column };
        self.pass(length);
        Ok(token)
    }

    /// Steps over so many bytes.
    fn pass(&mut self, length: usize) {
        for letter in self.rest[..length].chars() {
            if letter == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = &self.rest[length..];
    }

    fn fault(&self, code: &'static str, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into(), line: self.line, column: self.column }
    }

    /// A fault at the character that begins after so many bytes.
    fn fault_at(&mut self, length: usize, code: &'static str, message: impl Into<String>) -> Fault {
        self.pass(length);
        self.fault(code, message)
    }

    fn space(&mut self) -> Result<usize, Fault> {
        let length = self.rest.find(|letter| !matches!(letter, ' ' | '\t' | '\n' | '\r')).unwrap_or(self.rest.len());
        self.no_lone_return(length)?;
        Ok(length)
    }

    /// Some readers end a line at a carriage return alone, others do not: what they see would differ.
    fn no_lone_return(&mut self, length: usize) -> Result<(), Fault> {
        for (at, _) in self.rest[..length].match_indices('\r') {
            if !self.rest[at + 1..].starts_with('\n') {
                return Err(self.fault_at(at, "control_character", LONE_RETURN));
            }
        }
        Ok(())
    }

    /// `'…'`, `` `…` `` or `"…"`, in which the doubled quote stands for one.
    fn quoted(&mut self, quote: char) -> Result<usize, Fault> {
        let mut letters = self.rest.char_indices().skip(1).peekable();
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                if letters.peek().is_some_and(|(_, next)| *next == quote) {
                    letters.next();
                    continue;
                }
                if at == 1 && quote != '\'' {
                    return Err(self.fault(
                        "empty_name",
                        format!("a name in {quote} is empty: write one, or leave the quotes out"),
                    ));
                }
                return Ok(at + 1);
            }
            if matches!(letter, '\n' | '\r') {
                return Err(self.fault(
                    "unterminated",
                    format!("{quote} is not closed on its line: close it (a line end inside quotes is not taken)"),
                ));
            }
            if letter == '$' && self.rest[at + 1..].starts_with('{') {
                return Err(self.fault_at(at, "variable", VARIABLE));
            }
            if let Some(message) = unfit(letter) {
                return Err(self.fault_at(at, "control_character", message));
            }
        }
        Err(self.fault("unterminated", format!("{quote} is not closed: close it")))
    }

    fn line_comment(&mut self) -> Result<usize, Fault> {
        let length = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
        self.plain_comment(length)?;
        Ok(length)
    }

    fn block_comment(&mut self) -> Result<usize, Fault> {
        if self.rest.starts_with("/*+") {
            return Err(self.fault(
                "hint",
                "`/*+` begins a hint, which could change what a table is: leave it out, or put a space before the `+` of a comment",
            ));
        }
        let Some(end) = self.rest[2..].find("*/") else {
            return Err(self.fault("unterminated", "`/*` is not closed: close it with `*/`"));
        };
        let length = end + 4;
        self.plain_comment(length)?;
        Ok(length)
    }

    /// A comment is not sent, but people read it: nothing in it may turn round what they see.
    fn plain_comment(&mut self, length: usize) -> Result<(), Fault> {
        self.no_lone_return(length)?;
        for (at, letter) in self.rest[..length].char_indices() {
            if let Some(message) = unfit(letter).filter(|_| !matches!(letter, '\n' | '\r' | '\t')) {
                return Err(self.fault_at(at, "control_character", message));
            }
        }
        Ok(())
    }

    fn word(&mut self) -> Result<usize, Fault> {
        let length =
            self.rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(self.rest.len());
        if self.rest[length..].starts_with('\'') {
            let word = &self.rest[..length];
            return Err(self.fault(
                "string_prefix",
                format!("`{word}'` is read as another kind of text by some engines (`E'\\''`): put a space between `{word}` and the quote"),
            ));
        }
        Ok(length)
    }

    fn number(&mut self) -> Result<usize, Fault> {
        let digits = |from: usize| {
            self.rest[from..]
                .find(|letter: char| !letter.is_ascii_digit())
                .map_or(self.rest.len(), |found| from + found)
        };
        let mut length = digits(0);
        if self.rest[length..].starts_with('.') {
            length = digits(length + 1);
        }
        if self.rest[length..].starts_with(['e', 'E']) {
            let sign = usize::from(self.rest[length + 1..].starts_with(['+', '-']));
            let end = digits(length + 1 + sign);
            if end > length + 1 + sign {
                length = end;
            }
        }
        if self.rest[length..].starts_with(|next: char| next.is_alphanumeric() || next == '_' || next == '\'') {
            let number = &self.rest[..length];
            return Err(self.fault(
                "number_with_letters",
                format!("`{number}` runs into what follows: put a space behind the number, or quote a name that begins with a digit"),
            ));
        }
        Ok(length)
    }

    fn symbol(&mut self, first: char) -> Result<usize, Fault> {
        if self.rest.starts_with("${") {
            return Err(self.fault("variable", VARIABLE));
        }
        if self.rest.starts_with("//") {
            return Err(self.fault(
                "slash_comment",
                "`//` begins a comment in some engines and divides in none: write `--` for a comment",
            ));
        }
        // `SELECT */* all */ FROM` is a star and a comment.
        if self.rest.starts_with("*/") && !self.rest.starts_with("*/*") {
            return Err(self
                .fault("stray_comment_end", "`*/` closes no comment: comments do not nest, the first `*/` ends them"));
        }
        if PAIRS.iter().any(|pair| self.rest.starts_with(pair)) {
            return Ok(2);
        }
        if MARKS.contains(first) || self.dialect.marks.contains(first) {
            return Ok(1);
        }
        Err(self.stranger(first))
    }

    fn stranger(&self, letter: char) -> Fault {
        if letter == '"' {
            return self.fault(
                "double_quotes",
                format!(
                    "{} has no names in double quotes: write `name` in backticks, or 'text' in single quotes",
                    self.dialect.name
                ),
            );
        }
        if letter == '`' {
            return self.fault(
                "backticks",
                format!("{} has no names in backticks: write \"name\" in double quotes", self.dialect.name),
            );
        }
        if let Some(message) = unfit(letter) {
            return self.fault("control_character", message);
        }
        if letter.is_ascii() {
            return self.fault(
                "unexpected_character",
                format!("`{letter}` has no place in a SELECT here: take it out, or quote the name that holds it in backticks"),
            );
        }
        let like = match letter {
            '\u{ff1b}' | '\u{37e}' | '\u{61b}' => " (it only looks like a semicolon)",
            '\u{2018}' | '\u{2019}' | '\u{ff07}' | '\u{2bc}' => " (it only looks like a quote)",
            _ if letter.is_whitespace() => " (it only looks like a space)",
            _ => "",
        };
        self.fault(
            "not_ascii",
            format!(
                "U+{:04X}{like} stands outside quotes, where only plain ASCII may stand: replace it, or quote the name in {}",
                u32::from(letter),
                self.dialect.quotes()
            ),
        )
    }
}

const VARIABLE: &str = "`${` would be replaced by an engine's variable: write the value itself";

const LONE_RETURN: &str =
    "a carriage return without a line feed ends a line for some engines only: use line feeds as line ends";

/// Why a character may stand nowhere, not even inside quotes.
fn unfit(letter: char) -> Option<String> {
    let what = match letter {
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => "a control character",
        '\u{2028}' | '\u{2029}' => "a line end to some readers only",
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "turns the direction of what people read"
        }
        '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => "invisible",
        _ => return None,
    };
    Some(format!("U+{:04X} is {what}: take it out", u32::from(letter)).replace("is turns", "turns"))
}
