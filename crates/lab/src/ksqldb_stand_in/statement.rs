//! What a statement says: the part of the dialect that the stand-in can run.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use super::expression::Expression;
use super::types::SqlType;

/// A stream or a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows are added.
    Stream,
    /// Rows replace each other by key.
    Table,
}

impl Kind {
    /// `STREAM` or `TABLE`.
    pub fn upper(self) -> &'static str {
        match self {
            Kind::Stream => "STREAM",
            Kind::Table => "TABLE",
        }
    }

    /// `stream` or `table`.
    pub fn lower(self) -> &'static str {
        match self {
            Kind::Stream => "stream",
            Kind::Table => "table",
        }
    }
}

/// A column of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, as it counts.
    pub name: String,
    /// Its type.
    pub of: SqlType,
    /// Whether it is the record's key.
    pub key: bool,
}

/// A statement.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `CREATE STREAM name (columns) WITH (…)`, or with a query behind `AS`.
    Create(Create),
    /// `DROP STREAM name`.
    Drop {
        /// What the statement calls it.
        kind: Kind,
        /// Its name.
        name: String,
        /// Nothing there is fine.
        if_exists: bool,
        /// The topic too.
        delete_topic: bool,
    },
    /// `TERMINATE`, `PAUSE`, `RESUME` and the query, `ALL` being all.
    Command(&'static str, String),
    /// `SHOW STREAMS`, `TABLES`, `TOPICS`, `QUERIES`, and whether extended.
    Show(&'static str, bool),
    /// `DESCRIBE name`, and whether extended.
    Describe(String, bool),
    /// `DESCRIBE STREAMS | TABLES EXTENDED`.
    DescribeAll(Kind),
    /// `EXPLAIN` of a running query.
    ExplainQuery(String),
    /// `EXPLAIN` of a statement.
    Explain(Box<Statement>),
    /// A query for somebody who looks.
    Select(Select),
    /// `PRINT`.
    Print,
}

/// `CREATE`.
#[derive(Debug, Clone)]
pub struct Create {
    /// Stream or table.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// `OR REPLACE`.
    pub replace: bool,
    /// `IF NOT EXISTS`.
    pub unless_there: bool,
    /// The columns that are given.
    pub columns: Vec<Column>,
    /// The properties, names in upper case.
    pub with: BTreeMap<String, String>,
    /// The query that fills it.
    pub query: Option<Select>,
}

/// A query.
#[derive(Debug, Clone)]
pub struct Select {
    /// What is selected; empty: `*`.
    pub items: Vec<(Expression, Option<String>)>,
    /// The source.
    pub source: String,
    /// What it is called in the query.
    pub alias: Option<String>,
    /// `WHERE`.
    pub filter: Option<Expression>,
    /// `GROUP BY` of one column.
    pub group_by: Option<Expression>,
    /// `EMIT CHANGES`.
    pub changes: bool,
    /// `LIMIT`.
    pub limit: Option<u64>,
    /// Line and column at which a column is named first.
    pub places: BTreeMap<String, (usize, usize)>,
}

impl Display for Select {
    /// As the server writes it back: qualified, bracketed, on lines of its own.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let alias = self.alias.as_deref().unwrap_or(&self.source);
        f.write_str("SELECT")?;
        if self.items.is_empty() {
            f.write_str(" *")?;
        }
        for (number, (expression, name)) in self.items.iter().enumerate() {
            let name = name.clone().unwrap_or_else(|| expression.default_name(number));
            write!(f, "{}\n  {} {name}", if number == 0 { "" } else { "," }, expression.written(alias))?;
        }
        write!(f, "\nFROM {} {alias}", self.source)?;
        if let Some(filter) = &self.filter {
            write!(f, "\nWHERE {}", filter.written(alias))?;
        }
        if let Some(group) = &self.group_by {
            write!(f, "\nGROUP BY {}", group.written(alias))?;
        }
        f.write_str("\nEMIT CHANGES")
    }
}
