use crate::domain::units::Sequence;

use std::io::Write;

use super::rules::{Rule, rule_of};
use super::*;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn owned(pairs: Pairs) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, environment: Pairs, overrides: Pairs) -> Result<Config, ConfigError> {
    let file = file(text);
    Config::load(Some(file.path()), owned(environment), &owned(overrides))
}

fn refused(text: &str, environment: Pairs, overrides: Pairs) -> String {
    load(text, environment, overrides).unwrap_err().to_string()
}

/// Keys of the defaults with their values, by dotted name.
fn default_leaves() -> Vec<(String, toml::Value)> {
    let table: toml::Table = include_str!("../../config/default.toml").parse().unwrap();
    let mut leaves = Vec::new();
    let mut open = vec![(String::new(), table)];
    while let Some((prefix, table)) = open.pop() {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Table(inner) => open.push((format!("{key}."), inner)),
                leaf => leaves.push((key, leaf)),
            }
        }
    }
    leaves
}

#[test]
fn each_layer_beats_the_former() {
    let text = "[kafka]\ngroup_id = 'file'\nclient_id = 'file'\n[http]\nworkers = 3\n";
    let environment: Pairs = &[("STREAMVIEW_KAFKA__GROUP_ID", "variable"), ("STREAMVIEW_HTTP__WORKERS", "4")];

    let config = load(text, environment, &[("http.workers", "5")]).unwrap();

    assert_eq!(config.database.read_pool_size, 16);
    assert_eq!(config.kafka.client_id, "file");
    assert_eq!(config.kafka.group_id, "variable");
    assert_eq!(config.http.workers, 5);
}

#[test]
fn contract_names_and_defaults_hold() {
    let defaults = Config::defaults();
    assert_eq!(defaults.kafka.group_id, "streamview-orders");
    assert_eq!(defaults.http.bind.to_string(), "127.0.0.1:8080");
    assert_eq!(defaults.views["orders"].topic, "orders.events");
    assert_eq!(defaults.views["orders"].dlq_topic, "orders.events.dlq");
    assert!(defaults.schema_registry.url.is_empty());

    let config = load(
        "",
        &[
            ("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS", "k1:9092,k2:9092"),
            ("STREAMVIEW_KAFKA__GROUP_ID", "g"),
            ("STREAMVIEW_KAFKA__SESSION_TIMEOUT_MS", "6000"),
            ("STREAMVIEW_DATABASE__URL", "postgres://u:pw@h/db"),
            ("STREAMVIEW_SCHEMA_REGISTRY__URL", "http://r:8081"),
            ("STREAMVIEW_HTTP__BIND", "[::1]:9"),
            ("STREAMVIEW_VIEWS__ORDERS__TOPIC", "t"),
            ("STREAMVIEW_VIEWS__ORDERS__DLQ_TOPIC", "t.dlq"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(config.kafka.bootstrap_servers, "k1:9092,k2:9092");
    assert_eq!(config.kafka.group_id, "g");
    assert_eq!(config.kafka.session_timeout_ms, 6000);
    assert_eq!(config.database.url.expose(), "postgres://u:pw@h/db");
    assert_eq!(config.schema_registry.url.expose(), "http://r:8081");
    assert_eq!(config.http.bind.to_string(), "[::1]:9");
    assert_eq!(config.views["orders"].topic, "t");
    assert_eq!(config.views["orders"].dlq_topic, "t.dlq");
}

#[test]
fn unknown_keys_are_refused_with_their_origin_and_the_nearest_key() {
    for (text, key, nearest) in [
        ("[kafka]\ngroup = 'g'", "kafka.group", "kafka.group_id"),
        ("[kafak]\ngroup_id = 'g'", "kafak.group_id", "kafka.group_id"),
        ("[views.order]\ntopic = 't'", "views.order.topic", "views.orders.topic"),
        ("[htttp]", "htttp", "http.bind"),
        ("\"kafka.group_id\" = 'g'\n[log]\nlevl = 'info'", "log.levl", "log.level"),
    ] {
        let message = refused(text, &[], &[]);
        assert!(message.contains(&format!("unknown key {key} (file /")), "{message}");
        assert!(message.contains(".toml)"), "{message}");
        assert!(message.ends_with(&format!("nearest known one is {nearest}")), "{message}");
    }
    assert_eq!(
        refused("", &[], &[("kafka.groupid", "g")]),
        "unknown key kafka.groupid (command line), the nearest known one is kafka.group_id"
    );
}

#[test]
fn unknown_variables_are_refused_with_the_nearest_one() {
    for (name, nearest) in [
        ("STREAMVIEW_KAFKA_GROUP_ID", "STREAMVIEW_KAFKA__GROUP_ID"),
        ("STREAMVIEW_KAFKA__GROUPID", "STREAMVIEW_KAFKA__GROUP_ID"),
        ("STREAMVIEW_kafka__group_id", "STREAMVIEW_KAFKA__GROUP_ID"),
        ("STREAMVIEW_HTTP__BIND_FILE", "STREAMVIEW_HTTP__BIND"),
        ("STREAMVIEW_VIEWS__ORDER__TOPIC", "STREAMVIEW_VIEWS__ORDERS__TOPIC"),
    ] {
        assert_eq!(
            refused("", &[(name, "x")], &[]),
            format!("unknown environment variable {name}, the nearest known one is {nearest}")
        );
    }
}

#[test]
fn variables_that_are_no_settings_are_left_alone() {
    let environment: Pairs = &[
        ("STREAMVIEW_POSTGRES_BIN", "/usr/bin"),
        ("STREAMVIEW_TEST_KAFKA", "h:9092"),
        ("STREAMVIEW_TEST_A__B", "x"),
        ("STREAMVIEW_CRASH_AT", "before_commit"),
        ("STREAMVIEW_CONFIG", "x.toml"),
        ("HOME", "/"),
    ];
    load("", environment, &[]).unwrap();
}

/// What the kubelet sets for the Services `streamview` and `streamview-postgres`.
const SERVICE_LINKS: Pairs = &[
    ("STREAMVIEW_SERVICE_HOST", "10.0.0.1"),
    ("STREAMVIEW_SERVICE_PORT", "8080"),
    ("STREAMVIEW_SERVICE_PORT_HTTP", "8080"),
    ("STREAMVIEW_PORT", "tcp://10.0.0.1:8080"),
    ("STREAMVIEW_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
    ("STREAMVIEW_PORT_8080_TCP_PROTO", "tcp"),
    ("STREAMVIEW_PORT_8080_TCP_PORT", "8080"),
    ("STREAMVIEW_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ("STREAMVIEW_POSTGRES_SERVICE_HOST", "10.0.0.2"),
    ("STREAMVIEW_POSTGRES_PORT", "tcp://10.0.0.2:5432"),
    ("STREAMVIEW_POSTGRES_PORT_5432_TCP_ADDR", "10.0.0.2"),
];

#[test]
fn service_links_of_kubernetes_are_passed_over_and_change_nothing() {
    let config = load("", SERVICE_LINKS, &[]).unwrap();
    assert_eq!(config.to_toml_redacted(), Config::defaults().to_toml_redacted());
    let names: Vec<&str> = SERVICE_LINKS.iter().map(|(name, _)| *name).collect();
    let others: Pairs = &[("STREAMVIEW_KAFKA__GROUP_ID", "g"), ("POSTGRES_PORT", "tcp://10.0.0.2:5432")];
    assert_eq!(Config::service_links(owned(&[SERVICE_LINKS, others].concat())), names);
    for (name, value) in [("STREAMVIEW_PORT", "8080"), ("STREAMVIEW_POSTGRES_SERVICE_HOST", "postgres.example")] {
        assert!(refused("", &[(name, value)], &[]).starts_with(&format!("unknown environment variable {name}")));
    }
}

/// A name is a setting's first, whatever a Service is called and whatever the value looks like.
#[test]
fn no_setting_is_ever_taken_for_a_service_link() {
    let views =
        ["history", "tax.default_rate"].map(|rule| (format!("views.orders.{rule}"), toml::Value::Boolean(true)));
    for (key, _) in default_leaves().into_iter().chain(views) {
        let name = format!("STREAMVIEW_{}", key.replace('.', "__").to_ascii_uppercase());
        for value in ["10.0.0.1", "8080", "tcp", "tcp://10.0.0.1:8080"] {
            assert!(Config::service_links([(name.clone(), value.to_owned())]).is_empty(), "{name}={value}");
            if let Err(error) = load("", &[(&name, value)], &[]) {
                // Of an issuer it is asked first for whom its tokens are, of a certificate where its key is.
                let asked = match key.as_str() {
                    "auth.jwt.issuer" => "auth.jwt.audience",
                    "http.tls.cert_file" => "http.tls.key_file",
                    "http.tls.key_file" => "http.tls.cert_file",
                    other => other,
                };
                assert!(error.to_string().starts_with(&format!("{asked} = ")), "read as a setting: {error}");
            }
        }
    }
}

#[test]
fn secrets_come_from_files_and_only_secrets() {
    let secret = file("  postgres://u:pw@h/db\n");
    let path = secret.path().to_str().unwrap();

    let config = load("", &[("STREAMVIEW_DATABASE__URL_FILE", path)], &[]).unwrap();
    assert_eq!(config.database.url.expose(), "postgres://u:pw@h/db");
    let told = format!("database.url is read from {path} (environment variable STREAMVIEW_DATABASE__URL_FILE)");
    assert_eq!(config.secret_files, std::slice::from_ref(&told));
    assert!(config.to_toml_redacted().starts_with(&format!("# {told}\nenvironment = ")));

    let both: Pairs = &[("STREAMVIEW_DATABASE__URL_FILE", path), ("STREAMVIEW_DATABASE__URL", "host=h")];
    let twice = refused("", both, &[]);
    assert_eq!(twice, "STREAMVIEW_DATABASE__URL and STREAMVIEW_DATABASE__URL_FILE are both set, keep one");
    let missing = refused("", &[("STREAMVIEW_DATABASE__URL_FILE", "/no/such")], &[]);
    let expected =
        "cannot read /no/such (environment variable STREAMVIEW_DATABASE__URL_FILE): No such file or directory";
    assert!(missing.starts_with(expected), "{missing}");
    let name = ("STREAMVIEW_SCHEMA_REGISTRY__USERNAME_FILE", path);
    assert!(
        refused("", &[name], &[]).starts_with("unknown environment variable STREAMVIEW_SCHEMA_REGISTRY__USERNAME_FILE")
    );
}

fn and<'a>(these: Pairs<'a>, those: Pairs<'a>) -> Vec<(&'a str, &'a str)> {
    [these, those].concat()
}

#[test]
fn every_secret_comes_from_a_file_in_every_layer() {
    for (key, _) in default_leaves().into_iter().filter(|(key, _)| matches!(rule_of(key), Some(Rule::Secret(..)))) {
        let text = if key.starts_with("database.") { "postgres://u:canary@h/db" } else { "http://u:canary@h" };
        let (secret, empty) = (file(&format!("{text}\r\n")), file(" \n"));
        let (path, empty) = (secret.path().to_str().unwrap(), empty.path().to_str().unwrap());
        let (section, name) = key.rsplit_once('.').unwrap();
        let (variable, flag) =
            (format!("STREAMVIEW_{}_FILE", key.replace('.', "__").to_ascii_uppercase()), format!("{key}_file"));
        // What the others have to say for it to be taken.
        let with: Pairs = match key.as_str() {
            "kafka.password" => {
                &[("kafka.security_protocol", "sasl_ssl"), ("kafka.sasl_mechanism", "PLAIN"), ("kafka.username", "u")]
            }
            "auth.oidc.client_secret" => &[
                ("auth.jwt.issuer", "https://id.example"),
                ("auth.jwt.audience", "streamview"),
                ("auth.oidc.client_id", "streamview"),
            ],
            "kafka.tls.key_password" => {
                &[("kafka.security_protocol", "ssl"), ("kafka.tls.cert_file", "/x"), ("kafka.tls.key_file", "/y")]
            }
            _ => &[],
        };
        let in_file = |path: &str| format!("[{section}]\n{name}_file = '{path}'\n");
        let of_layers = |path: &str| {
            [
                load(&in_file(path), &[], with),
                load("", &[(&variable, path)], with),
                load("", &[], &and(with, &[(&flag, path)])),
            ]
        };
        for config in of_layers(path) {
            let config = config.unwrap();
            let exposed = match key.as_str() {
                "database.url" => config.database.url.expose(),
                "database.read_url" => config.database.read_url.expose(),
                "auth.oidc.client_secret" => config.auth.oidc.client_secret.expose(),
                "kafka.password" => config.kafka.password.expose(),
                "kafka.tls.key_password" => config.kafka.tls.key_password.expose(),
                "schema_registry.url" => config.schema_registry.url.expose(),
                "schema_registry.password" => config.schema_registry.password.expose(),
                "ksqldb.password" => config.ksqldb.password.expose(),
                "schema_registry.bearer_token" => config.schema_registry.bearer_token.expose(),
                other => panic!("a secret that this test does not know: {other}"),
            };
            assert_eq!(exposed, text, "{key}");
            assert!(config.to_toml_redacted().starts_with(&format!("# {key} is read from {path} (")), "{key}");
        }
        for (refused, named) in of_layers("/no/such").into_iter().zip([&flag, &variable, &flag]) {
            let message = refused.unwrap_err().to_string();
            assert!(message.starts_with("cannot read /no/such (") && message.contains(named.as_str()), "{message}");
        }
        for (refused, named) in of_layers(empty).into_iter().zip([&flag, &variable, &flag]) {
            let message = refused.unwrap_err().to_string();
            assert!(message.starts_with(empty) && message.contains(named.as_str()), "{message}");
            assert!(message.ends_with("is empty: write the secret into it, or leave the setting out"), "{message}");
        }
        // Both in one layer leave open which is meant; a later layer beats an earlier one, as ever.
        let both = format!("{key} and {flag} are both set, keep one");
        assert_eq!(refused(&format!("{}{name} = '{text}'\n", in_file(path)), &[], with), both);
        assert_eq!(refused("", &[], &and(with, &[(&key, text), (&flag, path)])), both);
        let beaten = load(&in_file(path), &[], &and(with, &[(&key, text)])).unwrap();
        assert!(beaten.secret_files.is_empty(), "{key}: the flag says it");
    }
    assert!(refused("[http]\nbind_file = '/x'\n", &[], &[]).starts_with("unknown key http.bind_file"));
    let not_a_path = refused("[database]\nurl_file = 3\n", &[], &[]);
    assert!(not_a_path.starts_with("database.url_file = integer (file "), "{not_a_path}");
}

/// By its type a secret hides itself; by its rule its file is read, and errors do not show it.
#[test]
fn what_hides_itself_has_the_rule_of_a_secret_and_nothing_else_has() {
    const CANARY: &str = "x://canary:canary@canary";
    for (key, value) in default_leaves() {
        let Some(mut tree) = value.is_str().then(|| toml::Table::try_from(Config::defaults()).unwrap()) else {
            continue;
        };
        let mut path: Vec<&str> = key.split('.').collect();
        let name = path.pop().unwrap();
        let section = path.iter().fold(&mut tree, |tree, section| tree[*section].as_table_mut().unwrap());
        section.insert(name.to_owned(), toml::Value::String(CANARY.to_owned()));
        // What takes no such text has a few words to choose from.
        let Ok(config) = tree.try_into::<Config>() else { continue };
        let is_hidden = !config.to_toml_redacted().contains(CANARY);
        assert_eq!(is_hidden, matches!(rule_of(&key), Some(Rule::Secret(..))), "{key}");
    }
}

#[test]
fn every_integer_is_accepted_at_its_edges_and_refused_beyond() {
    for (key, _) in default_leaves() {
        let Some(Rule::Integer(least, most)) = rule_of(&key) else {
            continue;
        };
        let load = |number: i64| {
            // Keep rules between two keys out of the way.
            let mut overrides = owned(&[
                ("http.default_page_size", "1"),
                ("http.max_page_size", "10000"),
                ("projector.max_parked_per_key", "1"),
                ("projector.max_parked_total", "1000000000"),
            ]);
            overrides.push((key.clone(), number.to_string()));
            Config::load(None, [], &overrides)
        };
        for inside in [least, most] {
            load(inside).unwrap();
        }
        for outside in [least - 1, most + 1] {
            let message = load(outside).unwrap_err().to_string();
            let expected = format!(
                "{key} = {outside} (command line) is not allowed, expected a whole number from {least} to {most}"
            );
            assert_eq!(message, expected);
        }
    }
}

#[test]
fn wrong_types_name_key_value_origin_and_what_is_allowed() {
    let seconds = refused("", &[("STREAMVIEW_KAFKA__SESSION_TIMEOUT_MS", "45s")], &[]);
    assert_eq!(
        seconds,
        "kafka.session_timeout_ms = \"45s\" (environment variable STREAMVIEW_KAFKA__SESSION_TIMEOUT_MS) \
         is not allowed, expected a whole number from 6000 to 1800000"
    );
    let switch = refused("", &[], &[("kafka.topic_ids", "yes")]);
    assert_eq!(switch, "kafka.topic_ids = \"yes\" (command line) is not allowed, expected true or false");
    assert!(refused("[http]\nworkers = '3'", &[], &[]).contains("http.workers = \"3\" (file "));
    assert!(refused("kafka = 3", &[], &[]).contains("kafka = 3 (file "));
    assert!(refused("[tax]\ndefault_rate = 0.19", &[], &[]).contains("a plain decimal"));
}

#[test]
fn rules_between_two_keys_hold() {
    assert_eq!(
        refused("", &[], &[("http.max_page_size", "20")]),
        "http.default_page_size = 50 (default) is not allowed, expected at most http.max_page_size = 20 (command line)"
    );
    assert!(refused("", &[], &[("projector.max_parked_total", "999")]).contains("projector.max_parked_per_key = 1000"));
    assert!(refused("", &[], &[("views.orders.dlq_topic", "orders.events")]).contains("other than views.orders.topic"));
}

#[test]
fn a_mode_of_tls_that_there_is_not_is_refused_with_what_there_is() {
    for mode in ["allow", "none", "verify_full", ""] {
        for url in [format!("postgres://u:pw@h/db?sslmode={mode}"), format!("host=h password=pw sslmode={mode}")] {
            for key in ["url", "read_url"] {
                let variable = format!("STREAMVIEW_DATABASE__{}", key.to_ascii_uppercase());
                let message = refused("", &[(&variable, &url)], &[]);
                let words = format!("database.{key} = {}", SecretUrl::new(&url));
                assert!(message.contains(&words), "{message}");
                assert!(message.contains("require, verify-ca or verify-full") && !message.contains("pw"), "{message}");
            }
        }
    }
    let fine = [
        "postgres://h/db?sslmode=disable",
        "host=h sslmode=prefer",
        "host=h sslmode=verify-full",
        "postgres://h/db?sslmode=verify-ca",
        "postgres://h/db?sslmode=require",
        "postgres://h/db",
    ];
    for fine in fine {
        load("", &[("STREAMVIEW_DATABASE__URL", fine), ("STREAMVIEW_DATABASE__READ_URL", fine)], &[]).unwrap();
    }
}

#[test]
fn files_for_tls_are_settings_and_not_options_of_the_address() {
    for (option, setting) in [
        ("sslrootcert", "database.tls.ca_file"),
        ("sslcert", "database.tls.cert_file"),
        ("sslkey", "database.tls.key_file"),
    ] {
        let url = format!("postgres://u:pw@h/db?{option}=/x.pem");
        let message = refused("", &[("STREAMVIEW_DATABASE__URL", &url)], &[]);
        assert!(message.contains(&format!("{setting} instead of {option}")) && !message.contains("pw"), "{message}");
    }
    let (certificate, key) = ("database.tls.cert_file", "database.tls.key_file");
    for (given, missing) in [(certificate, key), (key, certificate)] {
        let message = refused("", &[], &[(given, "/x.pem")]);
        assert!(message.contains(&format!("{given} = \"/x.pem\" (command line) is not allowed")), "{message}");
        assert!(message.contains(&format!("nothing where {missing} is empty")), "{message}");
    }
    load("", &[], &[(certificate, "/x.pem"), (key, "/y.pem")]).unwrap();
}

#[test]
fn a_broken_file_is_named_with_its_line_and_without_its_content() {
    // Longer than what chance may write into the name of the file (`.tmp`, `w…`).
    let message = refused("[database]\n\nurl = postgres://u:hunter2@h\n", &[], &[]);
    assert!(message.contains(".toml, line 3: "), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
    let missing = Config::load(Some(Path::new("/no/such.toml")), [], &[]).unwrap_err();
    let missing = missing.to_string();
    assert!(missing.starts_with("cannot read /no/such.toml (command line): No such file or directory"), "{missing}");
    let folder = Config::load(Some(Path::new("/")), [], &[]).unwrap_err().to_string();
    assert!(folder.starts_with("cannot read / (command line): Is a directory"), "{folder}");
}

#[test]
fn passwords_appear_in_no_output() {
    let config = load(
        "",
        &[
            ("STREAMVIEW_DATABASE__URL", "postgres://user:hunter2@host/db"),
            ("STREAMVIEW_SCHEMA_REGISTRY__URL", "https://user:hunter2@host"),
            ("STREAMVIEW_SCHEMA_REGISTRY__PASSWORD", "hunter2=a://b"),
            ("STREAMVIEW_SCHEMA_REGISTRY__BEARER_TOKEN", "hunter2"),
            ("STREAMVIEW_KSQLDB__PASSWORD", "hunter2"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(config.schema_registry.password.expose(), "hunter2=a://b");

    let shown = config.to_toml_redacted();
    assert!(shown.contains("url = \"postgres://user:***@host/db\""), "{shown}");
    assert!(!shown.contains("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
    for value in ["mysql://user:hunter2@host", "user:hunter2@host"] {
        assert!(!refused("", &[("STREAMVIEW_DATABASE__URL", value)], &[]).contains("hunter2"));
    }
    assert!(!refused("[database]\nurl = ['postgres://user:hunter2@host']", &[], &[]).contains("hunter2"));
}

#[test]
fn a_registry_is_asked_with_a_token_or_with_a_name_not_with_both() {
    let both = [("STREAMVIEW_SCHEMA_REGISTRY__BEARER_TOKEN", "secret"), ("STREAMVIEW_SCHEMA_REGISTRY__USERNAME", "me")];
    let message = refused("", &both, &[]);
    assert!(message.contains("schema_registry.bearer_token") && !message.contains("secret"), "{message}");
}

#[test]
fn the_manager_needs_an_engine_and_an_engine_is_set_up_whole() {
    // A build with the embedded engine has one without any settings: it is off here.
    let on: Pairs = &[("manager.enabled", "true"), ("embedded.enabled", "false")];
    let further = if EmbeddedSettings::IS_BUILT_IN { ", or embedded.enabled" } else { "" };
    let none = format!(
        "manager.enabled = true (command line) is not allowed, expected an engine to be configured then: set \
         flink.gateway_url and flink.rest_url, or ksqldb.url{further}"
    );
    let flink: Pairs = &[("flink.gateway_url", "http://g:8083"), ("flink.rest_url", "http://j:8081")];
    let ksqldb: Pairs = &[("ksqldb.url", "http://k:8088")];
    for (settings, message) in [
        (on.to_vec(), none.as_str()),
        (vec![flink[0]], "flink.rest_url = \"\" (default) is not allowed, expected a URL, as flink.gateway_url is set"),
        (vec![flink[1]], "flink.gateway_url = \"\" (default) is not allowed, expected a URL, as flink.rest_url is set"),
        (
            [on, flink, ksqldb].concat(),
            "manager.default_engine = \"\" (default) is not allowed, expected one of flink, ksqldb, as all of them are configured",
        ),
        (
            [on, &[("manager.default_engine", "flink")], ksqldb].concat(),
            "manager.default_engine = \"flink\" (command line) is not allowed, expected an engine that is configured (ksqldb): \
             else set flink.gateway_url and flink.rest_url",
        ),
        (
            vec![("manager.default_engine", "spark")],
            "manager.default_engine = \"spark\" (command line) is not allowed, expected nothing, flink, ksqldb or embedded",
        ),
        (
            [on, &[("flink.format", "avro-confluent")], flink].concat(),
            "flink.format = \"avro-confluent\" (command line) is not allowed, expected json where neither \
             flink.schema_registry_url nor schema_registry.url is set",
        ),
    ] {
        assert_eq!(refused("", &[], &settings), message);
    }
    for url in ["ftp://g", "g:8083", "http://u:canary@g:8083", "http://g?x=1", "http://g g"] {
        let message = refused("", &[], &[("flink.gateway_url", url)]);
        assert!(message.contains("flink.gateway_url") && !message.contains("canary"), "{message}");
    }
    for words in ["CREATE  CONNECTOR", "DROP;", " PRINT"] {
        assert!(load(&format!("[manager.limits]\nblocked_words = ['{words}']"), &[], &[]).is_err(), "{words}");
    }
    for settings in [
        [on, flink].concat(),
        [on, ksqldb].concat(),
        [on, &[("manager.default_engine", "ksqldb")], flink, ksqldb].concat(),
        [on, &[("flink.format", "avro-confluent"), ("flink.schema_registry_url", "http://r")], flink].concat(),
    ] {
        load("", &[], &settings).unwrap();
    }
    assert_eq!(load("", &[], &[("manager.enabled", "true")]).is_ok(), EmbeddedSettings::IS_BUILT_IN);
    let one: Pairs = &[("database.read_pool_size", "1")];
    load("", &[], &[on, ksqldb, one].concat()).unwrap();
    if EmbeddedSettings::IS_BUILT_IN {
        let message = refused("", &[], &[&[("manager.enabled", "true")], one].concat());
        let told =
            "database.read_pool_size = 1 (command line) is not allowed, expected 2 or more beside the embedded engine";
        assert!(message.starts_with(told), "{message}");
        load("", &[], &[("manager.enabled", "true"), ("database.read_pool_size", "2")]).unwrap();
    }
}

#[test]
fn what_is_shown_loads_again() {
    let shown = Config::defaults().to_toml_redacted();
    assert_eq!(load(&shown, &[], &[]).unwrap().to_toml_redacted(), shown);
}

#[test]
fn tokens_are_set_up_whole_or_not_at_all() {
    let whole = [("auth.jwt.issuer", "https://id.example"), ("auth.jwt.audience", "shop, streamview")];
    let with = |more: Pairs| load("", &[], &[&whole, more].concat());
    let config = with(&[("auth.jwt.role_map", "CN=ops,OU=shop=operator")]);
    assert!(config.is_err(), "a comma ends a pair: such names go into a file");
    let config = with(&[("auth.jwt.role_map", "shop-ops=operator")]).unwrap();
    assert_eq!(config.auth.jwt.audience, ["shop", "streamview"]);
    assert!(config.auth.is_on() && !Config::defaults().auth.is_on());
    let table = "[auth.jwt.role_map]\n\"CN=ops,OU=shop\" = \"operator\"\n";
    assert_eq!(load(table, &[], &whole).unwrap().auth.jwt.role_map, ["CN=ops,OU=shop=operator"]);
    for (key, value, named) in [
        ("auth.jwt.algorithms", "HS256", "auth.jwt.algorithms"),
        ("auth.jwt.algorithms", "none", "auth.jwt.algorithms"),
        ("auth.jwt.algorithms", "", "auth.jwt.algorithms"),
        ("auth.jwt.audience", "", "auth.jwt.audience"),
        ("auth.jwt.role_map", "shop-ops=root", "auth.jwt.role_map"),
        ("auth.jwt.issuer", "", "auth.jwt.audience"),
        ("auth.jwt.issuer", "shop", "auth.jwt.issuer"),
        ("auth.jwt.jwks_url", "file:///keys", "auth.jwt.jwks_url"),
        ("auth.jwt.leeway_seconds", "601", "auth.jwt.leeway_seconds"),
        ("auth.oidc.client_secret", "s", "auth.oidc.client_secret"),
        ("auth.oidc.scope", "profile", "auth.oidc.scope"),
        ("auth.anonymous_role", "admin", "auth.anonymous_role"),
    ] {
        let message = with(&[(key, value)]).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{named} = ")), "{key} = {value}: {message}");
    }
    let both = with(&[("auth.jwt.jwks_url", "https://id.example/keys"), ("auth.jwt.jwks_file", "/keys")]);
    assert!(both.unwrap_err().to_string().starts_with("auth.jwt.jwks_file = "));
}

#[test]
fn client_certificates_are_access_control_and_need_authorities_and_roles() {
    let (cert, key) = (("http.tls.cert_file", "/cert.pem"), ("http.tls.key_file", "/key.pem"));
    let (clients, roles) =
        (("http.tls.client_ca_file", "/ca.pem"), ("auth.mtls.role_map", "CN=a,O=b=reader;CN=c=admin"));
    let (bind, with) = (("http.bind", "0.0.0.0:80"), |pairs: Pairs| load("", &[], pairs));
    assert!(with(&[cert, key, bind]).unwrap().check_exposure().is_err(), "TLS alone is none");
    let config = with(&[cert, key, clients, roles, bind]).unwrap();
    config.check_exposure().unwrap();
    assert_eq!(config.auth.mtls.role_map, ["CN=a,O=b=reader", "CN=c=admin"]);
    let table = load("[auth.mtls.role_map]\n\"CN=a,O=b\" = 'reader'", &[], &[cert, key, clients]).unwrap();
    assert_eq!(table.auth.mtls.role_map, ["CN=a,O=b=reader"]);
    for (pairs, named) in [
        (&[cert][..], "http.tls.key_file"),
        (&[key], "http.tls.cert_file"),
        (&[clients, roles], "http.tls.client_ca_file"),
        (&[roles], "auth.mtls.role_map"),
        (&[cert, key, roles], "auth.mtls.role_map"),
        (&[cert, key, clients], "auth.mtls.role_map"),
    ] {
        let message = with(pairs).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{named} = ")), "{message}");
    }
}

#[test]
fn where_callers_log_in_any_address_is_bound_and_what_is_open_is_warned_of() {
    let set = |pairs: Pairs| load("", &[], pairs).unwrap();
    let (bind, keys) = (("http.bind", "0.0.0.0:80"), ("auth.api_keys", "true"));
    set(&[bind, keys]).check_exposure().unwrap();
    assert!(set(&[bind, keys]).warnings().is_empty());
    let (anonymous, operations) = (("http.allow_anonymous", "true"), ("http.allow_anonymous_operations", "true"));
    assert_eq!(set(&[bind, anonymous]).warnings().len(), 1);
    assert_eq!(set(&[bind, anonymous, operations]).warnings().len(), 2);
    assert_eq!(set(&[bind, anonymous, keys]).warnings().len(), 1);
    assert!(set(&[anonymous, operations]).warnings().is_empty(), "on loopback it says nothing new");
}

#[test]
fn only_loopback_is_bound_without_access_control() {
    let bound = |bind: &str, anonymous: &str| {
        let overrides = owned(&[("http.bind", bind), ("http.allow_anonymous", anonymous)]);
        Config::load(None, [], &overrides).unwrap().check_exposure()
    };
    for loopback in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        bound(loopback, "false").unwrap();
    }
    for open in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80"] {
        bound(open, "true").unwrap();
        let message = bound(open, "false").unwrap_err().to_string();
        assert!(message.contains(open) && message.contains("127.0.0.1:80"), "{message}");
        assert!(message.contains("http.allow_anonymous = true"), "{message}");
    }
}

#[test]
fn every_default_has_one_comment_line_that_states_its_range() {
    let lines: Vec<&str> = include_str!("../../config/default.toml").lines().collect();
    let mut section = "";
    for (at, line) in lines.iter().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            continue;
        };
        let comment = lines[at - 1];
        assert!(comment.starts_with("# ") && comment.ends_with('.'), "no comment above {section}.{name}");
        assert!(!lines[at - 2].starts_with('#'), "more than one comment line above {section}.{name}");
        if let Some(Rule::Integer(least, most)) = rule_of(&format!("{section}.{name}")) {
            let range = format!("{least} to {most}");
            assert!(comment.contains(&range), "the comment of {section}.{name} does not say {range}");
        }
    }
}

#[test]
fn every_default_keeps_its_rule() {
    for (key, value) in default_leaves() {
        assert!(rule_of(&key).is_some_and(|rule| rule.accepts(&value)), "{key} = {value}");
    }
}

#[test]
fn a_view_has_the_rules_of_the_process_but_for_its_own() {
    let environment = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let process = [("STREAMVIEW_PROJECTOR__HISTORY", "compact"), ("STREAMVIEW_TAX__DEFAULT_RATE", "0.07")];
    let config = Config::load(None, environment(&process), &[]).unwrap();
    let rules = config.rules_of(&config.views["orders"]);
    assert_eq!((rules.history, rules.default_tax_rate.as_str()), (History::Compact, "0.07"));
    assert_eq!(rules.first_sequence, Sequence(1));
    assert_eq!(config.gap_policy_of(&config.views["orders"]), GapPolicy::Hold);

    let own = [
        ("STREAMVIEW_VIEWS__ORDERS__HISTORY", "off"),
        ("STREAMVIEW_VIEWS__ORDERS__GAP_POLICY", "skip"),
        ("STREAMVIEW_VIEWS__ORDERS__FIRST_SEQUENCE", "0"),
        ("STREAMVIEW_VIEWS__ORDERS__TAX__DEFAULT_RATE", "0.19"),
    ];
    let config = Config::load(None, environment(&[&process[..], &own[..]].concat()), &[]).unwrap();
    let rules = config.rules_of(&config.views["orders"]);
    let expected =
        ViewRules { history: History::Off, first_sequence: Sequence(0), default_tax_rate: "0.19".to_owned() };
    assert_eq!(rules, expected);
    assert_eq!(config.gap_policy_of(&config.views["orders"]), GapPolicy::Skip);
    for (key, value) in
        [("views.orders.history", "all"), ("views.orders.first_sequence", "2"), ("views.orders.tax.rate", "0")]
    {
        assert!(Config::load(None, [], &[(key.to_owned(), value.to_owned())]).is_err(), "{key} = {value}");
    }
}

#[test]
fn what_a_view_may_leave_out_is_shown_with_its_comment() {
    let defaults = include_str!("../../config/default.toml");
    let (_, orders) = defaults.split_once("[views.orders]").unwrap();
    for rule in ["history", "gap_policy", "first_sequence", "tax.default_rate"] {
        let lines: Vec<&str> = orders.lines().collect();
        let place = lines.iter().position(|line| line.starts_with(&format!("# {rule} = "))).unwrap();
        assert!(lines[place - 1].starts_with("# ") && lines[place - 1].ends_with('.'), "{rule}");
    }
}
