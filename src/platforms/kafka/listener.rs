//! Hears what a client says of why it is not let in: its answers only say that there is none. What was heard stays until
//! somebody answers, because the client says the same thing again only after half a minute.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use crate::config::KafkaSettings;
use crate::platforms::kafka::certificate;
use crate::platforms::kafka::trouble::{Refusal, Trouble, guess, trouble};

/// The client says the same thing of a broker again after half a minute, if it still is so.
const REPEATED: Duration = Duration::from_secs(45);
/// How long a client is polled for what it has to say.
const LISTEN: Duration = Duration::from_millis(30);

/// Hears one client; all its clones have heard the same.
#[derive(Clone)]
pub(super) struct Listener {
    settings: KafkaSettings,
    heard: Arc<Mutex<Option<Heard>>>,
}

#[derive(Debug, Clone)]
struct Heard {
    refusal: Refusal,
    is_guess: bool,
    reason: String,
    at: Instant,
}

impl Heard {
    fn now(refusal: Refusal, is_guess: bool, reason: String) -> Heard {
        Heard { refusal, is_guess, reason, at: Instant::now() }
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(refusal) = guess(message) {
            self.note(Heard::now(refusal, true, steady(behind_thread(message))));
        }
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", "{facility} {message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
                tracing::info!(target: "librdkafka", "{facility} {message}");
            }
            _ => tracing::warn!(target: "librdkafka", "{facility} {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code().map_or(Trouble::Passing, |code| trouble(code, reason)) {
            Trouble::Refused(refusal) => self.note(Heard::now(refusal, false, steady(reason))),
            Trouble::Passing if reason.contains("Connect to ") => self.doubt(Instant::now()),
            _ => {
                if let Some(refusal) = guess(reason) {
                    self.note(Heard::now(refusal, true, steady(reason)));
                }
            }
        }
    }
}

impl ConsumerContext for Listener {}

impl Listener {
    /// Has heard nothing yet.
    pub fn new(settings: &KafkaSettings) -> Listener {
        Listener { settings: settings.clone(), heard: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, heard: Heard) {
        let mut known = self.lock();
        if !heard.is_guess || known.as_ref().is_none_or(|known| known.is_guess) {
            *known = Some(heard);
        }
    }

    /// An address is not there: perhaps nobody is any more who could refuse us, or it is another one of several. Whoever
    /// still refuses us would have said so again by now.
    fn doubt(&self, now: Instant) {
        self.lock().take_if(|heard| now.duration_since(heard.at) > REPEATED);
    }

    /// Somebody has answered.
    pub fn forget(&self) {
        *self.lock() = None;
    }

    /// What was heard.
    pub fn refusal(&self) -> Option<Refusal> {
        self.lock().as_ref().map(|heard| heard.refusal)
    }

    /// Why we are not let in, if that was heard, with the setting to look at.
    pub fn words(&self) -> Option<String> {
        self.lock().as_ref().map(|heard| in_words(heard.refusal, &heard.reason))
    }

    /// Likewise; what is wrong with a certificate is looked at. Blocks for that.
    pub fn said(&self) -> Option<String> {
        Some(self.explained()?.1)
    }

    /// Likewise, and of which kind it is.
    pub fn explained(&self) -> Option<(Refusal, String)> {
        let heard = self.lock().clone()?;
        Some((heard.refusal, explain(&self.settings, heard.refusal, &heard.reason)))
    }
}

/// Why we are not let in: what the client says, and the setting to look at. What is wrong with a certificate is looked at, for
/// which the broker is asked once more: for some seconds at most.
pub(super) fn explain(settings: &KafkaSettings, refusal: Refusal, reason: &str) -> String {
    let looked = match refusal {
        Refusal::BrokerCertificate => certificate::of_broker(settings, reason),
        Refusal::OurCertificate => certificate::ours(settings, reason),
        _ => None,
    };
    looked.unwrap_or_else(|| in_words(refusal, reason))
}

fn in_words(refusal: Refusal, reason: &str) -> String {
    format!("{reason}; {}", refusal.next_step())
}

/// What a consumer that nobody polls has to say: it is heard by polling only. Takes records away that it may have.
pub(super) fn listen(consumer: &BaseConsumer<Listener>) {
    let until = Instant::now() + LISTEN;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        if let Some(Err(error)) = consumer.poll(left) {
            tracing::debug!(error = %error, "kafka client");
        }
    }
}

/// Without what is another number each time.
pub(super) fn steady(reason: &str) -> String {
    reason.split(" (after ").next().unwrap_or_default().to_owned()
}

/// A line of the client's log without the name of its thread.
fn behind_thread(message: &str) -> &str {
    let rest = message.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    rest.map_or(message, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaErrorCode as Code;

    use super::*;
    use crate::config::Config;

    fn error(listener: &Listener, code: Code, reason: &str) {
        listener.error(KafkaError::Global(code), reason);
    }

    #[test]
    fn what_is_known_wins_over_what_is_guessed_and_lasts_until_somebody_answers() {
        let listener = Listener::new(&Config::defaults().kafka);
        let closed = "[thrd:h:9/bootstrap]: h:9/bootstrap: Disconnected: connection closed by peer (after 3ms in state \
                      APIVERSION_QUERY)";
        listener.log(RDKafkaLogLevel::Info, "FAIL", closed);
        let words = listener.words().unwrap();
        assert!(
            words.starts_with("h:9/bootstrap: Disconnected") && words.contains("set kafka.security_protocol to ssl"),
            "{words}"
        );
        assert!(!words.contains("3ms"), "{words}");

        error(
            &listener,
            Code::Authentication,
            "sasl_ssl://h:9/1: SASL authentication error: no (after 7ms in state AUTH_REQ)",
        );
        error(&listener, Code::AllBrokersDown, "1/1 brokers are down");
        listener.log(RDKafkaLogLevel::Info, "FAIL", closed);
        let words = "sasl_ssl://h:9/1: SASL authentication error: no; correct kafka.username and kafka.password";
        assert_eq!((listener.words().as_deref(), listener.said().as_deref()), (Some(words), Some(words)));

        error(
            &listener,
            Code::BrokerTransportFailure,
            "sasl_ssl://h:9/1: Connect to ipv6#[::1]:9 failed: Connection refused",
        );
        assert_eq!(listener.words().as_deref(), Some(words), "another address of it is not there");
        listener.doubt(Instant::now() + REPEATED + LISTEN);
        assert_eq!(listener.words(), None, "nobody is there");
        error(&listener, Code::Authentication, "again");
        listener.forget();
        assert_eq!(listener.words(), None);
    }
}
