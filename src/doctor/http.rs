//! The port of the API: free, or taken by a streamview that is well.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use serde_json::Value;
use tokio::time::timeout;

use super::{Check, PATIENCE};
use crate::config::HttpSettings;
use crate::schemas::client::install_tls;

const PORT: &str = "http.port";
/// Longest answer that is read.
const MOST_BYTES: usize = 1 << 20;

/// Looks at it.
pub async fn examine(settings: &HttpSettings) -> Vec<Check> {
    let bind = settings.bind;
    let subject = bind.to_string();
    let error = match TcpListener::bind(bind) {
        Ok(_) => return vec![Check::ok(PORT, subject, "free")],
        Err(error) => error,
    };
    let readyz = format!("{}://{}/readyz", settings.tls.scheme(), reached_at(bind));
    let words = format!("cannot bind http.bind = {bind}: {error}");
    vec![match error.kind() {
        ErrorKind::AddrInUse => match timeout(PATIENCE, readiness(&readyz)).await {
            Ok(Some((true, _))) => Check::ok(PORT, subject, "taken by a streamview that is ready"),
            Ok(Some((false, why))) => Check::warning(
                PORT,
                subject,
                format!("taken by a streamview that is not ready: {why}"),
                format!("curl {}{readyz}", if settings.tls.is_on() { "-k " } else { "" }),
            ),
            _ => {
                let fix =
                    format!("http.bind = another port; `ss -ltnp 'sport = :{}'` says whose this one is", bind.port());
                Check::failed(PORT, subject, format!("{words}; what listens there is no streamview"), fix)
            }
        },
        ErrorKind::AddrNotAvailable => {
            Check::failed(PORT, subject, words, "http.bind = an address of this machine, or 127.0.0.1")
        }
        ErrorKind::PermissionDenied => Check::failed(
            PORT,
            subject,
            words,
            "http.bind = a port above 1023, or give the program CAP_NET_BIND_SERVICE",
        ),
        _ => Check::failed(PORT, subject, words, "http.bind = another address and port"),
    }]
}

/// Where something that listens on all addresses can be asked.
fn reached_at(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, bind.port())
}

/// Whether a streamview there is ready, and why not; `None`: there is none. Whatever certificate it shows: it is told nothing, and
/// only asked what it is.
async fn readiness(readyz: &str) -> Option<(bool, String)> {
    install_tls();
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).no_proxy();
    let client = client.redirect(reqwest::redirect::Policy::none()).build().ok()?;
    let mut response = client.get(readyz).send().await.ok()?;
    let (is_ready, mut answer) = (response.status().as_u16() == 200, Vec::new());
    while let Some(chunk) = response.chunk().await.ok()? {
        answer.extend_from_slice(&chunk);
        if answer.len() > MOST_BYTES {
            return None;
        }
    }
    Some((is_ready, troubles(&answer)?))
}

/// What is amiss by the answer of a streamview; `None`: it is none of one.
fn troubles(answer: &[u8]) -> Option<String> {
    let health: Value = serde_json::from_slice(answer).ok()?;
    let checks = health["checks"].as_array().filter(|checks| checks.iter().any(|check| check["name"] == "database"))?;
    let words = checks.iter().filter(|check| check["status"] == "unavailable").map(|check| {
        let word = |name: &str| check[name].as_str().unwrap_or_default();
        format!("{}: {}", word("name"), word("detail"))
    });
    Some(words.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streamview_is_known_by_its_answer() {
        let check = |status: &str| {
            format!("{{\"checks\":[{{\"name\":\"database\",\"status\":\"{status}\",\"detail\":\"refused\"}}]}}")
        };
        assert_eq!(troubles(check("ok").as_bytes()), Some(String::new()));
        assert_eq!(troubles(check("unavailable").as_bytes()), Some("database: refused".to_owned()));
        for other in ["{\"status\":\"UP\"}", "<html>", "SSH-2.0-x", ""] {
            assert_eq!(troubles(other.as_bytes()), None, "{other}");
        }
        assert_eq!(reached_at("0.0.0.0:8080".parse().unwrap()).to_string(), "127.0.0.1:8080");
    }
}
