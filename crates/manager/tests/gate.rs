//! The SQL gate against its published corpus (`gate/*.sql`), at the edges of its limits, and against texts made at random.
#![allow(missing_docs, clippy::unwrap_used)] // tests fail by panicking

#[path = "gate/corpus.rs"]
mod corpus;
#[path = "gate/edges.rs"]
mod edges;
#[path = "gate/random.rs"]
mod random;
