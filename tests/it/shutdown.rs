//! How a process ends: on request, in time, and with a sentence when it cannot begin.

use std::time::{Duration, Instant};

use crate::support::instance::Instance;
use crate::support::load::Load;
use crate::support::servers::{self, execute, with_database};
use crate::support::world::{World, connect};
use crate::support::{PATIENCE, until};

/// `projector.shutdown_timeout_ms` of the instances here; one that does not drain within it exits with 1.
pub const DEADLINE: Duration = Duration::from_secs(60);
const SMALL_BATCHES: (&str, &str) = ("STREAMVIEW_PROJECTOR__MAX_BATCH_EVENTS", "10");

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_exits_0_in_time_and_a_restart_goes_on() {
    let world = World::new(3).await;
    let load = Load::new("o", 1_000, 3);
    let instance = world.start_with(&[SMALL_BATCHES]).await;
    let records = load.records();
    // Some come while it stops, and some when it has stopped: however quick it is, it has not consumed everything.
    let (now, rest) = records.split_at(records.len() - 120);
    let (meanwhile, later) = rest.split_at(60);
    let stop = async {
        world.until_consumed(200).await;
        let begun = Instant::now();
        instance.signal("TERM");
        world.publish(meanwhile.to_vec()).await;
        (instance.until_ended().await, begun.elapsed())
    };
    let ((status, took), ()) = tokio::join!(stop, world.publish(now.to_vec()));

    assert_eq!(status.code(), Some(0), "{}", instance.log_text());
    assert!(took < DEADLINE, "{took:?}");
    let consumed = world.consumed().await;
    println!("it was told to stop in the middle of its load: {consumed} of {} records are consumed", load.len());
    world.publish(later.to_vec()).await;
    let _restarted = world.start().await;
    load.assert_settled(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_gets_its_answer_before_the_exit() {
    let world = World::new(1).await;
    let instance = world.start().await;
    let request = instance.http.get(instance.url("/orders/o-1?minSequence=1&waitMs=60000")).send();
    let stop = async {
        until("the request waits", PATIENCE, || async {
            (instance.metric("streamview_waiters", &[]).await == 1.0).then_some(())
        })
        .await;
        instance.signal("TERM");
    };

    let (answer, ()) = tokio::join!(request, stop);

    let answer = answer.unwrap();
    let status = answer.status().as_u16();
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert!([404, 412, 503].contains(&status), "{status}");
    assert_eq!(problem["status"], status, "a whole answer: {problem}");
    assert_eq!(instance.until_ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_leaves_orderly_is_replaced_at_once_not_after_its_session() {
    // Longer than anything that is waited for here.
    const SESSION: Duration = Duration::from_secs(290);
    const LONG_SESSION: (&str, &str) = ("STREAMVIEW_KAFKA__SESSION_TIMEOUT_MS", "290000");
    let world = World::new(4).await;
    let leaving = world.start_with(&[LONG_SESSION]).await;
    let staying = world.start_with(&[LONG_SESSION]).await;
    let query = format!("select count(*) from projection_progress where owner like '%-{}'", staying.pid());
    until("both have partitions", PATIENCE, || async { (world.number(&query).await == 2).then_some(()) }).await;

    let left = Instant::now();
    leaving.signal("TERM");
    assert_eq!(leaving.until_ended().await.code(), Some(0));

    until("the other one has all", PATIENCE, || async { (world.number(&query).await == 4).then_some(()) }).await;
    assert!(left.elapsed() < SESSION / 2, "{:?}", left.elapsed());
}

/// A process that dies of a signal has no code: it would not even die as process 1 of a container.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_waits_is_ended_by_the_first_signal_with_its_code() {
    // Longer than anything that is waited for here.
    const PATIENT: [(&str, &str); 2] =
        [("STREAMVIEW_DATABASE__READ_TIMEOUT_MS", "600000"), ("STREAMVIEW_DATABASE__DECISION_TIMEOUT_MS", "600000")];
    const WAITING: &str =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let world = World::new(1).await;
    let locker = connect(&world.database).await;
    // By the lock of `migrate`, and of tables that the others come to.
    let locks = format!(
        "begin; lock table held_keys, view_pauses in access exclusive mode; select pg_advisory_xact_lock({})",
        0x5374_7265_616d_i64
    );
    for (arguments, signal, code) in [
        (&["held", "list"][..], "TERM", 143),
        (&["pause", "--reason", "to see"], "TERM", 143),
        (&["migrate"], "INT", 130),
    ] {
        locker.batch_execute(&locks).await.unwrap();
        let command = world.launch_command(arguments, &PATIENT);
        until("it waits for a lock", PATIENCE, || async {
            assert!(command.exit_status().is_none(), "{arguments:?}: {}", command.log_text());
            (world.number(WAITING).await > 0).then_some(())
        })
        .await;
        command.signal(signal);
        let status = command.until_ended().await;
        assert_eq!(status.code(), Some(code), "{arguments:?}: {status}: {}", command.log_text());
        // Postgres sees that nobody is there any more once it has the lock.
        locker.batch_execute("rollback").await.unwrap();
        until("its session is over", PATIENCE, || async { (world.number(WAITING).await == 0).then_some(()) }).await;
    }
    assert_eq!(world.number("select count(*) from view_pauses").await, 0, "what was under way is rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_can_reach_is_refused_with_exit_code_2() {
    let world = World::new(1).await;
    let instance = Instance::launch(&["--set", "http.bind=0.0.0.0:18080", "serve"], world.environment());

    assert_eq!(instance.until_ended().await.code(), Some(2));

    let sentence = "http.bind = 0.0.0.0:18080 would let other machines read everything, since no access control is \
                    configured: bind a loopback address such as 127.0.0.1:18080, or set http.allow_anonymous = true";
    assert!(instance.log_text().contains(sentence), "{}", instance.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_refused_with_the_command_that_helps() {
    let maintenance = &servers::shared().database;
    let name = format!("empty_{}", std::process::id());
    execute(maintenance, &format!("create database {name}")).await;
    let url = with_database(maintenance, &name);
    let world = World::new(1).await;
    let serve = || world.launch(&[("STREAMVIEW_DATABASE__URL", &url)]);

    let refused = serve();
    assert_eq!(refused.until_ended().await.code(), Some(1));
    assert!(refused.log_text().contains("run `streamview migrate` first"), "{}", refused.log_text());

    // And it does help.
    let environment = vec![("STREAMVIEW_DATABASE__URL".to_owned(), url.clone())];
    assert_eq!(Instance::launch(&["migrate"], environment).until_ended().await.code(), Some(0));
    serve().until_ready().await;
}
