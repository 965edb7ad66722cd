//! The files of `[http.tls]`: read, understood, and known again. What is wrong with one is said by its setting.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use crate::auth::subject::{Validity, validity_of};
use crate::config::ListenerTls;

/// What the files hold, not understood yet.
pub struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    clients: Option<Vec<u8>>,
}

/// What they mean.
pub struct Understood {
    /// What is shown to clients.
    pub shown: Arc<CertifiedKey>,
    /// When it counts.
    pub validity: Validity,
    /// How clients' certificates are verified, if they are asked for any.
    pub clients: Option<Arc<dyn ClientCertVerifier>>,
}

impl Contents {
    /// Reads all of them, while nobody waits for it.
    pub fn read_now(settings: &ListenerTls) -> Result<Contents> {
        let read = |key: &str, file: &str| std::fs::read(file).with_context(|| unreadable(key, file));
        Ok(Contents {
            cert: read("cert_file", &settings.cert_file)?,
            key: read("key_file", &settings.key_file)?,
            clients: match settings.client_ca_file.as_str() {
                "" => None,
                file => Some(read("client_ca_file", file)?),
            },
        })
    }

    /// The same, on a thread that may wait.
    pub async fn read(settings: &ListenerTls) -> Result<Contents> {
        let settings = settings.clone();
        tokio::task::spawn_blocking(move || Contents::read_now(&settings)).await?
    }

    /// Tells contents apart; the key is not kept for that.
    pub fn print(&self) -> Vec<u8> {
        let clients = self.clients.as_deref().unwrap_or_default();
        [&self.cert, &self.key, clients].into_iter().flat_map(|file| digest(&SHA256, file).as_ref().to_vec()).collect()
    }

    /// Understands them.
    pub fn understand(&self, settings: &ListenerTls, provider: &Arc<CryptoProvider>) -> Result<Understood> {
        let (cert_file, key_file) = (&settings.cert_file, &settings.key_file);
        let chain = certificates(&self.cert).with_context(|| unusable("cert_file", cert_file))?;
        let validity = validity_of(&chain[0]).context("its first certificate cannot be read");
        let validity = validity.with_context(|| unusable("cert_file", cert_file))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).context("it holds no private key in PEM");
        let key = key.with_context(|| unusable("key_file", key_file))?;
        let shown = CertifiedKey::from_der(chain, key, provider).with_context(|| {
            format!("http.tls.key_file = {key_file} is not the key of the first certificate in http.tls.cert_file = {cert_file}")
        })?;
        let clients = match &self.clients {
            Some(pem) => {
                let verifier = verifier(pem, provider);
                Some(verifier.with_context(|| unusable("client_ca_file", &settings.client_ca_file))?)
            }
            None => None,
        };
        Ok(Understood { shown: Arc::new(shown), validity, clients })
    }
}

fn unreadable(key: &str, file: &str) -> String {
    format!("http.tls.{key} = {file} cannot be read")
}

fn unusable(key: &str, file: &str) -> String {
    format!("http.tls.{key} = {file} is of no use")
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.context("it is not PEM")?;
    ensure!(!found.is_empty(), "it holds no certificate in PEM");
    Ok(found)
}

fn verifier(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem)? {
        roots.add(authority).context("a certificate in it is no authority's")?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    Ok(verifier.allow_unauthenticated().build()?)
}
