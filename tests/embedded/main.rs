//! The embedded engine against a real Apache Kafka: what every engine promises, what becomes of its windows when it or the
//! whole service is killed, and what a real Flink makes of the same records. The only test binary that has it built in: `scripts/test` runs it by a command of its own.
#![allow(clippy::unwrap_used, missing_docs)] // tests fail by panicking

#[path = "../it/promises.rs"]
#[macro_use]
#[allow(dead_code)] // it keeps the promises that `engine` names
mod promises;
#[path = "../it/support/mod.rs"]
#[allow(dead_code)]
mod support;

mod bench;
mod beside_flink;
mod engine;
mod judging;
mod kills;
mod orders;
mod playground;
mod service;
mod tables;
mod transactions;
mod views;
mod windows;
