//! Reads topics and writes them: one thread per query.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::catalog::Topics;
use super::flow::{Flow, Given, Plan};

const PATIENCE: Duration = Duration::from_secs(10);
/// How long a thread waits for a record before it looks whether it shall end.
const PAUSE: Duration = Duration::from_millis(50);

/// A record of this value fails the push queries that read it. The real server passes over records that are no rows; its queries
/// fail by faults that cannot be made here.
pub const POISON: &str = "stand-in: fail";

/// How a running query is spoken to.
#[derive(Debug, Default)]
pub struct Control {
    /// It shall end.
    pub stop: AtomicBool,
    /// It shall wait.
    pub paused: AtomicBool,
}

impl Control {
    fn ends(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// The brokers.
#[derive(Debug, Clone)]
pub struct Brokers(pub String);

impl Brokers {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.0);
        config
    }

    fn reader(&self, group: &str, from_start: bool) -> Result<BaseConsumer> {
        let mut config = self.client();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("fetch.wait.max.ms", "20")
            .set("auto.offset.reset", if from_start { "earliest" } else { "latest" });
        config.create().context("a consumer")
    }

    /// All topics and how many partitions they have.
    pub fn topics(&self) -> Result<Topics> {
        let reader = self.reader("unused", true)?;
        let metadata = reader.fetch_metadata(None, PATIENCE).context("asking for the topics")?;
        let topics = metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len()));
        Ok(topics.map(|(name, partitions)| (name, u32::try_from(partitions).unwrap_or(u32::MAX))).collect())
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.client().create().context("an admin client")
    }

    /// Makes a topic.
    pub async fn create_topic(&self, name: &str, partitions: u32) -> Result<()> {
        let topic = NewTopic::new(name, i32::try_from(partitions)?, TopicReplication::Fixed(1));
        for made in self.admin()?.create_topics(&[topic], &AdminOptions::new()).await? {
            made.map_err(|(topic, code)| anyhow::anyhow!("making the topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        for deleted in self.admin()?.delete_topics(&[name], &AdminOptions::new()).await? {
            deleted.map_err(|(topic, code)| anyhow::anyhow!("deleting the topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Runs a persistent query until it shall end. Its offsets are committed after its rows are written, so none is lost.
    pub fn run(&self, plan: Plan, group: &str, sink: &str, from_start: bool, control: &Control) -> Result<()> {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.client().set("linger.ms", "5").create().context("a producer")?;
        let mut flow = Flow::new(plan);
        if flow.plan().aggregates() {
            self.recall(&mut flow, sink)?;
        }
        let topic = flow.plan().source.topic.clone();
        let reader = self.reader(group, from_start)?;
        let partitions = partitions(&reader, &topic)?;
        let committed = reader.committed_offsets(partitions, PATIENCE).context("asking for offsets")?;
        reader.assign(&committed)?;
        while !control.ends() {
            if control.paused.load(Ordering::Acquire) {
                std::thread::park_timeout(PAUSE);
                continue;
            }
            let mut next = TopicPartitionList::new();
            let mut wait = PAUSE;
            for _ in 0..500 {
                let Some(message) = reader.poll(wait) else { break };
                let message = message.context("reading")?;
                wait = Duration::ZERO;
                if let Some(given) = flow.take(message.key(), message.payload()) {
                    write(&producer, sink, &given, flow.plan())?;
                }
                match next.find_partition(&topic, message.partition()) {
                    Some(mut known) => known.set_offset(Offset::Offset(message.offset() + 1))?,
                    None => {
                        let offset = Offset::Offset(message.offset() + 1);
                        next.add_partition_offset(&topic, message.partition(), offset)?;
                    }
                }
            }
            if next.count() > 0 {
                producer.flush(PATIENCE).context("writing")?;
                reader.commit(&next, CommitMode::Sync).context("committing")?;
            }
        }
        Ok(())
    }

    /// Reads what an aggregation wrote before.
    fn recall(&self, flow: &mut Flow, sink: &str) -> Result<()> {
        self.whole(sink, |key, value| {
            if let (Some(key), Some(value)) = (key, value) {
                flow.remember(key, value);
            }
        })
    }

    /// Everything that is in a topic now.
    pub fn whole(&self, topic: &str, mut take: impl FnMut(Option<&[u8]>, Option<&[u8]>)) -> Result<()> {
        let reader = self.reader("unused", true)?;
        let ends = ends(&reader, topic)?;
        let mut left: i64 = ends.iter().map(|(_, first, end)| end - first).sum();
        begin(&reader, topic, ends.iter().map(|(partition, first, _)| (*partition, *first)))?;
        while left > 0 {
            let message = reader.poll(PATIENCE).context("the topic is silent")?.context("reading")?;
            take(message.key(), message.payload());
            left -= 1;
            if message.payload() == Some(POISON.as_bytes()) {
                bail!("the record at offset {} could not be read", message.offset());
            }
        }
        Ok(())
    }

    /// Runs a push query: says where it begins by `begun`, and gives rows until it shall end or nobody takes them. A query that
    /// does not ask for changes ends with what is there now.
    pub fn push(
        &self,
        plan: Plan,
        from_start: bool,
        control: &Arc<Control>,
        begun: impl FnOnce(),
        mut give: impl FnMut(Given) -> bool,
    ) -> Result<()> {
        let mut flow = Flow::new(plan);
        let topic = flow.plan().source.topic.clone();
        let reader = self.reader("unused", from_start)?;
        let ends = ends(&reader, &topic)?;
        begin(
            &reader,
            &topic,
            ends.iter().map(|(number, first, end)| (*number, if from_start { *first } else { *end })),
        )?;
        begun();
        let there: i64 = ends.iter().map(|(_, first, end)| end - first).sum();
        let mut left = if flow.plan().select.changes { i64::MAX } else { there };
        while !control.ends() && left > 0 {
            let Some(message) = reader.poll(PAUSE) else { continue };
            let message = message.context("reading")?;
            left -= 1;
            if message.payload() == Some(POISON.as_bytes()) {
                bail!("the record at offset {} could not be read", message.offset());
            }
            if let Some(given) = flow.take(message.key(), message.payload())
                && !give(given)
            {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn partitions(reader: &BaseConsumer, topic: &str) -> Result<TopicPartitionList> {
    let metadata = reader.fetch_metadata(Some(topic), PATIENCE).context("asking for partitions")?;
    let mut list = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        list.add_partition(topic, partition.id());
    }
    if list.count() == 0 {
        bail!("the topic {topic} has no partitions");
    }
    Ok(list)
}

/// For each partition its number, its first offset and its next one.
fn ends(reader: &BaseConsumer, topic: &str) -> Result<Vec<(i32, i64, i64)>> {
    let mut ends = Vec::new();
    for partition in partitions(reader, topic)?.elements() {
        let (first, end) =
            reader.fetch_watermarks(topic, partition.partition(), PATIENCE).context("asking for offsets")?;
        ends.push((partition.partition(), first, end));
    }
    Ok(ends)
}

fn begin(reader: &BaseConsumer, topic: &str, offsets: impl Iterator<Item = (i32, i64)>) -> Result<()> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    reader.assign(&list).context("assigning")
}

fn write(producer: &ThreadedProducer<DefaultProducerContext>, sink: &str, given: &Given, plan: &Plan) -> Result<()> {
    let (key, value) = given.record(&plan.columns);
    let mut record: BaseRecord<'_, str, str> = BaseRecord::to(sink);
    if let Some(key) = &key {
        record = record.key(key);
    }
    if let Some(value) = &value {
        record = record.payload(value);
    }
    // A full queue is waited for: it empties by itself.
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((rdkafka::error::KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.flush(PATIENCE).context("writing")?;
            }
            Err((error, _)) => return Err(error).context("writing"),
        }
    }
}
