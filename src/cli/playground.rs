//! `streamview playground`: the whole service on its own broker and database, seeded and alive.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::output;
use crate::app::{self, Only};
use crate::config::{Config, KafkaSettings, SecretUrl};
use crate::domain::build::Build;
use crate::platforms::kafka::base_config;
use crate::store::{pool, read};
use streamview_lab::seed::{self, SeedPlan};
use streamview_lab::servers::broker::PlaygroundBroker;
use streamview_lab::servers::{Postgres, PostgresOptions};

const PARTITIONS: i32 = 6;
const LIVE_EVENTS_PER_SECOND: f64 = 5.0;

/// Try everything: a broker and a database of its own, seeded orders and a live trickle
///
/// Starts librdkafka's in-process Kafka cluster and a throw-away PostgreSQL (its binaries must be installed), creates
/// the schema, publishes orders and serves them on http.bind. Everything is gone at Ctrl-C. The broker is a try-out:
/// it keeps about 5 MiB per partition in memory and knows no transactions. For anything else use
/// --kafka and --database.
#[derive(Debug, Args)]
pub struct PlaygroundArgs {
    /// Use this Kafka instead of the in-process one (host:port,...)
    #[arg(long, value_name = "SERVERS")]
    kafka: Option<String>,
    /// Use this Postgres instead of a throw-away one; its schema is migrated
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Orders published at the start
    #[arg(long, default_value_t = 500, value_name = "ORDERS")]
    orders: u64,
    /// Open no browser; without this one is opened if there is a screen
    #[arg(long)]
    no_open: bool,
    /// Stop after the start and the first orders: a smoke test
    #[arg(long, hide = true)]
    once: bool,
}

/// Runs the playground until Ctrl-C.
pub async fn run(arguments: PlaygroundArgs, config: &Config) -> Result<()> {
    let mut config = config.clone();
    if config.log.level == "info" {
        "warn".clone_into(&mut config.log.level);
    }
    super::init_telemetry(&config)?;
    let signals = app::Signals::listen()?;
    let stop = signals.stop.clone();
    signals.with(play(arguments, config, stop)).await
}

async fn play(arguments: PlaygroundArgs, mut config: Config, stop: CancellationToken) -> Result<()> {
    let mut postgres = None;
    if let Some(url) = arguments.database {
        config.database.url = SecretUrl::new(url);
    } else {
        progress("starting Postgres");
        let server = tokio::task::spawn_blocking(|| Postgres::start(PostgresOptions::default())).await??;
        config.database.url = SecretUrl::new(server.url("postgres"));
        postgres = Some(server);
    }
    progress("creating the tables");
    app::migrate(&config, &app::configured_views(&config)?).await?;

    let view = config.views.get("orders").context("views.orders is not configured")?.clone();
    let topics = [(view.topic.as_str(), PARTITIONS), (view.dlq_topic.as_str(), 1)];
    let mut broker = None;
    if let Some(servers) = arguments.kafka {
        config.kafka.bootstrap_servers = servers;
        seed::create_topics(&base_config(&config.kafka), &topics).await?;
    } else {
        progress("starting an in-process Kafka");
        let started = PlaygroundBroker::start(&topics)?;
        config.kafka.bootstrap_servers = started.bootstrap_servers().to_owned();
        // It speaks no TLS, and lets everybody in.
        let KafkaSettings { security_protocol, sasl_mechanism, tls, .. } = Config::defaults().kafka;
        config.kafka = KafkaSettings { security_protocol, sasl_mechanism, tls, ..config.kafka };
        config.kafka.topic_ids = false;
        // Nor can it be asked how it keeps a topic.
        config.kafka.allow_compacted = true;
        config.kafka.fetch_wait_max_ms = config.kafka.fetch_wait_max_ms.min(10);
        broker = Some(started);
    }

    #[cfg(feature = "embedded-engine")]
    streams::switch_on(&mut config, broker.is_some());
    progress("starting StreamView");
    let config = Arc::new(config);
    let (ready, addresses) = oneshot::channel();
    let views = app::configured_views(&config)?;
    let mut service = tokio::spawn(app::serve(Arc::clone(&config), views, Only::Both, stop.clone(), Some(ready)));
    let addresses = tokio::select! {
        addresses = addresses => addresses.ok(),
        ended = &mut service => { ended??; None }
    };
    let Some(address) = addresses.and_then(|addresses| addresses.first().copied()) else { return Ok(()) };

    progress(&format!("publishing {} orders", arguments.orders));
    let plan = first_orders(arguments.orders);
    let kafka = base_config(&config.kafka);
    let sample = plan.generate().find_map(|record| record.key).and_then(|key| String::from_utf8(key).ok());
    let published = seed::publish(&kafka, &view.topic, &plan, None, stop.clone(), |_| {}).await?;
    progress("applying them");
    tokio::select! {
        () = stop.cancelled() => {}
        () = until_applied(&config, published.delivered) => {}
        ended = &mut service => return ended?,
    }
    #[cfg(feature = "embedded-engine")]
    if !stop.is_cancelled() {
        progress("deploying a stream");
        streams::prepare(&config, &view.topic).await?;
    }
    if !stop.is_cancelled() {
        output::line(welcome(address, &config, published.delivered, sample.as_deref().unwrap_or("ord-1")))?;
        if !arguments.no_open && !arguments.once {
            open(&console(address, &config)).await;
        }
    }
    if arguments.once {
        stop.cancel();
    }
    let trickle = trickle(&config, &view.topic, arguments.orders, &stop).await;
    stop.cancel();
    service.await??;
    drop(broker);
    if let Some(mut postgres) = postgres {
        tokio::task::spawn_blocking(move || postgres.stop()).await??;
    }
    trickle
}

/// Waits until so many records are consumed: what is said to run then shows what it has.
async fn until_applied(config: &Config, records: u64) {
    let Ok(pool) = pool::read_pool(&config.database) else { return };
    loop {
        let progress = read::progress(&pool, "orders", Build(1)).await.unwrap_or_default();
        let consumed: i64 = progress.iter().map(|partition| partition.counters.consumed).sum();
        if consumed.unsigned_abs() >= records {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A past day of orders, with a little of everything that can go wrong.
fn first_orders(orders: u64) -> SeedPlan {
    SeedPlan {
        duplicates: 0.02,
        late: 0.01,
        gaps: 0.02,
        poison: 0.002,
        start_time: Timestamp::now() - jiff::SignedDuration::from_hours(24),
        ..SeedPlan::orderly(orders, 42)
    }
}

async fn trickle(config: &Config, topic: &str, after: u64, stop: &CancellationToken) -> Result<()> {
    let plan = SeedPlan {
        orders: u64::MAX / 2,
        start_order: after + 1,
        start_time: Timestamp::now(),
        time_step: Duration::from_secs_f64(1.0 / LIVE_EVENTS_PER_SECOND),
        duplicates: 0.02,
        gaps: 0.02,
        ..SeedPlan::orderly(0, 43)
    };
    let rate = Some(LIVE_EVENTS_PER_SECOND);
    seed::publish(&base_config(&config.kafka), topic, &plan, rate, stop.clone(), |_| {}).await?;
    Ok(())
}

fn progress(step: &str) {
    eprintln!("  {step} ...");
}

/// Where the console is.
fn console(address: SocketAddr, config: &Config) -> String {
    format!("{}://{address}/ui/", config.http.tls.scheme())
}

/// Shows the console to whoever sits before this terminal, if there is a screen. That it does not open is no fault: its address
/// stands there.
async fn open(url: &str) {
    let has_screen = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if !has_screen || !std::io::stdout().is_terminal() {
        return;
    }
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let (program, url) = (program.to_owned(), url.to_owned());
    let opened = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program);
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status()
    });
    if !matches!(tokio::time::timeout(Duration::from_secs(5), opened).await, Ok(Ok(Ok(status))) if status.success()) {
        tracing::debug!("no browser was opened");
    }
}

fn welcome(address: SocketAddr, config: &Config, records: u64, sample: &str) -> String {
    let console = console(address, config);
    let address = format!("{}://{address}", config.http.tls.scheme());
    let streams = STREAMS.replace("{address}", &address);
    format!(
        "
  Console       {console}

StreamView is running; {records} events are in, {LIVE_EVENTS_PER_SECOND} more arrive each second.

  API and docs  {address}/docs
  Metrics       {address}/metrics
  Postgres      psql {}
  Kafka         {}

Try:
  curl '{address}/orders?status=Delivered&pageSize=3'
  curl -i {address}/orders/{sample}
  curl {address}/ops/lags
  curl -d '{{\"reason\":\"to try it\"}}' -H 'content-type: application/json' {address}/ops/views/rebuild
{streams}

Everything is in memory or throw-away and gone at Ctrl-C.",
        config.database.url.expose(),
        config.kafka.bootstrap_servers
    )
}

/// What is said of streaming SQL.
const STREAMS: &str = if cfg!(feature = "embedded-engine") {
    "
Streaming SQL runs in this process, at least once as its broker has no transactions; of three streams one is deployed, and one joins the orders view:
  curl {address}/api/streams
  curl -N -H 'accept: text/event-stream' '{address}/api/topics/orders.events/rows'"
} else {
    "
For streaming SQL in this process as well: make playground, or cargo run --features embedded-engine -- playground"
};

#[cfg(feature = "embedded-engine")]
mod streams {
    //! Three streams to begin with: two written down, one of them a join with the view, and one deployed.

    use std::sync::Arc;
    use std::time::Duration;

    use anyhow::{Context, Result};

    use crate::app;
    use crate::config::Config;
    use crate::manager::catalog::{Column, Declarer, EventTime, ExpectedSource, Format, Source};
    use crate::manager::engines::EngineKind;
    use crate::manager::manager::{DeployOptions, NewDefinition};
    use crate::store::pool;
    use crate::streams::Streams;
    use crate::telemetry::metrics::Metrics;

    const ACTOR: &str = "playground";
    /// How long the deployment is waited for.
    const PATIENCE: Duration = Duration::from_secs(30);
    const PAID: &str = "SELECT orderId, status, occurredAt FROM order_events WHERE status = 'Paid'";
    const JOINED: &str = "SELECT e.orderId, e.type, e.occurredAt, o.status, o.total_gross, o.currency FROM order_events e \
                          LEFT JOIN orders o ON e.orderId = o.order_id";
    const REVENUE: &str = "SELECT tumble(occurredAt, INTERVAL '1 minute') AS minute, COUNT(*) AS items, \
                           SUM(qty * price) AS revenue FROM order_events WHERE price IS NOT NULL \
                           GROUP BY tumble(occurredAt, INTERVAL '1 minute')";

    /// Has the service run streams by itself. The in-process broker has no transactions.
    pub fn switch_on(config: &mut Config, is_in_process: bool) {
        config.manager.enabled = true;
        config.embedded.enabled = true;
        if is_in_process {
            "at_least_once".clone_into(&mut config.embedded.delivery);
        }
    }

    fn source(topic: &str) -> Result<Source> {
        let columns = [
            ("type", "string"),
            ("orderId", "string"),
            ("customerId", "string"),
            ("status", "string"),
            ("sku", "string"),
            ("qty", "decimal(18, 6)"),
            ("price", "decimal(18, 6)"),
            ("occurredAt", "timestamp(3)"),
        ];
        let column =
            |(name, of): (&str, &str)| Ok(Column { name: name.to_owned(), data_type: of.parse()?, nullable: true });
        Ok(Source {
            name: "order_events".to_owned(),
            topic: topic.to_owned(),
            format: Format::Json,
            columns: columns.into_iter().map(column).collect::<Result<_>>()?,
            event_time: Some(EventTime { column: "occurredAt".to_owned(), delay_ms: 5_000 }),
            table: None,
        })
    }

    /// Declares the orders' events, writes three streams down, and has one deployed by the service that runs.
    pub async fn prepare(config: &Config, topic: &str) -> Result<()> {
        let metrics = Arc::new(Metrics::new());
        let joined = app::joined((config, &app::configured_views(config)?), &pool::read_pool(&config.database)?)?;
        let manager = Streams::of(config, &metrics, joined)?.context("there is no stream manager")?.manager;
        let by = Declarer { name: ACTOR, is_operator: true };
        manager.put_source(source(topic)?, by, ExpectedSource::Any).await?;
        let definition = async |name: &str, text: &str| {
            let (name, sql_script) = (name.to_owned(), text.to_owned());
            manager.create(NewDefinition { name, sql_script, engine: Some(EngineKind::Embedded) }, ACTOR).await
        };
        definition("PaidOrders", PAID).await?;
        definition("EventsWithTotals", JOINED).await?;
        let revenue = definition("RevenuePerMinute", REVENUE).await?;
        manager.deploy(&revenue.id, DeployOptions::default(), PATIENCE, ACTOR).await?;
        Ok(())
    }
}
