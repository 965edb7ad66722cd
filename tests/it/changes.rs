//! Changes as they happen: each once, each order's in order, whatever is cut, killed, switched or rolled back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use streamview::builds;
use streamview::domain::build::BuildId;
use streamview::views::orders::TABLES;
use streamview_lab::servers::{build_once, cache_folder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::builds::{create, feed, until_consumed_by};
use crate::support::listener::{Event, Listener, Road};
use crate::support::load::Load;
use crate::support::orders::{TestEvent, created, item_added, life, status_changed};
use crate::support::servers::migrate_database;
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

pub fn records(events: &[TestEvent]) -> Vec<TestRecord> {
    events.iter().map(TestEvent::record).collect()
}

/// What was told: order and number.
pub fn told(events: &[Event]) -> Vec<(String, i64)> {
    events.iter().map(|event| (event.order_id().to_owned(), event.sequence())).collect()
}

/// Every row of the active build's ledger, by order and number.
pub async fn ledger(world: &World) -> Vec<(String, i64)> {
    let rows = world.sql.query("select order_id, sequence from order_events_view order by 1, 2", &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Each order's numbers come in order, and none is missing or comes twice.
pub fn assert_exactly_once(told: &[(String, i64)], expected: &[(String, i64)], who: &str) {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for (order_id, sequence) in told {
        let before = last.insert(order_id, *sequence);
        assert!(before.is_none_or(|before| before < *sequence), "{who}: {order_id} {sequence} after {before:?}");
    }
    let (told, expected): (BTreeSet<_>, BTreeSet<_>) = (told.iter().collect(), expected.iter().collect());
    let missing: Vec<_> = expected.difference(&told).collect();
    assert!(missing.is_empty(), "{who}: missing {missing:?}");
    let made_up: Vec<_> = told.difference(&expected).collect();
    assert!(made_up.is_empty(), "{who}: nobody has asked for {made_up:?}");
}

pub async fn commits_of(world: &World, build: i32) -> String {
    let query = format!(
        "select coalesce(jsonb_object_agg(partition::text, commits), '{{}}')::text from projection_progress \
         where view = 'orders' and build = {build}"
    );
    world.row(&query).await.get(0)
}

/// Readers are taken to build `to`, as a cutover does it.
pub async fn switch(world: &World, (from, to): (i32, i32), to_commits: &str) {
    let from_commits = commits_of(world, from).await;
    let statement = format!(
        "insert into build_switches (view, from_build, to_build, from_commits, to_commits) \
         values ('orders', {from}, {to}, '{from_commits}', '{to_commits}')"
    );
    world.sql.batch_execute(&statement).await.unwrap();
    builds::publish(&world.sql, BuildId::new("orders", to), &TABLES).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_with_its_order_and_what_has_changed_it() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let mut all = Listener::open(&instance.url("/orders/changes"), "").await;
    let mut one = Listener::open(&instance.url("/orders/o-2/changes"), "").await;
    instance.until_metric("streamview_followers", &[], 2.0).await;
    world.publish(records(&[life("o-1", 3), life("o-2", 2)].concat())).await;
    let events = all.take(5).await;
    let expected: Vec<(String, i64)> = [("o-1", 1), ("o-1", 2), ("o-1", 3), ("o-2", 1), ("o-2", 2)]
        .map(|(order_id, sequence)| (order_id.to_owned(), sequence))
        .to_vec();
    assert_exactly_once(&told(&events), &expected, "all");
    let last = events.iter().find(|event| (event.order_id(), event.sequence()) == ("o-1", 3)).unwrap();
    let changed_by = json!({
        "eventId": "o-1-event-3", "eventType": "OrderStatusChanged", "sequence": 3, "effect": "applied",
    });
    assert_eq!((last.name.as_str(), &last.data["changedBy"]), ("order", &changed_by));
    let mut shown = last.data.clone();
    shown.as_object_mut().unwrap().remove("changedBy");
    assert_eq!(shown, instance.json("/orders?customerId=customer-of-o-1").await["items"][0], "as in the list");
    assert_eq!(told(&one.take(2).await), expected[3..]);

    // Cut off, and back where it was: by header, by parameter, and over another instance.
    drop((all, one));
    world.publish(records(&[item_added("o-2", 3), item_added("o-1", 4), item_added("o-1", 5)])).await;
    let other = world.launch_command(&["serve", "--only", "api"], &[]);
    other.until_ready().await;
    let by_parameter = format!("/orders/changes?after={}", events[3].id);
    for (url, last_id, expected) in [
        (instance.url("/orders/changes"), events[3].id.as_str(), 4),
        (other.url("/orders/changes"), &events[3].id, 4),
        (instance.url(&by_parameter), "", 4),
        (other.url(&by_parameter), &events[4].id, 3),
    ] {
        let mut back = Listener::open(&url, last_id).await;
        let seen = &events[..8 - expected];
        let told_now = told(&back.take(expected).await);
        assert_exactly_once(&[told(seen), told_now].concat(), &ledger(&world).await, &url);
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_followed_before_it_is_there_and_from_any_number() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let url = instance.url("/orders/later/changes");
    let mut listener = Listener::open(&url, "").await;
    world.publish(records(&life("earlier", 5))).await;
    world.publish(records(&life("later", 700))).await;
    let events = listener.take(700).await;
    assert_eq!(events.iter().map(Event::sequence).collect::<Vec<_>>(), (1..=700).collect::<Vec<_>>());
    // More than one page lies behind this one.
    let mut back = Listener::open(&url, &events[2].id).await;
    assert_eq!(back.take(697).await.iter().map(Event::sequence).collect::<Vec<_>>(), (4..=700).collect::<Vec<_>>());
    let foreign = instance.http.get(instance.url("/orders/earlier/changes")).header("last-event-id", &events[2].id);
    assert_eq!(foreign.send().await.unwrap().status().as_u16(), 400, "the cursor of another order");
    assert_eq!(instance.refusal("/orders/changes?after=x", 400).await["code"], "invalid_cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_shows_what_the_list_would_show() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let mut every = Listener::open(&instance.url("/orders/changes"), "").await;
    let mut paid = Listener::open(&instance.url("/orders/changes?status=Paid"), "").await;
    let mut customer = Listener::open(&instance.url("/orders/changes?customerId=customer-of-b"), "").await;
    let mut late = Listener::open(&instance.url("/orders/changes?from=2026-01-01T00:00:04Z"), "").await;
    for (event, sequence) in [
        (created("a"), 1),
        (created("b"), 1),
        (status_changed("a", 2, "Paid"), 2),
        (item_added("a", 3), 3),
        (status_changed("a", 4, "Packed"), 4),
        (status_changed("b", 2, "Paid"), 2),
    ] {
        world.publish([event.record()]).await;
        instance.order_at(&event.order_id, sequence).await;
        // One at a time, so that each is seen as it was.
        assert_eq!(told(&every.take(1).await), [(event.order_id.clone(), sequence)]);
    }
    let expected = [("a", 2), ("a", 3), ("b", 2)].map(|(order_id, sequence)| (order_id.to_owned(), sequence));
    assert_eq!(told(&paid.take(3).await), expected, "one that has left the filter is not told");
    assert_eq!(told(&customer.take(2).await), [("b".to_owned(), 1), ("b".to_owned(), 2)]);
    assert_eq!(told(&late.take(1).await), [("a".to_owned(), 4)]);
    let refused = instance.refusal("/orders/changes?state=Paid&snapshot=1", 400).await;
    assert_eq!(refused["errors"].as_array().unwrap().len(), 2, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_first_and_then_what_has_changed_since() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let orders: Vec<String> = (0..450).map(|number| format!("o-{number}")).collect();
    world.publish(orders.iter().map(|order_id| created(order_id).record())).await;
    world.until_consumed(450).await;
    let url = instance.url("/orders/changes?snapshot=true&status=Created");
    let mut listener = Listener::open(&url, "").await;
    let snapshot = listener.take(450).await;
    assert!(snapshot.iter().all(|event| event.data["changedBy"].is_null() && event.id.is_empty()));
    let shown: BTreeSet<&str> = snapshot.iter().map(Event::order_id).collect();
    assert_eq!(shown, orders.iter().map(String::as_str).collect(), "each order once");
    let end = listener.next().await.unwrap();
    assert_eq!((end.name.as_str(), &end.data), ("snapshot", &json!({ "sent": 450 })));
    assert!(!end.id.is_empty());
    world.publish([item_added("o-7", 2).record()]).await;
    assert_eq!(told(&listener.take(1).await), [("o-7".to_owned(), 2)]);
    // A browser comes back by the same URL.
    let mut back = Listener::open(&url, &end.id).await;
    assert_eq!(told(&back.take(1).await), [("o-7".to_owned(), 2)]);

    let mut one = Listener::open(&instance.url("/orders/o-7/changes?snapshot=true"), "").await;
    let events = one.take(2).await;
    assert_eq!((events[0].data["lastEventSequence"].as_i64(), events[1].name.as_str()), (Some(2), "snapshot"));
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_broken_by_a_heartbeat_that_moves_the_cursor_on() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let mut listener = Listener::open(&instance.url("/orders/changes?customerId=nobody"), "").await;
    let opening = listener.block().await.unwrap();
    assert!(opening.starts_with("retry: "), "{opening}");
    let began = listener.last_id.clone();
    world.publish(records(&life("o-1", 20))).await;
    instance.order_at("o-1", 20).await;
    let asked = Instant::now();
    let heartbeat = listener.block().await.unwrap();
    assert!(heartbeat.starts_with(':') && !heartbeat.contains("data"), "{heartbeat}");
    assert!(asked.elapsed() < Duration::from_secs(20), "every 15 s");
    assert_ne!(listener.last_id, began);
    // Whoever is cut off before the first event comes back with what the stream opens with.
    let mut cut_off = Listener::open(&instance.url("/orders/changes"), &began).await;
    cut_off.block().await.unwrap();
    assert_eq!(cut_off.last_id, began, "nothing was told yet");
    // Behind the heartbeat there is nothing that was passed over.
    world.publish([item_added("o-1", 21).record()]).await;
    let mut back = Listener::open(&instance.url("/orders/changes"), &listener.last_id).await;
    assert_eq!(told(&back.take(1).await), [("o-1".to_owned(), 21)]);
}

/// Reads what a raw connection has to say, as long as it says something.
async fn drained(stream: &mut tokio::net::TcpStream) -> String {
    let mut text = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("the stream ends").unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_is_sent_away_and_comes_back_without_a_loss() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_HTTP__FOLLOWER_BUFFER", "1000")]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(instance.address.parse().unwrap()).await.unwrap();
    let request = format!("GET /orders/changes HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", instance.address);
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut quick = Listener::open(&instance.url("/orders/changes"), "").await;
    instance.until_metric("streamview_followers", &[], 2.0).await;

    let events: Vec<TestEvent> = (0..20).flat_map(|number| life(&format!("o-{number}"), 600)).collect();
    let expected: Vec<(String, i64)> = events.iter().map(|event| (event.order_id.clone(), event.sequence)).collect();
    // Never so many at a time that a client which reads could be slow, however busy the machine is.
    let mut heard = Vec::new();
    for some in events.chunks(500) {
        world.publish(records(some)).await;
        heard.extend(told(&quick.take(some.len()).await));
    }
    assert_exactly_once(&heard, &expected, "the quick one");
    instance.until_metric("streamview_followers_overrun_total", &[], 1.0).await;

    let text = drained(&mut slow).await;
    let of_last = text.rsplit("\nid: ").next().unwrap().split('\n').next().unwrap();
    let overrun = text.rsplit("event: ").next().unwrap();
    assert!(overrun.starts_with("overrun\ndata: "), "{overrun}");
    instance.until_metric("streamview_followers", &[], 1.0).await;
    let before = text.matches("\nevent: order\n").count();
    assert!(before < 12_000, "it was sent away before all was told");
    let mut back = Listener::open(&instance.url("/orders/changes"), of_last).await;
    assert_exactly_once(&told(&back.take(12_000 - before).await), &expected_after(&text, &expected), "what came back");
}

/// What is left of `expected` behind what a stream has said.
fn expected_after(text: &str, expected: &[(String, i64)]) -> Vec<(String, i64)> {
    let mut seen = BTreeSet::new();
    for data in text.lines().filter_map(|line| line.strip_prefix("data: {\"orderId\"")) {
        let data: serde_json::Value = serde_json::from_str(&format!("{{\"orderId\"{data}")).unwrap();
        seen.insert((data["orderId"].as_str().unwrap().to_owned(), data["changedBy"]["sequence"].as_i64().unwrap()));
    }
    expected.iter().filter(|change| !seen.contains(*change)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_bounded_and_leave_when_the_process_stops() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_HTTP__MAX_FOLLOWERS", "2")]).await;
    let mut list = Listener::open(&instance.url("/orders/changes"), "").await;
    let mut one = Listener::open(&instance.url("/orders/o/changes"), "").await;
    for path in ["/orders/changes", "/orders/o/changes"] {
        assert_eq!(instance.refusal(path, 503).await["code"], "too_many_followers");
    }
    assert_eq!(instance.http.head(instance.url("/orders/o-1/events")).send().await.unwrap().status().as_u16(), 404);
    drop(one);
    instance.until_metric("streamview_followers", &[], 1.0).await;
    one = Listener::open(&instance.url("/orders/o/changes"), "").await;
    instance.stop().await;
    assert_eq!((list.next().await, one.next().await), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_history_one_order_is_told_as_far_as_that_goes() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_PROJECTOR__HISTORY", "off")]).await;
    assert_eq!(instance.refusal("/orders/changes", 404).await["code"], "history_off");
    let url = instance.url("/orders/o-1/changes");
    let mut listener = Listener::open(&url, "").await;
    world.publish(records(&life("o-1", 40))).await;
    let mut numbers: Vec<i64> = Vec::new();
    while numbers.last() != Some(&40) {
        let event = listener.next().await.unwrap();
        assert_eq!(event.data["changedBy"]["eventType"], json!(null));
        assert_eq!(event.data["changedBy"]["eventId"], event.data["lastEventId"]);
        numbers.push(event.sequence());
    }
    assert!(numbers.is_sorted(), "{numbers:?}");
    world.publish([item_added("o-1", 41).record()]).await;
    let mut back = Listener::open(&url, &listener.last_id).await;
    assert_eq!(told(&back.take(1).await), [("o-1".to_owned(), 41)]);
}

/// Follows `url` until `enough`, coming back whenever the connection ends, which it also does itself now and then.
async fn follow(url: String, mut last_id: String, seed: u64, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut events: Vec<Event> = Vec::new();
    loop {
        let opened = until("the service answers", PATIENCE, || Listener::try_open(&url, &last_id));
        let mut listener = opened.await;
        for _ in 0..random.usize(1..200) {
            if enough(&events) {
                return events;
            }
            let Some(event) = listener.next().await else { break };
            assert_eq!(event.name, "order", "{event:?}");
            events.push(event);
        }
        last_id = listener.last_id;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_cut_off_while_projectors_are_killed_sees_every_change_once() {
    let world = World::new(4).await;
    let mut projector = world.start().await;
    let apis = [(); 2].map(|()| world.launch_command(&["serve", "--only", "api"], &[]));
    for api in &apis {
        api.until_ready().await;
    }
    let road = Road::to(&apis[0].address).await;
    let begin = Listener::open(&apis[0].url("/orders/changes"), "").await.begin_id().await;
    let load = Load::new("o", 120, 11);
    let all = load.records();
    let half = all.len() / 2;
    // The last change of all, of every customer.
    let is_over = |events: &[Event]| events.iter().any(|event| (event.order_id(), event.sequence()) == ("o-end", 3));
    let mut clients = Vec::new();
    for number in 0..8 {
        let url = format!("http://{}/orders/changes", road.address);
        clients.push(tokio::spawn(follow(url, begin.clone(), number, is_over)));
    }
    let publishing = async {
        for (number, batch) in all.chunks(all.len() / 6 + 1).enumerate() {
            world.publish(batch.to_vec()).await;
            match number {
                1 | 3 => {
                    world.until_consumed(half as i64 / 4).await;
                    projector.kill_hard();
                    projector = world.launch(&[]);
                }
                2 => road.lead_to(&apis[1].address),
                _ => {}
            }
            road.cut();
        }
        world.until_consumed(all.len() as i64).await;
        world.publish(records(&life("o-end", 3))).await;
    };
    publishing.await;
    world.until_consumed(all.len() as i64 + 3).await;
    let expected = ledger(&world).await;
    for (number, client) in clients.into_iter().enumerate() {
        let mut events = client.await.unwrap();
        // What other partitions had yet to say when the last change came.
        let url = format!("http://{}/orders/changes", road.address);
        let missing = expected.len().saturating_sub(events.len());
        if missing > 0 {
            let last_id = events.last().unwrap().id.clone();
            events.extend(follow(url, last_id, 99, |events| events.len() >= missing).await);
        }
        assert_exactly_once(&told(&events), &expected, &format!("client {number}"));
    }
}

impl Listener {
    /// The id that a stream opens with.
    async fn begin_id(mut self) -> String {
        self.block().await.unwrap();
        self.last_id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_from_build_to_build_and_back() {
    let world = World::new(2).await;
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let one = BuildId::new("orders", 1);
    let mut old = feed(&world, one, &[]);
    let new = feed(&world, create(&world, 2).await, &[]);
    let url = api.url("/orders/changes");
    let mut live = Listener::open(&url, "").await;
    let mut seen = Vec::new();
    let parts: Vec<Vec<TestEvent>> =
        (0..5).map(|part| (0..9).flat_map(|o| life(&format!("p{part}-{o}"), 4)).collect()).collect();
    let length = parts[0].len();

    world.publish(records(&parts[0])).await;
    until_consumed_by(&world, 1, length as i64).await;
    until_consumed_by(&world, 2, length as i64).await;
    seen.extend(live.take(length).await);
    let early = seen[length / 2].clone();
    // What both have by now; then more that both have, and more that only the new one has.
    let to_commits = commits_of(&world, 2).await;
    world.publish(records(&parts[1])).await;
    until_consumed_by(&world, 1, 2 * length as i64).await;
    until_consumed_by(&world, 2, 2 * length as i64).await;
    old.stop().await;
    let old_commits = commits_of(&world, 1).await;
    world.publish(records(&parts[2])).await;
    until_consumed_by(&world, 2, 3 * length as i64).await;
    switch(&world, (1, 2), &to_commits).await;
    seen.extend(live.take(2 * length).await);
    assert_exactly_once(&told(&seen), &ledger(&world).await, "live over a cutover");
    let between = seen[2 * length + 5].clone();

    // The old one is fed again, and readers go back to it.
    old = feed(&world, one, &[]);
    world.publish(records(&parts[3])).await;
    until_consumed_by(&world, 1, 4 * length as i64).await;
    until_consumed_by(&world, 2, 4 * length as i64).await;
    switch(&world, (2, 1), &old_commits).await;
    world.publish(records(&parts[4])).await;
    until_consumed_by(&world, 1, 5 * length as i64).await;
    seen.extend(live.take(2 * length).await);
    let expected = ledger(&world).await;
    assert_exactly_once(&told(&seen), &expected, "live over a rollback");

    // Whoever comes back now, from before the cutover or from between, has the same.
    for (who, begin) in [("before the cutover", &early), ("after the cutover", &between)] {
        let mut before: Vec<Event> = seen.iter().take_while(|event| event.id != begin.id).cloned().collect();
        before.push(begin.clone());
        let mut back = Listener::open(&url, &begin.id).await;
        let after = back.take(expected.len() - before.len()).await;
        assert_exactly_once(&[told(&before), told(&after)].concat(), &expected, who);
    }

    // And once more to the new one: the way of the first cursor is the last switch.
    let to_commits = commits_of(&world, 2).await;
    until_consumed_by(&world, 2, 5 * length as i64).await;
    switch(&world, (1, 2), &to_commits).await;
    let mut back = Listener::open(&url, &early.id).await;
    let before = &seen[..=length / 2];
    let after = back.take(expected.len() - before.len()).await;
    assert_exactly_once(&[told(before), told(&after)].concat(), &expected, "over all of it");

    // A build that is gone cannot be told to its end.
    drop((live, back));
    old.stop().await;
    new.stop().await;
    builds::drop(&world.sql, one).await.unwrap();
    let response = api.http.get(&url).header("last-event-id", &early.id).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 410);
    let problem: serde_json::Value = response.json().await.unwrap();
    assert_eq!(
        (&problem["code"], &problem["restart"]),
        (&json!("cursor_expired"), &json!("/orders/changes?snapshot=true"))
    );
    let mut anew = Listener::open(&api.url(problem["restart"].as_str().unwrap()), "").await;
    assert_eq!(anew.take(46).await[45].name, "snapshot");
    // One order's cursor knows no build.
    let order = Listener::open(&api.url("/orders/p0-1/changes"), "").await.begin_id().await;
    Listener::open(&api.url("/orders/p0-1/changes"), &order).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_takes_out_of_the_ledger_is_told_to_nobody_and_moves_no_cursor() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let url = instance.url("/orders/changes");
    let begin = Listener::open(&url, "").await.begin_id().await;
    world.publish(records(&[life("o-1", 4), life("o-2", 2)].concat())).await;
    let events = Listener::open(&url, &begin).await.take(6).await;
    world.sql.batch_execute("delete from orders_1.ledger where key = 'o-1' and sequence = 2").await.unwrap();
    world.publish(records(&[item_added("o-2", 3)])).await;
    let ids = [&begin].into_iter().chain(events.iter().map(|event| &event.id));
    for (seen, id) in ids.enumerate() {
        let mut expected = told(&events[seen..]);
        expected.retain(|row| *row != ("o-1".to_owned(), 2));
        expected.push(("o-2".to_owned(), 3));
        let mut back = Listener::open(&url, id).await;
        assert_eq!(told(&back.take(expected.len()).await), expected, "after {seen}");
    }
}

/// Takes build 1 back to migration 23: an index of the ledger said which rows came with a commit.
pub const BEFORE_COMMITS: &str = "drop table orders_1.commits; \
    alter table orders_1.ledger rename column commit to commit_number; \
    create index ledger_commits on orders_1.ledger (commit_partition, commit_number)";

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_goes_on_over_the_upgrade_that_gives_commits_rows_of_their_own() {
    let world = World::new(2).await;
    let instance = world.start().await;
    let begin = Listener::open(&instance.url("/orders/changes"), "").await.begin_id().await;
    world.publish(records(&[life("o-1", 4), life("o-2", 2), life("o-3", 3)].concat())).await;
    let events = Listener::open(&instance.url("/orders/changes"), &begin).await.take(9).await;
    instance.stop().await;
    world.sql.batch_execute(BEFORE_COMMITS).await.unwrap();
    world.sql.batch_execute("delete from refinery_schema_history where version >= 24").await.unwrap();
    migrate_database(&world.database).await;
    let instance = world.start().await;
    world.publish(records(&[item_added("o-2", 3)])).await;
    instance.order_at("o-2", 3).await;
    let ids = [&begin].into_iter().chain(events.iter().map(|event| &event.id));
    for (seen, id) in ids.enumerate() {
        let mut expected = told(&events[seen..]);
        expected.push(("o-2".to_owned(), 3));
        let mut back = Listener::open(&instance.url("/orders/changes"), id).await;
        assert_exactly_once(&told(&back.take(expected.len()).await), &expected, &format!("after {seen}"));
    }
}

/// As in a build that is made anew in place while a follower stands within a commit.
#[tokio::test(flavor = "multi_thread")]
async fn who_stands_within_a_commit_that_is_gone_is_told_all_of_the_next() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let url = instance.url("/orders/changes");
    let begin = Listener::open(&url, "").await.begin_id().await;
    world.publish(records(&life("o-1", 6))).await;
    let events = Listener::open(&url, &begin).await.take(6).await;
    world.sql.batch_execute("delete from orders_1.commits").await.unwrap();
    world.publish(records(&life("o-2", 6))).await;
    instance.order_at("o-2", 6).await;
    for event in &events {
        let told = told(&Listener::open(&url, &event.id).await.take(6).await);
        assert_exactly_once(&told, &(1..=6).map(|number| ("o-2".to_owned(), number)).collect::<Vec<_>>(), &event.id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_has_seen_more_than_there_is_has_expired() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let mut listener = Listener::open(&instance.url("/orders/changes"), "").await;
    world.publish(records(&life("o-1", 3))).await;
    let last = listener.take(3).await.pop().unwrap();
    drop(listener);
    instance.stop().await;
    // The database was taken back to an earlier moment.
    world.sql.batch_execute("update projection_progress set commits = 0").await.unwrap();
    let api = world.launch_command(&["serve", "--only", "api"], &[]);
    api.until_ready().await;
    let response = api.http.get(api.url("/orders/changes")).header("last-event-id", &last.id).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 410);
}

/// Node with the package `eventsource`, in the cache; made once.
pub fn event_source() -> PathBuf {
    const PACKAGE: &str = "eventsource@3.0.7";
    let folder = cache_folder().unwrap().join("servers/stock-eventsource-3.0.7");
    build_once(&folder, |unfinished| {
        let arguments = ["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", PACKAGE];
        std::fs::write(unfinished.join("package.json"), "{}")?;
        let status = Command::new("npm").args(arguments).current_dir(unfinished).status()?;
        anyhow::ensure!(status.success(), "npm {arguments:?} failed");
        Ok(())
    })
    .unwrap();
    folder
}

/// A child that does not outlive its test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What a child writes, line by line.
pub fn lines_of(output: ChildStdout) -> UnboundedReceiver<String> {
    let (sender, lines) = unbounded_channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_comes_back_by_itself() {
    let world = World::new(2).await;
    let mut instance = world.start().await;
    let road = Road::to(&instance.address).await;
    let client = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/stock_client/follow.mjs"))
        .arg(format!("http://{}/orders/changes", road.address))
        .current_dir(event_source())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut client = Killed(client);
    let mut lines = lines_of(client.0.stdout.take().unwrap());
    assert_eq!(lines.recv().await.as_deref(), Some("open"));
    let mut told = Vec::new();
    for round in 0..4 {
        world.publish(records(&life(&format!("o-{round}"), 25))).await;
        while told.len() < 25 * (round + 1) {
            let line = tokio::time::timeout(PATIENCE, lines.recv()).await.expect("the client is told").unwrap();
            if line == "open" {
                continue;
            }
            let data: serde_json::Value = serde_json::from_str(&line).unwrap();
            let sequence = data["changedBy"]["sequence"].as_i64().unwrap();
            told.push((data["orderId"].as_str().unwrap().to_owned(), sequence));
        }
        match round {
            0 => road.cut(),
            1 => {
                // While nobody answers at all, events go on.
                instance.kill_hard();
                let next = world.start().await;
                road.lead_to(&next.address);
                instance = next;
                road.cut();
            }
            _ => road.cut(),
        }
    }
    assert_exactly_once(&told, &ledger(&world).await, "the stock client");
    drop(instance);
}
