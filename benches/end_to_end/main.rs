//! The whole service, measured from outside: real Kafka, durable Postgres, the release binary as a process of its own.
//! What is measured and how to read it: `docs/performance.md`.

#![allow(missing_docs, reason = "a program")]

mod backlog;
mod ceilings;
mod fleet;
mod http;
mod latency;
mod live;
mod load;
mod processes;
mod publish;
mod reads;
mod report;
mod storm;
mod workload;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};

use fleet::{BACKLOG_TOPIC, Fleet, PARTITIONS};
use publish::Publisher;
use report::Report;

/// Measures StreamView end to end: `make bench ARGS='-- --events 1500000 --repeat 3'`
#[derive(Debug, Parser)]
struct Arguments {
    /// Events of the backlog, three per order
    #[arg(long, default_value_t = 600_000)]
    events: u64,
    /// Backlog runs, each into an empty database
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// Seconds of each live rate
    #[arg(long, default_value_t = 15)]
    live_seconds: u64,
    /// Milliseconds the live producer waits for a batch to fill; part of the measured latency
    #[arg(long, default_value_t = 1)]
    linger_ms: u32,
    /// Seconds of each read phase
    #[arg(long, default_value_t = 5)]
    read_seconds: u64,
    /// Phases to run after the backlog; all without this
    #[arg(long, value_enum, value_delimiter = ',')]
    phases: Option<Vec<Phase>>,
    /// Further Postgres setting, NAME=VALUE
    #[arg(long = "postgres", value_parser = name_and_value)]
    postgres: Vec<(String, String)>,
    /// SQL to run in each empty database before its backlog: drop an index to see what it costs
    #[arg(long)]
    sql: Option<String>,
    /// Write the figures as JSON too
    #[arg(long)]
    json: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    Ceilings,
    Idle,
    Live,
    Reads,
    /// Bulk load of the backlog, as often as the backlog
    Load,
    /// Held orders by the ten thousand
    Storm,
    /// Nothing but the backlog
    None,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let orders = arguments.events / workload::EVENTS_PER_ORDER;
    ensure!(orders >= 20_000, "--events must be at least 60000");
    let runs = |phase: Phase| arguments.phases.as_ref().is_none_or(|phases| phases.contains(&phase));

    let fleet = Fleet::start(&arguments.postgres)?;
    let mut report = Report::default();
    describe(&mut report, &fleet, &arguments)?;
    preload(&fleet, orders).await?;
    fleet.warm_up().await?;

    let mut database = String::new();
    let mut running = None;
    for number in 1..=arguments.repeat.max(1) {
        if let Some(service) = running.take() {
            fleet::Service::stop(service)?;
            let admin = fleet.connect("postgres").await?;
            admin.batch_execute(&format!("drop database {database} with (force)")).await?;
        }
        database = format!("bench_{number}");
        let (backlog, service) = backlog::run(&fleet, &database, orders, arguments.sql.as_deref()).await?;
        eprintln!("backlog {number}: {:.0} events/s", backlog.events_per_s);
        let ceilings = if runs(Phase::Ceilings) { Some(ceilings::copy(&fleet, &database).await?) } else { None };
        report.backlogs.push((backlog, ceilings));
        if runs(Phase::Load) {
            let database = format!("load_{number}");
            report.loads.push(load::run(&fleet, &database, orders).await?);
            let admin = fleet.connect("postgres").await?;
            admin.batch_execute(&format!("drop database {database} with (force)")).await?;
        }
        running = Some(service);
    }
    let mut service = running.context("no backlog run")?;
    service.wait_for_http()?;
    // What the backlog and the ceilings left to clean up is not part of the phases below.
    fleet.connect(&database).await?.batch_execute("vacuum (analyze)").await?;
    fleet.connect(&database).await?.batch_execute("checkpoint").await?;
    if runs(Phase::Idle) {
        report.idle = Some(live::idle(&fleet, &service, 5.0).await?);
    }
    if runs(Phase::Live) {
        let mut publisher = Publisher::open(&fleet.kafka.bootstrap(), BACKLOG_TOPIC, arguments.linger_ms)?;
        let mut events = workload::events(orders, u64::MAX / 8);
        let seconds = arguments.live_seconds as f64;
        for (rate, seconds, measured) in [(1_000, 3.0, false), (1_000, seconds, true), (10_000, seconds, true)] {
            let live = live::run(&fleet, &service, (&mut publisher, &mut events), rate, seconds).await?;
            if measured {
                report.live.push(live);
            }
        }
    }
    if runs(Phase::Reads) {
        for (kind, place) in [(reads::Kind::ById, &mut report.by_id), (reads::Kind::Pages, &mut report.pages)] {
            *place = Some(reads::run(&fleet, &service, &database, (kind, orders), arguments.read_seconds).await?);
        }
    }
    service.stop()?;
    if runs(Phase::Storm) {
        report.storm = Some(storm::run(&fleet, orders / 2).await?);
    }
    report.print();
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?).context("writing the JSON report")?;
    }
    Ok(())
}

async fn preload(fleet: &Fleet, orders: u64) -> Result<()> {
    let bootstrap = fleet.kafka.bootstrap();
    let dead_letters = format!("{BACKLOG_TOPIC}.dlq");
    let topics = [(BACKLOG_TOPIC, PARTITIONS), (dead_letters.as_str(), 1)];
    streamview::seed::create_topics(&bootstrap, &topics).await?;
    let started = Instant::now();
    tokio::task::block_in_place(|| {
        Publisher::open(&bootstrap, BACKLOG_TOPIC, 20)?.preload(workload::events(0, orders))
    })?;
    eprintln!("published {} events in {:.1} s", orders * workload::EVENTS_PER_ORDER, started.elapsed().as_secs_f64());
    Ok(())
}

fn describe(report: &mut Report, fleet: &Fleet, arguments: &Arguments) -> Result<()> {
    let mut add = |name: &str, value: String| report.conditions.insert(name.to_owned(), value);
    let cores = std::thread::available_parallelism()?;
    add("cores", cores.to_string());
    add("load average", processes::load_average()?.to_string());
    add("Postgres", fleet.postgres.version().to_owned());
    add("Kafka", streamview::servers::kafka::KAFKA_VERSION.to_owned());
    add("events", arguments.events.to_string());
    add("partitions", PARTITIONS.to_string());
    let ours = fleet::POSTGRES_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in ours.iter().chain(&arguments.postgres) {
        add(&format!("Postgres {name}"), value.clone());
    }
    if let Some(sql) = &arguments.sql {
        add("SQL before the backlog", sql.clone());
    }
    for (name, value) in std::env::vars().filter(|(name, _)| name.starts_with("STREAMVIEW_")) {
        add(&name, value);
    }
    Ok(())
}
