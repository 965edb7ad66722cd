//! Clients that follow changes: what they cost the projector while it has a backlog, and what they cost while little happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::Client;

use crate::backlog::Backlog;
use crate::fleet::{BACKLOG_TOPIC, Fleet, Service};
use crate::publish::Publisher;
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::workload::Spaced;

/// Events a second while followers are counted.
const RATE: u64 = 500;
/// Seconds of each count, after two that are not counted.
const SECONDS: f64 = 6.0;

/// Who follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Mix {
    /// Clients that read, each what one customer orders.
    pub of_customers: usize,
    /// Clients that read all there is.
    pub of_all: usize,
    /// Clients that ask for all there is and never read.
    pub deaf: usize,
}

/// Nobody.
pub const NOBODY: Mix = Mix { of_customers: 0, of_all: 0, deaf: 0 };
/// Who follows during a backlog: pages of customers; and with pages that show all orders among them.
pub const MIXES: [Mix; 2] =
    [Mix { of_customers: 150, of_all: 0, deaf: 50 }, Mix { of_customers: 145, of_all: 5, deaf: 50 }];

impl Mix {
    fn name(self) -> String {
        format!("{} follow a customer each, {} all, {} never read", self.of_customers, self.of_all, self.deaf)
    }

    fn readers(self) -> usize {
        self.of_customers + self.of_all
    }
}

/// The same backlog without and with them.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// Who.
    pub mix: Mix,
    /// Nobody follows.
    pub without: Backlog,
    /// They do.
    pub with: Backlog,
}

/// How pairs are reported: a section for each mix.
pub fn sections(pairs: &[Pair]) -> Vec<Section> {
    let of = |mix| pairs.iter().filter(|pair| pair.mix == mix).cloned().collect::<Vec<Pair>>();
    MIXES.map(|mix| section(mix, &of(mix))).into()
}

fn section(mix: Mix, pairs: &[Pair]) -> Section {
    Lines::of(&format!("backlog while {}, as a share of without", mix.name()), pairs)
        .judged(More, "events/s, ratio", "", |pair| pair.with.settled_events_per_s / pair.without.settled_events_per_s)
        .judged(Less, "CPU of both, ratio", "", |pair| pair.with.settled_us / pair.without.settled_us)
        .informs(More, "with them: events", "/s", |pair| pair.with.settled_events_per_s)
        .informs(Less, "with them: CPU of both", "us/event", |pair| pair.with.settled_us)
        .informs(Less, "with them: peak RSS", "MB", |pair| pair.with.peak_rss_mb)
        .informs(Less, "without: peak RSS", "MB", |pair| pair.without.peak_rss_mb)
        .context("with them: used by others", "cores", |pair| pair.with.others_cores)
        .done()
}

/// Clients that follow. Dropping them ends them.
pub struct Followers {
    mix: Mix,
    tasks: JoinSet<Result<()>>,
    deaf: Vec<TcpStream>,
}

impl Followers {
    /// All of `mix`, which ask one after the other.
    pub async fn start(port: u16, mix: Mix) -> Result<Followers> {
        let (mut tasks, mut deaf) = (JoinSet::new(), Vec::new());
        for customer in 0..mix.of_customers {
            // Spread over all customers that the workload knows.
            tasks.spawn(follow(port, format!("/orders/changes?customerId=customer-{}", customer * 331)));
        }
        for _ in 0..mix.of_all {
            tasks.spawn(follow(port, "/orders/changes".to_owned()));
        }
        for _ in 0..mix.deaf {
            deaf.push(ask(port, "/orders/changes", "").await?);
        }
        Ok(Followers { mix, tasks, deaf })
    }

    /// Waits until they all follow.
    pub async fn settle(&self, service: &Service) -> Result<()> {
        let (wanted, deadline) =
            ((self.mix.readers() + self.mix.deaf) as f64, Instant::now() + Duration::from_secs(30));
        while service.metric("streamview_followers ").await? < wanted {
            ensure!(Instant::now() < deadline, "not all clients follow after 30 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Fails unless those who read still do.
    pub async fn check(mut self, service: &Service) -> Result<()> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended.context("a follower panicked")??;
        }
        let following = service.metric("streamview_followers ").await?;
        ensure!(following >= self.mix.readers() as f64 * 0.9, "only {following} clients follow");
        // Those that never read hold their connections until they are cut off, and were not asked before.
        drop(self.deaf);
        Ok(())
    }
}

async fn ask(port: u16, target: &str, last_id: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.context("connecting to the service")?;
    let head = format!("GET {target} HTTP/1.1\r\nHost: bench\r\nLast-Event-ID: {last_id}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    Ok(stream)
}

/// Reads all that comes, and comes back with its last id.
async fn follow(port: u16, target: String) -> Result<()> {
    let mut last_id = String::new();
    loop {
        let mut stream = ask(port, &target, &last_id).await?;
        let mut buffer = Vec::with_capacity(256 * 1024);
        while stream.read_buf(&mut buffer).await? > 0 {
            // An event is never cut by the frames around it; its end may be yet to come.
            let Some(end) = buffer.windows(2).rposition(|bytes| bytes == b"\n\n") else { continue };
            let seen = std::str::from_utf8(&buffer[..end]).context("events are text")?;
            if let Some(id) = seen.rsplit("\nid: ").next().filter(|rest| rest.len() < seen.len()) {
                last_id = id.split('\n').next().unwrap_or_default().to_owned();
            }
            buffer.drain(..end);
        }
    }
}

/// What so many clients cost while little happens.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Who follows.
    pub mix: Mix,
    /// Whether the process that they follow projects, too; if not, it looks for commits of another one.
    pub projects: bool,
    /// Events a second meanwhile.
    pub rate: u64,
    /// Transactions that Postgres was asked for, per second.
    pub transactions_per_s: f64,
    /// CPU of the process that they follow, in percent of one core.
    pub service_cpu_percent: f64,
    /// CPU of Postgres, in percent of one core.
    pub postgres_cpu_percent: f64,
}

/// How costs are reported.
pub fn print(costs: &[Cost]) {
    if costs.is_empty() {
        return;
    }
    println!("\n# what followers cost");
    println!(
        "{:<12} {:>8}  {:<50} {:>14} {:>11} {:>12}",
        "process", "events/s", "who", "transactions/s", "its CPU, %", "Postgres, %"
    );
    for cost in costs {
        let process = if cost.projects { "projects" } else { "serves only" };
        println!(
            "{process:<12} {:>8}  {:<50} {:>14.1} {:>11.1} {:>12.1}",
            cost.rate,
            cost.mix.name(),
            cost.transactions_per_s,
            cost.service_cpu_percent,
            cost.postgres_cpu_percent
        );
    }
}

/// Nobody, one and 500, on the process that projects and on one that does not, without events and with some.
pub async fn costs(fleet: &Fleet, service: &Service, database: &str, orders: u64) -> Result<Vec<Cost>> {
    let client = fleet.connect(database).await?;
    let mut events = Spaced::new(orders + 10_000_000, u64::MAX / 8, crate::workload::EVENTS_PER_ORDER);
    let one = Mix { of_all: 1, ..NOBODY };
    let many = Mix { of_customers: 499, ..one };
    let mut costs = Vec::new();
    for projects in [true, false] {
        for mix in [NOBODY, one, many] {
            // A process of its own for each, that has nothing left to clean up.
            let mut api =
                if projects { None } else { Some(fleet.serve_only_api(database, BACKLOG_TOPIC, database)?) };
            if let Some(api) = &mut api {
                api.wait_for_http()?;
            }
            let asked = api.as_ref().unwrap_or(service);
            let followers = Followers::start(asked.port, mix).await?;
            followers.settle(asked).await?;
            for rate in [0, RATE] {
                costs.push(cost(fleet, asked, &client, (&mut events, rate), (mix, projects)).await?);
            }
            followers.check(asked).await?;
            if let Some(api) = api {
                api.stop()?;
            }
        }
    }
    Ok(costs)
}

async fn cost(
    fleet: &Fleet,
    asked: &Service,
    client: &Client,
    (events, rate): (&mut Spaced, u64),
    (mix, projects): (Mix, bool),
) -> Result<Cost> {
    let watched = fleet.watched(std::slice::from_ref(asked))?;
    let counting: JoinHandle<Result<_>> = tokio::spawn({
        let statement = client.prepare("select xact_commit from pg_stat_database where datname = current_database()");
        let (before, after) = (statement.await?, watched.clone());
        let first: i64 = client.query_one(&before, &[]).await?.try_get(0)?;
        async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (cpu, started) = (after.cpu()?, Instant::now());
            tokio::time::sleep(Duration::from_secs_f64(SECONDS)).await;
            Ok((first, after.cpu()?.since(cpu), started.elapsed().as_secs_f64()))
        }
    });
    let began = Instant::now();
    if rate > 0 {
        let mut publisher = Publisher::open(&fleet.kafka.bootstrap(), BACKLOG_TOPIC, 1)?;
        tokio::task::block_in_place(|| {
            publisher.pace(events, (rate, SECONDS + 2.0), u64::MAX, |_, _| Ok(()))?;
            publisher.flush()
        })?;
    }
    let (first, cpu, seconds) = counting.await.context("counting panicked")??;
    let last: i64 = client
        .query_one("select xact_commit from pg_stat_database where datname = current_database()", &[])
        .await?
        .try_get(0)?;
    Ok(Cost {
        mix,
        projects,
        rate,
        transactions_per_s: (last - first) as f64 / began.elapsed().as_secs_f64(),
        service_cpu_percent: cpu.client / seconds * 100.0,
        postgres_cpu_percent: cpu.postgres / seconds * 100.0,
    })
}
