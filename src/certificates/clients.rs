//! Certificates of clients: verified by rustls, against authorities that may be others by now; and whom one names, as long as
//! its connection is open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::auth::Refusal;
use crate::auth::subject::{Validity, subject_of, validity_of};

/// How clients' certificates are verified at the moment.
#[derive(Debug)]
pub struct Clients {
    current: RwLock<Arc<dyn ClientCertVerifier>>,
    /// Counts the changes of it.
    change: AtomicU64,
}

impl Clients {
    /// By this verifier, until there is another.
    pub fn new(verifier: Arc<dyn ClientCertVerifier>) -> Clients {
        Clients { current: RwLock::new(verifier), change: AtomicU64::new(0) }
    }

    /// By another one from now on.
    pub fn change_to(&self, verifier: Arc<dyn ClientCertVerifier>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = verifier;
        self.change.fetch_add(1, Ordering::Release);
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the client of a connection has shown, which was verified a moment ago.
    pub fn shown(&self, chain: &[CertificateDer<'static>]) -> Option<Shown> {
        let own = chain.first()?;
        let (subject, validity) = (subject_of(own), validity_of(own));
        let change = AtomicU64::new(self.change.load(Ordering::Acquire));
        Some(Shown { chain: chain.to_vec(), subject, validity, change })
    }

    /// The subject, if the certificate still counts: it may be over by now, or its authority gone.
    pub fn subject<'s>(&self, shown: &'s Shown) -> Result<&'s str, Refusal> {
        let subject = shown.subject.as_deref().map_err(Refusal::clone)?;
        let (now, change) = (UnixTime::now(), self.change.load(Ordering::Acquire));
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if shown.validity.is_none_or(|validity| validity.until < seconds) {
            return Err(Refusal::Invalid("the client certificate is over".to_owned()));
        }
        if shown.change.load(Ordering::Relaxed) != change {
            let verified = match shown.chain.split_first() {
                Some((own, others)) => self.current().verify_client_cert(own, others, now).is_ok(),
                None => false,
            };
            if !verified {
                let why = "the client certificate is not of an authority that is trusted any more";
                return Err(Refusal::Invalid(why.to_owned()));
            }
            shown.change.store(change, Ordering::Relaxed);
        }
        Ok(subject)
    }
}

/// What the client of a connection has shown.
#[derive(Debug)]
pub struct Shown {
    chain: Vec<CertificateDer<'static>>,
    subject: Result<String, Refusal>,
    validity: Option<Validity>,
    /// After which change of the authorities it was verified.
    change: AtomicU64,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: which they are may change, and a client that has a certificate shows it then.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current().verify_client_cert(own, others, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().supported_verify_schemes()
    }
}
