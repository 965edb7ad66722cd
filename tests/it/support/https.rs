//! Who speaks HTTPS: certificates of the listener and of its clients, and clients that trust an authority of a test's own.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::PATIENCE;
use super::authority::{Authority, Files, Issued, Whom, params};

impl Authority {
    /// For a server on this machine, by its name and by its address.
    pub fn server(&self) -> Issued {
        self.issue_as(&on_this_machine(Whom::Server("localhost")))
    }

    /// The same, which is over.
    pub fn server_of_yesteryear(&self) -> Issued {
        self.issue_as(&on_this_machine(Whom::ExpiredServer("localhost")))
    }

    /// For a client of this name, of the organisation `Shop`, until then.
    pub fn client_until(&self, name: &str, until: Option<SystemTime>) -> Issued {
        let mut params = params(Whom::Client(name));
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop");
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(until) = until {
            params.not_after = until.into();
        }
        self.issue_as(&params)
    }

    /// The same, for good.
    pub fn client(&self, name: &str) -> Issued {
        self.client_until(name, None)
    }

    /// A client of HTTP that trusts this authority alone.
    pub fn http(&self) -> ClientBuilder {
        streamview::schemas::client::install_tls();
        let authority = Certificate::from_pem(self.pem().as_bytes()).unwrap();
        // Nothing is silent for so long, and no test waits for ever.
        Client::builder().tls_certs_only([authority]).read_timeout(PATIENCE)
    }

    /// The same, which shows a certificate.
    pub fn http_as(&self, shown: &Issued) -> Client {
        let identity = format!("{}{}", shown.certificate, shown.key);
        self.http().identity(Identity::from_pem(identity.as_bytes()).unwrap()).build().unwrap()
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

fn on_this_machine(whom: Whom<'_>) -> CertificateParams {
    let mut params = params(whom);
    params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    params
}

/// The files of `http.tls`.
impl Files {
    /// With this certificate and key.
    pub fn of(issued: &Issued) -> Files {
        let files = Files::new();
        files.put(issued);
        files
    }

    /// First the one, then the other, as most who replace them do.
    pub fn put(&self, issued: &Issued) {
        self.write("cert.pem", &issued.certificate);
        self.write("key.pem", &issued.key);
    }

    /// The settings that name them.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("STREAMVIEW_HTTP__TLS__CERT_FILE", self.text("cert.pem")),
            ("STREAMVIEW_HTTP__TLS__KEY_FILE", self.text("key.pem")),
        ]
    }

    /// The same, with authorities of clients and what these may.
    pub fn settings_with_clients(&self, authority: &Authority, roles: &str) -> Vec<(&'static str, String)> {
        self.write("clients.pem", &authority.pem());
        let mut settings = self.settings();
        settings.push(("STREAMVIEW_HTTP__TLS__CLIENT_CA_FILE", self.text("clients.pem")));
        settings.push(("STREAMVIEW_AUTH__MTLS__ROLE_MAP", roles.to_owned()));
        settings
    }
}
