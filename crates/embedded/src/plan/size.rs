//! How much values are: bytes, entries, letters, of what an array shows and no more, be it a slice of a longer one.

use datafusion::arrow::array::{Array, AsArray, OffsetSizeTrait};
use datafusion::arrow::datatypes::{DataType, Float64Type};

/// Bytes of an entry of a list beside its value: entries may be empty.
const ENTRY: usize = 8;

/// Bytes of its values. Of texts these are exactly their own.
pub(crate) fn size(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Utf8 => shown(array.as_string::<i32>().value_offsets()).1,
        DataType::LargeUtf8 => shown(array.as_string::<i64>().value_offsets()).1,
        DataType::Utf8View => array.as_string_view().iter().flatten().map(str::len).sum(),
        DataType::Binary => shown(array.as_binary::<i32>().value_offsets()).1,
        DataType::LargeBinary => shown(array.as_binary::<i64>().value_offsets()).1,
        DataType::List(_) => of_entries(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets()),
        DataType::LargeList(_) => of_entries(array.as_list::<i64>().values(), array.as_list::<i64>().value_offsets()),
        DataType::FixedSizeList(..) => size(array.as_fixed_size_list().values().as_ref()),
        DataType::Map(..) => of_entries(array.as_map().entries(), array.as_map().value_offsets()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|column| size(column.as_ref())).sum(),
        other => array.len() * other.primitive_width().unwrap_or(1),
    }
}

fn of_entries<O: OffsetSizeTrait>(values: &dyn Array, offsets: &[O]) -> usize {
    let (start, length) = shown(offsets);
    size(values.slice(start, length).as_ref()) + length * ENTRY
}

/// Where it begins, and how long it is.
fn shown<O: OffsetSizeTrait>(offsets: &[O]) -> (usize, usize) {
    let of = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
    let (start, end) = (of(offsets.first()), of(offsets.last()));
    (start, end.saturating_sub(start))
}

/// Entries of its lists, and of the lists in these: each list is one, too, as it may be null.
pub(super) fn entries(array: &dyn Array) -> usize {
    let within = |values: &dyn Array, (start, length): (usize, usize)| {
        array.len() + entries(values.slice(start, length).as_ref())
    };
    match array.data_type() {
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            within(lists.values(), shown(lists.value_offsets()))
        }
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            within(lists.values(), shown(lists.value_offsets()))
        }
        DataType::FixedSizeList(..) => array.len() + entries(array.as_fixed_size_list().values().as_ref()),
        _ => array.len(),
    }
}

/// Letters that the doubles in its lists take as text, all zeros among them: no exponent is written.
pub(super) fn digits(array: &dyn Array) -> usize {
    let within = |values: &dyn Array, (start, length): (usize, usize)| digits(values.slice(start, length).as_ref());
    match array.data_type() {
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            within(lists.values(), shown(lists.value_offsets()))
        }
        DataType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            within(lists.values(), shown(lists.value_offsets()))
        }
        DataType::FixedSizeList(..) => digits(array.as_fixed_size_list().values().as_ref()),
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().flatten().map(digits_of).sum(),
        _ => 0,
    }
}

fn digits_of(value: f64) -> usize {
    if value == 0.0 || !value.is_finite() {
        return 4;
    }
    // Seventeen that count, the point, the sign.
    20 + value.abs().log10().abs() as usize
}

/// The type of what is in the lists of lists.
pub(super) fn leaf(of: &DataType) -> &DataType {
    match of {
        DataType::List(of) | DataType::LargeList(of) | DataType::FixedSizeList(of, _) => leaf(of.data_type()),
        other => other,
    }
}

/// A text; empty where it is null, or none.
pub(super) fn text(array: &dyn Array, at: usize) -> &str {
    if array.is_null(at) {
        return "";
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(at),
        DataType::LargeUtf8 => array.as_string::<i64>().value(at),
        DataType::Utf8View => array.as_string_view().value(at),
        _ => "",
    }
}

/// Entries of a list, or bytes of a text: as many as it has letters, or more.
pub(super) fn parts(array: &dyn Array, at: usize) -> usize {
    if array.is_null(at) {
        return 0;
    }
    match array.data_type() {
        DataType::List(_) => shown(&array.as_list::<i32>().value_offsets()[at..at + 2]).1,
        DataType::LargeList(_) => shown(&array.as_list::<i64>().value_offsets()[at..at + 2]).1,
        DataType::FixedSizeList(_, length) => usize::try_from(*length).unwrap_or(0),
        _ => text(array, at).len(),
    }
}
