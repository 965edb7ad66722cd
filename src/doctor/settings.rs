//! What `config check` looks at.

use super::Check;
use crate::app;
use crate::config::{Config, ConfigError};

const NAME: &str = "settings";

/// Whether the settings are usable, and what nobody should allow without knowing.
pub fn check(config: &Config) -> Vec<Check> {
    let first = match app::check(config) {
        Ok(()) => Check::ok(NAME, "", "usable"),
        Err(error) => unusable(&error),
    };
    let allowed = config.warnings();
    let fix_of = |warning: &str| match allowed.contains(&warning) {
        true => "see what it is for in docs/security.md, and take it back if that is not meant",
        false => "put a certificate that counts now, and its key, into the files of http.tls; a restart is not needed",
    };
    let warnings = app::warnings(config).into_iter().map(|warning| {
        let fix = fix_of(&warning);
        Check::warning(NAME, "", warning, fix)
    });
    std::iter::once(first).chain(warnings).collect()
}

/// Settings that cannot be used.
pub fn unusable(error: &ConfigError) -> Check {
    Check::failed(NAME, "", error.to_string(), fix(error))
}

fn fix(error: &ConfigError) -> String {
    match error {
        ConfigError::Unreadable { path, .. } => format!("let the service read {path}, or name another file"),
        ConfigError::Syntax { file, line, .. } => format!("correct line {line} of {file}"),
        ConfigError::UnknownKey { key, nearest, .. } => format!("call {key} {nearest}, or leave it out"),
        ConfigError::UnknownVariable { variable, nearest } => format!("call {variable} {nearest}, or unset it"),
        ConfigError::NotAllowed { key, allowed, .. } => format!("set {key} to {allowed}"),
        ConfigError::EmptySecret { path, .. } => format!("write the secret into {path}, or leave that setting out"),
        ConfigError::SetTwice { direct, file } => format!("leave out {direct} or {file}"),
        ConfigError::Exposed { bind } => {
            format!("auth.api_keys = true\nor http.bind = 127.0.0.1:{}", bind.port())
        }
        ConfigError::Unusable { .. } => {
            "correct that setting; `streamview config show` prints what is in force".to_owned()
        }
    }
}
