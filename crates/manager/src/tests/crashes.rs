//! The manager ends between any two steps of what it does, while its engine is well, gone, or loses answers: at the end what
//! is wanted is what is, and nothing is left that is not listed.

use std::time::Duration;

use super::model::{Fault, World};
use super::stage::{PATIENCE, Stage, WITH_TOPIC, crash_at, create, deployed, settled};
use crate::definition::Definition;
use crate::engines::{EngineKind, ObservedState};
use crate::manager::{Change, DeployOptions, Manager, StopOptions};

/// What is under way when it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Deploy,
    Update,
    Stop,
    Pause,
    Resume,
    Delete,
}

/// What is wrong with the engine.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Weather {
    Fine,
    /// It is away when the manager comes back.
    GoneAfterwards,
    /// The first answer is lost, and it had not done it; or it had.
    LostBefore,
    LostAfter,
}

const WEATHERS: [Weather; 4] = [Weather::Fine, Weather::GoneAfterwards, Weather::LostBefore, Weather::LostAfter];

fn points(act: Act, engine: EngineKind) -> &'static [&'static str] {
    match (act, engine) {
        (Act::Deploy, _) => {
            &["manager.deploy.written", "manager.deploy.topic", "manager.deploy.called", "manager.deploy.done"]
        }
        (Act::Update, EngineKind::Flink | EngineKind::Embedded) => &[
            "manager.stop.written",
            "manager.stop.called",
            "manager.stop.done",
            "manager.update.written",
            "manager.deploy.topic",
            "manager.update.called",
            "manager.update.done",
        ],
        (Act::Update, EngineKind::Ksqldb) => {
            &["manager.update.written", "manager.deploy.topic", "manager.update.called", "manager.update.done"]
        }
        (Act::Stop | Act::Pause, _) => &["manager.stop.written", "manager.stop.called", "manager.stop.done"],
        (Act::Resume, EngineKind::Flink | EngineKind::Embedded) => {
            &["manager.deploy.written", "manager.deploy.called", "manager.deploy.done"]
        }
        (Act::Resume, EngineKind::Ksqldb) => {
            &["manager.resume.written", "manager.resume.called", "manager.resume.done"]
        }
        (Act::Delete, _) => &[
            "manager.stop.written",
            "manager.stop.called",
            "manager.stop.done",
            "manager.remove.written",
            "manager.remove.called",
            "manager.remove.done",
            "manager.delete.topic",
            "manager.delete.done",
        ],
    }
}

const FIRST: &str = "SELECT ORDER_ID FROM orders";
const SECOND: &str = "SELECT ORDER_ID, AMOUNT FROM orders";

async fn ask(manager: &Manager, id: &str, act: Act) {
    let at_once = Duration::ZERO;
    match act {
        Act::Deploy => drop(manager.deploy(id, DeployOptions::default(), at_once, "anna").await.unwrap()),
        Act::Update => {
            let change = Change { sql_script: Some(SECOND.to_owned()), ..Change::default() };
            drop(manager.update(id, change, "anna").await.unwrap());
        }
        Act::Stop => drop(manager.stop(id, StopOptions::default(), at_once, "anna").await.unwrap()),
        Act::Pause => drop(manager.pause(id, None, at_once, "anna").await.unwrap()),
        Act::Resume => drop(manager.resume(id, None, at_once, "anna").await.unwrap()),
        Act::Delete => drop(manager.delete(id, WITH_TOPIC, at_once, "anna").await.unwrap()),
    }
}

/// A definition as it is before that.
async fn before(stage: &Stage, act: Act) -> Definition {
    let running = stage.run();
    let definition = match act {
        Act::Deploy => create(&running.manager, "orders", FIRST, None).await,
        Act::Resume => {
            let definition = deployed(&running.manager, "orders", FIRST).await;
            running.manager.pause(&definition.id, None, PATIENCE, "anna").await.unwrap();
            settled(&running.manager, &definition.id).await
        }
        _ => deployed(&running.manager, "orders", FIRST).await,
    };
    running.stop().await;
    definition
}

async fn dies_at(stage: &Stage, act: Act, point: &'static str, weather: Weather) {
    let what = format!("{act:?} ended at {point}, {weather:?}");
    let definition = before(stage, act).await;
    match weather {
        Weather::LostBefore => stage.model().with(|world| world.faults.push_back(Fault::LostBefore)),
        Weather::LostAfter => stage.model().with(|world| world.faults.push_back(Fault::LostAfter)),
        Weather::Fine | Weather::GoneAfterwards => {}
    }
    crash_at(point);
    let doomed = stage.run();
    ask(&doomed.manager, &definition.id, act).await;
    doomed.dies().await;
    if stage.model().kind.dies_with_us() {
        stage.model().with(World::forget_jobs);
    }
    let running = stage.run();
    if weather == Weather::GoneAfterwards {
        stage.model().with(|world| world.is_away = true);
        is_unknown_or_gone(&running.manager, &definition.id, &what).await;
        stage.model().with(|world| world.is_away = false);
    }
    if act != Act::Delete {
        let settled = settled(&running.manager, &definition.id).await;
        let live = stage.model().live();
        let (jobs, text) = match act {
            Act::Stop | Act::Pause => (0, ""),
            Act::Update => (1, "AMOUNT"),
            Act::Deploy | Act::Resume => (1, "ORDER_ID"),
            _ => unreachable!(),
        };
        assert_eq!(live.len(), jobs, "{what}: {live:?}");
        assert!(live.iter().all(|job| job.sql.contains(text) && job.topic == settled.output_topic), "{what}: {live:?}");
        assert_eq!(settled.is_active, jobs == 1, "{what}");
        if act == Act::Update && stage.model().kind.names_deployments() {
            assert!(live[0].restored.is_some(), "{what}: the state is lost: {live:?}");
        }
        let begun = stage.model().with(|world| world.begun.clone());
        assert!(begun.len() <= 1, "{what}: it has begun anew: {begun:?}");
        assert_eq!(stage.ours(), [settled.output_topic.as_str()], "{what}");
        running.manager.delete(&definition.id, WITH_TOPIC, PATIENCE, "anna").await.unwrap();
    }
    is_gone(&running.manager, &definition.id, &what).await;
    assert_eq!(stage.model().live(), [], "{what}");
    stage.model().with(|world| assert!(world.sinks.is_empty() && world.savepoints.is_empty(), "{what}: {world:?}"));
    assert_eq!(stage.ours(), [""; 0], "{what}");
    assert_eq!(running.manager.orphans().await.unwrap().orphans, [], "{what}");
    running.stop().await;
}

/// A delete that had only its own row left to take away needs no engine: it may end while we look.
async fn is_unknown_or_gone(manager: &Manager, id: &str, what: &str) {
    let begin = std::time::Instant::now();
    while let Ok(definition) = manager.get(id).await
        && definition.observed != ObservedState::Unknown
    {
        assert!(begin.elapsed() < PATIENCE, "{what}: {definition:#?}");
    }
}

async fn is_gone(manager: &Manager, id: &str, what: &str) {
    let begin = std::time::Instant::now();
    while let Ok(definition) = manager.get(id).await {
        assert!(begin.elapsed() < PATIENCE, "{what}: {definition:#?}");
    }
}

async fn matrix(engine: EngineKind, acts: &[Act]) {
    for act in acts {
        for point in points(*act, engine) {
            for weather in WEATHERS {
                let stage = Stage::new(&[engine]).await;
                dies_at(&stage, *act, point, weather).await;
            }
        }
    }
}

#[tokio::test]
async fn flink_deploy_and_stop_survive_the_end_of_the_manager_at_every_point() {
    matrix(EngineKind::Flink, &[Act::Deploy, Act::Stop, Act::Resume]).await;
}

#[tokio::test]
async fn flink_update_survives_the_end_of_the_manager_at_every_point() {
    matrix(EngineKind::Flink, &[Act::Update, Act::Pause]).await;
}

#[tokio::test]
async fn flink_delete_survives_the_end_of_the_manager_at_every_point() {
    matrix(EngineKind::Flink, &[Act::Delete]).await;
}

#[tokio::test]
async fn ksqldb_deploy_and_update_survive_the_end_of_the_manager_at_every_point() {
    matrix(EngineKind::Ksqldb, &[Act::Deploy, Act::Update, Act::Stop]).await;
}

#[tokio::test]
async fn ksqldb_pause_and_delete_survive_the_end_of_the_manager_at_every_point() {
    matrix(EngineKind::Ksqldb, &[Act::Pause, Act::Resume, Act::Delete]).await;
}

#[tokio::test]
async fn embedded_deploy_and_stop_survive_the_end_of_the_manager_and_its_jobs_at_every_point() {
    matrix(EngineKind::Embedded, &[Act::Deploy, Act::Stop, Act::Resume]).await;
}

#[tokio::test]
async fn embedded_update_and_delete_survive_the_end_of_the_manager_and_its_jobs_at_every_point() {
    matrix(EngineKind::Embedded, &[Act::Update, Act::Pause, Act::Delete]).await;
}

/// A deletion takes several topics of the embedded engine: whoever comes next takes those that are left.
#[tokio::test]
async fn a_deletion_that_ends_between_two_topics_is_gone_on_with() {
    let stage = Stage::new(&[EngineKind::Embedded]).await;
    let definition = before(&stage, Act::Delete).await;
    let beside = [".dlq", ".late"].map(|ending| format!("{}{ending}", definition.output_topic));
    stage.topics.names.lock().unwrap().extend(beside.clone());
    crash_at("manager.delete.topic");
    let doomed = stage.run();
    ask(&doomed.manager, &definition.id, Act::Delete).await;
    doomed.dies().await;
    stage.model().with(World::forget_jobs);
    assert_eq!(stage.ours(), beside);
    let running = stage.run();
    is_gone(&running.manager, &definition.id, "the first topic was deleted").await;
    assert_eq!(stage.ours(), [""; 0]);
    assert_eq!(running.manager.orphans().await.unwrap().orphans, []);
    running.stop().await;
}
