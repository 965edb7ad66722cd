//! The service's settings in the manager's words.

use std::time::Duration;

use anyhow::{Context, Result};
use url::Url;

use crate::config::{Config, ManagerLimits, PreviewSettings, web_addresses};
use crate::manager::engines::EngineKind;
use crate::manager::preview::PreviewLimits;
use crate::manager::settings::{FlinkSettings, KsqldbSettings, Limits, ManagerSettings, Reconcile};

/// Characters of a host's name that are taken.
const MOST_OF_HOST: usize = 64;

/// What the manager is told. The settings have passed their rules: there is an engine for whoever names none.
pub fn settings(config: &Config) -> Result<ManagerSettings> {
    let (flink, ksqldb) = (flink(config), ksqldb(config));
    let all = [
        (EngineKind::Flink, flink.is_some()),
        (EngineKind::Ksqldb, ksqldb.is_some()),
        (EngineKind::Embedded, config.embedded.is_on()),
    ];
    let configured = all.into_iter().find(|(_, is)| *is);
    let named = EngineKind::ALL.into_iter().find(|engine| engine.name() == config.manager.default_engine);
    let default_engine = named.or(configured.map(|(engine, _)| engine)).context("no engine is configured")?;
    let reconcile = Reconcile {
        interval: Duration::from_millis(config.manager.reconcile_interval_ms),
        // Two looks are as far apart as two rounds, where these come sooner.
        second_look: Reconcile::default().second_look.min(Duration::from_millis(config.manager.reconcile_interval_ms)),
        heal_drift: config.manager.heal_drift,
        partitions: config.manager.topic_partitions,
        ..Reconcile::default()
    };
    let own_topics = config.views.values().flat_map(|view| [view.topic.clone(), view.dlq_topic.clone()]).collect();
    let (limits, preview) = (limits(&config.manager.limits), preview(&config.manager.preview));
    Ok(ManagerSettings {
        instance: instance(&config.kafka.instance_id),
        default_engine,
        flink,
        ksqldb,
        limits,
        preview,
        reconcile,
        own_topics,
    })
}

/// What people know this process by, with a number that no other has: where it runs, unless `kafka.instance_id` says otherwise.
fn instance(instance_id: &str) -> String {
    let host = || std::env::var("HOSTNAME").or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
    let named = match instance_id {
        "" => host().unwrap_or_default().trim().chars().take(MOST_OF_HOST).collect(),
        id => id.to_owned(),
    };
    format!("{}-{:08x}", if named.is_empty() { "instance" } else { &named }, fastrand::u32(..))
}

fn flink(config: &Config) -> Option<FlinkSettings> {
    let flink = &config.flink;
    let or = |own: &str, others: String| if own.is_empty() { others } else { own.to_owned() };
    (!flink.gateway_url.is_empty()).then(|| FlinkSettings {
        gateway_url: flink.gateway_url.clone(),
        rest_url: flink.rest_url.clone(),
        kafka_bootstrap_servers: or(&flink.kafka_bootstrap_servers, config.kafka.bootstrap_servers.clone()),
        savepoint_dir: flink.savepoint_dir.clone(),
        format: flink.format.clone(),
        registry_url: or(&flink.schema_registry_url, without_login(config.schema_registry.url.expose())),
    })
}

/// The first address of a list, as anybody may read it: it is written into statements, which an engine shows.
fn without_login(addresses: &str) -> String {
    let Some(Ok(mut url)) = web_addresses(addresses).first().map(|first| Url::parse(first)) else {
        return String::new();
    };
    match (url.set_username(""), url.set_password(None)) {
        (Ok(()), Ok(())) => url.to_string().trim_end_matches('/').to_owned(),
        _ => String::new(),
    }
}

fn ksqldb(config: &Config) -> Option<KsqldbSettings> {
    let ksqldb = &config.ksqldb;
    (!ksqldb.url.is_empty()).then(|| KsqldbSettings {
        url: ksqldb.url.clone(),
        username: ksqldb.username.clone(),
        password: ksqldb.password.expose().to_owned(),
    })
}

fn preview(preview: &PreviewSettings) -> PreviewLimits {
    PreviewLimits {
        readers: preview.readers,
        readers_per_caller: preview.readers_per_caller,
        watchers: preview.watchers,
        watchers_per_caller: preview.watchers_per_caller,
        rows_per_second: preview.rows_per_second,
        bytes_per_second: preview.bytes_per_second,
        value_bytes: preview.value_bytes,
        ..PreviewLimits::default()
    }
}

fn limits(limits: &ManagerLimits) -> Limits {
    Limits {
        query_characters: limits.query_characters,
        joins: limits.joins,
        windows: limits.windows,
        depth: limits.depth,
        query_time: Duration::from_secs(limits.query_seconds),
        queries_per_user: limits.queries_per_user,
        queries: limits.queries,
        queries_per_minute: limits.queries_per_minute,
        definitions_per_user: limits.definitions_per_user,
        definitions: limits.definitions,
        streams_per_user: limits.streams_per_user,
        streams: limits.streams,
        query_rows: limits.query_rows,
        query_bytes: limits.query_bytes,
        blocked_words: limits.blocked_words.iter().map(|words| words.to_ascii_uppercase()).collect(),
        functions: limits.functions.iter().map(|name| name.to_ascii_uppercase()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn of(pairs: &[(&str, &str)]) -> ManagerSettings {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        settings(&Config::load(None, [], &pairs).unwrap()).unwrap()
    }

    #[test]
    fn the_settings_of_nobody_are_the_managers_own() {
        let settings = of(&[("manager.enabled", "true"), ("ksqldb.url", "http://k:8088")]);
        assert_eq!(settings.limits, Limits::default());
        assert_eq!(settings.preview, PreviewLimits::default());
        assert_eq!(settings.reconcile, Reconcile::default());
        assert_eq!(settings.default_engine, EngineKind::Ksqldb, "the one that is configured");
        assert!(settings.flink.is_none());
    }

    #[test]
    fn no_two_processes_have_the_same_name() {
        let (one, other) = (of(&[("ksqldb.url", "http://k")]).instance, of(&[("ksqldb.url", "http://k")]).instance);
        assert!(one != other && one.len() > 9, "{one} {other}");
        let named = of(&[("ksqldb.url", "http://k"), ("kafka.instance_id", "reads-1")]).instance;
        assert!(named.starts_with("reads-1-"), "{named}");
    }

    #[test]
    fn flink_reaches_what_we_reach_unless_it_is_said_otherwise() {
        let flink = [("flink.gateway_url", "http://g"), ("flink.rest_url", "http://j")];
        let ours =
            [("kafka.bootstrap_servers", "ours:9092"), ("schema_registry.url", "http://me:canary@r:8081,http://s")];
        let found = of(&[&flink[..], &ours].concat()).flink.unwrap();
        assert_eq!(
            (found.kafka_bootstrap_servers.as_str(), found.registry_url.as_str()),
            ("ours:9092", "http://r:8081")
        );
        let own = [("flink.kafka_bootstrap_servers", "kafka:9092"), ("flink.schema_registry_url", "http://registry")];
        let found = of(&[&flink[..], &ours, &own].concat()).flink.unwrap();
        assert_eq!(
            (found.kafka_bootstrap_servers.as_str(), found.registry_url.as_str()),
            ("kafka:9092", "http://registry")
        );
    }

    /// The variables that `docker-compose.yml` gives the service, with those of an env file put in.
    fn composed(env_file: &str) -> Vec<(String, String)> {
        let given: HashMap<&str, &str> = env_file.lines().filter_map(|line| line.split_once('=')).collect();
        let filled = |value: &str| {
            let mut text = value.trim().trim_matches('"').to_owned();
            while let Some((before, rest)) = text.split_once("${") {
                let (variable, after) = rest.split_once('}').expect("it closes");
                let (name, otherwise) = variable.split_once(":-").expect("each has a default");
                text = format!("{before}{}{after}", given.get(name).unwrap_or(&otherwise));
            }
            text
        };
        let variable = |line: &str| {
            let (name, value) = line.trim().split_once(": ")?;
            name.starts_with("STREAMVIEW_").then(|| (name.to_owned(), filled(value)))
        };
        include_str!("../../docker-compose.yml").lines().filter_map(variable).collect()
    }

    #[test]
    fn each_profile_of_compose_is_a_service_with_its_engines() {
        for (env_file, default_engine, has_flink, has_ksqldb) in [
            (include_str!("../../docker/flink.env"), EngineKind::Flink, true, false),
            (include_str!("../../docker/ksqldb.env"), EngineKind::Ksqldb, false, true),
            (include_str!("../../docker/engines.env"), EngineKind::Flink, true, true),
        ] {
            let config = Config::load(None, composed(env_file), &[]).unwrap();
            assert!(config.manager.enabled, "{env_file}");
            let settings = settings(&config).unwrap();
            assert_eq!(settings.default_engine, default_engine, "{env_file}");
            assert_eq!((settings.flink.is_some(), settings.ksqldb.is_some()), (has_flink, has_ksqldb), "{env_file}");
            let profiles = env_file.lines().find_map(|line| line.strip_prefix("COMPOSE_PROFILES=")).unwrap();
            for (profile, is_there) in [("flink", has_flink), ("ksqldb", has_ksqldb)] {
                assert_eq!(profiles.split(',').any(|named| named == profile), is_there, "{env_file}");
            }
        }
        // The image has an engine of its own, and so no need of another one.
        let alone = Config::load(None, composed(""), &[]);
        if cfg!(feature = "embedded-engine") {
            assert_eq!(settings(&alone.unwrap()).unwrap().default_engine, EngineKind::Embedded);
        } else {
            assert!(alone.unwrap_err().to_string().starts_with("manager.enabled"));
        }
    }
}
