//! Certificate authorities of a test's own, what they issue, and clients that trust them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate with its key.
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub der: Vec<u8>,
}

impl Issued {
    /// As one file.
    fn identity(&self) -> Identity {
        Identity::from_pem(format!("{}{}", self.certificate, self.key).as_bytes()).unwrap()
    }
}

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Authority(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, parameters: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let issued = parameters.signed_by(&key, &self.0).unwrap();
        Issued { certificate: issued.pem(), key: key.serialize_pem(), der: issued.der().to_vec() }
    }

    /// For a server on this machine.
    pub fn server(&self) -> Issued {
        self.issue(&Authority::of_server())
    }

    /// The same, which is over.
    pub fn server_of_yesteryear(&self) -> Issued {
        let mut parameters = Authority::of_server();
        parameters.not_after = rcgen::date_time_ymd(2020, 2, 1);
        self.issue(&parameters)
    }

    fn of_server() -> CertificateParams {
        let mut parameters = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters
    }

    /// For a client of this name, of the organisation `Shop`, until then.
    pub fn client_until(&self, name: &str, until: Option<SystemTime>) -> Issued {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, "Shop");
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Some(until) = until {
            parameters.not_after = until.into();
        }
        self.issue(&parameters)
    }

    /// The same, for good.
    pub fn client(&self, name: &str) -> Issued {
        self.client_until(name, None)
    }

    /// A client of HTTP that trusts this authority alone.
    pub fn http(&self) -> ClientBuilder {
        streamview::schemas::client::install_tls();
        Client::builder().tls_certs_only([Certificate::from_pem(self.pem().as_bytes()).unwrap()])
    }

    /// The same, which shows a certificate.
    pub fn http_as(&self, shown: &Issued) -> Client {
        self.http().identity(shown.identity()).build().unwrap()
    }

    /// A connection with TLS and HTTP/2.
    pub async fn connect(&self, address: &str) -> TlsStream<TcpStream> {
        streamview::schemas::client::install_tls();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connection = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, connection).await.unwrap()
    }
}

/// The files of `http.tls`.
pub struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    /// With this certificate and key.
    pub fn of(issued: &Issued) -> Files {
        let files = Files { folder: tempfile::tempdir().unwrap() };
        files.put(issued);
        files
    }

    /// First the one, then the other, as most who replace them do.
    pub fn put(&self, issued: &Issued) {
        self.write("cert.pem", &issued.certificate);
        self.write("key.pem", &issued.key);
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The settings that name them.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            ("STREAMVIEW_HTTP__TLS__CERT_FILE", text(&self.path("cert.pem"))),
            ("STREAMVIEW_HTTP__TLS__KEY_FILE", text(&self.path("key.pem"))),
        ]
    }

    /// The same, with authorities of clients and what these may.
    pub fn settings_with_clients(&self, authority: &Authority, roles: &str) -> Vec<(&'static str, String)> {
        let file = self.write("clients.pem", &authority.pem());
        let mut settings = self.settings();
        settings.push(("STREAMVIEW_HTTP__TLS__CLIENT_CA_FILE", file.to_str().unwrap().to_owned()));
        settings.push(("STREAMVIEW_AUTH__MTLS__ROLE_MAP", roles.to_owned()));
        settings
    }
}
