//! The embedded engine: streaming SQL over Kafka topics in this process, with nothing else installed.
//!
//! DataFusion executes one prepared plan for each small batch of records; what makes it a stream (watermarks, windows, lateness,
//! commits) is ours. DataFusion's types stay in this crate, and `arrow` is its arrow.

pub mod log;
pub mod decode;
pub mod schema;
