//! Sends seed records to Kafka at a given rate and counts what the broker confirmed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::generator::{SeedPlan, SeedRecord, SeedSummary};

/// What was sent and what became of it: `generated.records = delivered + failed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the records mean to a reader, if all were delivered.
    pub generated: SeedSummary,
    /// Records the broker confirmed.
    pub delivered: u64,
    /// Records the broker refused or never confirmed.
    pub failed: u64,
    /// The first reason for that.
    pub first_error: Option<String>,
}

/// How long a record may wait for its confirmation.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a broker may take to answer, or to create a topic.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// One burst of a paced run lasts this long.
const BURST: Duration = Duration::from_millis(10);
/// Records between two looks at the cancellation token of a run without pace.
const UNPACED_BURST: u64 = 1000;
/// Pause when the producer's queue is full.
const BACK_PRESSURE: Duration = Duration::from_millis(2);

/// Sends a plan's records until it ends or is cancelled, then waits for all confirmations.
///
/// `rate` is in records per second; `None` is as fast as the broker takes them. `progress` is told
/// after each burst how many were sent so far. A record that fails is counted, not an error. `kafka` says where the brokers
/// are and how one is let in there.
pub async fn publish(
    kafka: &ClientConfig,
    topic: &str,
    plan: &SeedPlan,
    rate: Option<f64>,
    cancel: CancellationToken,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Summary> {
    let mut records = plan.generate();
    let confirmed = publish_records(kafka, topic, &mut records, rate, cancel, &mut progress).await?;
    Ok(Summary {
        generated: records.summary(),
        delivered: confirmed.delivered,
        failed: confirmed.failed,
        first_error: confirmed.first_error,
    })
}

/// What brokers said of records that were sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// Records that a broker confirmed.
    pub delivered: u64,
    /// Records that brokers refused or never confirmed.
    pub failed: u64,
    /// The first reason for that.
    pub first_error: Option<String>,
}

/// Sends records until there are no more or it is cancelled, then waits for all confirmations; as [`publish`].
pub async fn publish_records(
    kafka: &ClientConfig,
    topic: &str,
    records: &mut impl Iterator<Item = SeedRecord>,
    rate: Option<f64>,
    cancel: CancellationToken,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Confirmed> {
    let producer = producer(kafka)?;
    let mut pace = Pace::new(rate);
    let (mut sent, mut more) = (0, true);
    while more {
        let burst = tokio::select! {
            () = cancel.cancelled() => break,
            burst = pace.next_burst(sent) => burst,
        };
        for _ in 0..burst {
            if cancel.is_cancelled() {
                break;
            }
            let Some(record) = records.next() else {
                more = false;
                break;
            };
            send(&producer, topic, &record).await?;
            sent += 1;
        }
        progress(sent);
    }
    while producer.in_flight_count() > 0 {
        // Ends: each record is confirmed or given up within the delivery timeout.
        tokio::time::sleep(BURST).await;
    }
    Ok(producer.context().confirmed())
}

/// Creates the topics that do not exist yet, each with this many partitions and the broker's default
/// replication. Existing topics are left as they are.
pub async fn create_topics(kafka: &ClientConfig, topics: &[(&str, i32)]) -> anyhow::Result<()> {
    let bootstrap = bootstrap_of(kafka);
    let admin: AdminClient<DefaultClientContext> =
        named(kafka).create().context("the Kafka admin client cannot start")?;
    // Asking first spares brokers that create topics only by other means, such as in-process ones.
    let existing = list_topics(kafka.clone()).await?;
    let missing: Vec<NewTopic> = topics
        .iter()
        .filter(|(topic, _)| !existing.iter().any(|name| name == topic))
        .map(|(topic, partitions)| NewTopic::new(topic, *partitions, TopicReplication::Fixed(-1)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    // The first is for the broker's own work; without the second one, a broker that does not answer is waited for a minute.
    let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT));
    let results = admin.create_topics(&missing, &options).await;
    for result in results
        .with_context(|| format!("cannot create topics at {bootstrap}, which an in-process broker never does"))?
    {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                anyhow::bail!("cannot create topic {topic} at {bootstrap}: {code}")
            }
        }
    }
    Ok(())
}

async fn list_topics(kafka: ClientConfig) -> anyhow::Result<Vec<String>> {
    let names = tokio::task::spawn_blocking(move || {
        let admin: AdminClient<DefaultClientContext> = named(&kafka).create()?;
        let metadata = admin.inner().fetch_metadata(None, ANSWER_TIMEOUT);
        let metadata = metadata.with_context(|| format!("no Kafka broker answers at {}", bootstrap_of(&kafka)))?;
        anyhow::Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    });
    names.await.context("listing topics was interrupted")?
}

fn bootstrap_of(kafka: &ClientConfig) -> &str {
    kafka.get("bootstrap.servers").unwrap_or_default()
}

fn named(kafka: &ClientConfig) -> ClientConfig {
    let mut config = kafka.clone();
    config.set("client.id", "streamview-seed");
    config
}

fn producer(kafka: &ClientConfig) -> anyhow::Result<ThreadedProducer<Deliveries>> {
    named(kafka)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
        // The Java client's choice of partition, so that keys stay where other producers put them.
        .set("partitioner", "murmur2_random")
        .create_with_context(Deliveries::default())
        .context("the Kafka producer cannot start")
}

/// Hands a record to the producer; waits while its queue is full.
async fn send(producer: &ThreadedProducer<Deliveries>, topic: &str, record: &SeedRecord) -> anyhow::Result<()> {
    loop {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut message = BaseRecord::<[u8], [u8]>::to(topic).payload(&record.payload).headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        match producer.send(message) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {}
            Err((err, _)) => {
                return Err(err).with_context(|| format!("cannot send to topic {topic}"));
            }
        }
        tokio::time::sleep(BACK_PRESSURE).await;
    }
}

/// Counts confirmations, on the producer's own thread.
#[derive(Default)]
struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
    first_error: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Err((err, _)) = result else {
            self.delivered.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        first.get_or_insert_with(|| err.to_string());
    }
}

impl Deliveries {
    fn confirmed(&self) -> Confirmed {
        let first_error = self.first_error.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Confirmed {
            delivered: self.delivered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            first_error: first_error.clone(),
        }
    }
}

/// Says how many records are due. Behind schedule it catches up, so the rate holds on average.
enum Pace {
    Unlimited,
    PerSecond { rate: f64, start: Instant, ticks: tokio::time::Interval },
}

impl Pace {
    fn new(rate: Option<f64>) -> Pace {
        let Some(rate) = rate else {
            return Pace::Unlimited;
        };
        let mut ticks = tokio::time::interval(BURST);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Pace::PerSecond { rate, start: Instant::now(), ticks }
    }

    async fn next_burst(&mut self, sent: u64) -> u64 {
        match self {
            Pace::Unlimited => {
                tokio::task::yield_now().await;
                UNPACED_BURST
            }
            Pace::PerSecond { rate, start, ticks } => {
                ticks.tick().await;
                due_after(start.elapsed(), *rate).saturating_sub(sent)
            }
        }
    }
}

/// Records due in all after this time; the first one at once.
fn due_after(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate) as u64 + 1
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    fn at(bootstrap: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        config
    }

    #[tokio::test]
    async fn every_record_is_delivered_and_existing_topics_are_fine() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", 3, 1).unwrap();
        let kafka = at(&cluster.bootstrap_servers());
        create_topics(&kafka, &[("orders", 3)]).await.unwrap();

        let plan = SeedPlan { poison: 0.1, ..SeedPlan::orderly(200, 1) };
        let mut told = 0;
        let cancel = CancellationToken::new();
        let summary = publish(&kafka, "orders", &plan, None, cancel, |sent| told = sent).await.unwrap();

        assert_eq!(summary.generated.records, plan.generate().count() as u64);
        assert_eq!((summary.delivered, summary.failed), (summary.generated.records, 0));
        assert_eq!(told, summary.delivered);
    }

    #[tokio::test]
    async fn a_cancelled_live_stream_confirms_what_it_sent() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", 1, 1).unwrap();
        let cancel = CancellationToken::new();
        let stop = cancel.clone();
        let progress = |sent| {
            if sent >= 20 {
                stop.cancel()
            }
        };

        let plan = SeedPlan::orderly(u64::MAX, 1);
        let kafka = at(&cluster.bootstrap_servers());
        let summary = publish(&kafka, "orders", &plan, Some(500.0), cancel, progress).await.unwrap();

        assert!((20..200).contains(&summary.delivered), "{summary:?}");
        assert_eq!(summary.delivered, summary.generated.records);
    }

    #[test]
    fn a_pace_starts_at_once_and_holds_on_average() {
        assert_eq!(due_after(Duration::ZERO, 250.0), 1);
        assert_eq!(due_after(Duration::from_secs(4), 250.0), 1001);
        assert_eq!(due_after(Duration::from_secs(10), 0.2), 3);
    }
}
