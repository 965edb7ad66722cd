//! Asks a registry with Confluent's REST interface and says whose fault a bad answer is. No retries, no cache.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;
use std::{fs, io, iter};

use anyhow::{Context, Result, ensure};
pub use reqwest::Method;
use reqwest::{Certificate, Client, Identity, StatusCode, redirect};
use serde::Deserialize;
use serde_json::Value;

use crate::codec::frame::SchemaName;
use crate::config::{SchemaRegistrySettings, SecretUrl, web_addresses};

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// Most schemas that one refers to, directly or not.
const MAX_REFERENCES: usize = 64;

/// What came instead of what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No connection, or no whole answer in time; and which part of TLS has come to nothing, if that is known.
    #[error("the schema registry at {0} does not answer: {1}{hint}", hint = .2.map_or("", Tls::hint))]
    Unreachable(String, String, Option<Tls>),
    /// 401 or 403: our credentials are wrong, and may be right after a change over there.
    #[error("the schema registry refuses us ({0}); check schema_registry.username, password or bearer_token")]
    Denied(u16),
    /// 429, any 5xx, or another status that says nothing of what was asked for.
    #[error("the schema registry answers {0}: {1}")]
    Failing(u16, String),
    /// Not what a registry says: a proxy's page, for example.
    #[error("what answers at {0} does not speak as a schema registry: {1}")]
    Foreign(String, String),
    /// A 404 that is not the registry's own no: of a proxy perhaps, or of a wrong path.
    #[error("what answers at {0} does not speak as a schema registry: {1}")]
    NoSuchPage(String, String),
    /// A healthy registry's explicit no, with its error code (40401, 40402, 40403).
    #[error("the schema registry says {0}: {1}")]
    NotFound(u32, String),
    /// Of several addresses none gave a registry's answer.
    #[error("{}", each(.0))]
    Everywhere(Vec<Fault>),
    /// A healthy registry does not take what was sent (409, 422), with its error code.
    #[error("{1} (error {0})")]
    Rejected(u32, String),
    /// A healthy registry gives a schema that nobody here reads, now or later: an id never changes its meaning.
    #[error("{0}")]
    Unusable(String),
    /// The answer is there, and the system gives no thread to read it.
    #[error("the system starts no thread to read a schema: {0}")]
    NoThread(String),
}

impl Fault {
    /// The short name in the metric.
    pub fn as_str(&self) -> &'static str {
        match self {
            Fault::Unreachable(..) => "unreachable",
            Fault::Denied(_) => "denied",
            Fault::Failing(..) | Fault::NoThread(_) => "failing",
            Fault::Foreign(..) | Fault::NoSuchPage(..) => "foreign",
            Fault::NotFound(..) => "not_found",
            Fault::Rejected(..) | Fault::Unusable(_) => "rejected",
            Fault::Everywhere(faults) => match faults.first() {
                Some(first) => first.as_str(),
                None => "unreachable",
            },
        }
    }

    fn is_no_such_page(&self) -> bool {
        match self {
            Fault::NoSuchPage(..) => true,
            Fault::Everywhere(faults) => !faults.is_empty() && faults.iter().all(Fault::is_no_such_page),
            _ => false,
        }
    }

    /// Whether it is what a healthy registry says: then another address would say the same.
    const fn is_an_answer(&self) -> bool {
        matches!(self, Fault::NotFound(..) | Fault::Rejected(..) | Fault::Unusable(_))
    }
}

/// Which part of TLS has come to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// The registry refuses our certificate, or misses one.
    Ours,
    /// It may have: it has cut the connection, and its alert may be lost.
    PerhapsOurs,
    /// Nobody whom we trust has signed its certificate.
    Issuer,
    /// Its certificate is not valid now, or not for the name by which we call it.
    Theirs,
}

impl Tls {
    fn of(address: &str, error: &reqwest::Error) -> Option<Self> {
        use rustls::{AlertDescription as Alert, CertificateError, Error};
        match causes(error).find_map(of_tls) {
            // Alerts of the handshake that say nothing of certificates. All others may: servers choose among many.
            Some(Error::AlertReceived(
                Alert::ProtocolVersion | Alert::UnrecognisedName | Alert::NoApplicationProtocol,
            )) => None,
            Some(Error::AlertReceived(_)) => Some(Tls::Ours),
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Some(Tls::Issuer),
            Some(Error::InvalidCertificate(_)) => Some(Tls::Theirs),
            // In TLS 1.3 our request is on its way before our certificate is judged: a server that closes with it unread
            // resets the connection, and its alert is lost.
            _ if address.starts_with("https://") && is_cut(error) => Some(Tls::PerhapsOurs),
            _ => None,
        }
    }

    /// The setting to look at, after what has happened.
    const fn hint(self) -> &'static str {
        match self {
            Tls::Ours => {
                "; look at schema_registry.tls.cert_file and key_file: it refuses our certificate, or misses one"
            }
            Tls::PerhapsOurs => {
                "; if it asks for certificates, look at schema_registry.tls.cert_file and key_file: it may have refused \
                 ours, or miss one"
            }
            Tls::Issuer => "; set schema_registry.ca_file to the authority that has signed its certificate",
            Tls::Theirs => "; its certificate has to be valid now, and for the name in schema_registry.url",
        }
    }
}

/// Whether the other side ended a connection before its answer. Once a connection is made, every error is such an end, whoever
/// notices it first (the system, rustls, hyper before or after it has taken the request), but that of time and an answer that is
/// no HTTP. While it is made, only an end that the system tells is.
fn is_cut(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let is_end = |error: &io::Error| {
        matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof)
    };
    if error.is_timeout() || !error.is_request() {
        return false;
    }
    match error.is_connect() {
        true => causes(error).any(|cause| cause.downcast_ref().is_some_and(is_end)),
        false => !causes(error).any(|cause| cause.downcast_ref().is_some_and(hyper::Error::is_parse)),
    }
}

/// What has led to an error, the nearest first.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    iter::successors(error.source(), |&cause| cause.source())
}

/// What TLS itself says of an error, however often the system's kind of error is wrapped around it.
fn of_tls<'e>(cause: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    match cause.downcast_ref() {
        Some(error) => Some(error),
        None => of_tls(cause.downcast_ref::<io::Error>()?.get_ref()?),
    }
}

fn each(faults: &[Fault]) -> String {
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
}

/// A schema as the registry has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    /// `AVRO`, `JSON` or `PROTOBUF`; registries leave the first one out.
    schema_type: Option<String>,
    /// Its text.
    pub schema: String,
    /// What it refers to.
    references: Option<Vec<Reference>>,
}

impl Registered {
    /// `AVRO`, `JSON` or `PROTOBUF`.
    pub fn kind(&self) -> &str {
        self.schema_type.as_deref().unwrap_or("AVRO")
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Reference {
    subject: String,
    version: u32,
}

/// That a registry is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sign {
    /// Which kinds of schemas it knows.
    pub kinds: Vec<String>,
    /// By how many milliseconds its clock is ahead of ours, give or take half a second; `None`: it does not tell.
    pub ahead: Option<i64>,
}

#[derive(Deserialize)]
struct Refusal {
    error_code: u32,
    #[serde(default)]
    message: String,
}

/// A client of one registry, which may have several addresses: they are tried in turn.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    http: Client,
    /// One registry, reached under several addresses.
    servers: Vec<Server>,
    /// The one that answered last: it is asked first.
    preferred: Arc<AtomicUsize>,
    settings: SchemaRegistrySettings,
}

/// One address of the registry.
#[derive(Debug, Clone)]
struct Server {
    base: String,
    /// The base without credentials, for people.
    shown: String,
}

impl RegistryClient {
    /// A client; nothing is asked yet. An error is one of the settings'.
    pub fn new(settings: &SchemaRegistrySettings) -> Result<Self> {
        let server = |address: &str| Server {
            base: address.trim_end_matches('/').to_owned(),
            shown: SecretUrl::new(address).to_string(),
        };
        Ok(RegistryClient {
            http: builder(settings)?.build().with_context(|| match (settings.ca_file.as_str(), &settings.tls.cert_file) {
                ("", own) if own.is_empty() => "cannot set up the client of the schema registry".to_owned(),
                (file, own) if own.is_empty() => format!("cannot trust what schema_registry.ca_file = {file} holds"),
                (file, own) => format!(
                    "cannot use schema_registry.tls.cert_file = {own} with key_file = {} and schema_registry.ca_file = {file}",
                    settings.tls.key_file
                ),
            })?,
            servers: web_addresses(settings.url.expose()).into_iter().map(server).collect(),
            preferred: Arc::new(AtomicUsize::new(0)),
            settings: settings.clone(),
        })
    }

    /// The schema of that name, also when its subject was deleted: records written with it are still there.
    pub async fn schema(&self, name: SchemaName) -> Result<Registered, Fault> {
        match name {
            SchemaName::Id(id) => self.get(&format!("/schemas/ids/{id}?deleted=true")).await,
            SchemaName::Guid(_) => match self.get(&format!("/schemas/guids/{name}")).await {
                Err(fault) if fault.is_no_such_page() => Err(self.without_guids(fault).await),
                answer => answer,
            },
        }
    }

    /// What it means that there is no page for a GUID. Registries that know none have no such page, and say so in whatever
    /// way they say that; so does a proxy without a registry behind it. A page that every registry has tells them apart.
    async fn without_guids(&self, fault: Fault) -> Fault {
        match self.get::<Vec<String>>("/schemas/types").await {
            Ok(_) => Fault::NotFound(404, format!("{fault}; perhaps it is of a version that knows no GUIDs")),
            Err(other) if other.is_an_answer() => fault,
            Err(other) => other,
        }
    }

    /// The texts of everything that `schema` refers to, what is referred to first.
    pub async fn references(&self, schema: &Registered) -> Result<Vec<String>, Fault> {
        let mut wanted = schema.references.clone().unwrap_or_default();
        let mut known: Vec<(String, u32)> = Vec::new();
        let mut texts = Vec::new();
        while let Some(Reference { subject, version }) = wanted.pop() {
            if known.contains(&(subject.clone(), version)) {
                continue;
            }
            if known.len() == MAX_REFERENCES {
                return Err(Fault::Unusable(format!("it refers to more than {MAX_REFERENCES} others")));
            }
            let path = format!("/subjects/{}/versions/{version}?deleted=true", escape(&subject));
            let found: Registered = self.get(&path).await?;
            known.push((subject, version));
            wanted.extend(found.references.unwrap_or_default());
            texts.push(found.schema);
        }
        texts.reverse();
        Ok(texts)
    }

    /// What every registry tells, whatever it holds; asked at its first address.
    pub async fn sign_of_life(&self) -> Result<Sign, Fault> {
        let Some(server) = self.servers.first() else {
            return Err(Fault::Unreachable(self.settings.url.to_string(), "it has no address".to_owned(), None));
        };
        let (kinds, ahead) = self.ask_dated(server, Method::GET, "/schemas/types", None).await?;
        Ok(Sign { kinds, ahead })
    }

    /// `GET path`, its answer as JSON.
    pub async fn get<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, Fault> {
        self.send(Method::GET, path, None).await
    }

    /// Any request, its answer as JSON: of the first address that gives a registry's answer, whatever that is.
    pub async fn send<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Fault> {
        let (count, first) = (self.servers.len(), self.preferred.load(Ordering::Relaxed));
        let mut faults = Vec::new();
        for turn in 0..count {
            let number = (first + turn) % count;
            let answer = self.ask(&self.servers[number], method.clone(), path, body).await;
            match answer {
                Err(fault) if !fault.is_an_answer() => faults.push(fault),
                answer => {
                    self.preferred.store(number, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        match faults.pop() {
            Some(only) if faults.is_empty() => Err(only),
            Some(last) => Err(Fault::Everywhere(faults.into_iter().chain([last]).collect())),
            None => Err(Fault::Unreachable(self.settings.url.to_string(), "it has no address".to_owned(), None)),
        }
    }

    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        server: &Server,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, Fault> {
        self.ask_dated(server, method, path, body).await.map(|(answer, _)| answer)
    }

    /// An answer, and how far the clock of whoever gave it is ahead of ours, if it tells.
    async fn ask_dated<T: for<'de> Deserialize<'de>>(
        &self,
        server: &Server,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(T, Option<i64>), Fault> {
        let (status, answer, ahead) = self.exchange(server, method, path, body).await?;
        let refusal: Option<Refusal> = serde_json::from_slice(&answer).ok();
        let foreign = |said: String| Fault::Foreign(server.shown.clone(), said);
        match (status.as_u16(), refusal) {
            (200..=299, _) => {
                let answer = serde_json::from_slice(&answer);
                answer.map(|answer| (answer, ahead)).map_err(|error| foreign(format!("{status}, but {error}")))
            }
            (401 | 403, _) => Err(Fault::Denied(status.as_u16())),
            // Only its own words count: a 404 may as well be a proxy's, or of a wrong path.
            (404, Some(Refusal { error_code: code @ 40401..=40403, message })) => Err(Fault::NotFound(code, message)),
            (409 | 422, Some(Refusal { error_code, message })) => Err(Fault::Rejected(error_code, message)),
            (code @ (429 | 500..), refusal) => {
                Err(Fault::Failing(code, refusal.map_or_else(|| status.to_string(), |refusal| refusal.message)))
            }
            (404, _) => Err(Fault::NoSuchPage(server.shown.clone(), status.to_string())),
            _ => Err(foreign(status.to_string())),
        }
    }

    async fn exchange(
        &self,
        server: &Server,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Vec<u8>, Option<i64>), Fault> {
        let away = |error: reqwest::Error| {
            // Without the URL, which may hold a password; with the innermost cause, which says what happened.
            let error = error.without_url();
            let cause = causes(&error).last().map_or_else(|| error.to_string(), ToString::to_string);
            Fault::Unreachable(server.shown.clone(), cause, Tls::of(&server.shown, &error))
        };
        let is_for_a_schema =
            method == Method::GET && (path.starts_with("/schemas/") || path.starts_with("/subjects/"));
        let mut request = self.http.request(method, format!("{}{path}", server.base));
        request = request.header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        let settings = &self.settings;
        if !settings.bearer_token.is_empty() {
            request = request.bearer_auth(settings.bearer_token.expose());
        } else if !settings.username.is_empty() {
            request = request.basic_auth(&settings.username, Some(settings.password.expose()));
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/vnd.schemaregistry.v1+json").body(body.to_string());
        }
        let mut response = request.send().await.map_err(away)?;
        let ahead = response.headers().get("date").and_then(|date| ahead(date.to_str().ok()?));
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            answer.extend_from_slice(&chunk);
            if answer.len() > MAX_ANSWER {
                let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
                let is_json = kind.is_some_and(|kind| kind.contains("json")) && answer.first() == Some(&b'{');
                if is_for_a_schema && response.status().is_success() && is_json {
                    return Err(Fault::Unusable(format!("it has more than {MAX_ANSWER} bytes")));
                }
                let detail = format!("an answer of more than {MAX_ANSWER} bytes");
                return Err(Fault::Foreign(server.shown.clone(), detail));
            }
        }
        Ok((response.status(), answer, ahead))
    }
}

/// Letters that may stand in a path as they are; a subject may hold any other.
pub fn escape(subject: &str) -> String {
    use std::fmt::Write;
    subject.bytes().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~') {
            path.push(char::from(byte));
        } else {
            write!(path, "%{byte:02X}").expect("a String takes everything");
        }
        path
    })
}

/// How far a `Date` of HTTP is ahead of our clock, in milliseconds: of the middle of its second.
fn ahead(date: &str) -> Option<i64> {
    let theirs = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(theirs.as_millisecond() + 500 - jiff::Timestamp::now().as_millisecond())
}

fn builder(settings: &SchemaRegistrySettings) -> Result<reqwest::ClientBuilder> {
    install_tls();
    let timeout = Duration::from_millis(settings.timeout_ms);
    // A redirect could take credentials elsewhere; a registry sends none.
    let builder = Client::builder().timeout(timeout).redirect(redirect::Policy::none());
    let builder = match settings.tls.cert_file.as_str() {
        "" => builder,
        _ => builder.identity(identity(settings)?),
    };
    if settings.ca_file.is_empty() {
        return Ok(builder);
    }
    let file = &settings.ca_file;
    let pem = fs::read(file).with_context(|| format!("cannot read schema_registry.ca_file = {file}"))?;
    let certificates = Certificate::from_pem_bundle(&pem)
        .with_context(|| format!("schema_registry.ca_file = {file} holds other things than PEM certificates"))?;
    // Without any, every registry would be refused later, as if it did not answer.
    ensure!(!certificates.is_empty(), "schema_registry.ca_file = {file} holds no PEM certificates");
    Ok(builder.tls_certs_only(certificates))
}

/// Our certificate with its key.
fn identity(settings: &SchemaRegistrySettings) -> Result<Identity> {
    let read = |key: &str, file: &str, marker: &str, what: &str| {
        let pem =
            fs::read_to_string(file).with_context(|| format!("cannot read schema_registry.tls.{key} = {file}"))?;
        ensure!(pem.contains(marker), "schema_registry.tls.{key} = {file} holds no PEM {what}");
        Ok(pem)
    };
    let tls = &settings.tls;
    let certificate = read("cert_file", &tls.cert_file, "-----BEGIN CERTIFICATE-----", "certificate")?;
    let key = read("key_file", &tls.key_file, "PRIVATE KEY-----", "private key")?;
    Identity::from_pem(format!("{key}\n{certificate}").as_bytes()).with_context(|| {
        format!("cannot use schema_registry.tls.cert_file = {} with key_file = {}", tls.cert_file, tls.key_file)
    })
}

/// Chooses the cryptography of TLS for this process. Needed before any HTTP client is made; later calls do nothing.
pub fn install_tls() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("somebody else chose the cryptography of TLS before");
        }
    });
}
