//! ksqlDB's engine against the stand-in server, a process of its own, and a real Kafka in which rows flow.
#![allow(clippy::unwrap_used, missing_docs)] // tests fail by panicking

mod defects;
mod faults;
mod lifecycle;
mod queries;
mod sources;
mod support;
mod updates;

/// Not a test by itself: the process that the others start as the server.
#[test]
fn stand_in_process() {
    streamview_lab::ksqldb_stand_in::run_if_asked().unwrap();
}
