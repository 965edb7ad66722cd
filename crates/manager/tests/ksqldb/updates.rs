//! Updates are sent whatever they are, and what has no id is found by its name.

use streamview_lab::ksqldb_stand_in::Switches;
use streamview_manager::engines::{Changes, Engine, Handle, ObservedState, StopMode, Stopped, Trouble};
use streamview_manager::gate::Kind;

use crate::support::{World, records};

const BIG: &str = "SELECT order_id, amount FROM orders WHERE amount > 100";

#[tokio::test]
async fn an_update_is_always_sent() {
    let world = World::start().await;
    let mut deployment = world.deployment("Sent", BIG, Changes::Append).await;
    let handle = world.deploy(&deployment).await;
    world.engine.stop(&deployment, &handle, StopMode::KeepState).await.unwrap();

    (deployment.revision, deployment.replaces) = (2, true);
    for times in 1..=2 {
        assert_eq!(world.deploy(&deployment).await, handle);
        assert_eq!(world.sent("CREATE OR REPLACE").len(), times);
    }
    assert_eq!(world.state(&handle).await, Some(ObservedState::Running), "what was paused goes on");
}

#[tokio::test]
async fn a_text_that_differs_in_brackets_is_never_taken_for_the_new_one() {
    let world = World::start().await;
    let text = |sum: &str| format!("SELECT customer, SUM({sum}) AS total FROM orders GROUP BY customer");
    let old = text("amount - order_id - 1");
    let mut deployment = world.deployment("Brackets", &old, Changes::Upsert).await;
    let handle = world.deploy(&deployment).await;
    world.order(1, "a", "10");
    assert_eq!(records(&handle.output_topic, 1).await[0].1, "{\"TOTAL\":8.00}");

    (deployment.revision, deployment.replaces) = (2, true);
    deployment.select = world.gated(&text("amount - (order_id - 1)"), Kind::Persistent);
    let outcome = world.engine.deploy(&deployment).await;

    let Err(Trouble::Refused(refusal)) = outcome else { panic!("it was not done: {outcome:?}") };
    assert_eq!(refusal.code, "cannot_upgrade");
    assert_eq!(world.state(&handle).await, Some(ObservedState::Running), "the old one goes on");

    // Begun anew it is the new text that runs, whatever is there.
    deployment.replaces = false;
    let anew = world.deploy(&deployment).await;
    assert_ne!(anew.job_id, handle.job_id);
    let running = world.engine.observe().await.unwrap().remove(0).statement.unwrap();
    assert!(running.contains("- ("), "{running}");
}

/// A handle of a deployment whose answer never came.
fn without_id(handle: &Handle) -> Handle {
    Handle { job_id: String::new(), ..handle.clone() }
}

#[tokio::test]
async fn what_has_no_id_is_paused_resumed_and_removed_by_its_name() {
    let world = World::start().await;
    let deployment = world.deployment("Nameless", BIG, Changes::Append).await;
    let handle = world.deploy(&deployment).await;
    let nameless = without_id(&handle);

    let stopped = world.engine.stop(&deployment, &nameless, StopMode::KeepState).await.unwrap();
    assert_eq!((stopped, world.state(&handle).await), (Stopped::Paused, Some(ObservedState::Paused)));
    world.engine.resume(&nameless).await.unwrap();
    assert_eq!(world.state(&handle).await, Some(ObservedState::Running));
    let stopped = world.engine.stop(&deployment, &nameless, StopMode::Final).await.unwrap();
    assert_eq!((stopped, world.engine.observe().await.unwrap()), (Stopped::WithoutState, Vec::new()));
    world.engine.remove(&nameless, &[]).await.unwrap();
    assert_eq!(world.sent("DROP STREAM").len(), 1);
}

#[tokio::test]
async fn what_never_came_to_run_can_be_stopped_and_removed() {
    let world = World::start().await;
    let deployment = world.deployment("Never", BIG, Changes::Append).await;
    let words = format!("CREATE STREAM {}", deployment.names.sink());
    world.switch(Switches { lose_request_of: Some(words), ..Switches::default() });
    assert!(matches!(world.engine.deploy(&deployment).await, Err(Trouble::Unknown(_))));
    let names = &deployment.names;
    let handle = Handle {
        job_id: String::new(),
        stream_name: names.sink(),
        output_topic: names.topic(),
        changes: Changes::Append,
        keeps_at: None,
    };
    for mode in [StopMode::KeepState, StopMode::Final] {
        let stopped = world.engine.stop(&deployment, &handle, mode).await.unwrap();
        assert_eq!(stopped, Stopped::WithoutState);
    }
    world.engine.remove(&handle, &[]).await.unwrap();
}

#[tokio::test]
async fn a_removal_leaves_what_somebody_else_has_under_the_name() {
    let world = World::start().await;
    let deployment = world.deployment("Foreign", BIG, Changes::Append).await;
    world.deploy(&world.deployment("Registers", BIG, Changes::Append).await).await;
    let (sink, source) = (deployment.names.sink(), &world.source.name);
    let theirs =
        format!("CREATE STREAM {sink} WITH (KAFKA_TOPIC='theirs_{source}') AS SELECT * FROM `{source}` EMIT CHANGES;");
    assert_eq!(world.by_hand(&theirs).await.0, 200);
    let names = &deployment.names;
    let handle = Handle {
        job_id: String::new(),
        stream_name: names.sink(),
        output_topic: names.topic(),
        changes: Changes::Append,
        keeps_at: None,
    };

    let stopped = world.engine.stop(&deployment, &handle, StopMode::Final).await.unwrap();
    world.engine.remove(&handle, &[]).await.unwrap();

    assert_eq!(stopped, Stopped::WithoutState);
    assert!(world.sent("DROP").is_empty() && world.sent("TERMINATE").is_empty());
    assert_eq!(world.engine.observe().await.unwrap().len(), 2);
}
