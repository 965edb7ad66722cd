//! The whole service, measured from outside: real Kafka, durable Postgres, the release binary as a process of its own.
//! What is measured and how to read it: `docs/performance.md`.

#![allow(missing_docs, reason = "a program")]

mod access;
mod announce;
mod arguments;
mod avro;
mod backlog;
mod ceilings;
mod conditions;
#[cfg(feature = "embedded-engine")]
mod embedded;
mod fleet;
mod following;
mod growth;
mod http;
mod idle;
mod latency;
mod live;
mod load;
mod manager;
mod pages;
mod peers;
mod preview;
mod processes;
mod publish;
mod reads;
mod rebuild;
mod report;
mod results;
mod rounds;
mod saved;
mod section;
mod stage;
mod storm;
mod waiting;
mod watchers;
mod workload;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;

use arguments::{Arguments, Phase};
use fleet::{BACKLOG_TOPIC, Fleet, Service};
use publish::Publisher;
use report::Report;
use workload::{EVENTS_PER_ORDER, Spaced};

fn main() -> Result<ExitCode> {
    // The engine of the stream manager is another start of this program.
    streamview_lab::ksqldb_stand_in::run_if_asked()?;
    measure()
}

#[tokio::main]
async fn measure() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    arguments.check()?;
    let started = Instant::now();
    let fleet = Fleet::start(&arguments.postgres)?;
    let mut report = Report { conditions: conditions::of(&fleet, &arguments)?, ..Report::default() };
    if arguments.needs_warm_postgres() {
        fleet.warm_up().await?;
    }
    if arguments.needs_backlog() {
        let (service, database) = rounds::run(&fleet, &arguments, &mut report).await?;
        after_backlog(&fleet, &arguments, &mut report, (&service, &database)).await?;
        service.stop()?;
        fleet.drop_database(&database).await?;
    }
    if arguments.runs(Phase::Announce) {
        report.announced = announce::run(&fleet, arguments.rounds()).await?;
    }
    if arguments.runs(Phase::Storm) {
        report.storm.push(storm::run(&fleet, arguments.orders() / 2).await?);
    }
    if arguments.runs(Phase::Preview) {
        for _ in 0..arguments.rounds() {
            report.previews.push(preview::run(&fleet, arguments.live_seconds as f64).await?);
        }
    }
    if arguments.runs(Phase::Manager) {
        report.managed.push(manager::run(&fleet, arguments.live_seconds as f64).await?);
    }
    #[cfg(feature = "embedded-engine")]
    if arguments.runs(Phase::Embedded) {
        for _ in 0..arguments.rounds() {
            report.embedded.push(embedded::run(&fleet, arguments.live_seconds as f64, arguments.rows).await?);
        }
    }
    if arguments.runs(Phase::Shapes) {
        let variants = growth::shapes(arguments.events / 2);
        report.shapes = growth::run(&fleet, ("shapes", &variants), arguments.growth_rounds()).await?;
    }
    if arguments.runs(Phase::Growth) {
        let variants = growth::variants(arguments.growth_events, arguments.series.as_deref());
        report.growth = growth::run(&fleet, ("growth", &variants), arguments.growth_rounds()).await?;
    }
    if arguments.runs(Phase::Peers) {
        report.peers =
            peers::run(&fleet, arguments.orders(), (arguments.rounds(), arguments.peer_ratio.is_some())).await?;
    }
    report.print();
    println!("\nmeasured in {:.0} s", started.elapsed().as_secs_f64());
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)?).context("writing the JSON report")?;
    }
    let failed = saved::conclude(&arguments, report.results())?
        | arguments.peer_ratio.is_some_and(|bound| peers::is_above(&report.peers, bound));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The phases that go on with the service and the rows of the last backlog.
async fn after_backlog(
    fleet: &Fleet,
    arguments: &Arguments,
    report: &mut Report,
    (service, database): (&Service, &str),
) -> Result<()> {
    // What the backlog and the ceilings left to clean up is not part of these phases.
    fleet.connect(database).await?.batch_execute("vacuum (analyze)").await?;
    fleet.connect(database).await?.batch_execute("checkpoint").await?;
    if arguments.runs(Phase::Idle) {
        report.idle.push(idle::watch(fleet, service, 5.0).await?);
    }
    if arguments.runs(Phase::Following) {
        report.costs = following::costs(fleet, service, database, arguments.orders()).await?;
    }
    if arguments.runs(Phase::Pages) {
        report.pages = pages::run(fleet, service, arguments.rounds()).await?;
    }
    if arguments.runs(Phase::Live) {
        let mut publisher = Publisher::open(&fleet.kafka.bootstrap(), BACKLOG_TOPIC, arguments.linger_ms)?;
        let mut events = Spaced::new(arguments.orders(), u64::MAX / 8, EVENTS_PER_ORDER);
        live::run(fleet, service, (&mut publisher, &mut events), 1_000, 3.0).await?; // warms up
        let seconds = arguments.live_seconds as f64;
        for rate in [1_000, 10_000].repeat(arguments.rounds()) {
            report.live.push(live::run(fleet, service, (&mut publisher, &mut events), rate, seconds).await?);
        }
    }
    if arguments.runs(Phase::Rebuild) {
        let backlog = report.backlogs.last().context("no backlog run")?.clone();
        report.rebuilds.push(rebuild::run(fleet, service, arguments.orders(), backlog).await?);
    }
    if arguments.runs(Phase::Access) {
        let (orders, seconds) = (arguments.orders(), arguments.read_seconds);
        report.access = access::run(fleet, database, orders, seconds, arguments.rounds()).await?;
    }
    if arguments.runs(Phase::Reads) {
        for _ in 0..arguments.rounds() {
            for (kind, place) in [(reads::Kind::ById, &mut report.by_id), (reads::Kind::Pages, &mut report.lists)] {
                let what = (kind, arguments.orders());
                place.push(reads::run(fleet, service, database, what, arguments.read_seconds).await?);
            }
        }
    }
    Ok(())
}
