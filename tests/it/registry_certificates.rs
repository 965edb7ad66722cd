//! A schema registry behind TLS that asks for a certificate of ours.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use streamview::config::{Config, SchemaRegistrySettings, SecretUrl};
use streamview::schemas::client::{Fault, RegistryClient, Tls, install_tls};
use streamview::schemas::subjects::Format;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::doctor::doctor;
use crate::support::authority::{Authority, Files, Whom};
use crate::support::registry;
use crate::support::world::World;

/// TLS before `upstream`, for clients with a certificate of that authority only; gives its address.
async fn guarded(upstream: &str, files: &Files) -> String {
    let read =
        |name: &str| CertificateDer::pem_file_iter(files.path(name)).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    let mut roots = RootCertStore::empty();
    for certificate in read("ca.pem") {
        roots.add(certificate).unwrap();
    }
    install_tls();
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let key = PrivateKeyDer::from_pem_file(files.path("server.key")).unwrap();
    let config = rustls::ServerConfig::builder().with_client_cert_verifier(clients);
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(read("server.pem"), key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let upstream = upstream.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
            tokio::spawn(async move {
                // Whoever has no certificate is its own affair.
                let mut client = acceptor.accept(stream).await?;
                tokio::io::copy_bidirectional(&mut client, &mut TcpStream::connect(upstream).await?).await
            });
        }
    });
    address
}

/// TLS with a server that resets each connection as soon as the client takes it for made, as in TLS 1.3 a refused certificate
/// ends whose alert is lost; or that answers what is no HTTP. Gives its address.
async fn strange(files: &Files, answer: Option<&'static [u8]>) -> String {
    let certificate = CertificateDer::pem_file_iter(files.path("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(files.path("server.key")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(certificate, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut client) = acceptor.accept(stream).await else { continue };
            match answer {
                None => client.get_ref().0.set_zero_linger().unwrap(),
                // Whole, although the request is there that nobody has read.
                Some(answer) => {
                    assert!(client.read(&mut [0; 4096]).await.unwrap() > 0);
                    client.write_all(answer).await.unwrap();
                    client.shutdown().await.unwrap();
                }
            }
        }
    });
    address
}

fn settings(url: &str, ca_file: &Path, own: Option<(&Path, &Path)>) -> SchemaRegistrySettings {
    let mut settings = Config::defaults().schema_registry;
    settings.url = SecretUrl::new(url);
    settings.ca_file = ca_file.to_str().unwrap().to_owned();
    if let Some((certificate, key)) = own {
        settings.tls.cert_file = certificate.to_str().unwrap().to_owned();
        settings.tls.key_file = key.to_str().unwrap().to_owned();
    }
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_asks_for_a_certificate_gets_ours_and_what_is_wrong_names_the_setting() {
    let Some(real) = registry::shared() else { return };
    let (files, authority) = (Files::new(), Authority::new("test authority"));
    std::fs::write(files.path("ca.pem"), authority.pem()).unwrap();
    let foreign = Authority::new("foreign authority");
    std::fs::write(files.path("foreign.pem"), foreign.pem()).unwrap();
    authority.write(files.folder(), "server", Whom::Server("localhost"));
    authority.write(files.folder(), "client", Whom::Client("streamview"));
    authority.write(files.folder(), "expired", Whom::ExpiredClient("streamview"));
    foreign.write(files.folder(), "stranger", Whom::Client("streamview"));
    let url = guarded(real, &files).await;
    let (ca_file, own) =
        (files.path("ca.pem"), |name: &str| (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key"))));
    let ask = async |ca_file: &Path, own: Option<(&Path, &Path)>| {
        let client = RegistryClient::new(&settings(&url, ca_file, own)).unwrap();
        client.get::<Value>("/subjects").await
    };

    let (certificate, key) = own("client");
    // By a name of our own: other tests register theirs at the same registry meanwhile.
    let subject = format!("{}-certificates", World::new(1).await.topic);
    registry::register(real, &subject, Format::Avro, r#""string""#).await;
    let subjects = ask(&ca_file, Some((&certificate, &key))).await.unwrap();
    assert!(subjects.as_array().unwrap().contains(&Value::from(subject)), "{subjects}");

    let ours = [Some(Tls::Ours), Some(Tls::PerhapsOurs)].as_slice();
    for (name, ca_file, tls, words) in [
        ("", "ca.pem", ours, "schema_registry.tls.cert_file"),
        ("expired", "ca.pem", ours, "schema_registry.tls.cert_file"),
        ("stranger", "ca.pem", ours, "schema_registry.tls.cert_file"),
        ("client", "foreign.pem", &[Some(Tls::Issuer)], "set schema_registry.ca_file"),
    ] {
        let (certificate, key) = own(name);
        let own = (!name.is_empty()).then_some((certificate.as_path(), key.as_path()));
        let fault = ask(&files.path(ca_file), own).await.unwrap_err();
        assert!(matches!(&fault, Fault::Unreachable(_, _, of) if tls.contains(of)), "{name}: {fault:?}");
        assert!(fault.to_string().contains(words), "{name}: {fault}");
    }
    let by_number = settings(&url.replace("localhost", "127.0.0.1"), &ca_file, Some((&certificate, &key)));
    let fault = RegistryClient::new(&by_number).unwrap().get::<Value>("/subjects").await.unwrap_err();
    assert!(matches!(&fault, Fault::Unreachable(_, _, Some(Tls::Theirs))), "{fault:?}");
    assert!(fault.to_string().contains("for the name in schema_registry.url"), "{fault}");

    // The doctor names it as well, whether the alert has arrived or is lost.
    let world = World::new(1).await;
    let environment = [
        ("STREAMVIEW_SCHEMA_REGISTRY__URL", url.as_str()),
        ("STREAMVIEW_SCHEMA_REGISTRY__CA_FILE", ca_file.to_str().unwrap()),
    ];
    let fix = "schema_registry.tls.cert_file and key_file";
    doctor(&world, &environment).await.failed(&["registry.reachable"], "schema_registry.tls.cert_file", fix);

    let url = strange(&files, Some(b"220 mail.example.com ESMTP\r\n\r\n")).await;
    let client = RegistryClient::new(&settings(&url, &ca_file, None)).unwrap();
    let fault = client.get::<Value>("/subjects").await.unwrap_err();
    assert!(matches!(&fault, Fault::Unreachable(_, _, None)), "{fault}");

    let url = strange(&files, None).await;
    let client = RegistryClient::new(&settings(&url, &ca_file, Some((&certificate, &key)))).unwrap();
    let fault = client.get::<Value>("/subjects").await.unwrap_err();
    assert!(
        fault.to_string().contains("if it asks for certificates, look at schema_registry.tls.cert_file"),
        "{fault}"
    );

    let (other, _) = own("expired");
    for (certificate, key, words) in [
        (files.path("nope.pem"), key.clone(), "cannot read schema_registry.tls.cert_file = "),
        (certificate.clone(), certificate.clone(), "holds no PEM private key"),
        (other, key, "schema_registry.tls.cert_file = "),
    ] {
        let made = RegistryClient::new(&settings(&url, &ca_file, Some((&certificate, &key))));
        let message = format!("{:#}", made.unwrap_err());
        assert!(message.contains(words), "{message}");
    }
}
