//! How an instance learns of the commits of another one: told by `NOTIFY` in the committing transaction, or looking every few
//! milliseconds. What each costs the one who commits, and how late each is.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::fleet::Fleet;
use crate::latency::Latency;

/// Connections that commit, as lanes do.
const WRITERS: i64 = 6;
/// Instances that want to know.
const LISTENERS: usize = 2;
const SECONDS: f64 = 5.0;

/// How it becomes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Way {
    /// Not at all.
    Nobody,
    /// The transaction notifies, and nobody listens.
    Notified,
    /// The transaction notifies, and instances listen.
    Heard,
    /// Instances look so often, in milliseconds.
    Polled(u64),
}

/// One way, at one pace.
#[derive(Debug, Clone, Serialize)]
pub struct Announced {
    /// The way.
    pub way: Way,
    /// Commits a second that were meant for each writer; `None`: as fast as it goes.
    pub pace: Option<f64>,
    /// Commits a second of all.
    pub commits_per_s: f64,
    /// From sending the transaction until it was answered.
    pub committed: Latency,
    /// From sending the transaction until an instance knew.
    pub known: Option<Latency>,
    /// CPU microseconds of Postgres for each commit.
    pub us_per_commit: f64,
    /// CPU of Postgres in percent of one core.
    pub postgres_cpu_percent: f64,
}

/// How it is reported.
pub fn print(runs: &[Announced]) {
    if runs.is_empty() {
        return;
    }
    println!("\n# how commits become known");
    println!(
        "{:<14} {:>10} {:>11} {:>10} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "way", "pace", "commits/s", "p50, ms", "p99, ms", "known p50", "known p99", "us/commit", "Postgres, %"
    );
    for run in runs {
        let pace = run.pace.map_or("as it goes".to_owned(), |pace| format!("{:.0}/s", pace * WRITERS as f64));
        let known =
            |of: fn(&Latency) -> f64| run.known.as_ref().map_or("-".to_owned(), |known| format!("{:.1}", of(known)));
        println!(
            "{:<14} {pace:>10} {:>11.0} {:>10.2} {:>10.2} {:>10} {:>10} {:>10.0} {:>12.1}",
            format!("{:?}", run.way),
            run.commits_per_s,
            run.committed.p50_ms,
            run.committed.p99_ms,
            known(|known| known.p50_ms),
            known(|known| known.p99_ms),
            run.us_per_commit,
            run.postgres_cpu_percent
        );
    }
}

/// All ways, alternately, at 200 commits a second and as fast as it goes.
pub async fn run(fleet: &Fleet, rounds: usize) -> Result<Vec<Announced>> {
    let admin = fleet.connect("postgres").await?;
    admin.batch_execute("create table announced (partition bigint primary key, commits bigint not null)").await?;
    admin.execute("insert into announced select p, 0 from generate_series(1, $1::bigint) p", &[&WRITERS]).await?;
    let mut runs = Vec::new();
    for _ in 0..rounds {
        for pace in [Some(200.0 / WRITERS as f64), None] {
            for way in [Way::Nobody, Way::Notified, Way::Heard, Way::Polled(50), Way::Polled(20)] {
                admin.batch_execute("update announced set commits = 0; checkpoint").await?;
                runs.push(one(fleet, way, pace).await?);
            }
        }
    }
    admin.batch_execute("drop table announced").await?;
    Ok(runs)
}

/// When a partition had committed so much.
type Seen = Vec<(Instant, i64, i64)>;

async fn one(fleet: &Fleet, way: Way, pace: Option<f64>) -> Result<Announced> {
    let over = Arc::new(AtomicBool::new(false));
    let mut watching: Vec<JoinHandle<Result<Seen>>> = Vec::new();
    for _ in 0..LISTENERS {
        match way {
            Way::Nobody | Way::Notified => {}
            Way::Heard => watching.push(listen(fleet, Arc::clone(&over)).await?),
            Way::Polled(every) => {
                let client = fleet.connect("postgres").await?;
                watching.push(tokio::spawn(poll(client, Duration::from_millis(every), Arc::clone(&over))));
            }
        }
    }
    let watched = fleet.watched(&[])?;
    let (before, started) = (watched.cpu()?, Instant::now());
    let mut writing = Vec::new();
    for partition in 1..=WRITERS {
        let client = fleet.connect("postgres").await?;
        writing.push(tokio::spawn(write(client, partition, matches!(way, Way::Notified | Way::Heard), pace)));
    }
    let mut commits = Vec::new();
    for writer in writing {
        commits.extend(writer.await.context("a writer panicked")??);
    }
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), watched.cpu()?.since(before));
    tokio::time::sleep(Duration::from_millis(200)).await;
    over.store(true, Ordering::Relaxed);
    let mut known = Vec::new();
    for seen in watching {
        let seen = seen.await.context("a listener panicked")??;
        for (partition, commit, sent, _) in &commits {
            let first = seen.iter().find(|(_, of, up_to)| of == partition && up_to >= commit);
            known.extend(first.map(|(at, ..)| at.duration_since(*sent)));
        }
    }
    let count = commits.len() as f64;
    Ok(Announced {
        way,
        pace,
        commits_per_s: count / elapsed,
        committed: Latency::of(commits.iter().map(|(.., took)| *took).collect()),
        known: (!known.is_empty()).then(|| Latency::of(known)),
        us_per_commit: cpu.postgres / count * 1e6,
        postgres_cpu_percent: cpu.postgres / elapsed * 100.0,
    })
}

/// Partition, number, when it was sent, how long it took.
type Commits = Vec<(i64, i64, Instant, Duration)>;

async fn write(client: Client, partition: i64, notifies: bool, pace: Option<f64>) -> Result<Commits> {
    let (mut commits, started) = (Vec::new(), Instant::now());
    while started.elapsed().as_secs_f64() < SECONDS {
        let commit = commits.len() as i64 + 1;
        if let Some(pace) = pace {
            tokio::time::sleep_until((started + Duration::from_secs_f64(commit as f64 / pace)).into()).await;
        }
        let notify = if notifies { format!("notify announced, '{partition} {commit}';") } else { String::new() };
        let update = format!("update announced set commits = {commit} where partition = {partition};");
        let sent = Instant::now();
        client.batch_execute(&format!("begin; {update} {notify} commit")).await?;
        commits.push((partition, commit, sent, sent.elapsed()));
    }
    Ok(commits)
}

async fn poll(client: Client, every: Duration, over: Arc<AtomicBool>) -> Result<Seen> {
    let statement = client.prepare("select partition, commits from announced").await?;
    let (mut seen, mut tick) = (Vec::new(), tokio::time::interval(every));
    while !over.load(Ordering::Relaxed) {
        tick.tick().await;
        for row in client.query(&statement, &[]).await? {
            seen.push((Instant::now(), row.try_get(0)?, row.try_get(1)?));
        }
    }
    Ok(seen)
}

async fn listen(fleet: &Fleet, over: Arc<AtomicBool>) -> Result<JoinHandle<Result<Seen>>> {
    let url = fleet.postgres.url("postgres");
    let (client, mut connection) = tokio_postgres::connect(&url, NoTls).await.context("connecting to Postgres")?;
    let hearing = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(told) = message? {
                let (partition, commit) = told.payload().split_once(' ').context("an odd notification")?;
                seen.push((Instant::now(), partition.parse()?, commit.parse()?));
            }
        }
        anyhow::Ok(seen)
    });
    client.batch_execute("listen announced").await?;
    Ok(tokio::spawn(async move {
        while !over.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(client);
        hearing.await.context("the listener panicked")?
    }))
}
