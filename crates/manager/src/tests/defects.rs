//! What the users of the original stream manager suffer from in its life of a stream, each as a test that says it cannot
//! happen here. The numbers are those of its list of defects.

use super::model::Fault;
use super::stage::{PATIENCE, Stage, create, deployed, settled, until};
use crate::Fault as Why;
use crate::engines::{EngineKind, ObservedState};
use crate::manager::{Change, CheckedBy, DeployOptions, StatementKind, StopOptions};

const BOTH: [EngineKind; 2] = [EngineKind::Flink, EngineKind::Ksqldb];

#[tokio::test]
async fn defect_5_two_deployments_at_once_never_take_each_others_jobs() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let one = create(&running.manager, "one", "SELECT ORDER_ID FROM orders", None).await;
    let other = create(&running.manager, "other", "SELECT AMOUNT FROM orders", None).await;
    // Each has started its job, and neither hears of it.
    stage.model().with(|world| world.faults.extend([Fault::LostAfter, Fault::LostAfter]));
    let deploy = |id: String| {
        let manager = running.manager.clone();
        async move { manager.deploy(&id, DeployOptions::default(), PATIENCE, "anna").await.unwrap() }
    };
    let (one, other) = tokio::join!(deploy(one.id), deploy(other.id));
    for (definition, text) in [(one, "ORDER_ID"), (other, "AMOUNT")] {
        let job = stage.model().with(|world| world.jobs[definition.job_id.as_ref().unwrap()].clone());
        assert!(job.sql.contains(text) && job.topic == definition.output_topic, "{job:?}");
    }
    assert_eq!(stage.model().live().len(), 2);
}

#[tokio::test]
async fn defect_6_a_stream_that_is_stopped_and_deployed_again_keeps_its_stream_and_its_topic() {
    for engine in BOTH {
        let stage = Stage::new(&[engine]).await;
        let running = stage.run();
        let first = deployed(&running.manager, "orders", "SELECT ORDER_ID FROM orders").await;
        let stopped = running.manager.stop(&first.id, StopOptions::default(), PATIENCE, "anna").await.unwrap();
        assert!(!stopped.is_active && stage.model().live().is_empty());
        running.manager.deploy(&first.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
        let again = settled(&running.manager, &first.id).await;
        assert_eq!((&again.stream_name, &again.output_topic), (&first.stream_name, &first.output_topic));
        assert_eq!(stage.ours(), [first.output_topic.as_str()]);
        let live = stage.model().live();
        assert_eq!(live.len(), 1, "{live:?}");
        // Flink goes on with the state of the stop.
        assert_eq!(live[0].restored.is_some(), engine == EngineKind::Flink, "{live:?}");
        // Deployed once more while it runs, nothing happens.
        let calls = stage.model().with(|world| world.calls.len());
        running.manager.deploy(&first.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
        assert_eq!(stage.model().with(|world| world.calls.len()), calls);
        running.stop().await;
    }
}

#[tokio::test]
async fn defect_7_an_update_of_a_running_stream_leaves_it_running_and_is_judged_before() {
    for engine in BOTH {
        let stage = Stage::new(&[engine]).await;
        let running = stage.run();
        let first = deployed(&running.manager, "orders", "SELECT ORDER_ID FROM orders").await;
        let update = |sql: &str| {
            let change = Change { sql_script: Some(sql.to_owned()), ..Change::default() };
            running.manager.update(&first.id, change, "anna")
        };
        // The gate refuses it, or the engine: what runs is not touched.
        for sql in
            ["DROP TABLE orders", "SELECT ORDER_ID FROM orders; DROP TABLE orders", "SELECT unknown_column FROM orders"]
        {
            assert!(matches!(update(sql).await, Err(Why::Refused(_))), "{sql}");
        }
        let now = running.manager.get(&first.id).await.unwrap();
        assert_eq!((now.revision, now.is_active, &now.sql_script), (1, true, &first.sql_script));
        update("SELECT ORDER_ID, AMOUNT FROM orders").await.unwrap();
        let updated = until(&running.manager, &first.id, "it is updated", |now| {
            now.deployed_revision == Some(2) && now.is_settled()
        })
        .await;
        assert!(updated.is_active);
        let live = stage.model().live();
        assert!(live.len() == 1 && live[0].sql.contains("AMOUNT"), "{live:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn defect_8_what_is_shown_as_active_is_what_the_engine_runs() {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    stage.rules.heal_drift = false;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", "SELECT ORDER_ID FROM orders").await;
    assert!(definition.is_active);
    stage.model().with(|world| world.jobs.values_mut().for_each(|job| job.state = ObservedState::Stopped));
    let seen = until(&running.manager, &definition.id, "it is seen to be stopped", |now| !now.is_active).await;
    assert_eq!(seen.observed, ObservedState::Stopped);
    assert!(seen.drift.as_ref().is_some_and(|drift| drift.starts_with("it was stopped by hand")), "{seen:?}");
    running.stop().await;
    // Where that is allowed, it is undone.
    stage.rules.heal_drift = true;
    let running = stage.run();
    let healed = until(&running.manager, &definition.id, "it runs again", |now| now.is_settled()).await;
    assert_eq!((healed.is_active, healed.drift), (true, None));
}

#[tokio::test]
async fn defect_9_a_failed_deployment_takes_no_place_and_a_stop_gives_it_back() {
    for engine in BOTH {
        let mut stage = Stage::new(&[engine]).await;
        stage.limits.streams_per_user = 1;
        let running = stage.run();
        let deploy = |id: String| {
            let manager = running.manager.clone();
            async move { manager.deploy(&id, DeployOptions::default(), PATIENCE, "anna").await }
        };
        let bad = create(&running.manager, "bad", "SELECT ORDER_ID AS refused FROM orders", None).await;
        let one = create(&running.manager, "one", "SELECT ORDER_ID FROM orders", None).await;
        let two = create(&running.manager, "two", "SELECT AMOUNT FROM orders", None).await;
        assert!(matches!(deploy(bad.id.clone()).await, Err(Why::Refused(_))));
        assert_eq!(running.manager.deployed("anna").await.unwrap(), (0, 0));
        deploy(one.id.clone()).await.unwrap();
        let full = deploy(two.id.clone()).await;
        assert!(
            matches!(full, Err(Why::LimitReached { setting: "streams_per_user", most: 1, in_use: 1, .. })),
            "{full:?}"
        );
        running.manager.stop(&one.id, StopOptions::default(), PATIENCE, "anna").await.unwrap();
        deploy(two.id).await.unwrap();
        assert_eq!(running.manager.deployed("anna").await.unwrap(), (1, 1));
        running.stop().await;
    }
}

#[tokio::test]
async fn defect_16_one_text_is_judged_alike_and_runs_on_either_engine() {
    let stage = Stage::new(&BOTH).await;
    let running = stage.run();
    let text = "SELECT ORDER_ID, AMOUNT FROM orders WHERE AMOUNT > 500";
    for engine in BOTH {
        for kind in [StatementKind::Adhoc, StatementKind::Persistent] {
            let judged = running.manager.validate(Some(engine), kind, text).await.unwrap();
            assert!(judged.errors.is_empty() && judged.checked_by == CheckedBy::Engine, "{judged:?}");
            let judged = running.manager.validate(Some(engine), kind, "INSERT INTO x SELECT 1").await.unwrap();
            assert!(!judged.errors.is_empty() && judged.checked_by == CheckedBy::Gate, "{judged:?}");
        }
        let definition = create(&running.manager, engine.name(), text, Some(engine)).await;
        running.manager.deploy(&definition.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
        settled(&running.manager, &definition.id).await;
    }
    assert!(stage.engines.iter().all(|engine| engine.live().len() == 1));
}
