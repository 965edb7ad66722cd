//! Reads: keep-alive connections that ask again as soon as they have their answer, beside pgbench with as many.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::ceilings::pgbench;
use crate::fleet::{Fleet, Service};
use crate::http::Connection;
use crate::latency::Latency;
use crate::processes::load_average;
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::workload::order_id;

/// Connections of each side: the service's default pool has as many to Postgres.
pub const CONNECTIONS: usize = 16;

/// One kind of read.
#[derive(Debug, Clone, Serialize)]
pub struct Reads {
    /// Requests a second, closed loop.
    pub requests_per_s: f64,
    /// Latency meanwhile.
    pub full_load: Latency,
    /// Latency at half of that rate.
    pub half_load: Latency,
    /// CPU microseconds of the service per request.
    pub client_us: f64,
    /// CPU microseconds of Postgres per request.
    pub postgres_us: f64,
    /// Transactions a second of pgbench, if it is installed.
    pub pgbench_per_s: Option<f64>,
    /// Load average before.
    pub load_average: f64,
}

/// What is read.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `GET /orders/{id}` of an order at random.
    ById,
    /// `GET /orders?status=Shipped`, page after page by its link.
    Pages,
}

/// How one kind is reported.
pub fn section(title: &str, runs: &[Reads]) -> Section {
    Lines::of(title, runs)
        .informs(More, "requests", "/s", |run| run.requests_per_s)
        .informs(More, "pgbench", "/s", |run| run.pgbench_per_s)
        .judged(More, "requests / pgbench", "", |run| run.pgbench_per_s.map(|pgbench| run.requests_per_s / pgbench))
        .judged(Less, "CPU of the service", "us/request", |run| run.client_us)
        .judged(Less, "CPU of Postgres", "us/request", |run| run.postgres_us)
        .informs(Less, "p50, full load", "ms", |run| run.full_load.p50_ms)
        .informs(Less, "p99, full load", "ms", |run| run.full_load.p99_ms)
        .informs(Less, "p50, half load", "ms", |run| run.half_load.p50_ms)
        .informs(Less, "p99, half load", "ms", |run| run.half_load.p99_ms)
        .context("load average before", "", |run| run.load_average)
        .done()
}

/// Measures one kind against a view of `orders` orders.
pub async fn run(
    fleet: &Fleet,
    service: &Service,
    database: &str,
    (kind, orders): (Kind, u64),
    seconds: u64,
) -> Result<Reads> {
    let load_average = load_average()?;
    let watched = fleet.watched(std::slice::from_ref(service))?;
    let before = watched.cpu()?;
    let span = Duration::from_secs(seconds);
    let (requests_per_s, full) = load((service.port, ""), (kind, orders), span, None).await?;
    let cpu = watched.cpu()?.since(before);
    let requests = full.len() as f64;
    let pause = Duration::from_secs_f64(2.0 * CONNECTIONS as f64 / requests_per_s);
    let (_, half) = load((service.port, ""), (kind, orders), span, Some(pause)).await?;
    let script = script(kind, orders);
    let pgbench_per_s = tokio::task::block_in_place(|| pgbench(fleet, database, &script, CONNECTIONS, seconds))?;
    Ok(Reads {
        requests_per_s,
        full_load: Latency::of(full),
        half_load: Latency::of(half),
        client_us: cpu.client / requests * 1e6,
        postgres_us: cpu.postgres / requests * 1e6,
        pgbench_per_s,
        load_average,
    })
}

/// What one connection of pgbench asks for, again and again: the same rows by plain SQL. Pages are walked there as here, each
/// from the last row of the one before, and from the first once more after the last.
fn script(kind: Kind, orders: u64) -> String {
    const ROW: &str = "select order_id, customer_id, status, currency, total_net, total_gross, item_count, \
                       last_event_sequence, last_event_id, updated_at, tax_basis, anomalies from orders_view";
    match kind {
        Kind::ById => {
            format!("\\set n random(0, {})\n{ROW} where order_id = 'order-' || :n;\n", orders - 1)
        }
        Kind::Pages => format!(
            "\\if :page = 0\nselect 'infinity' as updated_at, '' as order_id \\gset\n\\endif\n\
             \\set page (:page + 1) % {pages}\n\
             {ROW} where status = 'Shipped' and (updated_at, order_id) < (:updated_at, :order_id) \
             order by updated_at desc, order_id desc limit 51 \\aset\n",
            // Its cursor is the 51st row of a page, the service's is the 50th: 51 a page, so that no page is a short one.
            pages = (orders / 51).max(1)
        ),
    }
}

/// All connections for `span`, each asking every `pause` or at once, with `headers` as lines; gives requests a second and the
/// latencies.
pub async fn load(
    (port, headers): (u16, &str),
    (kind, orders): (Kind, u64),
    span: Duration,
    pause: Option<Duration>,
) -> Result<(f64, Vec<Duration>)> {
    let started = Instant::now();
    let mut readers = Vec::new();
    for number in 0..CONNECTIONS {
        let connection = Connection::open_as(port, headers).await?;
        readers.push(tokio::spawn(read(connection, (kind, orders), started + span, pause, number as u64)));
    }
    let mut latencies = Vec::new();
    for reader in readers {
        latencies.extend(reader.await??);
    }
    Ok((latencies.len() as f64 / started.elapsed().as_secs_f64(), latencies))
}

async fn read(
    mut connection: Connection,
    (kind, orders): (Kind, u64),
    end: Instant,
    pause: Option<Duration>,
    seed: u64,
) -> Result<Vec<Duration>> {
    let first_page = "/orders?status=Shipped&pageSize=50";
    let mut random = fastrand::Rng::with_seed(seed);
    let mut page = first_page.to_owned();
    let mut latencies = Vec::new();
    let mut due = Instant::now();
    while Instant::now() < end {
        if let Some(pause) = pause {
            due += pause.mul_f64(0.5 + random.f64());
            tokio::time::sleep_until(due.into()).await;
        }
        let target = match kind {
            Kind::ById => format!("/orders/{}", order_id(random.u64(..orders))),
            Kind::Pages => page,
        };
        let asked = Instant::now();
        let answer = connection.get(&target).await?;
        latencies.push(asked.elapsed());
        ensure!(answer.status == 200, "GET {target} answered {}", answer.status);
        page = answer.next.unwrap_or_else(|| first_page.to_owned());
    }
    Ok(latencies)
}
