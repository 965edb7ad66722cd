//! Turns a writer's schema into a [`Program`] for one view, and a view's own schemas into the [`Reader`] that says which
//! field is which.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, NamesRef, NamespaceRef, RecordField, RecordSchema, UuidSchema};
use serde_json::Value;

use crate::codec::avro::Shape;
use crate::codec::avro::lenient::Plain;
use crate::codec::fields::Typed;
use crate::domain::decimal::Decimal;

/// Most nodes in one compiled schema.
const MAX_NODES: usize = 20_000;
/// Most levels of JSON in a schema and all that it refers to, added up. A level takes up to 8 KiB of the parser's stack, and a
/// schema that stands within another one goes on where that is.
pub(super) const MAX_LEVELS: usize = 1_000;
/// Most digits after the point.
pub(super) const MAX_SCALE: usize = 1000;

/// A schema that cannot be read, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// A compiled writer schema.
#[derive(Debug)]
pub struct Program {
    pub(super) nodes: Vec<Node>,
    pub(super) records: Vec<Record>,
    pub(super) root: usize,
    /// As its [`Shape`] has it.
    pub(super) spells_times: bool,
}

/// How to read one value. Numbers point into [`Program::nodes`] and [`Program::records`].
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Decimal {
        scale: usize,
        fixed: Option<usize>,
    },
    BigDecimal,
    /// 16 bytes, with their length before them or without.
    Uuid {
        has_length: bool,
    },
    /// A time without a zone: a number that names no moment.
    NoMoment {
        what: &'static str,
        per_second: i64,
    },
    /// A time of day that is written out.
    TimeOfDay {
        per_second: i64,
    },
    Millis,
    Micros,
    Nanos,
    Date,
    Fixed(usize),
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(usize),
}

/// One record type of the writer.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub name: String,
    pub is_ours: bool,
    pub fields: Vec<Member>,
    /// Fields of ours that the writer does not have, with their default.
    pub defaults: Vec<(u8, Preset)>,
    /// How many fields the view wants.
    pub wanted: usize,
}

/// One field of the writer.
#[derive(Debug)]
pub(super) struct Member {
    /// Its name as a JSON member: `"name":`, with a comma before it but for the first.
    pub label: String,
    pub node: usize,
    /// Which of the view's fields it is.
    pub slot: Option<u8>,
}

/// A default that a field of ours can have.
#[derive(Debug, Clone)]
pub(super) enum Preset {
    Null,
    Text(String),
    Integer(i64),
    Decimal(Decimal),
}

impl Preset {
    pub fn typed(&self) -> Typed<'_> {
        match self {
            Preset::Null => Typed::Null,
            Preset::Text(text) => Typed::Text(text),
            Preset::Integer(number) => Typed::Integer(*number),
            Preset::Decimal(decimal) => Typed::Decimal(*decimal),
        }
    }
}

/// A view's own schemas, ready to compile writers' against.
#[derive(Debug)]
pub struct Reader {
    fields: &'static [&'static str],
    /// Short names and aliases of records, to the record's short name.
    names: HashMap<String, String>,
    /// By record, then by the field's name or alias: the slot.
    slots: HashMap<String, HashMap<String, u8>>,
    /// The same over all records, for writers whose record has another name.
    any: HashMap<String, u8>,
    defaults: HashMap<String, Vec<(u8, Preset)>>,
    spells_times: bool,
}

impl Reader {
    /// Reads the view's schemas.
    ///
    /// # Panics
    /// Where they are no Avro records: they are compiled in, and a test reads them.
    pub fn new(shape: Shape) -> Self {
        let mut reader = Reader {
            fields: shape.fields,
            names: HashMap::new(),
            slots: HashMap::new(),
            any: shape.fields.iter().enumerate().map(|(slot, name)| ((*name).to_owned(), slot as u8)).collect(),
            defaults: HashMap::new(),
            spells_times: shape.spells_times,
        };
        for text in shape.schemas {
            let schema = Schema::parse_str(text).expect("the view's schemas are valid Avro");
            reader.add(&schema);
        }
        reader
    }

    fn add(&mut self, schema: &Schema) {
        match schema {
            Schema::Record(record) => self.add_record(record),
            Schema::Array(array) => self.add(&array.items),
            Schema::Map(map) => self.add(&map.types),
            Schema::Union(union) => union.variants().iter().for_each(|variant| self.add(variant)),
            _ => {}
        }
    }

    fn add_record(&mut self, record: &RecordSchema) {
        let name = record.name.name().to_owned();
        let aliases = record.aliases.iter().flatten().map(|alias| alias.name().to_owned());
        self.names.extend(aliases.chain([name.clone()]).map(|known| (known, name.clone())));
        for field in &record.fields {
            self.add(&field.schema);
            let Some(slot) = self.fields.iter().position(|wanted| *wanted == field.name) else { continue };
            let slot = slot as u8;
            for known in field.aliases.iter().chain([&field.name]) {
                self.slots.entry(name.clone()).or_default().insert(known.clone(), slot);
                self.any.entry(known.clone()).or_insert(slot);
            }
            // An older version of the same record may stand beside this one: the first default counts.
            let defaults = self.defaults.entry(name.clone()).or_default();
            if let Some(default) = default_of(field)
                && !defaults.iter().any(|(known, _)| *known == slot)
            {
                defaults.push((slot, default));
            }
        }
    }
}

fn default_of(field: &RecordField) -> Option<Preset> {
    let scale = match unwrap_nullable(&field.schema) {
        Schema::Decimal(decimal) => Some(decimal.scale),
        _ => None,
    };
    match (field.default.as_ref()?, scale) {
        (Value::Null, _) => Some(Preset::Null),
        // Bytes stand in a schema as characters of the same number.
        (Value::String(text), Some(scale)) => {
            let bytes: Vec<u8> = text.chars().map(|letter| letter as u8).collect();
            let mantissa = super::render::small_integer(&bytes)?;
            Some(Preset::Decimal(Decimal::new(mantissa, u8::try_from(scale).ok()?)))
        }
        (Value::String(text), None) => Some(Preset::Text(text.clone())),
        (Value::Number(number), _) => number.as_i64().map(Preset::Integer),
        _ => None,
    }
}

fn unwrap_nullable(schema: &Schema) -> &Schema {
    match schema {
        Schema::Union(union) => {
            union.variants().iter().find(|variant| !matches!(variant, Schema::Null)).unwrap_or(schema)
        }
        other => other,
    }
}

impl Program {
    /// Bytes of stack that [`Program::compile`] may need, whatever the schema: more than most threads have.
    pub const STACK: usize = 16 * 1024 * 1024;

    /// Compiles a writer's schema (its text, and the texts of what it refers to). Needs a stack of [`Program::STACK`].
    pub fn compile(reader: &Reader, text: &str, references: &[String]) -> Result<Program, Unsupported> {
        let unreadable = |error: apache_avro::Error| Unsupported(format!("the schema is not valid Avro: {error}"));
        let mut plain = Plain::default();
        let texts = references.iter().map(|reference| plain.of(reference)).collect::<Vec<_>>();
        let text = plain.of(text);
        if plain.levels > MAX_LEVELS {
            let detail = format!("the schema and what it refers to have {} levels, at most {MAX_LEVELS}", plain.levels);
            return Err(Unsupported(detail));
        }
        let (root, others) = Schema::parse_str_with_list(&text, texts).map_err(unreadable)?;
        let mut names = NamesRef::new();
        for schema in others.iter().chain([&root]) {
            collect_names(schema, None, &mut names);
        }
        let (known, begun, nodes, records) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        let mut compiler = Compiler { reader, plain: &plain, names, known, begun, nodes, records };
        let root = compiler.node(&root, None)?;
        while let Some(begun) = compiler.begun.pop() {
            compiler.finish(begun)?;
        }
        let spells_times = reader.spells_times;
        let program = Program { nodes: compiler.nodes, records: compiler.records, root, spells_times };
        program.check_root()?;
        Ok(program)
    }

    /// An event is a record, or one of several.
    fn check_root(&self) -> Result<(), Unsupported> {
        let is_record = |node: usize| matches!(self.nodes[node], Node::Record(_));
        let fine = match &self.nodes[self.root] {
            Node::Record(_) => true,
            Node::Union(variants) => variants.iter().all(|variant| is_record(*variant)),
            _ => false,
        };
        if fine { Ok(()) } else { Err(Unsupported("the schema is neither a record nor a union of records".to_owned())) }
    }
}

/// Every named type by its full name.
fn collect_names<'s>(schema: &'s Schema, namespace: NamespaceRef<'_>, names: &mut NamesRef<'s>) {
    match schema {
        Schema::Array(array) => collect_names(&array.items, namespace, names),
        Schema::Map(map) => collect_names(&map.types, namespace, names),
        Schema::Union(union) => union.variants().iter().for_each(|variant| collect_names(variant, namespace, names)),
        Schema::Ref { .. } => {}
        Schema::Record(record) => {
            let full = record.name.fully_qualified_name(namespace).into_owned();
            let inner = full.namespace().map(str::to_owned);
            if names.insert(full, schema).is_none() {
                for field in &record.fields {
                    collect_names(&field.schema, inner.as_deref(), names);
                }
            }
        }
        named => {
            if let Some(name) = named.name() {
                names.insert(name.fully_qualified_name(namespace).into_owned(), schema);
            }
        }
    }
}

struct Compiler<'r, 's> {
    reader: &'r Reader,
    plain: &'r Plain,
    names: NamesRef<'s>,
    /// Nodes of named types; of records as soon as they are begun, for a record may hold itself.
    known: HashMap<Name, usize>,
    /// Records without their fields yet: one that begins where it is met would go as deep as a chain of names is long.
    begun: Vec<(usize, &'s RecordSchema, Name)>,
    nodes: Vec<Node>,
    records: Vec<Record>,
}

impl<'s> Compiler<'_, 's> {
    fn push(&mut self, node: Node) -> Result<usize, Unsupported> {
        if self.nodes.len() >= MAX_NODES {
            return Err(Unsupported(format!("the schema has more than {MAX_NODES} parts")));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn node(&mut self, schema: &'s Schema, namespace: NamespaceRef<'_>) -> Result<usize, Unsupported> {
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::TimeMillis if self.reader.spells_times => Node::TimeOfDay { per_second: 1_000 },
            Schema::TimeMicros if self.reader.spells_times => Node::TimeOfDay { per_second: 1_000_000 },
            Schema::Int | Schema::TimeMillis => Node::Int,
            Schema::Long | Schema::TimeMicros => Node::Long,
            Schema::LocalTimestampMillis => {
                Node::NoMoment { what: "a local-timestamp-millis, a time without its zone", per_second: 1_000 }
            }
            Schema::LocalTimestampMicros => {
                Node::NoMoment { what: "a local-timestamp-micros, a time without its zone", per_second: 1_000_000 }
            }
            Schema::LocalTimestampNanos => {
                Node::NoMoment { what: "a local-timestamp-nanos, a time without its zone", per_second: 1_000_000_000 }
            }
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes => Node::Bytes,
            Schema::BigDecimal => Node::BigDecimal,
            Schema::Uuid(UuidSchema::Bytes) => Node::Uuid { has_length: true },
            Schema::Uuid(UuidSchema::Fixed(_)) => Node::Uuid { has_length: false },
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::Text,
            Schema::Date => Node::Date,
            Schema::TimestampMillis => Node::Millis,
            Schema::TimestampMicros => Node::Micros,
            Schema::TimestampNanos => Node::Nanos,
            Schema::Fixed(fixed) | Schema::Duration(fixed) => Node::Fixed(fixed.size),
            Schema::Decimal(decimal) => {
                if decimal.scale > MAX_SCALE {
                    let detail = format!("a decimal has a scale of {}, at most {MAX_SCALE}", decimal.scale);
                    return Err(Unsupported(detail));
                }
                let fixed = match &decimal.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                };
                Node::Decimal { scale: decimal.scale, fixed }
            }
            Schema::Enum(enumeration) => {
                Node::Enum(enumeration.symbols.iter().map(|symbol| self.plain.original(symbol).to_owned()).collect())
            }
            Schema::Array(array) => Node::Array(self.node(&array.items, namespace)?),
            Schema::Map(map) => Node::Map(self.node(&map.types, namespace)?),
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.node(variant, namespace));
                Node::Union(variants.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => return self.record(record, namespace),
            Schema::Ref { name } => {
                let full = name.fully_qualified_name(namespace).into_owned();
                if let Some(node) = self.known.get(&full) {
                    return Ok(*node);
                }
                let Some(schema) = self.names.get(&full).copied() else {
                    return Err(Unsupported(format!("the schema refers to {full}, which is not there")));
                };
                let node = self.node(schema, namespace)?;
                self.known.insert(full, node);
                return Ok(node);
            }
        };
        self.push(node)
    }

    fn record(&mut self, schema: &'s RecordSchema, namespace: NamespaceRef<'_>) -> Result<usize, Unsupported> {
        let full = schema.name.fully_qualified_name(namespace).into_owned();
        if let Some(node) = self.known.get(&full) {
            return Ok(*node);
        }
        let index = self.records.len();
        self.records.push(Record::default());
        let node = self.push(Node::Record(index))?;
        self.known.insert(full.clone(), node);
        self.begun.push((index, schema, full));
        Ok(node)
    }

    /// Compiles the fields of a record.
    fn finish(&mut self, (index, schema, full): (usize, &'s RecordSchema, Name)) -> Result<(), Unsupported> {
        let name = self.plain.original(schema.name.name());
        let ours = self.reader.names.get(name);
        let slots = ours.and_then(|name| self.reader.slots.get(name)).unwrap_or(&self.reader.any);
        let defaults = ours.and_then(|name| self.reader.defaults.get(name)).map(Vec::as_slice).unwrap_or_default();
        let mut record = Record {
            name: ours.cloned().unwrap_or_else(|| name.to_owned()),
            is_ours: ours.is_some(),
            ..Record::default()
        };
        for (position, field) in schema.fields.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let node = self.node(&field.schema, full.namespace())?;
            let name = self.plain.original(&field.name);
            if name.contains('\0') {
                return Err(Unsupported("the name of a field holds a NUL character".to_owned()));
            }
            let slot = slots.get(name).copied();
            record.fields.push(Member { label: format!("{comma}{}:", Value::from(name)), node, slot });
        }
        let has = |slot: &u8| record.fields.iter().any(|member| member.slot == Some(*slot));
        record.defaults = defaults.iter().filter(|(slot, _)| !has(slot)).cloned().collect();
        record.wanted = record.fields.iter().filter(|member| member.slot.is_some()).count() + record.defaults.len();
        self.records[index] = record;
        Ok(())
    }
}
