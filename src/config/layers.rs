//! Merges defaults, file, environment and flags, and remembers who set what.

mod certificates;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use url::Url;

use super::links::is_service_link;
use super::rules::{is_secret, rule_of};
use super::wire::{BY_SETTING, SSL_MODE};
use super::{Config, ConfigError, SecretUrl, TlsMode};

const DEFAULTS: &str = include_str!("../../config/default.toml");
const PREFIX: &str = "STREAMVIEW_";
const FILE_SUFFIX: &str = "_FILE";
const FILE_KEY_SUFFIX: &str = "_file";
const TLS_MODES: &str = "sslmode to be disable, prefer, require, verify-ca or verify-full; left out it is disable for this \
    machine and verify-full for every other host";
const ROLE_MAPS: [&str; 2] = ["auth.jwt.role_map", "auth.mtls.role_map"];
/// What a view may say of its own, below `views.<name>.`.
const VIEW_RULES: [&str; 4] = ["history", "gap_policy", "first_sequence", "tax.default_rate"];

/// The layer a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Compiled-in `config/default.toml`.
    Default,
    /// The file given by `--config`.
    File(PathBuf),
    /// A variable, by name.
    Environment(String),
    /// A flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Flag => f.write_str("command line"),
        }
    }
}

struct Setting {
    value: Value,
    origin: Origin,
    /// Of a secret that was read from one: the file, and what named it.
    file: Option<String>,
}

/// The merged settings by dotted key. Holds every known key from the start, but for those that a view may leave out.
pub(super) struct Layers {
    settings: BTreeMap<String, Setting>,
    /// Keys that may be left out: what holds for the process holds then.
    optional: Vec<String>,
}

impl Layers {
    pub(super) fn defaults() -> Layers {
        let table: Table = DEFAULTS.parse().expect("config/default.toml is TOML, tests load it");
        let settings = flatten("", table).into_iter().map(|(key, value)| {
            let origin = Origin::Default;
            (key, Setting { value, origin, file: None })
        });
        let settings: BTreeMap<String, Setting> = settings.collect();
        let views = settings.keys().filter_map(|key| key.strip_prefix("views.")?.strip_suffix(".topic"));
        let optional = views.flat_map(|view| VIEW_RULES.map(|rule| format!("views.{view}.{rule}"))).collect();
        Layers { settings, optional }
    }

    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let origin = Origin::File(path.to_owned());
        let text = read(path, Origin::Flag.to_string())?;
        let table: Table = text.parse().map_err(|err: toml::de::Error| ConfigError::Syntax {
            file: path.display().to_string(),
            line: line_of(&text, err.span().map_or(0, |span| span.start)),
            message: err.message().to_owned(),
        })?;
        let mut named = BTreeMap::new();
        for (key, value) in flatten("", table) {
            match self.secret_of_file_key(&key, &mut named)? {
                Some(secret) => self.set_from_file(&secret, &key, &value, origin.clone())?,
                None => self.set(&key, value, origin.clone())?,
            }
        }
        Ok(())
    }

    pub(super) fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for (name, text) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if is_no_setting(rest) {
                continue;
            }
            let origin = Origin::Environment(name.clone());
            let secret = secret_of_file_variable(&name);
            let key = secret.clone().or_else(|| key_of_variable(&name));
            let Some(key) = key.filter(|key| self.is_known(key)) else {
                // Only what is no setting: a setting whose name a Service happens to have is read as one.
                if is_service_link(&name, &text) {
                    continue;
                }
                return Err(self.unknown_variable(name));
            };
            if !seen.insert(key.clone()) {
                let direct = variable_of(&key);
                return Err(ConfigError::SetTwice { file: format!("{direct}{FILE_SUFFIX}"), direct });
            }
            match secret {
                Some(secret) => self.set_read(&secret, &text, origin.to_string(), origin)?,
                None => self.set_text(&key, &text, origin)?,
            }
        }
        Ok(())
    }

    /// Whether [`Layers::add_environment`] passes this variable over because Kubernetes has set it.
    pub(super) fn passes_over(&self, name: &str, value: &str) -> bool {
        let is_setting = key_of_variable(name).is_some_and(|key| self.is_known(&key));
        name.starts_with(PREFIX) && !is_setting && is_service_link(name, value)
    }

    pub(super) fn add_overrides(&mut self, overrides: &[(String, String)]) -> Result<(), ConfigError> {
        let mut named = BTreeMap::new();
        for (key, text) in overrides {
            match self.secret_of_file_key(key, &mut named)? {
                Some(secret) => self.set_from_file(&secret, key, &Value::String(text.clone()), Origin::Flag)?,
                None => self.set_text(key, text, Origin::Flag)?,
            }
        }
        Ok(())
    }

    /// Rules between two keys.
    pub(super) fn check_pairs(&self) -> Result<(), ConfigError> {
        self.check_at_most("http.default_page_size", "http.max_page_size")?;
        self.check_at_most("projector.max_parked_per_key", "projector.max_parked_total")?;
        if !self.is_empty("schema_registry.bearer_token") && !self.is_empty("schema_registry.username") {
            let allowed = "nothing where schema_registry.bearer_token is set".to_owned();
            return Err(self.not_allowed("schema_registry.username", allowed));
        }
        self.check_wire()?;
        self.check_kafka_wire()?;
        self.check_registry_certificate()?;
        self.check_tokens()?;
        self.check_sign_in()?;
        self.check_listener()?;
        self.check_manager()?;
        for key in self.settings.keys().filter(|key| key.starts_with("views.") && key.ends_with(".dlq_topic")) {
            // The dead letters of a view must not become its events.
            let topic = key.replace(".dlq_topic", ".topic");
            if self.settings[key].value == self.settings[&topic].value {
                return Err(self.not_allowed(key, format!("a topic other than {topic}")));
            }
        }
        Ok(())
    }

    /// What the addresses of Postgres and its TLS say together, in words: the driver would only call it an invalid value.
    fn check_wire(&self) -> Result<(), ConfigError> {
        for key in ["database.url", "database.read_url"] {
            let url = SecretUrl::new(self.settings[key].value.as_str().unwrap_or_default());
            if url.option(SSL_MODE).is_some_and(|word| TlsMode::parse(word).is_none()) {
                return Err(self.not_allowed(key, TLS_MODES.to_owned()));
            }
            if let Some((option, setting)) = BY_SETTING.into_iter().find(|(option, _)| url.option(option).is_some()) {
                return Err(self.not_allowed(key, format!("{setting} instead of {option}")));
            }
        }
        let (certificate, its_key) = ("database.tls.cert_file", "database.tls.key_file");
        match (self.is_empty(certificate), self.is_empty(its_key)) {
            (false, true) => Err(self.not_allowed(certificate, format!("nothing where {its_key} is empty"))),
            (true, false) => Err(self.not_allowed(its_key, format!("nothing where {certificate} is empty"))),
            _ => Ok(()),
        }
    }

    /// What a client of the identity provider needs, and what says nothing without one.
    fn check_sign_in(&self) -> Result<(), ConfigError> {
        let (id, secret) = ("auth.oidc.client_id", "auth.oidc.client_secret");
        if self.is_empty(id) {
            let idle = !self.is_empty(secret);
            return if idle { Err(self.not_allowed(secret, format!("nothing where {id} is empty"))) } else { Ok(()) };
        }
        let issuer = self.settings["auth.jwt.issuer"].value.as_str().unwrap_or_default();
        match Url::parse(issuer) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
            _ => {
                let allowed = "nothing where auth.jwt.issuer is no URL: it says where browsers sign in".to_owned();
                Err(self.not_allowed(id, allowed))
            }
        }
    }

    /// What tokens need, and what says nothing without them.
    fn check_tokens(&self) -> Result<(), ConfigError> {
        let is_listed = |key: &&str| self.is_listed(key);
        if self.is_empty("auth.jwt.issuer") {
            let idle = ["auth.jwt.jwks_url", "auth.jwt.jwks_file"].into_iter().find(|key| !self.is_empty(key));
            let idle = idle.or_else(|| Some("auth.jwt.audience").filter(is_listed));
            return match idle {
                Some(key) => Err(self.not_allowed(key, "nothing where auth.jwt.issuer is empty".to_owned())),
                None => Ok(()),
            };
        }
        if let Some(key) = ["auth.jwt.audience", "auth.jwt.algorithms"].into_iter().find(|key| !self.is_listed(key)) {
            return Err(self.not_allowed(key, "at least one where auth.jwt.issuer is set".to_owned()));
        }
        let is_web = Url::parse(self.settings["auth.jwt.issuer"].value.as_str().unwrap_or_default())
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        match (self.is_empty("auth.jwt.jwks_url"), self.is_empty("auth.jwt.jwks_file")) {
            (false, false) => {
                Err(self.not_allowed("auth.jwt.jwks_file", "nothing where auth.jwt.jwks_url is set".to_owned()))
            }
            (true, true) if !is_web => {
                let allowed = "a URL, or auth.jwt.jwks_url or jwks_file to be set: where else are its keys?".to_owned();
                Err(self.not_allowed("auth.jwt.issuer", allowed))
            }
            _ => Ok(()),
        }
    }

    fn is_known(&self, key: &str) -> bool {
        self.known().any(|known| known == key)
    }

    fn known(&self) -> impl Iterator<Item = &String> {
        self.settings.keys().chain(&self.optional)
    }

    pub(super) fn into_config(self) -> Config {
        let (mut tree, mut secret_files) = (Table::new(), Vec::new());
        for (key, setting) in self.settings {
            insert(&mut tree, &key, setting.value);
            secret_files.extend(setting.file.map(|file| format!("{key} is read from {file}")));
        }
        let config: Config =
            tree.try_into().expect("every value passed its rule, and a test deserializes the defaults");
        Config { secret_files, ..config }
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.settings.get(key).map(|setting| &setting.value)
    }

    pub(super) fn is_empty(&self, key: &str) -> bool {
        self.settings[key].value.as_str().is_some_and(str::is_empty)
    }

    /// Whether a list has anything in it.
    pub(super) fn is_listed(&self, key: &str) -> bool {
        self.settings[key].value.as_array().is_some_and(|list| !list.is_empty())
    }

    fn check_at_most(&self, key: &str, limit: &str) -> Result<(), ConfigError> {
        let most = &self.settings[limit];
        if self.settings[key].value.as_integer() <= most.value.as_integer() {
            return Ok(());
        }
        Err(self.not_allowed(key, format!("at most {limit} = {} ({})", most.value, most.origin)))
    }

    fn set_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        // Text that does not parse stays text, which the rule then refuses by name.
        let parsed = rule_of(key).and_then(|rule| rule.parse(text));
        self.set(key, parsed.unwrap_or_else(|| Value::String(text.to_owned())), origin)
    }

    fn set(&mut self, key: &str, value: Value, origin: Origin) -> Result<(), ConfigError> {
        if self.is_section(key) && value.as_table().is_some_and(Table::is_empty) {
            return Ok(());
        }
        if !self.is_known(key) {
            return Err(self.refuse_unknown(key, value, origin));
        }
        self.settings.insert(key.to_owned(), Setting { value, origin, file: None });
        let rule = rule_of(key).expect("a test finds a rule for every default");
        if rule.accepts(&self.settings[key].value) {
            return Ok(());
        }
        Err(self.not_allowed(key, rule.to_string()))
    }

    /// The secret whose file a key names, as `database.url_file` names that of `database.url`; `named` are the secrets that
    /// their layer has named so far, and how.
    fn secret_of_file_key(
        &self,
        key: &str,
        named: &mut BTreeMap<String, String>,
    ) -> Result<Option<String>, ConfigError> {
        let of_file = key.strip_suffix(FILE_KEY_SUFFIX).filter(|secret| !self.is_known(key) && is_secret(secret));
        let secret = of_file.unwrap_or(key);
        if !is_secret(secret) {
            return Ok(None);
        }
        let before = named.insert(secret.to_owned(), key.to_owned());
        if before.is_some_and(|before| before != key) {
            let file = format!("{secret}{FILE_KEY_SUFFIX}");
            return Err(ConfigError::SetTwice { direct: secret.to_owned(), file });
        }
        Ok(of_file.map(ToOwned::to_owned))
    }

    fn set_from_file(&mut self, secret: &str, key: &str, path: &Value, origin: Origin) -> Result<(), ConfigError> {
        let Some(path) = path.as_str() else {
            let (value, allowed) = (path.type_str().to_owned(), "the path of a file".to_owned());
            return Err(ConfigError::NotAllowed { key: key.to_owned(), value, origin, allowed });
        };
        self.set_read(secret, path, format!("{key}, {origin}"), origin)
    }

    /// Sets a secret to what stands in a file.
    fn set_read(&mut self, secret: &str, path: &str, named_by: String, origin: Origin) -> Result<(), ConfigError> {
        let text = read(Path::new(path), named_by.clone())?;
        let text = text.trim();
        if text.is_empty() {
            return Err(ConfigError::EmptySecret { path: path.to_owned(), named_by });
        }
        self.set_text(secret, text, origin)?;
        if let Some(setting) = self.settings.get_mut(secret) {
            setting.file = Some(format!("{path} ({named_by})"));
        }
        Ok(())
    }

    /// `kafka = 1` is a section with the wrong type; everything else is a key nobody knows.
    fn refuse_unknown(&self, key: &str, value: Value, origin: Origin) -> ConfigError {
        if self.is_section(key) {
            let value = if value.is_str() { "text".to_owned() } else { shown(&value) };
            let key = key.to_owned();
            return ConfigError::NotAllowed {
                key,
                value,
                origin,
                allowed: "a section with keys of its own".to_owned(),
            };
        }
        let nearest = nearest(key, self.known().cloned());
        ConfigError::UnknownKey { key: key.to_owned(), origin, nearest }
    }

    fn is_section(&self, key: &str) -> bool {
        self.known().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    fn unknown_variable(&self, name: String) -> ConfigError {
        let nearest = nearest(&name, self.known().map(|key| variable_of(key)));
        ConfigError::UnknownVariable { variable: name, nearest }
    }

    pub(super) fn not_allowed(&self, key: &str, allowed: String) -> ConfigError {
        let Setting { value, origin, .. } = &self.settings[key];
        let value = match value {
            Value::String(text) if is_secret(key) && key.ends_with("url") => SecretUrl::new(text).to_string(),
            other if is_secret(key) => other.type_str().to_owned(),
            value => shown(value),
        };
        ConfigError::NotAllowed { key: key.to_owned(), value, origin: origin.clone(), allowed }
    }
}

/// A value that is no secret, in an error. It may have become part of what should have been one: a URL shows no password, and
/// of what is no plain value only its type is said.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains("://") => Value::from(SecretUrl::new(text).to_string()).to_string(),
        Value::Table(_) => value.type_str().to_owned(),
        value => value.to_string(),
    }
}

/// Variables of the test harness, the playground and the command line, which are no settings.
fn is_no_setting(rest: &str) -> bool {
    matches!(
        rest,
        "POSTGRES_BIN" | "PGBOUNCER" | "CRASH_AT" | "STOP_AT" | "PANIC_AT" | "CONFIG" | "API_URL" | "API_KEY"
    ) || rest.starts_with("TEST_")
}

/// The key in a variable's name; only the exact notation counts, so one key has one variable.
fn key_of_variable(name: &str) -> Option<String> {
    let key = name.strip_prefix(PREFIX)?.replace("__", ".").to_ascii_lowercase();
    (variable_of(&key) == name).then_some(key)
}

fn secret_of_file_variable(name: &str) -> Option<String> {
    key_of_variable(name.strip_suffix(FILE_SUFFIX)?).filter(|key| is_secret(key))
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

fn nearest(name: &str, known: impl Iterator<Item = String>) -> String {
    let closer = known.min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate));
    closer.expect("there are settings")
}

fn read(path: &Path, named_by: String) -> Result<String, ConfigError> {
    let path_in_words = || path.display().to_string();
    std::fs::read_to_string(path).map_err(|reason| ConfigError::Unreadable { path: path_in_words(), named_by, reason })
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1
}

/// Leaves by dotted key. An empty section stays visible as a leaf, so that an unknown one is refused.
fn flatten(prefix: &str, table: Table) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            // A list of pairs, which reads well as a table, too.
            Value::Table(inner) if ROLE_MAPS.contains(&key.as_str()) => {
                let pair = |(theirs, ours): (String, Value)| match ours {
                    Value::String(ours) => Value::String(format!("{theirs}={ours}")),
                    other => other,
                };
                leaves.push((key, Value::Array(inner.into_iter().map(pair).collect())));
            }
            Value::Table(inner) if !inner.is_empty() => leaves.extend(flatten(&key, inner)),
            leaf => leaves.push((key, leaf)),
        }
    }
    leaves
}

fn insert(tree: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            tree.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner = tree.entry(section).or_insert_with(|| Value::Table(Table::new()));
            insert(inner.as_table_mut().expect("no key is both section and value"), rest, value);
        }
    }
}
