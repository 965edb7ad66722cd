//! The schema registry: whether each of its addresses answers, as a registry, and lets us in.

use futures_util::future::join_all;
use tokio::time::timeout;

use super::{Check, PATIENCE, clock};
use crate::config::{SchemaRegistrySettings, SecretUrl, web_addresses};
use crate::schemas::client::{Fault, RegistryClient, Sign, Tls};

const REACHABLE: &str = "registry.reachable";
const LOGIN: &str = "registry.login";
const CLOCK: &str = "clock.registry";

/// Looks at it.
pub async fn examine(settings: &SchemaRegistrySettings) -> Vec<Check> {
    if settings.url.is_empty() {
        return vec![Check::ok(
            REACHABLE,
            "",
            "none is configured: records may be JSON, not in Confluent's wire format",
        )];
    }
    let addresses = web_addresses(settings.url.expose());
    let looks = addresses.iter().map(|address| look(settings, SecretUrl::new(*address)));
    join_all(looks).await.into_iter().flatten().collect()
}

async fn look(settings: &SchemaRegistrySettings, address: SecretUrl) -> Vec<Check> {
    let subject = address.to_string();
    let alone = SchemaRegistrySettings { url: address, ..settings.clone() };
    let client = match RegistryClient::new(&alone) {
        Ok(client) => client,
        Err(error) => {
            return vec![Check::failed(REACHABLE, subject, format!("{error:#}"), "correct schema_registry.ca_file")];
        }
    };
    let silent = || Fault::Unreachable(subject.clone(), format!("no answer within {} s", PATIENCE.as_secs()), None);
    let told = timeout(PATIENCE, client.sign_of_life()).await.unwrap_or_else(|_| Err(silent()));
    match told {
        Ok(sign) => well(settings, &subject, &sign),
        Err(fault @ Fault::Denied(_)) => {
            let fix = "set schema_registry.username and password, or schema_registry.bearer_token, to what it takes";
            vec![Check::ok(REACHABLE, &subject, "answers"), Check::failed(LOGIN, subject, fault.to_string(), fix)]
        }
        Err(fault) => {
            let login = Check::not_asked(LOGIN, &subject, "no registry answers there");
            vec![Check::failed(REACHABLE, subject, fault.to_string(), fix(&fault)), login]
        }
    }
}

fn well(settings: &SchemaRegistrySettings, subject: &str, sign: &Sign) -> Vec<Check> {
    let shows_nothing = settings.bearer_token.is_empty() && settings.username.is_empty() && !subject.contains('@');
    let login = if shows_nothing { "none is asked for" } else { "taken" };
    let clock = match sign.ahead {
        // It tells whole seconds.
        Some(ahead) => clock(CLOCK, subject, ahead, 500),
        None => Check::not_asked(CLOCK, subject, "its answers have no Date"),
    };
    let kinds = format!("answers; it knows {}", sign.kinds.join(", "));
    vec![Check::ok(REACHABLE, subject, kinds), Check::ok(LOGIN, subject, login), clock]
}

fn fix(fault: &Fault) -> &'static str {
    match fault {
        Fault::Unreachable(_, _, Some(Tls::Ours | Tls::PerhapsOurs)) => {
            "schema_registry.tls.cert_file and key_file = a certificate that the registry accepts, if it asks for one"
        }
        Fault::Unreachable(_, _, Some(Tls::Theirs)) => {
            "renew the registry's certificate, or correct its name in schema_registry.url"
        }
        Fault::Unreachable(_, _, Some(Tls::Issuer)) => {
            "schema_registry.ca_file = the PEM file of who signed the registry's certificate"
        }
        Fault::Unreachable(_, _, None) => "start the registry, or correct schema_registry.url",
        Fault::Foreign(..) | Fault::NoSuchPage(..) | Fault::NotFound(..) => {
            "schema_registry.url = the base URL of the registry itself, below which /schemas/types is"
        }
        _ => "look into the registry's own log",
    }
}
