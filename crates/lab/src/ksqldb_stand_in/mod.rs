//! A server that speaks as ksqlDB 7.6 does over HTTP/1.1, for tests and for trying: the real one cannot be had everywhere.
//!
//! Protocol from recorded and read facts; **it has not been compared with a real server**. It is no ksqlDB: it keeps
//! streams, tables, queries and the command topic's sequence in memory (and in a folder, if told so), and it runs simple
//! queries against a real Kafka:
//!
//! - `CREATE [OR REPLACE] STREAM | TABLE … (columns) WITH (…)`, and `… AS SELECT columns FROM source WHERE … GROUP BY
//!   column EMIT CHANGES` with comparisons, arithmetic, `COUNT(*)` and `SUM`: JSON values, rows in the output topic.
//! - Push queries, pull queries, `EXPLAIN`, `DESCRIBE` of one and of all, `SHOW STREAMS | TABLES | TOPICS | QUERIES`, `TERMINATE`, `PAUSE`,
//!   `RESUME`, `DROP`.
//! - On `/ksql` a text of two statements runs both, as the real server does; on `/query-stream` it is refused.
//!
//! The hard facts are switched on by `POST /stand-in/switches` ([`Switches`]): chunks that end inside a line or a character,
//! the broken end after an error, answers that are late, lost or QUEUED, connections cut in the middle of a row, limits.
//! `GET /stand-in/asked` says what it was asked. It has no joins, no windows, no functions, no Avro, no second host.
//!
//! Sentences in its answers are its own; only the marker words by which clients tell errors apart are the server's.

mod answers;
mod catalog;
mod cluster;
mod expression;
mod flow;
mod kafka;
mod parse;
mod process;
mod refused;
mod rows;
mod server;
mod statement;
mod switches;
mod tokens;
mod types;

pub use kafka::POISON;
pub use process::{KsqldbStandIn, Options, run_if_asked};
pub use switches::{Asked, Refuse, Switches};
