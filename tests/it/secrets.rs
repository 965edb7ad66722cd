//! Secrets stay secret: canaries in every setting that holds one and in every credential that a caller shows, looked for in
//! all that the service says and stores while everything goes wrong.

use std::fmt::Write as _;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rdkafka::message::{Headers, Message};
use serde_json::{Value, json};
use streamview::config::Config;
use streamview_lab::ksqldb_stand_in::KsqldbStandIn;

use crate::access::make_key;
use crate::support::instance::Instance;
use crate::support::ksqldb;
use crate::support::orders::{created, item_added};
use crate::support::provider::{ISSUER, Provider};
use crate::support::registry::{Fault, Proxy};
use crate::support::servers::{execute, own_postgres, shared};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// What stands in a secret, so that it is found in whatever it became.
const URL_PASSWORD: &str = "c4naryUrl";
const WRONG_PASSWORD: &str = "c4naryWrong";
const REGISTRY_URL: &str = "c4naryRegistryUrl";
const REGISTRY_PASSWORD: &str = "c4naryRegistryPassword";
const REGISTRY_TOKEN: &str = "c4naryRegistryToken";
const READ_PASSWORD: &str = "c4naryReads";
const KAFKA_PASSWORD: &str = "c4naryKafkaPassword";
const KEY_PASSWORD: &str = "c4naryKeyPassword";
const WRONG_KEY: &str = "c4naryKeyc4naryKeyc4naryKeyc4naryKeyc4naryK";
const KSQLDB_PASSWORD: &str = "c4naryKsqldb";
const BASIC: &str = "c4naryBasic";

/// The text as it is, percent-encoded, in hex, and in base64 with whatever stands before it.
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let hex = |separator: &str| bytes.iter().fold(String::new(), |text, byte| format!("{text}{separator}{byte:02x}"));
    let mut forms =
        vec![secret.to_owned(), hex(""), hex("").to_uppercase(), hex("%"), hex("%").to_uppercase(), hex("\\x")];
    let list: Vec<String> = bytes.iter().map(u8::to_string).collect();
    forms.push(list.join(", "));
    for before in 0..3 {
        let shifted = [&vec![0; before][..], bytes].concat();
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            // The characters that depend on the secret alone.
            let (begin, end) = ([0, 2, 3][before], encoded.len() - usize::from(!shifted.len().is_multiple_of(3)));
            forms.push(encoded[begin..end].to_owned());
        }
    }
    forms
}

/// None of the secrets stands in any of the places, in any form.
fn assert_hidden(secrets: &[&str], places: &[(&str, String)]) {
    let mut found = String::new();
    for (place, text) in places {
        assert!(!text.is_empty(), "{place} is empty: nothing was looked for");
        for (secret, form) in
            secrets.iter().flat_map(|secret| forms(secret).into_iter().map(move |form| (secret, form)))
        {
            if let Some(at) = text.find(&form) {
                let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
                let line: String = text[line..].lines().next().unwrap_or_default().chars().take(400).collect();
                writeln!(found, "{place} has {secret} as {form}: {line}").unwrap();
            }
        }
    }
    assert!(found.is_empty(), "{found}");
}

/// What a command prints, whatever comes of it.
fn printed(arguments: &[&str], environment: Vec<(String, String)>) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    let output = command.args(arguments).envs(environment).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Every row of every table, as text.
async fn all_rows(world: &World) -> String {
    let tables = "select format('%I.%I', schemaname, tablename) from pg_tables \
                  where schemaname not in ('pg_catalog', 'information_schema')";
    let mut text = String::new();
    for table in world.sql.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        for row in world.sql.query(&format!("select t::text from {table} t"), &[]).await.unwrap() {
            writeln!(text, "{table}: {}", row.get::<_, String>(0)).unwrap();
        }
    }
    text
}

fn letters(world: &World) -> String {
    let mut text = String::new();
    for letter in world.dead_letters_on_topic() {
        let headers = letter.headers().unwrap();
        let headers: Vec<String> = headers
            .iter()
            .map(|header| format!("{}={}", header.key, String::from_utf8_lossy(header.value.unwrap_or_default())))
            .collect();
        let payload = String::from_utf8_lossy(letter.payload().unwrap_or_default()).into_owned();
        writeln!(text, "{headers:?} {payload}").unwrap();
    }
    text
}

#[test]
fn every_form_of_a_secret_is_found() {
    for text in [
        "x c4naryUrl y",
        "%63%34%6e%61%72%79%55%72%6c",
        "cmVnaXN0cnk6YzRuYXJ5VXJs",
        "eHh4YzRuYXJ5VXJseQ",
        "eGM0bmFyeVVybHk=",
    ] {
        let found = std::panic::catch_unwind(|| assert_hidden(&[URL_PASSWORD], &[("a place", text.to_owned())]));
        assert!(found.is_err(), "{text}");
    }
    assert_hidden(&[URL_PASSWORD], &[("a place", "c4nary".to_owned())]);
}

#[test]
fn settings_show_no_secret_and_neither_do_their_errors() {
    let canaries = [
        URL_PASSWORD,
        READ_PASSWORD,
        KAFKA_PASSWORD,
        KEY_PASSWORD,
        REGISTRY_URL,
        REGISTRY_PASSWORD,
        REGISTRY_TOKEN,
        KSQLDB_PASSWORD,
        WRONG_PASSWORD,
    ];
    let (database, reads, registry) = (
        format!("postgres://me:{URL_PASSWORD}@127.0.0.1:1/db"),
        format!("postgres://you:{READ_PASSWORD}@127.0.0.1:1/db"),
        format!("http://me:{REGISTRY_URL}@127.0.0.1:1,http://you:{REGISTRY_URL}@127.0.0.1:2"),
    );
    let fine = [
        ("STREAMVIEW_DATABASE__URL", database.as_str()),
        ("STREAMVIEW_DATABASE__READ_URL", reads.as_str()),
        ("STREAMVIEW_KAFKA__SECURITY_PROTOCOL", "sasl_ssl"),
        ("STREAMVIEW_KAFKA__SASL_MECHANISM", "PLAIN"),
        ("STREAMVIEW_KAFKA__USERNAME", "me"),
        ("STREAMVIEW_KAFKA__PASSWORD", KAFKA_PASSWORD),
        ("STREAMVIEW_SCHEMA_REGISTRY__URL", registry.as_str()),
        ("STREAMVIEW_SCHEMA_REGISTRY__USERNAME", "me"),
        ("STREAMVIEW_SCHEMA_REGISTRY__PASSWORD", REGISTRY_PASSWORD),
        ("STREAMVIEW_KSQLDB__URL", "http://127.0.0.1:1"),
        ("STREAMVIEW_KSQLDB__USERNAME", "me"),
        ("STREAMVIEW_KSQLDB__PASSWORD", KSQLDB_PASSWORD),
    ];
    let config = Config::load(None, owned(&fine), &[]).unwrap();
    let mut places = vec![
        ("config show", printed(&["config", "show"], owned(&fine))),
        ("config check", printed(&["config", "check"], owned(&fine))),
        ("Debug", format!("{config:?} {config:#?}")),
    ];
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    for (name, value) in [
        ("STREAMVIEW_SCHEMA_REGISTRY__BEARER_TOKEN", REGISTRY_TOKEN.to_owned()),
        ("STREAMVIEW_DATABASE__URL", format!("mysql://me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_DATABASE__URL", format!("postgres://me:{WRONG_PASSWORD}@h:port/db")),
        ("STREAMVIEW_DATABASE__URL", format!("host=h password='{WRONG_PASSWORD}' sslmode=allow")),
        ("STREAMVIEW_DATABASE__URL", format!("host=h password={WRONG_PASSWORD} nonsense=1")),
        ("STREAMVIEW_DATABASE__URL", format!("me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_DATABASE__READ_URL", format!("mysql://me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_KAFKA__TLS__KEY_PASSWORD", KEY_PASSWORD.to_owned()),
        ("STREAMVIEW_KAFKA__SECURITY_PROTOCOL", "plaintext".to_owned()),
        ("STREAMVIEW_SCHEMA_REGISTRY__URL", format!("ftp://me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_SCHEMA_REGISTRY__URL", format!("http://me:{WRONG_PASSWORD}@h?x")),
        ("STREAMVIEW_KSQLDB__URL", format!("http://me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_KSQLDB__URL", format!("ftp://me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_HTTP__PUBLIC_URL", format!("https://me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_AUTH__JWT__JWKS_URL", format!("https://me:{WRONG_PASSWORD}@h/keys")),
        ("STREAMVIEW_AUTH__JWT__ISSUER", format!("https://me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS", format!("kafka://me:{WRONG_PASSWORD}@h")),
        ("STREAMVIEW_CONFIG", file.path().to_string_lossy().into_owned()),
    ] {
        std::fs::write(file.path(), format!("[database]\nurl = 'postgres://me:{WRONG_PASSWORD}@h' x\n")).unwrap();
        let refused = printed(&["config", "check"], [owned(&fine), vec![(name.to_owned(), value)]].concat());
        assert!(refused.starts_with("error: "), "{name}: {refused}");
        places.push((name, refused));
    }
    let section = format!("database=postgres://me:{WRONG_PASSWORD}@h");
    places.push(("--set", printed(&["--set", &section, "config", "check"], owned(&fine))));
    assert_hidden(&canaries, &places);
}

/// The settings of a service that lets callers log in and says all that it has to say.
fn loud(jwks_file: &str) -> Vec<(&str, &str)> {
    vec![
        ("STREAMVIEW_LOG__LEVEL", "trace"),
        ("RUST_BACKTRACE", "full"),
        ("STREAMVIEW_AUTH__API_KEYS", "true"),
        ("STREAMVIEW_AUTH__JWT__ISSUER", ISSUER),
        ("STREAMVIEW_AUTH__JWT__AUDIENCE", "streamview"),
        ("STREAMVIEW_AUTH__JWT__JWKS_FILE", jwks_file),
    ]
}

/// Calls as somebody who shows this header; gives the whole answer, as text.
async fn call(
    instance: &Instance,
    (method, path): (&str, &str),
    (header, value): (&str, &str),
    body: &Value,
) -> String {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let request = instance.http.request(method.clone(), instance.url(path)).header(header, value);
    let request = if method == reqwest::Method::POST { request.json(body) } else { request };
    let response = request.send().await.unwrap();
    let head = format!("{} {:?}", response.status(), response.headers());
    format!("{head} {}", response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_which_everything_goes_wrong_tells_no_secret() {
    let postgres = own_postgres();
    let maintenance = postgres.url("postgres");
    execute(&maintenance, &format!("create role canary superuser login password '{URL_PASSWORD}'")).await;
    ask_for_passwords(&maintenance).await;
    let with = |password: &str, url: &str| url.replace("://postgres@", &format!("://canary:{password}@"));
    let mut world = World::on(&shared().kafka, &maintenance, 2, &[]).await;
    world.database = with(URL_PASSWORD, &world.database);
    let (_, admin) = make_key(&world, "admin", &[]).await;
    let (_, reader) = make_key(&world, "reader", &[]).await;
    let provider = Provider::new("one");
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), provider.keys().to_string()).unwrap();
    let loud = loud(keys.path().to_str().unwrap());
    let (token, wrong_token) = (provider.token("operator"), Provider::new("one").token("admin"));
    let secrets = [URL_PASSWORD, WRONG_PASSWORD, REGISTRY_URL, REGISTRY_PASSWORD, REGISTRY_TOKEN, BASIC];
    // Of keys the beginning is shown, of tokens what they say: that is not what lets anybody in.
    let shown = [&WRONG_KEY[12..], &admin[12..], &reader[12..], end_of(&token), end_of(&wrong_token)];
    let secrets = [&secrets[..], &shown].concat();

    // Postgres lets nobody in.
    let wrong = with(WRONG_PASSWORD, &with_user(&world.database));
    let refused = world.launch(&[&loud[..], &[("STREAMVIEW_DATABASE__URL", wrong.as_str())]].concat());
    assert!(!refused.until_ended().await.success());
    assert!(refused.log_text().contains("password authentication failed"), "{}", refused.log_text());
    assert_hidden(&secrets, &[("the log without Postgres", refused.log_text())]);

    // The registry lets nobody in, by name and password or by token.
    let registry = Proxy::start("http://127.0.0.1:1").await;
    registry.inject(Fault::Answer(401, "application/json", r#"{"error_code": 401, "message": "who are you"}"#));
    let address = registry.url.replace("://", &format!("://me:{REGISTRY_URL}@"));
    let by_name = [
        ("STREAMVIEW_SCHEMA_REGISTRY__URL", address.as_str()),
        ("STREAMVIEW_SCHEMA_REGISTRY__USERNAME", "me"),
        ("STREAMVIEW_SCHEMA_REGISTRY__PASSWORD", REGISTRY_PASSWORD),
    ];
    let by_token = [
        ("STREAMVIEW_SCHEMA_REGISTRY__URL", registry.url.as_str()),
        ("STREAMVIEW_SCHEMA_REGISTRY__BEARER_TOKEN", REGISTRY_TOKEN),
    ];
    let broken = TestRecord { payload: Some(b"{ broken".to_vec()), ..item_added("o-2", 1).record() };
    world.publish([created("o-1").record(), item_added("o-1", 3).record(), broken]).await;
    for (number, settings) in [&by_name[..], &by_token].into_iter().enumerate() {
        let instance = world.start_with(&[&loud[..], settings].concat()).await;
        world.until_consumed(3).await;
        let framed = TestRecord { payload: Some(vec![0, 0, 0, 0, 7, 2]), ..created(&format!("o-{number}")).record() };
        world.publish([framed]).await;
        let asked = registry.requests();
        until("the registry is asked", PATIENCE, || async { (registry.requests() > asked).then_some(()) }).await;
        let places = all_that_is_said(&instance, &world, [&admin, &reader, &token, &wrong_token]).await;
        instance.stop().await;
        assert_hidden(&secrets, &[places, vec![("the log", instance.log_text())]].concat());
    }

    // A part dies, and Kafka is not there.
    let further = [("STREAMVIEW_PANIC_AT", "part.keeper:1"), ("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")];
    for setting in further {
        let instance = world.launch(&[&loud[..], &by_name, &[setting]].concat());
        let words = if setting.0.ends_with("PANIC_AT") { "panicked" } else { "waiting_for_kafka" };
        until(words, PATIENCE, || async { instance.log_text().contains(words).then_some(()) }).await;
        instance.signal("TERM");
        instance.until_ended().await;
        assert_hidden(&secrets, &[(words, instance.log_text())]);
    }
}

/// ksqlDB lets the service in, and does not, and is not there: whatever is asked of it, nobody hears the password.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_ksqldb_is_told_to_ksqldb_only() {
    let world = World::new(1).await;
    let login = |password: &str| Some(("me".to_owned(), password.to_owned()));
    let (right, wrong) =
        (ksqldb::start_with(&world.kafka, login(KSQLDB_PASSWORD)), ksqldb::start_with(&world.kafka, login("another")));
    let source = json!({ "topic": world.topic, "format": "json", "columns": [{ "name": "A", "type": "string" }] });
    for (url, answer) in [
        (right.url(), "\"checkedBy\":\"engine\""),
        (wrong.url(), "check ksqldb.username and ksqldb.password"),
        ("http://127.0.0.1:1".to_owned(), "does not answer"),
    ] {
        let settings = [
            ("STREAMVIEW_LOG__LEVEL", "trace"),
            ("RUST_BACKTRACE", "full"),
            ("STREAMVIEW_MANAGER__ENABLED", "true"),
            ("STREAMVIEW_KSQLDB__URL", url.as_str()),
            ("STREAMVIEW_KSQLDB__USERNAME", "me"),
            ("STREAMVIEW_KSQLDB__PASSWORD", KSQLDB_PASSWORD),
        ];
        let instance = world.start_with(&settings).await;
        let http = &instance.http;
        http.put(instance.url("/api/catalog/canary")).json(&source).send().await.unwrap();
        let mut told = String::new();
        for path in ["/api/engines", "/api/catalog", "/readyz", "/metrics"] {
            told += &http.get(instance.url(path)).send().await.unwrap().text().await.unwrap();
        }
        let text = "SELECT A FROM canary";
        for (path, body) in [
            ("/api/test/query", json!({ "query": text, "seconds": 2 })),
            ("/api/validate", json!({ "kind": "persistent", "sqlScript": text })),
        ] {
            told += &http.post(instance.url(path)).json(&body).send().await.unwrap().text().await.unwrap();
        }
        instance.stop().await;
        assert!(told.contains(answer), "{url}: {told}");
        let places = [("answers", told), ("rows", all_rows(&world).await), ("the log", instance.log_text())];
        assert_hidden(&[KSQLDB_PASSWORD], &places);
    }
    let is_shown = |server: &KsqldbStandIn| server.asked().unwrap().iter().any(|asked| asked.authorized);
    assert!(is_shown(&right) && is_shown(&wrong), "it was told where it has to be");
}

/// What comes after the last point of a token: without it nobody is let in.
fn end_of(token: &str) -> &str {
    token.rsplit_once('.').unwrap().1
}

fn with_user(url: &str) -> String {
    url.replace(&format!("://canary:{URL_PASSWORD}@"), "://postgres@")
}

/// From now on the role has to show its password.
async fn ask_for_passwords(maintenance: &str) {
    let client = crate::support::world::connect(maintenance).await;
    let file: String = client.query_one("show hba_file", &[]).await.unwrap().get(0);
    let rules = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("host all canary all scram-sha-256\n{rules}")).unwrap();
    client.batch_execute("select pg_reload_conf()").await.unwrap();
    until("the rule is read", PATIENCE, || async {
        let rules = "select count(*) from pg_hba_file_rules where user_name = '{canary}'";
        let rules: i64 = client.query_one(rules, &[]).await.unwrap().get(0);
        (rules == 1).then_some(())
    })
    .await;
}

/// Calls with right and wrong credentials, and gathers every answer, every row and every letter.
async fn all_that_is_said(
    instance: &Instance,
    world: &World,
    [admin, reader, token, wrong_token]: [&str; 4],
) -> Vec<(&'static str, String)> {
    let bearer = |credential: &str| ("Authorization", format!("Bearer {credential}"));
    let basic = format!("Basic {}", STANDARD_NO_PAD.encode(format!("me:{BASIC}")));
    let wrong_key = format!("svk_{WRONG_KEY}");
    let credentials = [
        bearer(admin),
        ("X-Api-Key", reader.to_owned()),
        bearer(token),
        bearer(wrong_token),
        bearer(&wrong_key),
        ("X-Api-Key", wrong_key),
        ("Authorization", basic),
        ("Authorization", format!("Bearer {BASIC}")),
    ];
    let (calls, why) = (
        [
            ("GET", "/orders"),
            ("GET", "/orders/o-1"),
            ("GET", "/ops/held/o-1"),
            ("GET", "/ops/dead-letters"),
            ("GET", "/ops/consumer"),
            ("GET", "/ops/lags"),
            ("GET", "/readyz"),
            ("POST", "/ops/held/o-1/skip"),
            ("POST", "/ops/verify"),
        ],
        json!({ "reason": 1, "authorization": "none" }),
    );
    let mut answers = String::new();
    for (header, value) in &credentials {
        for asked in calls {
            let answer = call(instance, asked, (*header, value), &why).await;
            writeln!(answers, "{asked:?}: {answer}").unwrap();
        }
    }
    let by_admin = bearer(admin);
    let by_admin = (by_admin.0, by_admin.1.as_str());
    until("the audit log has the refusals", PATIENCE, || async {
        let refused = "select count(*) from audit_log where code = 'invalid_credentials'";
        (world.number(refused).await > 0).then_some(())
    })
    .await;
    vec![
        ("answers", answers),
        ("metrics", call(instance, ("GET", "/metrics"), by_admin, &why).await),
        ("the document", call(instance, ("GET", "/openapi.json"), by_admin, &why).await),
        ("the audit log", call(instance, ("GET", "/ops/audit"), by_admin, &why).await),
        ("the list of keys", call(instance, ("GET", "/ops/api-keys"), by_admin, &why).await),
        ("the tables", all_rows(world).await),
        (
            "dead letters",
            until("a letter is published", PATIENCE, || async { Some(letters(world)).filter(|text| !text.is_empty()) })
                .await,
        ),
    ]
}
