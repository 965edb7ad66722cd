//! The rules of the sequence, from a record to a GET.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, status_changed, stored};
use crate::support::world::World;
use crate::support::{PATIENCE, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_of_events_becomes_the_order_that_rest_serves() {
    let world = World::new(3).await;
    let instance = world.start().await;
    let events = life("o-1", 5);
    world.publish(events.iter().map(|event| event.record())).await;

    let order = instance.order_at("o-1", 5).await;

    assert_eq!(order["status"], "Packed");
    assert_eq!((&order["totalNet"], &order["totalGross"]), (&Value::from("28.68"), &Value::from("29.29")));
    assert_eq!(order["items"].as_array().unwrap().len(), 3);
    assert_eq!(order["held"], Value::Null);
    assert_eq!(stored(&world).await, oracle(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_leaves_the_state_unchanged_and_is_counted_once() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 3);
    world.publish(events.iter().map(|event| event.record())).await;
    let before = instance.order_at("o-1", 3).await;
    assert_eq!(instance.metric("streamview_duplicates_total", &[]).await, 0.0);

    world.publish([events[2].record()]).await;
    world.until_consumed(4).await;

    assert_eq!(instance.json("/orders/o-1").await, before);
    until("the metric follows", PATIENCE, || async {
        (instance.metric("streamview_duplicates_total", &[]).await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_ahead_of_a_gap_is_held_until_the_missing_one_arrives() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = [created("o-1"), item_added("o-1", 2), status_changed("o-1", 3, "Paid")];
    world.publish([events[0].record(), events[2].record()]).await;
    world.until_consumed(2).await;

    let held = instance.json("/orders/o-1").await;
    assert_eq!((&held["lastEventSequence"], &held["status"]), (&Value::from(1), &Value::from("Created")));
    assert_eq!(held["held"]["reason"], "gap");
    assert_eq!((&held["held"]["missingFrom"], &held["held"]["parkedCount"]), (&Value::from(2), &Value::from(1)));
    until("the metric follows", PATIENCE, || async {
        (instance.metric("streamview_out_of_order_total", &["gap"]).await == 1.0).then_some(())
    })
    .await;

    world.publish([events[1].record()]).await;
    let drained = instance.order_at("o-1", 3).await;

    assert_eq!((&drained["status"], &drained["held"]), (&Value::from("Paid"), &Value::Null));
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [3, 3, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_copy_is_skipped() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    world.publish(events.iter().chain([&events[0], &events[2]]).map(|event| event.record())).await;
    world.until_consumed(6).await;

    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [6, 4, 0, 2, 0, 0, 0]);
    assert_eq!(world.number("select count(*) from dead_letters").await, 0);
    instance.until_metric("streamview_out_of_order_total", &["late"], 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_event_under_a_new_number_advances_the_sequence_and_nothing_else() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 2);
    let again = item_added("o-1", 3).with("eventId", events[1].event_id().into());
    let after = status_changed("o-1", 4, "Paid");
    world.publish(events.iter().chain([&again, &after]).map(|event| event.record())).await;

    let order = instance.order_at("o-1", 4).await;

    assert_eq!((&order["itemCount"], &order["status"]), (&Value::from(2), &Value::from("Paid")));
    let effects = "select string_agg(effect, ' ' order by sequence) from order_events_view";
    assert_eq!(world.row(effects).await.get::<_, &str>(0), "applied applied duplicate applied");
    assert_eq!(world.conservation().await, [4, 3, 1, 0, 0, 0, 0]);
    instance.until_metric("streamview_duplicates_total", &["event_id"], 1.0).await;
    instance.until_metric("streamview_duplicates_total", &["\"sequence\""], 0.0).await;
}

/// After a restart nothing of these orders is in memory.
#[tokio::test(flavor = "multi_thread")]
async fn first_events_that_come_again_change_nothing_whatever_they_say() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let orders = ["copied", "rivalled", "broken", "held", "copied-and-goes-on"].map(|order| life(order, 3));
    let [copied, rivalled, broken, held, goes_on] = &orders;
    let first = [&copied[..], &rivalled[..1], &broken[..2], &held[1..], &goes_on[..2]].concat();
    world.publish(first.iter().map(TestEvent::record)).await;
    world.until_consumed(10).await;
    instance.stop().await;

    let rival = created("rivalled").with("eventId", "other".into());
    let mut is_broken = created("broken").record();
    is_broken.payload = Some(b"{".to_vec());
    let new = life("new", 2);
    let again = [&copied[..1], std::slice::from_ref(&rival), &held[..1], &goes_on[..1], &goes_on[2..], &new].concat();
    world.publish(again.iter().map(TestEvent::record).chain([is_broken])).await;
    let instance = world.start().await;
    world.until_consumed(18).await;

    assert_eq!(instance.json("/orders/broken").await["held"], Value::Null);
    let applied = [&copied[..], &rivalled[..1], &broken[..2], held, goes_on, &new].concat();
    assert_eq!(stored(&world).await, oracle(&applied));
    assert_eq!(world.number("select count(*) from held_keys").await, 0);
    let mut reasons =
        refusals(&world).await.into_iter().map(|(_, reason, order, _)| (order.unwrap(), reason)).collect::<Vec<_>>();
    reasons.sort();
    assert_eq!(
        reasons,
        [("broken".into(), "invalid_json".into()), ("rivalled".into(), "sequence_conflict".to_owned())]
    );
    world.publish(copied[..1].iter().chain(&broken[2..]).map(TestEvent::record)).await;
    instance.order_at("broken", 3).await;
    let [consumed, applied, duplicate, late, conflict, parked, dead_lettered] = world.conservation().await;
    assert_eq!([consumed, applied, conflict, parked, dead_lettered], [20, 15, 1, 0, 1]);
    assert_eq!(duplicate + late, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_event_under_the_last_number_is_a_dead_letter_and_does_not_hold_the_order() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 3);
    let other = status_changed("o-1", 2, "Lost").with("eventId", "other".into());
    let published = [&events[0], &events[1], &other, &events[2]];
    world.publish(published.map(TestEvent::record)).await;

    let order = instance.order_at("o-1", 3).await;

    assert_eq!(order["held"], Value::Null);
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(refusals(&world).await, [(2, "sequence_conflict".into(), Some("o-1".into()), Some(2))]);
    assert_eq!(world.conservation().await, [4, 3, 0, 0, 1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_event_under_a_parked_number_is_a_dead_letter_and_the_parked_one_stays() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 4);
    let other = status_changed("o-1", 4, "Lost").with("eventId", "other".into());
    // The copy and the contradiction of a parked event arrive with it, and again when it is stored.
    world.publish([&events[0], &events[3], &events[3], &other].map(TestEvent::record)).await;
    world.until_consumed(4).await;
    world.publish([&events[3], &other].map(TestEvent::record)).await;
    world.until_consumed(6).await;

    let held = instance.json("/orders/o-1").await["held"].clone();
    assert_eq!((&held["missingFrom"], &held["missingTo"], &held["parkedCount"]), (&2.into(), &3.into(), &1.into()));
    let conflict = |offset| (offset, "sequence_conflict".to_owned(), Some("o-1".to_owned()), Some(4));
    assert_eq!(refusals(&world).await, [conflict(3), conflict(5)]);

    world.publish(events[1..3].iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 4).await;
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [8, 4, 2, 0, 2, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_event_id_of_a_stored_order_holds_the_order_that_uses_it_again() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let thief = created("o-2").with("eventId", "shared".into());
    world.publish([created("o-1").with("eventId", "shared".into()).record()]).await;
    instance.order_at("o-1", 1).await;
    world.publish([thief.record()]).await;
    world.until_consumed(2).await;
    world.publish([item_added("o-2", 2).record(), created("o-3").record()]).await;
    instance.order_at("o-3", 1).await;

    let problem = instance.refusal("/orders/o-2", 404).await;
    assert_eq!((&problem["code"], &problem["held"]["reason"]), (&"order_held".into(), &"event_id_reused".into()));
    assert_eq!((&problem["held"]["missingFrom"], &problem["held"]["parkedCount"]), (&1.into(), &1.into()));
    assert_eq!(problem["held"]["deadLetterId"], world.number("select id from dead_letters").await);
    assert_eq!(refusals(&world).await, [(1, "event_id_reused".into(), Some("o-2".into()), Some(1))]);
    assert_eq!(world.conservation().await, [4, 2, 0, 0, 1, 1, 0]);

    world.publish([created("o-2").record()]).await;
    assert_eq!(instance.order_at("o-2", 2).await["held"], Value::Null);
    assert_eq!(world.conservation().await, [5, 4, 0, 0, 1, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_id_used_twice_in_one_batch_holds_only_the_second_user() {
    let world = World::new(1).await;
    let shared = |event: TestEvent| event.with("eventId", "shared".into());
    let (first, second, third) = (created("o-1"), created("o-2"), created("o-3"));
    // The first user has moved on when the batch ends, and still the id was its latest when the others came.
    let events = [shared(first), shared(second), shared(third), item_added("o-1", 2), created("o-4")];
    world.publish(events.iter().map(TestEvent::record)).await;
    let instance = world.start().await;
    world.until_consumed(5).await;

    assert_eq!(instance.json("/orders/o-1").await["lastEventSequence"], 2);
    instance.json("/orders/o-4").await;
    for held in ["/orders/o-2", "/orders/o-3"] {
        assert_eq!(instance.refusal(held, 404).await["held"]["reason"], "event_id_reused", "{held}");
    }
    assert_eq!(world.conservation().await, [5, 3, 0, 0, 2, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_id_is_free_again_once_its_order_has_moved_on_in_the_same_batch() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let named = |event: TestEvent, id: &str| event.with("eventId", id.into());
    world.publish([named(created("o-1"), "a").record(), named(created("o-2"), "b").record()]).await;
    world.until_consumed(2).await;
    instance.stop().await;
    // o-2 moves on and o-1 takes its id; o-1 moves on and a new order takes it over, in one batch.
    let events = [
        named(item_added("o-2", 2), "c"),
        named(item_added("o-1", 2), "b"),
        named(item_added("o-1", 3), "d"),
        named(created("o-0"), "b"),
        named(created("o-3"), "a"),
    ];
    world.publish(events.iter().map(TestEvent::record)).await;
    let instance = world.start().await;
    world.until_consumed(7).await;

    assert_eq!(refusals(&world).await, []);
    assert_eq!(instance.json("/orders?sort=orderId").await["total"], 4);
    assert_eq!(world.conservation().await, [7, 7, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_does_not_own_its_id_and_a_parked_one_not_yet() {
    let world = World::new(1).await;
    let named = |event: TestEvent, id: &str| event.with("eventId", id.into());
    let events = [
        named(created("o-1"), "a"),
        named(created("o-2"), "a"),       // refused: o-1 has it
        named(item_added("o-2", 2), "b"), // parked behind that
        named(created("o-3"), "b"),       // fine: nobody has applied it
        named(item_added("o-1", 2), "c"), // o-1 moves on
        named(created("o-4"), "a"),       // fine by now
        named(created("o-5"), "c"),       // refused: o-1 has it
    ];
    world.publish(events.iter().map(TestEvent::record)).await;
    let instance = world.start().await;
    world.until_consumed(7).await;

    let reused =
        |offset, order: &str, sequence| (offset, "event_id_reused".to_owned(), Some(order.to_owned()), Some(sequence));
    assert_eq!(refusals(&world).await, [reused(1, "o-2", 1), reused(6, "o-5", 1)]);
    assert_eq!(world.conservation().await, [7, 4, 0, 0, 2, 1, 0]);

    // The missing first event lets the parked one out, whose id o-3 has taken in the meantime.
    world.publish([named(created("o-2"), "e").record()]).await;
    let order = instance.order_at("o-2", 1).await;
    assert_eq!((&order["held"]["reason"], &order["held"]["missingFrom"]), (&"event_id_reused".into(), &2.into()));
    assert_eq!(refusals(&world).await[1], reused(2, "o-2", 2));
    assert_eq!(world.conservation().await, [8, 5, 0, 0, 3, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_event_type_is_consumed_as_a_counted_no_op_even_as_the_first() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let wrapped = |sequence| TestEvent::new("o-1", sequence, "OrderGiftWrapped", json!({ "ribbon": "red" }));
    let mut create = created("o-1").with("eventId", "o-1-created".into());
    create.sequence = 2;
    world.publish([wrapped(1), create, wrapped(3), item_added("o-1", 4)].iter().map(TestEvent::record)).await;

    let order = instance.order_at("o-1", 4).await;

    assert_eq!((&order["status"], &order["itemCount"]), (&"Created".into(), &2.into()));
    assert_eq!(order["anomalies"], json!([]));
    let effects = "select string_agg(effect, ' ' order by sequence) from order_events_view";
    assert_eq!(world.row(effects).await.get::<_, &str>(0), "unknown_type applied unknown_type applied");
    assert_eq!(world.conservation().await, [4, 4, 0, 0, 0, 0, 0]);
    instance.until_metric("streamview_unknown_events_total", &[], 2.0).await;
    instance.until_metric("streamview_events_total", &["\"unknown\""], 2.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_begins_without_its_creation_is_built_from_what_is_known_and_flagged() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = [status_changed("o-1", 1, "Paid"), item_added("o-1", 2)];
    world.publish(events.iter().map(TestEvent::record)).await;

    let order = instance.order_at("o-1", 2).await;

    assert_eq!(
        (&order["customerId"], &order["currency"], &order["status"]),
        (&Value::Null, &Value::Null, &"Paid".into())
    );
    assert_eq!((&order["totalNet"], &order["anomalies"]), (&"9.99".into(), &json!(["missing_created"])));
    assert_eq!(stored(&world).await, oracle(&events));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_held_before_its_first_event_is_not_found_but_says_what_it_waits_for() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 5);
    world.publish([&events[2], &events[4]].map(TestEvent::record)).await;
    world.until_consumed(2).await;

    let problem = instance.refusal("/orders/o-1", 404).await;

    assert_eq!((&problem["code"], &problem["held"]["reason"]), (&"order_held".into(), &"gap".into()));
    let held = &problem["held"];
    assert_eq!((&held["missingFrom"], &held["missingTo"], &held["parkedCount"]), (&1.into(), &2.into(), &2.into()));
    assert_eq!(instance.refusal("/orders/o-2", 404).await["code"], "order_not_found");
    world.publish([&events[3], &events[1], &events[0]].map(TestEvent::record)).await;
    instance.order_at("o-1", 5).await;
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.number("select count(*) from held_keys").await, 0);
    assert_eq!(world.number("select count(*) from parked_events").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_holds_its_order_until_the_corrected_one_drains_what_waits() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 5);
    let mut broken = events[2].record();
    broken.payload = Some(b"{\"type\":".to_vec());
    let published = [events[0].record(), events[1].record(), broken.clone(), events[3].record(), events[4].record()];
    world.publish(published).await;
    world.until_consumed(5).await;

    let order = instance.json("/orders/o-1").await;
    assert_eq!((&order["lastEventSequence"], &order["held"]["reason"]), (&2.into(), &"poison".into()));
    assert_eq!((&order["held"]["missingFrom"], &order["held"]["parkedCount"]), (&3.into(), &2.into()));
    assert_eq!(order["held"]["deadLetterId"], world.number("select id from dead_letters").await);
    assert_eq!(world.conservation().await, [5, 2, 0, 0, 0, 2, 1]);
    instance.until_metric("streamview_held_keys", &["poison"], 1.0).await;

    // The same mistake once more changes nothing; the corrected event drains everything.
    world.publish([broken, events[2].record()]).await;
    let order = instance.order_at("o-1", 5).await;
    assert_eq!(order["held"], Value::Null);
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [7, 5, 0, 0, 0, 0, 2]);
    instance.until_metric("streamview_held_keys", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_ahead_of_a_gap_is_remembered_when_the_gap_closes() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let events = life("o-1", 5);
    let mut broken = events[3].record();
    broken.payload = None;
    world.publish([events[0].record(), broken, events[4].record()]).await;
    world.until_consumed(3).await;
    let held = instance.json("/orders/o-1").await["held"].clone();
    assert_eq!((&held["reason"], &held["missingFrom"], &held["parkedCount"]), (&"gap".into(), &2.into(), &1.into()));

    world.publish(events[1..3].iter().map(TestEvent::record)).await;
    let held = instance.order_at("o-1", 3).await["held"].clone();
    assert_eq!((&held["reason"], &held["missingFrom"], &held["parkedCount"]), (&"poison".into(), &4.into(), &1.into()));
    assert!(held["deadLetterId"].is_i64(), "{held}");

    world.publish([events[3].record()]).await;
    assert_eq!(instance.order_at("o-1", 5).await["held"], Value::Null);
    assert_eq!(stored(&world).await, oracle(&events));
    assert_eq!(world.conservation().await, [6, 5, 0, 0, 0, 0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_parked_events_than_a_key_may_have_pause_the_partition_and_drop_nothing() {
    let world = World::new(2).await;
    let bound = ("STREAMVIEW_PROJECTOR__MAX_PARKED_PER_KEY", "3");
    let instance = world.start_with(&[bound]).await;
    let (events, free) = (life("o-1", 6), life("free", 9));
    world.publish(events.iter().filter(|event| event.sequence != 2).map(|event| event.record_on(0))).await;
    world.publish(free[..8].iter().map(|event| event.record_on(1))).await;

    let paused = until_paused(&instance, 0).await;

    assert!(paused.contains("max_parked_per_key") && paused.contains("`o-1`"), "{paused}");
    until_stopped(&instance, 0).await;
    instance.order_at("free", 8).await;
    assert_eq!(world.conservation().await, [12, 9, 0, 0, 0, 3, 0]);
    // Reads are served and other partitions go on: the process is ready, and says that somebody has to look.
    let ready = instance.until_degraded().await;
    assert!(ready.to_string().contains("partition:orders:0") && !ready.to_string().contains("partition:orders:1"));
    instance.until_metric("streamview_partitions_paused", &["park_bound_reached"], 1.0).await;
    // Nothing is wrong with the log: nothing can be skipped.
    let skip = json!({ "from": 4, "to": 5, "reason": "impatience" });
    let refusal = instance.http.post(instance.url("/ops/partitions/0/skip-to")).json(&skip).send().await.unwrap();
    assert_eq!(refusal.status().as_u16(), 409);
    assert_eq!(refusal.json::<Value>().await.unwrap()["code"], "partition_not_blocked");
    world.publish([free[8].record_on(1)]).await;
    instance.order_at("free", 9).await;

    instance.stop().await;
    let instance = world.start().await;
    world.publish([events[1].record_on(0)]).await;
    instance.order_at("o-1", 6).await;
    assert_eq!(stored(&world).await, oracle(events.iter().chain(&free)));
    assert_eq!(world.conservation().await, [15, 15, 0, 0, 0, 0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_parked_events_than_allowed_in_all_pause_their_partitions_and_drop_nothing() {
    let world = World::new(2).await;
    let bounds = [("STREAMVIEW_PROJECTOR__MAX_PARKED_TOTAL", "4"), ("STREAMVIEW_PROJECTOR__MAX_PARKED_PER_KEY", "4")];
    let instance = world.start_with(&bounds).await;
    let orders: Vec<_> = (0..10).map(|n| life(&format!("o-{n}"), 3)).collect();
    let free = life("free", 4);
    world.publish(orders.iter().flat_map(|events| [events[0].record_on(0), events[2].record_on(0)])).await;

    let paused = until_paused(&instance, 0).await;

    assert!(paused.contains("max_parked_total"), "{paused}");
    until_stopped(&instance, 0).await;
    world.publish(free.iter().map(|event| event.record_on(1))).await;
    instance.order_at("free", 4).await;
    instance.until_ready().await;
    let [_, _, _, _, _, parked, dead_lettered] = world.conservation().await;
    assert_eq!((parked, dead_lettered), (4, 0));

    instance.stop().await;
    let instance = world.start().await;
    world.publish(orders.iter().map(|events| events[1].record_on(0))).await;
    for n in 0..10 {
        instance.order_at(&format!("o-{n}"), 3).await;
    }
    assert_eq!(stored(&world).await, oracle(orders.iter().flatten().chain(&free)));
    assert_eq!(world.conservation().await, [34, 34, 0, 0, 0, 0, 0]);
}

/// Tried again, a batch begins with the very record that cannot be parked: it stands there as before, and so does all that
/// comes behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_is_met_again_at_every_try_loses_nothing() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__MAX_PARKED_PER_KEY", "1")]).await;
    let (held, behind) = (life("held", 4), life("behind", 4));
    world.publish([0, 2, 3].map(|index| held[index].record())).await;
    until_paused(&instance, 0).await;
    let position = || async {
        let row = world.sql.query_one("select next_offset, owner_epoch from projection_progress", &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    let (stands_at, epoch) = position().await;
    let tried_again = async |times| {
        until("the partition is tried again", PATIENCE, || async {
            (position().await.1 >= epoch + times).then_some(())
        })
        .await;
    };
    tried_again(1).await;
    world.publish(behind[..2].iter().map(|event| event.record())).await;
    tried_again(3).await;
    world.publish(behind[2..].iter().map(|event| event.record())).await;
    tried_again(4).await;
    assert_eq!(position().await.0, stands_at);
    assert_eq!(stored(&world).await.len(), 1, "nothing behind it was applied");

    instance.stop().await;
    let instance = world.start().await;
    world.publish([held[1].record()]).await;
    instance.order_at("held", 4).await;
    instance.order_at("behind", 4).await;
    assert_eq!(stored(&world).await, oracle(held.iter().chain(&behind)));
    assert_eq!(world.conservation().await, [8, 8, 0, 0, 0, 0, 0]);
}

/// Offset, reason, key and sequence of every dead letter.
async fn refusals(world: &World) -> Vec<(i64, String, Option<String>, Option<i64>)> {
    let query = "select \"offset\", reason, key, sequence from dead_letters order by \"offset\"";
    let rows = world.sql.query(query, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

/// Waits until `/ops/consumer` says why it reads nothing from the partition.
async fn until_paused(instance: &Instance, partition: usize) -> String {
    until("the partition is paused", PATIENCE, || async {
        let consumer = instance.json("/ops/consumer").await;
        consumer["views"][0]["partitions"][partition]["paused"].as_str().map(str::to_owned)
    })
    .await
}

/// Waits until `/ops/lags` says that the partition stands still, and why; and that no other one does.
async fn until_stopped(instance: &Instance, partition: usize) {
    until("the lag says so", PATIENCE, || async {
        let lags = instance.json("/ops/lags").await;
        let stopped =
            lags["partitions"].as_array().unwrap().iter().enumerate().filter(|(_, lag)| lag["verdict"] == "stop");
        let stopped: Vec<_> = stopped.map(|(index, lag)| (index, lag["reason"].as_str().unwrap_or_default())).collect();
        matches!(&stopped[..], [(only, reason)] if *only == partition && reason.contains("park bound reached"))
            .then_some(())
    })
    .await;
}

/// Records in the order in which a careless world delivers them, and what has to become of them.
struct History {
    events: Vec<TestEvent>,
    delivered: Vec<TestEvent>,
}

impl History {
    /// A few orders with duplicates, late copies, reordering and redelivery; now and then an event is lost for good.
    fn random(name: &str, seed: u64) -> History {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut events: Vec<TestEvent> = Vec::new();
        for order in 0..random.usize(1..5) {
            let length = random.i64(1..13);
            let lost = if random.u8(..4) == 0 { random.i64(1..=length) } else { 0 };
            events.extend(life(&format!("{name}-{order}"), length).into_iter().filter(|event| event.sequence != lost));
        }
        // Each event arrives around its turn, up to six places off, some twice, some long after; then a stretch again.
        let mut arrivals: Vec<(usize, TestEvent)> = Vec::new();
        for (turn, event) in events.iter().enumerate() {
            arrivals.push((turn * 3 + random.usize(..18), event.clone()));
            if random.u8(..4) == 0 {
                arrivals.push((turn * 3 + random.usize(..100), event.clone()));
            }
        }
        arrivals.sort_by_key(|(turn, _)| *turn);
        let mut delivered: Vec<TestEvent> = arrivals.into_iter().map(|(_, event)| event).collect();
        let from = random.usize(..delivered.len());
        let again: Vec<TestEvent> = delivered[from..].iter().take(random.usize(..10)).cloned().collect();
        delivered.extend(again);
        History { events, delivered }
    }

    /// Consumed, applied, duplicate, late, conflict, parked, dead-lettered: the rules once more, one order at a time.
    fn outcomes(&self) -> [i64; 7] {
        let mut orders: BTreeMap<&str, (i64, BTreeSet<i64>)> = BTreeMap::new();
        let (mut applied, mut duplicate, mut late) = (0, 0, 0);
        for event in &self.delivered {
            let (last, parked) = orders.entry(&event.order_id).or_default();
            match event.sequence {
                next if next == *last + 1 => {
                    *last += 1;
                    applied += 1;
                    while parked.remove(&(*last + 1)) {
                        *last += 1;
                        applied += 1;
                    }
                }
                same if same == *last => duplicate += 1,
                old if old < *last => late += 1,
                ahead => duplicate += i64::from(!parked.insert(ahead)),
            }
        }
        let parked = orders.values().map(|(_, parked)| parked.len() as i64).sum();
        [self.delivered.len() as i64, applied, duplicate, late, 0, parked, 0]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_careless_histories_end_as_their_in_order_fold_with_every_record_accounted_for() {
    const WORLDS: u64 = 4;
    const HISTORIES: u64 = 50;
    let runs = (0..WORLDS).map(|world| {
        let histories = (0..HISTORIES).map(move |n| History::random(&format!("h{n}"), world * HISTORIES + n));
        replay(world, histories.collect())
    });
    futures_util::future::join_all(runs).await;
}

async fn replay(number: u64, histories: Vec<History>) {
    let world = World::new(3).await;
    // The histories of a world run side by side, on all partitions; the batches are cut at odd places.
    let longest = histories.iter().map(|history| history.delivered.len()).max().unwrap();
    let turns = (0..longest).flat_map(|turn| histories.iter().filter_map(move |history| history.delivered.get(turn)));
    let delivered: Vec<&TestEvent> = turns.collect();
    let (early, live) = delivered.split_at(delivered.len() / 2);
    let batch = ["7", "3", "64", "10000"][number as usize % 4];
    // A cache too small for all orders: some are read back from Postgres.
    let settings = [("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", batch), ("STREAMVIEW_PROJECTOR__CACHE_BYTES", "20000")];
    world.publish(early.iter().map(|event| event.record())).await;
    let instance = world.start_with(&settings).await;
    for part in live.chunks(40) {
        world.publish(part.iter().map(|event| event.record())).await;
    }
    world.until_consumed(delivered.len() as i64).await;

    assert_eq!(stored(&world).await, oracle(histories.iter().flat_map(|history| &history.events)), "world {number}");
    let mut expected = [0; 7];
    for history in &histories {
        for (sum, count) in expected.iter_mut().zip(history.outcomes()) {
            *sum += count;
        }
    }
    assert_eq!(world.conservation().await, expected, "world {number}");
    assert_eq!(world.number("select count(*) from parked_events").await, expected[5]);
    assert_eq!(world.number("select coalesce(sum(parked_count), 0) from held_keys").await, expected[5]);
    instance.until_metric("streamview_records_consumed_total", &[], delivered.len() as f64).await;
    let batches = instance.metric("streamview_batch_records_count", &[]).await;
    let within =
        if batch == "7" { instance.metric("streamview_batch_records_bucket", &["le=\"10\""]).await } else { batches };
    assert_eq!(within, batches, "batches of at most 7 records");
    instance.until_metric("streamview_parked_events", &[], expected[5] as f64).await;
    assert_eq!(instance.metric("streamview_conservation_difference", &[]).await, 0.0);
}
