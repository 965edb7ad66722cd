//! What can be wrong with the configuration, each in words that lead to the repair.

use std::net::SocketAddr;

use super::layers::Origin;

/// Why the configuration was refused. Values of secret keys appear without their password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of `--config`, or the one with a secret.
    #[error("cannot read {path} ({named_by}): {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What named it.
        named_by: String,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The file with a secret has nothing in it.
    #[error("{path} ({named_by}) is empty: write the secret into it, or leave the setting out")]
    EmptySecret {
        /// The file.
        path: String,
        /// What named it.
        named_by: String,
    },
    /// The file is not TOML. Shows no part of the file: it may hold a password.
    #[error("{file}, line {line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// Line number from 1.
        line: usize,
        /// What the parser expected.
        message: String,
    },
    /// A key nobody reads.
    #[error("unknown key {key} ({origin}), the nearest known one is {nearest}")]
    UnknownKey {
        /// Dotted key as written.
        key: String,
        /// The layer that has it.
        origin: Origin,
        /// What was probably meant.
        nearest: String,
    },
    /// A `STREAMVIEW_` variable nobody reads.
    #[error("unknown environment variable {variable}, the nearest known one is {nearest}")]
    UnknownVariable {
        /// Its name.
        variable: String,
        /// What was probably meant.
        nearest: String,
    },
    /// Wrong type, or outside the allowed range.
    #[error("{key} = {value} ({origin}) is not allowed, expected {allowed}")]
    NotAllowed {
        /// Dotted key.
        key: String,
        /// The value as given.
        value: String,
        /// The layer that set it.
        origin: Origin,
        /// Type and range.
        allowed: String,
    },
    /// The client that is to use the settings refuses them, or cannot read a file that they name.
    #[error("{reason}")]
    Unusable {
        /// Which, and why.
        reason: String,
    },
    /// A secret is given directly and by file.
    #[error("{direct} and {file} are both set, keep one")]
    SetTwice {
        /// The setting as it was named.
        direct: String,
        /// The same for the file.
        file: String,
    },
    /// The API would listen for other machines without any access control.
    #[error(
        "http.bind = {bind} would let other machines read everything, since no access control is configured: \
         bind a loopback address such as 127.0.0.1:{port}, or set http.allow_anonymous = true if this is meant",
        port = bind.port()
    )]
    Exposed {
        /// The refused address.
        bind: SocketAddr,
    },
}
