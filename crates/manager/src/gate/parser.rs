//! What both dialects' queries are read with: a cursor over code tokens, expressions as balanced tokens, and what is found on
//! the way. Expressions are not understood, only kept in: no clause, no source and no unknown function can hide in one.

use std::ops::Range;

use super::functions::{Verdict, verdict};
use super::lexer::{Token, TokenKind};
use super::looks::shown;
use super::{Clause, Dialect, Fault, Kind};
use crate::settings::Limits;

pub(super) type Parse<T> = Result<T, Fault>;

/// What a query holds, as indices of its code tokens.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) sources: Vec<SourceUse>,
    /// Names of common table expressions.
    pub(super) ctes: Vec<usize>,
    /// Before which token `EMIT CHANGES` is put.
    pub(super) emit_before: Option<usize>,
    pub(super) clauses: Vec<(Clause, Range<usize>)>,
}

/// A name behind FROM, JOIN or TABLE.
#[derive(Debug)]
pub(super) struct SourceUse {
    pub(super) name: usize,
    /// Behind which token an alias is put, if the name changes its spelling; `None` where the user gave one, or none may stand.
    pub(super) alias_after: Option<usize>,
}

pub(super) struct Parser<'a> {
    code: &'a [Token<'a>],
    pub(super) at: usize,
    pub(super) dialect: &'static Dialect,
    limits: &'a Limits,
    pub(super) found: Query,
    /// Common table expressions in sight.
    pub(super) ctes: Vec<String>,
    /// In how many brackets the query is that is being read.
    pub(super) nesting: usize,
    joins: usize,
    windows: usize,
    /// Windows as they were written, where the same one may be written again.
    window_texts: Vec<String>,
}

/// Reads the whole code of one statement.
pub(super) fn parse<'a>(
    code: &'a [Token<'a>],
    dialect: &'static Dialect,
    kind: Kind,
    limits: &'a Limits,
) -> Parse<Query> {
    let mut parser = Parser {
        code,
        at: 0,
        dialect,
        limits,
        found: Query::default(),
        ctes: Vec::new(),
        nesting: 0,
        joins: 0,
        windows: 0,
        window_texts: Vec::new(),
    };
    (dialect.query)(&mut parser, kind)?;
    match parser.peek(0) {
        Some(token) => Err(parser.unexpected(token)),
        None if parser.found.sources.is_empty() => {
            Err(parser.fault("no_source", "the SELECT reads no source: name one of the catalogue behind FROM"))
        }
        None => Ok(parser.found),
    }
}

/// What a bracket is opened by, as far as that allows words in it which are out of place elsewhere.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Inside {
    /// Nothing special.
    Plain,
    /// One FROM that names no source: `EXTRACT(YEAR FROM ts)`.
    FromCall,
    /// `FILTER (WHERE …)`.
    Filter,
    /// A function over tables: `TUMBLE(TABLE orders, …)`.
    TableCall,
}

impl<'a> Parser<'a> {
    /// The token so many places on.
    pub(super) fn peek(&self, along: usize) -> Option<&'a Token<'a>> {
        self.code.get(self.at + along)
    }

    pub(super) fn is_word(&self, along: usize, word: &str) -> bool {
        self.peek(along).is_some_and(|token| token.is_word(word))
    }

    pub(super) fn is_symbol(&self, along: usize, symbol: &str) -> bool {
        self.peek(along).is_some_and(|token| token.is_symbol(symbol))
    }

    pub(super) fn is_any_word(&self, along: usize, words: &[&str]) -> bool {
        self.peek(along).is_some_and(|token| words.iter().any(|word| token.is_word(word)))
    }

    /// Steps over the word if it is there.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let is_there = self.is_word(0, word);
        self.at += usize::from(is_there);
        is_there
    }

    pub(super) fn take_symbol(&mut self, symbol: &str) -> bool {
        let is_there = self.is_symbol(0, symbol);
        self.at += usize::from(is_there);
        is_there
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Parse<()> {
        if self.take_word(word) { Ok(()) } else { Err(self.missing(&format!("`{word}`"))) }
    }

    pub(super) fn expect_symbol(&mut self, symbol: &str) -> Parse<()> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.missing(&format!("`{symbol}`"))) }
    }

    /// A whole number.
    pub(super) fn expect_count(&mut self) -> Parse<()> {
        let is_count = self.peek(0).is_some_and(|token| token.text.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_count {
            return Err(self.missing("a whole number"));
        }
        self.at += 1;
        Ok(())
    }

    /// A fault at the next token, or behind the last one.
    pub(super) fn fault(&self, code: &'static str, message: impl Into<String>) -> Fault {
        match (self.peek(0), self.code.last()) {
            (Some(token), _) => Fault::at(token, code, message),
            (None, Some(last)) => {
                let width = u32::try_from(last.text.chars().count()).unwrap_or(u32::MAX);
                Fault { column: last.column.saturating_add(width), ..Fault::at(last, code, message) }
            }
            (None, None) => Fault { code, message: message.into(), line: 1, column: 1 },
        }
    }

    pub(super) fn unexpected(&self, token: &Token) -> Fault {
        let or_quote = if token.kind == TokenKind::Word { ", or quote it if it is a name" } else { "" };
        let name = self.dialect.name;
        let message = format!("`{}` is out of place here in a SELECT of {name}: take it out{or_quote}", shown(token));
        Fault::at(token, "unexpected_word", message)
    }

    pub(super) fn missing(&self, what: &str) -> Fault {
        match self.peek(0) {
            Some(token) => self.fault("unexpected_word", format!("{what} is expected where `{}` stands", shown(token))),
            None => {
                self.fault("incomplete", format!("the statement ends where {what} is expected: write it to its end"))
            }
        }
    }

    /// Notes a clause of the outermost SELECT that began there and ends here.
    pub(super) fn note(&mut self, clause: Clause, from: usize) {
        let is_new = !self.found.clauses.iter().any(|(each, _)| *each == clause);
        if self.nesting == 0 && is_new && from < self.at {
            self.found.clauses.push((clause, from..self.at));
        }
    }

    /// Counts a JOIN (or a comma that is one).
    pub(super) fn count_join(&mut self, at: usize) -> Parse<()> {
        self.joins += 1;
        let most = self.limits.joins;
        if self.joins <= most {
            return Ok(());
        }
        let message = format!("join {} is one too many, at most {most} are taken: split the query", self.joins);
        Err(Fault::at(&self.code[at], "too_many_joins", message))
    }

    /// Counts a window.
    pub(super) fn count_window(&mut self, at: usize) -> Parse<()> {
        self.windows += 1;
        let most = self.limits.windows;
        if self.windows <= most {
            return Ok(());
        }
        let message = format!("window {} is one too many, at most {most} are taken: split the query", self.windows);
        Err(Fault::at(&self.code[at], "too_many_windows", message))
    }

    /// Whether the window that is called at the next token was written before; it is noted.
    fn is_repeated_window(&mut self) -> bool {
        if !self.dialect.repeats_windows {
            return false;
        }
        let mut depth = 0_usize;
        let call = self.code[self.at..].iter().take_while(|token| {
            let was_inside = depth > 0 || !token.is_symbol(")");
            depth += usize::from(token.is_symbol("("));
            depth = depth.saturating_sub(usize::from(token.is_symbol(")")));
            was_inside && (depth > 0 || !token.is_symbol(")"))
        });
        let words: Vec<String> = call.map(|token| token.text.to_ascii_lowercase()).collect();
        let text = words.join(" ");
        let is_known = self.window_texts.contains(&text);
        if !is_known {
            self.window_texts.push(text);
        }
        is_known
    }

    /// The name of a source at the next token.
    pub(super) fn source_name(&mut self) -> Parse<usize> {
        let name = self.name("the name of a source")?;
        if self.is_symbol(0, ".") {
            let message = "names of other catalogs and databases can't be read: name a source of the catalogue alone";
            return Err(Fault::at(&self.code[name], "other_catalog", message));
        }
        Ok(name)
    }

    /// A name, in quotes or none of the words of clauses.
    pub(super) fn name(&mut self, what: &str) -> Parse<usize> {
        let is_name = self.peek(0).is_some_and(|token| match token.kind {
            TokenKind::Quoted => true,
            TokenKind::Word => !self.is_clause_word(0),
            _ => false,
        });
        if !is_name {
            return Err(self.missing(what));
        }
        self.at += 1;
        Ok(self.at - 1)
    }

    /// Whether an alias may be read there without AS.
    pub(super) fn is_bare_alias(&self) -> bool {
        self.peek(0).is_some_and(|token| match token.kind {
            TokenKind::Quoted => true,
            TokenKind::Word => !self.is_clause_word(0) && !self.is_any_word(0, &["AS", "ON", "FOR", "USING", "WITHIN"]),
            _ => false,
        })
    }

    /// Whether the token so many places on is a keyword of clauses there, and not the name that it could be too.
    pub(super) fn is_clause_word(&self, along: usize) -> bool {
        self.is_any_word(along, self.dialect.clause_words) && self.is_keyword(along)
    }

    /// Keywords that are ones only with what stands around them.
    fn is_keyword(&self, along: usize) -> bool {
        let Some(token) = self.peek(along) else { return false };
        let before =
            |back: usize, word: &str| (self.at + along).checked_sub(back).is_some_and(|at| self.code[at].is_word(word));
        match token.text.to_ascii_uppercase().as_str() {
            "PARTITION" => self.is_word(along + 1, "BY"),
            "EMIT" => self.is_any_word(along + 1, &["CHANGES", "FINAL"]),
            "GROUP" => !(before(1, "WITHIN") && self.is_symbol(along + 1, "(")),
            "LEFT" | "RIGHT" => !self.is_symbol(along + 1, "("),
            // `a IS [NOT] DISTINCT FROM b` names no source.
            "FROM" => !(before(1, "DISTINCT") && (before(2, "IS") || before(2, "NOT") && before(3, "IS"))),
            _ => true,
        }
    }

    /// An expression, or several with commas, up to a word of one of the lists `stops`, a comma if that is in one of them, or the
    /// bracket's end. It is never empty.
    pub(super) fn expression(&mut self, stops: &[&[&str]]) -> Parse<()> {
        let start = self.at;
        while let Some(token) = self.peek(0) {
            let is_stop = stops.iter().any(|words| {
                self.is_any_word(0, words) && self.is_keyword(0) || words.contains(&",") && token.is_symbol(",")
            });
            if is_stop || token.is_symbol(")") || token.is_symbol("]") {
                break;
            }
            self.piece(Inside::Plain, false)?;
        }
        if self.at == start { Err(self.missing("an expression")) } else { Ok(()) }
    }

    /// One token of an expression, or a whole bracket.
    fn piece(&mut self, inside: Inside, in_bracket: bool) -> Parse<()> {
        let Some(token) = self.peek(0) else { return Ok(()) };
        if token.is_symbol("(") || token.is_symbol("[") {
            return self.bracket(self.opened_by());
        }
        let calls = self.is_symbol(1, "(");
        match token.kind {
            TokenKind::Quoted if calls => {
                return Err(
                    self.fault("unknown_function", "a name in quotes can't be called: write the function without them")
                );
            }
            TokenKind::Word if calls => self.call(token)?,
            _ => {}
        }
        if self.is_clause_word(0) && !self.is_at_home(inside, in_bracket) {
            if self.dialect.subquery.is_none() && token.is_word("SELECT") {
                return Err(self.no_subquery());
            }
            return Err(self.unexpected(token));
        }
        self.at += 1;
        Ok(())
    }

    /// Whether a clause's word belongs into this bracket.
    fn is_at_home(&self, inside: Inside, in_bracket: bool) -> bool {
        let is_first = self.at > 0 && self.code[self.at - 1].is_symbol("(");
        let is_after = |word: &str| self.at > 0 && self.code[self.at - 1].is_word(word);
        if !in_bracket {
            return false;
        }
        match self.peek(0).map(|token| token.text.to_ascii_uppercase()).unwrap_or_default().as_str() {
            "FROM" => inside == Inside::FromCall,
            "WHERE" => self.dialect.bracket_clauses.contains(&"WHERE") && inside == Inside::Filter && is_first,
            "GROUP" => self.dialect.bracket_clauses.contains(&"GROUP") && is_after("WITHIN"),
            "WITH" => self.dialect.bracket_clauses.contains(&"WITH") && !is_first,
            word => self.dialect.bracket_clauses.contains(&word),
        }
    }

    /// What the bracket at the next token is opened by.
    fn opened_by(&self) -> Inside {
        let Some(before) = self.at.checked_sub(1).map(|at| &self.code[at]) else { return Inside::Plain };
        if before.is_word("FILTER") {
            Inside::Filter
        } else if self.dialect.from_calls.iter().any(|word| before.is_word(word)) {
            Inside::FromCall
        } else {
            Inside::Plain
        }
    }

    /// A bracket from its opening to its closing.
    pub(super) fn bracket(&mut self, inside: Inside) -> Parse<()> {
        self.at += 1;
        if self.is_any_word(0, &["SELECT", "WITH"]) {
            return self.subquery();
        }
        let mut may_from = inside == Inside::FromCall;
        while let Some(token) = self.peek(0) {
            if token.is_symbol(")") || token.is_symbol("]") {
                self.at += 1;
                return Ok(());
            }
            if inside == Inside::TableCall && token.is_word("TABLE") {
                self.table_argument()?;
                continue;
            }
            let now = if inside == Inside::FromCall && !may_from { Inside::Plain } else { inside };
            may_from &= !(token.is_word("FROM") && self.is_keyword(0));
            self.piece(now, true)?;
        }
        Err(self.missing("a closing bracket"))
    }

    /// `TABLE orders` or `TABLE (SELECT …)` as an argument.
    fn table_argument(&mut self) -> Parse<()> {
        self.at += 1;
        if self.is_symbol(0, "(") {
            return if self.is_any_word(1, &["SELECT", "WITH"]) {
                self.bracket(Inside::Plain)
            } else {
                Err(self.missing("a source"))
            };
        }
        let name = self.source_name()?;
        self.use_source(name, None);
        Ok(())
    }

    /// A query in brackets whose opening is passed already.
    pub(super) fn subquery(&mut self) -> Parse<()> {
        let Some(read) = self.dialect.subquery else { return Err(self.no_subquery()) };
        self.nesting += 1;
        read(self)?;
        self.nesting -= 1;
        self.expect_symbol(")")
    }

    fn no_subquery(&self) -> Fault {
        self.fault(
            "subquery",
            format!(
                "{} has no SELECT within {}: {}",
                self.dialect.name,
                if self.dialect.repeats_windows { "an expression" } else { "a SELECT" },
                self.dialect.instead_of_subquery
            ),
        )
    }

    /// Notes a source, unless a common table expression has that name.
    pub(super) fn use_source(&mut self, name: usize, alias_after: Option<usize>) {
        let written = self.code[name].name();
        if !self.ctes.contains(&written) {
            self.found.sources.push(SourceUse { name, alias_after });
        }
    }

    pub(super) fn text(&self, at: usize) -> String {
        self.code[at].name()
    }

    /// Whether a call is allowed; windows are counted.
    pub(super) fn call(&mut self, token: &Token) -> Parse<()> {
        let name = token.text.to_ascii_uppercase();
        let is_qualified = self.at > 0 && self.code[self.at - 1].is_symbol(".");
        if is_qualified {
            return Err(self.fault(
                "unknown_function",
                format!("`{}` is called by a name with a dot, which reaches into other catalogs: call a function by its name alone", token.text),
            ));
        }
        if self.dialect.window_calls.contains(&name.as_str()) {
            return if self.is_repeated_window() { Ok(()) } else { self.count_window(self.at) };
        }
        if self.dialect.bracket_words.contains(&name.as_str()) || self.is_clause_word(0) {
            return Ok(());
        }
        match verdict(&name, self.dialect, self.limits) {
            Verdict::Allowed => Ok(()),
            Verdict::Denied => Err(self.fault(
                "forbidden_function",
                format!("`{}` can read files, reach the network or run code: it is never allowed", token.text),
            )),
            Verdict::Unknown(near) => {
                let meant = near.map_or_else(String::new, |near| format!(" (was `{near}` meant?)"));
                Err(self.fault(
                    "unknown_function",
                    format!(
                        "`{}` is no function of {} that may be called{meant}: an administrator can allow it",
                        shown(token),
                        self.dialect.name
                    ),
                ))
            }
        }
    }
}
