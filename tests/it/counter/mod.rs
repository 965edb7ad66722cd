//! A second, tiny view: counts the events of each key. One folder, one [`registration`] line; the engine is the same.

mod rows;

use std::borrow::Cow;

use streamview::codec::{Head, avro};
use streamview::domain::name::intern;
use streamview::domain::poison::{Poison, Reason};
use streamview::domain::units::Micros;
use streamview::engine::view::{BuildScripts, KeyTable, KeyedRows, Parsed, StoredDetails, View, ViewSpec};
use streamview::registrations::Registration;
use streamview::store::rows::Stored;

/// The view, under a name of its own: there may be several.
pub struct Counter {
    spec: ViewSpec,
}

/// The registry line.
pub fn registration(name: &str) -> Registration {
    registration_of_version(name, 1)
}

/// Likewise, as a binary with another version of its projection has it.
pub fn registration_of_version(name: &str, projection_version: i32) -> Registration {
    Registration::of(name, None, None, move |name, _| Ok(Counter::new(name, projection_version))).unwrap()
}

/// The tables of its builds.
const TABLES: BuildScripts = BuildScripts {
    create: "create table counts (key text not null, last_sequence bigint not null, last_event_id text not null, \
             count bigint not null)",
    index: &["alter table counts add constraint counts_pkey primary key (key)"],
    unindex: "truncate counts; alter table counts drop constraint if exists counts_pkey",
    publish: "",
    rows: Some(KeyedRows {
        of_key: KeyTable { name: "counts", key: "key", sequence: "last_sequence" },
        details: &[],
        of_tax_rate: &[],
        joined: &[("key", "string"), ("count", "bigint")],
    }),
};

impl Counter {
    fn new(name: &str, projection_version: i32) -> Self {
        let spec = ViewSpec {
            name: intern(name),
            projection_version,
            event_types: vec![Cow::Borrowed("Counted")],
            avro: avro::Shape::NONE,
            event_id_constraint: None,
            tables: TABLES,
        };
        Counter { spec }
    }
}

impl Stored for Counter {
    type Rows = rows::CounterRows;
}

impl View for Counter {
    type Event<'a> = ();
    type State = i64;
    type Detail<'a> = ();

    fn spec(&self) -> &ViewSpec {
        &self.spec
    }

    fn parse<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, ()>, Poison> {
        let event_id: String = serde_json::from_str(payload)
            .map_err(|error| Poison::new(Reason::InvalidJson, format!("expected a JSON string: {error}")))?;
        let event_type = head.event_type.unwrap_or("Counted");
        let event = (event_type == "Counted").then_some(());
        Ok(Parsed { event_id: event_id.into(), event_type: event_type.into(), occurred_at: Micros::EPOCH, event })
    }

    fn stored_version(&self, _: &Head<'_>, _: &str, _: &i64, _: &StoredDetails) -> u32 {
        1
    }

    fn project(&self, _: &str, state: &mut i64, (): (), _: Micros, _: &mut Vec<()>) -> Result<u64, Poison> {
        *state += 1;
        Ok(0)
    }

    fn skip(&self, _: &mut i64, _: Micros) {}

    fn state_bytes(&self, _: &i64) -> usize {
        0
    }
}
