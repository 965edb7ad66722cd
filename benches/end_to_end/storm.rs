//! A storm of gaps: ten thousand orders whose first event is missing, a million events parked behind it. What that costs
//! the other orders, and how long one call of the operator takes to heal it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde::Serialize;
use tokio_postgres::Client;

use crate::fleet::{Fleet, PARTITIONS, Service};
use crate::http::Connection;
use crate::processes::{forget_peak, memory_mb};
use crate::publish;
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::workload::{EVENTS_PER_ORDER, Spaced, headless};

const TOPIC: &str = "bench.orders.storm";
const DATABASE: &str = "bench_storm";
/// Held orders.
const HELD: u64 = 10_000;
/// Events parked behind each.
const PARKED: u64 = 100;
/// Their numbers begin here: nobody else's.
const FIRST_HELD: u64 = 1_000_000_000;

/// What a storm did.
#[derive(Debug, Clone, Serialize)]
pub struct Storm {
    /// Orders held.
    pub held: u64,
    /// Events parked.
    pub parked: u64,
    /// Events of other orders applied per second, from a backlog, before the storm.
    pub before_per_s: f64,
    /// Peak memory of the service meanwhile.
    pub before_rss_mb: f64,
    /// Events parked per second.
    pub parked_per_s: f64,
    /// Peak memory meanwhile.
    pub parking_rss_mb: f64,
    /// Events of other orders per second while the storm is parked.
    pub during_per_s: f64,
    /// Peak memory meanwhile.
    pub during_rss_mb: f64,
    /// Seconds until the bulk call was answered.
    pub call_s: f64,
    /// Seconds from the call until nothing was held.
    pub healing_s: f64,
    /// Parked events applied per second in that time.
    pub drained_per_s: f64,
    /// Peak memory meanwhile.
    pub healing_rss_mb: f64,
}

/// How it is reported.
pub fn section(runs: &[Storm]) -> Section {
    let title = format!("storm, {HELD} orders held, {} events parked", HELD * PARKED);
    Lines::of(&title, runs)
        .informs(More, "other orders before", "events/s", |run| run.before_per_s)
        .informs(More, "parking", "events/s", |run| run.parked_per_s)
        .informs(More, "other orders meanwhile", "events/s", |run| run.during_per_s)
        .judged(More, "other orders meanwhile / before", "", |run| run.during_per_s / run.before_per_s)
        .informs(Less, "answer to the call", "s", |run| run.call_s)
        .informs(Less, "from the call until nothing is held", "s", |run| run.healing_s)
        .informs(More, "drained", "events/s", |run| run.drained_per_s)
        .judged(Less, "peak RSS before", "MB", |run| run.before_rss_mb)
        .judged(Less, "peak RSS, parking", "MB", |run| run.parking_rss_mb)
        .judged(Less, "peak RSS meanwhile", "MB", |run| run.during_rss_mb)
        .judged(Less, "peak RSS, healing", "MB", |run| run.healing_rss_mb)
        .done()
}

/// Runs it on a topic and a database of its own; `orders` others come before, and as many during the storm.
pub async fn run(fleet: &Fleet, orders: u64) -> Result<Storm> {
    fleet.create_database(DATABASE).await?;
    let client = fleet.connect(DATABASE).await?;
    let topic = (TOPIC, PARTITIONS);
    let mut consumed = 0;

    publish::fill(fleet, topic, Spaced::new(0, orders, EVENTS_PER_ORDER)).await?;
    let (before_per_s, before_rss_mb, service) =
        backlog(fleet, &client, &mut consumed, orders * EVENTS_PER_ORDER).await?;
    service.stop()?;
    eprintln!("storm: {before_per_s:.0} events/s before");

    publish::fill(fleet, topic, headless(FIRST_HELD, HELD, PARKED + 1)).await?;
    let (parked_per_s, parking_rss_mb, service) = backlog(fleet, &client, &mut consumed, HELD * PARKED).await?;
    service.stop()?;
    eprintln!("storm: {parked_per_s:.0} events/s parked");
    let parked = number(&client, "select sum(parked_count)::bigint from held_keys").await?;
    ensure!(parked == (HELD * PARKED) as i64, "{parked} events are parked");

    publish::fill(fleet, topic, Spaced::new(orders, orders, EVENTS_PER_ORDER)).await?;
    let (during_per_s, during_rss_mb, service) =
        backlog(fleet, &client, &mut consumed, orders * EVENTS_PER_ORDER).await?;
    eprintln!("storm: {during_per_s:.0} events/s with the storm parked");

    forget_peak(service.pid())?;
    let started = Instant::now();
    let mut connection = Connection::open(service.port).await?;
    let body = format!(r#"{{"filter":{{}},"reason":"benchmark","limit":{HELD},"expect":{HELD}}}"#);
    let answer = connection.post("/ops/held/skip", &body).await?;
    ensure!(answer.status == 202, "the bulk call: {} {}", answer.status, String::from_utf8_lossy(answer.body));
    let call_s = started.elapsed().as_secs_f64();
    while number(&client, "select count(*) from held_keys").await? > 0 {
        if started.elapsed() > Duration::from_secs(300) {
            bail!("not healed within five minutes\n{}", service.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let healing_s = started.elapsed().as_secs_f64();
    let healed = format!("select count(*) from orders_view where last_event_sequence = {}", PARKED + 1);
    ensure!(number(&client, &healed).await? == HELD as i64, "every held order is at its last event");
    let (_, healing_rss_mb) = memory_mb(service.pid())?;
    service.stop()?;
    Ok(Storm {
        held: HELD,
        parked: HELD * PARKED,
        before_per_s,
        before_rss_mb,
        parked_per_s,
        parking_rss_mb,
        during_per_s,
        during_rss_mb,
        call_s,
        healing_s,
        drained_per_s: (HELD * PARKED) as f64 / healing_s,
        healing_rss_mb,
    })
}

/// Starts the service on what was published and waits until it is consumed: events per second from the first commit on,
/// peak memory, and the service.
async fn backlog(fleet: &Fleet, client: &Client, consumed: &mut u64, events: u64) -> Result<(f64, f64, Service)> {
    client.batch_execute("vacuum (analyze)").await?;
    client.batch_execute("checkpoint").await?;
    let mut service = fleet.serve(DATABASE, TOPIC, DATABASE)?;
    let (from, to) = (*consumed as i64, (*consumed + events) as i64);
    let mut first = None;
    loop {
        let now = number(client, "select coalesce(sum(consumed), 0)::bigint from projection_progress").await?;
        if now > from && first.is_none() {
            first = Some((Instant::now(), now));
        }
        if now >= to {
            break;
        }
        service.check_alive()?;
        if service.started.elapsed() > Duration::from_secs(300) {
            bail!("{now} of {to} events after five minutes\n{}", service.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (began, at) = first.unwrap_or((service.started, from));
    let rate = (to - at) as f64 / began.elapsed().as_secs_f64();
    let (_, rss) = memory_mb(service.pid())?;
    *consumed += events;
    Ok((rate, rss, service))
}

async fn number(client: &Client, query: &str) -> Result<i64> {
    Ok(client.query_one(query, &[]).await?.try_get(0)?)
}
