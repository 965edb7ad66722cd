//! Faults that a review has found, each as a test that says it cannot happen any more.

use super::convergence::record;
use super::model::Fault;
use super::stage::{PATIENCE, Stage, WITH_TOPIC, create, deployed, settled, until};
use crate::Fault as Why;
use crate::engines::{EngineKind, ObservedState, RestorePoint};
use crate::lifecycle::Action;
use crate::lifecycle::outcome::NO_RESTORE_POINT;
use crate::lifecycle::record::{Position, Restore};
use crate::lifecycle::wish::{How, wish};
use crate::manager::{Change, DeleteOptions, DeployOptions, Manager, StopOptions};

const FIRST: &str = "SELECT ORDER_ID FROM orders";

#[tokio::test]
async fn the_next_restore_point_is_tried_and_none_left_is_said() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    until(&running.manager, &definition.id, "its state is noted", |now| now.restore_point.is_some()).await;
    let seen = stage.model().with(|world| world.observations);
    until(&running.manager, &definition.id, "checkpoints", |_| {
        stage.model().with(|world| world.observations) > seen + 10
    })
    .await;
    // The JobManager is gone, and with it the latest checkpoints.
    stage.model().with(|world| {
        world.forget_jobs();
        world.retained.clear();
    });
    let given_up =
        until(&running.manager, &definition.id, "it is given up", |now| now.failed_revision == Some(1)).await;
    assert!(given_up.last_error.as_ref().is_some_and(|error| error.starts_with(NO_RESTORE_POINT)), "{given_up:?}");
    assert!(given_up.restore_point.is_some(), "it may be put back: {given_up:?}");
    assert_eq!(stage.model().live(), []);
    let deploys = stage.model().with(|world| world.calls.iter().filter(|call| call.starts_with("deploy")).count());
    assert!(deploys > 2, "only one place was tried: {deploys}");
    running.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_for_a_slot_is_adopted_and_not_begun_once_more() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = create(&running.manager, "orders", FIRST, None).await;
    stage.model().with(|world| world.faults.push_back(Fault::NoSlot));
    running.manager.deploy(&definition.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
    let job = until(&running.manager, &definition.id, "it is adopted", |now| now.step.is_none()).await;
    assert_eq!(job.attempt, 1);
    stage.model().with(|world| {
        assert_eq!(world.jobs.len(), 1, "{world:?}");
        // Until it was seen twice, the same was asked again, which begins nothing new.
        assert!(world.calls.iter().all(|call| call == "deploy r1 a1"), "{world:?}");
    });
    running.stop().await;
}

#[tokio::test]
async fn a_stop_and_a_deletion_win_over_a_deployment_that_never_ends() {
    for engine in [EngineKind::Flink, EngineKind::Ksqldb] {
        let stage = Stage::new(&[engine]).await;
        let running = stage.run();
        let definition = create(&running.manager, "orders", FIRST, None).await;
        stage.model().with(|world| world.faults.extend([Fault::LostBefore; 1_000]));
        let at_once = std::time::Duration::ZERO;
        running.manager.deploy(&definition.id, DeployOptions::default(), at_once, "anna").await.unwrap();
        until(&running.manager, &definition.id, "the call is pending", |now| now.step.is_some()).await;
        running.manager.stop(&definition.id, StopOptions::default(), PATIENCE, "anna").await.unwrap();
        settled(&running.manager, &definition.id).await;
        stage.model().with(|world| world.faults.clear());
        assert!(running.manager.delete(&definition.id, WITH_TOPIC, PATIENCE, "anna").await.unwrap().is_done);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_topic_that_cannot_be_deleted_is_said_and_tried_again_later() {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    stage.rules.first_wait = std::time::Duration::from_secs(3600);
    stage.rules.longest_wait = stage.rules.first_wait;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    *stage.topics.refuses.lock().unwrap() = Some(0);
    running.manager.delete(&definition.id, WITH_TOPIC, std::time::Duration::ZERO, "anna").await.unwrap();
    let kept = until(&running.manager, &definition.id, "it is said", |now| now.last_error.is_some()).await;
    assert!(kept.retry_at.is_some() && kept.last_error.unwrap().contains("not allowed"));
    let seen = stage.model().with(|world| world.observations);
    until(&running.manager, &definition.id, "rounds", |_| stage.model().with(|world| world.observations) > seen + 5)
        .await;
    assert_eq!(*stage.topics.refuses.lock().unwrap(), Some(1));
    running.stop().await;
}

#[tokio::test]
async fn a_refused_text_begins_nothing_that_somebody_has_stopped() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    running.manager.stop(&definition.id, StopOptions::default(), PATIENCE, "anna").await.unwrap();
    let text = "SELECT ORDER_ID AS refused FROM orders";
    let change = Change { sql_script: Some(text.to_owned()), ..Change::default() };
    running.manager.update(&definition.id, change, "anna").await.unwrap();
    let refused = running.manager.deploy(&definition.id, DeployOptions::default(), PATIENCE, "anna").await;
    assert!(matches!(refused, Err(Why::Refused(_))), "{refused:?}");
    let seen = stage.model().with(|world| world.observations);
    until(&running.manager, &definition.id, "rounds", |_| stage.model().with(|world| world.observations) > seen + 10)
        .await;
    assert_eq!(stage.model().live(), []);
    running.stop().await;
}

#[test]
fn the_state_of_what_has_stopped_is_let_go_when_somebody_says_so() {
    let mut record = record(EngineKind::Flink);
    record.intent = crate::definition::Intent::Stopped;
    record.position = Position::Stopped;
    record.restore = Some(Restore::at(RestorePoint { path: "savepoint-1".to_owned(), savepoint: true }, 1));
    assert!(wish(&mut record, Action::Stop, How { discard_state: true, delete_topic: false }));
    assert_eq!((record.restore, record.discard_state), (None, false));
}

#[tokio::test]
async fn a_new_text_of_what_has_failed_takes_a_place() {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    stage.limits.streams_per_user = 1;
    let running = stage.run();
    let bad = create(&running.manager, "bad", "SELECT ORDER_ID AS refused FROM orders", None).await;
    let refused = running.manager.deploy(&bad.id, DeployOptions::default(), PATIENCE, "anna").await;
    assert!(matches!(refused, Err(Why::Refused(_))), "{refused:?}");
    deployed(&running.manager, "one", FIRST).await;
    let change = Change { sql_script: Some(FIRST.to_owned()), ..Change::default() };
    let full = running.manager.update(&bad.id, change, "anna").await;
    assert!(matches!(full, Err(Why::LimitReached { in_use: 1, .. })), "{full:?}");
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_done_while_another_cluster_answers() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    let calls = stage.model().with(|world| {
        world.is_another = true;
        world.forget_jobs();
        world.calls.len()
    });
    let told = until(&running.manager, &definition.id, "it is told", |now| {
        now.drift.as_ref().is_some_and(|drift| drift.contains("another cluster"))
    })
    .await;
    assert!(!told.is_active);
    let seen = stage.model().with(|world| world.observations);
    until(&running.manager, &definition.id, "rounds", |_| stage.model().with(|world| world.observations) > seen + 10)
        .await;
    assert_eq!(stage.model().with(|world| world.calls.len()), calls);
    running.stop().await;
}

#[tokio::test]
async fn a_stream_is_seen_and_stopped_while_nobody_says_which_cluster_answers() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    let seen = stage.model().with(|world| {
        world.is_mute = true;
        world.observations
    });
    until(&running.manager, &definition.id, "rounds", |now| {
        assert!(now.is_active, "{now:?}");
        stage.model().with(|world| world.observations) > seen + 5
    })
    .await;
    running.manager.stop(&definition.id, StopOptions::default(), PATIENCE, "anna").await.unwrap();
    assert_eq!(stage.model().live(), []);
    running.stop().await;
}

#[tokio::test]
async fn what_is_degraded_is_looked_at_until_it_is_well_again() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    let shown = async |state: ObservedState| {
        until(&running.manager, &definition.id, &format!("{state:?}"), |now| now.observed == state).await
    };
    stage.model().with(|world| world.is_failing = true);
    assert!(shown(ObservedState::Degraded).await.is_active);
    stage.model().with(|world| world.is_failing = false);
    shown(ObservedState::Running).await;
    running.stop().await;
}

#[tokio::test]
async fn nothing_is_done_with_a_version_that_the_caller_has_not_read() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let manager = &running.manager;
    let definition = create(manager, "orders", FIRST, None).await;
    stage.model().with(|world| world.ponders = true);
    let read = Some(definition.version);
    let options = DeployOptions { accept_state_loss: true, expected_version: read, ..DeployOptions::default() };
    let deploys = manager.deploy(&definition.id, options, PATIENCE, "ada");
    let berta = async {
        // Her text is there before the engine has judged the one that Ada has read.
        until(manager, &definition.id, "it is judged", |_| stage.model().with(|world| world.waiting > 0)).await;
        let change = Change { sql_script: Some("SELECT AMOUNT FROM orders".to_owned()), ..Change::default() };
        let changed = manager.update(&definition.id, change, "berta").await.unwrap();
        stage.model().with(|world| world.ponders = false);
        changed
    };
    let (deployed, changed) = tokio::join!(deploys, berta);
    let is_changed =
        |told: &Why| matches!(told, Why::PreconditionFailed { expected: 1, current } if current.version == 2);
    assert!(deployed.as_ref().is_err_and(is_changed), "{deployed:?}");
    let stops = StopOptions { expected_version: read, ..StopOptions::default() };
    let deletes = DeleteOptions { expected_version: read, ..DeleteOptions::default() };
    for told in [
        manager.stop(&definition.id, stops, PATIENCE, "ada").await.map(drop),
        manager.pause(&definition.id, read, PATIENCE, "ada").await.map(drop),
        manager.resume(&definition.id, read, PATIENCE, "ada").await.map(drop),
        manager.delete(&definition.id, deletes, PATIENCE, "ada").await.map(drop),
    ] {
        assert!(told.as_ref().is_err_and(is_changed), "{told:?}");
    }
    assert_eq!(manager.get(&definition.id).await.unwrap(), changed);
    assert_eq!(stage.model().with(|world| world.calls.clone()), Vec::<String>::new());
    // With the version that is there it is done.
    let options = DeployOptions { expected_version: Some(changed.version), ..options };
    manager.deploy(&definition.id, options, PATIENCE, "ada").await.unwrap();
    running.stop().await;
}

/// A second stream cannot be deployed, for the first one holds the place.
async fn is_full(manager: &Manager, second: &str) {
    let full = manager.deploy(second, DeployOptions::default(), PATIENCE, "anna").await;
    let is_full = |full: &Why| matches!(full, Why::LimitReached { in_use: 1, .. });
    assert!(full.as_ref().is_err_and(is_full), "{full:?}");
    assert_eq!(manager.deployed("anna").await.unwrap(), (1, 1));
}

async fn with_one_place() -> Stage {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    stage.limits.streams_per_user = 1;
    stage
}

#[tokio::test]
async fn a_text_that_is_taken_back_holds_its_place_meanwhile() {
    let stage = with_one_place().await;
    let running = stage.run();
    let manager = &running.manager;
    let first = deployed(manager, "one", FIRST).await;
    let second = create(manager, "two", FIRST, None).await;
    // The old text is stopped, the new one is refused, and the engine has no room for the old one for now.
    stage.model().with(|world| {
        world.faults.extend([Fault::None; 2]);
        world.faults.extend([Fault::Busy; 10_000]);
    });
    let change = Change { sql_script: Some("SELECT ORDER_ID AS refused FROM orders".to_owned()), ..Change::default() };
    manager.update(&first.id, change, "anna").await.unwrap();
    let back = until(manager, &first.id, "it is taken back", |now| now.failed_revision == Some(2)).await;
    assert_eq!((back.observed, back.previous_revision), (ObservedState::Failed, Some(1)));
    is_full(manager, &second.id).await;
    stage.model().with(|world| world.faults.clear());
    let back = settled(manager, &first.id).await;
    assert_eq!((back.observed, back.deployed_revision), (ObservedState::Running, Some(1)));
    is_full(manager, &second.id).await;
    running.stop().await;
}

#[tokio::test]
async fn what_is_told_to_end_holds_its_place_until_it_has() {
    let at_once = std::time::Duration::ZERO;
    for is_deleted in [false, true] {
        let stage = with_one_place().await;
        let running = stage.run();
        let manager = &running.manager;
        let first = deployed(manager, "one", FIRST).await;
        let second = create(manager, "two", FIRST, None).await;
        stage.model().with(|world| world.faults.extend([Fault::Busy; 10_000]));
        if is_deleted {
            manager.delete(&first.id, DeleteOptions::default(), at_once, "anna").await.unwrap();
        } else {
            manager.stop(&first.id, StopOptions::default(), at_once, "anna").await.unwrap();
        }
        is_full(manager, &second.id).await;
        until(manager, &first.id, "it is tried", |now| now.retry_at.is_some()).await;
        is_full(manager, &second.id).await;
        // What is deployed once more has kept its place.
        if !is_deleted {
            manager.deploy(&first.id, DeployOptions::default(), at_once, "anna").await.unwrap();
            manager.stop(&first.id, StopOptions::default(), at_once, "anna").await.unwrap();
        }
        stage.model().with(|world| world.faults.clear());
        if is_deleted {
            manager.delete(&first.id, DeleteOptions::default(), PATIENCE, "anna").await.unwrap();
        } else {
            manager.stop(&first.id, StopOptions::default(), PATIENCE, "anna").await.unwrap();
        }
        manager.deploy(&second.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
        running.stop().await;
    }
}

#[tokio::test]
async fn what_may_be_about_to_run_holds_its_place() {
    let at_once = std::time::Duration::ZERO;
    let stage = with_one_place().await;
    let running = stage.run();
    let manager = &running.manager;
    let first = create(manager, "one", FIRST, None).await;
    let second = create(manager, "two", FIRST, None).await;
    stage.model().with(|world| world.is_slow = true);
    manager.deploy(&first.id, DeployOptions::default(), at_once, "anna").await.unwrap();
    until(manager, &first.id, "the call is under way", |now| now.step.is_some()).await;
    manager.stop(&first.id, StopOptions::default(), at_once, "anna").await.unwrap();
    is_full(manager, &second.id).await;
    stage.model().with(|world| world.is_slow = false);
    manager.stop(&first.id, StopOptions::default(), PATIENCE, "anna").await.unwrap();
    manager.deploy(&second.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
    running.stop().await;
}
