//! Reads statements. What it cannot read is refused with the place, in words of its own.

use std::collections::BTreeMap;

use super::expression::{Datum, Expression};
use super::statement::{Column, Create, Kind, Select, Statement};
use super::tokens::{Piece, Placed, Token};
use super::types::{PLAIN, SqlType};

/// Why a text is no statement: line, column, what is wrong.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

type Read<T> = Result<T, Wrong>;

/// The statement that a piece is.
///
/// # Errors
/// When it is none that the stand-in knows.
pub fn statement(piece: &Piece) -> Read<Statement> {
    let mut reader = Reader { tokens: &piece.tokens, at: 0, end: piece.end, places: BTreeMap::new() };
    let statement = reader.statement()?;
    if reader.at < reader.tokens.len() {
        return Err(reader.wrong("something that does not belong there"));
    }
    if !piece.closed {
        return Err(reader.wrong("missing ';' at the end"));
    }
    Ok(statement)
}

struct Reader<'a> {
    tokens: &'a [Placed],
    at: usize,
    end: (usize, usize),
    places: BTreeMap<String, (usize, usize)>,
}

impl Reader<'_> {
    fn wrong(&self, what: &str) -> Wrong {
        let (line, column) = self.tokens.get(self.at).map_or(self.end, |placed| (placed.line, placed.column));
        Wrong { line, column, what: what.to_owned() }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|placed| &placed.token)
    }

    fn is(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(found)) if found == word)
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.is(word);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, word: &str) -> Read<()> {
        if self.take(word) { Ok(()) } else { Err(self.wrong(&format!("expected {word}"))) }
    }

    fn mark(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Mark(found)) if *found == mark);
        self.at += usize::from(found);
        found
    }

    fn need_mark(&mut self, mark: &str) -> Read<()> {
        if self.mark(mark) { Ok(()) } else { Err(self.wrong(&format!("expected '{mark}'"))) }
    }

    fn name(&mut self) -> Read<String> {
        match self.peek() {
            Some(Token::Word(name) | Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.wrong("expected a name")),
        }
    }

    fn number(&mut self) -> Read<u32> {
        match self.peek() {
            Some(Token::Number(number)) => {
                let number = number.parse().map_err(|_| self.wrong("expected a whole number"))?;
                self.at += 1;
                Ok(number)
            }
            _ => Err(self.wrong("expected a number")),
        }
    }

    fn statement(&mut self) -> Read<Statement> {
        if self.is("SELECT") {
            return Ok(Statement::Select(self.select()?));
        }
        if self.take("CREATE") {
            return Ok(Statement::Create(self.create()?));
        }
        if self.take("DROP") {
            return self.drop();
        }
        for word in ["TERMINATE", "PAUSE", "RESUME"] {
            if self.take(word) {
                return Ok(Statement::Command(word, self.name()?));
            }
        }
        if self.take("SHOW") || self.take("LIST") {
            for word in ["STREAMS", "TABLES", "TOPICS", "QUERIES"] {
                if self.take(word) {
                    return Ok(Statement::Show(word, self.take("EXTENDED")));
                }
            }
            return Err(self.wrong("expected STREAMS, TABLES, TOPICS or QUERIES"));
        }
        if self.take("DESCRIBE") {
            for (word, kind) in [("STREAMS", Kind::Stream), ("TABLES", Kind::Table)] {
                if self.take(word) {
                    self.need("EXTENDED")?;
                    return Ok(Statement::DescribeAll(kind));
                }
            }
            return Ok(Statement::Describe(self.name()?, self.take("EXTENDED")));
        }
        if self.take("EXPLAIN") {
            if self.is("SELECT") || self.is("CREATE") {
                return Ok(Statement::Explain(Box::new(self.statement()?)));
            }
            return Ok(Statement::ExplainQuery(self.name()?));
        }
        if self.take("PRINT") {
            self.at = self.tokens.len();
            return Ok(Statement::Print);
        }
        Err(self.wrong("Unknown statement"))
    }

    fn kind(&mut self) -> Read<Kind> {
        if self.take("STREAM") {
            Ok(Kind::Stream)
        } else if self.take("TABLE") {
            Ok(Kind::Table)
        } else {
            Err(self.wrong("expected STREAM or TABLE"))
        }
    }

    fn create(&mut self) -> Read<Create> {
        let replace = self.take("OR");
        if replace {
            self.need("REPLACE")?;
        }
        let kind = self.kind()?;
        let unless_there = self.take("IF");
        if unless_there {
            self.need("NOT")?;
            self.need("EXISTS")?;
        }
        let name = self.name()?;
        let columns = if self.mark("(") { self.columns()? } else { Vec::new() };
        let with = if self.take("WITH") { self.with()? } else { BTreeMap::new() };
        let query = if self.take("AS") { Some(self.select()?) } else { None };
        Ok(Create { kind, name, replace, unless_there, columns, with, query })
    }

    fn columns(&mut self) -> Read<Vec<Column>> {
        let mut columns = Vec::new();
        loop {
            let (name, of) = (self.name()?, self.data_type()?);
            let primary = self.take("PRIMARY");
            let key = self.take("KEY");
            if primary && !key {
                return Err(self.wrong("expected KEY"));
            }
            columns.push(Column { name, of, key });
            if self.mark(")") {
                return Ok(columns);
            }
            self.need_mark(",")?;
        }
    }

    fn with(&mut self) -> Read<BTreeMap<String, String>> {
        let mut with = BTreeMap::new();
        self.need_mark("(")?;
        loop {
            let name = self.name()?;
            self.need_mark("=")?;
            let value = match self.peek() {
                Some(Token::Text(text) | Token::Number(text) | Token::Word(text)) => text.clone(),
                _ => return Err(self.wrong("expected a value")),
            };
            self.at += 1;
            with.insert(name.to_uppercase(), value);
            if self.mark(")") {
                return Ok(with);
            }
            self.need_mark(",")?;
        }
    }

    fn data_type(&mut self) -> Read<SqlType> {
        let word = self.name()?;
        Ok(match word.as_str() {
            "DECIMAL" => {
                self.need_mark("(")?;
                let precision = self.number()?;
                self.need_mark(",")?;
                let scale = self.number()?;
                self.need_mark(")")?;
                SqlType::Decimal(precision, scale)
            }
            "ARRAY" => {
                self.need_mark("<")?;
                let of = self.data_type()?;
                self.need_mark(">")?;
                SqlType::Array(Box::new(of))
            }
            "MAP" => {
                self.need_mark("<")?;
                let key = self.data_type()?;
                self.need_mark(",")?;
                let of = self.data_type()?;
                self.need_mark(">")?;
                SqlType::Map(Box::new(key), Box::new(of))
            }
            "STRUCT" => {
                let mut fields = Vec::new();
                // An empty one is written `STRUCT< >`, and `<>` is one mark.
                if self.mark("<>") {
                    return Ok(SqlType::Struct(fields));
                }
                self.need_mark("<")?;
                while !self.mark(">") {
                    if !fields.is_empty() {
                        self.need_mark(",")?;
                    }
                    fields.push((self.name()?, self.data_type()?));
                }
                SqlType::Struct(fields)
            }
            "INT" => SqlType::Plain("INTEGER"),
            "VARCHAR" => SqlType::Plain("STRING"),
            other => match PLAIN.iter().find(|plain| **plain == other) {
                Some(plain) => SqlType::Plain(plain),
                None => {
                    self.at -= 1;
                    return Err(self.wrong("expected a type"));
                }
            },
        })
    }

    fn drop(&mut self) -> Read<Statement> {
        let kind = self.kind()?;
        let if_exists = self.take("IF");
        if if_exists {
            self.need("EXISTS")?;
        }
        let name = self.name()?;
        let delete_topic = self.take("DELETE");
        if delete_topic {
            self.need("TOPIC")?;
        }
        Ok(Statement::Drop { kind, name, if_exists, delete_topic })
    }

    fn select(&mut self) -> Read<Select> {
        self.need("SELECT")?;
        let mut items = Vec::new();
        if !self.mark("*") {
            loop {
                let expression = self.expression(0)?;
                let named = self.take("AS") || matches!(self.peek(), Some(Token::Name(_)));
                items.push((expression, if named { Some(self.name()?) } else { None }));
                if !self.mark(",") {
                    break;
                }
            }
        }
        self.need("FROM")?;
        let source = self.name()?;
        let words = ["WHERE", "GROUP", "EMIT", "LIMIT", "WINDOW", "JOIN", "LEFT", "INNER", "HAVING", "PARTITION"];
        let alias = match self.peek() {
            Some(Token::Word(word)) if words.contains(&word.as_str()) => None,
            Some(Token::Word(_) | Token::Name(_)) => {
                self.take("AS");
                Some(self.name()?)
            }
            _ => None,
        };
        let filter = if self.take("WHERE") { Some(self.expression(0)?) } else { None };
        let mut group_by = None;
        if self.take("GROUP") {
            self.need("BY")?;
            group_by = Some(self.expression(0)?);
        }
        let changes = self.take("EMIT");
        if changes {
            self.need("CHANGES")?;
        }
        let limit = if self.take("LIMIT") { Some(u64::from(self.number()?)) } else { None };
        let places = std::mem::take(&mut self.places);
        Ok(Select { items, source, alias, filter, group_by, changes, limit, places })
    }

    /// By precedence: OR, AND, NOT, comparisons, sums, products.
    fn expression(&mut self, level: usize) -> Read<Expression> {
        const LEVELS: [&[&str]; 5] =
            [&["OR"], &["AND"], &["=", "<>", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/"]];
        if level == LEVELS.len() {
            return self.operand();
        }
        if level == 2 && self.take("NOT") {
            return Ok(Expression::Unary("NOT", Box::new(self.expression(2)?)));
        }
        let mut left = self.expression(level + 1)?;
        loop {
            if level == 2 && self.take("IS") {
                let wanted = !self.take("NOT");
                self.need("NULL")?;
                left = Expression::IsNull(Box::new(left), wanted);
                continue;
            }
            let found = LEVELS[level].iter().find(|word| self.take(word) || self.mark(word));
            let Some(word) = found else { return Ok(left) };
            left = Expression::Binary(word, Box::new(left), Box::new(self.expression(level + 1)?));
        }
    }

    fn operand(&mut self) -> Read<Expression> {
        if self.mark("(") {
            let inside = self.expression(0)?;
            self.need_mark(")")?;
            return Ok(inside);
        }
        if self.mark("-") {
            return Ok(Expression::Unary("-", Box::new(self.operand()?)));
        }
        let literal = match self.peek() {
            Some(Token::Text(text)) => Some(Datum::Text(text.clone())),
            Some(Token::Number(number)) => Some(Datum::Number(number.clone())),
            Some(Token::Word(word)) if word == "TRUE" => Some(Datum::Bool(true)),
            Some(Token::Word(word)) if word == "FALSE" => Some(Datum::Bool(false)),
            Some(Token::Word(word)) if word == "NULL" => Some(Datum::Null),
            Some(Token::Word(_) | Token::Name(_)) => None,
            _ => return Err(self.wrong("expected an expression")),
        };
        if let Some(literal) = literal {
            self.at += 1;
            return Ok(Expression::Literal(literal));
        }
        if self.is("FROM") {
            return Err(self.wrong("expected an expression"));
        }
        let place = self.tokens.get(self.at).map_or(self.end, |placed| (placed.line, placed.column));
        let name = self.name()?;
        if self.mark("(") {
            return self.function(&name);
        }
        // A qualifier says nothing here: there is one source.
        let name = if self.mark(".") { self.name()? } else { name };
        self.places.entry(name.clone()).or_insert(place);
        Ok(Expression::Column(name))
    }

    fn function(&mut self, name: &str) -> Read<Expression> {
        let expression = match name {
            "COUNT" => {
                if !self.mark("*") {
                    self.expression(0)?;
                }
                Expression::Count
            }
            "SUM" => Expression::Sum(Box::new(self.expression(0)?)),
            _ => return Err(self.wrong("the stand-in knows no functions but COUNT and SUM")),
        };
        self.need_mark(")")?;
        Ok(expression)
    }
}
