//! Integration tests against a real Apache Kafka and a real PostgreSQL: one binary, one promise per test.
#![allow(clippy::unwrap_used, missing_docs)] // tests fail by panicking

// What happens when parts die.
mod conditions;
mod crash;
mod database;
mod drain;
mod history;
mod keeper;
mod lists;
mod load;
mod log_identity;
mod members;
mod metrics;
mod outage;
mod ownership;
mod parts;
mod shutdown;
mod source;
mod transactions;
mod unreadable;

mod as_of;
mod benchmark;
mod builds;
mod caching;
mod changes;
mod cli;
mod comparison;
mod conformance;
mod contract;
mod counter;
mod decisions;
mod dlq;
mod mending;
mod poison;
mod preflight;
mod projection;
mod rebuild;
mod record_times;
mod registry;
mod relay;
mod repair;
mod rest;
mod reused;
mod rights;
mod rules;
mod schema_contract;
mod schema_matrix;
mod settings;
mod sql;
mod strays;
mod support;
mod upgrade;
mod verification;
mod verify;
