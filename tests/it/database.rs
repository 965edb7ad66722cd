//! What the database, and the way to it, has to be: what can never work is refused by name at once, and whatever goes wrong
//! is told in the words of its cause.

use std::process::Output;

use serde_json::json;
use streamview_lab::servers::PgBouncer;

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life};
use crate::support::servers::{execute, shared, with_database};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// What the driver and the pool say where they say nothing.
const EMPTY_WORDS: [&str; 3] = ["db error", "creating a new object", "error occurred"];

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing from: {text}");
    }
    for empty in EMPTY_WORDS {
        assert!(!text.to_lowercase().contains(empty), "{empty:?} says nothing: {text}");
    }
}

/// Runs a command that ends by itself, and does so soon.
async fn run(world: &World, arguments: &[&str], database: &str) -> (Option<i32>, String) {
    let mut command = std::process::Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_streamview")]).args(arguments).envs(world.environment());
    command.env("STREAMVIEW_DATABASE__URL", database).env("STREAMVIEW_LOG__LEVEL", "info").env("USER", "tester");
    command.env("STREAMVIEW_HTTP__BIND", format!("127.0.0.1:{}", streamview_lab::servers::free_port().unwrap()));
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

/// Every command that needs the database.
const COMMANDS: [&[&str]; 7] = [
    &["migrate"],
    &["serve"],
    &["serve", "--only", "api"],
    &["load"],
    &["held", "list"],
    &["dlq", "list"],
    &["source", "show"],
];

async fn assert_refused_by_every_command(world: &World, database: &str, words: &[&str]) {
    for arguments in COMMANDS {
        let (code, said) = run(world, arguments, database).await;
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        assert_says(&said, words);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_hold_every_text_is_refused_by_every_command() {
    let world = World::new(1).await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("{}_{}", world.database.rsplit_once('/').unwrap().1, encoding.to_lowercase());
        let create = format!("create database {name} encoding '{encoding}' locale 'C' template template0");
        execute(&shared().database, &create).await;
        let database = with_database(&world.database, &name);

        assert_refused_by_every_command(&world, &database, &["encoding", encoding, "has to be UTF8"]).await;

        let sql = crate::support::world::connect(&database).await;
        let tables: i64 =
            sql.query_one("select count(*) from pg_tables where schemaname = 'public'", &[]).await.unwrap().get(0);
        assert_eq!(tables, 0, "nothing was made");
    }
}

/// The world's database behind PgBouncer.
fn pooled(world: &World, settings: &[(&'static str, &'static str)]) -> (PgBouncer, String) {
    let (server, name) = world.database.rsplit_once('/').unwrap();
    let (host, port) = server.rsplit_once('@').unwrap().1.rsplit_once(':').unwrap();
    let (host, port, settings) = (host.to_owned(), port.parse().unwrap(), settings.to_vec());
    let start = move || PgBouncer::start((&host, port), &settings).unwrap();
    let bouncer = std::thread::spawn(start).join().unwrap();
    let url = format!("postgres://postgres@127.0.0.1:{}/{name}", bouncer.port());
    (bouncer, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_transaction_mode_is_refused_by_every_command() {
    let world = World::new(1).await;
    for settings in [
        &[("pool_mode", "transaction")][..],
        &[("pool_mode", "transaction"), ("default_pool_size", "1")],
        &[("pool_mode", "transaction"), ("server_round_robin", "1"), ("min_pool_size", "5")],
        &[("pool_mode", "transaction"), ("ignore_startup_parameters", "options")],
        &[("pool_mode", "statement")],
    ] {
        let (_bouncer, database) = pooled(&world, settings);
        assert_refused_by_every_command(&world, &database, &["PgBouncer", "pool_mode = session"]).await;
    }
    // What we set for ourselves must not have reached others through a shared session.
    let (_bouncer, database) = pooled(&world, &[("pool_mode", "transaction")]);
    run(&world, &["migrate"], &database).await;
    let sql = crate::support::world::connect(&database).await;
    let path: String = sql.query_one("show search_path", &[]).await.unwrap().get(0);
    assert_eq!(path, "\"$user\", public");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_refuses_options_of_the_url_is_named_at_once() {
    let world = World::new(1).await;
    let (_bouncer, database) = pooled(&world, &[("pool_mode", "session")]);
    let database = format!("{database}?options=-c%20geqo%3Doff");
    assert_refused_by_every_command(&world, &database, &["unsupported startup parameter", "database.url"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_in_session_mode_serves_projector_api_and_decisions() {
    let world = World::new(2).await;
    let (_bouncer, database) = pooled(&world, &[("pool_mode", "session"), ("default_pool_size", "50")]);
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__URL", &database)]).await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.publish(life("o-2", 4).iter().map(TestEvent::record)).await;
    world.until_consumed(6).await;
    instance.posted("/ops/held/o-1/skip", &json!({ "reason": "lost" }), 202).await;
    instance.order_at("o-1", 3).await;
    instance.order_at("o-2", 4).await;
    let (code, said) = run(&world, &["held", "list"], &database).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(&world, &["migrate"], &database).await, (Some(0), "the database is up to date\n".to_owned()));
}

/// A role with all rights and settings of its own.
async fn odd_role(world: &World, settings: &[&str]) -> String {
    let role = format!("odd_{}", world.group.replace('.', "_"));
    let mut script = format!("create role {role} login superuser");
    for setting in settings {
        script += &format!("; alter role {role} set {setting}");
    }
    world.sql.batch_execute(&script).await.unwrap();
    world.database.replacen("postgres://postgres", &format!("postgres://{role}"), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_with_settings_of_its_own_is_served_as_any_other() {
    let world = World::new(2).await;
    let odd = [
        "search_path = 'nowhere'",
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = 300",
        "timezone = 'Asia/Kathmandu'",
        "datestyle = 'German'",
        "bytea_output = 'escape'",
    ];
    let database = odd_role(&world, &odd).await;
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__URL", &database)]).await;
    let mut broken = item_added("o-2", 2).record();
    broken.payload = Some(b"{ broken".to_vec());
    world.publish(life("o-1", 4).iter().map(TestEvent::record)).await;
    world.publish([created("o-2").record(), broken, item_added("o-2", 3).record()]).await;
    world.until_consumed(7).await;

    assert_eq!(instance.order_at("o-1", 4).await["held"], json!(null));
    for path in ["/orders?status=Created", "/orders/o-1/events", "/ops/lags", "/ops/held", "/ops/held/o-2"] {
        instance.json(path).await;
    }
    for path in ["/ops/dead-letters?status=all", "/ops/decisions", "/readyz"] {
        instance.json(path).await;
    }
    assert!(!instance.json("/ops/consumer").await["views"][0]["conservation"].is_null());
    instance.posted("/ops/held/o-2/skip", &json!({ "reason": "lost" }), 202).await;
    instance.order_at("o-2", 3).await;
    let (code, said) = run(&world, &["held", "list"], &database).await;
    assert_eq!(code, Some(0), "{said}");
    instance.until_running().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_in_the_words_of_its_cause() {
    let world = World::new(1).await;
    let missing = with_database(&world.database, "nobody_made_it");
    assert_refused_by_every_command(&world, &missing, &["database \"nobody_made_it\" does not exist"]).await;
    // A database of somebody else, in which we may make nothing.
    let role = format!("poor_{}", world.group.replace('.', "_"));
    let name = format!("{}_bare", world.database.rsplit_once('/').unwrap().1);
    execute(&shared().database, &format!("create role {role} login")).await;
    execute(&shared().database, &format!("create database {name} template template0")).await;
    let poor = with_database(&world.database.replacen("://postgres@", &format!("://{role}@"), 1), &name);
    let (code, said) = run(&world, &["migrate"], &poor).await;
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &["permission denied for schema public (SQLSTATE 42501)"]);
    // Rights that are taken away in service.
    let poor = world.database.replacen("://postgres@", &format!("://{role}@"), 1);
    let grants = format!(
        "grant usage on schema orders_1 to {role};
         grant select, insert, update, delete on all tables in schema public, orders_1 to {role}"
    );
    world.sql.batch_execute(&grants).await.unwrap();
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__URL", &poor)]).await;
    // One after the other: of several, whoever looks first would halt the view by another one.
    let take = |what: &str| format!("revoke select on {what} from {role}");
    world.sql.batch_execute(&take("projection_progress")).await.unwrap();
    let denied = "permission denied for table projection_progress (SQLSTATE 42501)";
    until("readiness says why", PATIENCE, || async {
        instance.get("/readyz").await.text().await.unwrap().contains(denied).then_some(())
    })
    .await;
    world.sql.batch_execute(&take("orders_view, held_keys")).await.unwrap();
    let answers = [instance.refusal("/orders", 500).await, instance.refusal("/ops/held", 500).await];
    let (code, said) = run(&world, &["held", "list"], &poor).await;
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &[denied]);
    let log = instance.log_text();
    for words in ["permission denied for view orders_view", "permission denied for table held_keys"] {
        assert!(log.contains(words), "{log}");
    }
    for text in answers.iter().map(ToString::to_string).chain([log]) {
        assert_says(&text, &[]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_empty_words_while_postgres_is_away() {
    let mut postgres = crate::support::servers::own_postgres();
    let world = World::on(&shared().kafka, &postgres.url("postgres"), 1, &[]).await;
    let instance = world.start().await;
    world.publish(life("o-1", 2).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 2).await;
    postgres.kill_hard().unwrap();
    world.publish(life("o-2", 2).iter().map(TestEvent::record)).await;
    let refused = "Connection refused";
    until("readiness says why", PATIENCE, || async {
        instance.get("/readyz").await.text().await.unwrap().matches(refused).nth(1).map(drop)
    })
    .await;
    for path in ["/orders", "/orders/o-1", "/ops/held"] {
        let answer = instance.refusal(path, 503).await.to_string();
        assert_says(&answer, &["database_unavailable", refused]);
    }
    let (code, said) = run(&world, &["held", "list"], &world.database).await;
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &[refused]);
    assert_says(&instance.log_text(), &[refused]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_while_the_database_is_read_only_is_refused_for_now_with_the_reason() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.until_consumed(2).await;
    let (server, name) = world.database.rsplit_once('/').unwrap();
    let maintenance = format!("{server}/postgres");
    execute(&maintenance, &format!("alter database {name} set default_transaction_read_only = on")).await;

    let skip = json!({ "reason": "lost" });
    let answer = instance.post("/ops/held/o-1/skip", &skip).await;
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(answer["code"], "database_read_only");
    assert_says(answer["detail"].as_str().unwrap(), &["read-only transaction (SQLSTATE 25006)"]);
    // What only reads still tells what would be done.
    let bulk = json!({ "reason": "lost", "filter": {} });
    assert_eq!(instance.posted("/ops/held/skip?dry_run=true", &bulk, 200).await["matched"], 1);
    let (code, said) = run(&world, &["held", "skip", "o-1", "--reason", "lost"], &world.database).await;
    assert_eq!(code, Some(1), "{said}");
    assert_says(&said, &["read-only transaction (SQLSTATE 25006)"]);

    execute(&maintenance, &format!("alter database {name} reset default_transaction_read_only")).await;
    instance.posted("/ops/held/o-1/skip", &skip, 202).await;
    instance.order_at("o-1", 3).await;
}

/// A transaction that keeps every decision waiting until it is dropped.
async fn lock_out(world: &World) -> tokio_postgres::Client {
    let holder = crate::support::world::connect(&world.database).await;
    holder.batch_execute("begin; select from projection_progress for update").await.unwrap();
    holder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_waits_for_a_batch_longer_than_a_read_may_take() {
    let world = World::new(1).await;
    // Nothing but the decision may be what ends.
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__READ_TIMEOUT_MS", "500")]).await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.until_consumed(2).await;
    let holder = lock_out(&world).await;
    let (skip, waits) = (json!({ "reason": "lost" }), "2500 milliseconds");
    let release = async {
        until("the decision has waited for long", PATIENCE, || async {
            let waiting = format!(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                 and application_name = 'streamview-operator' and clock_timestamp() - query_start > interval '{waits}'"
            );
            (world.number(&waiting).await == 1).then_some(())
        })
        .await;
        holder.batch_execute("rollback").await.unwrap();
    };
    tokio::join!(instance.posted("/ops/held/o-1/skip", &skip, 202), release);
    instance.order_at("o-1", 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_waits_too_long_says_which_setting_ends_it() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__DECISION_TIMEOUT_MS", "200")]).await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.until_consumed(2).await;
    let _holder = lock_out(&world).await;
    let refused = instance.posted("/ops/held/o-1/skip", &json!({ "reason": "lost" }), 503).await;
    assert_eq!(refused["code"], "query_timeout");
    let page = instance.get("/problems/query_timeout").await.text().await.unwrap();
    assert!(page.contains("database.decision_timeout_ms"), "{page}");
}

/// Something in the database that lets nobody write letters.
async fn refuse_letters(world: &World) {
    let trigger = "create function refuse() returns trigger language plpgsql as
                     $$ begin raise exception 'no letters here' using errcode = '23514'; end $$;
                   create trigger no_letters before insert on dead_letters for each row execute function refuse()";
    world.sql.batch_execute(trigger).await.unwrap();
}

async fn halt_detail(instance: &Instance) -> String {
    instance.json("/ops/consumer").await["views"][0]["halt"]["detail"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_written_halts_the_view_by_name() {
    let world = World::new(1).await;
    let instance = world.start().await;
    refuse_letters(&world).await;
    let broken = TestRecord { payload: Some(b"{ broken".to_vec()), ..item_added("o-1", 2).record() };
    let after = life("o-2", 2);
    world.publish([created("o-1").record(), broken, after[0].record(), after[1].record()]).await;

    instance.until_halted("dead_letter_unwritable").await;

    let detail = halt_detail(&instance).await;
    assert!(detail.contains("partition 0, offset 1") && detail.contains("no letters here"), "{detail}");
    assert_eq!(world.consumed().await, 1, "what stands before it is applied, and nothing behind it");
    world.sql.batch_execute("drop function refuse cascade").await.unwrap();
    instance.kill_hard();
    let instance = world.start().await;
    instance.order_at("o-2", 2).await;
    assert_eq!(world.conservation().await, [4, 3, 0, 0, 0, 0, 1]);
}

/// A parked event that cannot be stored once its turn has come, and whose letter cannot be written.
#[tokio::test(flavor = "multi_thread")]
async fn a_parked_event_whose_letter_cannot_be_written_halts_the_view_by_name() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.until_consumed(2).await;
    refuse_letters(&world).await;
    let trigger = "create trigger no_third before insert on orders_1.ledger for each row when (new.sequence = 3)
                     execute function refuse()";
    world.sql.batch_execute(trigger).await.unwrap();
    instance.posted("/ops/held/o-1/skip", &json!({ "reason": "lost" }), 202).await;

    instance.until_halted("dead_letter_unwritable").await;

    assert!(halt_detail(&instance).await.contains("no letters here"));
}

/// As it is when a pooler begins, in the middle of service, to give sessions to others after each transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_forgets_what_was_prepared_halts_the_view_by_name() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish([created("o-1").record()]).await;
    world.until_consumed(1).await;
    let forget = "create function forget() returns trigger language plpgsql as
                    $$ begin execute 'deallocate all'; return new; end $$;
                  create trigger forget before update on projection_progress for each row execute function forget()";
    world.sql.batch_execute(forget).await.unwrap();
    world.publish([item_added("o-1", 2).record(), item_added("o-1", 3).record()]).await;

    instance.until_halted("transaction_pooling").await;

    let halt = instance.json("/ops/consumer").await["views"][0]["halt"].clone();
    assert_says(&halt.to_string(), &["does not exist (SQLSTATE 26000)", "session mode"]);
    assert_eq!(world.consumed().await, 1);
}
