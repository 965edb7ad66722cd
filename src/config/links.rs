//! Variables that Kubernetes sets in every container for each Service of the namespace ("service links"). A Service
//! called `streamview` or `streamview-…` makes names that look like settings. No I/O.

use std::net::{IpAddr, SocketAddr};

/// Whether a variable is a service link, by its name and by what it holds:
///
/// | name, after that of the Service | holds |
/// |---|---|
/// | `_SERVICE_HOST` | an IP address |
/// | `_SERVICE_PORT`, `_SERVICE_PORT_<NAME>` | a port |
/// | `_PORT`, `_PORT_<PORT>_<PROTOCOL>` | `<protocol>://<address>:<port>` |
/// | `_PORT_<PORT>_<PROTOCOL>_PROTO` | a protocol |
/// | `…_PORT` | a port |
/// | `…_ADDR` | an IP address |
///
/// The protocols are TCP, UDP and SCTP. Two underscores in a row are the notation of settings, so a name with them is
/// never taken for a link, and neither is one whose value is of another shape: both are more likely misspelt settings.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let written_so = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.bytes().all(written_so) || name.contains("__") {
        return false;
    }
    let words: Vec<&str> = name.split('_').collect();
    // The first word is the least that a Service's name has.
    (1..words.len()).any(|end| holds_link(&words[end..], value))
}

/// What follows the name of the Service, and the value.
fn holds_link(words: &[&str], value: &str) -> bool {
    match words {
        ["SERVICE", "HOST"] => is_address(value),
        ["SERVICE", "PORT", ..] => is_port(value),
        ["PORT"] => is_endpoint(value),
        ["PORT", port, protocol, rest @ ..] if is_port(port) && is_protocol(&protocol.to_ascii_lowercase()) => {
            match rest {
                [] => is_endpoint(value),
                ["PROTO"] => is_protocol(value),
                ["PORT"] => is_port(value),
                ["ADDR"] => is_address(value),
                _ => false,
            }
        }
        _ => false,
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_protocol(text: &str) -> bool {
    matches!(text, "tcp" | "udp" | "sctp")
}

fn is_endpoint(text: &str) -> bool {
    let Some((protocol, address)) = text.split_once("://") else { return false };
    is_protocol(protocol) && address.parse::<SocketAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sets_for_a_service_is_known_by_its_shape() {
        for (name, value) in [
            ("STREAMVIEW_SERVICE_HOST", "10.0.0.1"),
            ("STREAMVIEW_SERVICE_HOST", "fd00::1"),
            ("STREAMVIEW_SERVICE_PORT", "8080"),
            ("STREAMVIEW_SERVICE_PORT_HTTP", "8080"),
            ("STREAMVIEW_SERVICE_PORT_HTTP_METRICS", "9090"),
            ("STREAMVIEW_PORT", "tcp://10.0.0.1:8080"),
            ("STREAMVIEW_PORT", "tcp://[fd00::1]:8080"),
            ("STREAMVIEW_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("STREAMVIEW_PORT_8080_TCP_PROTO", "tcp"),
            ("STREAMVIEW_PORT_8080_TCP_PORT", "8080"),
            ("STREAMVIEW_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("STREAMVIEW_PORT_53_UDP", "udp://10.0.0.1:53"),
            ("STREAMVIEW_PORT_5000_SCTP_PROTO", "sctp"),
            ("STREAMVIEW_POSTGRES_SERVICE_HOST", "10.0.0.2"),
            ("STREAMVIEW_POSTGRES_PORT", "tcp://10.0.0.2:5432"),
            ("STREAMVIEW_POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.2"),
            ("STREAMVIEW_KAFKA_2_SERVICE_PORT", "9092"),
        ] {
            assert!(is_service_link(name, value), "{name}={value}");
        }
    }

    #[test]
    fn what_only_resembles_a_link_is_none() {
        for (name, value) in [
            ("STREAMVIEW_PORT", "8080"),
            ("STREAMVIEW_HTTP_PORT", "9000"),
            ("STREAMVIEW_PORT", "http://10.0.0.1:8080"),
            ("STREAMVIEW_PORT", "tcp://kafka:9092"),
            ("STREAMVIEW_SERVICE_HOST", "postgres.example"),
            ("STREAMVIEW_SERVICE_PORT", "http"),
            ("STREAMVIEW_SERVICE_PORT", ""),
            ("STREAMVIEW_SERVICE_PORT", "65536"),
            ("STREAMVIEW_PORT_8080", "tcp://10.0.0.1:8080"),
            ("STREAMVIEW_PORT_HTTP_TCP", "tcp://10.0.0.1:8080"),
            ("STREAMVIEW_PORT_8080_TCP_NAME", "tcp"),
            ("STREAMVIEW_PORT_8080_TCP_PROTO", "8080"),
            ("STREAMVIEW_KAFKA__SERVICE_HOST", "10.0.0.1"),
            ("STREAMVIEW_HTTP__PORT", "tcp://10.0.0.1:8080"),
            ("STREAMVIEW__PORT", "tcp://10.0.0.1:8080"),
            ("streamview_port", "tcp://10.0.0.1:8080"),
            ("STREAMVIEW_KAFKA_GROUP_ID", "tcp://10.0.0.1:8080"),
            ("STREAMVIEW", "tcp://10.0.0.1:8080"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }
}
