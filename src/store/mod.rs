//! Postgres: connections, migrations, control tables, and what its error codes mean.

pub mod api_keys;
pub mod audit;
pub mod blocked;
pub mod build;
pub mod builds;
pub mod changes;
pub mod control;
pub mod copy;
pub mod dead_letters;
pub mod fence;
pub mod fit;
pub mod inspect;
pub mod keyed_rows;
pub mod ledger;
pub mod leftovers;
pub mod lookup;
pub mod meaning;
pub mod migrate;
pub mod names;
pub mod observation;
pub mod operations;
pub mod pauses;
pub mod pool;
pub mod progress;
pub mod read;
pub mod refusals;
pub mod roles;
pub mod rows;
pub mod scratch;
pub mod seats;
pub mod source;
pub mod sqlstate;
pub mod standstill;
pub mod strangers;
pub mod types;
pub mod whole_view;
pub mod wire;

/// One Postgres connection.
pub type Connection = tokio_postgres::Client;
/// What Postgres or the way to it said.
pub type DbError = tokio_postgres::Error;
