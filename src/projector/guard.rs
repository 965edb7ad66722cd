//! Confirms, before each commit, that the topic is still the one we know. Many askers share one answer.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::oneshot;

use crate::config::KafkaSettings;
use crate::crash;
use crate::failure::Failure;
use crate::platforms::kafka::topic_id::{TopicIdReader, TopicIdentity};
use crate::projector::supervisor;
use crate::status::ViewStatus;

type Asker = oneshot::Sender<Result<Option<String>, Failure>>;

/// The guard of one topic.
///
/// [`LogGuard::confirm`] is answered by a question put to the broker after it was asked, so whatever was read before
/// asking was read from the topic that the answer is about. Askers that come while a question is under way wait for
/// the next one.
pub struct LogGuard {
    topic: String,
    askers: Option<Mutex<Sender<Asker>>>,
    expected: OnceLock<String>,
}

impl LogGuard {
    /// Starts the guard's thread, which ends when the guard is dropped; with `kafka.topic_ids = false` there is nothing to
    /// ask.
    pub fn start(settings: &KafkaSettings, topic: &str, status: &Arc<ViewStatus>) -> anyhow::Result<LogGuard> {
        let askers = if settings.topic_ids {
            let reader = TopicIdReader::open(settings, topic)?;
            let (sender, receiver) = channel();
            let names = (format!("guard-{topic}"), "log guard".to_owned());
            // Nobody waits for it: it may be in the middle of a question that takes as long as Kafka is away.
            supervisor::thread(status, names, || true, move || answer(&reader, &receiver))?;
            Some(Mutex::new(sender))
        } else {
            None
        };
        Ok(LogGuard { topic: topic.to_owned(), askers, expected: OnceLock::new() })
    }

    /// The id that the broker shows now; `None` if it shows none by configuration.
    pub async fn current(&self) -> Result<Option<String>, Failure> {
        let Some(askers) = &self.askers else { return Ok(None) };
        let (sender, receiver) = oneshot::channel();
        let sent = askers.lock().unwrap_or_else(PoisonError::into_inner).send(sender);
        let gone = || Failure::Retry("the log guard has stopped".to_owned());
        sent.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Sets the id that all later confirmations compare with; the first one given stays.
    pub fn expect(&self, topic_id: &str) {
        self.expected.get_or_init(|| topic_id.to_owned());
    }

    /// Fails if the topic is gone or another one.
    pub async fn confirm(&self) -> Result<(), Failure> {
        let Some(expected) = self.expected.get() else { return Ok(()) };
        match self.current().await? {
            Some(id) if id != *expected => Err(changed(&format!(
                "topic {} was re-created: its id is {id}, progress was made on {expected}",
                self.topic
            ))),
            _ => Ok(()),
        }
    }
}

/// The halt for a log that is not ours any more.
pub fn changed(detail: &str) -> Failure {
    Failure::halt(
        "log_identity_changed",
        detail,
        "restore the topic; or begin anew from the new one in an empty database (docs/operations.md, Starting again from an \
         empty view); nothing more is applied until then",
    )
}

fn answer(reader: &TopicIdReader, askers: &Receiver<Asker>) {
    while let Ok(first) = askers.recv() {
        crash::point("part.guard");
        let waiting: Vec<Asker> = std::iter::once(first).chain(askers.try_iter()).collect();
        let answer = match reader.read() {
            Ok(TopicIdentity::Id(id)) => Ok(Some(id)),
            Ok(TopicIdentity::Missing) => Err(changed("the topic does not exist any more")),
            Err(error) => Err(Failure::KafkaAway(format!("Kafka does not tell the topic's id: {error}"))),
        };
        for asker in waiting {
            if asker.send(answer.clone()).is_err() {
                tracing::trace!("nobody waits for the topic id any more");
            }
        }
    }
}
