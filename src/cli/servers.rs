//! `streamview servers`: real Kafka and Postgres as child processes, for manual work (`make up`).

use anyhow::Result;
use clap::Args;

use streamview_lab::servers::{KafkaOptions, KafkaServer, Postgres, PostgresOptions};

/// Run a real Apache Kafka and PostgreSQL with throw-away data until SIGTERM or Ctrl-C
///
/// Prints the settings that point StreamView at them, one per line, when both are ready.
#[derive(Debug, Args)]
pub struct ServersArgs {
    /// Kafka's port [default: a free one]
    #[arg(long)]
    kafka_port: Option<u16>,
    /// Postgres' port [default: a free one]
    #[arg(long)]
    postgres_port: Option<u16>,
}

/// Runs the servers in the foreground.
pub fn run(arguments: &ServersArgs) -> Result<()> {
    let mut postgres = Postgres::start(PostgresOptions {
        durable: true,
        port: arguments.postgres_port,
        ..PostgresOptions::default()
    })?;
    let mut kafka = KafkaServer::start(KafkaOptions { port: arguments.kafka_port, ..KafkaOptions::default() })?;
    println!("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS={}", kafka.bootstrap());
    println!("STREAMVIEW_DATABASE__URL={}", postgres.url("postgres"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let signals = crate::app::Signals::listen()?;
        let stop = signals.stop.clone();
        let told = async {
            stop.cancelled().await;
            anyhow::Ok(())
        };
        signals.with(told).await
    })?;
    kafka.stop()?;
    postgres.stop()
}
