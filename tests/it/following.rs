//! Many who follow changes: those who read, those who are cut off, those who never read; and how a process leaves them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::changes::{Killed, assert_exactly_once, event_source, lines_of, records, told};
use crate::support::instance::Instance;
use crate::support::listener::{Event, Listener, Road};
use crate::support::load::Load;
use crate::support::orders::{created, item_added, life, status_changed};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// Customers with several orders each, and events of each order.
const CUSTOMERS: usize = 40;
const ORDERS_OF_EACH: usize = 5;
const EVENTS_OF_EACH: i64 = 10;
/// Clients that never read.
const DEAF: usize = 50;

/// What a reading client follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    All,
    Customer(String),
    Order(String),
    /// Orders that are in that status when they are told: which changes that are is only known of the last one.
    Status(&'static str),
}

impl What {
    fn path(&self) -> String {
        match self {
            What::All => "/orders/changes".to_owned(),
            What::Customer(customer) => format!("/orders/changes?customerId={customer}"),
            What::Order(order) => format!("/orders/{order}/changes"),
            What::Status(status) => format!("/orders/changes?status={status}"),
        }
    }
}

/// A client that comes back whenever it is cut off, which it also does itself now and then.
struct Reader {
    what: What,
    heard: Arc<Mutex<Vec<Event>>>,
    task: JoinHandle<()>,
}

impl Reader {
    /// Follows from now on.
    async fn begin(what: What, road: &Road, seed: u64) -> Reader {
        let (url, heard) = (format!("http://{}{}", road.address, what.path()), Arc::new(Mutex::new(Vec::new())));
        let mut listener = Listener::open(&url, "").await;
        listener.block().await.expect("a stream opens with an id");
        let task = tokio::spawn(follow(listener, url, seed, Arc::clone(&heard)));
        Reader { what, heard, task }
    }

    fn heard(&self) -> Vec<(String, i64)> {
        told(&self.heard.lock().unwrap())
    }
}

async fn follow(mut listener: Listener, url: String, seed: u64, heard: Arc<Mutex<Vec<Event>>>) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        for _ in 0..random.usize(20..120) {
            let before = listener.last_id.clone();
            let Some(block) = listener.block().await else { break };
            match event_of(&block, &listener.last_id) {
                Some(event) if event.name == "order" => heard.lock().unwrap().push(event),
                // Its own fault; it comes back with what it has seen.
                Some(event) => assert_eq!((event.name.as_str(), &listener.last_id), ("overrun", &before), "{block}"),
                None => {}
            }
        }
        let last_id = listener.last_id;
        listener = until("the service answers", PATIENCE, || Listener::try_open(&url, &last_id)).await;
    }
}

fn event_of(block: &str, id: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    let data = serde_json::from_str(field("data: ")?).unwrap();
    Some(Event { name: field("event: ")?.to_owned(), id: id.to_owned(), data })
}

/// A client that asks and never reads.
async fn deaf(instance: &Instance, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(&instance.address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", instance.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Orders of customers who have several, as often as possible one event of each after the other; and a disorderly load.
fn traffic() -> Vec<TestRecord> {
    let mut rounds: Vec<Vec<TestRecord>> = vec![Vec::new(); EVENTS_OF_EACH as usize];
    for customer in 0..CUSTOMERS {
        for order in 0..ORDERS_OF_EACH {
            let events = life(&format!("c{customer}-{order}"), EVENTS_OF_EACH);
            for (event, round) in events.into_iter().zip(&mut rounds) {
                let is_first = event.sequence == 1;
                let event = if is_first { event.with("customerId", json!(format!("c{customer}"))) } else { event };
                round.push(event.record());
            }
        }
    }
    let orderly: Vec<TestRecord> = rounds.concat();
    let mut disorderly = Load::new("o", 120, 29).records().into_iter();
    let mut all = Vec::new();
    for (number, record) in orderly.into_iter().enumerate() {
        all.push(record);
        if number % 3 == 0 {
            all.extend(disorderly.next());
        }
    }
    all.extend(disorderly);
    all
}

/// What 150 reading clients follow.
fn wanted() -> Vec<What> {
    let mut wanted = vec![What::All; 10];
    wanted.extend((0..CUSTOMERS).map(|customer| What::Customer(format!("c{customer}"))));
    wanted.extend((0..20).map(|order| What::Customer(format!("customer-of-o-{order}"))));
    wanted.extend((0..40).map(|order| What::Order(format!("c{order}-0"))));
    wanted.extend((0..20).map(|order| What::Order(format!("o-{}", 20 + order))));
    wanted.extend(["Paid", "Packed", "Shipped", "Paid"].repeat(5).into_iter().map(What::Status));
    wanted
}

/// What each of them has to hear.
type Expected = BTreeMap<What, Vec<(String, i64)>>;
/// The last number and the status of each order.
type Ends = BTreeMap<String, (i64, Option<String>)>;

async fn expected(world: &World) -> (Expected, Ends) {
    let query = "select e.order_id, e.sequence, o.customer_id, o.status, o.last_event_sequence \
                 from order_events_view e join orders_view o using (order_id) order by 1, 2";
    let (mut expected, mut last) = (Expected::new(), Ends::new());
    for row in world.sql.query(query, &[]).await.unwrap() {
        let change: (String, i64) = (row.get(0), row.get(1));
        let customer: Option<String> = row.get(2);
        last.insert(change.0.clone(), (row.get(4), row.get(3)));
        let whats = [Some(What::All), customer.map(What::Customer), Some(What::Order(change.0.clone()))];
        for what in whats.into_iter().flatten() {
            expected.entry(what).or_default().push(change.clone());
        }
    }
    (expected, last)
}

/// Waits until a client has heard what it has to hear, and fails if it has heard anything twice or out of order.
async fn assert_heard(reader: &Reader, (expected, last): &(Expected, Ends)) {
    let who = format!("{:?}", reader.what);
    if let What::Status(status) = &reader.what {
        let ends: Vec<(String, i64)> = last
            .iter()
            .filter(|(_, (_, at_last))| at_last.as_deref() == Some(*status))
            .map(|(order, (sequence, _))| (order.clone(), *sequence))
            .collect();
        assert!(ends.len() > 5, "{who}: {}", ends.len());
        until(&format!("{who} has heard the last of each"), PATIENCE, || async {
            let heard = reader.heard();
            ends.iter().all(|end| heard.contains(end)).then_some(())
        })
        .await;
        let heard = reader.heard.lock().unwrap().clone();
        assert!(heard.iter().all(|event| event.data["status"] == *status), "{who}");
        assert_exactly_once(&told(&heard), &told(&heard), &who);
        return;
    }
    // Some orders never begin: their first event was no event.
    let expected = expected.get(&reader.what).map_or(&[][..], Vec::as_slice);
    // As long as it hears something it is slow, which is no fault: it comes back dozens of times.
    loop {
        // What is missing and how much was heard are of one look: what is heard between two would be waited for in vain.
        let heard = reader.heard();
        let (before, heard) = (heard.len(), BTreeSet::from_iter(heard));
        let missing: Vec<&(String, i64)> = expected.iter().filter(|change| !heard.contains(*change)).collect();
        let Some(first) = missing.first() else { break };
        let cursor = reader.heard.lock().unwrap().last().map(|event| event.id.clone());
        let count = missing.len();
        let what = format!("{who} hears one more; {count} are missing, {first:?} too, its last id is {cursor:?}");
        until(&what, PATIENCE, || async {
            // Nobody waits a patience for one that has failed.
            assert!(!reader.task.is_finished(), "{who} has failed");
            (reader.heard.lock().unwrap().len() > before).then_some(())
        })
        .await;
    }
    assert_exactly_once(&reader.heard(), expected, &who);
}

/// Megabytes of a process, now and at most.
fn memory_mb(instance: &Instance) -> (i64, i64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", instance.pid())).unwrap();
    let mb = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() / 1024
    };
    (mb("VmRSS:"), mb("VmHWM:"))
}

/// 200 clients, of which 50 never read: connections are cut at random and taken up again, the projector is killed twice, once
/// while it rebuilds, and readers are switched to what was rebuilt.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_hear_every_change_once_whoever_dies_and_whatever_is_switched() {
    let world = World::new(4).await;
    let mut projector = world.start().await;
    let buffer = ("STREAMVIEW_HTTP__FOLLOWER_BUFFER", "1000");
    // Only where nobody reads: a kernel that gives up on a connection does not tell the other side.
    let strict = [buffer, ("STREAMVIEW_HTTP__SEND_TIMEOUT_MS", "2000")];
    let api = |settings: &[(&str, &str)]| world.launch_command(&["serve", "--only", "api"], settings);
    let apis = [api(&[buffer]), api(&[buffer]), api(&strict)];
    for api in &apis {
        api.until_ready().await;
    }
    let roads = [Road::to(&apis[0].address).await, Road::to(&apis[1].address).await];
    let readers =
        wanted().into_iter().zip(0..).map(|(what, seed)| Reader::begin(what, &roads[seed as usize % 2], seed));
    let readers: Vec<Reader> = join_all(readers).await;
    assert_eq!(readers.len(), 150);
    let silent = join_all((0..DEAF).map(|_| deaf(&apis[2], "/orders/changes"))).await;
    apis[2].until_metric("streamview_followers", &[], DEAF as f64).await;
    let (before_mb, _) = memory_mb(&apis[2]);

    let all = traffic();
    let (count, mut random) = (all.len() as i64, fastrand::Rng::with_seed(1));
    let mut operation = None;
    for (number, part) in all.chunks(all.len() / 10 + 1).enumerate() {
        world.publish(part.to_vec()).await;
        roads[random.usize(0..2)].cut();
        match number {
            2 => {
                world.until_consumed(count / 10).await;
                projector.kill_hard();
                projector = world.start().await;
            }
            4 => {
                let asked = json!({ "reason": "to see who notices" });
                operation = projector.posted("/ops/views/rebuild", &asked, 202).await["id"].as_i64();
                until("a build is under way", PATIENCE, || async {
                    (world.number("select count(*) from view_builds").await == 2).then_some(())
                })
                .await;
                projector.kill_hard();
                projector = world.start().await;
            }
            // Who is led elsewhere comes back to another instance, with the cursor of this one.
            6 => {
                roads[0].lead_to(&apis[1].address);
                roads[1].lead_to(&apis[0].address);
                roads.iter().for_each(Road::cut);
            }
            _ => {}
        }
    }
    let path = format!("/ops/operations/{}", operation.unwrap());
    until("readers read what was rebuilt", PATIENCE, || async {
        let operation: Value = projector.http.get(projector.url(&path)).send().await.ok()?.json().await.ok()?;
        assert!(["running", "done"].contains(&operation["state"].as_str()?), "{operation}");
        (operation["state"] == "done").then_some(())
    })
    .await;
    roads.iter().for_each(Road::cut);
    // And a few more, of whatever is followed, from the new one.
    let more = (0..40).map(|order| item_added(&format!("c{order}-0"), EVENTS_OF_EACH + 1).record());
    world.publish(more).await;
    until("the new build has consumed all", PATIENCE, || async {
        let consumed = "select coalesce(sum(consumed), 0) from projection_progress where build = 2";
        (world.number(consumed).await >= count + 40).then_some(())
    })
    .await;

    let expected = expected(&world).await;
    assert!(expected.0[&What::All].len() > 2_500, "{}", expected.0[&What::All].len());
    for reader in &readers {
        assert_heard(reader, &expected).await;
        assert!(!reader.task.is_finished(), "{:?} has failed", reader.what);
        reader.task.abort();
    }
    // Those who never read are gone, though they are still there on their side: by what waits for them, or before that by how
    // long they have taken nothing.
    apis[2].until_metric("streamview_followers", &[], 0.0).await;
    let (_, most_mb) = memory_mb(&apis[2]);
    assert!(most_mb - before_mb < 40, "{DEAF} clients that never read took {before_mb} to {most_mb} MB");
    drop(silent);
}

/// Bytes that wait in the kernel on each connection of this instance.
fn unsent(instance: &Instance) -> Vec<u64> {
    let port: u16 = instance.address.rsplit(':').next().unwrap().parse().unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let connections = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == "01";
        is_ours.then(|| u64::from_str_radix(fields[4].split(':').next().unwrap(), 16).unwrap())
    });
    connections.collect()
}

/// Waits until so many connections take nothing any more; what waits on them.
async fn until_blocked(instance: &Instance, count: usize) -> Vec<u64> {
    until(&format!("{count} connections take nothing"), PATIENCE, || async {
        // Others are those who ask how it is.
        let unsent: Vec<u64> = unsent(instance).into_iter().filter(|bytes| *bytes > 100_000).collect();
        (unsent.len() >= count).then_some(unsent)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_never_reads_costs_a_bounded_amount_as_long_as_it_is_there() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_HTTP__FOLLOWER_BUFFER", "1000")]).await;
    let silent = join_all((0..20).map(|_| deaf(&instance, "/orders/changes"))).await;
    instance.until_metric("streamview_followers", &[], 20.0).await;
    let (before_mb, _) = memory_mb(&instance);
    for number in 0..8 {
        world.publish(records(&life(&format!("o-{number}"), 500))).await;
    }
    let unsent = until_blocked(&instance, 20).await;
    assert!(unsent.iter().all(|bytes| *bytes < 400_000), "{unsent:?}");
    let (_, most_mb) = memory_mb(&instance);
    // Each has a thousand changes waiting, and they share them.
    assert!(most_mb - before_mb < 60, "20 clients that never read took {before_mb} to {most_mb} MB");
    drop(silent);
    instance.until_metric("streamview_followers", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_nobody_who_follows_and_says_when_to_come_back() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_HTTP__SHUTDOWN_TIMEOUT_MS", "600000")]).await;
    world.publish(records(&life("o-1", 3))).await;
    instance.order_at("o-1", 3).await;
    let paths = ["/orders/changes", "/orders/o-1/changes", "/orders/o-2/changes", "/orders/changes?snapshot=true"];
    let mut listeners = join_all(paths.map(|path| {
        let url = instance.url(path);
        async move { Listener::open(&url, "").await }
    }))
    .await;
    let mut ids = Vec::new();
    for (listener, path) in listeners.iter_mut().zip(paths) {
        while listener.last_id.is_empty() {
            listener.block().await.unwrap_or_else(|| panic!("{path} begins"));
        }
        ids.push(listener.last_id.clone());
    }
    instance.signal("TERM");
    let began = Instant::now();
    let farewells = join_all(listeners.iter_mut().map(async |listener| {
        let block = listener.block().await.expect("a last word");
        (block, listener.block().await)
    }))
    .await;
    let ended = began.elapsed();
    assert!(instance.until_ended().await.success(), "{}", instance.log_text());
    let stopped = began.elapsed();
    for (((block, after), listener), id) in farewells.iter().zip(&listeners).zip(&ids) {
        assert!(block.starts_with("retry: ") && after.is_none(), "{block}");
        assert_eq!(&listener.last_id, id, "nothing was passed over");
    }
    assert!(ended < Duration::from_secs(5), "streams ended after {ended:?}");
    assert!(stopped < Duration::from_secs(30), "stopped after {stopped:?}");
}

/// Who takes nothing does not hear that the process stops, and holds it up no longer than `http.shutdown_timeout_ms` would.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_nobody_who_never_reads() {
    let world = World::new(1).await;
    let patient = [("STREAMVIEW_HTTP__FOLLOWER_BUFFER", "1000"), ("STREAMVIEW_HTTP__SHUTDOWN_TIMEOUT_MS", "600000")];
    let instance = world.start_with(&patient).await;
    let silent = join_all((0..5).map(|_| deaf(&instance, "/orders/changes"))).await;
    instance.until_metric("streamview_followers", &[], 5.0).await;
    for number in 0..6 {
        world.publish(records(&life(&format!("o-{number}"), 500))).await;
    }
    until_blocked(&instance, 5).await;
    let began = Instant::now();
    instance.stop().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_away_leaves_its_place_at_once() {
    let world = World::new(1).await;
    let instance = world.start_with(&[("STREAMVIEW_HTTP__MAX_FOLLOWERS", "1")]).await;
    let url = instance.url("/orders/changes");
    let mut reloaded = Listener::open(&url, "").await;
    reloaded.block().await.expect("a stream opens with an id");
    drop(reloaded);
    let began = Instant::now();
    until("the page is there again", PATIENCE, || Listener::try_open(&url, "")).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_asked_for_and_answered_like_everything_else() {
    let world = World::new(1).await;
    let instance = world.start().await;
    for path in ["/orders/changes", "/orders/o%2F1/changes"] {
        for method in [Method::GET, Method::HEAD] {
            let request = instance.http.request(method.clone(), instance.url(path));
            let answer = request.header("accept-encoding", "gzip, br").send().await.unwrap();
            let headers = answer.headers();
            assert_eq!(answer.status().as_u16(), 200, "{method} {path}");
            for (name, value) in [
                ("content-type", "text/event-stream"),
                ("cache-control", "no-store, no-transform"),
                ("x-accel-buffering", "no"),
                ("x-content-type-options", "nosniff"),
            ] {
                assert_eq!(headers[name], value, "{method} {path}");
            }
            assert!(!headers.contains_key("content-encoding") && headers.contains_key("x-trace-id"));
            // As the neighbours: pages of other origins may not read.
            assert!(!headers.contains_key("access-control-allow-origin"));
        }
        let refused = instance.http.request(Method::OPTIONS, instance.url(path)).send().await.unwrap();
        assert_eq!((refused.status().as_u16(), &refused.headers()["allow"]), (405, &"GET, HEAD".parse().unwrap()));
        let refused = instance.refusal(&format!("{path}?statsu=Paid"), 400).await;
        assert_eq!(refused["code"], "invalid_parameter", "{refused}");
    }
    for path in ["/orders/changes?page=1", "/orders/changes?sort=orderId", "/orders/o-1/changes?status=Paid"] {
        assert_eq!(instance.refusal(path, 400).await["code"], "invalid_parameter", "{path}");
    }
    instance.until_metric("streamview_followers", &[], 0.0).await;
}

/// The example of the README, word for word, in Node with the package `eventsource`.
#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_readme_runs() {
    let readme = include_str!("../../README.md");
    let example = readme.split("```js\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let world = World::new(1).await;
    let instance = world.start().await;
    world.publish(records(&[created("o-1"), created("o-2"), status_changed("o-2", 2, "Paid")])).await;
    instance.order_at("o-2", 2).await;
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("example.mjs");
    let surroundings = "import { createRequire } from 'node:module';\n\
                        import { pathToFileURL } from 'node:url';\n\
                        const found = createRequire(process.cwd() + '/').resolve('eventsource');\n\
                        const { EventSource } = await import(pathToFileURL(found));\n\
                        setInterval(() => {}, 1_000_000);\n\
                        const base = process.argv[2];\n\
                        const show = (order) => console.log(order.orderId, order.lastEventSequence);\n";
    std::fs::write(&script, format!("{surroundings}{example}")).unwrap();
    let road = Road::to(&instance.address).await;
    let client = Command::new("node")
        .arg(&script)
        .arg(format!("http://{}", road.address))
        .current_dir(event_source())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut client = Killed(client);
    let mut lines = lines_of(client.0.stdout.take().unwrap());
    let mut heard = async || tokio::time::timeout(PATIENCE, lines.recv()).await.expect("it hears").unwrap();
    assert_eq!(heard().await, "o-1 1", "what there is");
    world.publish(records(&[item_added("o-1", 2), item_added("o-2", 3)])).await;
    assert_eq!(heard().await, "o-1 2", "what has changed since");
    road.cut();
    world.publish(records(&[item_added("o-1", 3)])).await;
    assert_eq!(heard().await, "o-1 3", "it has come back");

    // The database was taken back to an earlier moment: what the client has seen cannot be gone on from. It begins anew.
    instance.stop().await;
    let taken_back = "update projection_progress set commits = 0; update orders_1.ledger set commit = 0; \
                      truncate orders_1.commits";
    world.sql.batch_execute(taken_back).await.unwrap();
    let instance = world.start().await;
    road.lead_to(&instance.address);
    road.cut();
    assert_eq!(heard().await, "o-1 3", "what there is by now");
    world.publish(records(&[item_added("o-1", 4)])).await;
    assert_eq!(heard().await, "o-1 4");
}
