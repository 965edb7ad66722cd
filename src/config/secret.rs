//! Addresses, passwords and tokens that never reach a log.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize, Serializer};

const HIDDEN: &str = "***";

/// An address that may carry a password: a URL, or Postgres' `key=value` text.
///
/// `Display`, `Debug` and `Serialize` hide the password; only [`SecretUrl::expose`] shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps an address, with or without a password in it.
    pub fn new(address: impl Into<String>) -> SecretUrl {
        SecretUrl(address.into())
    }

    /// The address with its password, for the client that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no address at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of an option such as `sslmode`: in a URL's query, or in Postgres' `key=value` text. As it is written,
    /// without quotes.
    pub(super) fn option(&self, name: &str) -> Option<&str> {
        self.option_at(name).map(|place| self.0[place].trim_matches('\''))
    }

    /// The text with this value for an option, where it has one.
    pub(super) fn with_option(&self, name: &str, value: &str) -> String {
        let mut text = self.0.clone();
        if let Some(place) = self.option_at(name) {
            text.replace_range(place, value);
        }
        text
    }

    /// Where the value of an option stands, quotes included. The last one counts.
    fn option_at(&self, name: &str) -> Option<Range<usize>> {
        let place = |value: &str| {
            let begin = value.as_ptr() as usize - self.0.as_ptr() as usize;
            begin..begin + value.len()
        };
        if let Some((_, rest)) = self.0.split_once("://") {
            // A raw `?` may be part of the password.
            let behind = rest.rsplit_once('@').map_or(rest, |(_, behind)| behind);
            let (_, query) = behind.split_once('?')?;
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            return pairs.rev().find(|(known, _)| *known == name).map(|(_, value)| place(value));
        }
        let (mut rest, mut found) = (self.0.as_str(), None);
        while let Some((known, after)) = rest.split_once('=') {
            let value = after.trim_start();
            let (value, behind) = value.split_at(value_length(value, false));
            if known.trim() == name {
                found = Some(place(value));
            }
            rest = behind;
        }
        found
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_all(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({})", redact_all(&self.0))
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&redact_all(&self.0))
    }
}

/// The addresses of a list as Confluent's clients write it: `http://a:8081,https://b`. A comma only stands between two
/// where the next one begins, so that one inside a path or a password ends nothing.
pub fn web_addresses(text: &str) -> Vec<&str> {
    let begins = |rest: &str| ["http://", "https://"].iter().any(|scheme| rest.trim_start().starts_with(scheme));
    let ends = text.match_indices(',').map(|(at, _)| at).filter(|at| begins(&text[at + 1..]));
    let mut start = 0;
    let mut addresses = Vec::new();
    for end in ends.chain([text.len()]) {
        addresses.push(text[start..end].trim());
        start = end + 1;
    }
    addresses
}

/// A password or token: shown nowhere but by [`Secret::expose`].
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the client that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.is_empty() { "" } else { HIDDEN }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// Each address of a list by itself. A first part without `@` may be the beginning of a password with a comma in it: where
/// that cannot be ruled out, all of it counts as one address.
fn redact_all(text: &str) -> String {
    let all = web_addresses(text);
    let is_whole = |address: &&str| url::Url::parse(address).is_ok_and(|url| url.has_host());
    if all.len() == 1 || !all.iter().all(is_whole) {
        return redact(text);
    }
    all.into_iter().map(redact).collect::<Vec<_>>().join(",")
}

/// Hides what may be a password. In doubt it hides more: Postgres clients accept a raw `@`, `/` or
/// `?` in the password, so everything up to the last `@` counts as credentials.
fn redact(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        // A misspelt URL may still hold a password.
        let unknown_notation = !address.is_empty() && !address.contains('=');
        return if unknown_notation { HIDDEN.to_owned() } else { redact_assignments(address, false) };
    };
    let hidden = match rest.rsplit_once('@') {
        Some((credentials, host)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:{HIDDEN}@{host}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    format!("{scheme}://{}", redact_assignments(&hidden, true))
}

/// Hides the value of every `password=` (and `sslpassword=`): up to `&` in a URL's query, else up to a
/// space or the closing quote of libpq's notation.
fn redact_assignments(text: &str, in_query: bool) -> String {
    const NAME: &str = "password";
    let lower = text.to_ascii_lowercase();
    let mut shown = String::new();
    let mut from = 0;
    while let Some(found) = lower[from..].find(NAME) {
        let after_name = from + found + NAME.len();
        let tail = &text[after_name..];
        let Some(value) = tail.trim_start().strip_prefix('=').map(str::trim_start) else {
            shown.push_str(&text[from..after_name]);
            from = after_name;
            continue;
        };
        let value_start = text.len() - value.len();
        shown.push_str(&text[from..value_start]);
        shown.push_str(HIDDEN);
        from = value_start + value_length(value, in_query);
    }
    shown.push_str(&text[from..]);
    shown
}

fn value_length(value: &str, in_query: bool) -> usize {
    if in_query {
        return value.find('&').unwrap_or(value.len());
    }
    let quoted = value.starts_with('\'');
    let mut escaped = false;
    for (at, c) in value.char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return at + 1,
            c if c.is_whitespace() && !quoted => return at,
            _ => {}
        }
    }
    value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden_in_every_notation() {
        for (address, shown) in [
            ("postgres://u:pw@h:5432/db", "postgres://u:***@h:5432/db"),
            ("postgres://u:p@w/d?@h/db", "postgres://u:***@h/db"),
            ("postgres://u@h/db?sslmode=require", "postgres://u@h/db?sslmode=require"),
            ("postgres://u@h/db?password=pw&x=1", "postgres://u@h/db?password=***&x=1"),
            ("https://registry:pw@h", "https://registry:***@h"),
            ("http://a:8081, https://u:pw@b,http://v:qw@c", "http://a:8081,https://u:***@b,http://v:***@c"),
            ("https://u:p,http://w@h", "https://u:***@h"),
            ("host=h password=pw user=u", "host=h password=*** user=u"),
            ("host=h PASSWORD = 'p w\\' x' user=u", "host=h PASSWORD = *** user=u"),
            ("password=p\\ w&x", "password=***"),
            ("host=password dbname=d", "host=password dbname=d"),
            ("u:pw@h/db", "***"),
            ("", ""),
        ] {
            assert_eq!(SecretUrl::new(address).to_string(), shown);
        }
    }

    #[test]
    fn an_option_is_found_in_every_notation_and_not_in_a_password() {
        for (address, mode) in [
            ("postgres://u:pw@h:5432/db?sslmode=verify-full", Some("verify-full")),
            ("postgres://h/db?application_name=x&sslmode=require&sslrootcert=/ca.pem", Some("require")),
            ("postgres://u:p?sslmode=require@h/db", None),
            ("postgres://u:pw@h/sslmode=require", None),
            ("postgres://h/db", None),
            ("host=h sslmode=verify-ca dbname=d", Some("verify-ca")),
            ("host=h sslmode = 'prefer'", Some("prefer")),
            ("host=h password='x sslmode=require ' user=u", None),
            ("host=sslmode user=require", None),
            ("", None),
        ] {
            assert_eq!(SecretUrl::new(address).option("sslmode"), mode, "{address}");
        }
    }

    #[test]
    fn debug_and_serialize_hide_what_expose_shows() {
        let secret = SecretUrl::new("postgres://u:pw@h/db");
        assert_eq!(format!("{secret:?}"), "SecretUrl(postgres://u:***@h/db)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"postgres://u:***@h/db\"");
        assert_eq!(secret.expose(), "postgres://u:pw@h/db");
    }
}
