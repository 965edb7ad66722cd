//! The catalogue's types as arrow's, and back. Every column of a source may be null here: what a record does not say is null,
//! and a column that no query reads need not be decoded.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType as Arrow, Field, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::error::ArrowError;
use streamview_manager::catalog::{Column, DataType, Source};

/// Columns that every record has beside its value: not in `*`, but by name. A field of the record that is called so goes first
/// ([`hidden_names`]).
///
/// | name | type | |
/// |---|---|---|
/// | `_partition` | int | |
/// | `_offset` | bigint | |
/// | `_key` | string | null where there is none, or where it is not UTF-8 |
/// | `_timestamp` | timestamp(3) | the record's, UTC |
/// | `_headers` | map of strings | the last of a name; values that are not UTF-8 are null |
pub const HIDDEN: [&str; 5] = ["_partition", "_offset", "_key", "_timestamp", "_headers"];

/// A catalogue type as arrow has it.
///
/// | catalogue | arrow |
/// |---|---|
/// | decimal | `Decimal128` |
/// | time | `Time64` in microseconds |
/// | timestamp(0), (1-3), (4-6), (7-9) | `Timestamp` in s, ms, µs, ns, no zone (UTC is meant) |
/// | array | `List` of nullable `item` |
/// | map | `Map` of `entries`: `key` and nullable `value` |
pub fn to_arrow(of: &DataType) -> Arrow {
    match of {
        DataType::Boolean => Arrow::Boolean,
        DataType::Int => Arrow::Int32,
        DataType::BigInt => Arrow::Int64,
        DataType::Double => Arrow::Float64,
        DataType::Decimal { precision, scale } => {
            Arrow::Decimal128(*precision, i8::try_from(*scale).unwrap_or(i8::MAX))
        }
        DataType::String => Arrow::Utf8,
        DataType::Bytes => Arrow::Binary,
        DataType::Date => Arrow::Date32,
        DataType::Time => Arrow::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(digits) => Arrow::Timestamp(
            match digits {
                0 => TimeUnit::Second,
                1..=3 => TimeUnit::Millisecond,
                4..=6 => TimeUnit::Microsecond,
                _ => TimeUnit::Nanosecond,
            },
            None,
        ),
        DataType::Array(of) => Arrow::List(Arc::new(Field::new("item", to_arrow(of), true))),
        DataType::Map(of) => map_of(to_arrow(of)),
        DataType::Row(fields) => {
            let fields = fields.iter().map(|(name, of)| Field::new(name, to_arrow(of), true));
            Arrow::Struct(fields.collect())
        }
    }
}

fn map_of(value: Arrow) -> Arrow {
    let entries = Fields::from(vec![Field::new("key", Arrow::Utf8, false), Field::new("value", value, true)]);
    Arrow::Map(Arc::new(Field::new("entries", Arrow::Struct(entries), false)), false)
}

/// What a result of this type is called in the catalogue. Whatever arrow has more (unsigned, 8 bits, large text, intervals) is
/// the type that holds all its values; intervals and durations are text.
pub fn of_arrow(of: &Arrow) -> DataType {
    match of {
        Arrow::Boolean => DataType::Boolean,
        Arrow::Int8 | Arrow::Int16 | Arrow::Int32 | Arrow::UInt8 | Arrow::UInt16 => DataType::Int,
        Arrow::Int64 | Arrow::UInt32 | Arrow::UInt64 => DataType::BigInt,
        Arrow::Float16 | Arrow::Float32 | Arrow::Float64 => DataType::Double,
        Arrow::Decimal32(precision, scale)
        | Arrow::Decimal64(precision, scale)
        | Arrow::Decimal128(precision, scale)
        | Arrow::Decimal256(precision, scale) => {
            let scale = u8::try_from(*scale).unwrap_or(0);
            DataType::Decimal { precision: (*precision).min(38), scale: scale.min(38) }
        }
        Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => DataType::Bytes,
        Arrow::Date32 => DataType::Date,
        Arrow::Date64 => DataType::Timestamp(3),
        Arrow::Time32(_) | Arrow::Time64(_) => DataType::Time,
        Arrow::Timestamp(unit, _) => DataType::Timestamp(match unit {
            TimeUnit::Second => 0,
            TimeUnit::Millisecond => 3,
            TimeUnit::Microsecond => 6,
            TimeUnit::Nanosecond => 9,
        }),
        Arrow::List(of) | Arrow::LargeList(of) | Arrow::FixedSizeList(of, _) | Arrow::ListView(of) => {
            DataType::Array(Box::new(of_arrow(of.data_type())))
        }
        Arrow::Map(entries, _) => match entries.data_type() {
            Arrow::Struct(fields) if fields.len() == 2 => DataType::Map(Box::new(of_arrow(fields[1].data_type()))),
            _ => DataType::String,
        },
        Arrow::Struct(fields) => {
            DataType::Row(fields.iter().map(|field| (field.name().clone(), of_arrow(field.data_type()))).collect())
        }
        Arrow::Dictionary(_, of) => of_arrow(of),
        _ => DataType::String,
    }
}

/// What each of [`HIDDEN`] is called among the columns of this source: itself, or, where the record has a field of that name, what no
/// text can name. A control character is in no column's name, and the gate lets none pass.
pub fn hidden_names(source: &Source) -> [String; HIDDEN.len()] {
    HIDDEN.map(|name| {
        let is_taken = source.columns.iter().any(|column| column.name == name);
        if is_taken { format!("\u{2}{name}") } else { name.to_owned() }
    })
}

/// The schema of the batches that are pushed for this source: its columns, then [`HIDDEN`] under their names here.
pub fn of_source(source: &Source) -> SchemaRef {
    let own = source.columns.iter().map(|column| Field::new(&column.name, to_arrow(&column.data_type), true));
    let hidden = HIDDEN.iter().zip(hidden_names(source)).map(|(name, called)| {
        let of = match *name {
            "_partition" => Arrow::Int32,
            "_offset" => Arrow::Int64,
            "_timestamp" => Arrow::Timestamp(TimeUnit::Millisecond, None),
            "_headers" => map_of(Arrow::Utf8),
            _ => Arrow::Utf8,
        };
        Field::new(called, of, true)
    });
    Arc::new(Schema::new(own.chain(hidden).collect::<Vec<_>>()))
}

/// The schema of a table's batches: its columns, nothing hidden.
pub fn of_table(source: &Source) -> SchemaRef {
    let own = source.columns.iter().map(|column| Field::new(&column.name, to_arrow(&column.data_type), true));
    Arc::new(Schema::new(own.collect::<Vec<_>>()))
}

/// Columns of results as the catalogue says them.
pub fn columns_of(schema: &Schema) -> Vec<Column> {
    let column = |field: &Arc<Field>| Column {
        name: field.name().clone(),
        data_type: of_arrow(field.data_type()),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

/// The schema that results have when they are handed out: the catalogue's types only, all nullable.
pub fn canonical(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| Field::new(&column.name, to_arrow(&column.data_type), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// A batch of results under its [`canonical`] schema, whose types it has by its plan.
pub fn to_canonical(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), rows.columns().to_vec(), &options)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_catalogue_comes_back_as_it_was() {
        for text in [
            "boolean",
            "int",
            "bigint",
            "double",
            "decimal(38, 18)",
            "string",
            "bytes",
            "date",
            "time",
            "timestamp(0)",
            "timestamp(3)",
            "timestamp(6)",
            "timestamp(9)",
            "array<map<string, decimal(5, 1)>>",
            "row<`a` int, `b` array<row<`c` string>>>",
        ] {
            let of: DataType = text.parse().unwrap();
            assert_eq!(of_arrow(&to_arrow(&of)), of, "{text}");
        }
    }

    #[test]
    fn what_arrow_has_more_becomes_what_holds_it() {
        for (arrow, expected) in [
            (Arrow::UInt32, DataType::BigInt),
            (Arrow::Utf8View, DataType::String),
            (Arrow::Float32, DataType::Double),
            (Arrow::Duration(TimeUnit::Second), DataType::String),
            (Arrow::Decimal256(76, 10), DataType::Decimal { precision: 38, scale: 10 }),
        ] {
            assert_eq!(of_arrow(&arrow), expected);
        }
    }
}
