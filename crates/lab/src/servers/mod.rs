//! Real servers as child processes: Apache Kafka, Apache Flink, PostgreSQL, PgBouncer and a schema registry without Docker, for
//! `playground`, `servers`, tests and benchmarks.
//!
//! Each is bound to 127.0.0.1, keeps throw-away data unless told otherwise, and dies with us even when we
//! are killed by `kill -9`. Synchronous code: call it from a blocking thread. The product in service never
//! comes here; it connects to servers that others run.

pub mod broker;
pub mod flink;
mod folders;
mod java;
pub mod kafka;
pub mod pgbouncer;
mod ports;
pub mod postgres;
pub mod process;
pub mod registry;

pub use flink::{FlinkCluster, FlinkOptions, FlinkProcess};
pub use folders::{build_once, cache_folder};
pub use java::fetched_jars;
pub use kafka::{KafkaOptions, KafkaServer};
pub use pgbouncer::PgBouncer;
pub use ports::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use registry::{RegistryOptions, SchemaRegistry};
