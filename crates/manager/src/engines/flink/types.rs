//! Types as Flink says them: in DDL, in `DESCRIBE`, and in the columns of results.

use serde::Deserialize;

use super::text::{dialect, unfit};
use crate::catalog::{Column, DataType};
use crate::engines::Trouble;
use crate::gate::TypeWords;

/// How a point in time is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// `TIMESTAMP_LTZ`: in JSON with a `Z`.
    WithZone,
    /// `TIMESTAMP`: as Avro's logical types are read.
    WithoutZone,
}

/// A type for `CREATE TABLE`.
pub(super) fn declared(data_type: &DataType, clock: Clock) -> Result<String, Trouble> {
    let words = dialect().types();
    let words = match clock {
        Clock::WithZone => TypeWords { timestamp: "TIMESTAMP_LTZ", ..words },
        Clock::WithoutZone => words,
    };
    words.write(data_type).map_err(unfit)
}

/// A column of a header, as the seeds' clients read it: `` `amount` DECIMAL(10, 2) ``.
pub(super) fn in_schema(column: &Column) -> String {
    // What cannot be quoted in a statement can be shown all the same.
    let data_type = declared(&column.data_type, Clock::WithoutZone).unwrap_or_else(|_| column.data_type.to_string());
    format!("`{}` {data_type}", column.name.replace('`', "``"))
}

/// A type as `DESCRIBE` writes it: `DECIMAL(10, 2)`, ``ROW<`a` INT NOT NULL>``, `TIMESTAMP(3) *ROWTIME*`. What has no place
/// among ours is text.
pub(super) fn described(text: &str) -> DataType {
    Reader { rest: text }.data_type().unwrap_or(DataType::String)
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn data_type(&mut self) -> Option<DataType> {
        let word = self.word();
        let read = match word.as_str() {
            "BOOLEAN" => DataType::Boolean,
            "TINYINT" | "SMALLINT" | "INT" | "INTEGER" => DataType::Int,
            "BIGINT" => DataType::BigInt,
            "FLOAT" | "DOUBLE" => DataType::Double,
            "DECIMAL" => {
                let [precision, scale] = self.numbers([10, 0]);
                DataType::Decimal { precision, scale }
            }
            "STRING" | "CHAR" | "VARCHAR" => {
                self.numbers([1]);
                DataType::String
            }
            "BYTES" | "BINARY" | "VARBINARY" => {
                self.numbers([1]);
                DataType::Bytes
            }
            "DATE" => DataType::Date,
            "TIME" => {
                self.numbers([0]);
                DataType::Time
            }
            "TIMESTAMP" | "TIMESTAMP_LTZ" => {
                let [digits] = self.numbers([6]);
                DataType::Timestamp(digits)
            }
            "INTERVAL" => DataType::BigInt,
            "ARRAY" => DataType::Array(Box::new(self.bracketed(Reader::data_type)?)),
            "MULTISET" => {
                self.bracketed(Reader::data_type)?;
                DataType::Map(Box::new(DataType::Int))
            }
            "MAP" => {
                let value = self.bracketed(|reader| {
                    reader.data_type()?;
                    reader.mark(',')?;
                    reader.data_type()
                });
                DataType::Map(Box::new(value?))
            }
            "ROW" => DataType::Row(self.bracketed(Reader::fields)?),
            _ => return None,
        };
        self.skip_not_null();
        Some(read)
    }

    fn fields(&mut self) -> Option<Vec<(String, DataType)>> {
        let mut fields = Vec::new();
        loop {
            let name = self.quoted()?;
            fields.push((name, self.data_type()?));
            // A field may have a comment.
            if self.rest.trim_start().starts_with('\'') {
                self.rest = self.rest.trim_start().get(1..)?.split_once('\'')?.1;
            }
            if self.mark(',').is_none() {
                return Some(fields);
            }
        }
    }

    fn bracketed<T>(&mut self, inside: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.mark('<')?;
        let read = inside(self)?;
        self.mark('>')?;
        Some(read)
    }

    fn mark(&mut self, mark: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(mark)?;
        Some(())
    }

    fn word(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word.to_ascii_uppercase()
    }

    /// A name in backticks.
    fn quoted(&mut self) -> Option<String> {
        self.mark('`')?;
        let mut name = String::new();
        loop {
            let (part, rest) = self.rest.split_once('`')?;
            name.push_str(part);
            self.rest = rest;
            let Some(rest) = rest.strip_prefix('`') else { return Some(name) };
            name.push('`');
            self.rest = rest;
        }
    }

    /// `(10, 2)`, or the defaults. Lengths beyond a byte do not matter to us.
    fn numbers<const N: usize>(&mut self, defaults: [u8; N]) -> [u8; N] {
        let mut numbers = defaults;
        if let Some((inside, rest)) = self.rest.strip_prefix('(').and_then(|text| text.split_once(')')) {
            for (number, text) in numbers.iter_mut().zip(inside.split(',')) {
                *number = text.trim().parse().unwrap_or(*number);
            }
            self.rest = rest;
        }
        numbers
    }

    fn skip_not_null(&mut self) {
        let trimmed = self.rest.trim_start();
        self.rest = trimmed.strip_prefix("NOT NULL").unwrap_or(trimmed);
    }
}

/// The type of a result's column.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogicalType {
    #[serde(rename = "type")]
    root: String,
    precision: Option<u8>,
    scale: Option<u8>,
    element_type: Option<Box<LogicalType>>,
    value_type: Option<Box<LogicalType>>,
    #[serde(default)]
    fields: Vec<LogicalField>,
    /// Whether values may be missing.
    #[serde(default)]
    pub nullable: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogicalField {
    name: String,
    field_type: LogicalType,
}

impl LogicalType {
    /// As ours. What has no place among ours is text.
    pub fn data_type(&self) -> DataType {
        let inner = |of: &Option<Box<LogicalType>>| Box::new(of.as_ref().map_or(DataType::String, |of| of.data_type()));
        match self.root.as_str() {
            "BOOLEAN" => DataType::Boolean,
            "TINYINT" | "SMALLINT" | "INTEGER" => DataType::Int,
            "BIGINT" | "INTERVAL_DAY_TIME" | "INTERVAL_YEAR_MONTH" => DataType::BigInt,
            "FLOAT" | "DOUBLE" => DataType::Double,
            "DECIMAL" => DataType::Decimal { precision: self.precision.unwrap_or(10), scale: self.scale.unwrap_or(0) },
            "BINARY" | "VARBINARY" => DataType::Bytes,
            "DATE" => DataType::Date,
            "TIME_WITHOUT_TIME_ZONE" => DataType::Time,
            "TIMESTAMP_WITHOUT_TIME_ZONE" | "TIMESTAMP_WITH_LOCAL_TIME_ZONE" => {
                DataType::Timestamp(self.precision.unwrap_or(6))
            }
            "ARRAY" => DataType::Array(inner(&self.element_type)),
            "MAP" => DataType::Map(inner(&self.value_type)),
            "MULTISET" => DataType::Map(Box::new(DataType::Int)),
            "ROW" => {
                let fields = self.fields.iter().map(|field| (field.name.clone(), field.field_type.data_type()));
                DataType::Row(fields.collect())
            }
            _ => DataType::String,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn described_types_are_read() {
        for (text, expected) in [
            ("BIGINT", "bigint"),
            ("DECIMAL(10, 2)", "decimal(10, 2)"),
            ("VARCHAR(2147483647)", "string"),
            ("TIMESTAMP(3) *ROWTIME*", "timestamp(3)"),
            ("TIMESTAMP_LTZ(6) NOT NULL", "timestamp(6)"),
            (
                "ARRAY<ROW<`a` INT NOT NULL, `b, ``c` MAP<STRING NOT NULL, DOUBLE>>>",
                "array<row<`a` int, `b, ``c` map<string, double>>>",
            ),
            ("INTERVAL DAY(2) TO SECOND(3)", "bigint"),
            ("RAW('x', '...')", "string"),
        ] {
            assert_eq!(described(text).to_string(), expected, "{text}");
        }
    }

    #[test]
    fn declared_types_are_read_as_what_they_were() {
        for text in ["array<map<string, row<`a``b` decimal(38, 9)>>>", "timestamp(3)", "bytes", "boolean"] {
            let data_type: DataType = text.parse().unwrap();
            for clock in [Clock::WithZone, Clock::WithoutZone] {
                assert_eq!(described(&declared(&data_type, clock).unwrap()), data_type);
            }
        }
    }

    #[test]
    fn columns_of_results_are_read() {
        let json = r#"{"type": "ROW", "nullable": true, "fields": [{"name": "n", "fieldType": {"type": "ARRAY", "nullable": false,
            "elementType": {"type": "DECIMAL", "precision": 38, "scale": 8, "nullable": false}}}]}"#;
        let logical: LogicalType = serde_json::from_str(json).unwrap();
        assert_eq!(logical.data_type().to_string(), "row<`n` array<decimal(38, 8)>>");
    }
}
