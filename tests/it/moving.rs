//! Keys that are written without a pause: two builds are never seen equally far in them, and are compared all the same.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use streamview::builds;
use streamview::builds::compare::{Hooks, Pace, Pair, compare};
use streamview::builds::moving::Moving;
use streamview::config::History;
use streamview::domain::build::{Build, BuildId};
use streamview::domain::comparison::{Comparison, Difference};
use streamview::domain::units::Sequence;
use streamview::registrations;
use streamview::store::pool;
use streamview::views::orders::TABLES;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::comparison::{config, feed, orders, parts, values};
use crate::support::orders::{TestEvent, created, item_added, life, status_changed};
use crate::support::rebuild::meaning;
use crate::support::world::World;
use crate::support::{PATIENCE, until};

/// Each time that both are waited for, the new build gets one event more: the old one is never as far.
struct NeverLevel<'a> {
    world: &'a World,
    sent: i64,
    rounds: u32,
    asked: Vec<String>,
    /// Whether anybody judges.
    judges: bool,
    found: Vec<Difference>,
}

async fn until_taken_by(world: &World, build: i32, records: i64) {
    until(&format!("build {build} has taken {records} records"), PATIENCE, || async {
        let consumed = format!("select coalesce(sum(consumed), 0) from projection_progress where build = {build}");
        (world.number(&consumed).await >= records).then_some(())
    })
    .await;
}

impl Hooks for NeverLevel<'_> {
    fn progress(&mut self, _: u64) {}

    async fn caught_up(&mut self) -> anyhow::Result<()> {
        self.rounds += 1;
        self.sent += 1;
        self.world.publish([status_changed("hot", self.sent, "Paid").record()]).await;
        until_taken_by(self.world, 2, self.sent).await;
        Ok(())
    }

    async fn found(&mut self, differences: &[Difference]) -> anyhow::Result<()> {
        self.found.extend_from_slice(differences);
        Ok(())
    }

    async fn judge_moving(&mut self, keys: &[&str]) -> anyhow::Result<Vec<Option<Difference>>> {
        self.asked = keys.iter().map(|key| (*key).to_owned()).collect();
        if !self.judges {
            return Ok(vec![None; keys.len()]);
        }
        let moving = Moving {
            old: BuildId::new("orders", 1),
            new: BuildId::new("orders", 2),
            first_sequence: Sequence(1),
            history: History::Payload,
            keys: self.asked.clone(),
        };
        let (opened, is_open) = oneshot::channel();
        let judged = registrations::all()[0].judge_moving(parts(self.world, 2), moving, opened).await;
        is_open.await?;
        judged
    }
}

async fn compared(world: &World, judges: bool) -> (Comparison, Vec<Difference>) {
    let spec = orders(world);
    let client = pool::connect_writer(&config(world).database, "public").await.unwrap();
    let sent = world.number("select sum(consumed) from projection_progress where build = 2").await;
    let mut hooks = NeverLevel { world, sent, rounds: 0, asked: Vec::new(), judges, found: Vec::new() };
    let pair = Pair { spec: &spec, old: Build(1), new: Build(2), history: History::Payload };
    let pace = Pace { rounds: 4, ..Pace::default() };
    let comparison = compare(&client, pair, pace, &mut hooks, &CancellationToken::new()).await.unwrap();
    assert_eq!((hooks.rounds, hooks.asked), (4, vec!["hot".to_owned()]));
    (comparison, hooks.found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_ahead_in_the_new_build_in_every_look_is_compared_where_the_old_one_is() {
    let world = World::new(1).await;
    builds::create(&world.sql, BuildId::new("orders", 2), &TABLES, &meaning()).await.unwrap();
    let (old, new) = (feed(&world, 1), feed(&world, 2));
    world.publish(life("hot", 5).iter().map(TestEvent::record)).await;
    until_taken_by(&world, 1, 5).await;
    old.stop().await;
    world.publish([item_added("hot", 6).record(), status_changed("hot", 7, "Odd").record()]).await;
    until_taken_by(&world, 2, 7).await;

    let equal = Comparison { compared: 1, equal: 1, ..Comparison::default() };
    assert_eq!(compared(&world, true).await.0, equal);
    // By its sequence only, where nobody can say.
    let (untold, found) = compared(&world, false).await;
    assert_eq!((untold.different, found[0].columns.keys().next().unwrap().as_str()), (1, "lastEventSequence"));

    let sabotage = "
        update orders_1.orders set total_net = total_net + 0.01, status = 'Wrong' where order_id = 'hot';
        update orders_1.order_items set sku = 'POT' where order_id = 'hot' and line_no = 2;
        update orders_1.ledger set effect = 'duplicate' where key = 'hot' and sequence = 5;
        delete from orders_1.ledger where key = 'hot' and sequence = 3";
    world.sql.batch_execute(sabotage).await.unwrap();
    let (comparison, found) = compared(&world, true).await;
    assert_eq!((comparison.compared, comparison.different), (1, 1), "{found:?}");
    let mut columns = json!(found[0].columns);
    let gone = columns.as_object_mut().unwrap().remove("events[3]").unwrap();
    assert_eq!((&gone["old"], &gone["new"]["eventId"]), (&Value::Null, &json!("hot-event-3")));
    let expected = json!({
        "totalNet": values(json!("28.69"), json!("28.68")),
        "status": values(json!("Wrong"), json!("Packed")),
        "items[2].sku": values(json!("POT"), json!("CUP")),
        "events[5].effect": values(json!("duplicate"), json!("applied")),
    });
    assert_eq!(columns, expected);
    new.stop().await;
}

/// Under the service: one order gets events without a pause, and the rebuild ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_with_an_order_that_is_written_all_the_time_is_rebuilt_and_switched_by_itself() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let is_enough = AtomicBool::new(false);
    let traffic = async {
        let mut sent = 0;
        while !is_enough.load(Ordering::Relaxed) {
            let event = |sequence| match sequence {
                1 => created("hot").record(),
                _ => status_changed("hot", sequence, "Paid").record(),
            };
            world.publish((sent + 1..=sent + 5).map(event).collect::<Vec<_>>()).await;
            sent += 5;
            // Light, but there is always one that is on its way.
            until_taken_by(&world, 1, sent - 20).await;
        }
        sent
    };
    let rebuilding = async {
        let begun = instance.posted("/ops/views/rebuild", &json!({ "reason": "under a hot key" }), 202).await;
        let over = until("the rebuild is over", PATIENCE, || async {
            let operation = instance.json(&format!("/ops/operations/{}", begun["id"])).await;
            let is_over = operation["state"] != "running" || operation["phase"] == "ready";
            is_over.then_some(operation)
        })
        .await;
        is_enough.store(true, Ordering::Relaxed);
        over
    };
    let (sent, over) = tokio::join!(traffic, rebuilding);
    assert_eq!((&over["state"], &over["comparison"]["equal"]), (&json!("done"), &json!(1)), "{over}");
    assert!(sent > 200, "{sent}");
    instance.order_at("hot", sent).await;
}
