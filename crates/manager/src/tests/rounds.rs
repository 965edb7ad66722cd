//! What a round costs, and that it stands still for nobody: with as many definitions as one service is meant to have.

use std::time::Duration;

use super::model::Model;
use super::stage::{PATIENCE, Running, Stage, create, deployed, until};
use crate::engines::{EngineKind, ObservedState};
use crate::manager::DeployOptions;
use crate::store::Store;

const MANY: usize = 200;
const TEXT: &str = "SELECT ORDER_ID FROM orders";

/// So many, which all are wanted to run.
async fn many(stage: &Stage, running: &Running) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..MANY {
        let definition = create(&running.manager, &format!("orders {number}"), TEXT, None).await;
        let at_once = Duration::ZERO;
        running.manager.deploy(&definition.id, DeployOptions::default(), at_once, "anna").await.unwrap();
        ids.push(definition.id);
    }
    assert!(stage.model().live().len() <= MANY);
    ids
}

async fn stage() -> Stage {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    (stage.limits.streams_per_user, stage.limits.streams) = (MANY, MANY);
    stage.rules.restore_points = PATIENCE * 100;
    stage.rules.time_to_run = PATIENCE;
    stage
}

/// Waits for so many rounds.
async fn rounds(model: &Model, more: u64) {
    let (begin, seen) = (std::time::Instant::now(), model.with(|world| world.observations));
    while model.with(|world| world.observations) < seen + more {
        assert!(begin.elapsed() < PATIENCE, "the rounds stand still");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_round_of_many_definitions_asks_an_engine_twice_and_waits_for_no_cause() {
    let stage = stage().await;
    let running = stage.run();
    let ids = many(&stage, &running).await;
    for id in &ids {
        until(&running.manager, id, "it runs", |now| now.observed == ObservedState::Running && now.step.is_none())
            .await;
    }
    let model = stage.model();
    let count = |model: &Model| model.with(|world| (world.questions, world.observations));
    let before = count(model);
    rounds(model, 10).await;
    let after = count(model);
    let (questions, looks) = (after.0 - before.0, after.1 - before.1);
    // One round may have been half done at either end.
    assert!(questions <= 2 * looks + 2, "{questions} questions in {looks} rounds");

    // All fail at once, and the engine answers no question about a single one.
    model.with(|world| {
        world.is_ill = true;
        world.most_waiting = 0;
        world.jobs.values_mut().for_each(|job| job.state = ObservedState::Failed);
    });
    rounds(model, 20).await;
    let begin = std::time::Instant::now();
    while model.with(|world| world.waiting) == 0 {
        assert!(begin.elapsed() < PATIENCE, "nobody asks why");
        tokio::task::yield_now().await;
    }
    rounds(model, 20).await;
    let most = model.with(|world| world.most_waiting);
    assert!(most <= 8, "{most} were asked about at once");
    // It is said as soon as it can be had.
    model.with(|world| world.is_ill = false);
    for id in ids.iter().take(20) {
        until(&running.manager, id, "why is known", |now| now.last_error.as_deref() == Some("division by zero")).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn no_more_than_a_few_steps_are_under_way_at_once() {
    let stage = stage().await;
    stage.model().with(|world| world.is_slow = true);
    let running = stage.run();
    many(&stage, &running).await;
    rounds(stage.model(), 20).await;
    let waiting = stage.model().with(|world| (world.waiting, world.most_waiting));
    assert!(waiting.0 > 0 && waiting.1 <= 8, "{waiting:?}");
    stage.model().with(|world| world.is_slow = false);
    let begin = std::time::Instant::now();
    while stage.model().live().len() < MANY {
        assert!(begin.elapsed() < PATIENCE, "they do not all come to run");
        tokio::task::yield_now().await;
    }
    running.stop().await;
}

#[tokio::test]
async fn an_engine_that_does_not_answer_holds_up_no_other() {
    let stage = Stage::new(&[EngineKind::Flink, EngineKind::Ksqldb]).await;
    let running = stage.run();
    let other = create(&running.manager, "other", TEXT, Some(EngineKind::Ksqldb)).await;
    running.manager.deploy(&other.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
    deployed(&running.manager, "orders", TEXT).await;
    stage.engines[1].with(|world| world.hangs = true);
    rounds(stage.model(), 20).await;
    stage.engines[1].with(|world| world.hangs = false);
    rounds(&stage.engines[1], 5).await;
    running.stop().await;
}

#[tokio::test]
async fn notes_of_states_wait_for_those_before_them() {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    (stage.limits.streams_per_user, stage.limits.streams) = (10, 10);
    stage.rules.time_to_run = PATIENCE;
    let running = stage.run();
    for number in 0..10 {
        deployed(&running.manager, &format!("orders {number}"), TEXT).await;
    }
    // Each answer takes longer than it is from one note to the next.
    let model = stage.model();
    model.with(|world| (world.is_ill, world.most_waiting) = (true, 0));
    rounds(model, 50).await;
    let most = model.with(|world| world.most_waiting);
    assert_eq!(most, 4, "as many jobs as are asked about at once");
    model.with(|world| world.is_ill = false);
    running.stop().await;
}

#[tokio::test]
async fn who_waits_to_lead_takes_no_session_for_it() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let store = Store::new(stage.pool.clone());
    let leader = store.lead().await.unwrap().unwrap();
    // Nobody else has one of the pool's sessions, so it is the same one each time.
    let session = async || -> i32 {
        let client = stage.pool.get().await.unwrap();
        client.query_one("select pg_backend_pid()", &[]).await.unwrap().try_get(0).unwrap()
    };
    let first = session().await;
    for _ in 0..3 {
        assert!(store.lead().await.unwrap().is_none());
        assert_eq!(session().await, first);
    }
    assert!(leader.is_held().await);
    drop(leader);
    // Its session ends in its own time.
    let begin = std::time::Instant::now();
    let next = loop {
        match store.lead().await.unwrap() {
            Some(next) => break next,
            None => assert!(begin.elapsed() < PATIENCE, "nobody leads"),
        }
    };
    assert!(next.is_held().await);
    assert_ne!(session().await, first, "the session that leads is nobody else's");
}
