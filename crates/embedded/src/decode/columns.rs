//! Columns as they are filled, in the types of [`crate::schema::to_arrow`].

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder,
    ListArray, MapArray, StringBuilder, StructArray, make_array,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::{DataType as Arrow, Fields};
use datafusion::arrow::error::ArrowError;
use streamview_manager::catalog::DataType;

use super::cell::Cell;
use crate::schema;

/// A column that is filled.
pub(super) enum Build {
    Bool(BooleanBuilder),
    Int(Int32Builder),
    /// 64 bits, and what is counted in them.
    Whole(Int64Builder, Arrow),
    Days(Int32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder, Arrow),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    List(Nested),
    Map(Nested),
    Row(Nested),
}

/// A column of several values each: which rows are there, how many values each has, and the values.
pub(super) struct Nested {
    of: Arrow,
    is_there: Vec<bool>,
    lengths: Vec<usize>,
    parts: Vec<Build>,
}

impl Nested {
    fn new(of: &DataType, parts: Vec<Build>) -> Nested {
        Nested { of: schema::to_arrow(of), is_there: Vec::new(), lengths: Vec::new(), parts }
    }

    fn push(&mut self, length: Option<usize>) {
        self.is_there.push(length.is_some());
        self.lengths.push(length.unwrap_or_default());
    }

    fn nulls(&mut self) -> Option<NullBuffer> {
        Some(NullBuffer::from(std::mem::take(&mut self.is_there)))
    }

    fn offsets(&mut self) -> OffsetBuffer<i32> {
        OffsetBuffer::from_lengths(std::mem::take(&mut self.lengths))
    }

    fn parts(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        self.parts.iter_mut().map(Build::take).collect()
    }
}

impl Build {
    pub fn new(of: &DataType) -> Build {
        match of {
            DataType::Boolean => Build::Bool(BooleanBuilder::new()),
            DataType::Int => Build::Int(Int32Builder::new()),
            DataType::BigInt | DataType::Time | DataType::Timestamp(_) => {
                Build::Whole(Int64Builder::new(), schema::to_arrow(of))
            }
            DataType::Date => Build::Days(Int32Builder::new()),
            DataType::Double => Build::Double(Float64Builder::new()),
            DataType::Decimal { .. } => Build::Decimal(Decimal128Builder::new(), schema::to_arrow(of)),
            DataType::String => Build::Text(StringBuilder::new()),
            DataType::Bytes => Build::Bytes(BinaryBuilder::new()),
            DataType::Array(item) => Build::List(Nested::new(of, vec![Build::new(item)])),
            DataType::Map(value) => Build::Map(Nested::new(of, vec![Build::new(&DataType::String), Build::new(value)])),
            DataType::Row(fields) => Build::Row(Nested::new(of, fields.iter().map(|(_, of)| Build::new(of)).collect())),
        }
    }

    /// Adds a value that was read for this column. What is of another kind is null: there is none, see [`super::cell::cell`].
    pub fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Build::Bool(build), Cell::Bool(value)) => build.append_value(value),
            (Build::Int(build) | Build::Days(build), Cell::Whole(value)) => {
                build.append_option(i32::try_from(value).ok());
            }
            (Build::Whole(build, _), Cell::Whole(value)) => build.append_value(value),
            (Build::Double(build), Cell::Double(value)) => build.append_value(value),
            (Build::Decimal(build, _), Cell::Decimal(value)) => build.append_value(value),
            (Build::Text(build), Cell::Text(value)) => build.append_value(value),
            (Build::Bytes(build), Cell::Bytes(value)) => build.append_value(value),
            (Build::List(nested), Cell::List(cells)) => {
                nested.push(Some(cells.len()));
                cells.into_iter().for_each(|cell| nested.parts[0].push(cell));
            }
            (Build::Map(nested), Cell::Map(entries)) => {
                nested.push(Some(entries.len()));
                for (name, cell) in entries {
                    nested.parts[0].push(Cell::Text(name.into()));
                    nested.parts[1].push(cell);
                }
            }
            (Build::Row(nested), Cell::Row(cells)) => {
                nested.push(Some(1));
                nested.parts.iter_mut().zip(cells).for_each(|(part, cell)| part.push(cell));
            }
            (build, _) => build.push_null(),
        }
    }

    fn push_null(&mut self) {
        match self {
            Build::Bool(build) => build.append_null(),
            Build::Int(build) | Build::Days(build) => build.append_null(),
            Build::Whole(build, _) => build.append_null(),
            Build::Double(build) => build.append_null(),
            Build::Decimal(build, _) => build.append_null(),
            Build::Text(build) => build.append_null(),
            Build::Bytes(build) => build.append_null(),
            Build::List(nested) | Build::Map(nested) => nested.push(None),
            Build::Row(nested) => {
                nested.push(None);
                nested.parts.iter_mut().for_each(Build::push_null);
            }
        }
    }

    /// Takes what was added.
    pub fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Build::Bool(build) => Arc::new(build.finish()),
            Build::Int(build) => Arc::new(build.finish()),
            Build::Days(build) => counted(&build.finish(), &Arrow::Date32)?,
            Build::Whole(build, of) => counted(&build.finish(), of)?,
            Build::Double(build) => Arc::new(build.finish()),
            Build::Decimal(build, of) => Arc::new(build.finish().with_data_type(of.clone())),
            Build::Text(build) => Arc::new(build.finish()),
            Build::Bytes(build) => Arc::new(build.finish()),
            Build::List(nested) => {
                let Arrow::List(item) = nested.of.clone() else { return Err(no_such_type(&nested.of)) };
                let (nulls, offsets, mut parts) = (nested.nulls(), nested.offsets(), nested.parts()?);
                Arc::new(ListArray::try_new(item, offsets, parts.remove(0), nulls)?)
            }
            Build::Map(nested) => {
                let Arrow::Map(entries, is_sorted) = nested.of.clone() else { return Err(no_such_type(&nested.of)) };
                let (nulls, offsets) = (nested.nulls(), nested.offsets());
                let of_entries = StructArray::try_new(fields(entries.data_type())?, nested.parts()?, None)?;
                Arc::new(MapArray::try_new(entries, offsets, of_entries, nulls, is_sorted)?)
            }
            Build::Row(nested) => {
                let (rows, nulls) = (nested.is_there.len(), nested.nulls());
                nested.lengths.clear();
                let (fields, parts) = (fields(&nested.of)?, nested.parts()?);
                Arc::new(StructArray::try_new_with_length(fields, parts, nulls, rows)?)
            }
        })
    }
}

/// Numbers as what they count.
fn counted(numbers: &dyn Array, of: &Arrow) -> Result<ArrayRef, ArrowError> {
    Ok(make_array(numbers.to_data().into_builder().data_type(of.clone()).build()?))
}

fn fields(of: &Arrow) -> Result<Fields, ArrowError> {
    match of {
        Arrow::Struct(fields) => Ok(fields.clone()),
        other => Err(no_such_type(other)),
    }
}

fn no_such_type(of: &Arrow) -> ArrowError {
    ArrowError::SchemaError(format!("{of} is not what it was made for"))
}
