//! What `streamview doctor` is promised to say: of each fault its own line with the fix, and of everything else the truth.

use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use streamview_lab::servers::{KafkaServer, PgBouncer, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::authority::{Authority, Files};
use crate::support::orders::life;
use crate::support::registry;
use crate::support::servers::{self, execute, shared, with_database};
use crate::support::world::{World, connect};
use crate::support::{PATIENCE, until};

const DATABASE: &str = "STREAMVIEW_DATABASE__URL";
const REGISTRY: &str = "STREAMVIEW_SCHEMA_REGISTRY__URL";
const BIND: &str = "STREAMVIEW_HTTP__BIND";
const TOPIC: &str = "STREAMVIEW_VIEWS__ORDERS__TOPIC";
const DLQ_TOPIC: &str = "STREAMVIEW_VIEWS__ORDERS__DLQ_TOPIC";
const SERVERS: &str = "STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS";

/// What a doctor has said.
pub struct Told {
    code: i32,
    checks: Vec<Value>,
}

impl Told {
    /// The lines of that name.
    fn lines(&self, name: &str) -> Vec<&Value> {
        let lines: Vec<&Value> = self.checks.iter().filter(|check| check["name"] == name).collect();
        assert!(!lines.is_empty(), "{name} is missing: {:#?}", self.checks);
        lines
    }

    /// The status of the only line of that name.
    fn status(&self, name: &str) -> &str {
        let lines = self.lines(name);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        lines[0]["status"].as_str().unwrap()
    }

    /// The names of the lines of that status.
    fn names(&self, status: &str) -> Vec<&str> {
        let lines = self.checks.iter().filter(|check| check["status"] == status);
        lines.map(|check| check["name"].as_str().unwrap()).collect()
    }

    /// Asserts that exactly these have failed, the first with these words and this in its fix; gives that fix.
    #[track_caller]
    pub fn failed(&self, names: &[&str], words: &str, fix: &str) -> String {
        assert_eq!((self.names("failed"), self.code), (names.to_vec(), 1), "{:#?}", self.checks);
        let lines = self.lines(names[0]);
        let line = lines.iter().find(|line| line["status"] == "failed").unwrap();
        let (message, found) = (line["message"].as_str().unwrap(), line["fix"].as_str().unwrap());
        assert!(message.contains(words), "{words:?} is missing from: {message}");
        assert!(found.contains(fix), "{fix:?} is missing from: {found}");
        found.to_owned()
    }

    /// Asserts that these are as they should be, whatever else is wrong.
    #[track_caller]
    pub fn well(&self, names: &[&str]) {
        for name in names {
            let lines = self.lines(name);
            assert!(lines.iter().all(|line| line["status"] == "ok"), "{name}: {lines:#?}");
        }
    }
}

const OF_DATABASE: [&str; 8] = [
    "database.reachable",
    "database.tls",
    "database.login",
    "database.encoding",
    "database.sessions",
    "database.writable",
    "database.migrations",
    "database.grants",
];
const OF_KAFKA: [&str; 7] = [
    "kafka.reachable",
    "kafka.tls",
    "kafka.login",
    "kafka.topic",
    "kafka.dlq_topic",
    "kafka.rights",
    "kafka.compaction",
];

async fn output(world: &World, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    command.arg("doctor").args(arguments).envs(world.environment());
    command.env(BIND, format!("127.0.0.1:{}", free_port().unwrap()));
    command.envs(settings.iter().copied());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What the command says about that world, with these settings beside its own.
pub async fn doctor(world: &World, settings: &[(&str, &str)]) -> Told {
    let Output { status, stdout, stderr } = output(world, &["--json"], settings).await;
    let errors = String::from_utf8(stderr).unwrap();
    let report: Value = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert_eq!(report["ok"], status.success(), "{report:#}");
    let checks = report["checks"].as_array().unwrap().clone();
    let members = ["fix", "message", "name", "status", "subject"];
    for check in &checks {
        let mut found: Vec<&str> = check.as_object().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, members, "{check}");
        assert!(check["status"] != "failed" || check["fix"].is_string(), "{check}");
    }
    Told { code: status.code().unwrap(), checks }
}

/// Runs what a fix says in SQL.
async fn run_sql(database: &str, fix: &str) {
    let statements = fix.split_once(": ").unwrap().1;
    execute(database, statements).await;
}

/// Runs the last line of a fix, which is one of Kafka's own tools.
fn run_tool(kafka: &KafkaServer, fix: &str) {
    let mut words = fix.lines().last().unwrap().split_whitespace().map(|word| word.trim_matches('\''));
    let class = match words.next().unwrap() {
        "kafka-topics.sh" => "org.apache.kafka.tools.TopicCommand",
        "kafka-configs.sh" => "kafka.admin.ConfigCommand",
        "kafka-acls.sh" => "org.apache.kafka.tools.AclCommand",
        other => panic!("{other} in {fix}"),
    };
    let output = kafka.tool(class).args(words).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success() && !text.contains("Error"), "{fix}: {text}");
}

/// A world whose build has consumed eight records.
async fn consumed_world(world: World) -> World {
    let instance = world.start().await;
    world.publish(life("o-1", 4).into_iter().chain(life("o-2", 4)).map(|event| event.record())).await;
    world.until_consumed(8).await;
    instance.stop().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn where_everything_is_well_the_doctor_says_so_and_exits_0() {
    let world = consumed_world(World::new(2).await).await;
    let registry = registry::shared();
    let settings = registry.map(|url| (REGISTRY, url));
    let settings: Vec<(&str, &str)> = settings.into_iter().collect();
    let told = doctor(&world, &settings).await;
    assert_eq!((told.code, told.names("failed")), (0, Vec::<&str>::new()), "{:#?}", told.checks);
    told.well(&OF_DATABASE);
    told.well(&OF_KAFKA);
    told.well(&["settings", "database.rebuilds", "view.position", "view.history", "clock.database", "http.port"]);
    if registry.is_some() {
        told.well(&["registry.reachable", "registry.login", "clock.registry"]);
    }
    // The broker's own default, a week; and a clock that Kafka shows to nobody.
    assert_eq!((told.names("warning"), told.names("not_asked")), (vec!["kafka.retention"], vec!["clock.kafka"]));
    let history = told.lines("view.history")[0]["message"].as_str().unwrap();
    assert!(history.contains("build 1 of view orders") && history.contains("8 records"), "{history}");

    // The same for people: a line for each, without colours where it is no terminal.
    let Output { status, stdout, .. } = output(&world, &[], &settings).await;
    let text = String::from_utf8(stdout).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
    let marks: Vec<(char, &str)> = text
        .lines()
        .filter(|line| line.starts_with(['✓', '✗', '!', '?']))
        .map(|line| (line.chars().next().unwrap(), line.split_whitespace().nth(1).unwrap()))
        .collect();
    let mark = |check: &Value| match check["status"].as_str().unwrap() {
        "ok" => '✓',
        "warning" => '!',
        "not_asked" => '?',
        _ => '✗',
    };
    let same: Vec<(char, &str)> =
        told.checks.iter().map(|check| (mark(check), check["name"].as_str().unwrap())).collect();
    assert_eq!(marks, same);
    assert!(!text.contains('\u{1b}'), "{text}");

    // It may run beside the service, whose port is no fault then.
    let instance = world.start().await;
    let port = until("the database answers the service in time", PATIENCE, || async {
        let told = doctor(&world, &[(BIND, &instance.address)]).await;
        assert_eq!(told.code, 0, "{:#?}", told.checks);
        let port = told.lines("http.port")[0].clone();
        (!port["message"].as_str().unwrap().ends_with("database: did not answer within 1 s")).then_some(port)
    })
    .await;
    assert_eq!((&port["status"], &port["message"]), (&"ok".into(), &"taken by a streamview that is ready".into()));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_used_are_one_line_with_the_setting() {
    let world = World::new(1).await;
    for (setting, words, fix) in [
        (("STREAMVIEW_KAFKA__GROUP", "x"), "unknown environment variable STREAMVIEW_KAFKA__GROUP", "unset it"),
        (
            ("STREAMVIEW_PROJECTOR__LANES", "0"),
            "projector.lanes = 0",
            "set projector.lanes to a whole number from 1 to 64",
        ),
    ] {
        let told = doctor(&world, &[setting]).await;
        told.failed(&["settings"], words, fix);
        assert_eq!(told.checks.len(), 1);
    }
    // What `config check` finds, and the rest all the same.
    let told = doctor(&world, &[(BIND, "0.0.0.0:0")]).await;
    told.failed(&["settings"], "http.bind = 0.0.0.0:0", "auth.api_keys = true");
    told.well(&OF_DATABASE);
    let told = doctor(&world, &[(BIND, "0.0.0.0:0"), ("STREAMVIEW_HTTP__ALLOW_ANONYMOUS", "true")]).await;
    assert_eq!((told.code, told.names("warning")[0]), (0, "settings"), "{:#?}", told.checks);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_postgres_each_fault_is_its_line_with_the_fix_and_kafka_is_still_told() {
    let world = World::new(1).await;
    let (server, name) = world.database.rsplit_once('/').unwrap();
    let maintenance = format!("{server}/postgres");

    let closed = format!("postgres://postgres:hunter2@127.0.0.1:{}/x", free_port().unwrap());
    let told = doctor(&world, &[(DATABASE, &closed)]).await;
    told.failed(&["database.reachable"], "Connection refused", "database.url");
    told.well(&OF_KAFKA);
    assert!(OF_DATABASE[1..].iter().all(|name| told.status(name) == "not_asked"), "{:#?}", told.checks);
    assert!(!format!("{:?}", told.checks).contains("hunter2"), "{:#?}", told.checks);

    let told = doctor(&world, &[(DATABASE, &with_database(&world.database, "nobody_made_it"))]).await;
    told.failed(
        &["database.login"],
        "does not exist (SQLSTATE 3D000)",
        "create database nobody_made_it encoding 'UTF8'",
    );

    let bare = format!("{name}_bare");
    execute(&maintenance, &format!("create database {bare} template template0")).await;
    let told = doctor(&world, &[(DATABASE, &with_database(&world.database, &bare))]).await;
    told.failed(&["database.migrations"], "the database has no StreamView tables", "streamview migrate");
    told.well(&OF_DATABASE[..6]);
    told.well(&OF_KAFKA);

    let latin = format!("{name}_latin");
    execute(&maintenance, &format!("create database {latin} encoding 'LATIN1' locale 'C' template template0")).await;
    let told = doctor(&world, &[(DATABASE, &with_database(&world.database, &latin))]).await;
    told.failed(&["database.encoding", "database.migrations"], "has the encoding LATIN1", "encoding 'UTF8'");

    let later = "insert into refinery_schema_history (version, name) values (999, 'of a later version')";
    world.sql.batch_execute(later).await.unwrap();
    let told = doctor(&world, &[]).await;
    told.failed(&["database.migrations"], "at migration 999", "start the version of streamview that has migrated");
    world.sql.batch_execute("delete from refinery_schema_history where version = 999").await.unwrap();

    execute(&maintenance, &format!("alter database {name} set default_transaction_read_only = on")).await;
    let told = doctor(&world, &[]).await;
    let fix = told.failed(&["database.writable"], "the database may only be read", "alter database");
    told.well(&["database.migrations", "database.grants", "view.position", "view.history"]);
    run_sql(&world.database, &fix).await;
    assert_eq!(doctor(&world, &[]).await.code, 0);

    let (host, port) = server.rsplit_once('@').unwrap().1.rsplit_once(':').unwrap();
    let (host, port) = (host.to_owned(), port.parse().unwrap());
    let start = move || PgBouncer::start((&host, port), &[("pool_mode", "transaction")]).unwrap();
    let bouncer = std::thread::spawn(start).join().unwrap();
    let pooled = format!("postgres://postgres@127.0.0.1:{}/{name}", bouncer.port());
    let told = doctor(&world, &[(DATABASE, &pooled)]).await;
    told.failed(&["database.sessions"], "PgBouncer, pool_mode = transaction", "pool_mode = session");
    told.well(&["database.reachable", "database.encoding"]);
    told.well(&OF_KAFKA);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_missing_is_told_as_the_sql_that_gives_it() {
    let world = consumed_world(World::new(1).await).await;
    let role = format!("Doctor {}", world.group.replace('.', "_"));
    let grants = format!(
        "create role \"{role}\" login;
         grant usage on schema orders_1 to \"{role}\";
         grant select, insert, update, delete on all tables in schema public, orders_1 to \"{role}\";
         revoke insert, delete on held_keys from \"{role}\"; revoke insert on orders_1.ledger from \"{role}\""
    );
    world.sql.batch_execute(&grants).await.unwrap();
    let url = world.database.replacen("://postgres@", &format!("://{}@", role.replace(' ', "%20")), 1);
    let settings = [(DATABASE, url.as_str())];

    let told = doctor(&world, &settings).await;
    let words = "lacks insert, delete on public.held_keys; insert on orders_1.ledger";
    let fix = told.failed(&["database.grants"], words, "grant insert, delete on public.held_keys to \"Doctor ");
    run_sql(&world.database, &fix).await;
    let told = doctor(&world, &settings).await;
    assert_eq!((told.code, told.status("database.grants")), (0, "ok"), "{:#?}", told.checks);
    // It serves, and cannot make a build.
    assert_eq!(told.status("database.rebuilds"), "warning");
    let rebuilds = told.lines("database.rebuilds")[0];
    assert!(rebuilds["fix"].as_str().unwrap().contains("with postgres in database.url"), "{rebuilds}");

    // Who keeps the audit log for ever takes nothing out of it.
    world.sql.batch_execute(&format!("revoke delete on audit_log from \"{role}\"")).await.unwrap();
    doctor(&world, &[settings[0], ("STREAMVIEW_AUDIT__RETENTION_DAYS", "0")]).await.well(&["database.grants"]);
    let told = doctor(&world, &settings).await;
    let fix = told.failed(&["database.grants"], "lacks delete on public.audit_log", "grant delete on public.audit_log");
    run_sql(&world.database, &fix).await;
    doctor(&world, &settings).await.well(&["database.grants"]);

    world.sql.batch_execute(&format!("revoke usage on schema orders_1 from \"{role}\"")).await.unwrap();
    let fix =
        doctor(&world, &settings).await.failed(&["database.grants"], "lacks usage on schema orders_1", "grant usage");
    run_sql(&world.database, &fix).await;
    assert_eq!(doctor(&world, &settings).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_postgres_refuses_is_told_apart_from_a_server_that_is_away() {
    let postgres = servers::own_postgres();
    let world = World::on(&shared().kafka, &postgres.url("postgres"), 1, &[]).await;
    let ask_for_passwords = "create role poor login password 'right';
        set password_encryption = 'scram-sha-256';
        alter role poor password 'right'; grant postgres to poor; alter role poor superuser";
    world.sql.batch_execute(ask_for_passwords).await.unwrap();
    let rules = postgres.data_dir().join("pg_hba.conf");
    let text = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("host all poor 127.0.0.1/32 scram-sha-256\n{text}")).unwrap();
    world.sql.batch_execute("select pg_reload_conf()").await.unwrap();
    let url = |password: &str| world.database.replacen("://postgres@", &format!("://poor:{password}@"), 1);

    // The rules are read again a moment later.
    let right = url("right");
    let wrong = url("hunter2");
    crate::support::until("passwords are asked for", crate::support::PATIENCE, || async {
        tokio_postgres::connect(&wrong, tokio_postgres::NoTls).await.is_err().then_some(())
    })
    .await;
    let told = doctor(&world, &[(DATABASE, &wrong)]).await;
    told.failed(&["database.login"], "password authentication failed", "alter role poor password");
    told.well(&["database.reachable"]);
    told.well(&OF_KAFKA);
    assert!(!format!("{:?}", told.checks).contains("hunter2"), "{:#?}", told.checks);
    assert_eq!(doctor(&world, &[(DATABASE, &right)]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_kafka_each_fault_is_its_line_and_its_fix_mends_it() {
    let kafka = servers::own_kafka_with(&[
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ]);
    let world = consumed_world(World::on(&kafka.bootstrap(), &shared().database, 1, &[]).await).await;

    let closed = format!("127.0.0.1:{}", free_port().unwrap());
    let told = doctor(&world, &[(SERVERS, &closed)]).await;
    told.failed(&["kafka.reachable"], "Connection refused", "kafka.bootstrap_servers");
    told.well(&OF_DATABASE);
    assert!(OF_KAFKA[3..].iter().all(|name| told.lines(name).iter().all(|line| line["status"] == "not_asked")));
    // Of several, one that answers is enough.
    let several = format!("{closed},{}", kafka.bootstrap());
    let told = doctor(&world, &[(SERVERS, &several)]).await;
    assert_eq!((told.code, told.names("warning")[0]), (0, "kafka.reachable"), "{:#?}", told.checks);

    // A new world is bound to no log yet: what is missing is the topic, and no more.
    let fresh = World::on(&kafka.bootstrap(), &shared().database, 1, &[]).await;
    let (absent, absent_dlq) = (format!("{}.absent", fresh.topic), format!("{}.absent", fresh.dlq_topic));
    let told = doctor(&fresh, &[(TOPIC, &absent)]).await;
    let words = format!("topic {absent} does not exist");
    let fix = told.failed(&["kafka.topic"], &words, "--create");
    for name in ["kafka.compaction", "kafka.retention", "view.position", "view.history"] {
        assert_eq!(told.status(name), "not_asked", "{name}");
    }
    run_tool(&kafka, &fix);
    assert_eq!(doctor(&fresh, &[(TOPIC, &absent)]).await.code, 0);

    let told = doctor(&world, &[(DLQ_TOPIC, &absent_dlq)]).await;
    let fix = told.failed(&["kafka.dlq_topic"], "does not exist", "--create");
    told.well(&["kafka.topic", "view.history"]);
    run_tool(&kafka, &fix);
    assert_eq!(doctor(&world, &[(DLQ_TOPIC, &absent_dlq)]).await.code, 0);

    let compacted = World::on(&kafka.bootstrap(), &shared().database, 1, &[("cleanup.policy", "compact")]).await;
    let told = doctor(&compacted, &[]).await;
    let words = "cleanup.policy=compact: the broker removes events that the view needs";
    let fix = told.failed(&["kafka.compaction"], words, "kafka.allow_compacted = true");
    run_tool(&kafka, &fix);
    assert_eq!(doctor(&compacted, &[]).await.code, 0);

    rights(&kafka, &world).await;
}

/// What no rule names is everybody's; a rule that allows one thing takes the rest away.
async fn rights(kafka: &KafkaServer, world: &World) {
    let servers = kafka.bootstrap();
    for (kind, name, left, words) in [
        ("--topic", &world.topic, "Write", "we may not DescribeConfigs, Read; grant DESCRIBE_CONFIGS, READ"),
        ("--topic", &world.dlq_topic, "Read", "we may not Write; grant WRITE on the topic"),
        ("--group", &world.group, "Describe", "we may not Read; grant READ on the consumer group"),
    ] {
        let rule = format!(
            "kafka-acls.sh --bootstrap-server {servers} --add --allow-principal User:ANONYMOUS --operation {left} {kind} {name}"
        );
        run_tool(kafka, &rule);
        let told = doctor(world, &[]).await;
        let words = words.replace("DescribeConfigs, Read; grant DESCRIBE_CONFIGS, READ", "DescribeConfigs, Read");
        let fix = told.failed(&["kafka.rights"], &words, "kafka-acls.sh");
        told.well(&OF_DATABASE);
        run_tool(kafka, &fix);
        assert_eq!(doctor(world, &[]).await.code, 0, "{kind} {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_records_is_told_by_what_is_lost() {
    let world = consumed_world(World::new(1).await).await;
    // What was consumed already: the view is right, but could not be made again.
    world.truncate(0, 3).await;
    let told = doctor(&world, &[]).await;
    assert_eq!((told.code, told.status("view.position"), told.status("view.history")), (0, "ok", "warning"));
    let line = told.lines("view.history")[0];
    assert!(line["message"].as_str().unwrap().contains("partition 0: offsets 0 up to, but not with, 3"), "{line}");
    assert!(line["fix"].as_str().unwrap().contains("--accept-truncated"), "{line}");

    // What was still to be read: in the words of the halt that follows.
    world.publish(life("o-3", 4).into_iter().map(|event| event.record())).await;
    world.truncate(0, 10).await;
    let told = doctor(&world, &[]).await;
    let message = "partition 0 begins at offset 10, but 8 is the next we need";
    told.failed(&["view.position"], message, "restore the records");
    told.well(&OF_DATABASE);
    told.well(&OF_KAFKA);
    let instance = world.launch(&[]);
    instance.until_halted("log_truncated").await;
    let halt = &instance.json("/ops/consumer").await["views"][0]["halt"];
    let line = told.lines("view.position")[0];
    assert_eq!((&halt["detail"], &halt["nextStep"]), (&line["message"], &line["fix"]), "the same words");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_created_anew_and_another_one_are_told_in_the_words_of_the_halt() {
    let mut world = consumed_world(World::new(1).await).await;
    let other = format!("{}.other", world.topic);
    world.create_topic(&other, 1, &[]).await;
    let told = doctor(&world, &[(TOPIC, &other)]).await;
    told.failed(&["view.history"], "the build is made from topic", "streamview source moved");
    world.recreate_topic(1).await;
    let told = doctor(&world, &[]).await;
    told.failed(&["view.history"], "topic id is", "restore the topic");
    assert_eq!(told.status("view.position"), "not_asked");
}

/// Answers everything with a page, as a proxy does.
async fn html() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let Ok(1..) = client.read(&mut asked).await else { return };
                let page = "<html><body>Welcome</body></html>";
                let length = page.len();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}");
                client.write_all(answer.as_bytes()).await.ok();
            });
        }
    });
    address.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_and_is_no_registry_and_a_port_that_is_a_strangers_are_told() {
    let world = World::new(1).await;
    let page = html().await;
    let registry = format!("http://user:hunter2@{page}");
    let told = doctor(&world, &[(REGISTRY, &registry)]).await;
    told.failed(&["registry.reachable"], "does not speak as a schema registry", "schema_registry.url");
    told.well(&OF_DATABASE);
    told.well(&OF_KAFKA);
    assert!(!format!("{:?}", told.checks).contains("hunter2"), "{:#?}", told.checks);

    let closed = format!("http://127.0.0.1:{}", free_port().unwrap());
    let told = doctor(&world, &[(REGISTRY, &closed)]).await;
    told.failed(&["registry.reachable"], "Connection refused", "start the registry");

    let told = doctor(&world, &[(BIND, &page)]).await;
    let port = page.rsplit_once(':').unwrap().1;
    told.failed(&["http.port"], &format!("cannot bind http.bind = {page}"), &format!("ss -ltnp 'sport = :{port}'"));
    // The same where TLS is meant to be spoken there; and one of ours is known behind a certificate that nobody vouches for.
    let authority = Authority::new("somebody");
    let files = Files::of(&authority.server());
    let settings = files.settings();
    let mut tls: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    tls.push((BIND, &page));
    doctor(&world, &tls).await.failed(&["http.port"], &format!("cannot bind http.bind = {page}"), "http.bind");
    let instance = world.start_with_tls(&settings, authority.http().build().unwrap()).await;
    let (url, last) = (instance.url(""), tls.len() - 1);
    tls[last].1 = url.trim_start_matches("https://");
    doctor(&world, &tls).await.well(&["http.port"]);
    told.well(&OF_DATABASE);
    told.well(&OF_KAFKA);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_over_is_told_though_settings_are_usable() {
    let world = World::new(1).await;
    let authority = Authority::new("ours");
    for (issued, expected) in
        [(authority.server(), vec!["ok"]), (authority.server_of_yesteryear(), vec!["ok", "warning"])]
    {
        let files = Files::of(&issued);
        let settings = files.settings();
        let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let told = doctor(&world, &settings).await;
        let lines = told.lines("settings");
        let found: Vec<&str> = lines.iter().map(|line| line["status"].as_str().unwrap()).collect();
        assert_eq!((found, told.code), (expected, 0), "{lines:#?}");
        if let Some(warning) = lines.get(1) {
            let (message, fix) = (warning["message"].as_str().unwrap(), warning["fix"].as_str().unwrap());
            assert!(message.contains("is over since 2021-01-01") && fix.contains("http.tls"), "{warning}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_stops_answering_has_failed() {
    let world = World::new(1).await;
    let holder = connect(&world.database).await;
    holder.batch_execute("begin; lock table view_builds in access exclusive mode").await.unwrap();
    let told = doctor(&world, &[]).await;
    told.failed(&["database.reachable"], "has stopped answering within 15 s", "pg_blocking_pids");
    told.well(&OF_KAFKA);
}

/// Takes connections and never says a word.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_say_nothing_cost_seconds_and_not_minutes() {
    let world = World::new(1).await;
    let silent: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [postgres, kafka, registry] = [0, 1, 2].map(|at: usize| silent[at].local_addr().unwrap().to_string());
    let (postgres, registry) = (format!("postgres://postgres@{postgres}/x"), format!("http://{registry}"));
    let begun = Instant::now();
    let told = doctor(&world, &[(DATABASE, &postgres), (SERVERS, &kafka), (REGISTRY, &registry)]).await;
    let taken = begun.elapsed();
    assert_eq!(
        told.names("failed"),
        ["database.reachable", "kafka.reachable", "registry.reachable"],
        "{:#?}",
        told.checks
    );
    // Side by side, five seconds each; the rest is for a machine that does much else.
    assert!(taken < Duration::from_secs(15), "{taken:?}");
}
