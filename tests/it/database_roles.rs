//! Owner, writer and reader of a database: what each may and may not, and a service that runs by them.

use serde_json::{Value, json};
use streamview::config::{Config, DatabaseSettings, SecretUrl};
use streamview::store::{audit, pool};
use tokio_postgres::Client;

use crate::doctor::doctor;
use crate::rebuild::until_over;
use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life};
use crate::support::servers::{execute, own_postgres, shared, with_database};
use crate::support::world::{TestRecord, World, connect};
use crate::support::{PATIENCE, until};

const DENIED: &str = "42501";

/// Runs a command that ends by itself.
async fn run(world: &World, arguments: &[&str], database: &str) -> (Option<i32>, String) {
    let command = world.launch_command(arguments, &[("STREAMVIEW_DATABASE__URL", database)]);
    let code = command.until_ended().await.code();
    (code, command.log_text())
}

async fn done(world: &World, arguments: &[&str], database: &str) -> String {
    let (code, said) = run(world, arguments, database).await;
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    said
}

/// Somebody who logs in, a member of these roles; the URL that is theirs.
async fn login(world: &World, name: &str, roles: &str) -> String {
    let name = format!("{name}_{}", world.group.replace('.', "_"));
    world.sql.batch_execute(&format!("create role {name} login in role {roles}")).await.unwrap();
    world.database.replacen("://postgres@", &format!("://{name}@"), 1)
}

/// A world whose database has the roles.
async fn world_with_roles() -> World {
    let world = World::new(2).await;
    let said = done(&world, &["migrate", "--roles"], &world.database).await;
    assert!(said.contains("roles streamview_owner, streamview_writer and streamview_reader"), "{said}");
    world
}

/// An order that is whole, one that waits for an event, one with an event that was refused.
async fn three_orders(world: &World) {
    let broken = TestRecord { payload: Some(b"{ \"secret\": ".to_vec()), ..item_added("bad", 2).record() };
    world.publish(life("whole", 4).iter().map(TestEvent::record)).await;
    world.publish([created("gap").record(), item_added("gap", 3).record()]).await;
    world.publish([created("bad").record(), broken, item_added("bad", 3).record()]).await;
    world.until_consumed(9).await;
}

/// The SQLSTATE by which Postgres refuses a statement; empty if it does it.
async fn refusal(client: &Client, statement: &str) -> String {
    match client.batch_execute(statement).await {
        Ok(()) => String::new(),
        Err(error) => error.code().map(|state| state.code().to_owned()).unwrap_or_else(|| error.to_string()),
    }
}

async fn assert_denied(client: &Client, statements: &[&str]) {
    for statement in statements {
        assert_eq!(refusal(client, statement).await, DENIED, "{statement}");
    }
}

async fn assert_done(client: &Client, statements: &[&str]) {
    for statement in statements {
        assert_eq!(refusal(client, statement).await, "", "{statement}");
    }
}

/// Which of these rights a role has on which tables and views of ours.
async fn rights(world: &World, role: &str, wanted: &[&str]) -> Vec<String> {
    let query = "select c.oid::regclass::text || ': ' || p
                 from pg_class c
                 join pg_namespace n on n.oid = c.relnamespace
                 cross join unnest($2::text[]) p
                 where (n.nspname = 'public' or n.nspname ~ '^orders_') and c.relkind in ('r', 'v')
                   and case when p in ('insert', 'update', 'references') then has_any_column_privilege($1, c.oid, p)
                            else has_table_privilege($1, c.oid, p) end
                 order by 1";
    world.sql.query(query, &[&role, &wanted]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_reads_views_and_neither_writes_nor_sees_payloads_and_keys() {
    let world = world_with_roles().await;
    let instance = world.start().await;
    three_orders(&world).await;
    done(&world, &["apikey", "create", "--name", "somebody", "--role", "reader"], &world.database).await;
    instance.stop().await;

    let changes = ["insert", "update", "delete", "truncate", "references", "trigger"];
    assert_eq!(rights(&world, "streamview_reader", &changes).await, Vec::<String>::new());
    let reader = connect(&login(&world, "reader", "streamview_reader").await).await;
    assert_done(
        &reader,
        &[
            "select * from orders_view",
            "select * from order_items_view",
            "select payload from order_events_view",
            "select * from orders_1.ledger",
            "select id, reason, key, sequence from dead_letters",
            "select id, reason, status from dead_letters_view",
            "select * from held_keys",
        ],
    )
    .await;
    let seen = reader.query_one("select count(*) from dead_letters_view where reason is not null", &[]).await.unwrap();
    assert_eq!(seen.get::<_, i64>(0), 1, "that there is a letter");
    assert_denied(
        &reader,
        &[
            "select payload from dead_letters",
            "select record_key from dead_letters",
            "select headers from dead_letters",
            "select error from dead_letters",
            "select * from dead_letters",
            "select payload from dead_letters_view",
            "select * from dead_letters_view",
            "select payload from parked_events",
            "select payload from event_decisions",
            "select hash from api_keys",
            "select name from api_keys",
            "select * from audit_log",
            "select * from idempotent_calls",
            "update orders_view set status = 'Lost'",
            "delete from orders_1.orders",
            "insert into held_keys select * from held_keys",
            "truncate orders_1.ledger",
            "select forget_audit(0, 1)",
            "create table public.mine ()",
            "create schema mine",
            "create view orders_1.mine as select 1",
            "set role streamview_writer",
            "set role streamview_owner",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_changes_rows_and_neither_the_schema_nor_what_was_audited() {
    let world = world_with_roles().await;
    let writer = connect(&login(&world, "writer", "streamview_writer").await).await;
    let of_schema = ["truncate", "references", "trigger"];
    assert_eq!(rights(&world, "streamview_writer", &of_schema).await, Vec::<String>::new());
    let entry = "insert into audit_log (at, method, route, target, status, trace_id, address, calls)
                 values (now(), 'GET', '/', '/', 200, '', '', 1)";
    assert_done(&writer, &[entry, "select * from audit_log", "select hash from api_keys"]).await;
    assert_denied(
        &writer,
        &[
            "update audit_log set principal = 'somebody else'",
            "delete from audit_log",
            "truncate audit_log",
            "update audit_retention set days = 0",
            "create or replace function forget_audit(days integer, most bigint) returns bigint language sql return 0",
            "create table public.mine ()",
            "create schema mine",
            "create table orders_1.mine ()",
            "alter table orders_1.orders add column mine integer",
            "alter table audit_log disable trigger all",
            "create index on orders_1.orders (status)",
            "drop index orders_1.orders_by_status",
            "drop table orders_1.orders",
            "drop schema orders_1 cascade",
            "truncate orders_1.orders",
            "create or replace view orders_view as select 1",
            "drop view orders_view",
            "alter table view_builds disable row level security",
            "delete from view_builds",
            "delete from event_decisions",
            "delete from api_keys",
            "set role streamview_owner",
        ],
    )
    .await;
    assert_eq!(world.number("select count(*) from audit_log").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_of_ours_is_the_owners_and_nothing_of_others() {
    let world = World::new(1).await;
    let stranger = format!("stranger_{}", world.group.replace('.', "_"));
    let theirs = format!(
        "create role {stranger}; create view report as select order_id from orders_view;
         create view mine as select status from orders_1.orders; alter view mine owner to {stranger};
         create table notes (text text)"
    );
    world.sql.batch_execute(&theirs).await.unwrap();
    for _ in 0..2 {
        done(&world, &["migrate", "--roles"], &world.database).await;
    }
    let query = "select coalesce(string_agg(c.oid::regclass::text, ' ' order by c.oid::regclass::text), '')
                 from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 where (n.nspname = 'public' or n.nspname = 'orders_1') and c.relkind in ('r', 'v', 'S')
                   and c.relowner <> 'streamview_owner'::regrole";
    assert_eq!(world.row(query).await.get::<_, String>(0), "mine notes report");
    let schemas =
        "select count(*) from pg_namespace where nspname = 'orders_1' and nspowner = 'streamview_owner'::regrole";
    assert_eq!(world.number(schemas).await, 1);
    // Exact: what somebody has granted beyond it goes, and what somebody took comes back, with any `migrate`.
    let spoilt = "grant select on api_keys, dead_letters to streamview_reader; revoke select on orders_view from streamview_reader";
    world.sql.batch_execute(spoilt).await.unwrap();
    assert_eq!(done(&world, &["migrate"], &world.database).await.trim(), "the database is up to date");
    let read = rights(&world, "streamview_reader", &["select"]).await;
    assert!(!read.iter().any(|found| found.contains("api_keys") || found.starts_with("dead_letters:")), "{read:?}");
    assert!(read.contains(&"orders_view: select".to_owned()), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_takes_the_role_that_it_is_there_for_if_it_may() {
    let (world, without) = (world_with_roles().await, World::new(1).await);
    let who =
        async |client: Client| client.query_one("select current_user::text", &[]).await.unwrap().get::<_, String>(0);
    let as_login = |url: &str| DatabaseSettings { url: SecretUrl::new(url), ..Config::defaults().database };
    let all = async |settings: &DatabaseSettings| {
        let (of_operators, of_views) = pool::read_pools(settings).unwrap();
        let pooled = async |pool: streamview::store::read::ReadPool| {
            pool.get().await.unwrap().query_one("select current_user::text", &[]).await.unwrap().get::<_, String>(0)
        };
        [
            who(pool::connect_owner(settings, "public").await.unwrap()).await,
            who(pool::connect_owning_operator(settings).await.unwrap()).await,
            who(pool::connect_writer(settings, "public").await.unwrap()).await,
            who(pool::connect_operator(settings).await.unwrap()).await,
            who(pool::connect_seats(settings).await.unwrap()).await,
            pooled(of_operators).await,
            pooled(of_views).await,
            who(pool::connect_lookup(&settings.for_reads()).await.unwrap().0).await,
        ]
    };
    let (owner, writer, reader) = ("streamview_owner", "streamview_writer", "streamview_reader");
    let service = login(&world, "service", "streamview_writer, streamview_owner").await;
    let wanted = [owner, owner, writer, writer, writer, writer, writer, writer];
    assert_eq!(all(&as_login(&service)).await, wanted);
    assert_eq!(all(&as_login(&world.database)).await, wanted, "a superuser puts down what it does not need");
    let reads = login(&world, "reads", "streamview_reader").await;
    let apart = DatabaseSettings { read_url: SecretUrl::new(reads), ..as_login(&service) };
    assert_eq!(all(&apart).await, [owner, owner, writer, writer, writer, writer, reader, reader]);
    let only_writes = login(&world, "writer", "streamview_writer").await;
    let itself = only_writes.split(['/', '@']).nth(2).unwrap();
    assert_eq!(all(&as_login(&only_writes)).await, [itself, itself, writer, writer, writer, writer, writer, writer]);
    assert_eq!(all(&as_login(&without.database)).await, ["postgres"; 8], "a database without roles");
}

async fn rebuild(instance: &Instance) -> Value {
    let begun = instance.posted("/ops/views/rebuild", &json!({ "reason": "by roles" }), 202).await;
    until_over(instance, begun["id"].as_i64().unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_service_runs_by_a_writer_that_may_act_as_owner_and_a_reader() {
    let world = world_with_roles().await;
    let service = login(&world, "service", "streamview_writer, streamview_owner").await;
    let reads = login(&world, "reads", "streamview_reader").await;
    let settings = [("STREAMVIEW_DATABASE__URL", service.as_str()), ("STREAMVIEW_DATABASE__READ_URL", reads.as_str())];
    let instance = world.start_with(&settings).await;
    three_orders(&world).await;
    instance.order_at("whole", 4).await;
    let read = async |instance: &Instance| {
        for path in ["/orders?status=Created", "/orders/bad", "/orders/whole?asOfSequence=2", "/orders/whole/events"] {
            instance.json(path).await;
        }
        for path in ["/ops/held", "/ops/dead-letters", "/ops/views", "/ops/lags", "/ops/audit"] {
            instance.json(path).await;
        }
        instance.until_ready().await;
    };
    read(&instance).await;
    assert!(!instance.json("/orders/bad").await["held"]["deadLetterId"].is_null());
    // Who does what: reads of views come as the reader, the rest as the writer, and nobody as owner for longer than it takes.
    let sessions = "select distinct application_name, usename::text from pg_stat_activity
                    where datname = current_database() and application_name like 'streamview-%' order by 1, 2";
    let sessions: Vec<(String, String)> =
        world.sql.query(sessions, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    let comes =
        |application: &str, user: &str| sessions.iter().any(|(found, by)| found == application && by.starts_with(user));
    assert!(comes("streamview-lookup", "reads_") && !comes("streamview-lookup", "service_"), "{sessions:?}");
    assert!(comes("streamview-read", "reads_") && comes("streamview-read", "service_"), "{sessions:?}");
    assert!(comes("streamview-projector", "service_") && !comes("streamview-projector", "reads_"), "{sessions:?}");

    // Decisions, mending, verification.
    instance.posted("/ops/held/gap/skip", &json!({ "reason": "lost" }), 202).await;
    instance.order_at("gap", 3).await;
    instance.posted("/ops/orders/whole/rebuild", &json!({ "reason": "to see" }), 200).await;
    let verify = instance.posted("/ops/verify", &json!({ "reason": "to see" }), 202).await;
    let verified = until_over(&instance, verify["id"].as_i64().unwrap()).await;
    assert_eq!(verified["state"], "done", "{verified}");

    // A new build, read by the reader through the names and directly; back, and on.
    let rebuilt = rebuild(&instance).await;
    assert_eq!((&rebuilt["state"], &rebuilt["toBuild"]), (&json!("done"), &json!(2)), "{rebuilt}");
    read(&instance).await;
    let reader = connect(&reads).await;
    assert_done(&reader, &["select * from orders_2.orders", "select * from orders_2.ledger"]).await;
    assert_denied(&reader, &["delete from orders_2.orders", "create table orders_2.mine ()"]).await;
    let writer = connect(&login(&world, "writer", "streamview_writer").await).await;
    assert_done(&writer, &["update orders_2.orders set status = status"]).await;
    assert_denied(&writer, &["truncate orders_2.orders", "drop table orders_2.orders"]).await;
    let owned = "select count(*) from pg_tables where schemaname = 'orders_2' and tableowner = 'streamview_owner'";
    assert_eq!(world.number(owned).await, 4);
    world.publish(life("later", 3).iter().map(TestEvent::record)).await;
    instance.order_at("later", 3).await;
    let back = instance.posted("/ops/views/orders/rollback", &json!({ "reason": "to see" }), 202).await;
    let back = until_over(&instance, back["id"].as_i64().unwrap()).await;
    assert_eq!((&back["state"], &back["toBuild"]), (&json!("done"), &json!(1)), "{back}");
    instance.order_at("later", 3).await;
    read(&instance).await;
    instance.stop().await;

    // What is left over goes, and keys are made, by the command line.
    world.sql.batch_execute("update view_builds set kept_until = now() where not active").await.unwrap();
    let said = done(&world, &["views", "gc"], &service).await;
    assert!(said.contains("orders_2") || said.contains("build 2"), "{said}");
    assert_eq!(world.number("select count(*) from pg_namespace where nspname = 'orders_2'").await, 0);
    done(&world, &["apikey", "create", "--name", "somebody", "--role", "reader"], &service).await;
    done(&world, &["apikey", "revoke", "1"], &service).await;
    assert!(world.number("select count(*) from audit_log").await > 0, "calls were noted");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_view_is_filled_in_bulk_by_a_service_that_may_act_as_owner() {
    let world = world_with_roles().await;
    let service = login(&world, "service", "streamview_writer, streamview_owner").await;
    world.publish((0..50).flat_map(|n| life(&format!("o-{n}"), 4)).map(|event| event.record())).await;
    let only_writes = login(&world, "writer", "streamview_writer").await;
    let (code, said) = run(&world, &["load"], &only_writes).await;
    assert!(code == Some(1) && said.contains("has to own them"), "{said}");
    done(&world, &["load"], &service).await;
    assert_eq!(world.number("select count(*) from orders_view").await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_loses_only_what_the_owner_lets_go() {
    let world = world_with_roles().await;
    let service = login(&world, "service", "streamview_writer").await;
    let insert = "insert into audit_log (at, method, route, target, status, trace_id, address, calls)
                  select now() - make_interval(days => d), 'GET', '/', '/', 200, '', '', 1 from unnest(array[1, 300, 366, 400]) d";
    world.sql.batch_execute(insert).await.unwrap();
    let settings = DatabaseSettings { url: SecretUrl::new(service.as_str()), ..Config::defaults().database };
    let client = pool::connect_operator(&settings).await.unwrap();
    // It may take nothing out itself, and that is as it should be.
    doctor(&world, &[("STREAMVIEW_DATABASE__URL", service.as_str())]).await.well(&["database.grants"]);
    // Whoever has the writer's rights asks for everything; the owner keeps 365 days, as was configured for `migrate`.
    assert_eq!(audit::forget(&client, 0, 1).await.unwrap(), 1, "so many at a time");
    assert_eq!(audit::forget(&client, -1_000, 100).await.unwrap(), 1);
    assert_eq!(world.number("select count(*) from audit_log").await, 2);
    // For ever.
    let days = ("STREAMVIEW_AUDIT__RETENTION_DAYS", "0");
    let command = world.launch_command(&["migrate"], &[days]);
    assert!(command.until_ended().await.success(), "{}", command.log_text());
    world.sql.batch_execute(insert).await.unwrap();
    assert_eq!(audit::forget(&client, 1, 100).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_the_reader_lacks_and_a_log_in_that_it_has_not_name_the_setting() {
    let world = world_with_roles().await;
    let reads = login(&world, "reads", "streamview_reader").await;
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__READ_URL", reads.as_str())]).await;
    world.sql.batch_execute("revoke select on orders_view from streamview_reader").await.unwrap();
    assert_eq!(instance.refusal("/orders", 500).await["code"], "internal_error");
    let log = instance.log_text();
    for words in ["permission denied for view orders_view", "database.read_url", "streamview migrate --roles"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    instance.json("/ops/held").await;

    let nobody = world.database.replacen("://postgres@", "://nobody_has_made_it@", 1);
    let instance = world.launch(&[("STREAMVIEW_DATABASE__READ_URL", nobody.as_str())]);
    let ready = until("readiness says why", PATIENCE, || async {
        let ready: Value = instance.http.get(instance.url("/readyz")).send().await.ok()?.json().await.ok()?;
        let checks = ready["checks"].as_array()?.clone();
        checks.into_iter().find(|check| check["name"] == "read_database")
    })
    .await;
    assert_eq!(ready["status"], "unavailable", "{ready}");
    assert!(ready["detail"].as_str().unwrap().contains("nobody_has_made_it"), "{ready}");
    assert_eq!(instance.refusal("/orders", 503).await["code"], "database_unavailable");
    instance.json("/ops/held").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_are_made_by_who_may_create_them_and_owns_the_database_and_by_nobody_else() {
    let postgres = own_postgres();
    let maintenance = postgres.url("postgres");
    execute(&maintenance, "create role deployer login createrole; create role poor login").await;
    execute(&maintenance, "create database shop owner deployer").await;
    let by = |who: &str| with_database(&maintenance.replacen("postgres@", &format!("{who}@"), 1), "shop");
    let world = World::on(&shared().kafka, &maintenance, 1, &[]).await;

    done(&world, &["migrate"], &by("deployer")).await;
    let (code, said) = run(&world, &["migrate", "--roles"], &by("poor")).await;
    assert_eq!(code, Some(1), "{said}");
    for _ in 0..2 {
        done(&world, &["migrate", "--roles"], &by("deployer")).await;
    }
    assert_eq!(done(&world, &["migrate"], &by("deployer")).await.trim(), "the database is up to date");
    execute(&maintenance, "create role service login in role streamview_writer, streamview_owner").await;
    let url = by("service");
    let instance = world.start_with(&[("STREAMVIEW_DATABASE__URL", url.as_str())]).await;
    world.publish(life("o-1", 4).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    let rebuilt = rebuild(&instance).await;
    assert_eq!(rebuilt["state"], "done", "{rebuilt}");
}
