//! Readers on a streaming replica: what they are told while it is behind, when it gets in their way, and when it takes over.

use serde_json::{Value, json};
use streamview::domain::build::Build;
use streamview::domain::changes::{Cut, FeedCursor};
use streamview::domain::units::Partition;
use streamview_lab::servers::Postgres;
use tokio_postgres::Client;

use crate::changes::told;
use crate::rebuild::until_over;
use crate::rest::header;
use crate::support::instance::Instance;
use crate::support::listener::Listener;
use crate::support::orders::{TestEvent, created, item_added, life, oracle, status_changed, stored};
use crate::support::servers::{own_postgres, shared, standby_of, with_database};
use crate::support::world::{World, connect};
use crate::support::{PATIENCE, until};

/// A world on a server that has a standby.
struct Replicated {
    primary: Postgres,
    standby: Postgres,
    world: World,
    /// The world's database, on the standby.
    url: String,
    replica: Client,
}

impl Replicated {
    async fn new(partitions: i32, settings: &[(&str, &str)]) -> Replicated {
        let primary = own_postgres();
        let standby = standby_of(&primary, settings);
        let world = World::on(&shared().kafka, &primary.url("postgres"), partitions, &[]).await;
        let url = with_database(&standby.url("postgres"), world.database.rsplit_once('/').unwrap().1);
        // The database arrives like everything else.
        let there = connect(&standby.url("postgres")).await;
        until_replayed(&there, &world.sql).await;
        let replica = connect(&url).await;
        Replicated { primary, standby, world, url, replica }
    }

    /// An instance whose readers read the standby.
    async fn start_reading(&self, more: &[(&str, &str)]) -> Instance {
        let apart = [("STREAMVIEW_DATABASE__READ_URL", self.url.as_str())];
        self.world.start_with(&[&apart, more].concat()).await
    }

    /// From when this returns on, the standby stays where it is.
    async fn pause(&self) {
        self.replica.batch_execute("select pg_wal_replay_pause()").await.unwrap();
        until("replay is paused", PATIENCE, || async {
            let state: String =
                self.replica.query_one("select pg_get_wal_replay_pause_state()", &[]).await.unwrap().get(0);
            (state == "paused").then_some(())
        })
        .await;
    }

    async fn resume(&self) {
        self.replica.batch_execute("select pg_wal_replay_resume()").await.unwrap();
    }

    /// Waits until the standby has all that the primary has now.
    async fn until_replayed(&self) {
        until_replayed(&self.replica, &self.world.sql).await;
    }

    /// Has so many `reads` wait on the standby for a table whose view they hold, and cancelled there, once.
    async fn in_the_way<T>(&self, (table, view): (&str, &str), count: i64, reads: impl Future<Output = T>) -> T {
        let flush = "create table if not exists flushed (); comment on table flushed is 'all before is sent'";
        let holder = connect(&self.world.database).await;
        let lock = format!("begin; lock table {table} in access exclusive mode");
        holder.batch_execute(&lock).await.unwrap();
        self.world.sql.batch_execute(flush).await.unwrap();
        self.until_replayed().await;
        let conflict = async {
            until("the reads wait on the standby", PATIENCE, || async {
                let query = "select count(*) from pg_stat_activity where application_name in ('streamview-lookup', \
                             'streamview-read') and wait_event_type = 'Lock'";
                (self.replica.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == count).then_some(())
            })
            .await;
            // Its replay needs the view that all of them hold; it goes on only when it has cancelled them. One change, and no more:
            // who is in the way a second time is told so.
            let change = format!("begin; alter view {view} set (security_barrier = false); rollback");
            self.world.sql.batch_execute(&change).await.unwrap();
            self.world.sql.batch_execute(flush).await.unwrap();
            self.until_replayed().await;
            holder.batch_execute("rollback").await.unwrap();
        };
        let (answers, ()) = tokio::join!(reads, conflict);
        answers
    }
}

async fn until_replayed(replica: &Client, primary: &Client) {
    let flushed: String = primary.query_one("select pg_current_wal_flush_lsn()::text", &[]).await.unwrap().get(0);
    until("the standby has replayed all", PATIENCE, || async {
        let query = format!("select pg_last_wal_replay_lsn() >= '{flushed}'::pg_lsn");
        replica.query_one(&query, &[]).await.unwrap().get::<_, bool>(0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_waits_for_a_replica_never_answers_from_behind() {
    let pair = Replicated::new(1, &[]).await;
    let instance = pair.start_reading(&[]).await;
    pair.world.publish([created("o-1").record()]).await;
    instance.order_at("o-1", 1).await;
    pair.until_replayed().await;
    let tag = header(&instance.get("/orders/o-1").await, "etag");
    pair.pause().await;
    pair.world.publish([item_added("o-1", 2).record(), created("o-2").record()]).await;
    pair.world.until_consumed(3).await;

    // Without a wish it is what the replica has, and the tag with it.
    let asked = |path: &'static str| instance.http.get(instance.url(path)).header("if-none-match", &tag).send();
    assert_eq!(asked("/orders/o-1").await.unwrap().status(), 304);
    instance.refusal("/orders/o-2", 404).await;
    // With one it is that or a word of how far it is.
    for path in ["/orders/o-1?minSequence=2", "/orders/o-1?minSequence=2&waitMs=300", "/orders/o-1?asOfSequence=2"] {
        let answer = asked(path).await.unwrap();
        assert_eq!(answer.status(), 412, "{path}");
        assert_eq!(header(&answer, "retry-after"), "1");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((&problem["code"], &problem["currentSequence"]), (&json!("sequence_not_reached"), &json!(1)));
    }
    assert_eq!(instance.refusal("/orders/o-2?minSequence=1&waitMs=10", 412).await["currentSequence"], 0);

    let waits = async {
        let (first, second) = tokio::join!(
            asked("/orders/o-1?minSequence=2&waitMs=60000"),
            asked("/orders/o-2?minSequence=1&waitMs=60000")
        );
        (first.unwrap(), second.unwrap())
    };
    let arrives = async {
        instance.until_metric("streamview_waiters", &[], 2.0).await;
        pair.resume().await;
    };
    let ((first, second), ()) = tokio::join!(waits, arrives);
    assert_eq!(first.status(), 200, "not 304: the tag is of what lies behind");
    assert_ne!(header(&first, "etag"), tag);
    assert_eq!(first.json::<Value>().await.unwrap()["lastEventSequence"], 2);
    assert_eq!(second.json::<Value>().await.unwrap()["lastEventSequence"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_wait_race_a_replica_that_halts_and_goes_on() {
    const EVENTS: i64 = 60;
    let pair = Replicated::new(1, &[]).await;
    let instance = pair.start_reading(&[]).await;
    pair.world.publish(life("o-1", 1).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 1).await;

    let mut refused = 0;
    for sequence in 2..=EVENTS {
        if sequence % 10 == 3 {
            pair.pause().await;
        }
        pair.world.publish([status_changed("o-1", sequence, "Paid").record()]).await;
        if sequence % 10 == 6 {
            pair.resume().await;
        }
        let path = format!("/orders/o-1?minSequence={sequence}&waitMs=50");
        let answer = instance.get(&path).await;
        let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        match status {
            200 => assert!(body["lastEventSequence"].as_i64().unwrap() >= sequence, "{path}: {body}"),
            412 => {
                refused += 1;
                assert!(body["currentSequence"].as_i64().unwrap() < sequence, "{path}: {body}");
            }
            _ => panic!("{path}: {status} {body}"),
        }
    }
    assert!(refused >= 6, "the replica stood still six times: {refused}");
    pair.resume().await;
    instance.order_at("o-1", EVENTS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_ahead_of_a_replica_is_followed_once_it_is_there() {
    let pair = Replicated::new(1, &[]).await;
    let world = &pair.world;
    let ahead = world.start().await;
    let behind = pair.start_reading(&[]).await;
    world.publish([created("o-1").record()]).await;
    behind.order_at("o-1", 1).await;
    pair.pause().await;

    // Somebody who has followed the primary, by a commit and then by a build of which the standby knows nothing.
    let mut listener = Listener::open(&ahead.url("/orders/changes?snapshot=true"), "").await;
    listener.take(2).await;
    world.publish([item_added("o-1", 2).record()]).await;
    assert_eq!(told(&listener.take(1).await), [("o-1".to_owned(), 2)]);
    let of_commit = listener.last_id.clone();
    let rebuilt =
        ahead.posted("/ops/views/rebuild", &json!({ "reason": "a build that the standby has not" }), 202).await["id"]
            .as_i64()
            .unwrap();
    assert_eq!(until_over(&ahead, rebuilt).await["state"], "done");
    world.publish([item_added("o-1", 3).record()]).await;
    assert_eq!(told(&listener.take(1).await), [("o-1".to_owned(), 3)]);
    let of_build = listener.last_id.clone();

    let url = behind.url("/orders/changes");
    let mut followers = [(Listener::open(&url, &of_commit).await, 3), (Listener::open(&url, &of_build).await, 4)];
    // What was never there is still refused.
    let cut = Cut::at([(Partition(0), 1_000_000)]);
    let never = FeedCursor { build: Build(2), came_by: None, cut }.encode("orders");
    assert_eq!(behind.refusal(&format!("/orders/changes?after={never}"), 410).await["code"], "cursor_expired");

    pair.resume().await;
    behind.order_at("o-1", 3).await;
    world.publish([item_added("o-1", 4).record()]).await;
    for (follower, from) in &mut followers {
        let missed: Vec<(String, i64)> = (*from..=4).map(|sequence| ("o-1".to_owned(), sequence)).collect();
        assert_eq!(told(&follower.take(missed.len()).await), missed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_in_the_way_of_what_a_replica_replays_is_made_again() {
    let pair = Replicated::new(1, &[("max_standby_streaming_delay", "0")]).await;
    let instance = pair.start_reading(&[]).await;
    pair.world.publish(life("o-1", 3).iter().map(TestEvent::record)).await;
    instance.order_at("o-1", 3).await;
    pair.until_replayed().await;

    let reads = async {
        tokio::join!(
            instance.get("/orders/o-1"),
            instance.get("/orders?status=Paid"),
            instance.get("/orders/o-1/events")
        )
    };
    let (order, list, events) = pair.in_the_way(("orders_1.orders", "orders_view"), 3, reads).await;
    // What an order is now it does not wait for, but its history.
    let then = instance.get("/orders/o-1?asOfSequence=2");
    let then = pair.in_the_way(("orders_1.ledger", "order_events_view"), 1, then).await;
    for answer in [order, list, events, then] {
        let (status, url) = (answer.status(), answer.url().clone());
        assert_eq!(status, 200, "{url}: {}", answer.text().await.unwrap());
    }
    // A page of what there is now, in the middle of an answer, and an order before one.
    let urls = ["/orders/changes?snapshot=true", "/orders/o-1/changes?snapshot=true"].map(|path| instance.url(path));
    let snapshot = async |url: &str| Listener::open(url, "").await.take(2).await;
    let reads = async { tokio::join!(snapshot(&urls[0]), snapshot(&urls[1])) };
    let (list, order) = pair.in_the_way(("orders_1.orders", "orders_view"), 2, reads).await;
    for told in [list, order] {
        let told: Vec<(&str, &Value)> =
            told.iter().map(|event| (event.name.as_str(), &event.data["lastEventSequence"])).collect();
        assert_eq!(told, [("order", &json!(3)), ("snapshot", &Value::Null)]);
    }
    let query = "select confl_lock from pg_stat_database_conflicts where datname = current_database()";
    until("the conflict is counted", PATIENCE, || async {
        (pair.replica.query_one(query, &[]).await.unwrap().get::<_, i64>(0) >= 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_replica_that_lacks_commits_loses_no_event() {
    let mut pair = Replicated::new(2, &[]).await;
    let (ports, (_, name)) = ((pair.primary.port(), pair.standby.port()), pair.url.rsplit_once('/').unwrap());
    let both = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user=postgres dbname={name} target_session_attrs=read-write",
        ports.0, ports.1
    );
    let projector = pair.world.start_with(&[("STREAMVIEW_DATABASE__URL", &both)]).await;
    let reader =
        pair.world.launch_command(&["serve", "--only", "api"], &[("STREAMVIEW_DATABASE__READ_URL", &pair.url)]);
    reader.until_ready().await;
    let orders: Vec<String> = (0..8).map(|number| format!("o-{number}")).collect();
    let events: Vec<TestEvent> = orders.iter().flat_map(|order| life(order, 3)).collect();
    let (first, last): (Vec<&TestEvent>, Vec<&TestEvent>) = events.iter().partition(|event| event.sequence == 1);
    pair.world.publish(first.iter().map(|event| event.record())).await;
    pair.world.until_consumed(8).await;
    pair.until_replayed().await;

    // The standby gets nothing any more, and the primary commits on.
    pair.replica.batch_execute("alter system set primary_conninfo = ''").await.unwrap();
    pair.replica.batch_execute("select pg_reload_conf()").await.unwrap();
    until("the standby is cut off", PATIENCE, || async {
        let query = "select count(*) from pg_stat_wal_receiver";
        (pair.replica.query_one(query, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
    pair.world.publish(last.iter().map(|event| event.record())).await;
    pair.world.until_consumed(24).await;
    pair.primary.kill_hard().unwrap();

    // Nobody writes; who reads the standby is served.
    let ready = reader.until_degraded().await;
    assert!(ready["checks"].to_string().contains("read_database"), "{ready}");
    assert_eq!(reader.json("/orders/o-0").await["lastEventSequence"], 1);

    pair.replica.batch_execute("select pg_promote()").await.unwrap();
    pair.world.database = pair.url.clone();
    pair.world.reconnect().await;
    pair.world.until_consumed(24).await;
    assert_eq!(stored(&pair.world).await, oracle(&events));
    let [consumed, applied, rest @ ..] = pair.world.conservation().await;
    assert_eq!((consumed, applied, rest), (24, 24, [0; 5]), "each record counts once");
    for order in &orders {
        assert_eq!(reader.order_at(order, 3).await["lastEventSequence"], 3);
    }
    projector.until_running().await;
}
