//! The port of the API: free, or taken by a streamview that is well.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Check, PATIENCE};
use crate::config::HttpSettings;

const PORT: &str = "http.port";
/// Longest answer that is read.
const MOST_BYTES: u64 = 1 << 20;

/// Looks at it.
pub async fn examine(settings: &HttpSettings) -> Vec<Check> {
    let bind = settings.bind;
    let subject = bind.to_string();
    let error = match TcpListener::bind(bind) {
        Ok(_) => return vec![Check::ok(PORT, subject, "free")],
        Err(error) => error,
    };
    let words = format!("cannot bind http.bind = {bind}: {error}");
    vec![match error.kind() {
        ErrorKind::AddrInUse if settings.tls.scheme() == "https" => {
            let address = reached_at(bind);
            let because =
                format!("something listens there already, behind TLS: `curl -k https://{address}/readyz` says what");
            Check::not_asked(PORT, subject, because)
        }
        ErrorKind::AddrInUse => match timeout(PATIENCE, readiness(bind)).await {
            Ok(Some((true, _))) => Check::ok(PORT, subject, "taken by a streamview that is ready"),
            Ok(Some((false, why))) => Check::warning(
                PORT,
                subject,
                format!("taken by a streamview that is not ready: {why}"),
                format!("curl http://{}/readyz", reached_at(bind)),
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

/// Whether a streamview there is ready, and why not; `None`: there is none.
async fn readiness(bind: SocketAddr) -> Option<(bool, String)> {
    let mut stream = TcpStream::connect(reached_at(bind)).await.ok()?;
    let request = format!("GET /readyz HTTP/1.0\r\nHost: {bind}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer).await.ok()?;
    health(&String::from_utf8_lossy(&answer))
}

fn health(answer: &str) -> Option<(bool, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let health: Value = serde_json::from_str(body).ok()?;
    let checks = health["checks"].as_array().filter(|checks| checks.iter().any(|check| check["name"] == "database"))?;
    let words = checks.iter().filter(|check| check["status"] == "unavailable").map(|check| {
        let word = |name: &str| check[name].as_str().unwrap_or_default();
        format!("{}: {}", word("name"), word("detail"))
    });
    Some((head.contains(" 200 "), words.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streamview_is_known_by_its_answer() {
        let ready = "HTTP/1.1 200 OK\r\n\r\n{\"status\":\"ok\",\"checks\":[{\"name\":\"database\",\"status\":\"ok\",\"detail\":\"answers\"}]}";
        assert_eq!(health(ready), Some((true, String::new())));
        let waits = "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"status\":\"unavailable\",\"checks\":[{\"name\":\"database\",\
                     \"status\":\"unavailable\",\"detail\":\"refused\"}]}";
        assert_eq!(health(waits), Some((false, "database: refused".to_owned())));
        for other in ["HTTP/1.1 200 OK\r\n\r\n{\"status\":\"UP\"}", "HTTP/1.1 200 OK\r\n\r\n<html>", "SSH-2.0-x", ""] {
            assert_eq!(health(other), None, "{other}");
        }
        assert_eq!(reached_at("0.0.0.0:8080".parse().unwrap()).to_string(), "127.0.0.1:8080");
    }
}
