//! What the address of Postgres says about the wire, in the words of libpq. No I/O.

use super::SecretUrl;

/// The option of an address that asks for a mode of TLS.
pub(super) const SSL_MODE: &str = "sslmode";
/// Options of libpq for which there are settings here, and those.
pub(super) const BY_SETTING: [(&str, &str); 3] = [
    ("sslrootcert", "database.tls.ca_file"),
    ("sslcert", "database.tls.cert_file"),
    ("sslkey", "database.tls.key_file"),
];

/// How a connection to Postgres is protected, and how far its other end is trusted.
///
/// | mode | encrypted | certificate |
/// |---|---|---|
/// | disable | never | |
/// | prefer | if the server offers it | not looked at |
/// | require | always | not looked at; with an authority of our own as verify-ca |
/// | verify-ca | always | by a known authority |
/// | verify-full | always | by a known authority, for this host |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// If the server offers it.
    Prefer,
    /// Encrypted.
    Require,
    /// Encrypted, to somebody whom an authority vouches for.
    VerifyCa,
    /// Encrypted, to the very host.
    VerifyFull,
}

impl TlsMode {
    pub(super) fn parse(word: &str) -> Option<TlsMode> {
        Some(match word {
            "disable" => TlsMode::Disable,
            "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => return None,
        })
    }
}

impl SecretUrl {
    /// The mode of TLS that the address asks for; `None` where it says nothing.
    pub fn tls_mode(&self) -> Option<TlsMode> {
        TlsMode::parse(self.option(SSL_MODE)?)
    }

    /// The address with its password, for a driver that knows not all modes of TLS: one that it knows stands there, and says
    /// nothing.
    pub fn expose_without_tls_mode(&self) -> String {
        self.with_option(SSL_MODE, "prefer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_read_and_taken_out_whatever_the_notation() {
        for (address, mode, without) in [
            (
                "postgres://u:p@h/db?sslmode=verify-full",
                Some(TlsMode::VerifyFull),
                "postgres://u:p@h/db?sslmode=prefer",
            ),
            (
                "postgres://h/db?a=b&sslmode=disable&c=d",
                Some(TlsMode::Disable),
                "postgres://h/db?a=b&sslmode=prefer&c=d",
            ),
            ("host=h sslmode='verify-ca' user=u", Some(TlsMode::VerifyCa), "host=h sslmode=prefer user=u"),
            ("host=h sslmode = require", Some(TlsMode::Require), "host=h sslmode = prefer"),
            ("postgres://u:x?sslmode=require@h/db", None, "postgres://u:x?sslmode=require@h/db"),
            ("host=h password='sslmode=verify-ca '", None, "host=h password='sslmode=verify-ca '"),
            ("host=h", None, "host=h"),
        ] {
            let address = SecretUrl::new(address);
            assert_eq!((address.tls_mode(), address.expose_without_tls_mode().as_str()), (mode, without));
        }
    }
}
