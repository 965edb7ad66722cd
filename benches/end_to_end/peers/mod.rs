//! The best tuned peer, Debezium's JDBC sink, and the service, in turns on one broker, one Postgres and one schedule of events.
//!
//! The sink makes one row of ten columns for each order: no lines, no history, no sequence check, no fence. So the service's runs
//! without lines are the nearest to it.

mod debezium;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::backlog::{self, Backlog, Task};
use crate::ceilings::{self, Copied};
use crate::fleet::{Fleet, PARTITIONS};
use crate::publish;
use crate::results::Better::{Less, More};
use crate::results::Figure;
use crate::section::{Lines, Section};
use crate::workload::{Expected, Shape, Workload};

use debezium::Debezium;
pub use debezium::Sunk;

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Peers {
    /// The peer.
    pub peer: Sunk,
    /// `COPY` of one row for each event, ready in a file, into a table with the peer's indexes.
    pub copied: Copied,
    /// The service, by what it keeps and how many lines an order has, as in [`KINDS`].
    pub ours: Vec<Backlog>,
}

/// What the service keeps of each event, and lines of an order.
type Kind = (&'static str, u64);

/// What is compared: the first with the floor.
const KINDS: [Kind; 5] = [("payload", 0), ("payload", 1), ("payload", 3), ("compact", 0), ("off", 0)];
const FLAT: &str = "bench.peers.flat";

fn topic(lines: u64) -> String {
    format!("bench.peers.lines.{lines}")
}

/// Rounds of all; who goes first alternates. With `is_smoke` only what the floor is about.
pub async fn run(fleet: &Fleet, orders: u64, (rounds, is_smoke): (usize, bool)) -> Result<Vec<Peers>> {
    let debezium = tokio::task::block_in_place(|| Debezium::prepare(&fleet.kafka)).context(
        "the peer runs on Java 17 and comes by Maven: install `openjdk-17-jre-headless` and `maven`, or leave the phase out",
    )?;
    let kinds = if is_smoke { &KINDS[..1] } else { &KINDS[..] };
    let workload = Workload::plain(orders);
    let flat: publish::Encode = Box::new(|event| Ok(event.flat().into_bytes()));
    publish::fill_with(fleet, (FLAT, PARTITIONS), workload.events(), flat).await?;
    for lines in 0..=3 {
        if kinds.iter().any(|kind| kind.1 == lines) {
            let encode = publish::json(Shape { lines, ..Shape::default() });
            publish::fill_with(fleet, (&topic(lines), PARTITIONS), workload.events(), encode).await?;
        }
    }
    let mut measured = Vec::new();
    for number in 0..rounds {
        let events = Expected::of(workload).events;
        if number.is_multiple_of(2) {
            let peer = debezium.run(fleet, (FLAT, events)).await?;
            let (ours, copied) = serve(fleet, workload, kinds).await?;
            measured.push(Peers { peer, copied, ours });
        } else {
            let (ours, copied) = serve(fleet, workload, kinds).await?;
            let peer = debezium.run(fleet, (FLAT, events)).await?;
            measured.push(Peers { peer, copied, ours });
        }
    }
    Ok(measured)
}

/// The service's runs, and the ceiling, which is made of the rows of the first.
async fn serve(fleet: &Fleet, workload: Workload, kinds: &[Kind]) -> Result<(Vec<Backlog>, Copied)> {
    let (mut ours, mut copied) = (Vec::new(), None);
    for (history, lines) in kinds {
        let expected = Expected::with(workload, Shape { lines: *lines, ..Shape::default() });
        let (database, topic) = (format!("bench_{history}_{lines}"), topic(*lines));
        let settings = vec![("STREAMVIEW_PROJECTOR__HISTORY", (*history).to_owned())];
        let (run, services) =
            backlog::run(fleet, &Task { settings, ..Task::new(&database, &topic, &expected) }).await?;
        if copied.is_none() {
            copied = Some(ceilings::copy(fleet, &database).await?.row_per_event_two_indexes);
        }
        fleet.discard(services, &database).await?;
        ours.push(run);
    }
    Ok((ours, copied.context("no run of the service")?))
}

/// Whether our CPU per event, history kept, is above that share of the peer's, or was not measured; says so.
pub fn is_above(rounds: &[Peers], bound: f64) -> bool {
    let ratios = rounds.iter().filter_map(|round| Some(round.ours.first()?.us() / round.peer.us())).collect();
    let Some(ratio) = Figure::of("", Less, true, ratios) else { return true };
    let is_above = ratio.median > bound;
    let verdict = if is_above { "ABOVE" } else { "within" };
    println!(
        "\nCPU per event, history kept, no lines: {:.2} of the peer's, {verdict} the bound of {bound}",
        ratio.median
    );
    is_above
}

/// How it is reported.
pub fn section(rounds: &[Peers]) -> Section {
    let mut lines = Lines::of("beside Debezium's JDBC sink, tuned", rounds)
        .informs(More, "Debezium: events", "/s", |round| round.peer.events_per_s)
        .informs(Less, "Debezium: CPU, its own", "us/event", |round| round.peer.client_us)
        .informs(Less, "Debezium: CPU, Postgres", "us/event", |round| round.peer.postgres_us)
        .informs(Less, "Debezium: peak RSS", "MB", |round| round.peer.peak_rss_mb)
        .informs(Less, "Debezium: WAL", "B/event", |round| round.peer.wal_bytes)
        .informs(Less, "Debezium: from launch to first rows", "s", |round| round.peer.launch_to_first_row_s)
        .context("Debezium: used by others", "cores", |round| round.peer.others_cores)
        .informs(More, "COPY, a row per event, the peer's indexes", "rows/s", |round| round.copied.rows_per_s)
        .informs(Less, "COPY: CPU, Postgres", "us/row", |round| round.copied.postgres_us);
    for (place, (history, number)) in KINDS.iter().enumerate() {
        let name = |what: &str| format!("history {history}, {number} lines: {what}");
        let of = move |value: fn(&Backlog, &Peers) -> f64| {
            move |round: &Peers| round.ours.get(place).map(|ours| value(ours, round))
        };
        let rows = *number as f64;
        lines = lines
            .informs(More, &name("events"), "/s", of(|ours, _| ours.events_per_s))
            .judged(
                More,
                &name("events/s / Debezium's"),
                "",
                of(|ours, round| ours.events_per_s / round.peer.events_per_s),
            )
            .informs(Less, &name("CPU, its own"), "us/event", of(|ours, _| ours.client_us))
            .informs(Less, &name("CPU, Postgres"), "us/event", of(|ours, _| ours.postgres_us))
            .judged(Less, &name("CPU of both / Debezium's"), "", of(|ours, round| ours.us() / round.peer.us()))
            .informs(More, &name("rows/s / COPY's"), "", move |round| {
                let ours = round.ours.get(place)?;
                // Of three events: an order, its lines, and what is kept of each event.
                let per_event = (1.0 + rows) / 3.0 + if *history == "off" { 0.0 } else { 1.0 };
                Some(ours.events_per_s * per_event / round.copied.rows_per_s)
            })
            .judged(Less, &name("peak RSS"), "MB", of(|ours, _| ours.peak_rss_mb));
    }
    lines.done()
}
