//! Integration tests against a real Apache Kafka and a real PostgreSQL: one binary, one promise per test.

mod poison;
mod projection;
mod rest;
mod schema_contract;
mod support;
