//! Certificates for tests: an authority, and what it issues, as PEM files in a folder of their own.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Whom a certificate is for, and when.
#[derive(Debug, Clone, Copy)]
pub enum Issued<'a> {
    /// A server of this name.
    Server(&'a str),
    /// A server of this name, and it is over.
    ExpiredServer(&'a str),
    /// A client of this name.
    Client(&'a str),
    /// A client of this name, and it is over.
    ExpiredClient(&'a str),
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = named(name, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate and its private key.
    pub fn issue(&self, issued: Issued<'_>) -> (String, String) {
        let (name, is_server, is_over) = match issued {
            Issued::Server(name) => (name, true, false),
            Issued::ExpiredServer(name) => (name, true, true),
            Issued::Client(name) => (name, false, false),
            Issued::ExpiredClient(name) => (name, false, true),
        };
        let mut params =
            named(name, if is_server { vec![name.to_owned(), "127.0.0.1".to_owned()] } else { Vec::new() });
        params.extended_key_usages =
            vec![if is_server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if is_over {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes `<file>.pem` and `<file>.key`, and `<file>-both.pem` as brokers read it.
    pub fn write(&self, folder: &Path, file: &str, issued: Issued<'_>) {
        let (certificate, key) = self.issue(issued);
        std::fs::write(folder.join(format!("{file}.pem")), &certificate).unwrap();
        std::fs::write(folder.join(format!("{file}.key")), &key).unwrap();
        std::fs::write(folder.join(format!("{file}-both.pem")), format!("{key}{certificate}")).unwrap();
    }
}

fn named(name: &str, alternatives: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(alternatives).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A folder with the files of tests.
pub struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub fn new() -> Files {
        Files { folder: tempfile::tempdir().unwrap() }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Likewise, as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}
