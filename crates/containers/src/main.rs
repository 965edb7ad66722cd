//! Starts Kafka and Postgres as containers, prints their addresses for the integration tests, and holds them until
//! standard input closes. `scripts/test` calls it where a Docker engine answers.
//!
//! A crate of its own, outside the default members, so that the daily build does not pay for its dependencies.

use std::io::Read;

use anyhow::Result;
use testcontainers_modules::kafka::apache::{KAFKA_PORT, Kafka};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::ImageExt;
use testcontainers_modules::testcontainers::runners::SyncRunner;

fn main() -> Result<()> {
    let postgres = Postgres::default().with_tag("16").start()?;
    let kafka = Kafka::default().start()?;
    let (postgres_host, postgres_port) = (postgres.get_host()?, postgres.get_host_port_ipv4(5432)?);
    let (kafka_host, kafka_port) = (kafka.get_host()?, kafka.get_host_port_ipv4(KAFKA_PORT)?);
    println!("STREAMVIEW_TEST_KAFKA={kafka_host}:{kafka_port}");
    println!("STREAMVIEW_TEST_DATABASE=postgres://postgres:postgres@{postgres_host}:{postgres_port}/postgres");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
