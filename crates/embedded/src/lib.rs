//! The embedded engine: streaming SQL over Kafka topics in this process, with nothing else installed.
//!
//! DataFusion executes one prepared plan for each small batch of records; what makes it a stream (watermarks, windows, lateness,
//! commits) is ours. DataFusion's types stay in this crate, and `arrow` is its arrow.
//!
//! ```text
//!   SELECT ─ trial, check ─▶ Prepared ─ start ─▶ Execution ◀─ push ─ rows of topics ◀─ decode ◀─ log
//!                 │                                  │
//!                 └ Refusal                          └─▶ Output: rows, and the window that they are of ─▶ encode ─▶ log
//! ```

mod check;
pub mod decode;
pub mod encode;
pub mod engine;
mod job;
pub mod log;
pub mod plan;
pub mod run;
pub mod schema;
pub mod settings;
pub mod table;
pub mod trial;
pub mod views;

#[cfg(test)]
mod tests;
