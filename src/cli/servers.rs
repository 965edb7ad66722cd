//! `streamview servers`: real Kafka and Postgres as child processes, and on request a stand-in for ksqlDB, for manual work (`make up`).

use anyhow::Result;
use clap::Args;

use streamview_lab::ksqldb_stand_in::{KsqldbStandIn, Options, run_if_asked};
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
    /// Also run a stand-in that speaks as ksqlDB does: simple queries only, and never compared with the real server
    #[arg(long)]
    ksqldb: bool,
}

/// Runs the servers in the foreground.
pub fn run(arguments: &ServersArgs) -> Result<()> {
    // The stand-in is a process of its own: this program, started again as below.
    run_if_asked()?;
    let mut postgres = Postgres::start(PostgresOptions {
        durable: true,
        port: arguments.postgres_port,
        ..PostgresOptions::default()
    })?;
    let mut kafka = KafkaServer::start(KafkaOptions { port: arguments.kafka_port, ..KafkaOptions::default() })?;
    println!("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS={}", kafka.bootstrap());
    println!("STREAMVIEW_DATABASE__URL={}", postgres.url("postgres"));
    let ksqldb = if arguments.ksqldb {
        let options = Options { bootstrap_servers: kafka.bootstrap(), ..Options::default() };
        let ksqldb = KsqldbStandIn::start(options, &["servers"])?;
        println!("STREAMVIEW_KSQLDB__URL={}", ksqldb.url());
        Some(ksqldb)
    } else {
        None
    };
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
    drop(ksqldb);
    kafka.stop()?;
    postgres.stop()
}
