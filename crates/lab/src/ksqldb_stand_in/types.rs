//! Column types: read from statements, written as headers and descriptions have them.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlType {
    /// One without parts, by its name.
    Plain(&'static str),
    /// Precision and scale.
    Decimal(u32, u32),
    /// A list.
    Array(Box<SqlType>),
    /// Keys and values.
    Map(Box<SqlType>, Box<SqlType>),
    /// Fields by name.
    Struct(Vec<(String, SqlType)>),
}

/// The types without parts.
pub const PLAIN: [&str; 9] = ["BOOLEAN", "INTEGER", "BIGINT", "DOUBLE", "STRING", "BYTES", "DATE", "TIME", "TIMESTAMP"];

impl SqlType {
    /// As answers describe it.
    pub fn described(&self) -> Value {
        let schema = |kind: &str, fields: Value, member: Value| json!({ "type": kind, "fields": fields, "memberSchema": member });
        match self {
            SqlType::Plain(name) => schema(name, Value::Null, Value::Null),
            SqlType::Decimal(precision, scale) => {
                let mut described = schema("DECIMAL", Value::Null, Value::Null);
                described["parameters"] = json!({ "precision": precision, "scale": scale });
                described
            }
            SqlType::Array(of) => schema("ARRAY", Value::Null, of.described()),
            SqlType::Map(_, of) => schema("MAP", Value::Null, of.described()),
            SqlType::Struct(fields) => {
                let fields: Vec<Value> =
                    fields.iter().map(|(name, of)| json!({ "name": name, "schema": of.described() })).collect();
                schema("STRUCT", fields.into(), Value::Null)
            }
        }
    }
}

/// A name in backticks.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl Display for SqlType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            SqlType::Plain(name) => f.write_str(name),
            SqlType::Decimal(precision, scale) => write!(f, "DECIMAL({precision}, {scale})"),
            SqlType::Array(of) => write!(f, "ARRAY<{of}>"),
            SqlType::Map(key, of) => write!(f, "MAP<{key}, {of}>"),
            SqlType::Struct(fields) if fields.is_empty() => f.write_str("STRUCT< >"),
            SqlType::Struct(fields) => {
                f.write_str("STRUCT<")?;
                for (number, (name, of)) in fields.iter().enumerate() {
                    write!(f, "{}{} {of}", if number == 0 { "" } else { ", " }, quoted(name))?;
                }
                f.write_str(">")
            }
        }
    }
}
