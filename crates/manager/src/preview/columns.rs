//! Rows of a topic as the seeds' clients read them: a header with the columns, then `{"row":{"columns":[…]}}`.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::keys::{self, Fields};
use super::row::{Shape, Shown};
use crate::catalog::{Column, DataType, values};

/// The single column of values that are no objects.
const VALUE: &str = "VALUE";
/// The most columns of a header. What a value has beyond them stands together in the last one, as JSON text: a topic whose
/// values have ever new fields (ids as names, say) would make each row longer than the one before.
const MAX_COLUMNS: usize = 1_000;
/// Likewise the most bytes of their names and types: a name may be as long as a value, and the header is sent again for each.
const MAX_BYTES: usize = 64 << 10;
/// That last column.
const OTHERS: &str = "*";

/// What is known of the rows of a topic before any has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The topic.
    pub topic: String,
    /// The columns of its rows, those that stand in the key included, that one first. None: nobody knows.
    pub columns: Vec<Column>,
    /// Whether its rows replace each other by their key.
    pub is_table: bool,
}

/// Writes rows under a header; a row with columns that the header lacks gets a new one before it.
#[derive(Debug)]
pub struct Columns {
    columns: Vec<(String, DataType)>,
    /// Where each stands among them.
    places: HashMap<String, usize>,
    /// Bytes of their names and types.
    bytes: usize,
    /// So many were known before any row had come.
    known: usize,
    /// The one that stands in the key alone.
    key: Option<usize>,
    is_table: bool,
    is_told: bool,
}

impl Columns {
    /// With these columns at first, if they are known.
    pub fn new(known: Option<Vec<Column>>) -> Columns {
        let columns: Vec<_> = known.into_iter().flatten().map(|column| (column.name, column.data_type)).collect();
        let places = columns.iter().enumerate().map(|(place, (name, _))| (name.clone(), place)).collect();
        let bytes = columns.iter().map(|(name, data_type)| written(name, data_type)).sum();
        Columns { known: columns.len(), columns, places, bytes, key: None, is_table: false, is_told: false }
    }

    /// With those of the text that fills the topic.
    pub fn of(output: &Output) -> Columns {
        // A table's first column is its key, until a value shows otherwise.
        let key = (output.is_table && !output.columns.is_empty()).then_some(0);
        Columns { key, is_table: output.is_table, ..Columns::new(Some(output.columns.clone())) }
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
        let fields = self.fields(row);
        let mut others = serde_json::Map::new();
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
                Shape::Tombstone => json!({ "row": { "columns": columns, "tombstone": true }, "kind": "delete" }),
                _ if self.is_table => json!({ "row": { "columns": columns }, "kind": "updateAfter" }),
                _ => json!({ "row": { "columns": columns } }),
            }
            .to_string(),
        );
        lines
    }

    /// A row as one object, as those read it who have no header; `None`: its value says all that there is to say.
    pub(super) fn object(&mut self, row: &Shown) -> Option<String> {
        match row.shape {
            Shape::Tombstone => {
                let as_shown = row.key_json()?;
                let fields = self.fields(row);
                let key = if fields.is_empty() { as_shown.to_owned() } else { json!(fields).to_string() };
                Some(format!("{{\"key\":{key},\"tombstone\":true}}"))
            }
            Shape::Json | Shape::Avro if self.known > 0 => {
                let of_value = serde_json::from_str::<BTreeMap<String, &RawValue>>(row.value()).ok()?;
                let fields = self.fields(row);
                let is_more = fields.len() > of_value.len();
                is_more.then(|| json!(fields).to_string())
            }
            _ => None,
        }
    }

    /// What a row has, by the names of its columns: its value, and of its key what the value lacks.
    fn fields(&mut self, row: &Shown) -> BTreeMap<String, Value> {
        let object = match row.shape {
            Shape::Json | Shape::Avro => serde_json::from_str::<BTreeMap<String, &RawValue>>(row.value()).ok(),
            Shape::Tombstone => Some(BTreeMap::new()),
            _ => None,
        };
        let Some(object) = object else {
            let value = serde_json::from_str(row.value()).unwrap_or_else(|_| Value::from(row.value()));
            return BTreeMap::from([(VALUE.to_owned(), value)]);
        };
        let read = |(name, raw): (String, &RawValue)| {
            let value = values::value(raw.get(), self.data_type(&name));
            (name, value)
        };
        let mut fields: BTreeMap<String, Value> = object.into_iter().map(read).collect();
        if self.known > 0 {
            match row.key_by_schema().filter(|key| key.keys().any(|name| self.places.contains_key(name))) {
                Some(key) => self.add_fields(key, &mut fields),
                None => row.key().into_iter().for_each(|key| self.add_key(&key, row.shape, &mut fields)),
            }
        }
        fields
    }

    /// Fields of a key that are columns.
    fn add_fields(&self, of_key: Fields, fields: &mut BTreeMap<String, Value>) {
        for (name, value) in of_key.into_iter().filter(|(name, _)| self.places.contains_key(name)) {
            let value = values::value(value.get(), self.data_type(&name));
            fields.entry(name).or_insert(value);
        }
    }

    fn add_key(&mut self, key: &[u8], shape: Shape, fields: &mut BTreeMap<String, Value>) {
        if let Some(of_key) = keys::fields(key) {
            return self.add_fields(of_key, fields);
        }
        if shape != Shape::Tombstone {
            // What a value never has stands in the key: engines write nulls as such.
            let lacks = |place: &usize| !fields.contains_key(&self.columns[*place].0);
            let mut lacking = (0..self.known).filter(lacks);
            self.key = match (lacking.next(), lacking.next()) {
                (Some(only), None) => Some(only),
                (None, _) => None,
                (Some(_), Some(_)) => self.key.filter(lacks),
            };
        }
        if let Some(place) = self.key {
            let (name, data_type) = &self.columns[place];
            fields.entry(name.clone()).or_insert_with(|| keys::column(key, data_type));
        }
    }

    fn data_type(&self, name: &str) -> Option<&DataType> {
        self.places.get(name).filter(|place| **place < self.known).map(|place| &self.columns[*place].1)
    }

    /// Whether there is a column for it, now at the latest.
    fn knows(&mut self, name: &str, value: &Value) -> bool {
        if self.places.contains_key(name) {
            return true;
        }
        if self.columns.len() >= MAX_COLUMNS || self.bytes + name.len() > MAX_BYTES {
            return false;
        }
        let data_type = kind(value);
        let has_room = self.bytes + written(name, &data_type) <= MAX_BYTES;
        if has_room {
            self.add(name, data_type);
        }
        has_room
    }

    fn add(&mut self, name: &str, data_type: DataType) {
        self.bytes += written(name, &data_type);
        self.places.insert(name.to_owned(), self.columns.len());
        self.columns.push((name.to_owned(), data_type));
        self.is_told = false;
    }
}

/// Bytes that a column takes in a header, about.
fn written(name: &str, data_type: &DataType) -> usize {
    name.len() + data_type.to_string().len()
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

    async fn row(value: String) -> Shown {
        let record = RawRecord {
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: None,
            value: Some(value.into_bytes()),
            headers: Default::default(),
        };
        show(&record, None, 1_000_000).await
    }

    #[tokio::test]
    async fn a_value_that_nests_without_end_is_a_row_on_the_stack_of_any_thread() {
        let nested = |open: &str, inner: &str, close: &str| {
            format!("{{\"a\":{}{inner}{}}}", open.repeat(20_000), close.repeat(20_000))
        };
        for value in [nested("[", "", "]"), nested("{\"b\":", "1", "}")] {
            let row = row(value).await;
            // The stack of a worker of the runtime.
            let small = std::thread::Builder::new().stack_size(2 << 20);
            let read = small.spawn(move || {
                let column = Column { name: "a".to_owned(), data_type: DataType::String, nullable: true };
                let mut known = Columns::new(Some(vec![column.clone(), Column { name: "k".to_owned(), ..column }]));
                (Columns::new(None).lines(&row), known.lines(&row), known.object(&row))
            });
            let (lines, known, object) = read.unwrap().join().unwrap();
            assert_eq!((lines.len(), known.len(), object), (2, 2, None), "a header and the row");
        }
    }

    #[tokio::test]
    async fn long_names_and_types_make_a_header_no_longer_than_its_bound() {
        let long = |number: usize, bytes: usize| format!("{number:06}{}", "x".repeat(bytes - 6));
        // Of these one fits, a type of as many bytes does not, and of these none does.
        for (bytes, is_type, fits) in [(40 << 10, false, true), (70 << 10, true, false), (250 << 10, false, false)] {
            let mut columns = Columns::new(None);
            let mut told = Vec::new();
            for number in 0..30 {
                let name = long(number, bytes);
                let value = if is_type { json!({ format!("f{number}"): { name: 1 } }) } else { json!({ name: 1 }) };
                told.push(columns.lines(&row(value.to_string()).await));
            }
            let headers = told.iter().filter(|lines| lines.len() == 2).count();
            assert_eq!(headers, if fits { 2 } else { 1 }, "the columns, and the one for all others");
            assert!(
                told[..2]
                    .iter()
                    .flatten()
                    .filter(|line| line.contains("header"))
                    .all(|line| line.len() < MAX_BYTES + 100)
            );
            assert_eq!(columns.columns.len(), headers);
            let row: Value = serde_json::from_str(&told[29][0]).unwrap();
            let others = row["row"]["columns"].as_array().unwrap().last().unwrap().as_str().unwrap();
            assert!(others.len() > bytes && others.contains("000029"), "nothing is left out");
        }
    }

    #[tokio::test]
    async fn ever_new_fields_make_a_header_no_longer_than_its_bound() {
        let mut columns = Columns::new(None);
        let mut last = Vec::new();
        for number in 0..MAX_COLUMNS + 500 {
            last = columns.lines(&row(json!({ format!("field{number}"): number }).to_string()).await);
        }
        assert_eq!(columns.columns.len(), MAX_COLUMNS + 1);
        assert_eq!(last.len(), 1, "no new header");
        let row: Value = serde_json::from_str(&last[0]).unwrap();
        let others = row["row"]["columns"].as_array().unwrap().last().unwrap();
        assert_eq!(others, r#"{"field1499":1499}"#);
    }
}
