//! What operators are promised on the command line: the same as over HTTP, also while nothing runs.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::orders::{TestEvent, created, item_added, life};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// Runs a sub-command; its exit code, standard output and standard error.
pub async fn run(world: &World, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    command.args(arguments).envs(world.environment()).env("USER", "tester");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok(); // most sub-commands do not read it
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs a sub-command that must succeed.
async fn done(world: &World, arguments: &[&str]) -> String {
    let (code, text, error) = run(world, arguments, "").await;
    assert_eq!(code, 0, "{arguments:?}: {text}{error}");
    text
}

async fn done_json(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(world, &[arguments, &["--json"]].concat()).await).unwrap()
}

fn broken(event: &TestEvent) -> TestRecord {
    TestRecord { payload: Some(b"{ this is no event".to_vec()), ..event.record() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_what_the_api_shows_and_decides_while_nothing_runs() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let (gap, bad, worse) = (life("gap", 5), life("bad", 3), life("worse", 2));
    let records = [&gap[0], &gap[3], &gap[4], &bad[0], &bad[2], &worse[0]].map(TestEvent::record);
    world.publish(records.into_iter().chain([broken(&bad[1]), broken(&worse[1])])).await;
    world.until_consumed(8).await;
    let letter = world.number("select id from dead_letters where key = 'bad'").await.to_string();
    let worse = world.number("select id from dead_letters where key = 'worse'").await.to_string();
    // What is shown has times that the relay and the keeper set: nothing changes any more between two looks.
    world.until_published().await;
    until("the keeper has proven the gap", PATIENCE, || async {
        let open = "select count(*) from held_keys where reason = 'gap' and proven_at is null";
        (world.number(open).await == 0).then_some(())
    })
    .await;

    for (arguments, path) in [
        (&["held", "list"][..], "/ops/held".to_owned()),
        (&["held", "list", "--with-reason", "gap", "--newer-than", "1h"], "/ops/held?reason=gap".to_owned()),
        (&["held", "show", "gap"], "/ops/held/gap".to_owned()),
        (&["dlq", "list"], "/ops/dead-letters".to_owned()),
        (&["dlq", "show", &letter], format!("/ops/dead-letters/{letter}")),
    ] {
        assert_eq!(done_json(&world, arguments).await, instance.json(&path).await, "{arguments:?}");
    }
    let text = done(&world, &["held", "list"]).await;
    assert!(text.starts_with("KEY "), "{text}");
    assert!(text.lines().any(|line| line.starts_with("gap ") && line.contains(" 2-3 ")), "{text}");
    let text = done(&world, &["held", "show", "gap"]).await;
    assert!(text.contains("gap-event-4") && text.contains("goes on without numbers 2 to 3"), "{text}");
    let text = done(&world, &["dlq", "show", &letter]).await;
    assert!(text.contains("{ this is no event") && text.contains("x-sequence = 2"), "{text}");
    instance.stop().await;

    // Refusals say what and why.
    for (arguments, code, expected) in [
        (&["held", "skip", "gap"][..], 2, "--reason"),
        (&["held", "skip", "--reason", "x"], 1, "give a key, or --all"),
        (&["held", "skip", "gap", "--key", "gap", "--reason", "x"], 1, "filters go with --all"),
        (&["held", "skip", "--all", "--reason", "x"], 1, "--dry-run first"),
        (&["held", "skip", "gap", "--from", "9", "--reason", "x"], 1, "out_of_reach"),
        (&["held", "show", "nobody"], 1, "held_key_not_found"),
        (&["dlq", "redrive", &letter, "--reason", "x"], 1, "contract_violated"),
        (&["dlq", "list", "--status", "opn"], 2, "possible values: open"),
        (&["held", "list", "--older-than", "soon"], 2, "PT15M"),
    ] {
        let (found, _, error) = run(&world, arguments, "").await;
        assert_eq!(found, code, "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert_eq!(world.number("select count(*) from event_decisions").await, 0);

    let skip = ["held", "skip", "gap", "--reason", "lost", "--idempotency-key", "once"];
    let first = done_json(&world, &skip).await;
    assert_eq!((&first["decisions"][0]["actor"], &first["decisions"][0]["sequenceTo"]), (&json!("tester"), &json!(3)));
    assert_eq!(done_json(&world, &skip).await, first, "the same call again has no further effect");
    let replace = ["dlq", "replace", &letter, "--payload", "-", "--reason", "mended"];
    let (code, text, error) = run(&world, &replace, &bad[1].body.to_string()).await;
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("number 2 of `bad`"), "{text}");
    let filter = ["dlq", "skip", "--all", "--with-reason", "invalid_json", "--reason", "x"];
    let told = done(&world, &[&filter[..], &["--dry-run"]].concat()).await;
    assert!(told.contains("1 match, 1 can be decided about") && told.contains("--expect 1"), "{told}");
    let text = done(&world, &[&filter[..], &["--expect", "1"]].concat()).await;
    assert!(text.contains("1 decided") && text.contains(&worse), "{text}");
    assert_eq!(world.number("select count(*) from event_decisions").await, 3);

    let instance = world.start().await;
    for (order, sequence) in [("gap", 5), ("bad", 3)] {
        assert_eq!(instance.order_at(order, sequence).await["held"], Value::Null);
    }
    assert_eq!(done_json(&world, &["dlq", "list"]).await["items"], json!([]));
    let audit = instance.json("/ops/decisions?actor=tester").await;
    assert_eq!(audit["items"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_topic_are_taken_over_once_and_redriven() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let large = created("large").with("note", "x".repeat(2_000).into());
    world.publish([large.record(), item_added("large", 2).record(), broken(&created("bad"))]).await;
    world.until_consumed(3).await;
    instance.stop().await;
    // As if a stricter instance had refused the large one, and its table had been lost since.
    let strict = [("STREAMVIEW_PROJECTOR__MAX_RECORD_BYTES", "1000")];
    world
        .sql
        .batch_execute(
            "truncate orders_1.orders, orders_1.order_items, orders_1.ledger; \
        delete from projection_progress; delete from held_keys; delete from dead_letters",
        )
        .await
        .unwrap();
    let instance = world.start_with(&strict).await;
    world.until_consumed(3).await;
    world.until_published().await;
    instance.stop().await;
    world.sql.execute("delete from dead_letters", &[]).await.unwrap();

    let text = done(&world, &["dlq", "import"]).await;
    // The letter about `bad` is on the topic twice: it was refused before and after the table was emptied.
    assert_eq!(text, "3 read, 2 imported, 1 known already\n");
    assert_eq!(done(&world, &["dlq", "import"]).await, "3 read, 0 imported, 3 known already\n");
    let large = done_json(&world, &["dlq", "list", "--with-reason", "record_too_large"]).await;
    assert_eq!((&large["items"][0]["key"], &large["items"][0]["sequence"]), (&json!("large"), &json!(1)));
    world.sql.execute("delete from dead_letters", &[]).await.unwrap();
    // All of it is one document.
    let told = done_json(&world, &["dlq", "import", "--redrive", "--reason", "the bound was raised"]).await;
    assert_eq!((&told["read"], &told["imported"], &told["known"]), (&json!(3), &json!(2), &json!(1)), "{told:#}");
    let redriven = told["redriven"].as_array().unwrap();
    let counts =
        redriven.iter().map(|told| [&told["matched"], &told["decided"], &told["impossible"]]).collect::<Vec<_>>();
    assert_eq!(counts, [[&json!(2), &json!(1), &json!(1)]], "{told:#}");
    assert_eq!(redriven[0]["impossibleSample"][0]["code"], "contract_violated");
    let again = ["dlq", "import", "--redrive", "--reason", "the bound was raised"];
    assert_eq!(done(&world, &again).await, "3 read, 0 imported, 3 known already\n");
    let plain = done_json(&world, &["dlq", "import"]).await;
    assert_eq!(plain, json!({ "read": 3, "imported": 0, "known": 3 }));

    let instance = world.start().await;
    assert_eq!(instance.order_at("large", 2).await["held"], Value::Null);
    assert_eq!(instance.json("/ops/dead-letters").await["items"][0]["key"], "bad");
    assert_eq!(world.number("select count(*) from dead_letters where published_at is null").await, 0);
}

/// As with `streamview openapi | head`, but that nobody reads at all.
#[test]
fn whoever_stops_reading_makes_no_command_fail() {
    for arguments in [&["openapi"][..], &["config", "show"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
        let output = command.args(arguments).stdout(writer).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        assert!(!error.contains("panicked") && !error.contains("error"), "{arguments:?}: {error}");
    }
}

/// Without its settings it keeps four heaps for each core, and what is free for ten seconds.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn the_allocator_has_the_settings_of_the_binary() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    let output = command.arg("--version").env("MALLOC_CONF", "stats_print:true").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    for setting in ["opt.narenas: 4", "opt.dirty_decay_ms: 500", "opt.background_thread: true"] {
        assert!(told.contains(setting), "{setting}: {told}");
    }
}
