//! Kafka as the embedded engine needs it ([`crate::embedded::log`]): topics read by assignment ([`reader`]), output and positions
//! written in one transaction ([`writer`]), groups that hold nothing but positions. Nobody joins a group.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::KafkaSettings;
use crate::embedded::log::{Delivery, Log, LogError, Reader, Writer};
use crate::manager::ports::{Kafka, PortError};
use crate::platforms::kafka::coordinator::REQUEST_TIMEOUT;
use crate::platforms::kafka::listener::{Listener, listen};
use crate::platforms::kafka::topics::Topics;
use crate::platforms::kafka::{base_config, open};

mod reader;
mod writer;

/// How long one question to a broker may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How soon a broker that did not list its groups is asked for them again.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The brokers, for the embedded engine.
pub struct JobLog {
    settings: KafkaSettings,
    delivery: Delivery,
    crash: fn(&'static str),
    /// When a broker without transactions did not list its groups.
    unlisted: Mutex<Option<Instant>>,
}

impl JobLog {
    /// At the brokers of these settings; connects to nobody yet.
    pub fn new(settings: &KafkaSettings, delivery: Delivery, crash: fn(&'static str)) -> JobLog {
        JobLog { settings: settings.clone(), delivery, crash, unlisted: Mutex::default() }
    }

    /// Has an asynchronous call made on this thread, which is one of a job's or may block.
    fn wait<T>(&self, call: impl Future<Output = Result<T, LogError>>) -> Result<T, LogError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| LogError::Again(format!("no call can be made: {error}")))?.block_on(call)
    }

    /// Whether the brokers know how to delete groups, which came later than listing them. Where they do not, as the broker of the
    /// playground, librdkafka must not even be asked: of a call that a broker does not know it gives a queue back twice, and
    /// ends the process when the client is dropped (`rkq_refcnt > 0`, seen in 2.12.1).
    fn can_delete_groups(&self) -> Result<bool, LogError> {
        if self.delivery == Delivery::ExactlyOnce {
            return Ok(true); // a broker with transactions knows more than that
        }
        Ok(self.listed()?.is_some())
    }

    /// The names of all groups; `None` from a broker without transactions that does not say, as that of the playground: whoever asks
    /// it waits for nothing, and does so once a minute at most.
    fn listed(&self) -> Result<Option<Vec<String>>, LogError> {
        let unlisted = || self.unlisted.lock().unwrap_or_else(PoisonError::into_inner);
        if unlisted().is_some_and(|at| at.elapsed() < ASK_AGAIN) {
            return Ok(None);
        }
        let consumer = self.consumer()?;
        match consumer.fetch_group_list(None, TIMEOUT) {
            Ok(list) => Ok(Some(list.groups().iter().map(|group| group.name().to_owned()).collect())),
            Err(error) if self.delivery == Delivery::AtLeastOnce => {
                tracing::debug!(error = %error, "groups cannot be listed");
                *unlisted() = Some(Instant::now());
                Ok(None)
            }
            Err(error) => Err(fault(&consumer, &error)),
        }
    }

    fn consumer(&self) -> Result<BaseConsumer<Listener>, LogError> {
        let mut config = base_config(&self.settings);
        config.set("group.id", "streamview-queries").set("enable.auto.commit", "false"); // asked for, never joined
        open(&config, Listener::new(&self.settings)).map_err(|error| LogError::Halt(error.to_string()))
    }
}

impl Log for JobLog {
    fn delivery(&self) -> Delivery {
        self.delivery
    }

    fn reader(&self, topics: &[String]) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(reader::JobReader::open(&self.settings, topics)?))
    }

    fn writer(&self, name: &str, group: &str, topics: &[String]) -> Result<Box<dyn Writer>, LogError> {
        let writer = writer::JobWriter::open(&self.settings, (name, group), topics, self.delivery, self.crash)?;
        Ok(Box::new(writer))
    }

    fn fence(&self, name: &str) -> Result<(), LogError> {
        match self.delivery {
            Delivery::ExactlyOnce => self.writer(name, "streamview-queries", &[]).map(drop),
            // There is nothing that could be fenced.
            Delivery::AtLeastOnce => Ok(()),
        }
    }

    fn make_topic(&self, name: &str) -> Result<(), LogError> {
        let topics = Topics::new(&self.settings);
        self.wait(async move {
            topics.create_topic(name, 1).await.map_err(|error| match error {
                PortError::Unavailable(why) => LogError::Again(why),
                other => LogError::Halt(other.to_string()),
            })
        })
    }

    fn groups(&self, prefix: &str) -> Result<Vec<String>, LogError> {
        let mut names = self.listed()?.unwrap_or_default();
        names.retain(|name| name.starts_with(prefix));
        Ok(names)
    }

    fn delete_groups(&self, groups: &[String]) -> Result<(), LogError> {
        if groups.is_empty() || !self.can_delete_groups()? {
            return Ok(());
        }
        let heard = Listener::new(&self.settings);
        let admin: AdminClient<Listener> =
            open(&base_config(&self.settings), heard).map_err(|error| LogError::Halt(error.to_string()))?;
        let names: Vec<&str> = groups.iter().map(String::as_str).collect();
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        self.wait(async {
            let asked = tokio::time::timeout(TIMEOUT, admin.delete_groups(&names, &options)).await;
            let answers = match asked.unwrap_or(Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))) {
                Ok(answers) => answers,
                Err(error) if self.delivery == Delivery::AtLeastOnce => {
                    tracing::debug!(error = %error, "groups cannot be deleted");
                    return Ok(());
                }
                Err(error) => return Err(LogError::Again(format!("groups cannot be deleted: {error}"))),
            };
            for answer in answers {
                match answer {
                    Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                    Err((group, code)) if self.delivery == Delivery::AtLeastOnce => {
                        tracing::debug!(group, code = %code, "a group cannot be deleted");
                    }
                    Err((group, RDKafkaErrorCode::GroupAuthorizationFailed)) => {
                        return Err(LogError::Halt(format!(
                            "Kafka does not let us delete group {group}: grant DELETE on groups that begin with streamview-"
                        )));
                    }
                    Err((group, code)) => return Err(LogError::Again(format!("group {group} cannot be deleted: {code}"))),
                }
            }
            Ok(())
        })
    }
}

/// What an error of a client means where nothing more is known, with what it has to say.
fn fault(consumer: &BaseConsumer<Listener>, error: &KafkaError) -> LogError {
    listen(consumer);
    meaning(error, consumer.context().said())
}

fn meaning(error: &KafkaError, said: Option<String>) -> LogError {
    use RDKafkaErrorCode as Code;
    let right = match error.rdkafka_error_code() {
        _ if said.is_some() => None,
        Some(Code::TopicAuthorizationFailed) => Some("READ on the sources and WRITE on the output topic"),
        Some(Code::GroupAuthorizationFailed) => Some("READ on groups that begin with streamview-"),
        Some(Code::TransactionalIdAuthorizationFailed) => {
            Some("WRITE and DESCRIBE on transactional ids that begin with streamview-")
        }
        _ => None,
    };
    match (said, right) {
        (Some(said), _) => LogError::Again(format!("Kafka does not let us in: {said}")),
        (None, Some(right)) => LogError::Halt(format!("Kafka does not allow it: {error}; grant {right}")),
        (None, None) => LogError::Again(error.to_string()),
    }
}
