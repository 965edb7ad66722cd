//! `streamview servers`: real Kafka and Postgres as child processes, and on request a real Flink, a schema registry and a stand-in
//! for ksqlDB, for manual work (`make up`).

use anyhow::Result;
use clap::Args;

use super::output;
use streamview_lab::ksqldb_stand_in::{KsqldbStandIn, Options, run_if_asked};
use streamview_lab::servers::{
    FlinkCluster, FlinkOptions, KafkaOptions, KafkaServer, Postgres, PostgresOptions, RegistryOptions, SchemaRegistry,
};

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
    /// Also run a real Apache Flink, for the stream manager
    #[arg(long)]
    flink: bool,
    /// Also run a stand-in that speaks as ksqlDB does: simple queries only, and never compared with the real server
    #[arg(long)]
    ksqldb: bool,
    /// Also run a real schema registry; built from source by Go once per machine
    #[arg(long)]
    registry: bool,
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
    let flink = if arguments.flink { Some(FlinkCluster::start(FlinkOptions::default())?) } else { None };
    let ksqldb = if arguments.ksqldb {
        let options = Options { bootstrap_servers: kafka.bootstrap(), ..Options::default() };
        Some(KsqldbStandIn::start(options, &["servers"])?)
    } else {
        None
    };
    let registry = if arguments.registry { Some(SchemaRegistry::start(&RegistryOptions::default())?) } else { None };
    if let Some(registry) = &registry {
        output::line(format_args!("STREAMVIEW_SCHEMA_REGISTRY__URL={}", registry.url()))?;
    }
    if flink.is_some() || ksqldb.is_some() {
        output::line("STREAMVIEW_MANAGER__ENABLED=true")?;
    }
    if flink.is_some() && ksqldb.is_some() {
        output::line("STREAMVIEW_MANAGER__DEFAULT_ENGINE=flink")?;
    }
    if let Some(flink) = &flink {
        output::line(format_args!("STREAMVIEW_FLINK__GATEWAY_URL={}", flink.gateway_url()))?;
        output::line(format_args!("STREAMVIEW_FLINK__REST_URL={}", flink.rest_url()))?;
        output::line(format_args!("STREAMVIEW_FLINK__SAVEPOINT_DIR={}", flink.savepoint_dir()))?;
    }
    if let Some(ksqldb) = &ksqldb {
        output::line(format_args!("STREAMVIEW_KSQLDB__URL={}", ksqldb.url()))?;
    }
    // Last: by these two `scripts/servers` sees that all are ready.
    output::line(format_args!("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS={}", kafka.bootstrap()))?;
    output::line(format_args!("STREAMVIEW_DATABASE__URL={}", postgres.url("postgres")))?;
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
    drop((flink, ksqldb, registry));
    kafka.stop()?;
    postgres.stop()
}
