//! The stream manager: people define streaming SQL, and this crate sees to it that an engine runs it.
//!
//! ```text
//!                 gate: one SELECT, nothing else              engines: one contract, several wires
//!   user's text ───────▶ Statement ─────────┐               ┌──▶ flink   (SQL gateway, JobManager)
//!                                           ▼               ├──▶ ksqldb  (REST)
//!   store: what is wanted ──▶ lifecycle, reconcile ─────────┘
//!   (Postgres, revisions)         one step at a time, each written before it is done
//!
//!   queries: ad-hoc rows ──┐
//!   preview: topics ───────┴──▶ hub: SignalR's protocol (the service brings the sockets)
//! ```
//!
//! Postgres holds what is wanted, an engine holds what is. Every call of an engine is *at least once*: the intent and every
//! name is written first, then the call is made, then its outcome is written. After a crash the reconciler looks for names,
//! never for "the newest".
//!
//! It knows neither views nor the projector, and neither an HTTP server nor a Kafka client: what it needs of Kafka and of the
//! schema registry stands in [`ports`].

pub mod catalog;
pub mod definition;
pub mod engines;
pub mod fault;
pub mod gate;
pub mod hub;
pub mod lifecycle;
pub mod live;
pub mod manager;
pub mod names;
pub mod ports;
pub mod preview;
pub mod queries;
pub mod query;
mod reconcile;
pub mod settings;
pub mod store;
#[cfg(test)]
#[allow(clippy::unwrap_used, missing_docs)] // tests fail by panicking
mod tests;

pub use self::fault::Fault;
pub use self::manager::Manager;
