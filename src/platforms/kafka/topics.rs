//! Topics as the stream manager needs them: which there are, how far they reach, what a group has not read yet; made and
//! deleted. Each call has clients of its own, which are gone with it, and is bounded by time. Joins no group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::Semaphore;

use crate::config::KafkaSettings;
use crate::manager::ports::{Consumers, From, Kafka, Place, PortError, Records, Topic};
use crate::platforms::kafka::listener::{Listener, listen};
use crate::platforms::kafka::{base_config, consumers, open, tail};

/// How long one question to a broker may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// How many are under way at once.
const MOST_QUESTIONS: usize = 32;
/// How long a broker without topic ids may take to make a topic: that of the playground never says that it knows no such call.
const UNANSWERED: Duration = Duration::from_secs(1);
/// Number of replicas: the broker's own default.
const AS_THE_BROKER_HAS_IT: i32 = -1;

/// The brokers, for the stream manager.
#[derive(Clone)]
pub struct Topics {
    settings: KafkaSettings,
    asking: Arc<Semaphore>,
}

impl Topics {
    /// At the brokers of these settings; connects to nobody yet.
    pub fn new(settings: &KafkaSettings) -> Topics {
        Topics { settings: settings.clone(), asking: Arc::new(Semaphore::new(MOST_QUESTIONS)) }
    }

    /// Asks on a thread that may block. Nobody takes back what is under way: given up by whoever wanted to know, it counts until
    /// it has ended, so that they do not take all threads by coming and going.
    async fn blocking<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> Result<T, PortError> + Send + 'static,
    ) -> Result<T, PortError> {
        let turn = Arc::clone(&self.asking).acquire_owned().await;
        let turn = turn.map_err(|closed| PortError::Unavailable(closed.to_string()))?;
        blocking(move || {
            let _turn = turn;
            question()
        })
        .await
    }

    /// Asks with a consumer, on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        group: Option<&str>,
        question: impl FnOnce(&BaseConsumer<Listener>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, PortError> {
        let (settings, group) = (self.settings.clone(), group.unwrap_or("streamview-topics").to_owned());
        self.blocking(move || {
            let mut config = base_config(&settings);
            config.set("group.id", group).set("enable.auto.commit", "false"); // asked for by the client, never joined
            let consumer: BaseConsumer<Listener> =
                open(&config, Listener::new(&settings)).map_err(|error| PortError::Refused(error.to_string()))?;
            question(&consumer).map_err(|error| fault(&consumer, &error))
        })
        .await
    }

    /// Has an administrator's call made; `fine` is what the broker may say beside yes. `false`: it knows no such calls.
    async fn administer<F>(&self, call: F, fine: RDKafkaErrorCode, patience: Duration) -> Result<bool, PortError>
    where
        F: AsyncFnOnce(&AdminClient<Listener>, &AdminOptions) -> Result<Option<RDKafkaErrorCode>, KafkaError>,
    {
        let heard = Listener::new(&self.settings);
        let admin: AdminClient<Listener> =
            open(&base_config(&self.settings), heard.clone()).map_err(|error| PortError::Refused(error.to_string()))?;
        let options = AdminOptions::new().request_timeout(Some(patience)).operation_timeout(Some(patience));
        let answer = call(&admin, &options).await;
        // Whoever goes away waits for its threads.
        blocking(move || {
            drop(admin);
            Ok(())
        })
        .await?;
        match answer {
            Ok(None) => Ok(true),
            Ok(Some(code)) if code == fine => Ok(true),
            Ok(Some(RDKafkaErrorCode::UnsupportedFeature)) => Ok(false),
            Ok(Some(code)) => Err(meaning(code, code.to_string())),
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnsupportedFeature) => Ok(false),
            Err(error) => Err(of_error(&error, blocking(move || Ok(heard.said())).await?)),
        }
    }

    /// Asks for a topic as a client does that may make it by asking: the playground's broker knows no other way.
    async fn ask_for(&self, name: &str) -> Result<(), PortError> {
        let (settings, name) = (self.settings.clone(), name.to_owned());
        self.blocking(move || {
            let mut config = base_config(&settings);
            config.set("group.id", "streamview-topics").set("allow.auto.create.topics", "true"); // never joined
            let consumer: BaseConsumer<Listener> =
                open(&config, Listener::new(&settings)).map_err(|error| PortError::Refused(error.to_string()))?;
            consumer.fetch_metadata(Some(&name), TIMEOUT).map(drop).map_err(|error| fault(&consumer, &error))
        })
        .await
    }

    /// Waits until the brokers tell of a topic that was just made, no longer than one question may take.
    async fn until_it_is_known(&self, name: &str) -> Result<(), PortError> {
        let name = name.to_owned();
        let is_known = move |consumer: &BaseConsumer<Listener>| {
            let until = Instant::now() + TIMEOUT;
            loop {
                let metadata = consumer.fetch_metadata(Some(&name), TIMEOUT)?;
                let found = metadata.topics().first();
                if found.is_some_and(|topic| {
                    topic.error().is_none() && topic.partitions().iter().all(|partition| partition.leader() >= 0)
                }) {
                    return Ok(());
                }
                if Instant::now() >= until {
                    return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable));
                }
                // Whatever it has to say meanwhile is heard, and time passes.
                listen(consumer);
            }
        };
        self.ask(None, is_known).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PortError> + Send + 'static,
) -> Result<T, PortError> {
    let done = tokio::task::spawn_blocking(work).await.context("the thread that asks Kafka has failed");
    done.unwrap_or_else(|error| Err(PortError::Unavailable(format!("{error:#}"))))
}

/// What an error of a consumer means, with what it has to say.
pub(super) fn fault(consumer: &BaseConsumer<Listener>, error: &KafkaError) -> PortError {
    listen(consumer);
    of_error(error, consumer.context().said())
}

fn of_error(error: &KafkaError, said: Option<String>) -> PortError {
    match (said, error.rdkafka_error_code()) {
        // Its login may be let in again later: nothing was refused but the connection.
        (Some(said), _) => PortError::Unavailable(format!("Kafka does not let us in: {said}")),
        (None, Some(code)) => meaning(code, error.to_string()),
        (None, None) => PortError::Unavailable(error.to_string()),
    }
}

fn meaning(code: RDKafkaErrorCode, text: String) -> PortError {
    use RDKafkaErrorCode as Code;
    match code {
        Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            PortError::Refused(format!("Kafka does not allow it: {text}"))
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            PortError::Refused(format!("there is no such topic: {text}"))
        }
        Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::PolicyViolation
        | Code::TopicAlreadyExists
        | Code::TopicDeletionDisabled
        | Code::UnsupportedVersion => PortError::Refused(text),
        _ => PortError::Unavailable(text),
    }
}

/// Partitions of a topic, in order. A topic that is not there is refused by name.
pub(super) fn partitions(
    consumer: &BaseConsumer<Listener>,
    topic: &str,
    patience: Duration,
) -> Result<Vec<i32>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), patience)?;
    let Some(found) = metadata.topics().first() else {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
    };
    if let Some(error) = found.error() {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
    partitions.sort_unstable();
    Ok(partitions)
}

/// Whether the topic is not there.
pub(super) fn is_missing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
    matches!(error.rdkafka_error_code(), Some(UnknownTopic | UnknownTopicOrPartition))
}

/// A committed position.
pub(super) fn position(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// Records of a partition between a position and the end. What retention has taken is nobody's lag; a partition without a
/// position is read from its beginning.
pub(super) fn behind(position: Option<i64>, (low, high): (i64, i64)) -> u64 {
    u64::try_from(high - position.unwrap_or(low).max(low)).unwrap_or(0)
}

fn lag(consumer: &BaseConsumer<Listener>, topic: &str) -> Result<Option<u64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions(consumer, topic, TIMEOUT)? {
        list.add_partition(topic, partition);
    }
    let committed = consumer.committed_offsets(list, TIMEOUT)?;
    if committed.elements().iter().all(|element| position(element.offset()).is_none()) {
        return Ok(None);
    }
    let mut lag = 0;
    for element in committed.elements() {
        let (low, high) = consumer.fetch_watermarks(topic, element.partition(), TIMEOUT)?;
        lag += behind(position(element.offset()), (low, high));
    }
    Ok(Some(lag))
}

#[async_trait]
impl Kafka for Topics {
    async fn topics(&self) -> Result<Vec<Topic>, PortError> {
        self.ask(None, |consumer| {
            let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
            let ours = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
            let mut topics: Vec<Topic> = ours
                .map(|topic| Topic {
                    name: topic.name().to_owned(),
                    partitions: u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX),
                })
                .collect();
            topics.sort_by(|one, other| one.name.cmp(&other.name));
            Ok(topics)
        })
        .await
    }

    async fn create_topic(&self, name: &str, partitions: u32) -> Result<(), PortError> {
        let count = i32::try_from(partitions).map_err(|_| {
            PortError::Refused(format!("topic {name} cannot have {partitions} partitions, that is too many"))
        })?;
        let create = async |admin: &AdminClient<Listener>, options: &AdminOptions| {
            let topic = NewTopic::new(name, count, TopicReplication::Fixed(AS_THE_BROKER_HAS_IT));
            let answers = admin.create_topics([&topic], options).await?;
            Ok(answers.into_iter().find_map(|answer| answer.err().map(|(_, code)| code)))
        };
        let patience = if self.settings.topic_ids { TIMEOUT } else { UNANSWERED };
        match self.administer(create, RDKafkaErrorCode::TopicAlreadyExists, patience).await {
            Ok(true) => {}
            Ok(false) => self.ask_for(name).await?,
            // The playground's broker answers no such call at all.
            Err(PortError::Unavailable(_)) if !self.settings.topic_ids => self.ask_for(name).await?,
            Err(error) => return Err(error),
        }
        self.until_it_is_known(name).await
    }

    async fn delete_topic(&self, name: &str) -> Result<(), PortError> {
        let delete = async |admin: &AdminClient<Listener>, options: &AdminOptions| {
            let answers = admin.delete_topics(&[name], options).await?;
            Ok(answers.into_iter().find_map(|answer| answer.err().map(|(_, code)| code)))
        };
        match self.administer(delete, RDKafkaErrorCode::UnknownTopicOrPartition, TIMEOUT).await? {
            true => Ok(()),
            false => Err(PortError::Refused("this broker cannot delete topics".to_owned())),
        }
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(i64, i64)>, PortError> {
        let topic = topic.to_owned();
        self.ask(None, move |consumer| {
            let partitions = partitions(consumer, &topic, TIMEOUT)?;
            partitions.into_iter().map(|partition| consumer.fetch_watermarks(&topic, partition, TIMEOUT)).collect()
        })
        .await
    }

    async fn group_lag(&self, group: &str, topic: &str) -> Result<Option<u64>, PortError> {
        let topic = topic.to_owned();
        self.ask(Some(group), move |consumer| lag(consumer, &topic)).await
    }

    async fn consumers(&self, topic: &str, most: usize) -> Result<Consumers, PortError> {
        let (settings, topic) = (self.settings.clone(), topic.to_owned());
        self.blocking(move || consumers::of(&settings, &topic, most)).await
    }

    async fn tail(&self, topic: &str, from: From, place: Place) -> Result<Records, PortError> {
        let (settings, topic) = (self.settings.clone(), topic.to_owned());
        let tail = self.blocking(move || tail::Tail::begin(&settings, &topic, from, place)).await?;
        Ok(Box::pin(tail))
    }
}
