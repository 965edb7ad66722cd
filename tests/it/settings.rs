//! What a command says of settings that it cannot use, and what it makes of an environment that is not only its own.

use std::io::Write as _;
use std::process::Command;

use crate::support::instance::Instance;
use crate::support::world::World;

/// Runs a command that needs no server; its exit code, and all that it printed.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    let output = command.args(arguments).envs(environment.iter().copied()).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_kubernetes_that_are_called_like_us_stop_no_command() {
    let links = [
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
    ];
    assert_eq!(run(&["config", "check"], &links), (0, "settings are usable\n".to_owned()));
    let world = World::new(1).await;
    let instance = world.start_with(&links).await;
    let log = instance.log_text();
    for (name, _) in links {
        let line = format!("set by Kubernetes for a Service, not a setting variable=\"{name}\"");
        assert!(log.contains(&line), "{log}");
    }
    // What only resembles them is refused as ever.
    for (name, value) in [("STREAMVIEW_PORT", "8080"), ("STREAMVIEW_KAFKA_PORT_9092", "tcp://10.0.0.3:9092")] {
        let (code, printed) = run(&["config", "check"], &[(name, value)]);
        assert!(code == 2 && printed.contains(&format!("unknown environment variable {name}")), "{code} {printed}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    const MISSING: &str = "No such file or directory";
    const CHECK: &[&str] = &["config", "check"];
    const REGISTRY: (&str, &str) = ("STREAMVIEW_SCHEMA_REGISTRY__URL", "https://127.0.0.1:1");
    const REPLACE: &[&str] = &["dlq", "replace", "1", "--payload", "/nope.json", "--reason", "x"];
    let ca_file = [REGISTRY, ("STREAMVIEW_SCHEMA_REGISTRY__CA_FILE", "/nope.pem")];
    for (arguments, environment, words) in [
        (&["--config", "/nope.toml", "config", "check"][..], &[][..], "cannot read /nope.toml"),
        (CHECK, &[("STREAMVIEW_CONFIG", "/nope.toml")], "cannot read /nope.toml"),
        (CHECK, &[("STREAMVIEW_DATABASE__URL_FILE", "/nope")], "cannot read /nope"),
        (CHECK, &[("STREAMVIEW_SCHEMA_REGISTRY__PASSWORD_FILE", "/nope")], "cannot read /nope"),
        (CHECK, &[("STREAMVIEW_SCHEMA_REGISTRY__BEARER_TOKEN_FILE", "/nope")], "cannot read /nope"),
        (CHECK, &ca_file, "cannot read schema_registry.ca_file = /nope.pem"),
        (&["serve"], &ca_file, "cannot read schema_registry.ca_file = /nope.pem"),
        (&["schemas", "check"], &ca_file, "cannot read schema_registry.ca_file = /nope.pem"),
        (REPLACE, &[], "cannot read /nope.json"),
    ] {
        let (code, printed) = run(arguments, environment);
        let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(code != 0 && lines.len() == 1 && lines[0].contains(words), "{arguments:?}: {code} {printed}");
        assert_eq!(lines[0].matches(MISSING).count(), 1, "{arguments:?} {environment:?}: {printed}");
    }
}

/// What the driver would refuse is refused where settings are checked, in words.
#[test]
fn an_address_of_postgres_that_the_driver_cannot_use_is_refused_by_name() {
    for (url, words) in [
        ("postgres://u:hunter2@h/db?sslmode=verify_full", "require, verify-ca or verify-full"),
        ("host=h password=hunter2 sslmode=allow", "require, verify-ca or verify-full"),
        ("postgres://u:hunter2@h/db?sslrootcert=/ca.pem", "database.tls.ca_file instead of sslrootcert"),
        ("postgres://u:hunter2@h:port/db", "database.url is not usable"),
        ("host=h connect_timeout=soon", "connect_timeout"),
    ] {
        for command in [&["config", "check"][..], &["serve"]] {
            let (code, printed) = run(command, &[("STREAMVIEW_DATABASE__URL", url)]);
            assert!(
                code == 2 && printed.contains(words) && printed.contains("database.url"),
                "{url}: {code} {printed}"
            );
            assert!(!printed.contains("hunter2"), "{printed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_that_are_none_are_refused_at_the_start() {
    let world = World::new(1).await;
    for text in ["", "no certificate\n", "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"] {
        let authorities = file(text);
        let path = authorities.path().to_str().unwrap();
        let settings =
            [("STREAMVIEW_SCHEMA_REGISTRY__URL", "https://127.0.0.1:1"), ("STREAMVIEW_SCHEMA_REGISTRY__CA_FILE", path)];
        let (code, printed) = run(&["config", "check"], &settings);
        assert!(
            code == 2 && printed.contains(&format!("schema_registry.ca_file = {path}")),
            "{text}: {code} {printed}"
        );
        let mut environment = world.environment();
        environment.extend(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let instance = Instance::launch(&["serve"], environment);
        let status = instance.until_ended().await;
        let log = instance.log_text();
        assert!(
            !status.success() && log.contains(&format!("schema_registry.ca_file = {path}")),
            "{text}: {status} {log}"
        );
    }
}
