//! Certificates for tests: an authority, and what it issues, as PEM files in a folder of their own.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub der: Vec<u8>,
}

/// Whom a certificate is for, and whether it is over.
#[derive(Debug, Clone, Copy)]
pub enum Whom<'a> {
    /// A server of this name.
    Server(&'a str),
    /// A server of this name, whose certificate is over.
    ExpiredServer(&'a str),
    /// A client of this name.
    Client(&'a str),
    /// A client of this name, whose certificate is over.
    ExpiredClient(&'a str),
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = named(name, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for them, good only for what they are: a server or a client.
    pub fn issue(&self, whom: Whom<'_>) -> Issued {
        self.issue_as(&params(whom))
    }

    /// A certificate as it is described.
    pub fn issue_as(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let issued = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: issued.pem(), key: key.serialize_pem(), der: issued.der().to_vec() }
    }

    /// Writes `<file>.pem` and `<file>.key`, and `<file>-both.pem` as brokers read it.
    pub fn write(&self, folder: &Path, file: &str, whom: Whom<'_>) {
        let Issued { certificate, key, .. } = self.issue(whom);
        std::fs::write(folder.join(format!("{file}.pem")), &certificate).unwrap();
        std::fs::write(folder.join(format!("{file}.key")), &key).unwrap();
        std::fs::write(folder.join(format!("{file}-both.pem")), format!("{key}{certificate}")).unwrap();
    }
}

/// How a certificate for them is described.
pub fn params(whom: Whom<'_>) -> CertificateParams {
    let (name, is_server, is_over) = match whom {
        Whom::Server(name) => (name, true, false),
        Whom::ExpiredServer(name) => (name, true, true),
        Whom::Client(name) => (name, false, false),
        Whom::ExpiredClient(name) => (name, false, true),
    };
    let mut params = named(name, if is_server { vec![name.to_owned()] } else { Vec::new() });
    params.extended_key_usages =
        vec![if is_server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth }];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if is_over {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    }
    params
}

fn named(name: &str, alternatives: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(alternatives).unwrap();
    params.distinguished_name = DistinguishedName::new();
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

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}
