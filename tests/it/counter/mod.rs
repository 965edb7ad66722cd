//! A second, tiny view: counts the events of each key. One folder, one [`registration`] line; the engine is the same.

mod rows;

use streamview::codec::Head;
use streamview::config::Config;
use streamview::domain::poison::{Poison, Reason};
use streamview::store::{Connection, DbError};
use streamview::views::registry::{FromConfig, Registration};
use streamview::views::{BuildScripts, Loaded, Parsed, View, WriteSet, Written};

/// The view.
pub struct Counter;

/// The registry line.
pub fn registration() -> Registration {
    Registration::of::<Counter>(None)
}

impl FromConfig for Counter {
    fn from_config(_: &Config) -> anyhow::Result<Self> {
        Ok(Counter)
    }
}

impl View for Counter {
    type Event<'a> = ();
    type State = i64;
    type Detail<'a> = ();
    type Statements = rows::Statements;

    const NAME: &'static str = "counter";
    const EVENT_TYPES: &'static [&'static str] = &["Counted"];
    const EVENT_ID_CONSTRAINT: Option<&'static str> = None;
    const SCRIPTS: BuildScripts = BuildScripts {
        create: "create table counts (key text not null, last_sequence bigint not null, last_event_id text not null, \
                 count bigint not null)",
        index: &["alter table counts add constraint counts_pkey primary key (key)"],
        unindex: "truncate counts; alter table counts drop constraint if exists counts_pkey",
        publish: "create or replace view public.counts_view as select key, last_sequence, count from counts",
    };

    fn parse<'a>(&self, head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, ()>, Poison> {
        let event_id: String = serde_json::from_str(payload)
            .map_err(|error| Poison::new(Reason::InvalidJson, format!("expected a JSON string: {error}")))?;
        let event_type = head.event_type.unwrap_or("Counted");
        let event = (event_type == "Counted").then_some(());
        Ok(Parsed { event_id: event_id.into(), event_type: event_type.into(), occurred_at: 0, event })
    }

    fn project(&self, _: &str, state: &mut i64, (): (), _: i64, _: &mut Vec<()>) -> Result<u64, Poison> {
        *state += 1;
        Ok(0)
    }

    fn skip(&self, _: &mut i64, _: i64) {}

    fn state_bytes(_: &i64) -> usize {
        0
    }

    async fn prepare(client: &Connection) -> Result<rows::Statements, DbError> {
        rows::prepare(client).await
    }

    async fn load(
        statements: &rows::Statements,
        client: &Connection,
        keys: &[&str],
    ) -> Result<Vec<Loaded<i64>>, DbError> {
        rows::load(statements, client, keys).await
    }

    async fn write(
        statements: &rows::Statements,
        client: &Connection,
        set: &WriteSet<'_, '_, Self>,
    ) -> Result<Written, DbError> {
        rows::write(statements, client, set).await
    }

    async fn owners_of(_: &rows::Statements, _: &Connection, _: &[&str]) -> Result<Vec<(String, String)>, DbError> {
        Ok(Vec::new())
    }
}
