//! Functions of ours for text that is JSON: `json_get(json, key, …)` and its kin. A key is a name in an object, or a number from 0 in
//! an array. What is not there, is of another kind, or is no JSON at all is null; nothing fails.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{Result, plan_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What one of them gives of the value that its keys lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Gives {
    /// The value as JSON text.
    Json,
    /// A text, if it is one.
    Text,
    /// A whole number of 64 bits, if it is one.
    Whole,
    /// A number, if it is one.
    Number,
    /// True or false, if it is one of them.
    Truth,
    /// How many entries an array has, or fields an object.
    Length,
    /// Whether there is one.
    Contains,
}

const ALL: [(&str, Gives); 7] = [
    ("json_get", Gives::Json),
    ("json_get_str", Gives::Text),
    ("json_get_int", Gives::Whole),
    ("json_get_float", Gives::Number),
    ("json_get_bool", Gives::Truth),
    ("json_length", Gives::Length),
    ("json_contains", Gives::Contains),
];

pub(crate) fn register(state: &mut SessionState) -> Result<()> {
    for (name, gives) in ALL {
        let signature = Signature::variadic_any(Volatility::Immutable);
        state.register_udf(Arc::new(ScalarUDF::new_from_impl(Json { name, gives, signature })))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Json {
    name: &'static str,
    gives: Gives,
    signature: Signature,
}

/// A key, for each row or for all.
enum Key {
    Name(StringArray),
    Place(Int64Array),
}

impl ScalarUDFImpl for Json {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let Some((json, keys)) = arguments.split_first() else {
            return plan_err!("`{}` wants a text that is JSON", self.name);
        };
        if !is_text(json) {
            return plan_err!("`{}` wants a text that is JSON as its first argument, not {json}", self.name);
        }
        let needs_keys = !matches!(self.gives, Gives::Length);
        if needs_keys && keys.is_empty() {
            return plan_err!(
                "`{}` wants keys after the JSON: names of fields, or numbers from 0 in arrays",
                self.name
            );
        }
        if let Some(other) = keys.iter().find(|key| !is_text(key) && !key.is_integer()) {
            return plan_err!("`{}` wants names or whole numbers as keys, not {other}", self.name);
        }
        Ok(match self.gives {
            Gives::Json | Gives::Text => DataType::Utf8,
            Gives::Whole | Gives::Length => DataType::Int64,
            Gives::Number => DataType::Float64,
            Gives::Truth | Gives::Contains => DataType::Boolean,
        })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = arguments.number_rows;
        let mut columns = arguments.args.iter().map(|argument| argument.to_array(rows));
        let Some(json) = columns.next() else { return plan_err!("`{}` wants a text that is JSON", self.name) };
        let json = cast(&json?, &DataType::Utf8)?;
        let json = json.as_string::<i32>();
        let keys = columns.map(|key| of_key(&key?)).collect::<Result<Vec<_>>>()?;
        let found = |row: usize| {
            let at = json.is_valid(row).then(|| json.value(row))?;
            keys.iter().try_fold(at, |at, key| step(at, key, row))
        };
        let values: ArrayRef = match self.gives {
            Gives::Json => {
                Arc::new((0..rows).map(|row| found(row).filter(|raw| is_json(raw))).collect::<StringArray>())
            }
            Gives::Text => Arc::new((0..rows).map(|row| serde_json::from_str(found(row)?).ok()).collect::<Texts>().0),
            Gives::Whole => {
                Arc::new((0..rows).map(|row| serde_json::from_str(found(row)?).ok()).collect::<Int64Array>())
            }
            Gives::Number => {
                Arc::new((0..rows).map(|row| serde_json::from_str(found(row)?).ok()).collect::<Float64Array>())
            }
            Gives::Truth => {
                Arc::new((0..rows).map(|row| serde_json::from_str(found(row)?).ok()).collect::<BooleanArray>())
            }
            Gives::Length => Arc::new((0..rows).map(|row| length(found(row)?)).collect::<Int64Array>()),
            // Of no text it is not known.
            Gives::Contains => Arc::new(
                (0..rows)
                    .map(|row| json.is_valid(row).then(|| found(row).is_some_and(is_json)))
                    .collect::<BooleanArray>(),
            ),
        };
        Ok(ColumnarValue::Array(values))
    }
}

/// Texts that own what they hold.
struct Texts(StringArray);

impl FromIterator<Option<String>> for Texts {
    fn from_iter<I: IntoIterator<Item = Option<String>>>(texts: I) -> Texts {
        Texts(texts.into_iter().collect())
    }
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

fn is_json(raw: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(raw).is_ok()
}

fn of_key(key: &ArrayRef) -> Result<Key> {
    Ok(match is_text(key.data_type()) {
        true => Key::Name(cast(key, &DataType::Utf8)?.as_string::<i32>().clone()),
        false => Key::Place(cast(key, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
    })
}

/// The value under a key, as it stands in the text.
fn step<'j>(raw: &'j str, key: &Key, row: usize) -> Option<&'j str> {
    let mut reader = serde_json::Deserializer::from_str(raw);
    let (found, end) = match key {
        Key::Name(names) => {
            let name = names.is_valid(row).then(|| names.value(row))?;
            (reader.deserialize_map(Field(name)).ok()?, reader.end())
        }
        Key::Place(places) => {
            let place = places.is_valid(row).then(|| places.value(row))?;
            (reader.deserialize_seq(Entry(usize::try_from(place).ok()?)).ok()?, reader.end())
        }
    };
    end.ok()?;
    found.map(RawValue::get)
}

fn length(raw: &str) -> Option<i64> {
    let mut reader = serde_json::Deserializer::from_str(raw);
    let counted = match raw.trim_start().starts_with('{') {
        true => reader.deserialize_map(Count).ok()?,
        false => reader.deserialize_seq(Count).ok()?,
    };
    reader.end().ok()?;
    Some(counted)
}

/// The field of this name; of a name that stands there twice, the last one.
struct Field<'n>(&'n str);

impl<'j> Visitor<'j> for Field<'_> {
    type Value = Option<&'j RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'j>>(self, mut fields: M) -> Result<Self::Value, M::Error> {
        let mut found = None;
        while let Some(is_it) = fields.next_key_seed(IsIt(self.0))? {
            if is_it {
                found = Some(fields.next_value()?);
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a name is this one.
struct IsIt<'n>(&'n str);

impl<'j> DeserializeSeed<'j> for IsIt<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsIt<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// The entry at this place.
struct Entry(usize);

impl<'j> Visitor<'j> for Entry {
    type Value = Option<&'j RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'j>>(self, mut entries: S) -> Result<Self::Value, S::Error> {
        let (mut found, mut at) = (None, 0);
        loop {
            if at == self.0 {
                found = entries.next_element()?;
                if found.is_none() {
                    return Ok(None);
                }
            } else if entries.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            at += 1;
        }
    }
}

struct Count;

impl<'j> Visitor<'j> for Count {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_map<M: MapAccess<'j>>(self, mut fields: M) -> Result<i64, M::Error> {
        let mut count = 0;
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn visit_seq<S: SeqAccess<'j>>(self, mut entries: S) -> Result<i64, S::Error> {
        let mut count = 0;
        while entries.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}
