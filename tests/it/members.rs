//! Membership of the group: names that two processes share, places of the dead, stops, partitions that are added.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use streamview::config::Config;
use streamview::domain::units::{NextOffset, Partition};
use streamview::platforms::kafka::consumer::{Command, GroupEvent, GroupMember, GroupNews, MemberName};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;

use crate::support::instance::Instance;
use crate::support::orders::{TestEvent, life};
use crate::support::servers::{execute, with_database};
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, until};

/// The default, and far longer than any test waits: what is applied again within it was not left to it.
const LONG_SESSION: (&str, &str) = ("STREAMVIEW_KAFKA__SESSION_TIMEOUT_MS", "45000");

/// What takes less was not left to the session's end, however busy the machine is. The figures are printed, and those of a
/// quiet machine stand in docs/operations.md.
const UNHELPED: Duration = Duration::from_secs(30);

/// The event, on that partition.
fn on(partition: i32, event: &TestEvent) -> TestRecord {
    TestRecord { partition: Some(partition), ..event.record() }
}

/// Publishes an order of its own to each partition, and waits until all are consumed. Gives how long that took.
async fn apply_on_all(world: &World, name: &str, partitions: i32) -> Duration {
    let before = world.consumed().await;
    let started = Instant::now();
    let orders = (0..partitions).map(|partition| on(partition, &life(&format!("{name}-{partition}"), 1)[0]));
    world.publish(orders).await;
    world.until_consumed(before + i64::from(partitions)).await;
    started.elapsed()
}

/// How many partitions the instance consumes.
async fn partitions_of(instance: &Instance) -> usize {
    instance.json("/ops/consumer").await["views"][0]["partitions"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_with_one_instance_id_the_fenced_one_halts_by_name() {
    let world = World::new(2).await;
    let same = ("STREAMVIEW_KAFKA__INSTANCE_ID", "same");
    let first = world.start_with(&[same]).await;
    apply_on_all(&world, "before", 2).await;

    let second = world.start_with(&[same]).await;

    first.until_halted("instance_fenced").await;
    let consumer = first.json("/ops/consumer").await;
    let halt = &consumer["views"][0]["halt"];
    assert!(halt["detail"].as_str().unwrap().contains(&format!("same-{}", world.group)), "{halt}");
    assert!(halt["nextStep"].as_str().unwrap().contains("kafka.instance_id"), "{halt}");
    assert_eq!(partitions_of(&first).await, 0);
    apply_on_all(&world, "after", 2).await;
    second.readiness().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_holders_of_one_seat_the_fenced_one_takes_the_next_and_goes_on() {
    let world = World::new(4).await;
    let first = world.start_with(&[LONG_SESSION]).await;
    // Another database knows nothing of the first one's seat, and the group is the same.
    let maintenance = with_database(&world.database, "postgres");
    let name = format!("{}_other", world.database.rsplit_once('/').unwrap().1);
    execute(&maintenance, &format!("create database {name} template {}", crate::support::servers::TEMPLATE)).await;
    let elsewhere = with_database(&world.database, &name);

    let second = world.start_with(&[LONG_SESSION, ("STREAMVIEW_DATABASE__URL", &elsewhere)]).await;

    until("both have their share", PATIENCE, || async {
        let shares = (partitions_of(&first).await, partitions_of(&second).await);
        (shares == (2, 2)).then_some(())
    })
    .await;
    // Nearly always the first; on a busy machine it may come back under the name after the second one has joined.
    let logs = [first.log_text(), second.log_text()];
    assert!(logs.iter().any(|log| log.contains("is fenced")), "{logs:?}");
    world.publish((0..4).map(|partition| on(partition, &life(&format!("o-{partition}"), 1)[0]))).await;
    let sql = crate::support::world::connect(&elsewhere).await;
    until("every record is consumed by one of them", PATIENCE, || async {
        let row = sql.query_one("select coalesce(sum(consumed), 0)::bigint from projection_progress", &[]).await;
        (world.consumed().await + row.unwrap().get::<_, i64>(0) == 4).then_some(())
    })
    .await;
    first.readiness().await;
    second.readiness().await;
    assert_eq!((first.state().await.0, second.state().await.0), ("running".to_owned(), "running".to_owned()));
}

/// Ends the session of the only seat that is taken.
async fn end_seat(world: &World) {
    let end = "select pg_terminate_backend(pid) from pg_stat_activity
               where application_name = 'streamview-seat' and datname = current_database()";
    world.sql.batch_execute(end).await.unwrap();
}

/// As when it is cut off from Postgres for a while: the server keeps the old session, and with it the seat, for longer than
/// the client does.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_has_lost_its_session_takes_its_seat_again_once_it_is_given_up() {
    let world = World::new(4).await;
    let first = world.start_with(&[LONG_SESSION]).await;
    // Whoever waits for it is given the seat at once, in the place of its lost session: before it can take it again.
    let rival = crate::support::world::connect(&world.database).await;
    let lock = format!("hashtextextended('streamview seat 0 of {}', 0)", world.group);
    let take = format!("select pg_advisory_lock({lock})");
    let taken = tokio::spawn(async move {
        rival.batch_execute(&take).await.unwrap();
        rival
    });
    until("the rival waits for the seat", PATIENCE, || async {
        let waits = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                     and database = (select oid from pg_database where datname = current_database())";
        (world.number(waits).await == 1).then_some(())
    })
    .await;
    end_seat(&world).await;
    let rival = tokio::time::timeout(PATIENCE, taken).await.expect("the seat is the rival's").unwrap();
    until("it knows that its session is gone", PATIENCE, || async {
        first.log_text().contains("the session that held the seat is lost").then_some(())
    })
    .await;
    first.readiness().await;
    assert_eq!(partitions_of(&first).await, 4, "nothing has happened");
    rival.batch_execute(&format!("select pg_advisory_unlock({lock})")).await.unwrap();
    until("it has its seat again", PATIENCE, || async { first.log_text().contains("seat taken again").then_some(()) })
        .await;

    let second = world.start_with(&[LONG_SESSION]).await;

    until("both have their share", PATIENCE, || async {
        let shares = (partitions_of(&first).await, partitions_of(&second).await);
        (shares == (2, 2)).then_some(())
    })
    .await;
    assert!(second.log_text().contains("seat=1"), "{}", second.log_text());
    assert!(!first.log_text().contains("is fenced"), "{}", first.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_instance_that_has_lost_its_seat_to_another_takes_the_next() {
    let world = World::new(4).await;
    let first = world.start_with(&[LONG_SESSION]).await;
    first.signal("STOP");
    first.until_stopped().await;
    end_seat(&world).await;

    let second = world.start_with(&[LONG_SESSION]).await;
    apply_on_all(&world, "meanwhile", 4).await;
    first.signal("CONT");

    until("both have their share", PATIENCE, || async {
        let shares = (partitions_of(&first).await, partitions_of(&second).await);
        (shares == (2, 2)).then_some(())
    })
    .await;
    let (first_log, second_log) = (first.log_text(), second.log_text());
    assert!(second_log.contains("seat taken") && second_log.contains("seat=0"), "{second_log}");
    assert!(first_log.contains("is fenced") && first_log.contains("seat=1"), "{first_log}");
    apply_on_all(&world, "after", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_a_single_instance_applies_again_within_three_seconds() {
    let world = World::new(3).await;
    let mut instance = world.start_with(&[LONG_SESSION]).await;
    apply_on_all(&world, "first", 3).await;
    for round in 0..4 {
        instance.kill_hard();
        let started = Instant::now();
        instance = world.launch(&[LONG_SESSION]);
        apply_on_all(&world, &format!("again-{round}"), 3).await;
        let took = started.elapsed();
        println!("killed and started again: the first records are applied after {} ms", took.as_millis());
        assert!(took < UNHELPED, "{took:?}: {}", instance.log_text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_start_after_several_kills_takes_the_places_of_all_the_dead() {
    let world = World::new(8).await;
    let mut dead = Vec::new();
    for _ in 0..4 {
        dead.push(world.start_with(&[LONG_SESSION]).await);
    }
    until("each has its share", PATIENCE, || async {
        let shares = join_all(dead.iter().map(partitions_of)).await;
        shares.iter().all(|share| *share == 2).then_some(())
    })
    .await;
    apply_on_all(&world, "first", 8).await;
    dead.iter().for_each(Instance::kill_hard);

    let started = Instant::now();
    let one = world.launch(&[LONG_SESSION]);
    apply_on_all(&world, "again", 8).await;
    println!("four killed, one started: all is applied after {} ms", started.elapsed().as_millis());
    assert!(started.elapsed() < UNHELPED, "{:?}: {}", started.elapsed(), one.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_in_order_hands_its_partitions_over_at_once() {
    let world = World::new(4).await;
    let old = world.start_with(&[LONG_SESSION]).await;
    let new = world.start_with(&[LONG_SESSION]).await;
    until("both have their share", PATIENCE, || async {
        let shares = (partitions_of(&old).await, partitions_of(&new).await);
        (shares == (2, 2)).then_some(())
    })
    .await;
    let logs = old.log_text() + &new.log_text();
    assert!(!logs.contains("is fenced"), "two on one host have two seats: {logs}");

    old.stop().await;

    let took = apply_on_all(&world, "after", 4).await;
    println!("stopped in order: all is applied after {} ms", took.as_millis());
    assert!(took < UNHELPED, "{took:?}: {}", new.log_text());
    assert_eq!(partitions_of(&new).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_partitions_are_taken_within_six_seconds() {
    let mut world = World::new(2).await;
    let instance = world.start_with(&[LONG_SESSION]).await;
    apply_on_all(&world, "before", 2).await;
    let before = instance.log_text().len();
    world.grow_topic(5).await;
    let grown = Instant::now();

    let took = apply_on_all(&world, "after", 5).await;

    println!("grown: all is applied after {} ms", grown.elapsed().as_millis());
    assert!(took < Duration::from_secs(6), "{took:?}: {}", instance.log_text());
    // What was said while it started is another matter.
    let log = &instance.log_text()[before..];
    assert!(!log.contains("view waits"), "nothing flaps: {log}");
    assert!(log.contains("partitions were added to the topic"), "it says why: {log}");
}

/// A rebalance may be told while its coordinator ends, and closing a client waits for the answer. Where it hung, it did so
/// once in some fifteen: hence so many.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_leave_in_the_middle_of_a_rebalance_are_gone_at_once() {
    let world = World::new(2).await;
    join_all((0..3).map(|lane| leave_unanswered(&world, lane))).await;
}

async fn leave_unanswered(world: &World, lane: usize) {
    for round in 0..24 {
        let group = format!("{}-{lane}-{round}", world.group);
        let name = if round % 4 == 3 { MemberName::Seat(0) } else { MemberName::Given("given".to_owned()) };
        let (member, mut told) = join(world, &group, &name);
        while !matches!(told.recv().await, Some((_, GroupEvent::Assigned(_)))) {}
        if round < 20 {
            assert_leaves(member, &format!("{name:?}, assigned")).await;
            continue;
        }
        member.command(Command::Assign(vec![(Partition(0), NextOffset(0)), (Partition(1), NextOffset(0))]));
        let (other, mut other_told) = join(world, &group, &MemberName::Seat(7));
        while !matches!(told.recv().await, Some((_, GroupEvent::Revoked(_)))) {}
        if round % 2 == 0 {
            assert_leaves(member, &format!("{name:?}, revoked")).await;
            assert_leaves(other, &format!("beside {name:?}, revoked")).await;
            continue;
        }
        member.command(Command::Unassign(vec![Partition(0), Partition(1)]));
        while !matches!(other_told.recv().await, Some((_, GroupEvent::Assigned(_)))) {}
        assert_leaves(other, &format!("beside {name:?}, answered")).await;
        assert_leaves(member, &format!("{name:?}, revoked and answered")).await;
    }
}

fn join(world: &World, group: &str, name: &MemberName) -> (GroupMember, UnboundedReceiver<GroupNews>) {
    let mut kafka = Config::defaults().kafka;
    kafka.bootstrap_servers = world.kafka.clone();
    let (news, told) = unbounded_channel();
    (GroupMember::join(&kafka, (group, &world.topic, 2), name, (1, news)).unwrap(), told)
}

async fn assert_leaves(member: GroupMember, which: &str) {
    // A thread of its own: a runtime would wait for it, however the test ends.
    let (done, gone) = oneshot::channel();
    std::thread::spawn(move || {
        member.leave();
        done.send(()).ok();
    });
    assert!(tokio::time::timeout(UNHELPED, gone).await.is_ok(), "{which}: still waits for an answer");
}
