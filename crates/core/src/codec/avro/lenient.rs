//! Takes out of a writer's schema what the specification forbids and Java's and Python's Avro let through, so that a strict
//! parser reads it. Pure.
//!
//! | what they let through | why it is there | what is done |
//! |---|---|---|
//! | namespaces of any letters (`com.my-shop`, `com.shop.Outer$`) | Java never looks at them | other letters for the parser, its own name for everybody else |
//! | names and symbols of any letters | Java takes all of Unicode's, and anything with validation off; `fastavro` likewise | the same |
//! | a default of another type, or of no branch of its union, or an enum's that is no symbol | Java before 1.9, with `setValidateDefaults(false)`, and Python look at none | left out: a writer's default says nothing of what was written |
//! | `"type": "error"` | Java reads it as a record | `record` |
//! | a `logicalType` that is no text | Java passes over it | left out |
//! | a named type as the `type` of another name | Java's parser takes the inner one | the inner one |
//!
//! Documentation, order and aliases of the writer are left out too: nobody asks for them.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};

/// Schemas in the letters of the specification, and what their names were.
#[derive(Debug, Default)]
pub struct Plain {
    originals: HashMap<String, String>,
    /// How deep all schemas so far are, added up.
    pub levels: usize,
}

impl Plain {
    /// The schema as the strict parser takes it. What is no JSON comes back as it is: the parser says what is wrong.
    pub fn of(&mut self, text: &str) -> String {
        let Ok(mut schema) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
        // The parser of schemas that refer to each other panics where the outer name is the one that is referred to.
        while let Some(inner) = schema.get_mut("type").filter(|inner| inner.get("name").is_some()) {
            schema = inner.take();
        }
        self.levels += levels(&schema);
        self.schema(&mut schema);
        schema.to_string()
    }

    /// The name that the writer gave.
    pub fn original<'n>(&'n self, name: &'n str) -> &'n str {
        self.originals.get(name).map_or(name, String::as_str)
    }

    fn schema(&mut self, schema: &mut Value) {
        match schema {
            Value::String(name) => self.full_name(name),
            Value::Array(branches) => branches.iter_mut().for_each(|branch| self.schema(branch)),
            Value::Object(schema) => self.object(schema),
            _ => {}
        }
    }

    fn object(&mut self, schema: &mut Map<String, Value>) {
        for unused in ["default", "doc", "aliases", "order"] {
            schema.remove(unused);
        }
        if !schema.get("logicalType").is_some_and(Value::is_string) {
            schema.remove("logicalType");
        }
        if schema.contains_key("fields") && schema.get("type").is_some_and(|kind| kind == "error") {
            schema.insert("type".to_owned(), "record".into());
        }
        for name in ["name", "namespace"] {
            if let Some(Value::String(name)) = schema.get_mut(name) {
                self.full_name(name);
            }
        }
        for part in ["type", "items", "values"] {
            if let Some(part) = schema.get_mut(part) {
                self.schema(part);
            }
        }
        if let Some(Value::Array(fields)) = schema.get_mut("fields") {
            fields.iter_mut().for_each(|field| self.field(field));
        }
        if let Some(Value::Array(symbols)) = schema.get_mut("symbols") {
            symbols.iter_mut().for_each(|symbol| self.whole(symbol));
        }
    }

    fn field(&mut self, field: &mut Value) {
        let Value::Object(field) = field else { return };
        if let Some(name) = field.get_mut("name") {
            self.whole(name);
        }
        // Of a field's own keys beside its name only the type counts.
        let kept =
            ["name", "type"].into_iter().filter_map(|key| field.remove(key).map(|value| (key.to_owned(), value)));
        *field = kept.collect();
        if let Some(kind) = field.get_mut("type") {
            self.schema(kind);
        }
    }

    /// A name in which a dot means nothing.
    fn whole(&mut self, name: &mut Value) {
        if let Value::String(name) = name {
            *name = self.part(name).into_owned();
        }
    }

    /// A name in which dots stand between the parts.
    fn full_name(&mut self, name: &mut String) {
        if name.is_empty() || name.split('.').all(is_of_the_specification) {
            return;
        }
        // A dot at the beginning means: of no namespace.
        let (root, rest) = match name.strip_prefix('.') {
            Some(rest) => (".", rest),
            None => ("", name.as_str()),
        };
        let parts: Vec<_> = rest.split('.').map(|part| self.part(part).into_owned()).collect();
        *name = format!("{root}{}", parts.join("."));
    }

    fn part<'n>(&mut self, part: &'n str) -> Cow<'n, str> {
        if is_of_the_specification(part) {
            return Cow::Borrowed(part);
        }
        let letter = |letter: char| match letter {
            'A'..='Z' | 'a'..='z' | '0'..='9' => letter.to_string(),
            other => format!("_{:x}_", other as u32),
        };
        let plain = format!("_plain_{}", part.chars().map(letter).collect::<String>());
        self.originals.insert(plain.clone(), part.to_owned());
        Cow::Owned(plain)
    }
}

/// How deep lists and objects are nested.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(levels).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

fn is_of_the_specification(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
