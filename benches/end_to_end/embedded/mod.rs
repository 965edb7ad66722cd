//! The embedded engine: what a query of it costs from memory and over Kafka, beside the same query on a real Flink that is warm; how
//! soon somebody who looks sees a row; and what queries cost that have nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde::Serialize;
use serde_json::{Value, json};

use self::memory::Rate;
use crate::fleet::{Fleet, PARTITIONS};
use crate::latency::Latency;
use crate::processes::{cpu_of, load_average, memory_mb};
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};
use crate::stage::Stage;
use crate::watchers::{Rows, Seen};

mod flink;
mod memory;
mod rows;

const TOPIC: &str = "bench.embedded";
const LIVE_TOPIC: &str = "bench.embedded.live";
const IDLE_TOPIC: &str = "bench.embedded.idle";
const DATABASE: &str = "bench_embedded";
/// Rows a second that are timed.
const RATE: u64 = 1_000;
const IDLE_QUERIES: usize = 10;
const PATIENCE: Duration = Duration::from_secs(600);

/// What one query does with all rows of the topic.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Through {
    /// Rows that it reads in a second.
    pub rows_per_s: f64,
    /// CPU microseconds of whatever runs it, per row.
    pub us_per_row: f64,
    /// Resident memory of that at its end.
    pub rss_mb: f64,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Embedded {
    filter: Rate,
    windows: Rate,
    filter_of_kafka: Through,
    windows_of_kafka: Through,
    filter_on_flink: Through,
    windows_on_flink: Through,
    seen: Latency,
    idle_percent: f64,
    idle_mb: f64,
    load_average: f64,
}

/// How it is reported.
pub fn section(runs: &[Embedded]) -> Section {
    let times = |ours: Through, theirs: Through| ours.rows_per_s / theirs.rows_per_s;
    let cpu = |ours: Through, theirs: Through| theirs.us_per_row / ours.us_per_row;
    Lines::of("embedded engine", runs)
        .judged(More, "filter, from memory (aim: 400,000)", "rows/CPU s", |run| run.filter.rows_per_cpu_s)
        .informs(More, "the same", "rows/s", |run| run.filter.rows_per_s)
        .context("rows that pass", "", |run| run.filter.written)
        .judged(More, "windows of 1,000 keys, from memory (aim: 200,000)", "rows/CPU s", |run| {
            run.windows.rows_per_cpu_s
        })
        .informs(More, "the same", "rows/s", |run| run.windows.rows_per_s)
        .informs(More, "filter, over Kafka (aim: 150,000)", "rows/s", |run| run.filter_of_kafka.rows_per_s)
        .judged(Less, "CPU of the service", "us/row", |run| run.filter_of_kafka.us_per_row)
        .judged(Less, "its RSS", "MB", |run| run.filter_of_kafka.rss_mb)
        .informs(More, "filter on Flink", "rows/s", |run| run.filter_on_flink.rows_per_s)
        .context("CPU of Flink", "us/row", |run| run.filter_on_flink.us_per_row)
        .context("its RSS", "MB", |run| run.filter_on_flink.rss_mb)
        .informs(More, "filter, embedded / Flink (aim: 2)", "rows/s", |run| {
            times(run.filter_of_kafka, run.filter_on_flink)
        })
        .informs(More, "the same", "rows/CPU s", |run| cpu(run.filter_of_kafka, run.filter_on_flink))
        .informs(More, "windows, over Kafka", "rows/s", |run| run.windows_of_kafka.rows_per_s)
        .judged(Less, "CPU of the service, windows", "us/row", |run| run.windows_of_kafka.us_per_row)
        .informs(More, "windows on Flink", "rows/s", |run| run.windows_on_flink.rows_per_s)
        .context("CPU of Flink, windows", "us/row", |run| run.windows_on_flink.us_per_row)
        .informs(More, "windows, embedded / Flink", "rows/s", |run| times(run.windows_of_kafka, run.windows_on_flink))
        .informs(More, "the same, by CPU", "rows/CPU s", |run| cpu(run.windows_of_kafka, run.windows_on_flink))
        .informs(Less, "memory, embedded / Flink (aim: 0.2)", "", |run| {
            run.windows_of_kafka.rss_mb.max(run.filter_of_kafka.rss_mb) / run.windows_on_flink.rss_mb
        })
        .informs(Less, "1,000 rows/s, produce to client: p50", "ms", |run| run.seen.p50_ms)
        .informs(Less, "1,000 rows/s, produce to client: p99 (aim: 100)", "ms", |run| run.seen.p99_ms)
        .informs(Less, "a query without rows (aim: 0.5)", "% of a core", |run| run.idle_percent)
        .judged(Less, "RSS with 10 of them (aim: 200)", "MB", |run| run.idle_mb)
        .context("load average before", "", |run| run.load_average)
        .done()
}

/// One round, by processes of its own, over so many rows. The topics of the first one are kept.
pub async fn run(fleet: &Fleet, seconds: f64, rows: u64) -> Result<Embedded> {
    let load_average = load_average()?;
    let filter = memory::rate(rows::FILTER, seconds).await?;
    let windows = memory::rate(rows::WINDOWS, seconds).await?;
    eprintln!("from memory: {filter:?}, {windows:?}");
    fill(fleet, rows).await?;
    let stage = Stage::embedded(fleet, (DATABASE, TOPIC), &[("STREAMVIEW_EMBEDDED__QUERIES", "16")]).await?;
    stage.call("PUT", "/api/catalog/orders", &declared(TOPIC)).await?;
    let filter_of_kafka = warm(fleet, &stage, rows::FILTER, (rows, passing(rows))).await?;
    let windows_of_kafka = warm(fleet, &stage, rows::WINDOWS, (rows, groups(rows))).await?;
    eprintln!("over Kafka: {filter_of_kafka:?}, {windows_of_kafka:?}");
    stage.end(fleet).await?;
    let (filter_on_flink, windows_on_flink) = flink::run(fleet, rows).await?;
    eprintln!("on Flink: {filter_on_flink:?}, {windows_on_flink:?}");
    let stage = Stage::embedded(fleet, (DATABASE, LIVE_TOPIC), &[("STREAMVIEW_EMBEDDED__QUERIES", "16")]).await?;
    let seen = timed(fleet, &stage, seconds).await?;
    stage.end(fleet).await?;
    let (idle_percent, idle_mb) = idle(fleet, seconds).await?;
    Ok(Embedded {
        filter,
        windows,
        filter_of_kafka,
        windows_of_kafka,
        filter_on_flink,
        windows_on_flink,
        seen,
        idle_percent,
        idle_mb,
        load_average,
    })
}

/// Rows that the filter lets pass.
fn passing(rows: u64) -> u64 {
    (0..rows).filter(|n| rows::passes(*n)).count() as u64
}

/// Rows of the windows that close: the time of every partition is beyond them by the lateness.
fn groups(rows: u64) -> u64 {
    (rows - u64::from(PARTITIONS.unsigned_abs()) - 5_000) / 60_000 * rows::CUSTOMERS
}

fn kafka(fleet: &Fleet) -> ClientConfig {
    ClientConfig::from_iter([("bootstrap.servers".to_owned(), fleet.kafka.bootstrap())])
}

/// A topic and where its dead letters would go; `false` if it was there before.
async fn make_topic(fleet: &Fleet, topic: &str) -> Result<bool> {
    let known = consumer(fleet)?.fetch_metadata(None, PATIENCE)?;
    if known.topics().iter().any(|known| known.name() == topic) {
        return Ok(false);
    }
    streamview_lab::seed::create_topics(&kafka(fleet), &[(topic, PARTITIONS), (&format!("{topic}.dlq"), 1)]).await?;
    Ok(true)
}

fn consumer(fleet: &Fleet) -> Result<BaseConsumer> {
    kafka(fleet).set("group.id", "unused").create().context("a consumer")
}

/// Publishes the rows, a millisecond of their own time from one to the next, unless an earlier round has.
async fn fill(fleet: &Fleet, rows: u64) -> Result<()> {
    if !make_topic(fleet, TOPIC).await? {
        return Ok(());
    }
    let (started, producer) = (Instant::now(), Producing::open(fleet)?);
    let mut row = Vec::new();
    tokio::task::block_in_place(|| {
        for n in 0..rows {
            rows::row(n, n, &mut row);
            producer.send(TOPIC, n, &row)?;
        }
        producer.flush()
    })?;
    eprintln!("{TOPIC}: published {rows} rows of {} bytes in {:.1} s", row.len(), started.elapsed().as_secs_f64());
    Ok(())
}

struct Producing(ThreadedProducer<DefaultProducerContext>);

impl Producing {
    fn open(fleet: &Fleet) -> Result<Producing> {
        let mut config = kafka(fleet);
        config.set("enable.idempotence", "true").set("linger.ms", "1").set("batch.size", "65536");
        config.set("queue.buffering.max.messages", "500000");
        Ok(Producing(config.create().context("a producer")?))
    }

    /// One after the other into the partitions.
    fn send(&self, topic: &str, n: u64, row: &[u8]) -> Result<()> {
        let partition = (n % u64::from(PARTITIONS.unsigned_abs())) as i32;
        loop {
            let record = BaseRecord::<(), [u8]>::to(topic).payload(row).partition(partition);
            match self.0.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error).context("sending a row"),
            }
        }
    }

    fn flush(&self) -> Result<()> {
        self.0.flush(PATIENCE).context("flushing the producer")
    }
}

/// The declaration of the source, as the API takes it.
fn declared(topic: &str) -> Value {
    let source = rows::source(topic);
    let columns: Vec<Value> = source
        .columns
        .iter()
        .map(|column| json!({ "name": column.name, "type": column.data_type.to_string() }))
        .collect();
    json!({ "topic": topic, "format": "json", "columns": columns, "eventTime": { "column": "ts", "delayMs": 5_000 } })
}

/// Deploys it twice, one after the other; the second time counts.
async fn warm(fleet: &Fleet, stage: &Stage, sql: &str, rows: (u64, u64)) -> Result<Through> {
    let mut through = None;
    for _ in 0..2 {
        let new = json!({ "name": format!("bench {}", fastrand::u32(..)), "sqlScript": sql });
        let made = stage.call("POST", "/api/streams", &new).await?;
        let text = |name: &str| made[name].as_str().with_context(|| format!("a stream has {name}")).map(str::to_owned);
        let (path, output) = (text("href")?, text("outputTopic")?);
        stage.call("POST", &format!("{path}/deploy?waitMs=0"), &json!({})).await?;
        through = Some(drained(fleet, &output, rows, &[stage.service.pid()]).await?);
        stage.call("POST", &format!("{path}/stop"), &json!({})).await?;
    }
    through.context("it was deployed")
}

/// Waits until what so many rows of input come to is in a topic of one partition: so many rows. The first tenth, and what comes before it, is not timed. Whatever
/// writes in transactions has some more records in there, one for each.
async fn drained(fleet: &Fleet, output: &str, (input, rows): (u64, u64), pids: &[u32]) -> Result<Through> {
    let consumer = consumer(fleet)?;
    let cpu = || pids.iter().map(|pid| cpu_of(*pid)).sum::<Result<f64>>();
    let end = || match consumer.fetch_watermarks(output, 0, Duration::from_secs(10)) {
        Ok((_, end)) => u64::try_from(end).unwrap_or(0),
        Err(_) => 0, // it is not there yet
    };
    let asked = (Instant::now(), cpu()?, 0_u64);
    let mut began = None;
    loop {
        let (now, there) = (Instant::now(), tokio::task::block_in_place(end));
        match began {
            None if there * 10 >= rows => began = Some((now, cpu()?, there)),
            Some(began) if there >= rows => {
                let (_, _, first) = began;
                // What comes in one piece has no first tenth: it is timed from when it was asked for.
                let (since, before, first) = if (there - first) * 2 < rows { asked } else { began };
                let share = (there - first) as f64 / rows as f64;
                let read = input as f64 * share;
                let mut rss_mb = 0.0;
                for pid in pids {
                    rss_mb += memory_mb(*pid)?.0;
                }
                let elapsed = now.duration_since(since).as_secs_f64();
                return Ok(Through { rows_per_s: read / elapsed, us_per_row: (cpu()? - before) / read * 1e6, rss_mb });
            }
            _ => {}
        }
        ensure!(asked.0.elapsed() < PATIENCE, "{there} of {rows} rows are in {output}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Rows a second of a query that somebody looks at: how long each took from the producer to the client.
async fn timed(fleet: &Fleet, stage: &Stage, seconds: f64) -> Result<Latency> {
    make_topic(fleet, LIVE_TOPIC).await?;
    stage.call("PUT", "/api/catalog/orders", &declared(LIVE_TOPIC)).await?;
    let sql = "SELECT order_id, customer_id, amount * 2 AS twice FROM orders WHERE amount >= 0";
    let query = stage.call("POST", "/api/queries", &json!({ "sqlScript": sql })).await?;
    let id = query["id"].as_str().context("a query has an id")?;
    let mut rows = Rows::open(stage.service.port, &format!("/api/queries/{id}/rows")).await?;
    let first = fastrand::u64(1_000_000_000..2_000_000_000);
    let due = (RATE as f64 * seconds) as u64;
    // It begins with what comes once its header is there; a second of rows before is not timed.
    let producing = tokio::task::spawn_blocking({
        let producer = Producing::open(fleet)?;
        move || -> Result<Vec<Instant>> {
            let (started, mut sent, mut row) = (Instant::now(), Vec::new(), Vec::new());
            while (sent.len() as u64) < due + RATE {
                if started.elapsed().as_secs_f64() * (RATE as f64) < sent.len() as f64 {
                    std::thread::sleep(Duration::from_micros(500));
                    continue;
                }
                let n = sent.len() as u64;
                rows::row(first + n, n, &mut row);
                sent.push(Instant::now());
                producer.send(LIVE_TOPIC, n, &row)?;
            }
            producer.flush()?;
            Ok(sent)
        }
    });
    let mut seen_at = Vec::new();
    let last = first + due + RATE - 1;
    let reading = async {
        let mut is_over = false;
        while !is_over {
            rows.next(|seen| {
                if let Seen::Row(row) = seen
                    && let Some(number) = number(row)
                {
                    seen_at.push((number, Instant::now()));
                    is_over |= seen_at.len() as u64 >= due + RATE || number == last;
                }
            })
            .await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, reading).await.context("rows are missing")??;
    let sent = producing.await.context("the producer panicked")??;
    let mut latencies = Vec::new();
    for (number, at) in seen_at {
        let n = (number - first) as usize;
        if n as u64 >= RATE {
            latencies.push(at.duration_since(sent[n]));
        }
    }
    ensure!(latencies.len() as u64 * 100 >= due * 99, "{} of {due} rows were shown", latencies.len());
    Ok(Latency::of(latencies))
}

/// The number of a row's order, which is the only number of ten digits in it.
fn number(row: &str) -> Option<u64> {
    row.split(|letter: char| !letter.is_ascii_digit()).find(|digits| digits.len() == 10)?.parse().ok()
}

/// What a query that has nothing to do takes of a core, and the memory of the process with ten of them.
async fn idle(fleet: &Fleet, seconds: f64) -> Result<(f64, f64)> {
    make_topic(fleet, IDLE_TOPIC).await?;
    let stage = Stage::embedded(fleet, (DATABASE, IDLE_TOPIC), &[("STREAMVIEW_EMBEDDED__QUERIES", "16")]).await?;
    stage.call("PUT", "/api/catalog/orders", &declared(IDLE_TOPIC)).await?;
    let pid = stage.service.pid();
    let used = async || -> Result<f64> {
        let before = cpu_of(pid)?;
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        Ok((cpu_of(pid)? - before) / seconds * 100.0)
    };
    tokio::time::sleep(Duration::from_secs(2)).await;
    let without = used().await?;
    for number in 0..IDLE_QUERIES {
        let sql = if number % 2 == 0 { rows::FILTER } else { rows::WINDOWS };
        let made =
            stage.call("POST", "/api/streams", &json!({ "name": format!("idle {number}"), "sqlScript": sql })).await?;
        let path = made["href"].as_str().context("a stream has a path")?;
        stage.call("POST", &format!("{path}/deploy"), &json!({})).await?;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let with = used().await?;
    let (rss_mb, _) = memory_mb(pid)?;
    stage.end(fleet).await?;
    Ok(((with - without).max(0.0) / IDLE_QUERIES as f64, rss_mb))
}
