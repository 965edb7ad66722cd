//! What an operator decides is folded with: at once, after a crash, and in every later build.

use serde_json::json;
use streamview::domain::record::Headers;

use crate::poison::refuse_to_store;
use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::orders::{
    Decided, Decisions, TestEvent, created, item_added, life, oracle_with, status_changed, stored,
};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Decides as the repair API does, but without its rules: `values` are the columns after `view`.
async fn decide(world: &World, columns: &str, values: &str) {
    let statement = format!(
        "begin; select from view_builds where view = 'orders' for update; \
         update projection_progress set decisions = decisions + 1 where view = 'orders'; \
         with decided as (insert into event_decisions (view, reason, actor, {columns}) \
                          values ('orders', 'a test', 'tester', {values}) returning id) \
         insert into decision_outcomes (decision_id, view, build) \
         select id, view, build from decided, view_builds where view = 'orders'; commit"
    );
    world.sql.batch_execute(&statement).await.unwrap();
}

/// Puts `event` in the place of a record that was read at `offset`.
async fn replace(world: &World, event: &TestEvent, offset: i64) {
    let mut headers = Vec::new();
    for (name, value) in event.record().headers {
        Headers::push(&mut headers, name.as_bytes(), Some(value.as_slice()));
    }
    let headers: String = headers.iter().map(|byte| format!("{byte:02x}")).collect();
    let TestEvent { order_id, sequence, body } = event;
    let topic = &world.topic;
    let values = format!(
        "'replace', '{order_id}', {sequence}, {sequence}, '{topic}', 0, {offset}, convert_to('{body}', 'UTF8'), '\\x{headers}'"
    );
    let columns = "action, key, sequence, sequence_to, topic, partition, \"offset\", payload, headers";
    decide(world, columns, &values).await;
}

async fn until_taken(world: &World, decisions: i64) {
    until("the decisions are taken", PATIENCE, || async {
        let taken = "select count(*) from decision_outcomes where taken_at is not null";
        (world.number(taken).await == decisions).then_some(())
    })
    .await;
}

/// The rows of the live build and of a build that starts from nothing are the same.
async fn assert_rebuilds_alike(world: &World, live: Instance) {
    let before = stored(world).await;
    live.stop().await;
    let _rebuilt = world.rebuild().await;
    assert_eq!(stored(world).await, before, "a rebuild honours the decisions");
}

/// As a later version may write it. To guess would be to lose an event, or to make one up.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_we_do_not_know_stops_projector_and_desk_by_name() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    world.publish([events[0].record(), events[3].record()]).await;
    world.until_consumed(2).await;
    let newer = "alter table event_decisions drop constraint event_decisions_action_check";
    world.sql.batch_execute(newer).await.unwrap();
    decide(&world, "action, key, sequence, sequence_to, payload", "'explode', 'o-1', 2, 3, ''").await;

    instance.until_halted("unknown_word").await;
    let halt = &instance.json("/ops/consumer").await["views"][0]["halt"]["detail"];
    assert_eq!(halt, "\"explode\" is no action; known are skip, replace, redrive");
    for path in ["/ops/decisions", "/ops/held/o-1"] {
        assert_eq!(instance.refusal(path, 500).await["code"], "internal_error", "{path}");
    }
    let skip = json!({ "reason": "x", "from": 2, "to": 3 });
    assert_eq!(instance.posted("/ops/held/o-1/skip", &skip, 500).await["code"], "internal_error");
    let read_failed = instance.log_text().matches("is no action; known are skip, replace, redrive").count();
    assert!(read_failed >= 4, "the halt and each failed read name the word: {}", instance.log_text());
    let untouched = "select count(*) from decision_outcomes where taken_at is null and refused is null";
    assert_eq!(world.number(untouched).await, 1);
    assert_eq!(world.number("select count(*) from held_keys").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_skipped_gap_heals_and_a_rebuild_skips_it_too() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let events = life("o-1", 8);
    world.publish(events.iter().filter(|event| !matches!(event.sequence, 3..=5)).map(|event| event.record())).await;
    world.until_consumed(5).await;
    decide(&world, "action, key, sequence, sequence_to", "'skip', 'o-1', 3, 5").await;
    until_taken(&world, 1).await;
    let order = instance.order_at("o-1", 8).await;
    assert!(order["held"].is_null(), "{order}");
    let effects = "select string_agg(sequence || ' ' || effect, ', ' order by sequence) from order_events_view";
    let ledger: String = world.row(effects).await.get(0);
    assert_eq!(ledger, "1 applied, 2 applied, 5 skipped, 6 applied, 7 applied, 8 applied");

    // What was skipped is late now, whoever sends it: the order goes on.
    world.publish([events[3].record(), status_changed("o-1", 9, "Returned").record()]).await;
    assert_eq!(instance.order_at("o-1", 9).await["status"], "Returned");
    assert_rebuilds_alike(&world, instance).await;
}

/// An event may have it that was applied before such ids were refused. Nobody is to blame then, and nothing would go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_skipped_although_another_order_has_the_id_that_is_made_up_for_it() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let mut broken = item_added("o-1", 2).record();
    broken.payload = Some(b"{ broken".to_vec());
    let taken = item_added("o-2", 2).with("eventId", json!("skipped:o-1:2"));
    world.publish([created("o-1").record(), broken, created("o-2").record(), taken.record()]).await;
    world.until_consumed(4).await;
    let order = instance.order_at("o-2", 1).await;
    assert_eq!(order["held"]["reason"], "event_id_reused", "{order}");
    instance.stop().await;
    let before = "update orders_1.orders set last_event_id = 'skipped:o-1:2', dedup_event_id = 'skipped:o-1:2' \
                  where order_id = 'o-2'";
    assert_eq!(world.sql.execute(before, &[]).await.unwrap(), 1);

    let instance = world.start().await;
    decide(&world, "action, key, sequence, sequence_to", "'skip', 'o-1', 2, 2").await;
    assert_eq!(instance.order_at("o-1", 2).await["lastEventId"], "skipped:o-1:2+");
    world.publish([item_added("o-1", 3).record()]).await;
    instance.order_at("o-1", 3).await;
}

/// What is taken lies behind its order. One that is loaded with decisions is not remembered: it would be loaded anew, ids and
/// all, with each of its batches for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_remembered_once_all_that_was_decided_about_it_is_taken() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 5);
    world.publish(events.iter().filter(|event| event.sequence != 3).map(|event| event.record())).await;
    world.until_consumed(4).await;
    decide(&world, "action, key, sequence, sequence_to", "'skip', 'o-1', 3, 3").await;
    until_taken(&world, 1).await;
    // The next process has to load it.
    instance.stop().await;

    let instance = world.start().await;
    world.publish([status_changed("o-1", 6, "Returned").record()]).await;
    instance.order_at("o-1", 6).await;
    until("the order is remembered", PATIENCE, || async {
        (instance.metric("streamview_cache_bytes", &[]).await > 0.0).then_some(())
    })
    .await;
    let decisions = include_str!("../../src/store/sql/load_decisions.sql");
    let keys: &[&str] = &["o-1"];
    for (with_taken, loaded) in [(false, 0), (true, 1)] {
        let rows = world.sql.query(decisions, &[&"orders", &1i32, &keys, &with_taken]).await.unwrap();
        assert_eq!(rows.len(), loaded, "with what is taken: {with_taken}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_record_takes_its_place_also_when_the_decision_came_while_nothing_ran() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let mut broken = item_added("o-1", 2).record();
    broken.payload = Some(b"{ broken".to_vec());
    world.publish([created("o-1").record(), broken, item_added("o-1", 3).record()]).await;
    world.until_consumed(3).await;
    instance.stop().await;

    let payload = item_added("o-1", 2).with("qty", json!("7")).body.to_string();
    let letter = world.row("select topic, partition, \"offset\", headers from dead_letters").await;
    let headers: Vec<u8> = letter.get(3);
    let headers: String = headers.iter().map(|byte| format!("{byte:02x}")).collect();
    let (topic, partition, offset): (&str, i32, i64) = (letter.get(0), letter.get(1), letter.get(2));
    let values = format!(
        "'replace', 'o-1', 2, 2, '{topic}', {partition}, {offset}, convert_to('{payload}', 'UTF8'), '\\x{headers}'"
    );
    decide(&world, "action, key, sequence, sequence_to, topic, partition, \"offset\", payload, headers", &values).await;

    let instance = world.start().await;
    let order = instance.order_at("o-1", 3).await;
    assert_eq!((&order["itemCount"], &order["held"]), (&json!(3), &json!(null)), "{order}");
    assert_eq!(order["items"][1]["qty"], "7");
    instance.until_metric("streamview_decisions_taken_total", &["action=\"replace\""], 1.0).await;
    assert_rebuilds_alike(&world, instance).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_cannot_be_folded_with_is_refused_and_the_order_waits_on() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    world.until_consumed(2).await;
    decide(
        &world,
        "action, key, sequence, sequence_to, payload, headers",
        "'replace', 'o-1', 2, 2, convert_to('{\"type\":\"OrderItemAdded\"}', 'UTF8'), ''",
    )
    .await;
    until("the decision is refused", PATIENCE, || async {
        let why: Option<String> = world.row("select refused from decision_outcomes").await.get(0);
        why
    })
    .await;
    let order = instance.order_at("o-1", 1).await;
    assert_eq!(order["held"]["reason"], "gap", "{order}");
    decide(&world, "action, key, sequence, sequence_to", "'skip', 'o-1', 2, 2").await;
    instance.order_at("o-1", 3).await;
    assert_rebuilds_alike(&world, instance).await;
}

/// Two decisions meet the records behind them in one batch: of one order Postgres refuses what was decided, of the other one the
/// record.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_only_postgres_refuses_is_refused_and_not_the_record_beside_it() {
    let world = World::new(1).await;
    refuse_to_store(&world, 1, "new.event_id like 'unstorable-%'").await;
    let instance = world.start().await;
    world.publish(["bad-decision", "bad-record"].map(|order| created(order).record())).await;
    world.until_consumed(2).await;
    instance.stop().await;

    let unstorable = |event: TestEvent| {
        let id = format!("unstorable-{}", event.order_id);
        event.with("eventId", id.into())
    };
    replace(&world, &unstorable(item_added("bad-decision", 2)), 1_000).await;
    replace(&world, &item_added("bad-record", 2), 1_001).await;
    // As in a build that was made after them: nobody brings them to their orders, whose next records do.
    world.sql.batch_execute("delete from decision_outcomes").await.unwrap();
    world.publish([item_added("bad-decision", 3).record(), unstorable(item_added("bad-record", 3)).record()]).await;
    let instance = world.start().await;
    world.until_consumed(4).await;

    let query = "select d.key, o.refused from event_decisions d join decision_outcomes o on o.decision_id = d.id";
    let outcomes = world.sql.query(&format!("{query} order by d.id"), &[]).await.unwrap();
    let refused: Vec<(&str, bool)> =
        outcomes.iter().map(|row| (row.get(0), row.get::<_, Option<&str>>(1).is_some())).collect();
    assert_eq!(refused, [("bad-decision", true), ("bad-record", false)]);
    assert!(outcomes[0].get::<_, &str>(1).contains("value out of range (SQLSTATE 22003)"));
    let letter = world.row("select key, sequence, reason from dead_letters").await;
    let letter: (&str, i64, &str) = (letter.get(0), letter.get(1), letter.get(2));
    assert_eq!(letter, ("bad-record", 3, "unrepresentable"));
    assert_eq!(instance.order_at("bad-record", 2).await["held"]["reason"], "poison");
    // The order waits on, with what came behind.
    world.publish([item_added("bad-decision", 2).record()]).await;
    assert_eq!(instance.order_at("bad-decision", 3).await["held"], json!(null));
    assert_eq!(world.conservation().await, [5, 4, 0, 0, 0, 0, 1]);
}

/// Decisions that follow each other, or what stands before them, are taken at once: where Postgres refuses one, it is that one.
#[tokio::test(flavor = "multi_thread")]
async fn of_decisions_that_follow_each_other_the_one_that_postgres_refuses_is_refused() {
    let world = World::new(1).await;
    refuse_to_store(&world, 1, "new.event_id like 'unstorable-%'").await;
    let instance = world.start().await;
    world.publish(["behind", "two"].map(|order| created(order).record())).await;
    world.until_consumed(2).await;
    instance.stop().await;

    let unstorable = |event: TestEvent| {
        let id = format!("unstorable-{}", event.order_id);
        event.with("eventId", id.into())
    };
    replace(&world, &unstorable(item_added("behind", 3)), 1_000).await;
    replace(&world, &item_added("two", 2), 1_001).await;
    replace(&world, &unstorable(item_added("two", 3)), 1_002).await;
    world.publish([item_added("behind", 2).record()]).await;
    let instance = world.start().await;
    world.until_consumed(3).await;

    let query = "select d.key, d.sequence, o.refused is not null from event_decisions d \
                 join decision_outcomes o on o.decision_id = d.id \
                 where o.taken_at is not null or o.refused is not null order by d.id";
    let outcomes = until("all have an outcome", PATIENCE, || async {
        let rows = world.sql.query(query, &[]).await.unwrap();
        (rows.len() == 3).then_some(rows)
    })
    .await;
    let outcomes: Vec<(&str, i64, bool)> = outcomes.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(outcomes, [("behind", 3, true), ("two", 2, false), ("two", 3, true)]);
    for order in ["behind", "two"] {
        instance.order_at(order, 2).await;
    }
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    assert_eq!(world.conservation().await, [3, 3, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_proven_once_every_partition_is_past_its_end() {
    let world = World::new(3).await;
    let instance = world.start().await;
    world.publish([created("o-1").record(), item_added("o-1", 3).record()]).await;
    instance.until_metric("streamview_proven_gaps", &[], 1.0).await;
    let proven = "select count(*) from held_keys where proven_at is not null and key = 'o-1'";
    assert_eq!(world.number(proven).await, 1);
    // The missing event comes after all: the gap closes, the next one has to be proven anew.
    world.publish([item_added("o-1", 2).record(), item_added("o-1", 5).record()]).await;
    let order = instance.order_at("o-1", 3).await;
    assert_eq!(order["held"]["reason"], "gap", "{order}");
    until("the new gap is proven", PATIENCE, || async {
        let query = "select count(*) from held_keys where proven_at is not null and missing_from = 4";
        (world.number(query).await == 1).then_some(())
    })
    .await;
}

/// Looks at what is held, as an operator would, and decides about this share of it at random, through `api`.
async fn operate(world: &World, api: &Instance, random: &mut fastrand::Rng, share: f32) {
    let held = "select key, missing_from, coalesce(missing_to, missing_from), missing_from = any (refused) from held_keys order by key";
    for row in world.sql.query(held, &[]).await.unwrap() {
        let (key, from, to, is_refused): (&str, i64, i64, bool) = (row.get(0), row.get(1), row.get(2), row.get(3));
        if random.f32() >= share {
            continue; // perhaps the event comes by itself
        }
        let letter = "select id from dead_letters where key = $1 and sequence = $2 order by id limit 1";
        let letter = world.sql.query_opt(letter, &[&key, &from]).await.unwrap().filter(|_| is_refused);
        let (path, body) = match (letter, random.u8(0..3)) {
            (Some(letter), 0) => (
                format!("/ops/dead-letters/{}/replace", letter.get::<_, i64>(0)),
                json!({ "reason": "mended", "payload": mended(key, from).body }),
            ),
            (Some(letter), 1) => {
                (format!("/ops/dead-letters/{}/skip", letter.get::<_, i64>(0)), json!({ "reason": "not worth it" }))
            }
            (_, 0) => (format!("/ops/held/{key}/skip"), json!({ "reason": "lost", "from": from, "to": to })),
            _ => (format!("/ops/held/{key}/skip"), json!({ "reason": "lost" })),
        };
        let answer = api.http.post(api.url(&path)).json(&body).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        // The order may have moved on since we looked, or be decided about already.
        assert!(matches!(status, 202 | 404 | 409), "{path}: {status}: {text}");
    }
}

fn mended(order_id: &str, sequence: i64) -> TestEvent {
    let event = if sequence == 1 { created(order_id) } else { status_changed(order_id, sequence, "Mended") };
    event.with("eventId", json!(format!("{order_id}-mended-{sequence}")))
}

/// What was decided, read back from the audit.
async fn decided(world: &World) -> Decisions {
    let query = "select key, sequence, sequence_to, action, convert_from(payload, 'UTF8') from event_decisions \
                 where key is not null and not revoked";
    let mut decisions = Decisions::new();
    for row in world.sql.query(query, &[]).await.unwrap() {
        let (key, sequence): (String, i64) = (row.get(0), row.get(1));
        let step = match row.get::<_, &str>(3) {
            "skip" => Decided::Skip(row.get(2)),
            _ => {
                let body = serde_json::from_str(row.get(4)).unwrap();
                Decided::Take(TestEvent { order_id: key.clone(), sequence, body })
            }
        };
        decisions.entry(key).or_default().insert(sequence, step);
    }
    decisions
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_histories_with_decisions_and_crashes_are_the_oracle_live_and_rebuilt() {
    futures_util::future::join_all((0..4).map(one_world_of_histories)).await;
}

async fn one_world_of_histories(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(3).await;
    let load = Load::new("o", 50, 100 + seed);
    let records = load.records();
    // Decisions are made through a process that projects nothing, also while no other lives.
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let settings = [("STREAMVIEW_KAFKA__INSTANCE_ID", "a"), ("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "7")];
    let mut projector = None;
    for chunk in records.chunks(records.len().div_ceil(6)) {
        let consumed = world.consumed().await;
        world.publish(chunk.to_vec()).await;
        projector.get_or_insert_with(|| world.launch(&settings));
        until("something is consumed", PATIENCE, || async { (world.consumed().await > consumed).then_some(()) }).await;
        operate(&world, &api, &mut random, 0.5).await;
        if random.bool() {
            // In the middle of it; dropping kills hard.
            projector = None;
            operate(&world, &api, &mut random, 0.5).await;
        }
    }
    let projector = match projector {
        Some(projector) => projector,
        None => world.launch(&settings),
    };
    world.until_consumed(load.len()).await;
    // About all that is held now: however little was held whenever somebody looked before, something is decided about.
    operate(&world, &api, &mut random, 1.0).await;
    until("every decision is taken", PATIENCE, || async {
        let waiting = "select count(*) from decision_outcomes where taken_at is null and refused is null";
        (world.number(waiting).await == 0).then_some(())
    })
    .await;
    let decisions = decided(&world).await;
    assert!(decisions.len() > 3, "seed {seed} decides about something: {decisions:?}");
    assert_eq!(stored(&world).await, oracle_with(load.events(), &decisions), "seed {seed}");
    let [consumed, rest @ ..] = world.conservation().await;
    assert_eq!((consumed, rest.iter().sum::<i64>()), (load.len(), load.len()));
    assert_rebuilds_alike(&world, projector).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_policy_a_proven_gap_is_skipped_with_a_trace_and_poison_is_not() {
    let world = World::new(2).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__GAP_POLICY", "skip")]).await;
    let mut broken = item_added("o-2", 2).record();
    broken.payload = Some(b"{ broken".to_vec());
    // Of o-3 number 2 is not in the log, and number 3 was refused: skipping what is missing would skip that, too.
    let mut behind = item_added("o-3", 3).record();
    behind.payload = Some(b"{ broken".to_vec());
    world.publish([created("o-3").record(), behind, item_added("o-3", 4).record()]).await;
    world.until_consumed(3).await;
    world.publish([created("o-1").record(), item_added("o-1", 4).record()]).await;
    world.publish([created("o-2").record(), broken, item_added("o-2", 3).record()]).await;
    let order = instance.order_at("o-1", 4).await;
    assert!(order["held"].is_null(), "{order}");
    assert_eq!(world.number("select count(*) from held_keys where key = 'o-3' and proven_at is not null").await, 1);
    let decision = world.row("select actor, key, sequence, sequence_to from event_decisions").await;
    assert_eq!((decision.get(0), decision.get(1)), ("gap_policy", "o-1"));
    assert_eq!((decision.get::<_, i64>(2), decision.get::<_, i64>(3)), (2, 3));
    assert_eq!(instance.order_at("o-2", 1).await["held"]["reason"], "poison");
    assert_eq!(instance.order_at("o-3", 1).await["held"]["reason"], "gap");
}

/// An order remembers the lowest 1,000. Those beyond look like a gap once these are set right, and are none.
#[tokio::test(flavor = "multi_thread")]
async fn by_policy_no_number_is_skipped_whose_event_was_refused_however_many_were() {
    let world = World::new(2).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__GAP_POLICY", "skip")]).await;
    let broken = |sequence: i64| {
        let mut record = item_added("o-1", sequence).record();
        record.payload = Some(b"{ broken".to_vec());
        record
    };
    world.publish(std::iter::once(created("o-1").record()).chain((2..=1_003).map(broken))).await;
    world.until_consumed(1_003).await;
    let remembered = json!({ "reason": "not worth it", "from": 2, "to": 1_001 });
    instance.posted("/ops/held/o-1/skip", &remembered, 202).await;
    let order = instance.order_at("o-1", 1_001).await;
    assert!(order["held"].is_null(), "{order}");
    world.publish([item_added("o-1", 1_004).record()]).await;
    until("the gap is proven", PATIENCE, || async {
        let proven =
            "select count(*) from held_keys where key = 'o-1' and proven_at is not null and missing_from = 1002";
        (world.number(proven).await == 1).then_some(())
    })
    .await;
    // The policy skips another one by the same call.
    world.publish([created("o-2").record(), item_added("o-2", 3).record()]).await;
    instance.order_at("o-2", 3).await;
    assert_eq!(instance.order_at("o-1", 1_001).await["held"]["reason"], "gap");
    let open = "select count(*) from dead_letters_view where key = 'o-1' and status = 'open'";
    assert_eq!(world.number(open).await, 2);
    let by_policy = "select count(*) from event_decisions where actor = 'gap_policy' and key = 'o-1'";
    assert_eq!(world.number(by_policy).await, 0);
}
