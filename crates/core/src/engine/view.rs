//! What a view is to the engine: how it reads an event and folds it into the state of its key. Pure.
//!
//! A view is a value: it carries its name and what it wants in its [`ViewSpec`], so that two views may share a type, and
//! a definition may be data. How its rows are stored stands beside the driver (`store/rows.rs` of the service).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::codec::{Head, avro};
use crate::domain::comparison::RowText;
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::{Micros, Sequence};
use crate::engine::event_ids::EventIds;

/// What the engine has to know of a view beside its functions.
#[derive(Debug, Clone)]
pub struct ViewSpec {
    /// Its name ([`crate::domain::name`]). Progress rows, metrics and routes carry it.
    pub name: &'static str,
    /// Version of its projection, from 1: raised with every change that gives the same events other rows. A build is fed by
    /// binaries of its own version only.
    pub projection_version: i32,
    /// Known event types, for metric labels.
    pub event_types: Vec<Cow<'static, str>>,
    /// What it wants of Avro records; [`avro::Shape::NONE`] refuses them.
    pub avro: avro::Shape,
    /// Constraint whose violation means that an event id is the latest of another key, if the view has one.
    pub event_id_constraint: Option<Cow<'static, str>>,
    /// What the tables of its builds are.
    pub tables: BuildScripts,
}

/// What the tables of a build are, but for `ledger` and `commits`, which are the engine's. Scripts name no schema: they are run by the
/// owner of the tables, with the build's schema first in the search path.
#[derive(Debug, Clone, Copy)]
pub struct BuildScripts {
    /// Makes the tables, without indexes and constraints.
    pub create: &'static str,
    /// Puts those on, at once or when the rows are there: scripts that can run side by side.
    pub index: &'static [&'static str],
    /// Empties the tables and takes indexes and constraints off; may run twice.
    pub unindex: &'static str,
    /// Has the public names show this build.
    pub publish: &'static str,
    /// Which rows belong to a key, for who compares builds; `None`: there are no tables.
    pub rows: Option<KeyedRows>,
}

impl BuildScripts {
    /// No tables but the engine's.
    pub const NONE: BuildScripts = BuildScripts { create: "", index: &[], unindex: "", publish: "", rows: None };
}

/// Which rows of a build's tables belong to a key. Names need no quotes.
#[derive(Debug, Clone, Copy)]
pub struct KeyedRows {
    /// The table that has one row for each key.
    pub of_key: KeyTable,
    /// The tables that have any number of rows for a key.
    pub details: &'static [DetailTable],
    /// The columns that another default tax rate changes, as they are shown: `items[].grossLineTotal`.
    pub of_tax_rate: &'static [&'static str],
    /// The columns of `of_key` that streams may be joined with, its key among them, with their types in the words of the streams'
    /// catalogue. None: whoever may define streams sees nothing of the view by them.
    pub joined: &'static [(&'static str, &'static str)],
}

/// A table with one row for each key.
#[derive(Debug, Clone, Copy)]
pub struct KeyTable {
    /// Its name.
    pub name: &'static str,
    /// The column that is the key; `text`, unique.
    pub key: &'static str,
    /// The column that says how far the key is.
    pub sequence: &'static str,
}

/// A table with any number of rows for a key.
#[derive(Debug, Clone, Copy)]
pub struct DetailTable {
    /// Its name.
    pub name: &'static str,
    /// The column that is the key.
    pub key: &'static str,
    /// The column that tells the rows of a key apart, a whole number; unique with the key.
    pub number: &'static str,
    /// What its rows are called, as in answers: row 2 is shown as `items[2]`.
    pub shown_as: &'static str,
}

/// An event as its view read it.
#[derive(Debug, Clone)]
pub struct Parsed<'a, E> {
    /// Unique id of the event.
    pub event_id: Cow<'a, str>,
    /// Name of its type.
    pub event_type: Cow<'a, str>,
    /// When it happened.
    pub occurred_at: Micros,
    /// The event; `None` for a type that the view does not know.
    pub event: Option<E>,
}

/// The rows of one key in the view's further table, as they are stored, by their numbers.
pub type StoredDetails = BTreeMap<i64, RowText>;

/// A materialised view: a pure fold per key.
pub trait View: Send + Sync + Sized + 'static {
    /// A parsed event, borrowing from its record.
    type Event<'a>: Send + Sync + Debug;
    /// What is kept per key between events.
    type State: Default + Send + Sync + Debug;
    /// A row of a further table, produced by the fold.
    type Detail<'a>: Send + Sync + Debug;

    /// What the engine has to know of it. The same at every call.
    fn spec(&self) -> &ViewSpec;

    /// Reads a JSON payload.
    fn parse<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, Self::Event<'a>>, Poison>;

    /// Reads an Avro event, of which the engine has taken the fields named in [`ViewSpec::avro`].
    fn parse_avro<'a>(&self, _: &Head<'a>, _: avro::Event<'a>) -> Result<Parsed<'a, Self::Event<'a>>, Poison> {
        Err(Poison::new(Reason::UnsupportedSchema, format!("view {} reads no Avro", self.spec().name)))
    }

    /// Reads an event back from the ledger, which keeps id, type and time beside a payload that is JSON, whatever the record
    /// was. `head` has the type, and as its version what [`View::stored_version`] says.
    fn parse_stored<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Option<Self::Event<'a>>, Poison> {
        Ok(self.parse(head, payload)?.event)
    }

    /// The version in which a stored event was read when it came, since the ledger keeps no headers; `state` is that of its
    /// key before it. What its payload leaves open `stored` may tell: the rows that were made of it then. A view whose events
    /// have one version says 1.
    fn stored_version(&self, head: &Head<'_>, payload: &str, state: &Self::State, stored: &StoredDetails) -> u32;

    /// Folds one event into its key. On `Err` the state is as before. Returns how many oddities it flagged.
    fn project<'a>(
        &self,
        key: &'a str,
        state: &mut Self::State,
        event: Self::Event<'a>,
        occurred_at: Micros,
        details: &mut Vec<Self::Detail<'a>>,
    ) -> Result<u64, Poison>;

    /// Advances over an event that is not projected (unknown type, repeated event id), so that a first event of that
    /// kind still leaves a row that can be written.
    fn skip(&self, state: &mut Self::State, occurred_at: Micros);

    /// Bytes of heap that `state` holds, roughly: the cache is bounded by it.
    fn state_bytes(&self, state: &Self::State) -> usize;
}

/// The final state of a key that a batch changed.
#[derive(Debug)]
pub struct ChangedKey<'a, S> {
    /// Key.
    pub key: &'a str,
    /// Sequence of the stored row before the batch; `None` if there was no row.
    pub base_sequence: Option<Sequence>,
    /// Sequence after the batch.
    pub last_sequence: Sequence,
    /// Id of the event with that sequence.
    pub last_event_id: &'a str,
    /// State after the batch.
    pub state: &'a S,
}

/// Everything that one batch writes to a view's own tables. Keys are sorted and unique.
#[derive(Debug)]
pub struct WriteSet<'p, 'a, V: View> {
    /// Keys with their final state, one row version each however many events they had.
    pub changed: Vec<ChangedKey<'p, V::State>>,
    /// Rows of the view's further tables.
    pub details: &'p [V::Detail<'a>],
}

/// A key as stored.
#[derive(Debug)]
pub struct StoredKey<S> {
    /// Key.
    pub key: String,
    /// Sequence of its last event.
    pub last_sequence: Sequence,
    /// Id of its last event.
    pub last_event_id: String,
    /// Ids of all its events in the ledger.
    pub event_ids: EventIds,
    /// Folding state.
    pub state: S,
}
