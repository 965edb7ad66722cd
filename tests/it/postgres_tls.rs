//! TLS to a real Postgres, by `sslmode` and `database.tls.*`: who is trusted, who is not, and that each refusal names the setting.

use std::path::{Path, PathBuf};
use std::process::Output;

use streamview::config::{Config, DatabaseSettings, DatabaseTlsSettings, SecretUrl};
use streamview::store::pool;
use streamview::store::sqlstate::describe;
use streamview_lab::servers::Postgres;

use crate::support::authority::{Authority, Issued, Whom};
use crate::support::orders::{TestEvent, life};
use crate::support::servers::{own_postgres_with, shared};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// The harness comes in as ever, everybody else by TLS only: one by a certificate, the others by a password.
const HBA: &str = "host all postgres 127.0.0.1/32 trust\n\
    hostssl all by_certificate 127.0.0.1/32 cert\n\
    hostssl all all 127.0.0.1/32 scram-sha-256\n";
const ROLES: &str = "create role by_password login superuser password 'open sesame'; \
    create role by_certificate login superuser";

/// A Postgres that speaks TLS as `localhost`, files with who signed that, and a world on it.
struct Secured {
    postgres: Postgres,
    authority: Authority,
    world: World,
    folder: tempfile::TempDir,
}

impl Secured {
    async fn start() -> Secured {
        let authority = Authority::new("ours");
        let server = authority.issue(Whom::Server("localhost"));
        let files = [
            ("pg_hba.conf", HBA.to_owned()),
            ("root.crt", authority.pem()),
            ("server.crt", server.certificate),
            ("server.key", server.key),
        ];
        let files = files.map(|(name, contents)| (name.to_owned(), contents)).into();
        let postgres = own_postgres_with(&[("ssl", "on"), ("ssl_ca_file", "root.crt")], files);
        let world = World::on(&shared().kafka, &postgres.url("postgres"), 1, &[]).await;
        world.sql.batch_execute(ROLES).await.unwrap();
        let secured = Secured { postgres, authority, world, folder: tempfile::tempdir().unwrap() };
        secured.file("ca.pem", &secured.authority.pem());
        secured.file("foreign.pem", &Authority::new("somebody").pem());
        secured
    }

    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// As `by_password`, to a host by this name.
    fn url(&self, host: &str, options: &str) -> String {
        let name = self.world.database.rsplit_once('/').unwrap().1;
        format!("postgres://by_password:open%20sesame@{host}:{}/{name}?{options}", self.postgres.port())
    }

    /// Has the server show this from now on.
    async fn show(&self, signed: &Issued) {
        self.postgres.put_file("server.crt", &signed.certificate).unwrap();
        self.postgres.put_file("server.key", &signed.key).unwrap();
        self.world.sql.batch_execute("select pg_reload_conf()").await.unwrap();
    }
}

fn settings(url: &str, ca_file: &str) -> DatabaseSettings {
    let tls = DatabaseTlsSettings { ca_file: ca_file.to_owned(), ..DatabaseTlsSettings::default() };
    DatabaseSettings { url: SecretUrl::new(url), tls, ..Config::defaults().database }
}

/// Whether the session is encrypted, or why there is none.
async fn encrypted(settings: &DatabaseSettings) -> Result<bool, String> {
    let client = pool::connect_bare(settings).await.map_err(|error| describe(&error))?;
    let row = client.query_one("select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]).await;
    Ok(row.map_err(|error| describe(&error))?.get(0))
}

fn assert_refused(outcome: Result<bool, String>, words: &[&str]) {
    let why = outcome.expect_err("it must be refused");
    for word in words {
        assert!(why.contains(word), "{word:?} is missing from: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_trusts_as_it_says_and_a_refusal_names_the_setting() {
    let secured = Secured::start().await;
    let (ours, foreign) = (secured.path("ca.pem"), secured.path("foreign.pem"));
    let to = async |host: &str, options: &str, ca_file: &str| {
        encrypted(&settings(&secured.url(host, options), ca_file)).await
    };
    for (host, options, ca_file) in [
        ("localhost", "sslmode=verify-full", ours.as_str()),
        ("localhost", "sslmode=verify-full&channel_binding=require", &ours),
        ("localhost", "sslmode=verify-full&hostaddr=127.0.0.1", &ours),
        ("127.0.0.1", "sslmode=verify-ca", &ours),
        ("127.0.0.1", "sslmode=require", &ours),
        ("127.0.0.1", "sslmode=require", ""),
        ("127.0.0.1", "sslmode=prefer", ""),
    ] {
        assert_eq!(to(host, options, ca_file).await, Ok(true), "{host} {options} {ca_file}");
    }
    let unknown = ["UnknownIssuer", "database.tls.ca_file"];
    assert_refused(to("localhost", "sslmode=verify-full", &foreign).await, &unknown);
    assert_refused(to("localhost", "sslmode=verify-full", "").await, &unknown);
    assert_refused(to("localhost", "sslmode=verify-ca", &foreign).await, &unknown);
    assert_refused(to("localhost", "sslmode=require", &foreign).await, &unknown);
    let wrong_host = ["not valid for name \"127.0.0.1\"", "the host in database.url"];
    assert_refused(to("127.0.0.1", "sslmode=verify-full", &ours).await, &wrong_host);
    // Another name for the machine counts as another machine, whatever address it has.
    let elsewhere = format!("{}&hostaddr=127.0.0.1", secured.url("db.example", "sslmode=verify-full"));
    assert_refused(encrypted(&settings(&elsewhere, &ours)).await, &["not valid for name \"db.example\""]);
    let plain = ["no encryption (SQLSTATE 28000)", "set sslmode in database.url"];
    assert_refused(to("localhost", "sslmode=disable", "").await, &plain);
    assert_refused(to("localhost", "", "").await, &plain);

    secured.show(&secured.authority.issue(Whom::ExpiredServer("localhost"))).await;
    let expired = until("the server shows its old certificate", PATIENCE, || async {
        to("localhost", "sslmode=verify-full", &ours).await.err()
    })
    .await;
    assert_refused(Err(expired), &["expired", "the server needs a new certificate"]);
    assert_refused(to("127.0.0.1", "sslmode=verify-ca", &ours).await, &["expired", "sslmode in database.url"]);
    assert_eq!(to("127.0.0.1", "sslmode=require", "").await, Ok(true), "nobody looks at it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_comes_by_certificate_is_let_in_with_it_and_told_which_setting_it_lacks() {
    let secured = Secured::start().await;
    let url = secured.url("localhost", "sslmode=verify-full").replace("by_password:open%20sesame@", "by_certificate@");
    let certified = |signed: &Issued| DatabaseSettings {
        tls: DatabaseTlsSettings {
            ca_file: secured.path("ca.pem"),
            cert_file: secured.file("client.pem", &signed.certificate).to_string_lossy().into_owned(),
            key_file: secured.file("client.key", &signed.key).to_string_lossy().into_owned(),
        },
        ..settings(&url, "")
    };
    let right = certified(&secured.authority.issue(Whom::Client("by_certificate")));
    assert_eq!(encrypted(&right).await, Ok(true));

    let without = encrypted(&settings(&url, &secured.path("ca.pem"))).await;
    assert_refused(without, &["valid client certificate", "set database.tls.cert_file and key_file"]);
    let another = certified(&secured.authority.issue(Whom::Client("somebody")));
    assert_refused(encrypted(&another).await, &["certificate authentication failed", "database.tls.cert_file"]);
    let foreign = certified(&Authority::new("somebody").issue(Whom::Client("by_certificate")));
    assert_refused(encrypted(&foreign).await, &["UnknownCA", "database.tls.cert_file"]);
    // What is read for each connection may be gone by then.
    std::fs::remove_file(secured.folder.path().join("client.key")).unwrap();
    assert_refused(encrypted(&right).await, &["cannot read database.tls.key_file", "No such file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_by_what_asks_for_it_and_taken_by_what_prefers_it() {
    let world = World::new(1).await;
    let to = async |options: &str| encrypted(&settings(&format!("{}?{options}", world.database), "")).await;
    assert_eq!(to("sslmode=prefer").await, Ok(false));
    assert_eq!(to("sslmode=disable").await, Ok(false));
    assert_eq!(to("").await, Ok(false), "nothing leaves this machine");
    let without = ["server does not support TLS", "sslmode in database.url", "ssl = on"];
    for mode in ["require", "verify-ca", "verify-full"] {
        assert_refused(to(&format!("sslmode={mode}")).await, &without);
    }
    // The same server as another host: its name says so, not where it leads.
    let (user, rest) = world.database.split_once('@').unwrap();
    let (place, name) = rest.rsplit_once('/').unwrap();
    let (address, port) = place.rsplit_once(':').unwrap();
    assert_eq!(address, "127.0.0.1");
    for loopback in ["127.0.0.1", "0.0.0.0"] {
        let url = format!("{user}@{loopback}:{port}/{name}");
        let outcome = encrypted(&settings(&url, "")).await;
        match loopback {
            "127.0.0.1" => assert_eq!(outcome, Ok(false)),
            _ => assert_refused(outcome, &without),
        }
    }
}

/// Runs a command that ends by itself.
async fn run(world: &World, arguments: &[&str], settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_streamview")]).args(arguments).envs(world.environment());
    command.envs(settings.iter().copied()).env("STREAMVIEW_LOG__LEVEL", "info");
    command.env("STREAMVIEW_HTTP__BIND", format!("127.0.0.1:{}", streamview_lab::servers::free_port().unwrap()));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let Output { status, stdout, stderr } = output;
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_cannot_be_trusted_ends_every_command_with_the_setting() {
    let secured = Secured::start().await;
    let (ours, foreign) = (secured.path("ca.pem"), secured.path("foreign.pem"));
    let full = secured.url("localhost", "sslmode=verify-full");
    let wrong_host = secured.url("127.0.0.1", "sslmode=verify-full");
    let without = format!("{}?sslmode=require", shared().database);
    for (url, ca_file, words) in [
        (&full, foreign.as_str(), "database.tls.ca_file has to hold the authority"),
        (&wrong_host, &ours, "the host in database.url has to be a subjectAltName"),
        (&without, "", "sslmode in database.url"),
    ] {
        for command in [&["migrate"][..], &["serve"], &["held", "list"], &["apikey", "list"]] {
            let settings = [("STREAMVIEW_DATABASE__URL", url.as_str()), ("STREAMVIEW_DATABASE__TLS__CA_FILE", ca_file)];
            let (code, said) = run(&secured.world, command, &settings).await;
            assert!(code == Some(1) && said.contains(words), "{command:?}: {code:?}: {said}");
            assert!(!said.contains("sesame"), "{said}");
        }
    }
    // What is wrong before anybody is asked.
    for (ca_file, url, words) in [
        ("/nope.pem", full.as_str(), "cannot read database.tls.ca_file = /nope.pem"),
        (ours.as_str(), &secured.world.database, "does nothing"),
    ] {
        let settings = [("STREAMVIEW_DATABASE__URL", url), ("STREAMVIEW_DATABASE__TLS__CA_FILE", ca_file)];
        for command in [&["config", "check"][..], &["serve"]] {
            let (code, said) = run(&secured.world, command, &settings).await;
            assert!(code == Some(2) && said.contains(words), "{command:?}: {code:?}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_instance_serves_over_verify_full_and_says_when_trust_is_lost() {
    let secured = Secured::start().await;
    let (world, url) = (&secured.world, secured.url("localhost", "sslmode=verify-full&channel_binding=require"));
    let ca_file = secured.path("ca.pem");
    let settings = [("STREAMVIEW_DATABASE__URL", url.as_str()), ("STREAMVIEW_DATABASE__TLS__CA_FILE", &ca_file)];
    let (code, said) = run(world, &["migrate"], &settings).await;
    assert_eq!(code, Some(0), "{said}");
    let instance = world.start_with(&settings).await;
    world.publish(life("o-1", 4).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    for path in ["/orders", "/orders/o-1/events", "/ops/held", "/ops/views"] {
        instance.json(path).await;
    }
    let wires = "select a.application_name, bool_and(s.ssl) from pg_stat_activity a join pg_stat_ssl s using (pid)
                 where a.usename = 'by_password' group by 1 order by 1";
    let wires: Vec<(String, bool)> =
        world.sql.query(wires, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(wires.iter().all(|(_, is_encrypted)| *is_encrypted), "{wires:?}");
    for name in ["streamview-projector", "streamview-read", "streamview-lookup", "streamview-seat"] {
        assert!(wires.iter().any(|(found, _)| found == name), "no {name} among {wires:?}");
    }

    // A certificate of somebody else, and connections that have to be made anew.
    secured.show(&Authority::new("somebody").issue(Whom::Server("localhost"))).await;
    let hang_up = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'by_password'";
    let ready = until("readiness says why", PATIENCE, || async {
        world.sql.batch_execute(hang_up).await.unwrap();
        let ready = instance.get("/readyz").await.text().await.ok()?;
        ready.contains("UnknownIssuer").then_some(ready)
    })
    .await;
    assert!(ready.contains("database.tls.ca_file"), "{ready}");
    let refused = instance.refusal("/orders", 503).await;
    assert_eq!(refused["code"], "database_unavailable");
    assert!(!refused.to_string().contains("Issuer"), "whom we trust is for operators: {refused}");

    // What is renewed counts without a restart, here: the authority.
    let renewed = Authority::new("renewed");
    std::fs::write(Path::new(&ca_file), format!("{}{}", secured.authority.pem(), renewed.pem())).unwrap();
    secured.show(&renewed.issue(Whom::Server("localhost"))).await;
    instance.until_ready().await;
    world.publish(life("o-2", 4).iter().map(TestEvent::record)).await;
    instance.order_at("o-2", 4).await;
}
