//! Columns by the schemas of a registry: Avro, and JSON Schema. What has no type here is left out.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{Column, DataType};

/// How deep types may nest, and references be followed.
const MAX_DEPTH: usize = 16;
/// Most columns.
const MAX_COLUMNS: usize = 1_000;
/// Most types in all, nested ones among them: a schema that refers to its parts often grows with each level.
const MAX_TYPES: usize = 5_000;

/// The columns of an Avro record; `references` are the schemas that it refers to.
pub fn columns_of_avro(schema: &str, references: &[String]) -> Result<Vec<Column>, String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| format!("no Avro schema: {error}"));
    let (root, others) = (parse(schema)?, references.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?);
    let mut avro = Avro { named: HashMap::new(), growth: Growth::default() };
    others.iter().chain([&root]).for_each(|schema| avro.learn(schema, "", 0));
    if !matches!(text(&root, "type"), "record" | "error") {
        return Err("its Avro schema is no record".to_owned());
    }
    let found = avro.growth.once(&root, || avro.fields(&root, "", 0)).unwrap_or_default();
    columns(found, &avro.growth)
}

/// The columns of an object by its JSON Schema.
pub fn columns_of_json_schema(schema: &str) -> Result<Vec<Column>, String> {
    let root: Value = serde_json::from_str(schema).map_err(|error| format!("no JSON Schema: {error}"))?;
    let json = Json { root: &root, growth: Growth::default() };
    let found = json.fields(&root, 0);
    columns(found, &json.growth)
}

fn columns(columns: Vec<Column>, growth: &Growth) -> Result<Vec<Column>, String> {
    if growth.is_over.get() {
        return Err(format!("its schema is too large: written out it has more than {MAX_TYPES} types"));
    }
    match columns.len() {
        0 => Err("its schema has no fields that can be columns".to_owned()),
        1..=MAX_COLUMNS => Ok(columns),
        more => Err(format!("its schema has {more} fields, more than {MAX_COLUMNS}")),
    }
}

fn text<'v>(schema: &'v Value, key: &str) -> &'v str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// How much has been written out of a schema, and what is being written out. Depth alone bounds nothing: four fields of a
/// record's own type, sixteen levels deep, are four thousand million types.
#[derive(Default)]
struct Growth {
    types: Cell<usize>,
    is_over: Cell<bool>,
    /// By address: the schema outlives its being read.
    open: RefCell<Vec<*const Value>>,
}

impl Growth {
    /// Counts so many types; `false` if they are too many.
    fn takes(&self, more: usize) -> bool {
        let types = self.types.get().saturating_add(more);
        self.types.set(types);
        self.is_over.set(self.is_over.get() || types > MAX_TYPES);
        !self.is_over.get()
    }

    /// What `write` writes out of `schema`; `None` within itself, for what holds itself has no type.
    fn once<T>(&self, schema: &Value, write: impl FnOnce() -> T) -> Option<T> {
        let address: *const Value = schema;
        if self.open.borrow().contains(&address) {
            return None;
        }
        self.open.borrow_mut().push(address);
        let written = write();
        self.open.borrow_mut().pop();
        Some(written)
    }
}

struct Avro<'s> {
    /// Types by their full names, with the namespace that they stand in.
    named: HashMap<String, (&'s Value, String)>,
    growth: Growth,
}

impl<'s> Avro<'s> {
    fn learn(&mut self, schema: &'s Value, namespace: &str, depth: usize) {
        if depth > MAX_DEPTH * 4 {
            return;
        }
        match schema {
            Value::Array(variants) => variants.iter().for_each(|variant| self.learn(variant, namespace, depth + 1)),
            Value::Object(object) => {
                let own = full_name(schema, namespace);
                let inner = own.rsplit_once('.').map_or(namespace, |(namespace, _)| namespace).to_owned();
                if object.contains_key("name") && object.contains_key("type") {
                    self.named.entry(own).or_insert((schema, inner.clone()));
                }
                for key in ["type", "items", "values"] {
                    if let Some(of) = object.get(key) {
                        self.learn(of, &inner, depth + 1);
                    }
                }
                for field in object.get("fields").and_then(Value::as_array).into_iter().flatten() {
                    if let Some(of) = field.get("type") {
                        self.learn(of, &inner, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }

    /// The type, and whether it may be missing.
    fn data_type(&self, schema: &Value, namespace: &str, depth: usize) -> Option<(DataType, bool)> {
        if depth > MAX_DEPTH || !self.growth.takes(1) {
            return None;
        }
        let certain = |data_type| Some((data_type, false));
        match schema {
            Value::String(name) => match name.as_str() {
                "boolean" => certain(DataType::Boolean),
                "int" => certain(DataType::Int),
                "long" => certain(DataType::BigInt),
                "float" | "double" => certain(DataType::Double),
                "string" => certain(DataType::String),
                "bytes" => certain(DataType::Bytes),
                name => {
                    let full = if name.contains('.') || namespace.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{namespace}.{name}")
                    };
                    let (found, inner) = self.named.get(&full).or_else(|| self.named.get(name))?;
                    self.data_type(found, inner, depth + 1)
                }
            },
            Value::Array(variants) => {
                let mut others = variants.iter().filter(|variant| **variant != "null");
                let (only, more) = (others.next()?, others.next());
                let (data_type, nullable) = self.data_type(only, namespace, depth + 1)?;
                more.is_none().then_some((data_type, nullable || variants.len() > 1))
            }
            Value::Object(_) => self.complex(schema, namespace, depth),
            _ => None,
        }
    }

    fn complex(&self, schema: &Value, namespace: &str, depth: usize) -> Option<(DataType, bool)> {
        let number = |key: &str| schema.get(key).and_then(Value::as_u64);
        let logical = match text(schema, "logicalType") {
            "decimal" => match (u8::try_from(number("precision")?), u8::try_from(number("scale").unwrap_or(0))) {
                (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision => {
                    Some(DataType::Decimal { precision, scale })
                }
                _ => return None,
            },
            // Each value has a scale of its own.
            "big-decimal" => return None,
            "uuid" => Some(DataType::String),
            "date" => Some(DataType::Date),
            "time-millis" | "time-micros" => Some(DataType::Time),
            "timestamp-millis" | "local-timestamp-millis" => Some(DataType::Timestamp(3)),
            "timestamp-micros" | "local-timestamp-micros" => Some(DataType::Timestamp(6)),
            "timestamp-nanos" | "local-timestamp-nanos" => Some(DataType::Timestamp(9)),
            _ => None,
        };
        if let Some(logical) = logical {
            return Some((logical, false));
        }
        let of = |key: &str| Some(Box::new(self.data_type(schema.get(key)?, namespace, depth + 1)?.0));
        let data_type = match text(schema, "type") {
            "record" | "error" => {
                let fields = self.growth.once(schema, || self.fields(schema, namespace, depth))?;
                DataType::Row(fields.into_iter().map(|field| (field.name, field.data_type)).collect())
            }
            "enum" => DataType::String,
            "fixed" => DataType::Bytes,
            "array" => DataType::Array(of("items")?),
            "map" => DataType::Map(of("values")?),
            _ => return self.data_type(schema.get("type")?, namespace, depth + 1),
        };
        Some((data_type, false))
    }

    fn fields(&self, record: &Value, namespace: &str, depth: usize) -> Vec<Column> {
        let full = full_name(record, namespace);
        let inner = full.rsplit_once('.').map_or(namespace, |(namespace, _)| namespace);
        let fields = record.get("fields").and_then(Value::as_array).into_iter().flatten();
        let column = |field: &Value| {
            let (data_type, nullable) = self.data_type(field.get("type")?, inner, depth + 1)?;
            Some(Column { name: text(field, "name").to_owned(), data_type, nullable })
        };
        fields.filter_map(column).collect()
    }
}

fn full_name(schema: &Value, namespace: &str) -> String {
    let (name, own) = (text(schema, "name"), text(schema, "namespace"));
    match (name.contains('.'), if own.is_empty() { namespace } else { own }) {
        (true, _) | (_, "") => name.to_owned(),
        (false, namespace) => format!("{namespace}.{name}"),
    }
}

/// A JSON Schema with the root that its references point into.
struct Json<'s> {
    root: &'s Value,
    growth: Growth,
}

impl<'s> Json<'s> {
    fn fields(&self, schema: &'s Value, depth: usize) -> Vec<Column> {
        let schema = self.resolved(schema);
        self.growth.once(schema, || self.properties(schema, depth)).unwrap_or_default()
    }

    fn properties(&self, schema: &'s Value, depth: usize) -> Vec<Column> {
        let properties = schema.get("properties").and_then(Value::as_object);
        let required = schema.get("required").and_then(Value::as_array);
        // Before they are put in order: a wide object may be referred to often.
        if !self.growth.takes(properties.map_or(0, serde_json::Map::len) + required.map_or(0, Vec::len)) {
            return Vec::new();
        }
        let required: HashSet<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
        // Kafka Connect says in which order they are.
        let mut ordered: Vec<_> = properties.into_iter().flatten().collect();
        ordered.sort_by_key(|(_, of)| of.get("connect.index").and_then(Value::as_u64).unwrap_or(u64::MAX));
        let column = |(name, of): (&'s String, &'s Value)| {
            let (data_type, nullable) = self.data_type(of, depth + 1)?;
            let nullable = nullable || !required.contains(name.as_str());
            Some(Column { name: name.clone(), data_type, nullable })
        };
        ordered.into_iter().filter_map(column).collect()
    }

    fn resolved(&self, schema: &'s Value) -> &'s Value {
        let mut found = schema;
        for _ in 0..MAX_DEPTH {
            match found.get("$ref").and_then(Value::as_str).and_then(|url| url.strip_prefix('#')) {
                Some(fragment) => found = self.pointed_at(fragment).unwrap_or(&Value::Null),
                None => break,
            }
        }
        found
    }

    /// What the fragment of a reference points at: as it stands, which not all who write schemas encode, else decoded.
    fn pointed_at(&self, fragment: &str) -> Option<&'s Value> {
        self.root.pointer(fragment).or_else(|| self.root.pointer(&decoded(fragment)?))
    }

    fn data_type(&self, schema: &'s Value, depth: usize) -> Option<(DataType, bool)> {
        if depth > MAX_DEPTH || !self.growth.takes(1) {
            return None;
        }
        let schema = self.resolved(schema);
        // Of one, `allOf` is how a reference is given a description of its own; beside a type it only bounds what is there.
        let is_typed = ["type", "properties"].iter().any(|key| schema.get(*key).is_some());
        let keys: &[&str] = if is_typed { &["oneOf", "anyOf"] } else { &["oneOf", "anyOf", "allOf"] };
        if let Some(variants) = keys.iter().find_map(|key| schema.get(*key)?.as_array()) {
            let mut others = variants.iter().filter(|variant| text(variant, "type") != "null");
            let (only, more) = (others.next()?, others.next());
            let (data_type, nullable) = self.data_type(only, depth + 1)?;
            return more.is_none().then_some((data_type, nullable || variants.len() > 1));
        }
        let (word, nullable) = match schema.get("type") {
            Some(Value::String(word)) => (word.as_str(), false),
            Some(Value::Array(words)) => {
                let mut others = words.iter().filter(|word| **word != "null").filter_map(Value::as_str);
                let (only, more) = (others.next()?, others.next());
                (more.is_none().then_some(only)?, words.len() > 1)
            }
            _ if schema.get("properties").is_some() => ("object", false),
            _ => return None,
        };
        Some((self.of_word(schema, word, depth)?, nullable))
    }

    fn of_word(&self, schema: &'s Value, word: &str, depth: usize) -> Option<DataType> {
        let of = |key: &str| Some(Box::new(self.data_type(schema.get(key)?, depth + 1)?.0));
        Some(match word {
            "boolean" => DataType::Boolean,
            "integer" => match (text(schema, "connect.type"), bounds(schema)) {
                ("int8" | "int16" | "int32", _) | ("", Some(true)) => DataType::Int,
                _ => DataType::BigInt,
            },
            // Decimals of Kafka Connect among them: whether these are numbers or base64 their schema does not say.
            "number" => DataType::Double,
            "string" => match text(schema, "format") {
                "date" => DataType::Date,
                // Microseconds are what most clocks have, and reach over all years that can be written.
                "date-time" => DataType::Timestamp(6),
                // A time of day has a zone there (RFC 3339), and none in a column.
                _ => DataType::String,
            },
            "array" => DataType::Array(of("items")?),
            "object" if schema.get("properties").is_some() => {
                let fields = self.growth.once(schema, || self.properties(schema, depth))?;
                DataType::Row(fields.into_iter().map(|field| (field.name, field.data_type)).collect())
            }
            "object" => DataType::Map(of("additionalProperties")?),
            _ => return None,
        })
    }
}

/// A pointer that stands in the fragment of a URI (RFC 6901, section 6): each `%` and two digits are a byte of it. `None` where that
/// is no text.
fn decoded(fragment: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut parts = fragment.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let [high, low, rest @ ..] = part.as_bytes() else { return None };
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        bytes.extend_from_slice(rest);
    }
    String::from_utf8(bytes).ok()
}

/// Whether its bounds say that 32 bits hold it; `None` if it has none.
fn bounds(schema: &Value) -> Option<bool> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
    let (low, high) = (bound("minimum")?, bound("maximum")?);
    Some(i32::try_from(low).is_ok() && i32::try_from(high).is_ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(columns: Vec<Column>) -> Vec<String> {
        let show = |column: Column| {
            format!("{} {}{}", column.name, column.data_type, if column.nullable { "" } else { " not null" })
        };
        columns.into_iter().map(show).collect()
    }

    #[test]
    fn an_avro_record_is_columns_whatever_it_refers_to() {
        let money = r#"{"type":"record","name":"Money","namespace":"shop.types","fields":[
            {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}}]}"#;
        let order = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
            {"name":"ORDER_ID","type":"long"},
            {"name":"state","type":{"type":"enum","name":"State","symbols":["NEW"]}},
            {"name":"before","type":["null","State"]},
            {"name":"total","type":["null","shop.types.Money"],"default":null},
            {"name":"tags","type":{"type":"map","values":{"type":"array","items":"string"}}},
            {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
            {"name":"either","type":["int","string"]},
            {"name":"parent","type":["null","Order"]},
            {"name":"raw","type":{"type":"fixed","name":"Raw","size":4}}]}"#;
        let columns = shown(columns_of_avro(order, &[money.to_owned()]).unwrap());
        let without_parent: Vec<&str> =
            columns.iter().map(String::as_str).filter(|column| !column.starts_with("parent")).collect();
        let expected = [
            "ORDER_ID bigint not null",
            "state string not null",
            "before string",
            "total row<`amount` decimal(10, 2)>",
            "tags map<string, array<string>> not null",
            "at timestamp(6) not null",
            "raw bytes not null",
        ];
        assert_eq!(without_parent, expected);
        assert!(columns_of_avro("\"string\"", &[]).is_err() && columns_of_avro("{", &[]).is_err());
    }

    #[test]
    fn an_object_of_json_schema_is_columns() {
        let schema = r##"{"type":"object","required":["ORDER_ID","at"],"definitions":{"p":{"type":"string"}},"properties":{
            "ORDER_ID":{"type":"integer","connect.index":0},
            "AMOUNT":{"type":["number","null"],"connect.index":1},
            "small":{"type":"integer","minimum":0,"maximum":100},
            "name":{"$ref":"#/definitions/p"},
            "at":{"oneOf":[{"type":"null"},{"type":"string","format":"date-time"}]},
            "clock":{"type":"string","format":"time"},
            "told":{"allOf":[{"$ref":"#/definitions/p"}],"description":"its own"},
            "short":{"type":"string","allOf":[{"minLength":1},{"maxLength":9}]},
            "whole":{"properties":{"a":{"type":"boolean"}},"allOf":[{"properties":{"b":{"type":"boolean"}}}]},
            "lines":{"type":"array","items":{"type":"object","properties":{"a":{"type":"boolean"}}}},
            "any":{}}}"##;
        let expected = [
            "ORDER_ID bigint not null",
            "AMOUNT double",
            "at timestamp(6)",
            "clock string",
            "lines array<row<`a` boolean>>",
            "name string",
            "short string",
            "small int",
            "told string",
            "whole row<`a` boolean>",
        ];
        assert_eq!(shown(columns_of_json_schema(schema).unwrap()), expected);
        assert!(columns_of_json_schema("{}").is_err());
    }

    #[test]
    fn a_reference_is_a_fragment_of_a_uri_and_may_be_encoded() {
        let schema = r##"{"$ref":"#/definitions/Page%3COrder%3E","definitions":{
            "Page<Order>":{"properties":{
                "a":{"$ref":"#/definitions/Gr%C3%B6%C3%9Fe"},
                "b":{"$ref":"#/definitions/Größe"},
                "c":{"$ref":"#/definitions/a~1b%20%25"},
                "d":{"$ref":"#/definitions/as%20it%20stands"},
                "e":{"$ref":"#/definitions/half%2"},
                "f":{"$ref":"#/definitions/none%FF"}}},
            "Größe":{"type":"integer"},
            "a/b %":{"type":"string"},
            "as%20it%20stands":{"type":"boolean"},
            "as it stands":{"type":"string"},
            "half%2":{"type":"number"}}}"##;
        let expected = ["a bigint", "b bigint", "c string", "d boolean", "e double"];
        assert_eq!(shown(columns_of_json_schema(schema).unwrap()), expected);
    }

    #[test]
    fn schemas_that_refer_to_themselves_end() {
        let avro =
            r#"{"type":"record","name":"N","fields":[{"name":"n","type":["null","N"]},{"name":"a","type":"int"}]}"#;
        assert!(columns_of_avro(avro, &[]).unwrap().iter().any(|column| column.name == "a"));
        let json = r##"{"properties":{"a":{"type":"integer"},"n":{"$ref":"#"},"l":{"$ref":"#/properties/l"}}}"##;
        assert!(columns_of_json_schema(json).unwrap().iter().any(|column| column.name == "a"));
        let trees = r##"{"properties":{"a":{"$ref":"#"},"b":{"$ref":"#"},"c":{"$ref":"#"},"d":{"$ref":"#"},"v":{"type":"string"}}}"##;
        assert_eq!(shown(columns_of_json_schema(trees).unwrap()), ["v string"]);
        let of = |name: &str| format!(r#"{{"name":"{name}","type":["null","N"]}}"#);
        let fields =
            "abcdefghijklmnopqrstuvwxyz".chars().map(|name| of(&name.to_string())).collect::<Vec<_>>().join(",");
        let tree = format!(r#"{{"type":"record","name":"N","fields":[{fields},{{"name":"value","type":"string"}}]}}"#);
        assert_eq!(shown(columns_of_avro(&tree, &[]).unwrap()), ["value string not null"]);
    }

    #[test]
    fn schemas_that_grow_with_each_level_are_too_large() {
        let level = |number: u32| {
            let next = (0..8).map(|at| format!(r##""{at}":{{"$ref":"#/$defs/{}"}}"##, number + 1)).collect::<Vec<_>>();
            format!(r#""{number}":{{"properties":{{{}}}}}"#, next.join(","))
        };
        let levels = (0..14).map(level).collect::<Vec<_>>().join(",");
        let json = format!(
            r##"{{"properties":{{"a":{{"$ref":"#/$defs/0"}}}},"$defs":{{{levels},"14":{{"type":"string"}}}}}}"##
        );
        assert!(columns_of_json_schema(&json).unwrap_err().contains("too large"));
        let level = |number: u32| {
            let next = (0..8).map(|at| format!(r#"{{"name":"f{at}","type":"L{}"}}"#, number + 1)).collect::<Vec<_>>();
            format!(r#"{{"type":"record","name":"L{number}","fields":[{}]}}"#, next.join(","))
        };
        let levels: Vec<String> = (1..8).map(level).collect();
        assert!(columns_of_avro(&level(0), &levels).unwrap_err().contains("too large"));
    }
}
