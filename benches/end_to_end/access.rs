//! What it costs that callers log in, and whether readers notice that somebody tries keys: reads by primary key without
//! log-in, with an API key, with a token, and with an API key while 10,000 wrong ones come each second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use crate::fleet::{BACKLOG_TOPIC, Fleet, Service};
use crate::latency::Latency;
use crate::processes::load_average;
use crate::reads::{self, CONNECTIONS, Kind};
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};

/// Wrong keys a second.
const WRONG_PER_S: f64 = 10_000.0;
/// Connections that they come by: some wait for a look at the keys, which is why there are more than may wait.
const WRONG_CONNECTIONS: usize = 400;
/// Of which each sends so many at once: what is measured is the service, not who sends them.
const WRONG_AT_ONCE: usize = 5;
/// After so long all have come to their pace.
const SETTLING: Duration = Duration::from_secs(3);
const ISSUER: &str = "https://bench.example";

/// Reads by one kind of caller.
#[derive(Debug, Clone, Serialize)]
pub struct Calls {
    /// Requests a second, closed loop.
    pub requests_per_s: f64,
    /// Latency meanwhile.
    pub full_load: Latency,
    /// Latency at half of the rate of those who do not log in.
    pub half_load: Latency,
    /// CPU microseconds of the service per request, closed loop; with wrong keys, also what they cost.
    pub client_us: f64,
}

/// One round.
#[derive(Debug, Clone, Serialize)]
pub struct Access {
    /// Where nobody logs in.
    pub open: Calls,
    /// With an API key.
    pub key: Calls,
    /// With a token.
    pub token: Calls,
    /// With an API key, while wrong ones come.
    pub tried: Calls,
    /// Wrong keys a second that were answered.
    pub wrong_per_s: f64,
    /// Load average before.
    pub load_average: f64,
}

/// How it is reported.
pub fn section(runs: &[Access]) -> Section {
    Lines::of("GET /orders/{id} by who has logged in", runs)
        .judged(More, "API key / no log-in: requests", "", |run| run.key.requests_per_s / run.open.requests_per_s)
        .judged(More, "token / no log-in: requests", "", |run| run.token.requests_per_s / run.open.requests_per_s)
        .judged(More, "wrong keys / none: requests", "", |run| run.tried.requests_per_s / run.key.requests_per_s)
        .informs(Less, "wrong keys / none: p99, half load", "", |run| {
            run.tried.half_load.p99_ms / run.key.half_load.p99_ms
        })
        .judged(Less, "CPU of the service, no log-in", "us/request", |run| run.open.client_us)
        .judged(Less, "CPU of the service, API key", "us/request", |run| run.key.client_us)
        .judged(Less, "CPU of the service, token", "us/request", |run| run.token.client_us)
        .informs(More, "requests, no log-in", "/s", |run| run.open.requests_per_s)
        .informs(More, "requests, API key", "/s", |run| run.key.requests_per_s)
        .informs(More, "requests, token", "/s", |run| run.token.requests_per_s)
        .informs(More, "requests, wrong keys meanwhile", "/s", |run| run.tried.requests_per_s)
        .informs(Less, "p99, half load, no log-in", "ms", |run| run.open.half_load.p99_ms)
        .informs(Less, "p99, half load, API key", "ms", |run| run.key.half_load.p99_ms)
        .informs(Less, "p99, half load, token", "ms", |run| run.token.half_load.p99_ms)
        .informs(Less, "p99, half load, wrong keys meanwhile", "ms", |run| run.tried.half_load.p99_ms)
        .context("wrong keys answered", "/s", |run| run.wrong_per_s)
        .context("load average before", "", |run| run.load_average)
        .done()
}

/// Measures it round after round against a view of `orders` orders, by instances that only answer.
pub async fn run(fleet: &Fleet, database: &str, orders: u64, seconds: u64, rounds: usize) -> Result<Vec<Access>> {
    let (keys, token) = token()?;
    let file = tempfile::NamedTempFile::new().context("a file for the issuer's keys")?;
    std::fs::write(file.path(), keys).context("writing the issuer's keys")?;
    let settings = [
        ("STREAMVIEW_AUTH__API_KEYS", "true".to_owned()),
        ("STREAMVIEW_AUTH__JWT__ISSUER", ISSUER.to_owned()),
        ("STREAMVIEW_AUTH__JWT__AUDIENCE", "bench".to_owned()),
        ("STREAMVIEW_AUTH__JWT__JWKS_FILE", file.path().to_string_lossy().into_owned()),
    ];
    let key = fleet.make_api_key(database)?;
    let mut open = fleet.serve_only_api(database, BACKLOG_TOPIC, "bench-access")?;
    let mut closed = fleet.serve_only_api_with((database, BACKLOG_TOPIC, "bench-access"), &settings)?;
    open.wait_for_http()?;
    closed.wait_for_http()?;
    let (by_key, by_token) = (format!("X-Api-Key: {key}\r\n"), format!("Authorization: Bearer {token}\r\n"));
    let span = Duration::from_secs(seconds);
    let mut found = Vec::new();
    for _ in 0..rounds {
        let load_average = load_average()?;
        let reads = Reads { fleet, orders, span };
        let nobody = reads.by((&open, ""), None).await?;
        let pace = Some(nobody.requests_per_s / 2.0);
        let key = reads.by((&closed, &by_key), pace).await?;
        let token = reads.by((&closed, &by_token), pace).await?;
        let (over, port) = (Arc::new(AtomicBool::new(false)), closed.port);
        let trying: Vec<_> = (0..WRONG_CONNECTIONS).map(|_| tokio::spawn(try_keys(port, Arc::clone(&over)))).collect();
        tokio::time::sleep(SETTLING).await;
        let tried = reads.by((&closed, &by_key), pace).await?;
        over.store(true, Ordering::Relaxed);
        let mut wrong_per_s = 0.0;
        for trying in trying {
            wrong_per_s += trying.await.context("who tries keys panicked")??;
        }
        found.push(Access { open: nobody, key, token, tried, wrong_per_s, load_average });
    }
    closed.stop()?;
    open.stop()?;
    Ok(found)
}

struct Reads<'a> {
    fleet: &'a Fleet,
    orders: u64,
    span: Duration,
}

impl Reads<'_> {
    /// By callers who show `credentials`, as header lines: as fast as they go, and at `pace` requests a second, or at half of
    /// what they had.
    async fn by(&self, (service, credentials): (&Service, &str), pace: Option<f64>) -> Result<Calls> {
        let Reads { fleet, orders, span } = *self;
        let watched = fleet.watched(std::slice::from_ref(service))?;
        let (before, what) = (watched.cpu()?, (Kind::ById, orders));
        let (requests_per_s, full) = reads::load((service.port, credentials), what, span, None).await?;
        let client_us = watched.cpu()?.since(before).client / full.len() as f64 * 1e6;
        let pause = Duration::from_secs_f64(CONNECTIONS as f64 / pace.unwrap_or(requests_per_s / 2.0));
        let (_, half) = reads::load((service.port, credentials), what, span, Some(pause)).await?;
        Ok(Calls { requests_per_s, full_load: Latency::of(full), half_load: Latency::of(half), client_us })
    }
}

/// Shows wrong keys, each another one, many in one write, and the next when these are answered, until it is over; gives how many
/// were answered in a second.
async fn try_keys(port: u16, over: Arc<AtomicBool>) -> Result<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.context("connecting to the service")?;
    stream.set_nodelay(true)?;
    let status = memchr::memmem::Finder::new("HTTP/1.1 4");
    let (mut buffer, mut kept, mut answered) = (vec![0; 8 * 1024], 0, 0_usize);
    let mut random = fastrand::Rng::new();
    let pace = Duration::from_secs_f64((WRONG_AT_ONCE * WRONG_CONNECTIONS) as f64 / WRONG_PER_S);
    // Not all at once; and who is late does not catch up.
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + pace.mul_f64(random.f64()), pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    while !over.load(Ordering::Relaxed) {
        tick.tick().await;
        let requests: String = (0..WRONG_AT_ONCE)
            .map(|_| {
                let wrong = URL_SAFE_NO_PAD.encode([random.u128(..).to_le_bytes(); 2].concat());
                format!("GET /orders/order-1 HTTP/1.1\r\nHost: bench\r\nX-Api-Key: svk_{wrong}\r\n\r\n")
            })
            .collect();
        stream.write_all(requests.as_bytes()).await?;
        let mut missing = WRONG_AT_ONCE;
        while missing > 0 {
            let read = stream.read(&mut buffer[kept..]).await?;
            ensure!(read > 0, "the service closed a connection that showed wrong keys");
            let end = kept + read;
            missing = missing.saturating_sub(status.find_iter(&buffer[..end]).count());
            // A status that is cut in two is found with the next read, one that was found is not found again.
            kept = (status.needle().len() - 1).min(end);
            buffer.copy_within(end - kept..end, 0);
        }
        answered += WRONG_AT_ONCE;
    }
    Ok(answered as f64 / started.elapsed().as_secs_f64())
}

/// The issuer's keys, and a reader's token that is right for a day.
fn token() -> Result<(String, String)> {
    let (random, scheme) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
    let document = EcdsaKeyPair::generate_pkcs8(scheme, &random).ok().context("making a key")?;
    let key = EcdsaKeyPair::from_pkcs8(scheme, document.as_ref(), &random).ok().context("reading the key")?;
    let point = key.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let keys = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "bench", "alg": "ES256", "x": x, "y": y }] });
    let expires = jiff::Timestamp::now().as_second() + 86_400;
    let claims = json!({ "iss": ISSUER, "aud": "bench", "sub": "bench", "exp": expires, "roles": ["reader"] });
    let head = json!({ "alg": "ES256", "kid": "bench" });
    let signed = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = key.sign(&random, signed.as_bytes()).ok().context("signing")?;
    Ok((keys.to_string(), format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))))
}
