//! The embedded engine: streaming SQL over Kafka topics in this process, with nothing else installed.
//!
//! DataFusion executes one prepared plan for each small batch of records; what makes it a stream (watermarks, windows, lateness,
//! commits) is ours. DataFusion's types stay in this crate, and `arrow` is its arrow.
//!
//! ```text
//!   SELECT ─ check ─▶ Prepared ─ start ─▶ Execution ◀─ push ─ rows of topics
//!              │                             │
//!              └ Refusal                     └─▶ Output: rows, and the window that they are of
//! ```

mod check;
pub mod plan;
pub mod run;
pub mod schema;

#[cfg(test)]
mod tests;
