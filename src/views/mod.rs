//! What a view is to the engine: how it reads an event, folds it, loads and writes its rows.
//!
//! A view is one folder under `views/` and one line in [`registry::all`]. The projector knows nothing of any view.

pub mod orders;
pub mod registry;

use std::borrow::Cow;
use std::future::Future;

use crate::codec::{Head, avro};
use crate::domain::poison::{Poison, Reason};
use crate::projector::event_ids::EventIds;
use crate::store::{Connection, DbError};

/// An event as its view read it.
#[derive(Debug, Clone)]
pub struct Parsed<'a, E> {
    /// Unique id of the event.
    pub event_id: Cow<'a, str>,
    /// Name of its type.
    pub event_type: Cow<'a, str>,
    /// When it happened, microseconds since the epoch.
    pub occurred_at: i64,
    /// The event; `None` for a type that the view does not know.
    pub event: Option<E>,
}

/// Where an effect came from: the ledger's coordinates.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Partition of the record.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
}

/// What a consumed sequence number did to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Projected.
    Applied,
    /// The event id was applied before under another number: only the sequence advanced.
    Duplicate,
    /// Unknown type: only the sequence advanced.
    UnknownType,
    /// Projected from what an operator put in the place of a refused record.
    Replaced,
    /// An operator skipped it, or a run of numbers that ends here.
    Skipped,
}

impl Effect {
    /// The word in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::Applied => "applied",
            Effect::Duplicate => "duplicate",
            Effect::UnknownType => "unknown_type",
            Effect::Replaced => "replaced",
            Effect::Skipped => "skipped",
        }
    }
}

/// One row of the ledger: a sequence number that a key has consumed.
#[derive(Debug, Clone)]
pub struct LedgerRow<'a> {
    /// Key.
    pub key: &'a str,
    /// Its number.
    pub sequence: i64,
    /// Event id.
    pub event_id: Cow<'a, str>,
    /// Event type.
    pub event_type: Cow<'a, str>,
    /// Microseconds since the epoch.
    pub occurred_at: i64,
    /// Where it was read.
    pub origin: Origin,
    /// What it did.
    pub effect: Effect,
    /// The payload as JSON: as consumed, or for Avro as [`avro::Event::json`] writes it; none in a compact history.
    pub payload: Option<Cow<'a, str>>,
}

/// The final state of a key that a batch changed.
#[derive(Debug)]
pub struct ChangedKey<'a, S> {
    /// Key.
    pub key: &'a str,
    /// Sequence of the stored row before the batch; `None` if there was no row.
    pub base_sequence: Option<i64>,
    /// Sequence after the batch.
    pub last_sequence: i64,
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
pub struct Loaded<S> {
    /// Key.
    pub key: String,
    /// Sequence of its last event.
    pub last_sequence: i64,
    /// Id of its last event.
    pub last_event_id: String,
    /// Ids of all its events in the ledger.
    pub event_ids: EventIds,
    /// Folding state.
    pub state: S,
}

/// How the rows that were meant compare with the rows that were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// Every changed key was at its base sequence.
    All,
    /// Some key was not: somebody else wrote it. Roll back and load again.
    Stale,
}

/// What the tables of a build are, but for the ledger, which is the engine's. Scripts name no schema: they are run by the
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
}

/// A materialised view: a pure fold per key, and the tables that hold its result.
pub trait View: Send + Sync + Sized + 'static {
    /// A parsed event, borrowing from its record.
    type Event<'a>: Send + Sync + std::fmt::Debug;
    /// What is kept per key between events.
    type State: Default + Send + Sync + std::fmt::Debug;
    /// A row of a further table, produced by the fold.
    type Detail<'a>: Send + Sync + std::fmt::Debug;
    /// Prepared statements of one connection.
    type Statements: Send + Sync;

    /// Registry name: lower-case letters. Progress rows, metrics and routes carry it.
    const NAME: &'static str;
    /// Known event types, for metric labels.
    const EVENT_TYPES: &'static [&'static str];
    /// Constraint whose violation means that an event id is the latest of another key, if the view has one.
    const EVENT_ID_CONSTRAINT: Option<&'static str>;

    /// What its tables are.
    const SCRIPTS: BuildScripts;

    /// What the view wants of Avro records; by default nothing, and Avro is refused.
    const AVRO: avro::Shape = avro::Shape::NONE;

    /// Reads a JSON payload. Pure.
    fn parse<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, Self::Event<'a>>, Poison>;

    /// Reads an Avro event, of which the engine has taken the fields named in [`View::AVRO`]. Pure.
    fn parse_avro<'a>(&self, _: &Head<'a>, _: avro::Event<'a>) -> Result<Parsed<'a, Self::Event<'a>>, Poison> {
        Err(Poison::new(Reason::UnsupportedSchema, format!("view {} reads no Avro", Self::NAME)))
    }

    /// Folds one event into its key. Pure; on `Err` the state is as before. Returns how many oddities it flagged.
    fn project<'a>(
        &self,
        key: &'a str,
        state: &mut Self::State,
        event: Self::Event<'a>,
        occurred_at: i64,
        details: &mut Vec<Self::Detail<'a>>,
    ) -> Result<u64, Poison>;

    /// Advances over an event that is not projected (unknown type, repeated event id), so that a first event of that
    /// kind still leaves a row that can be written. Pure.
    fn skip(&self, state: &mut Self::State, occurred_at: i64);

    /// Bytes of heap that `state` holds, roughly: the cache is bounded by it.
    fn state_bytes(state: &Self::State) -> usize;

    /// Prepares the statements on a connection whose search path is the schema of a build.
    fn prepare(client: &Connection) -> impl Future<Output = Result<Self::Statements, DbError>> + Send;

    /// Loads the keys that exist.
    fn load(
        statements: &Self::Statements,
        client: &Connection,
        keys: &[&str],
    ) -> impl Future<Output = Result<Vec<Loaded<Self::State>>, DbError>> + Send;

    /// Writes a batch inside the caller's transaction. Statements are under way together and counted afterwards.
    fn write(
        statements: &Self::Statements,
        client: &Connection,
        set: &WriteSet<'_, '_, Self>,
    ) -> impl Future<Output = Result<Written, DbError>> + Send;

    /// Of `event_ids`, those that are the latest of a key, with that key. Asked only after a violation of
    /// [`View::EVENT_ID_CONSTRAINT`].
    fn owners_of(
        statements: &Self::Statements,
        client: &Connection,
        event_ids: &[&str],
    ) -> impl Future<Output = Result<Vec<(String, String)>, DbError>> + Send;
}
