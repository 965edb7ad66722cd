//! Pages of a list: is the last one as cheap as the first?

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::fleet::{Fleet, Service};
use crate::http::Connection;
use crate::latency::Latency;
use crate::results::Better::Less;
use crate::section::{Lines, Section};

const FIRST: &str = "/orders?status=Shipped&pageSize=50";
/// How long each page is asked for, over and over.
const SPAN: Duration = Duration::from_secs(1);

/// What one page costs.
#[derive(Debug, Clone, Serialize)]
pub struct Page {
    /// Latency on one connection that asks again at once.
    pub latency: Latency,
    /// CPU microseconds of Postgres.
    pub postgres_us: f64,
    /// CPU microseconds of the service.
    pub client_us: f64,
}

/// Three places of one list.
#[derive(Debug, Clone, Serialize)]
pub struct FlatPages {
    /// Pages of the list.
    pub pages: usize,
    /// Page 1.
    pub first: Page,
    /// The page halfway.
    pub middle: Page,
    /// The page that has no next one.
    pub last: Page,
}

type Place = (&'static str, fn(&FlatPages) -> &Page);

/// How they are reported.
pub fn section(runs: &[FlatPages]) -> Section {
    let places: [Place; 3] = [("first", |run| &run.first), ("middle", |run| &run.middle), ("last", |run| &run.last)];
    let mut lines = Lines::of("a list by status, 50 a page", runs).context("pages", "", |run| run.pages as f64);
    for (name, page) in places {
        lines = lines
            .informs(Less, &format!("{name}: p50"), "ms", |run| page(run).latency.p50_ms)
            .informs(Less, &format!("{name}: p99"), "ms", |run| page(run).latency.p99_ms)
            .judged(Less, &format!("{name}: CPU of the service"), "us/page", |run| page(run).client_us)
            .judged(Less, &format!("{name}: CPU of Postgres"), "us/page", |run| page(run).postgres_us);
    }
    lines
        .judged(Less, "last / first: CPU of Postgres", "", |run| run.last.postgres_us / run.first.postgres_us)
        .judged(Less, "last / first: p50", "", |run| run.last.latency.p50_ms / run.first.latency.p50_ms)
        .done()
}

/// Walks the list to its end once and then measures three of its pages, round after round.
pub async fn run(fleet: &Fleet, service: &Service, rounds: usize) -> Result<Vec<FlatPages>> {
    let mut connection = Connection::open(service.port).await?;
    let mut targets = vec![FIRST.to_owned()];
    while let Some(next) = get(&mut connection, &targets[targets.len() - 1]).await? {
        targets.push(next);
    }
    ensure!(targets.len() > 2, "the list has only {} pages", targets.len());
    let (middle, last) = (&targets[targets.len() / 2], targets.last().context("no pages")?);
    let mut found = Vec::new();
    for _ in 0..rounds {
        found.push(FlatPages {
            pages: targets.len(),
            first: measure(fleet, service, FIRST).await?,
            middle: measure(fleet, service, middle).await?,
            last: measure(fleet, service, last).await?,
        });
    }
    Ok(found)
}

async fn measure(fleet: &Fleet, service: &Service, target: &str) -> Result<Page> {
    let mut connection = Connection::open(service.port).await?;
    let watched = fleet.watched(std::slice::from_ref(service))?;
    let mut latencies = Vec::new();
    let (before, started) = (watched.cpu()?, Instant::now());
    while started.elapsed() < SPAN {
        let asked = Instant::now();
        get(&mut connection, target).await?;
        latencies.push(asked.elapsed());
    }
    let (cpu, pages) = (watched.cpu()?.since(before), latencies.len() as f64);
    let (postgres_us, client_us) = (cpu.postgres / pages * 1e6, cpu.client / pages * 1e6);
    Ok(Page { latency: Latency::of(latencies), postgres_us, client_us })
}

/// Gives the next page's address.
async fn get(connection: &mut Connection, target: &str) -> Result<Option<String>> {
    let answer = connection.get(target).await?;
    ensure!(answer.status == 200, "GET {target} answered {}", answer.status);
    Ok(answer.next)
}
