//! Says what is wrong with a broker's certificate, or with ours. OpenSSL only tells librdkafka that it was not trusted: so the
//! same is looked at once more, by rustls, which tells why. Decides nothing, and sends nothing but the beginning of a
//! handshake.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConnection, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::config::KafkaSettings;
use crate::platforms::kafka::trouble::Refusal;

const PATIENCE: Duration = Duration::from_secs(2);

/// What is wrong with the certificate of the broker that `reason`, the client's words, is about, and what to do about it;
/// `None` where that cannot be told. Connects to it, and blocks for that.
pub(super) fn of_broker(settings: &KafkaSettings, reason: &str) -> Option<String> {
    let address = address_in(reason).unwrap_or_else(|| settings.bootstrap_servers.clone());
    let address = address.split(',').next()?.trim();
    let flaw = match look(settings, address) {
        Ok(()) => return None,
        Err(error) => flaw_in(error.get_ref()?.downcast_ref()?)?,
    };
    let authorities = match settings.tls.ca_file.as_str() {
        "" => "this machine's authorities, as kafka.tls.ca_file is empty".to_owned(),
        file => format!("kafka.tls.ca_file = {file}"),
    };
    let (what, next_step) = match flaw {
        Flaw::Expired(at) => (format!("has expired at {at}"), "renew it at the broker".to_owned()),
        Flaw::NotYet(at) => (format!("is not valid before {at}"), "look at the clocks of both sides".to_owned()),
        Flaw::Name(expected, names) => (
            format!("is not for {expected}, but for {names}"),
            "name the broker as its certificate does, in kafka.bootstrap_servers and in its advertised.listeners"
                .to_owned(),
        ),
        Flaw::Authority => (
            format!("is of none of {authorities}"),
            "set kafka.tls.ca_file to the authority that has signed it".to_owned(),
        ),
        Flaw::Other(what) => (format!("is not taken: {what}"), Refusal::BrokerCertificate.next_step().to_owned()),
    };
    Some(format!("the certificate of {address} {what}; {next_step}"))
}

/// What is wrong with our own certificate, as far as we can tell; `reason` is what the broker says.
pub(super) fn ours(settings: &KafkaSettings, reason: &str) -> Option<String> {
    let file = &settings.tls.cert_file;
    if file.is_empty() {
        return Some(format!(
            "{reason}; kafka.tls.cert_file is empty, and the broker wants a certificate: set it and key_file"
        ));
    }
    let what = match flaw_in(&judge_ours(file).err()?)? {
        Flaw::Expired(at) => format!("has expired at {at}"),
        Flaw::NotYet(at) => format!("is not valid before {at}"),
        Flaw::Name(..) | Flaw::Authority => return None,
        Flaw::Other(what) => format!("is none for clients: {what}"),
    };
    Some(format!("{reason}; our certificate, kafka.tls.cert_file = {file}, {what}: renew it, and restart"))
}

enum Flaw {
    Expired(Timestamp),
    NotYet(Timestamp),
    /// For which name it should be, and for which it is.
    Name(String, String),
    Authority,
    Other(String),
}

fn flaw_in(error: &rustls::Error) -> Option<Flaw> {
    let time = |time: &UnixTime| Timestamp::from_second(i64::try_from(time.as_secs()).ok()?).ok();
    let rustls::Error::InvalidCertificate(error) = error else { return None };
    Some(match error {
        CertificateError::ExpiredContext { not_after, .. } => Flaw::Expired(time(not_after)?),
        CertificateError::NotValidYetContext { not_before, .. } => Flaw::NotYet(time(not_before)?),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().filter_map(|name| bare(name)).collect();
            Flaw::Name(expected.to_str().into_owned(), names.join(", "))
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Flaw::Authority,
        other => Flaw::Other(other.to_string()),
    })
}

/// The name in `DnsName("a.example")` or `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> Option<&str> {
    name.split(['(', ')', '"']).rfind(|part| !part.is_empty())
}

/// A handshake as the client makes it, but for our own certificate: the broker shows its own before it asks for that.
fn look(settings: &KafkaSettings, address: &str) -> io::Result<()> {
    let (host, _) = address.rsplit_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    let provider = Arc::new(ring::default_provider());
    let config = trust(settings, &provider).map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let place = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&place, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    connection.complete_io(&mut stream).map(drop)
}

fn trust(settings: &KafkaSettings, provider: &Arc<CryptoProvider>) -> Result<rustls::ClientConfig, rustls::Error> {
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    let file = &settings.tls.ca_file;
    if file.is_empty() {
        // That is what the builder calls any verifier of somebody else: this one verifies by what the platform trusts.
        let verifier = Arc::new(Verifier::new(Arc::clone(provider))?);
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    Ok(builder.with_root_certificates(roots(certificates(file)?)?).with_no_client_auth())
}

/// Judged as a broker would that trusts just this certificate: whose it is, it knows better.
fn judge_ours(file: &str) -> Result<(), rustls::Error> {
    let certificates = certificates(file)?;
    let Some((own, chain)) = certificates.split_first() else { return Ok(()) };
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(roots(certificates.clone())?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    verifier.verify_client_cert(own, chain, UnixTime::now()).map(drop)
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, rustls::Error> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    read.map_err(|error| rustls::Error::General(error.to_string()))
}

fn roots(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// The address in the client's words: `sasl_ssl://host:9094/1: …`, or `GroupCoordinator: host:9094: …`.
fn address_in(reason: &str) -> Option<String> {
    let place = match reason.split_once("://") {
        Some((_, rest)) => rest.split('/').next()?,
        None => reason.strip_prefix("GroupCoordinator: ")?.split(": ").next()?,
    };
    let (host, port) = place.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| place.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_bare() {
        for name in ["DnsName(\"a.example\")", "IpAddress(a.example)", "a.example"] {
            assert_eq!(bare(name), Some("a.example"));
        }
    }

    #[test]
    fn the_address_is_found_in_the_words_of_the_client() {
        for (reason, address) in [
            ("sasl_ssl://localhost:9094/bootstrap: SSL handshake failed: error", Some("localhost:9094")),
            ("ssl://b-1.example:9093/1: SSL handshake failed", Some("b-1.example:9093")),
            ("ssl://[::1]:9093/1: SSL handshake failed", Some("[::1]:9093")),
            ("GroupCoordinator: localhost:9094: SSL handshake failed: error:0A000086:SSL", Some("localhost:9094")),
            ("GroupCoordinator: SSL handshake failed", None),
            ("1/1 brokers are down", None),
        ] {
            assert_eq!(address_in(reason).as_deref(), address, "{reason}");
        }
    }
}
