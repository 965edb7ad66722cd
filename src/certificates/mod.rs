//! The certificate that the listener shows, and the authorities of its clients: read from the files of `[http.tls]`, looked at
//! again and again, and swapped when they change, without a connection being closed. All that is cryptography is rustls'.

mod clients;
mod files;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::clients::Clients;
pub use self::clients::Shown;
use self::files::{Contents, Understood};
use crate::auth::Refusal;
use crate::auth::subject::Validity;
use crate::config::ListenerTls;
use crate::telemetry::metrics::Metrics;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(2);
/// Seconds after which it is said again that the certificate is over, or will be soon.
const AGAIN: i64 = 24 * 3600;
/// Seconds before its end at which a certificate of a year is called near it; those that last shorter, later.
const NEAR: i64 = 30 * 24 * 3600;

struct InUse {
    shown: Arc<CertifiedKey>,
    validity: Validity,
    print: Vec<u8>,
}

/// What the listener shows and whom it believes.
pub struct Certificates {
    settings: ListenerTls,
    provider: Arc<CryptoProvider>,
    in_use: RwLock<InUse>,
    clients: Option<Arc<Clients>>,
}

impl Certificates {
    /// What the files of these settings hold; `None` where connections are not encrypted.
    pub fn new(settings: &ListenerTls) -> Result<Option<Arc<Certificates>>> {
        if !settings.is_on() {
            return Ok(None);
        }
        let provider = Arc::new(ring::default_provider());
        let contents = Contents::read_now(settings)?;
        let Understood { shown, validity, clients } = contents.understand(settings, &provider)?;
        let in_use = RwLock::new(InUse { shown, validity, print: contents.print() });
        let clients = clients.map(|verifier| Arc::new(Clients::new(verifier)));
        Ok(Some(Arc::new(Certificates { settings: settings.clone(), provider, in_use, clients })))
    }

    /// How connections are encrypted: by TLS 1.2 or 1.3. Which versions of HTTP there are is the server's to add.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions().context("there is no version of TLS")?;
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let Some(clients) = &self.clients else {
            return Ok(builder.with_no_client_auth().with_cert_resolver(resolver));
        };
        let mut config = builder.with_client_cert_verifier(Arc::clone(clients) as _).with_cert_resolver(resolver);
        // A session that is resumed would bring back a client whose authority is gone by now.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// What the client of a connection has shown; `None` if it has not, or was not asked.
    pub fn shown(&self, chain: Option<&[CertificateDer<'static>]>) -> Option<Shown> {
        self.clients.as_ref()?.shown(chain?)
    }

    /// The subject of what a client has shown, if it still counts.
    pub fn subject<'s>(&self, shown: &'s Shown) -> Result<&'s str, Refusal> {
        match &self.clients {
            Some(clients) => clients.subject(shown),
            None => Err(Refusal::Malformed("client certificates are not taken here")),
        }
    }

    /// What is to be said about the end of the certificate in use.
    pub fn warning(&self) -> Option<String> {
        self.age(Timestamp::now().as_second()).words(self.validity(), &self.settings.cert_file)
    }

    /// Looks at the files again and again, until `stop`.
    pub async fn run(&self, metrics: &Metrics, stop: CancellationToken) {
        let (mut trouble, mut told) = (Trouble::default(), Told::default());
        loop {
            metrics.certificate_end.set(self.validity().until);
            let now = Timestamp::now().as_second();
            if let Some(words) = told.next(self.age(now), now).words(self.validity(), &self.settings.cert_file) {
                tracing::warn!("{words}");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK) => {}
            }
            match self.look().await {
                Ok(is_new) if is_new || trouble.is_told => {
                    let until = Timestamp::from_second(self.validity().until).unwrap_or(Timestamp::MAX);
                    tracing::info!(%until, "the files of http.tls are in use as they are now");
                    trouble = Trouble::default();
                }
                Ok(_) => trouble = Trouble::default(),
                Err(error) => {
                    if let Some(error) = trouble.next(format!("{error:#}")) {
                        tracing::warn!(
                            error,
                            "the files of http.tls have changed and are not used, what was read before is"
                        );
                    }
                }
            }
        }
    }

    /// Uses what the files hold; whether that is something new.
    async fn look(&self) -> Result<bool> {
        let contents = Contents::read(&self.settings).await?;
        let print = contents.print();
        if self.in_use.read().unwrap_or_else(PoisonError::into_inner).print == print {
            return Ok(false);
        }
        let Understood { shown, validity, clients } = contents.understand(&self.settings, &self.provider)?;
        *self.in_use.write().unwrap_or_else(PoisonError::into_inner) = InUse { shown, validity, print };
        if let (Some(current), Some(verifier)) = (&self.clients, clients) {
            current.change_to(verifier);
        }
        Ok(true)
    }

    fn validity(&self) -> Validity {
        self.in_use.read().unwrap_or_else(PoisonError::into_inner).validity
    }

    fn age(&self, now: i64) -> Age {
        Age::of(self.validity(), now)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificates").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.in_use.read().unwrap_or_else(PoisonError::into_inner).shown))
    }
}

/// What is wrong with the files. Told once, and not before it has been so at two looks: they are written one after the other.
#[derive(Debug, Default)]
struct Trouble {
    words: Option<String>,
    is_told: bool,
}

impl Trouble {
    fn next(&mut self, words: String) -> Option<&str> {
        if self.words.as_ref() != Some(&words) {
            *self = Trouble { words: Some(words), is_told: false };
            return None;
        }
        let is_news = !std::mem::replace(&mut self.is_told, true);
        self.words.as_deref().filter(|_| is_news)
    }
}

/// How far a certificate is from its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Age {
    #[default]
    Fine,
    Early,
    Near,
    Over,
}

impl Age {
    fn of(Validity { from, until }: Validity, now: i64) -> Age {
        let near = NEAR.min(until.saturating_sub(from) / 10);
        match () {
            () if until < now => Age::Over,
            () if now < from => Age::Early,
            () if until.saturating_sub(now) < near => Age::Near,
            () => Age::Fine,
        }
    }

    fn words(self, Validity { from, until }: Validity, file: &str) -> Option<String> {
        let time = |second| Timestamp::from_second(second).unwrap_or(Timestamp::MAX);
        let (from, until) = (time(from), time(until));
        let file = format!("the certificate in http.tls.cert_file = {file}");
        match self {
            Age::Fine => None,
            Age::Early => Some(format!("{file} does not count before {from}: clients refuse it")),
            Age::Near => {
                Some(format!("{file} is over at {until}: put a new one in its place, a restart is not needed"))
            }
            Age::Over => Some(format!("{file} is over since {until}: clients refuse it; put a new one in its place")),
        }
    }
}

/// What was said last about the end of the certificate, and when.
#[derive(Debug, Default)]
struct Told {
    age: Age,
    at: i64,
}

impl Told {
    /// What is to be said now.
    fn next(&mut self, age: Age, now: i64) -> Age {
        let is_news = age != self.age || now.saturating_sub(self.at) >= AGAIN;
        if !is_news {
            return Age::Fine;
        }
        *self = Told { age, at: now };
        age
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    #[test]
    fn the_end_of_a_certificate_is_near_for_a_tenth_of_its_time_and_a_month_at_most() {
        for (days, left, age) in [
            (365, 31, Age::Fine),
            (365, 29, Age::Near),
            (90, 10, Age::Fine),
            (90, 8, Age::Near),
            (90, 0, Age::Near),
            (90, -1, Age::Over),
            (90, 91, Age::Early),
        ] {
            let validity = Validity { from: 0, until: days * DAY };
            assert_eq!(Age::of(validity, (days - left) * DAY), age, "{left} of {days} days are left");
        }
        let validity = Validity { from: 0, until: 90 * DAY };
        assert!(
            Age::Over.words(validity, "a.pem").unwrap().contains("http.tls.cert_file = a.pem is over since 1970-04-01")
        );
    }

    #[test]
    fn it_is_told_when_it_changes_and_once_a_day() {
        let mut told = Told::default();
        let said = [(Age::Fine, 0), (Age::Near, 10), (Age::Near, DAY), (Age::Near, DAY + 10), (Age::Over, DAY + 11)]
            .map(|(age, now)| told.next(age, now));
        assert_eq!(said, [Age::Fine, Age::Near, Age::Fine, Age::Near, Age::Over]);
    }

    #[test]
    fn trouble_with_the_files_is_told_once_and_at_its_second_look() {
        let mut trouble = Trouble::default();
        let said = ["a", "b", "b", "b", "c", "c"].map(|words| trouble.next(words.to_owned()).map(str::to_owned));
        assert_eq!(said.map(|words| words.unwrap_or_default()), ["", "", "b", "", "", "c"]);
    }
}
