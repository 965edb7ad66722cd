//! The way to Postgres: how a connection is protected, whom it trusts, and what it means when that fails. Every connection
//! goes it, whatever for.
//!
//! Nothing here is cryptography of our own: rustls with ring, the driver's wrapper of it, the platform's authorities.

use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{DatabaseSettings, DatabaseTlsSettings, TlsMode};
use crate::store::DbError;
use crate::store::sqlstate::describe;

const CA_FILE: &str = "database.tls.ca_file";
const CERT_FILE: &str = "database.tls.cert_file";
const KEY_FILE: &str = "database.tls.key_file";
/// What a server says of itself that speaks TLS only by this protocol (`sslnegotiation=direct`).
const PROTOCOL: &[u8] = b"postgresql";

/// Why a protected connection cannot even be begun, in words that name the setting.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WireError(String);

/// Where to connect, and how.
#[derive(Clone)]
pub(super) struct Way {
    /// What the driver is told.
    pub(super) config: tokio_postgres::Config,
    guard: Guard,
}

/// How a connection is protected. Files are read for each one, so that a certificate that is renewed counts from then on.
#[derive(Clone)]
pub(super) struct Guard {
    mode: TlsMode,
    is_direct: bool,
    files: DatabaseTlsSettings,
}

impl Way {
    /// The way that the settings name.
    pub(super) fn of(settings: &DatabaseSettings) -> Result<Way, DbError> {
        let url = &settings.url;
        let mut config: tokio_postgres::Config = url.expose_without_tls_mode().parse()?;
        let here = if is_here(&config) { TlsMode::Disable } else { TlsMode::VerifyFull };
        // No server encrypts a socket, and libpq asks for it in no mode.
        let mode = if is_socket(&config) { TlsMode::Disable } else { url.tls_mode().unwrap_or(here) };
        config.ssl_mode(match mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        });
        // Whose certificate is asked for where nobody is named: that of the address.
        if config.get_hosts().is_empty() {
            for address in config.get_hostaddrs().to_vec() {
                config.host(address.to_string());
            }
        }
        let is_direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
        Ok(Way { config, guard: Guard { mode, is_direct, files: settings.tls.clone() } })
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<(Client, JoinHandle<()>), DbError> {
        self.guard.connect(&self.config).await
    }

    /// How.
    pub(super) fn into_parts(self) -> (tokio_postgres::Config, Guard) {
        (self.config, self.guard)
    }
}

/// Whether nothing leaves this machine.
fn is_here(config: &tokio_postgres::Config) -> bool {
    let is_loopback = |host: &str| {
        let address = host.parse::<std::net::IpAddr>();
        address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.to_canonical().is_loopback())
    };
    // Where there are addresses, these are dialled, and hosts are only names.
    match config.get_hostaddrs() {
        [] => config.get_hosts().iter().all(|host| match host {
            Host::Tcp(host) => is_loopback(host),
            Host::Unix(_) => true,
        }),
        addresses => addresses.iter().all(|address| address.to_canonical().is_loopback()),
    }
}

fn is_socket(config: &tokio_postgres::Config) -> bool {
    let hosts = config.get_hosts();
    config.get_hostaddrs().is_empty() && !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_)))
}

/// Whether the settings can be used, as far as that can be told without connecting. An error names the setting.
pub fn check(settings: &DatabaseSettings) -> Result<(), WireError> {
    let mut is_used = false;
    for (key, url) in [("database.url", &settings.url), ("database.read_url", &settings.read_url)] {
        if url.is_empty() {
            continue;
        }
        let way = Way::of(&DatabaseSettings { url: url.clone(), ..settings.clone() });
        let way = way.map_err(|error| WireError(format!("{key} is not usable: {}", describe(&error))))?;
        if way.guard.mode > TlsMode::Prefer {
            is_used = true;
            way.guard.client_config()?;
        }
    }
    let files = &settings.tls;
    let named =
        [(CA_FILE, &files.ca_file), (CERT_FILE, &files.cert_file)].into_iter().find(|(_, file)| !file.is_empty());
    match named {
        Some((setting, file)) if !is_used => Err(WireError(format!(
            "{setting} = {file} does nothing: without sslmode=require, verify-ca or verify-full in database.url nobody is \
             asked for a certificate (left out, sslmode is disable for this machine)"
        ))),
        _ => Ok(()),
    }
}

impl Guard {
    /// Connects to where `config` says.
    pub(super) async fn connect(&self, config: &tokio_postgres::Config) -> Result<(Client, JoinHandle<()>), DbError> {
        let application = config.get_application_name().unwrap_or_default().to_owned();
        let told = move |ended: Result<(), DbError>| {
            if let Err(error) = ended {
                tracing::debug!(application, error = describe(&error), "a connection to Postgres ended");
            }
        };
        if self.mode == TlsMode::Disable {
            let (client, connection) = config.connect(NoTls).await?;
            return Ok((client, tokio::spawn(async move { told(connection.await) })));
        }
        let (client, connection) = config.connect(self.clone()).await?;
        Ok((client, tokio::spawn(async move { told(connection.await) })))
    }

    fn client_config(&self) -> Result<ClientConfig, WireError> {
        let provider = Arc::new(ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| WireError(error.to_string()))?;
        let unnamed = |roots| Arc::new(Unnamed { roots, algorithms });
        let builder = match (self.mode, self.files.ca_file.is_empty()) {
            (TlsMode::Disable | TlsMode::Prefer, _) | (TlsMode::Require, true) => {
                builder.dangerous().with_custom_certificate_verifier(unnamed(None))
            }
            // As libpq does: whoever says whom to trust wants that to be looked at.
            (TlsMode::Require, false) | (TlsMode::VerifyCa, _) => {
                builder.dangerous().with_custom_certificate_verifier(unnamed(Some(self.roots()?)))
            }
            (TlsMode::VerifyFull, _) => builder.with_root_certificates(self.roots()?),
        };
        let mut config = match self.identity()? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                let (certificate, key) = (&self.files.cert_file, &self.files.key_file);
                WireError(format!("{CERT_FILE} = {certificate} and {KEY_FILE} = {key} do not go together: {error}"))
            })?,
        };
        if self.is_direct {
            config.alpn_protocols = vec![PROTOCOL.to_vec()];
        }
        Ok(config)
    }

    /// Whom we trust.
    fn roots(&self) -> Result<Arc<RootCertStore>, WireError> {
        if self.files.ca_file.is_empty() {
            return platform_roots();
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates(CA_FILE, &self.files.ca_file)? {
            roots.add(certificate).map_err(|error| {
                WireError(format!("{CA_FILE} = {} holds what is no authority: {error}", self.files.ca_file))
            })?;
        }
        Ok(Arc::new(roots))
    }

    /// Who we are, if anybody.
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>, WireError> {
        let DatabaseTlsSettings { cert_file, key_file, .. } = &self.files;
        if cert_file.is_empty() {
            return Ok(None);
        }
        let chain = certificates(CERT_FILE, cert_file)?;
        let key = PrivateKeyDer::from_pem_slice(&read(KEY_FILE, key_file)?).map_err(|error| {
            let kinds = "PEM: PKCS#8, PKCS#1 or SEC 1, not encrypted";
            WireError(format!("{KEY_FILE} = {key_file} holds no private key ({kinds}): {error}"))
        })?;
        Ok(Some((chain, key)))
    }
}

impl MakeTlsConnect<Socket> for Guard {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = WireError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, WireError> {
        let mut connector = MakeRustlsConnect::new(self.client_config()?);
        MakeTlsConnect::<Socket>::make_tls_connect(&mut connector, host).map_err(|never| match never {})
    }
}

fn read(setting: &str, path: &str) -> Result<Vec<u8>, WireError> {
    std::fs::read(path).map_err(|error| WireError(format!("cannot read {setting} = {path}: {error}")))
}

fn certificates(setting: &str, path: &str) -> Result<Vec<CertificateDer<'static>>, WireError> {
    let text = read(setting, path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| WireError(format!("{setting} = {path} is no PEM: {error}")))?;
    if found.is_empty() {
        return Err(WireError(format!("{setting} = {path} holds no certificate (PEM)")));
    }
    Ok(found)
}

/// Authorities that this machine trusts, read once: it takes milliseconds.
fn platform_roots() -> Result<Arc<RootCertStore>, WireError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(Arc::clone(roots));
    }
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(WireError(format!("this machine trusts no authority, and {CA_FILE} names none{why}")));
    }
    Ok(Arc::clone(ROOTS.get_or_init(|| Arc::new(roots))))
}

/// Takes a certificate whatever host it names: of somebody whom these authorities vouch for, or, without any, of anybody.
#[derive(Debug)]
struct Unnamed {
    roots: Option<Arc<RootCertStore>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Unnamed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether a connection was not had because of TLS, for whatever reason.
pub fn is_of_tls(error: &DbError) -> bool {
    // The driver does not tell it otherwise.
    error.to_string().starts_with("error performing TLS handshake") || tls_error(error).is_some()
}

/// Whether no waiting mends it: somebody has to change a setting, or the server.
pub fn is_refused(error: &DbError) -> bool {
    is_of_tls(error) && advice(error).is_some()
}

/// What is to be done about a connection that was not had, if the wire is a reason for it.
pub fn advice(error: &DbError) -> Option<&'static str> {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    if let Some(db) = error.as_db_error() {
        return of_login(db.code().code(), db.message());
    }
    if !is_of_tls(error) {
        return None;
    }
    Some(match tls_error(error) {
        Some(InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "database.tls.ca_file has to hold the authority that signed the server's certificate; where it is empty, those \
             of this machine count"
        }
        Some(InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => {
            "the host in database.url has to be a subjectAltName of the server's certificate, or sslmode=verify-ca there \
             says that names do not matter"
        }
        Some(InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
            "the server needs a new certificate, unless the clock of this machine is wrong; sslmode in database.url says \
             that certificates count"
        }
        Some(InvalidCertificate(_)) => {
            "the server needs another certificate, signed by an authority in database.tls.ca_file; sslmode in database.url \
             says that certificates count"
        }
        Some(AlertReceived(_)) => {
            "the server does not take what we show: look at database.tls.cert_file and key_file, and at its log"
        }
        _ if is_without_tls(error) => {
            "sslmode in database.url (verify-full, where it is left out and the host is another one) asks for it: switch it \
             on over there (ssl = on), or say sslmode=disable on a network that you trust"
        }
        _ if has::<WireError>(error) => "correct it, or change sslmode in database.url",
        _ => return None,
    })
}

/// What the server says of the wire when it refuses a log-in.
fn of_login(code: &str, message: &str) -> Option<&'static str> {
    if !code.starts_with("28") {
        return None;
    }
    if message.contains("client certificate") || message.starts_with("certificate authentication failed") {
        return Some("set database.tls.cert_file and key_file to a certificate of this role");
    }
    message.contains("no encryption").then_some("if the server wants TLS, set sslmode in database.url, as verify-full")
}

fn is_without_tls(error: &DbError) -> bool {
    error.source().is_some_and(|cause| cause.to_string() == "server does not support TLS")
}

fn has<E: Error + 'static>(error: &DbError) -> bool {
    error.source().is_some_and(|cause| cause.is::<E>())
}

/// What rustls said, wherever it stands among the causes.
fn tls_error(error: &DbError) -> Option<&rustls::Error> {
    let mut cause = error.source();
    while let Some(found) = cause {
        // An I/O error says what its cause's cause is, and leaves that one out.
        let inner = found.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref()).or_else(|| found.downcast_ref()) {
            return Some(tls);
        }
        cause = found.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, SecretUrl};

    fn way(url: &str) -> Way {
        Way::of(&DatabaseSettings { url: SecretUrl::new(url), ..Config::defaults().database }).unwrap()
    }

    #[test]
    fn what_leaves_the_machine_is_protected_unless_the_address_says_otherwise() {
        for (url, mode) in [
            ("postgres://127.0.0.1/d", TlsMode::Disable),
            ("postgres://127.8.8.8:5433,localhost/d", TlsMode::Disable),
            ("postgres://[::1]/d", TlsMode::Disable),
            ("host=/run/postgresql", TlsMode::Disable),
            ("host=/run/postgresql sslmode=verify-full", TlsMode::Disable),
            ("host=db.example hostaddr=127.0.0.1", TlsMode::Disable),
            ("host=localhost hostaddr=10.0.0.1", TlsMode::VerifyFull),
            ("postgres://db/d", TlsMode::VerifyFull),
            ("postgres://localhost.example/d", TlsMode::VerifyFull),
            ("postgres://127.0.0.1,db/d", TlsMode::VerifyFull),
            ("postgres://10.0.0.1/d", TlsMode::VerifyFull),
            ("postgres://db/d?sslmode=disable", TlsMode::Disable),
            ("postgres://db/d?sslmode=prefer", TlsMode::Prefer),
            ("postgres://localhost/d?sslmode=verify-ca", TlsMode::VerifyCa),
        ] {
            let way = way(url);
            assert_eq!(way.guard.mode, mode, "{url}");
            let driver = match mode {
                TlsMode::Disable => SslMode::Disable,
                TlsMode::Prefer => SslMode::Prefer,
                _ => SslMode::Require,
            };
            assert_eq!(way.config.get_ssl_mode(), driver, "{url}");
        }
    }

    #[test]
    fn an_address_without_a_name_is_its_own_name() {
        assert_eq!(way("hostaddr=10.0.0.1 user=u").config.get_hosts(), [Host::Tcp("10.0.0.1".to_owned())]);
    }

    #[test]
    fn files_that_cannot_be_used_or_do_nothing_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pem").to_string_lossy().into_owned();
        let refused = |url: &str, tls: DatabaseTlsSettings| {
            let settings = DatabaseSettings { url: SecretUrl::new(url), tls, ..Config::defaults().database };
            check(&settings).unwrap_err().to_string()
        };
        let with_ca = || DatabaseTlsSettings { ca_file: path.clone(), ..DatabaseTlsSettings::default() };
        let full = "postgres://db/d?sslmode=verify-full";
        assert!(refused(full, with_ca()).starts_with(&format!("cannot read {CA_FILE} = {path}: ")));
        std::fs::write(&path, "nothing").unwrap();
        assert_eq!(refused(full, with_ca()), format!("{CA_FILE} = {path} holds no certificate (PEM)"));
        let idle = refused("postgres://127.0.0.1/d", with_ca());
        assert!(idle.starts_with(&format!("{CA_FILE} = {path} does nothing")), "{idle}");
        let certified = DatabaseTlsSettings { cert_file: path.clone(), key_file: path.clone(), ..Default::default() };
        let unnamed = "postgres://db/d?sslmode=require";
        assert_eq!(refused(unnamed, certified), format!("{CERT_FILE} = {path} holds no certificate (PEM)"));
        let odd = refused("postgres://db:port/d", DatabaseTlsSettings::default());
        assert!(odd.starts_with("database.url is not usable: "), "{odd}");
    }
}
