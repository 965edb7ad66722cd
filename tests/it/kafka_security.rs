//! Kafka behind TLS and a login: everything works as without, by every way in; and whoever is not let in is told by name which
//! setting to look at, and goes on by itself once that is mended.

use std::process::Command;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::rebuild::until_over;
use crate::support::authority::Whom;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, life, oracle, stored};
use crate::support::secure_kafka::{self, ALICE, APP, BOB, GUEST, SecureKafka, by, login};
use crate::support::servers;
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// A setting.
type Setting = (&'static str, String);

async fn world_on(broker: &SecureKafka, partitions: i32) -> World {
    World::on(&broker.kafka.bootstrap(), &servers::shared().database, partitions, &[]).await
}

fn launch(world: &World, arguments: &[&str], settings: &[Setting]) -> Instance {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    world.launch_command(arguments, &settings)
}

fn broken(order_id: &str) -> TestRecord {
    TestRecord { payload: Some(b"{ not json".to_vec()), ..created(order_id).record() }
}

/// Waits until `/readyz` says that the view waits for Kafka, with all these words; gives what it says.
async fn until_named(instance: &Instance, words: &[&str]) -> String {
    until(&format!("readiness says {words:?}; its log: {}", instance.log_text()), PATIENCE, || async {
        let response = instance.http.get(instance.url("/readyz")).send().await.ok()?;
        let body: Value = response.json().await.ok()?;
        let check = body["checks"].as_array()?.iter().find(|check| check["name"] == "view:orders")?.clone();
        let detail = check["detail"].as_str()?.to_owned();
        (detail.starts_with("waiting_for_kafka: ") && words.iter().all(|word| detail.contains(word))).then_some(detail)
    })
    .await
}

async fn until_published(world: &World, letters: i64) {
    let published = "select count(*) from dead_letters where published_at is not null";
    until("the letters are published", PATIENCE, || async { (world.number(published).await == letters).then_some(()) })
        .await;
}

async fn until_runs(command: &Instance) {
    let status = command.until_ended().await;
    assert!(status.success(), "{}", command.log_text());
}

/// Every way in. Of each: records are applied, letters published, the log read again for a verification, a rebuild made.
#[tokio::test(flavor = "multi_thread")]
async fn by_every_way_in_a_view_is_fed_its_letters_go_out_and_it_is_rebuilt() {
    let broker = secure_kafka::shared();
    let over_tls = |rest: &[Setting]| [rest, &[broker.trusted()]].concat();
    let ways: [(&str, Vec<Setting>); 5] = [
        ("SCRAM", over_tls(&[&login("SCRAM-SHA-512", ALICE)[..], &[by("sasl_ssl")]].concat())),
        ("SCRAM", over_tls(&[&login("SCRAM-SHA-256", BOB)[..], &[by("sasl_ssl")]].concat())),
        ("LOGIN", over_tls(&[&login("PLAIN", APP)[..], &[by("sasl_ssl")]].concat())),
        ("CLEAR", [&login("PLAIN", APP)[..], &[by("sasl_plaintext")]].concat()),
        ("MTLS", over_tls(&[&broker.certificate("client")[..], &[by("ssl")]].concat())),
    ];
    for (listener, settings) in ways {
        let world = world_on(broker, 2).await;
        let settings = [&settings[..], &[broker.at(listener)]].concat();
        let seed = launch(&world, &["seed", "--orders", "20", "--seed", "7"], &settings);
        until_runs(&seed).await;
        let events = life("o-1", 5);
        world.publish(events[..3].iter().map(TestEvent::record).chain([broken("bad")])).await;

        let instance = launch(&world, &["serve"], &settings);
        instance.until_ready().await;
        instance.order_at("o-1", 3).await;
        until_published(&world, 1).await;
        assert_eq!(world.dead_letters_on_topic().len(), 1, "{settings:?}");

        let before = stored(&world).await;
        let id = instance.posted("/ops/views/rebuild", &json!({ "reason": "to see it" }), 202).await["id"].as_i64();
        let over = until_over(&instance, id.unwrap()).await;
        assert_eq!(over["state"], "done", "{over}");
        world.publish(events[3..].iter().map(TestEvent::record)).await;
        let order = instance.order_at("o-1", 5).await;
        assert_eq!(before["o-1"], oracle(&events[..3])["o-1"]);
        assert_eq!(order["lastEventSequence"], 5, "{order}");

        until_runs(&launch(&world, &["verify", "--from", "log"], &settings)).await;
        until_runs(&launch(&world, &["dlq", "import"], &settings)).await;
        let log = instance.log_text();
        assert!(!log.contains("s3cret"), "a password stands in the log: {log}");
        instance.stop().await;
    }
}

/// What is set, and what is said of it.
fn mistakes(broker: &SecureKafka) -> Vec<(&'static str, Vec<Setting>, Vec<String>)> {
    let (trusted, scram) = (broker.trusted(), |password| login("SCRAM-SHA-512", (ALICE.0, password)));
    let foreign = ("STREAMVIEW_KAFKA__TLS__CA_FILE", broker.files.text("foreign.pem"));
    let with = |parts: &[&[Setting]]| parts.concat();
    let said = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    vec![
        (
            "SCRAM",
            with(&[&scram("wr0ng"), &[by("sasl_ssl"), trusted.clone()]]),
            said(&["does not let us in", "invalid credentials", "correct kafka.username and kafka.password"]),
        ),
        (
            "LOGIN",
            with(&[&login("PLAIN", (APP.0, "wr0ng")), &[by("sasl_ssl"), trusted.clone()]]),
            said(&["correct kafka.username and kafka.password"]),
        ),
        (
            "LOGIN",
            with(&[&scram(ALICE.1), &[by("sasl_ssl"), trusted.clone()]]),
            said(&["set kafka.sasl_mechanism to one", "supported mechanisms: PLAIN"]),
        ),
        (
            "SCRAM",
            with(&[&scram(ALICE.1), &[by("sasl_ssl"), foreign.clone()]]),
            vec![format!("is of none of kafka.tls.ca_file = {}", foreign.1), "set kafka.tls.ca_file".to_owned()],
        ),
        (
            "SCRAM",
            with(&[&scram(ALICE.1), &[by("sasl_ssl")]]),
            said(&["is of none of this machine's authorities", "set kafka.tls.ca_file to the authority"]),
        ),
        (
            "EXPIRED",
            with(&[&[by("ssl"), trusted.clone()]]),
            said(&["the certificate of localhost:", "has expired at 2021-01-01T00:00:00Z", "renew it at the broker"]),
        ),
        (
            "ELSEWHERE",
            with(&[&[by("ssl"), trusted.clone()]]),
            said(&["is not for localhost, but for wrong.example", "in kafka.bootstrap_servers"]),
        ),
        (
            "MTLS",
            with(&[&broker.certificate("expired-client"), &[by("ssl"), trusted.clone()]]),
            vec![format!(
                "kafka.tls.cert_file = {}, has expired at 2021-01-01",
                broker.files.text("expired-client.pem")
            )],
        ),
        (
            "MTLS",
            with(&[&[by("ssl"), trusted.clone()]]),
            said(&["kafka.tls.cert_file is empty", "wants a certificate"]),
        ),
        ("SCRAM", Vec::new(), said(&["that listener speaks TLS: set kafka.security_protocol to ssl or sasl_ssl"])),
        (
            "SCRAM",
            with(&[&[by("ssl"), trusted.clone()]]),
            said(&["that listener wants a login: set kafka.security_protocol to sasl_plaintext or sasl_ssl"]),
        ),
        ("CLEAR", with(&[&[by("ssl"), trusted]]), said(&["that listener speaks no TLS: set kafka.security_protocol"])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_which_setting_to_look_at() {
    let broker = secure_kafka::shared();
    let world = world_on(broker, 1).await;
    // Nobody of them gets as far as the group: they may share all they have.
    for few in mistakes(broker).chunks(4) {
        join_all(few.iter().map(|(listener, settings, words)| {
            let settings = [&settings[..], &[broker.at(listener)]].concat();
            let world = &world;
            async move {
                let instance = launch(world, &["serve"], &settings);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let detail = until_named(&instance, &words).await;
                until("the log says the same", PATIENCE, || async {
                    let log = instance.log_text();
                    let is_there = |line: &str| {
                        line.contains("view waits")
                            && words.iter().all(|word| line.replace("\\\"", "\"").contains(word))
                    };
                    log.lines().any(is_there).then_some(())
                })
                .await;
                let seen = format!("{detail} {}", instance.log_text());
                assert!(!seen.contains("wr0ng") && !seen.contains("s3cret"), "a password is shown: {seen}");
                println!("{listener}: {detail}");
            }
        }))
        .await;
    }
    // A command that needs Kafka says the same, and ends.
    let (wrong, scram) = (login("SCRAM-SHA-512", (ALICE.0, "wr0ng")), broker.at("SCRAM"));
    let settings = [&wrong[..], &[by("sasl_ssl"), broker.trusted(), scram]].concat();
    let seed = launch(&world, &["seed", "--orders", "1"], &settings);
    assert!(!seed.until_ended().await.success());
    assert!(seed.log_text().contains("correct kafka.username and kafka.password"), "{}", seed.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_without_a_login_says_so_to_who_brings_one() {
    let world = World::new(1).await;
    let instance = launch(&world, &["serve"], &[&login("PLAIN", APP)[..], &[by("sasl_plaintext")]].concat());
    until_named(&instance, &["that listener takes no login: set kafka.security_protocol to plaintext or ssl"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_that_is_made_right_at_the_broker_needs_no_restart() {
    let broker = secure_kafka::shared();
    let world = world_on(broker, 1).await;
    world.publish(life("o-1", 2).iter().map(TestEvent::record)).await;
    let (late, right) = (("latecomer", "l4te-s3cret"), [broker.at("SCRAM"), broker.trusted(), by("sasl_ssl")]);
    let instance = launch(&world, &["serve"], &[&login("SCRAM-SHA-512", late)[..], &right].concat());
    until_named(&instance, &["correct kafka.username and kafka.password"]).await;

    broker.set_password("SCRAM-SHA-512", late);
    // It is let in, and may do nothing: that is another thing to be named.
    until_named(&instance, &["grant DESCRIBE on the topic"]).await;
    broker.allow(late.0, ("--topic", &world.topic), &["Read", "DescribeConfigs"]);
    broker.allow(late.0, ("--group", &world.group), &["Read"]);

    instance.order_at("o-1", 2).await;
    instance.until_ready().await;
}

/// A right that a user of SASL is missing is named like any other, on the topic, the group and the topic of dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_named_on_the_topic_the_group_and_the_topic_of_letters() {
    let broker = secure_kafka::shared();
    let world = world_on(broker, 1).await;
    world.publish([created("o-1").record(), broken("bad")]).await;
    let settings = [&login("PLAIN", GUEST)[..], &[broker.at("LOGIN"), broker.trusted(), by("sasl_ssl")]].concat();
    let instance = launch(&world, &["serve"], &settings);
    until_named(&instance, &[&world.topic, "grant DESCRIBE on the topic"]).await;
    broker.allow(GUEST.0, ("--topic", &world.topic), &["Read", "DescribeConfigs"]);
    until_named(&instance, &["grant READ on the consumer group"]).await;
    broker.allow(GUEST.0, ("--group", &world.group), &["Read"]);

    instance.order_at("o-1", 1).await;
    let letters = |words: Vec<String>| {
        let instance = &instance;
        async move {
            until(&format!("letters wait: {words:?}"), PATIENCE, || async {
                let ready: Value = instance.get("/readyz").await.json().await.ok()?;
                let checks = ready["checks"].as_array()?;
                let detail = checks.iter().find(|check| check["name"] == "dead_letters:orders")?["detail"].to_string();
                words.iter().all(|word| detail.contains(word)).then_some(())
            })
            .await;
        }
    };
    letters(vec![world.dlq_topic.clone(), "grant READ on the DLQ topic, and WRITE".to_owned()]).await;
    broker.allow(GUEST.0, ("--topic", &world.dlq_topic), &["Read"]);
    letters(vec![format!("write to topic {} (authorization failed): grant WRITE on it", world.dlq_topic)]).await;
    broker.allow(GUEST.0, ("--topic", &world.dlq_topic), &["Write"]);
    until_published(&world, 1).await;
    until("it is ready", PATIENCE, || async { (instance.readiness().await["status"] == "ok").then_some(()) }).await;
}

/// The broker comes back with a certificate that is over, and then with a new one: the running instance says so, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_view_outlives_a_certificate_that_ran_out_at_the_broker() {
    let mut broker = secure_kafka::own();
    let world = world_on(&broker, 2).await;
    let events = life("o-1", 4);
    let settings =
        [&login("SCRAM-SHA-512", ALICE)[..], &[broker.at("SCRAM"), broker.trusted(), by("sasl_ssl")]].concat();
    let instance = launch(&world, &["serve"], &settings);
    instance.until_ready().await;
    world.publish(events[..2].iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 2).await;

    for (issued, is_over) in [(Whom::ExpiredServer("localhost"), true), (Whom::Server("localhost"), false)] {
        broker.kafka.kill_hard().unwrap();
        broker.authority.write(broker.files.folder(), "server", issued);
        broker.kafka.restart().unwrap();
        if is_over {
            until_named(&instance, &["the certificate of localhost:", "has expired at 2021-01-01T00:00:00Z"]).await;
            assert_eq!(instance.json("/orders/o-1").await["lastEventSequence"], 2, "reads go on");
        }
    }

    world.publish(events[2..].iter().map(TestEvent::record).chain([broken("bad")])).await;
    instance.order_at("o-1", 4).await;
    instance.until_ready().await;
    until_published(&world, 1).await;
    assert_eq!(stored(&world).await, oracle(&events));
}

/// What cannot be used is refused before anything is connected to.
#[test]
fn files_that_are_missing_or_hold_something_else_are_refused_by_name() {
    let (files, authority) = (crate::support::authority::Files::new(), crate::support::authority::Authority::new("ca"));
    std::fs::write(files.path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(files.path("text.pem"), "no certificate").unwrap();
    std::fs::write(files.path("rotten.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    authority.write(files.folder(), "one", Whom::Client("one"));
    authority.write(files.folder(), "other", Whom::Client("other"));
    let check = |settings: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
        command.args(["config", "check"]).env("STREAMVIEW_KAFKA__SECURITY_PROTOCOL", "ssl");
        for (key, file) in settings {
            command.env(format!("STREAMVIEW_KAFKA__TLS__{key}"), files.path(file));
        }
        let output = command.output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
    };
    let (code, printed) = check(&[("CA_FILE", "ca.pem"), ("CERT_FILE", "one.pem"), ("KEY_FILE", "one.key")]);
    assert_eq!((code, printed.as_str()), (0, "settings are usable\n"));
    for (settings, words) in [
        (&[("CA_FILE", "nope.pem")][..], "cannot read kafka.tls.ca_file = "),
        (&[("CA_FILE", "text.pem")], "holds no PEM certificates"),
        (&[("CA_FILE", "rotten.pem")], "kafka.tls.ca_file cannot be used"),
        (&[("CERT_FILE", "one.pem"), ("KEY_FILE", "nope.key")], "cannot read kafka.tls.key_file = "),
        (&[("CERT_FILE", "one.key"), ("KEY_FILE", "one.key")], "holds no PEM certificate"),
        (&[("CERT_FILE", "one.pem"), ("KEY_FILE", "one.pem")], "holds no PEM private key"),
        (
            &[("CERT_FILE", "one.pem"), ("KEY_FILE", "other.key")],
            "kafka.tls.key_file is not the key of kafka.tls.cert_file",
        ),
        (&[("CERT_FILE", "rotten.pem"), ("KEY_FILE", "one.key")], "kafka.tls.cert_file cannot be used"),
    ] {
        let (code, printed) = check(settings);
        let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(code == 2 && lines.len() == 1 && lines[0].contains(words), "{settings:?}: {code} {printed}");
    }
}
