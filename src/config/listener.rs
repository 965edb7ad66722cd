//! Settings of the listener's TLS, and what they need of each other. Reads no file.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::layers::Layers;

/// `[http.tls]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM file with the certificate and those that lead to its authority; empty = no TLS.
    pub cert_file: String,
    /// PEM file with its private key.
    pub key_file: String,
    /// PEM file with the authorities of client certificates; empty = none is asked for.
    pub client_ca_file: String,
}

impl ListenerTls {
    /// Whether connections are encrypted.
    pub fn is_on(&self) -> bool {
        !self.cert_file.is_empty()
    }

    /// How URLs of the service begin.
    pub fn scheme(&self) -> &'static str {
        if self.is_on() { "https" } else { "http" }
    }
}

/// `[auth.mtls]`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MtlsSettings {
    /// `subject=role`.
    pub role_map: Vec<String>,
}

impl Layers {
    /// A certificate and its key, and authorities and roles, say nothing without each other.
    pub(super) fn check_listener(&self) -> Result<(), ConfigError> {
        let (cert, key, authorities) = ("http.tls.cert_file", "http.tls.key_file", "http.tls.client_ca_file");
        let roles = "auth.mtls.role_map";
        let (has_cert, has_key) = (!self.is_empty(cert), !self.is_empty(key));
        if has_cert != has_key {
            let (missing, there) = if has_cert { (key, cert) } else { (cert, key) };
            return Err(self.not_allowed(missing, format!("a PEM file, as {there} is set")));
        }
        match (self.is_empty(authorities), self.is_listed(roles)) {
            (true, true) => {
                let allowed = format!("nothing where {authorities} is empty: no client certificate is asked for then");
                Err(self.not_allowed(roles, allowed))
            }
            (false, _) if !has_cert => {
                Err(self.not_allowed(authorities, format!("nothing where {cert} is empty: there is no TLS then")))
            }
            (false, false) => {
                let allowed = format!("at least one, as {authorities} is set: no certificate would let anybody in");
                Err(self.not_allowed(roles, allowed))
            }
            _ => Ok(()),
        }
    }
}
