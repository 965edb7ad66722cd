//! Rows of a topic as the seeds' clients read them: a header with the columns, then `{"row":{"columns":[…]}}`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::row::{Shape, Shown};
use crate::catalog::{Column, DataType};

/// The single column of values that are no objects.
const VALUE: &str = "VALUE";
/// The most columns of a header. What a value has beyond them stands together in the last one, as JSON text: a topic whose
/// values have ever new fields (ids as names, say) would make each row longer than the one before.
const MAX_COLUMNS: usize = 1_000;
/// That last column.
const OTHERS: &str = "*";

/// Writes rows under a header; a row with columns that the header lacks gets a new one before it.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<(String, DataType)>,
    /// Where each stands among them.
    places: HashMap<String, usize>,
    is_told: bool,
}

impl Columns {
    /// With these columns at first, if they are known.
    pub fn new(known: Option<Vec<Column>>) -> Columns {
        let columns: Vec<_> = known.into_iter().flatten().map(|column| (column.name, column.data_type)).collect();
        let places = columns.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        Columns { columns, places, is_told: false }
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
            Ok(_) if row.shape == Shape::Tombstone => Map::new(),
            Ok(other) => [(VALUE.to_owned(), other)].into_iter().collect(),
            Err(_) => Map::new(),
        };
        let mut others = Map::new();
        for (name, value) in &fields {
            if !self.knows(name, value) {
                others.insert(name.clone(), value.clone());
            }
        }
        let others = if others.is_empty() { Value::Null } else { Value::String(Value::Object(others).to_string()) };
        if !others.is_null() && !self.places.contains_key(OTHERS) {
            self.add(OTHERS, DataType::String);
        }
        let mut lines = Vec::new();
        if !self.is_told {
            lines.extend(self.header());
        }
        let of = |name: &str| fields.get(name).unwrap_or(if name == OTHERS { &others } else { &Value::Null });
        let columns: Vec<&Value> = self.columns.iter().map(|(name, _)| of(name)).collect();
        lines.push(
            match row.shape {
                Shape::Tombstone => json!({ "row": { "columns": columns, "tombstone": true } }),
                _ => json!({ "row": { "columns": columns } }),
            }
            .to_string(),
        );
        lines
    }

    /// Whether there is a column for it, now at the latest.
    fn knows(&mut self, name: &str, value: &Value) -> bool {
        let is_known = self.places.contains_key(name);
        let has_room = self.columns.len() < MAX_COLUMNS;
        if !is_known && has_room {
            self.add(name, kind(value));
        }
        is_known || has_room
    }

    fn add(&mut self, name: &str, data_type: DataType) {
        self.places.insert(name.to_owned(), self.columns.len());
        self.columns.push((name.to_owned(), data_type));
        self.is_told = false;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // tests fail by panicking
mod tests {
    use super::super::row::show;
    use super::*;
    use crate::ports::RawRecord;

    #[tokio::test]
    async fn ever_new_fields_make_a_header_no_longer_than_its_bound() {
        let mut columns = Columns::new(None);
        let mut last = Vec::new();
        for number in 0..MAX_COLUMNS + 500 {
            let value = json!({ format!("field{number}"): number }).to_string().into_bytes();
            let record = RawRecord { partition: 0, offset: 0, timestamp_ms: None, key: None, value: Some(value) };
            last = columns.lines(&show(&record, None, 1_000_000).await);
        }
        assert_eq!(columns.columns.len(), MAX_COLUMNS + 1);
        assert_eq!(last.len(), 1, "no new header");
        let row: Value = serde_json::from_str(&last[0]).unwrap();
        let others = row["row"]["columns"].as_array().unwrap().last().unwrap();
        assert_eq!(others, r#"{"field1499":1499}"#);
    }
}
