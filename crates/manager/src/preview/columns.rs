//! Rows of a topic as the seeds' clients read them: a header with the columns, then `{"row":{"columns":[…]}}`.

use serde_json::{Value, json};

use super::row::{Shape, Shown};
use crate::catalog::{Column, DataType};

/// The single column of values that are no objects.
const VALUE: &str = "VALUE";

/// Writes rows under a header; a row with columns that the header lacks gets a new one before it.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<(String, DataType)>,
    is_told: bool,
}

impl Columns {
    /// With these columns at first, if they are known.
    pub fn new(known: Option<Vec<Column>>) -> Columns {
        let columns: Vec<_> = known.into_iter().flatten().map(|column| (column.name, column.data_type)).collect();
        Columns { columns, is_told: false }
    }

    /// The header, if it is known before the first row. To be sent once, then.
    pub fn header(&mut self) -> Option<String> {
        if self.columns.is_empty() {
            return None;
        }
        self.is_told = true;
        Some(json!({ "header": { "schema": schema(&self.columns) } }).to_string())
    }

    /// What is sent for a row: perhaps a header, then the row.
    pub fn lines(&mut self, row: &Shown) -> Vec<String> {
        let fields = match serde_json::from_str(row.value()) {
            Ok(Value::Object(fields)) if matches!(row.shape, Shape::Json | Shape::Avro) => fields,
            Ok(_) if row.shape == Shape::Tombstone => serde_json::Map::new(),
            Ok(other) => [(VALUE.to_owned(), other)].into_iter().collect(),
            Err(_) => serde_json::Map::new(),
        };
        for (name, value) in &fields {
            if !self.columns.iter().any(|(known, _)| known == name) {
                self.columns.push((name.clone(), kind(value)));
                self.is_told = false;
            }
        }
        let mut lines = Vec::new();
        if !self.is_told {
            lines.extend(self.header());
        }
        let columns: Vec<&Value> =
            self.columns.iter().map(|(name, _)| fields.get(name).unwrap_or(&Value::Null)).collect();
        lines.push(
            match row.shape {
                Shape::Tombstone => json!({ "row": { "columns": columns, "tombstone": true } }),
                _ => json!({ "row": { "columns": columns } }),
            }
            .to_string(),
        );
        lines
    }
}

/// As ksqlDB writes it: names in backticks, types behind them.
pub(crate) fn schema(columns: &[(String, DataType)]) -> String {
    let column = |(name, data_type): &(String, DataType)| {
        let words = data_type.to_string();
        // Names within it keep their case.
        let words = if words.contains('`') { words } else { words.to_uppercase() };
        format!("`{}` {words}", name.replace('`', "``"))
    };
    columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

fn kind(value: &Value) -> DataType {
    match value {
        Value::Bool(_) => DataType::Boolean,
        Value::Number(number) if number.is_f64() => DataType::Double,
        Value::Number(_) => DataType::BigInt,
        Value::Array(values) => DataType::Array(Box::new(values.first().map_or(DataType::String, kind))),
        Value::Object(fields) => {
            DataType::Row(fields.iter().map(|(name, value)| (name.clone(), kind(value))).collect())
        }
        Value::Null | Value::String(_) => DataType::String,
    }
}
