//! Live: events come at a fixed rate, whatever the service does; how soon does a reader see them?

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::sync::mpsc::unbounded_channel;

use crate::fleet::{Fleet, Service};
use crate::http::Connection;
use crate::latency::Latency;
use crate::processes::{forget_peak, load_average, memory_mb};
use crate::publish::Publisher;
use crate::results::Better::Less;
use crate::section::{Lines, Section};
use crate::workload::Spaced;

/// Reads a second that look for their event.
const SAMPLES_PER_S: u64 = 200;
/// Longest wait of such a read.
const WAIT_MS: u64 = 5000;

/// One rate.
#[derive(Debug, Clone, Serialize)]
pub struct Live {
    /// Events a second, meant.
    pub rate: u64,
    /// Events a second, sent.
    pub sent_per_s: f64,
    /// Seconds.
    pub seconds: f64,
    /// From the producer's send to the end of the answer of `GET /orders/{id}?minSequence=..`.
    pub visible: Latency,
    /// Reads that did not see their event within [`WAIT_MS`]; they count with that time.
    pub unseen: usize,
    /// CPU of the service in percent of one core, the sampling reads included.
    pub client_cpu_percent: f64,
    /// CPU of Postgres in percent of one core.
    pub postgres_cpu_percent: f64,
    /// CPU of the broker in percent of one core.
    pub kafka_cpu_percent: f64,
    /// CPU of this benchmark, producer and readers, in percent of one core.
    pub bench_cpu_percent: f64,
    /// Highest resident memory of the service.
    pub peak_rss_mb: f64,
    /// Cores that processes outside this benchmark used meanwhile.
    pub others_cores: f64,
    /// Load average before.
    pub load_average: f64,
}

/// How they are reported, a section for each rate.
pub fn sections(runs: &[Live]) -> Vec<Section> {
    let rates: BTreeSet<u64> = runs.iter().map(|run| run.rate).collect();
    let of_rate = |rate| runs.iter().filter(|run| run.rate == rate).cloned().collect::<Vec<Live>>();
    rates.into_iter().map(|rate| section(rate, &of_rate(rate))).collect()
}

fn section(rate: u64, runs: &[Live]) -> Section {
    Lines::of(&format!("live, {rate} events/s, from produce to visible over REST"), runs)
        .context("sent", "events/s", |run| run.sent_per_s)
        .informs(Less, "p50", "ms", |run| run.visible.p50_ms)
        .informs(Less, "p99", "ms", |run| run.visible.p99_ms)
        .informs(Less, "greatest", "ms", |run| run.visible.max_ms)
        .informs(Less, "not seen in 5 s", "reads", |run| run.unseen as f64)
        .judged(Less, "CPU of the service", "% of a core", |run| run.client_cpu_percent)
        .judged(Less, "CPU of Postgres", "% of a core", |run| run.postgres_cpu_percent)
        .informs(Less, "CPU of the broker", "% of a core", |run| run.kafka_cpu_percent)
        .context("CPU of this program", "% of a core", |run| run.bench_cpu_percent)
        .judged(Less, "peak RSS", "MB", |run| run.peak_rss_mb)
        .context("used by others", "cores", |run| run.others_cores)
        .context("load average before", "", |run| run.load_average)
        .done()
}

/// Publishes `rate` events a second for `seconds` and measures a sample of them.
pub async fn run(
    fleet: &Fleet,
    service: &Service,
    (publisher, events): (&mut Publisher, &mut Spaced),
    rate: u64,
    seconds: f64,
) -> Result<Live> {
    let watched = fleet.watched(std::slice::from_ref(service))?;
    forget_peak(service.pid())?;
    let (load_average, before, started) = (load_average()?, watched.cpu()?, Instant::now());
    let (samples, mut received) = unbounded_channel();
    let idle = Arc::new(Mutex::new(Vec::<Connection>::new()));
    let port = service.port;
    let reading = tokio::spawn(async move {
        let mut reads = Vec::new();
        while let Some((target, sent)) = received.recv().await {
            reads.push(tokio::spawn(read(Arc::clone(&idle), port, target, sent)));
        }
        let mut latencies = Vec::with_capacity(reads.len());
        for read in reads {
            latencies.push(read.await??);
        }
        anyhow::Ok(latencies)
    });
    let published = tokio::task::block_in_place(|| {
        let every = (rate / SAMPLES_PER_S).max(1);
        publisher.pace(events, (rate, seconds), every, |event, sent| {
            let target = format!("/orders/{}?minSequence={}&waitMs={WAIT_MS}", event.order_id(), event.sequence);
            samples.send((target, sent)).context("the reader has ended")
        })
    });
    let (elapsed, cpu) = (started.elapsed().as_secs_f64(), watched.cpu()?.since(before));
    drop(samples);
    let sent = published?;
    publisher.flush()?;
    let seen = reading.await.context("the reader panicked")??;
    let latencies = seen.iter().map(|seen| seen.unwrap_or(Duration::from_millis(WAIT_MS))).collect();
    Ok(Live {
        rate,
        sent_per_s: sent as f64 / elapsed,
        seconds: elapsed,
        visible: Latency::of(latencies),
        unseen: seen.iter().filter(|seen| seen.is_none()).count(),
        client_cpu_percent: cpu.client / elapsed * 100.0,
        postgres_cpu_percent: cpu.postgres / elapsed * 100.0,
        kafka_cpu_percent: cpu.kafka / elapsed * 100.0,
        bench_cpu_percent: cpu.bench / elapsed * 100.0,
        peak_rss_mb: memory_mb(service.pid())?.1,
        others_cores: cpu.others() / elapsed,
        load_average,
    })
}

/// How long it took until the event was seen; `None` if it was not.
async fn read(idle: Arc<Mutex<Vec<Connection>>>, port: u16, target: String, sent: Instant) -> Result<Option<Duration>> {
    let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut connection = match kept {
        Some(connection) => connection,
        None => Connection::open(port).await?,
    };
    let answer = connection.get(&target).await?;
    let latency = match answer.status {
        200 => Some(sent.elapsed()),
        412 => None,
        status => bail!("GET {target} answered {status}"),
    };
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    Ok(latency)
}
