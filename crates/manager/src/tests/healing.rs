//! What others do by hand: shown, undone where that is allowed and not for ever, and never ended where it is none of ours.

use std::time::Duration;

use super::model::{Job, Model};
use super::stage::{PATIENCE, Running, Stage, WITH_TOPIC, deployed, until};
use crate::definition::Definition;
use crate::engines::{EngineKind, ObservedState};
use crate::manager::{DeleteOptions, DeployOptions, OrphanKind};

const FIRST: &str = "SELECT ORDER_ID FROM orders";
const OTHER: &str = "SELECT AMOUNT FROM orders";

fn change(model: &Model, change: impl Fn(&mut Job)) {
    model.with(|world| world.jobs.values_mut().for_each(change));
}

/// Waits for some rounds.
async fn rounds(stage: &Stage, running: &Running, id: &str) {
    let seen = stage.model().with(|world| world.observations);
    until(&running.manager, id, "rounds", |_| stage.model().with(|world| world.observations) > seen + 10).await;
}

async fn drift(running: &Running, id: &str, what: &str) -> Definition {
    let is_told = |now: &Definition| now.drift.as_ref().is_some_and(|drift| drift.contains(what));
    until(&running.manager, id, what, is_told).await
}

#[tokio::test]
async fn a_text_that_somebody_has_changed_is_shown_and_put_back() {
    let mut stage = Stage::new(&[EngineKind::Ksqldb]).await;
    stage.rules.heal_drift = false;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    rounds(&stage, &running, &definition.id).await;
    let sent = stage.model().live()[0].sql.clone();
    change(stage.model(), |job| job.sql = OTHER.to_owned());
    let told = drift(&running, &definition.id, "its text was changed by hand; `manager.heal_drift` is off").await;
    assert_eq!(told.observed, ObservedState::Running);
    rounds(&stage, &running, &definition.id).await;
    assert_eq!(stage.model().live()[0].sql, OTHER, "it is shown only");
    running.stop().await;

    stage.rules.heal_drift = true;
    let running = stage.run();
    let healed = until(&running.manager, &definition.id, "it is put back", |now| now.drift.is_none()).await;
    assert_eq!((healed.attempt, healed.deployed_revision), (2, Some(1)));
    assert_eq!(stage.model().live()[0].sql, sent);
    rounds(&stage, &running, &definition.id).await;
    let again = running.manager.get(&definition.id).await.unwrap();
    assert_eq!((again.attempt, again.drift), (2, None), "once does");
    running.stop().await;
}

#[tokio::test]
async fn what_is_done_by_hand_again_and_again_is_undone_a_few_times_only() {
    let stage = Stage::new(&[EngineKind::Ksqldb]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    let resumes = || stage.model().with(|world| world.calls.iter().filter(|call| *call == "resume").count());
    let pause = || change(stage.model(), |job| job.state = ObservedState::Paused);
    for turn in 1..=3 {
        pause();
        until(&running.manager, &definition.id, "it is resumed", |_| resumes() == turn).await;
        until(&running.manager, &definition.id, "it runs", |now| now.is_settled() && now.is_active).await;
    }
    pause();
    drift(&running, &definition.id, "it was paused by hand; that was undone 3 times and is let be until").await;
    rounds(&stage, &running, &definition.id).await;
    assert_eq!(resumes(), 3);
    // Until somebody says what is wanted.
    running.manager.deploy(&definition.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
    until(&running.manager, &definition.id, "it runs", |now| now.is_settled() && now.is_active).await;
    assert_eq!(resumes(), 4);
    running.stop().await;
}

#[tokio::test]
async fn what_bears_our_name_and_is_none_of_ours_is_shown_and_not_ended() {
    for engine in [EngineKind::Flink, EngineKind::Ksqldb] {
        let stage = Stage::new(&[engine]).await;
        let running = stage.run();
        let definition = deployed(&running.manager, "orders", FIRST).await;
        stage.model().with(|world| {
            let mut job = world.jobs.values().next().unwrap().clone();
            if engine == EngineKind::Flink {
                job.name = job.name.replace("-a1", "-a99");
            }
            world.jobs.insert("theirs".to_owned(), job);
        });
        drift(&running, &definition.id, "theirs fills its topic too").await;
        rounds(&stage, &running, &definition.id).await;
        assert_eq!(stage.model().live().len(), 2, "{engine:?}");
        stage.model().with(|world| world.jobs.remove("theirs"));
        until(&running.manager, &definition.id, "all is well", |now| now.drift.is_none()).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn where_nothing_is_undone_strays_run_and_what_was_ended_stays_so() {
    let mut stage = Stage::new(&[EngineKind::Flink, EngineKind::Ksqldb]).await;
    stage.rules.heal_drift = false;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    stage.model().with(|world| {
        let job = world.jobs.values().next().unwrap().clone();
        world.jobs.insert("a_stray".to_owned(), Job { name: job.name.replace("-a1", "-a0"), ..job });
    });
    drift(&running, &definition.id, "a_stray, of an earlier deployment, runs beside it; `manager.heal_drift` is off")
        .await;
    rounds(&stage, &running, &definition.id).await;
    assert_eq!(stage.model().live().len(), 2);
    running.stop().await;

    let mut stage = Stage::new(&[EngineKind::Ksqldb]).await;
    stage.rules.heal_drift = false;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    stage.model().with(|world| world.jobs.clear()); // TERMINATE, by hand
    drift(&running, &definition.id, "the engine knows nothing of it any more; `manager.heal_drift` is off").await;
    rounds(&stage, &running, &definition.id).await;
    assert_eq!(stage.model().live(), []);
    running.stop().await;
}

#[tokio::test]
async fn a_topic_that_cannot_be_deleted_may_be_left() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    *stage.topics.refuses.lock().unwrap() = Some(0);
    running.manager.delete(&definition.id, WITH_TOPIC, Duration::ZERO, "anna").await.unwrap();
    let offered = until(&running.manager, &definition.id, "it is offered", |now| {
        now.last_error.as_ref().is_some_and(|error| error.contains("without its topic"))
    })
    .await;
    let tries = *stage.topics.refuses.lock().unwrap();
    assert!(tries >= Some(5), "{tries:?}: {offered:?}");
    let status = running.manager.status(&definition.id).await.unwrap();
    assert!(status.failure.is_some_and(|failure| failure.contains("not allowed")));
    // Asked for with its topic once more, it says why it stays.
    let deletion = running.manager.delete(&definition.id, WITH_TOPIC, Duration::ZERO, "anna").await.unwrap();
    assert!(!deletion.is_done && deletion.leaves[0].contains("without its topic"), "{deletion:?}");
    let deletion = running.manager.delete(&definition.id, DeleteOptions::default(), PATIENCE, "anna").await.unwrap();
    assert!(deletion.is_done, "{deletion:?}");
    let orphans = running.manager.orphans().await.unwrap().orphans;
    assert_eq!((orphans.len(), orphans[0].kind, &orphans[0].id), (1, OrphanKind::Topic, &definition.output_topic));
    assert!(orphans[0].note.contains("anna"), "{orphans:?}");
    running.stop().await;
}
