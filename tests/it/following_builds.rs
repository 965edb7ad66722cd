//! Who follows changes while builds come and go: one without a history, one that is gone, and decisions in between.

use serde_json::{Value, json};
use streamview::builds;
use streamview::builds::switch::{self, Lack, Switch, Switched};
use streamview::domain::build::BuildId;
use streamview::views::orders::TABLES;

use crate::builds::{create, feed, until_consumed_by};
use crate::changes::{records, switch as switch_by_hand, told};
use crate::support::instance::Instance;
use crate::support::listener::Listener;
use crate::support::orders::{TestEvent, item_added, life};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

const HISTORY: &str = "STREAMVIEW_PROJECTOR__HISTORY";

async fn rebuild(instance: &Instance) {
    let begun = instance.posted("/ops/views/rebuild", &json!({ "reason": "another history" }), 202).await;
    let path = format!("/ops/operations/{}", begun["id"]);
    until("the rebuild is done", PATIENCE, || async {
        let operation = instance.json(&path).await;
        assert!(["running", "done"].contains(&operation["state"].as_str().unwrap()), "{operation}");
        (operation["state"] == "done").then_some(())
    })
    .await;
}

fn pairs(order_id: &str, sequences: &[i64]) -> Vec<(String, i64)> {
    sequences.iter().map(|sequence| (order_id.to_owned(), *sequence)).collect()
}

/// The answer to a client that comes back with this cursor.
async fn refusal(instance: &Instance, path: &str, last_id: &str, status: u16) -> Value {
    let response = instance.http.get(instance.url(path)).header("last-event-id", last_id).send().await.unwrap();
    assert_eq!(response.status().as_u16(), status, "{path}");
    response.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_where_readers_read_a_build_without_a_history_and_nothing_is_passed_over_in_silence() {
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(records(&life("o-1", 3))).await;
    instance.order_at("o-1", 3).await;
    instance.stop().await;

    let instance = world.start_with(&[(HISTORY, "off")]).await;
    let urls = ["/orders/changes", "/orders/o-1/changes"].map(|path| instance.url(path));
    let (mut list, mut one) = (Listener::open(&urls[0], "").await, Listener::open(&urls[1], "").await);
    list.block().await.unwrap();
    one.block().await.unwrap();
    world.publish([item_added("o-1", 4).record()]).await;
    assert_eq!((told(&list.take(1).await), told(&one.take(1).await)), (pairs("o-1", &[4]), pairs("o-1", &[4])));
    rebuild(&instance).await;
    assert_eq!((list.next().await, one.next().await), (None, None), "there is no ledger to tell from");
    let refused = refusal(&instance, "/orders/changes", &list.last_id, 404).await;
    assert_eq!(refused["code"], "history_off");
    let mut one = Listener::open(&urls[1], &one.last_id).await;
    world.publish([item_added("o-1", 5).record()]).await;
    let event = one.next().await.unwrap();
    assert_eq!((event.sequence(), &event.data["changedBy"]["eventType"]), (5, &json!(null)));
    let one_id = one.last_id.clone();
    instance.stop().await;

    // And back to one with a history.
    let instance = world.start().await;
    let url = instance.url("/orders/o-1/changes");
    let mut one = Listener::open(&url, &one_id).await;
    rebuild(&instance).await;
    let refused = until("the cutover is known", PATIENCE, || async {
        let request = instance.http.get(instance.url("/orders/changes")).header("last-event-id", &list.last_id);
        let response = request.send().await.unwrap();
        (response.status().as_u16() != 404).then_some(response)
    })
    .await;
    assert_eq!(refused.status().as_u16(), 410, "what happened meanwhile was not noted");
    world.publish([item_added("o-1", 6).record()]).await;
    assert_eq!(one.next().await, None, "the ledger tells more than the row");
    let mut one = Listener::open(&url, &one.last_id).await;
    let event = one.next().await.unwrap();
    assert_eq!((event.sequence(), &event.data["changedBy"]["eventType"]), (6, &json!("OrderItemAdded")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compact_history_tells_as_much_as_a_full_one() {
    let world = World::new(1).await;
    let instance = world.start_with(&[(HISTORY, "compact")]).await;
    let mut list = Listener::open(&instance.url("/orders/changes"), "").await;
    list.block().await.unwrap();
    world.publish(records(&life("o-1", 3))).await;
    let events = list.take(3).await;
    let changed_by =
        json!({ "eventId": "o-1-event-2", "eventType": "OrderItemAdded", "sequence": 2, "effect": "applied" });
    assert_eq!((told(&events), &events[1].data["changedBy"]), (pairs("o-1", &[1, 2, 3]), &changed_by));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_a_row_takes_no_place_of_a_request_that_waits() {
    let world = World::new(1).await;
    let instance = world.start_with(&[(HISTORY, "off"), ("STREAMVIEW_HTTP__MAX_WAITERS", "1")]).await;
    let mut followers = Vec::new();
    for order in ["o-1", "o-2", "o-3"] {
        followers.push(Listener::open(&instance.url(&format!("/orders/{order}/changes")), "").await);
    }
    for order in ["o-1", "o-2", "o-3"] {
        world.publish(records(&life(order, 1))).await;
    }
    for follower in &mut followers {
        assert_eq!(follower.next().await.unwrap().sequence(), 1);
    }
    // They wait for the next one by now.
    let asked = instance.order_at("o-1", 1).await;
    assert_eq!(asked["lastEventSequence"], 1);
    let answer = instance.get("/orders/o-4?minSequence=1&waitMs=300").await;
    assert_eq!(answer.status().as_u16(), 412, "{}", answer.text().await.unwrap());
    assert_eq!(instance.metric("streamview_waiters", &[]).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_leads_nowhere_two_builds_later_is_refused_before_anything_is_answered() {
    let world = World::new(1).await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let old = feed(&world, BuildId::new("orders", 1), &[]);
    let mut live = Listener::open(&api.url("/orders/changes"), "").await;
    live.block().await.unwrap();
    world.publish(records(&life("o-1", 4))).await;
    let last = live.take(4).await.pop().unwrap();
    drop(live);
    old.stop().await;
    let (second, _) = (create(&world, 2).await, create(&world, 3).await);
    switch_by_hand(&world, (1, 2), "{}").await;
    switch_by_hand(&world, (2, 3), "{}").await;
    builds::drop(&world.sql, second).await.unwrap();
    let path = "/orders/changes?status=Paid&customerId=c%201&status=Packed";
    let refused = refusal(&api, path, &last.id, 410).await;
    let restart = "/orders/changes?snapshot=true&status=Packed&status=Paid&customerId=c%201";
    assert_eq!(
        (&refused["code"], &refused["restart"]),
        (&json!("cursor_expired"), &json!(restart)),
        "what was asked for"
    );
    Listener::open(&api.url(restart), "").await;
}

async fn until_taken_by(world: &World, build: i32, decisions: i64) {
    let taken = format!("select count(*) from decision_outcomes where build = {build} and taken_at is not null");
    until(&format!("build {build} has taken {decisions}"), PATIENCE, || async {
        (world.number(&taken).await == decisions).then_some(())
    })
    .await;
}

/// Readers are switched as the operation does it.
async fn switched(world: &World, from: i32, to: i32) -> Switched {
    let insert = "insert into operations (kind, view, phase, request, reason, actor) \
                  values ('rebuild', 'orders', 'cutting_over', '{}', 'a test', 'a test') returning id";
    let operation = world.row(insert).await.get(0);
    let (from, to) = (BuildId::new("orders", from), BuildId::new("orders", to));
    let wanted = Switch { from, to, keep_seconds: 3600.0, operation, scripts: &TABLES };
    let switched = switch::switch(&world.sql, wanted).await.unwrap();
    world.sql.execute("update operations set state = 'done', finished_at = now()", &[]).await.unwrap();
    switched
}

/// What an operator decides reaches each build at its own time, and at no other offset.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_one_build_has_taken_and_the_other_has_not_is_told_once_and_takes_no_order_back() {
    let world = World::new(1).await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let one = BuildId::new("orders", 1);
    let (old, new) = (feed(&world, one, &[]), feed(&world, create(&world, 2).await, &[]));
    let mut live = Listener::open(&api.url("/orders/changes"), "").await;
    live.block().await.unwrap();
    let without = |missing: i64, range: std::ops::RangeInclusive<i64>| -> Vec<TestEvent> {
        life("o-1", *range.end()).into_iter().filter(|e| range.contains(&e.sequence) && e.sequence != missing).collect()
    };
    world.publish(records(&without(3, 1..=5))).await;
    for build in [1, 2] {
        until_consumed_by(&world, build, 4).await;
    }
    assert_eq!(told(&live.take(2).await), pairs("o-1", &[1, 2]));

    // Only the new one takes it, and readers are switched to that.
    old.stop().await;
    let skip = |number: i64| json!({ "reason": "lost", "from": number, "to": number });
    api.posted("/ops/held/o-1/skip", &skip(3), 202).await;
    until_taken_by(&world, 2, 1).await;
    assert!(matches!(switched(&world, 1, 2).await, Switched::Done(_)));
    let events = live.take(3).await;
    assert_eq!(told(&events), pairs("o-1", &[3, 4, 5]));
    assert_eq!(events[0].data["changedBy"]["effect"], "skipped");

    // Only the one that readers read takes the next: going back now would take the order back.
    let old = feed(&world, one, &[]);
    world.publish(records(&without(6, 6..=8))).await;
    for build in [1, 2] {
        until_consumed_by(&world, build, 6).await;
    }
    until_taken_by(&world, 1, 1).await;
    old.stop().await;
    api.posted("/ops/held/o-1/skip", &skip(6), 202).await;
    until_taken_by(&world, 2, 2).await;
    let id = world.number("select max(id) from event_decisions").await;
    let lack = Lack { records: 0, decisions: vec![id] };
    assert_eq!(switched(&world, 2, 1).await, Switched::Behind(lack));
    let old = feed(&world, one, &[]);
    until_taken_by(&world, 1, 2).await;
    assert!(matches!(switched(&world, 2, 1).await, Switched::Done(_)));
    world.publish([item_added("o-1", 9).record()]).await;
    assert_eq!(told(&live.take(4).await), pairs("o-1", &[6, 7, 8, 9]));
    old.stop().await;
    new.stop().await;
}

/// One has the event itself, another one holds no more of the order.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_whose_turn_never_comes_in_a_build_holds_up_no_switch() {
    let world = World::new(1).await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let one = BuildId::new("orders", 1);
    let skip = json!({ "reason": "lost", "from": 3, "to": 3 });
    let (old, ahead) = (feed(&world, one, &[]), feed(&world, create(&world, 2).await, &[]));
    let without_third = life("o-1", 5).into_iter().filter(|event| event.sequence != 3).collect::<Vec<_>>();
    world.publish(records(&without_third)).await;
    for build in [1, 2] {
        until_consumed_by(&world, build, 4).await;
    }
    old.stop().await;
    world.publish([item_added("o-1", 3).record()]).await;
    until_consumed_by(&world, 2, 5).await;
    api.posted("/ops/held/o-1/skip", &skip, 202).await;
    until_taken_by(&world, 2, 1).await;
    let applied = "select count(*) from orders_2.ledger where sequence = 3 and effect = 'applied'";
    assert_eq!(world.number(applied).await, 1, "it is passed over");
    let old = feed(&world, one, &[]);
    until_taken_by(&world, 1, 1).await;
    until_consumed_by(&world, 1, 5).await;

    // The order's records are gone when a third one is made.
    let end = world.number("select next_offset from projection_progress where build = 1").await;
    world.truncate(0, end).await;
    world.publish(records(&life("o-2", 2))).await;
    let truncated = feed(&world, create(&world, 3).await, &[]);
    until_consumed_by(&world, 3, 2).await;
    until_consumed_by(&world, 1, 7).await;
    assert_eq!(world.number("select count(*) from orders_3.orders where order_id = 'o-1'").await, 0);
    assert!(matches!(switched(&world, 1, 3).await, Switched::Done(_)));
    for view in [old, ahead, truncated] {
        view.stop().await;
    }
}
