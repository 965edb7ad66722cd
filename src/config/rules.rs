//! What each key accepts: the one table of types and ranges.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use toml::Value;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::secret::web_addresses;
use crate::auth::role::Role;
use crate::auth::subject::{is_subject, split, subject_and_role};
use crate::auth::token::ALGORITHMS;
use crate::domain::name::is_view_name;

/// What a key accepts.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// `true` or `false`.
    Switch,
    /// A whole number from the first to the second, both included.
    Integer(i64, i64),
    /// Text the function accepts; the words say which.
    Text(&'static str, fn(&str) -> bool),
    /// Text that nobody is to see, or that may hold such: shown redacted, and read from a file where that is named instead
    /// (`..._file`, `..._FILE`).
    Secret(&'static str, fn(&str) -> bool),
    /// A list of texts that the function accepts; in a variable or flag separated by commas.
    List(&'static str, fn(&str) -> bool),
    /// The same of texts with commas in them; in a variable or flag separated by semicolons.
    Subjects(&'static str, fn(&str) -> bool),
}

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;
const GIB: i64 = 1024 * MIB;
const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;

const NAME: Rule = Rule::Text("text that is not blank", |text| !text.trim().is_empty());
const HISTORY: Rule = Rule::Text("payload, compact or off", |text| matches!(text, "payload" | "compact" | "off"));
const GAP_POLICY: Rule = Rule::Text("hold, notify or skip", |text| matches!(text, "hold" | "notify" | "skip"));
const FIRST_SEQUENCE: Rule = Rule::Integer(0, 1);
const TAX_RATE: Rule =
    Rule::Text("a plain decimal such as 0.19, at most 18 digits before and 12 after the point", is_plain_decimal);
const TOPIC: Rule = Rule::Text("1 to 249 letters, digits, dots, underscores or dashes", is_kafka_name);

/// The rule of a dotted key; `None` for a key that does not exist.
pub(super) fn rule_of(key: &str) -> Option<Rule> {
    use Rule::{Integer, Secret, Switch, Text};
    Some(match key {
        "environment" => Text("production, dev or test", |text| matches!(text, "production" | "dev" | "test")),
        "database.url" => Secret("postgres://user:password@host:port/database, or key=value text", is_postgres),
        "database.read_url" => {
            Secret("nothing, or what database.url may be", |text| text.is_empty() || is_postgres(text))
        }
        "database.tls.ca_file" | "database.tls.cert_file" | "database.tls.key_file" => Text("text", |_| true),
        "database.read_pool_size" => Integer(1, 1000),
        "database.connect_timeout_ms" => Integer(10, 10 * MINUTE),
        "database.write_timeout_ms" => Integer(10, 60 * MINUTE),
        "database.read_timeout_ms" | "database.decision_timeout_ms" => Integer(10, 10 * MINUTE),
        "database.synchronous_commit" => Switch,
        "schema_registry.url" => {
            Secret("nothing, or http://host:port or https://host:port, several separated by commas", is_registry)
        }
        "schema_registry.username"
        | "schema_registry.ca_file"
        | "schema_registry.tls.cert_file"
        | "schema_registry.tls.key_file" => Text("text", |_| true),
        "schema_registry.password" | "schema_registry.bearer_token" => Secret("text", |_| true),
        "schema_registry.timeout_ms" => Integer(10, MINUTE),
        "schema_registry.not_found_grace_ms" => Integer(0, 60 * MINUTE),
        "schema_registry.not_found" => Text("halt or dead_letter", |text| matches!(text, "halt" | "dead_letter")),
        "http.bind" => Text("an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080", |text| {
            text.parse::<SocketAddr>().is_ok()
        }),
        "http.public_url" => Text(
            "nothing, or a URL such as https://shop.example/streamview, without user, query and a / at its end",
            is_public_url,
        ),
        "http.allow_anonymous" | "http.allow_anonymous_operations" => Switch,
        "http.workers" => Integer(0, 1024),
        "http.default_page_size" | "http.max_page_size" => Integer(1, 10_000),
        "http.max_offset" => Integer(0, 10_000_000),
        "http.max_wait_ms" => Integer(0, 10 * MINUTE),
        "http.max_waiters" | "http.max_followers" => Integer(0, 1_000_000),
        "http.max_hub_connections" | "http.max_hub_connections_per_caller" => Integer(1, 1_000_000),
        "http.follower_buffer" => Integer(1_000, 1_000_000),
        "http.send_timeout_ms" => Integer(SECOND, 10 * MINUTE),
        "http.rate_limits.reads"
        | "http.rate_limits.streams"
        | "http.rate_limits.operations"
        | "http.rate_limits.log_ins"
        | "http.rate_limits.definitions" => Integer(0, 1_000_000_000),
        "http.shutdown_timeout_ms" | "projector.shutdown_timeout_ms" => Integer(0, 10 * MINUTE),
        "projector.lanes" => Integer(1, 64),
        "projector.max_batch_events" => Integer(1, 1_000_000),
        "projector.max_batch_bytes" => Integer(KIB, GIB),
        "projector.min_commit_interval_ms" => Integer(0, 1_000),
        "projector.cache_bytes" => Integer(0, 64 * GIB),
        "projector.max_parked_per_key" => Integer(1, 1_000_000),
        "projector.max_parked_total" => Integer(1, 1_000_000_000),
        "projector.history" => HISTORY,
        "projector.gap_policy" => GAP_POLICY,
        "projector.max_record_bytes" => Integer(1, 100 * MIB),
        "projector.first_sequence" => FIRST_SEQUENCE,
        "projector.identity_check_ms" => Integer(10, 60 * MINUTE),
        "rebuild.memory_bytes" => Integer(MIB, 64 * GIB),
        "rebuild.on_version_change" => Switch,
        "tax.default_rate" => TAX_RATE,
        "log.format" => Text("text or json", |text| matches!(text, "text" | "json")),
        "log.level" => Text(
            "off, error, warn, info, debug or trace, also per module: info,streamview::projector=debug",
            is_log_filter,
        ),
        _ => {
            return rule_of_kafka(key)
                .or_else(|| rule_of_listener(key))
                .or_else(|| rule_of_login(key))
                .or_else(|| super::manager::rule_of(key))
                .or_else(|| rule_of_view(key));
        }
    })
}

fn rule_of_listener(key: &str) -> Option<Rule> {
    use Rule::{List, Subjects, Text};
    Some(match key {
        "http.cors_origins" => List(
            "a list of origins as browsers write them, such as https://shop.example: no path, no *, no port that goes without saying",
            is_origin,
        ),
        "http.trusted_proxies" => {
            List("a list of IP addresses and networks such as 10.0.0.0/8, and not all of them", is_network)
        }
        "http.tls.cert_file" | "http.tls.key_file" | "http.tls.client_ca_file" => Text("text", |_| true),
        "auth.mtls.role_map" => Subjects(
            "a list such as [\"CN=checkout,O=Shop=reader\"], to reader, developer, operator or admin: subjects as \
             `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb,utf8` prints them, in a variable separated by semicolons",
            |text| subject_and_role(text).is_some_and(|(subject, _)| is_subject(&subject)),
        ),
        _ => return None,
    })
}

fn rule_of_kafka(key: &str) -> Option<Rule> {
    use Rule::{Integer, Secret, Switch, Text};
    Some(match key {
        "kafka.bootstrap_servers" => Text("host:port, several separated by commas", is_address_list),
        "kafka.security_protocol" => Text("plaintext, ssl, sasl_plaintext or sasl_ssl", |text| {
            matches!(text, "plaintext" | "ssl" | "sasl_plaintext" | "sasl_ssl")
        }),
        "kafka.sasl_mechanism" => Text("nothing, PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", |text| {
            matches!(text, "" | "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512")
        }),
        "kafka.username" | "kafka.tls.ca_file" | "kafka.tls.cert_file" | "kafka.tls.key_file" => Text("text", |_| true),
        "kafka.password" | "kafka.tls.key_password" => Secret("text", |_| true),
        "kafka.group_id" | "kafka.client_id" => NAME,
        "kafka.instance_id" => Text("nothing, or 1 to 249 letters, digits, dots, underscores or dashes", |text| {
            text.is_empty() || is_kafka_name(text)
        }),
        "kafka.session_timeout_ms" => Integer(6 * SECOND, 30 * MINUTE),
        "kafka.fetch_wait_max_ms" => Integer(0, 30 * SECOND),
        "kafka.fetch_min_bytes" => Integer(1, MIB),
        "kafka.queue_bytes" => Integer(MIB, GIB),
        "kafka.max_fetch_bytes" => Integer(2 * MIB, 256 * MIB),
        "kafka.topic_ids" | "kafka.allow_compacted" => Switch,
        _ => return None,
    })
}

fn rule_of_login(key: &str) -> Option<Rule> {
    use Rule::{Integer, List, Secret, Switch, Text};
    Some(match key {
        "auth.anonymous_role" => Text("none or reader", |text| matches!(text, "none" | "reader")),
        "auth.api_keys" => Switch,
        "auth.jwt.issuer" => Text("text, a URL without user and password", has_no_login),
        "auth.jwt.jwks_file" => Text("text", |_| true),
        "auth.jwt.audience" => List("a list of texts that are not blank", |text| !text.trim().is_empty()),
        "auth.jwt.jwks_url" => {
            Text("nothing, or a URL that begins with https:// or http://, without user and password", |text| {
                let is_web = |url: Url| matches!(url.scheme(), "http" | "https");
                text.is_empty() || Url::parse(text).is_ok_and(is_web) && has_no_login(text)
            })
        }
        "auth.jwt.roles_claim" => NAME,
        "auth.jwt.role_map" => {
            List("a list such as [\"shop-ops=operator\"], to reader, developer, operator or admin", is_mapping)
        }
        "auth.jwt.algorithms" => List(
            "a list of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 and EdDSA: not none, and no HMAC",
            |text| ALGORITHMS.contains(&text),
        ),
        "auth.jwt.leeway_seconds" => Integer(0, 600),
        "auth.oidc.client_id" => Text("text", |_| true),
        "auth.oidc.client_secret" => Secret("text", |_| true),
        "auth.oidc.scope" => {
            Text("words with blanks between, openid among them", |text| text.split(' ').any(|word| word == "openid"))
        }
        "audit.retention_days" => Integer(0, 36_500),
        _ => return None,
    })
}

fn rule_of_view(key: &str) -> Option<Rule> {
    let (view, setting) = key.strip_prefix("views.")?.split_once('.')?;
    if !is_view_name(view) {
        return None;
    }
    match setting {
        "topic" | "dlq_topic" => Some(TOPIC),
        "history" => Some(HISTORY),
        "gap_policy" => Some(GAP_POLICY),
        "first_sequence" => Some(FIRST_SEQUENCE),
        "tax.default_rate" => Some(TAX_RATE),
        _ => None,
    }
}

/// Whether the value of a key is nobody's business.
pub(super) fn is_secret(key: &str) -> bool {
    matches!(rule_of(key), Some(Rule::Secret(..)))
}

impl Rule {
    /// Reads the text of a variable or flag as the key's type; `None` where it is not of that type.
    pub(super) fn parse(self, text: &str) -> Option<Value> {
        match self {
            Rule::Switch => text.parse().ok().map(Value::Boolean),
            Rule::Integer(..) => text.parse().ok().map(Value::Integer),
            Rule::Text(..) | Rule::Secret(..) => Some(Value::String(text.to_owned())),
            Rule::List(..) => Some(list(text.split(','))),
            Rule::Subjects(..) => Some(list(split(text, ';').into_iter())),
        }
    }

    /// Whether type and range are right.
    pub(super) fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Rule::Switch, Value::Boolean(_)) => true,
            (Rule::Integer(least, most), Value::Integer(number)) => (least..=most).contains(number),
            (Rule::Text(_, accepts) | Rule::Secret(_, accepts), Value::String(text)) => accepts(text),
            (Rule::List(_, accepts) | Rule::Subjects(_, accepts), Value::Array(values)) => {
                values.iter().all(|value| value.as_str().is_some_and(accepts))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Switch => f.write_str("true or false"),
            Rule::Integer(least, most) => write!(f, "a whole number from {least} to {most}"),
            Rule::Text(words, _) | Rule::Secret(words, _) | Rule::List(words, _) | Rule::Subjects(words, _) => {
                f.write_str(words)
            }
        }
    }
}

fn list<'t>(parts: impl Iterator<Item = &'t str>) -> Value {
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
}

/// Names of topics and static members, as the broker checks them.
fn is_kafka_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=249).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != ".."
}

/// `theirs=ours`: the last `=` counts, for names of groups have some.
fn is_mapping(text: &str) -> bool {
    text.rsplit_once('=').is_some_and(|(theirs, ours)| !theirs.trim().is_empty() && Role::parse(ours.trim()).is_some())
}

pub(super) fn is_address_list(text: &str) -> bool {
    text.split(',').all(|address| {
        let Some((host, port)) = address.trim().rsplit_once(':') else {
            return false;
        };
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn is_postgres(text: &str) -> bool {
    if text.contains("://") {
        return text.starts_with("postgres://") || text.starts_with("postgresql://");
    }
    text.contains('=')
}

fn is_registry(text: &str) -> bool {
    text.is_empty() || web_addresses(text).into_iter().all(is_web_address)
}

pub(super) fn is_web_address(text: &str) -> bool {
    let Ok(url) = Url::parse(text) else { return false };
    // A host with a comma or semicolon is a list whose second address lacks its scheme, or whose separator is another.
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    let has_host = url.host_str().is_some_and(|host| !host.is_empty() && host.bytes().all(is_host));
    matches!(url.scheme(), "http" | "https")
        && has_host
        && url.port() != Some(0)
        && url.query().is_none()
        && url.fragment().is_none()
        && !text.contains(char::is_whitespace)
}

/// It is shown wherever it does not answer.
fn has_no_login(text: &str) -> bool {
    Url::parse(text).map_or(true, |url| url.username().is_empty() && url.password().is_none())
}

/// It is written into headers as it is.
fn is_public_url(text: &str) -> bool {
    let Some(place) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return text.is_empty();
    };
    let host = place.split('/').next().unwrap_or_default();
    let stands_for_itself = |byte: u8| byte.is_ascii_graphic() && !br#"<>"\^`{|}?#@,;"#.contains(&byte);
    !host.is_empty() && place.bytes().all(stands_for_itself) && !place.ends_with('/')
}

/// In the one form that a browser sends, as it is compared letter by letter.
fn is_origin(text: &str) -> bool {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.is_some_and(|url| !text.contains('*') && url.origin().ascii_serialization() == text)
}

/// Not `/0`, which would let everybody say who they are.
fn is_network(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok_and(|network| network.prefix_len() > 0)
}

fn is_plain_decimal(text: &str) -> bool {
    let digits = |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole, 18) && digits(fraction, 12),
        None => digits(text, 18),
    }
}

/// `EnvFilter` reads a misspelt level (`inof`) as the name of a module and then logs nothing else, so
/// a directive without `=` must be a level here.
fn is_log_filter(text: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let misspelt =
        |directive: &str| !directive.contains('=') && !levels.contains(&directive.trim().to_ascii_lowercase().as_str());
    !text.split(',').any(misspelt) && EnvFilter::builder().parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_rules_accept_and_refuse_at_their_edges() {
        let topic = "t".repeat(249);
        let too_long = "t".repeat(250);
        for (key, good, bad) in [
            ("kafka.bootstrap_servers", "a:1,[::1]:9092", "a"),
            ("kafka.bootstrap_servers", "a:1, b:65535", "a:1,"),
            ("kafka.bootstrap_servers", "a:1", "a:0"),
            ("kafka.group_id", "g", " "),
            ("kafka.instance_id", "", "a b"),
            ("database.url", "host=h", "mysql://h/db"),
            ("database.url", "postgresql://h/db", ""),
            ("database.read_url", "", "mysql://h/db"),
            ("schema_registry.url", "", "registry:8081"),
            ("schema_registry.url", "https://u:p@h", "ftp://h"),
            ("schema_registry.url", "http://a,http://b:8081/path/", "http://a,b:8081"),
            ("schema_registry.url", "http://a , https://u:p@[::1]:8081", "http://a,"),
            ("schema_registry.url", "http://a/x,y", "http://a:80801"),
            ("schema_registry.url", "http://a.b-c", "http://"),
            ("schema_registry.url", "http://a", "http://a b"),
            ("schema_registry.url", "http://a", "http://a,,http://b"),
            ("schema_registry.url", "http://a", "http://a;http://b"),
            ("schema_registry.url", "http://a", "http://a:port"),
            ("schema_registry.url", "http://a", "http://a:0"),
            ("schema_registry.url", "http://a", "http://a?x=1"),
            ("http.bind", "[::]:0", "localhost:8080"),
            ("http.public_url", "", "/streamview"),
            ("http.public_url", "https://shop.example/streamview", "https://shop.example/streamview/"),
            ("http.public_url", "http://[::1]:8080", "https:///streamview"),
            ("http.public_url", "https://a.example/b/c", "ftp://a.example"),
            ("http.public_url", "https://a.example", "https://a.example/x>; rel=\"next\""),
            ("http.public_url", "https://a.example/%C3%A9", "https://u:p@a.example"),
            ("http.public_url", "https://a.example:8443/x", "https://a.example/x?y=1"),
            ("tax.default_rate", "0.190", ".19"),
            ("tax.default_rate", "999999999999999999.999999999999", "-1"),
            ("tax.default_rate", "1", "1e2"),
            ("log.format", "json", "Json"),
            ("log.level", "warn,streamview::api=trace", "inof"),
            ("log.level", "off", "streamview=loud"),
            ("views.orders.topic", topic.as_str(), too_long.as_str()),
            ("views.orders.dlq_topic", "a.b_c-D", ".."),
        ] {
            let rule = rule_of(key).unwrap();
            assert!(rule.accepts(&Value::String(good.to_owned())), "{key} = {good}");
            assert!(!rule.accepts(&Value::String(bad.to_owned())), "{key} = {bad}");
        }
    }

    #[test]
    fn list_rules_accept_and_refuse_at_their_edges() {
        for (key, good, bad) in [
            ("http.cors_origins", "https://shop.example", "https://shop.example/"),
            ("http.cors_origins", "http://localhost:3000", "*"),
            ("http.cors_origins", "http://[::1]:3000", "null"),
            ("http.cors_origins", "https://a.example:8443", "https://a.example:443"),
            ("http.cors_origins", "https://xn--bcher-kva.example", "https://bücher.example"),
            ("http.cors_origins", "http://a", "HTTPS://a"),
            ("http.cors_origins", "http://a", "https://*.shop.example"),
            ("http.cors_origins", "http://a", "shop.example"),
            ("http.cors_origins", "http://a", "ftp://a"),
            ("http.trusted_proxies", "10.0.0.0/8", "10.0.0.0/33"),
            ("http.trusted_proxies", "::1", "0.0.0.0/0"),
            ("http.trusted_proxies", "fd00::/8", "::/0"),
            ("http.trusted_proxies", "127.0.0.1", "proxy.example"),
            ("auth.mtls.role_map", "CN=checkout,O=Shop=reader", "CN=checkout,O=Shop"),
            ("auth.mtls.role_map", "CN=a\\,b = admin", "CN=a=root"),
            ("auth.mtls.role_map", "CN=a=reader", "=reader"),
            ("auth.mtls.role_map", "CN=a=reader", "/O=Shop/CN=a=reader"),
            ("auth.mtls.role_map", "CN=a=reader", "CN = a, O = Shop=reader"),
        ] {
            let rule = rule_of(key).unwrap();
            let list = |text: &str| Value::Array(vec![Value::String(text.to_owned())]);
            assert!(rule.accepts(&list(good)), "{key} = {good}");
            assert!(!rule.accepts(&list(bad)), "{key} = {bad}");
        }
    }

    #[test]
    fn subjects_have_commas_and_stand_between_semicolons_in_a_variable() {
        let parsed = rule_of("auth.mtls.role_map").unwrap().parse("CN=a,O=b=reader; CN=c\\;d=admin;").unwrap();
        let expected = ["CN=a,O=b=reader", "CN=c\\;d=admin"].map(|text| Value::String(text.to_owned()));
        assert_eq!(parsed, Value::Array(expected.into()));
    }
}
