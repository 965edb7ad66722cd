//! Publishes the workload: as fast as it goes, or open-loop at a fixed rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::fleet::Fleet;
use crate::workload::{Event, Shape};

/// What the value of an event's record is.
pub type Encode = Box<dyn Fn(Event) -> Result<Vec<u8>> + Send + Sync>;

/// JSON of that shape.
pub fn json(shape: Shape) -> Encode {
    Box::new(move |event| Ok(event.payload(shape).into_bytes()))
}

/// Publishes all of `events` as JSON; creates the topic, and its topic of dead letters, if there is none yet.
pub async fn fill(fleet: &Fleet, place: (&str, i32), events: impl Iterator<Item = Event>) -> Result<()> {
    fill_with(fleet, place, events, json(Shape::default())).await
}

/// Likewise, with other values.
pub async fn fill_with(
    fleet: &Fleet,
    (topic, partitions): (&str, i32),
    events: impl Iterator<Item = Event>,
    encode: Encode,
) -> Result<()> {
    let bootstrap = fleet.kafka.bootstrap();
    let dead_letters = format!("{topic}.dlq");
    let kafka = ClientConfig::from_iter([("bootstrap.servers".to_owned(), bootstrap.clone())]);
    streamview_lab::seed::create_topics(&kafka, &[(topic, partitions), (dead_letters.as_str(), 1)]).await?;
    let started = Instant::now();
    let sent = tokio::task::block_in_place(|| {
        let mut publisher = Publisher { encode, ..Publisher::open(&bootstrap, topic, 20)? };
        publisher.preload(events)
    })?;
    eprintln!("{topic}: published {sent} events in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// A producer that counts confirmations.
pub struct Publisher {
    producer: ThreadedProducer<Deliveries>,
    topic: String,
    encode: Encode,
    sent: u64,
}

#[derive(Default)]
struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.delivered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Publisher {
    /// A producer that waits `linger_ms` for a batch to fill.
    pub fn open(bootstrap: &str, topic: &str, linger_ms: u32) -> Result<Publisher> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("linger.ms", linger_ms.to_string())
            .set("batch.size", "65536")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "500000")
            .create_with_context(Deliveries::default())
            .context("starting the producer")?;
        Ok(Publisher { producer, topic: topic.to_owned(), encode: json(Shape::default()), sent: 0 })
    }

    /// Sends everything and waits for the confirmations; gives how many.
    fn preload(&mut self, events: impl Iterator<Item = Event>) -> Result<u64> {
        for event in events {
            self.send(event)?;
        }
        self.flush()?;
        Ok(self.sent)
    }

    /// Sends `rate` events a second for `seconds`, late ones at once; `sample` sees one of `every` as it is sent.
    /// Gives the number of events.
    pub fn pace(
        &mut self,
        events: &mut impl Iterator<Item = Event>,
        (rate, seconds): (u64, f64),
        every: u64,
        mut sample: impl FnMut(Event, Instant) -> Result<()>,
    ) -> Result<u64> {
        let started = Instant::now();
        let total = (rate as f64 * seconds) as u64;
        let mut sent = 0;
        while sent < total {
            let due = ((started.elapsed().as_secs_f64() * rate as f64) as u64).min(total);
            for event in events.take((due - sent) as usize) {
                let now = Instant::now();
                self.send(event)?;
                if sent % every == 0 {
                    sample(event, now)?;
                }
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(sent)
    }

    /// Waits for all confirmations.
    pub fn flush(&self) -> Result<()> {
        self.producer.flush(Duration::from_secs(120)).context("flushing the producer")?;
        let deliveries: &Arc<Deliveries> = self.producer.context();
        let (delivered, failed) =
            (deliveries.delivered.load(Ordering::Relaxed), deliveries.failed.load(Ordering::Relaxed));
        if failed > 0 || delivered != self.sent {
            bail!("of {} events {delivered} were delivered and {failed} failed", self.sent);
        }
        Ok(())
    }

    fn send(&mut self, event: Event) -> Result<()> {
        let (key, payload, sequence) = (event.order_id(), (self.encode)(event)?, event.sequence.to_string());
        loop {
            let headers = OwnedHeaders::new().insert(Header { key: "x-sequence", value: Some(&sequence) });
            let record = BaseRecord::to(&self.topic).key(&key).payload(&payload).headers(headers);
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error).context("sending an event"),
            }
        }
        self.sent += 1;
        Ok(())
    }
}
