//! The manager with a real Postgres and the model engine: what people ask, and what engines do by themselves.

use std::time::{Duration, Instant};

use super::model::World;
use super::stage::{ANNA, PATIENCE, Stage, WITH_TOPIC, create, deployed, settled, until};
use crate::Fault as Why;
use crate::catalog::{KeyFormat, Table};
use crate::definition::{Definition, Intent};
use crate::engines::{EngineKind, ObservedState};
use crate::lifecycle::{Action, Effect};
use crate::manager::{
    Change, CheckedBy, DeleteOptions, DeployOptions, ExpectedSource, Filter, NewDefinition, Origin, OrphanKind,
    StatementKind, StopOptions,
};

const FIRST: &str = "SELECT ORDER_ID FROM orders";

#[tokio::test]
async fn a_text_that_does_not_come_to_run_is_taken_back_with_the_state() {
    for (engine, text) in [
        (EngineKind::Flink, "SELECT ORDER_ID AS crashing FROM orders"),
        (EngineKind::Flink, "SELECT ORDER_ID AS failing FROM orders"),
        (EngineKind::Flink, "SELECT ORDER_ID AS refused FROM orders"),
        (EngineKind::Ksqldb, "SELECT ORDER_ID AS failing FROM orders"),
        (EngineKind::Ksqldb, "SELECT ORDER_ID AS incompatible FROM orders"),
    ] {
        let stage = Stage::new(&[engine]).await;
        let running = stage.run();
        let definition = deployed(&running.manager, "orders", FIRST).await;
        let change = Change { sql_script: Some(text.to_owned()), ..Change::default() };
        running.manager.update(&definition.id, change, "anna").await.unwrap();
        let back = until(&running.manager, &definition.id, text, |now| {
            now.failed_revision == Some(2) && now.deployed_revision == Some(1) && now.is_settled()
        })
        .await;
        assert!(back.is_active && back.last_error.is_some(), "{back:?}");
        let live = stage.model().live();
        let is_new =
            |sql: &str| ["crashing", "failing", "refused", "incompatible"].iter().any(|word| sql.contains(word));
        assert!(live.len() == 1 && !is_new(&live[0].sql), "{text}: {live:?}");
        // With the state of its own stop, not with what the other text made of it.
        let savepoint = definition.job_id.as_ref().map(|id| format!("savepoint-{}", &id[..6]));
        assert_eq!(live[0].restored, savepoint.filter(|_| engine == EngineKind::Flink), "{text}");
        // It stays so.
        let calls = stage.model().with(|world| world.calls.len());
        let seen = stage.model().with(|world| world.observations);
        until(&running.manager, &definition.id, "ten rounds", |_| {
            stage.model().with(|world| world.observations) > seen + 10
        })
        .await;
        assert_eq!(stage.model().with(|world| world.calls.len()), calls, "{text}");
        running.stop().await;
    }
}

#[tokio::test]
async fn an_update_that_loses_the_state_is_planned_as_such_and_done_only_if_that_is_accepted() {
    for engine in [EngineKind::Flink, EngineKind::Ksqldb] {
        let stage = Stage::new(&[engine]).await;
        let running = stage.run();
        let definition = deployed(&running.manager, "orders", FIRST).await;
        let text = "SELECT AMOUNT AS other_state FROM orders";
        let plan = running.manager.plan(&definition.id, Some(text)).await.unwrap();
        assert_eq!((plan.effect, plan.from_revision, plan.to_revision), (Effect::RestartsFromBeginning, Some(1), 2));
        assert_eq!(running.manager.plan(&definition.id, None).await.unwrap().effect, Effect::Nothing);
        let refused = running.manager.plan(&definition.id, Some("SELECT unknown_column FROM orders")).await.unwrap();
        assert_eq!((refused.effect, refused.refused.len()), (Effect::Refused, 1));
        let mut change = Change { sql_script: Some(text.to_owned()), ..Change::default() };
        let refused = running.manager.update(&definition.id, change.clone(), "anna").await;
        assert!(matches!(refused, Err(Why::WouldLoseState(_))), "{refused:?}");
        assert_eq!(running.manager.get(&definition.id).await.unwrap().revision, 1);
        change.accept_state_loss = true;
        running.manager.update(&definition.id, change, "anna").await.unwrap();
        until(&running.manager, &definition.id, "it is updated", |now| {
            now.deployed_revision == Some(2) && now.is_settled()
        })
        .await;
        let live = stage.model().live();
        assert!(live.len() == 1 && live[0].restored.is_none() && live[0].sql.contains("other_state"), "{live:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn jobs_that_the_engine_has_lost_go_on_from_where_their_state_was_noted_last() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    let noted = until(&running.manager, &definition.id, "its state is noted", |now| now.restore_point.is_some()).await;
    stage.model().with(|world| world.forget_jobs());
    until(&running.manager, &definition.id, "it runs again", |now| {
        now.attempt == 2 && now.deployed_revision == Some(1) && now.is_settled()
    })
    .await;
    let live = stage.model().live();
    assert_eq!(live.len(), 1);
    assert!(noted.restore_point.is_some());
    let restored = live[0].restored.clone().unwrap();
    assert!(stage.model().with(|world| world.retained.contains(&restored)), "{restored}");
}

#[tokio::test]
async fn what_has_failed_goes_on_from_where_its_state_lay_at_the_end() {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    stage.rules.restore_points = Duration::from_secs(3600); // nothing is noted in time
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    stage.model().with(|world| world.jobs.values_mut().for_each(|job| job.state = ObservedState::Failed));
    until(&running.manager, &definition.id, "it runs again", |now| now.attempt == 2 && now.is_settled()).await;
    let id = definition.job_id.unwrap();
    let last = stage.model().with(|world| world.jobs[&id].checkpoints.last().cloned());
    assert!(last.is_some());
    assert_eq!(stage.model().live()[0].restored, last);
}

#[tokio::test]
async fn what_fails_again_and_again_is_given_up_and_deployed_again_when_somebody_says_so() {
    let mut stage = Stage::new(&[EngineKind::Flink]).await;
    stage.rules.restarts = 2;
    let running = stage.run();
    let definition = create(&running.manager, "orders", "SELECT ORDER_ID AS failing FROM orders", None).await;
    running.manager.deploy(&definition.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
    let given_up =
        until(&running.manager, &definition.id, "it is given up", |now| now.failed_revision == Some(1)).await;
    assert_eq!((given_up.attempt, given_up.observed), (3, ObservedState::Failed));
    assert_eq!(given_up.last_error.as_deref(), Some("division by zero"));
    assert_eq!(running.manager.deployed("anna").await.unwrap(), (0, 0));
    running.manager.deploy(&definition.id, DeployOptions::default(), Duration::ZERO, "anna").await.unwrap();
    until(&running.manager, &definition.id, "it is tried again", |now| now.attempt > 3).await;
}

#[tokio::test]
async fn what_ends_with_its_process_is_begun_again_however_often() {
    let mut stage = Stage::new(&[EngineKind::Embedded]).await;
    stage.rules.restarts = 2;
    let mut running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    for killed in 1..=5 {
        running.stop().await;
        stage.model().with(World::forget_jobs);
        running = stage.run();
        let again = until(&running.manager, &definition.id, "it runs again", |now| {
            now.attempt == killed + 1 && now.is_settled() && now.is_active
        })
        .await;
        assert_eq!((again.failed_revision, again.last_error), (None, None), "{killed}");
    }
    // Failures of its own count, in whatever process they are.
    for _ in 0..3 {
        let before = running.manager.get(&definition.id).await.unwrap();
        stage.model().with(|world| world.jobs.values_mut().for_each(|job| job.state = ObservedState::Failed));
        until(&running.manager, &definition.id, "it is begun again or given up", |now| {
            now.failed_revision == Some(1) || (now.attempt > before.attempt && now.is_settled())
        })
        .await;
        running.stop().await;
        running = stage.run();
    }
    let given_up = running.manager.get(&definition.id).await.unwrap();
    assert_eq!((given_up.attempt, given_up.failed_revision), (8, Some(1)), "{given_up:?}");
}

#[tokio::test]
async fn what_somebody_takes_from_the_process_that_runs_it_again_and_again_is_given_up() {
    let mut stage = Stage::new(&[EngineKind::Embedded]).await;
    stage.rules.restarts = 2;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    // Another installation with a copy of our database, say: two that begin it anew would end each other's for ever.
    for attempt in 1..=3 {
        until(&running.manager, &definition.id, "it runs", |now| now.attempt == attempt && now.is_settled()).await;
        stage.model().with(World::forget_jobs);
    }
    let given_up =
        until(&running.manager, &definition.id, "it is given up", |now| now.failed_revision == Some(1)).await;
    assert_eq!(given_up.attempt, 3);
}

#[tokio::test]
async fn of_two_instances_one_leads_and_the_other_takes_over() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let (first, second) = (stage.run(), stage.run());
    let definition = deployed(&first.manager, "orders", FIRST).await;
    assert_eq!(stage.model().with(|world| world.calls.clone()), ["deploy r1 a1"]);
    first.stop().await;
    second.manager.stop(&definition.id, StopOptions::default(), PATIENCE, "anna").await.unwrap();
    assert_eq!(stage.model().live(), []);
    second.stop().await;
}

/// Ends the session that leads, as a failover of Postgres does, or a pooler.
async fn cut_the_lead(stage: &Stage) {
    let cut = "select count(pg_terminate_backend(pid)) from pg_locks where locktype = 'advisory' and objsubid = 1 \
               and database = (select oid from pg_database where datname = current_database()) \
               and (classid::bigint << 32 | objid::bigint) = hashtextextended('streamview stream manager', 0)";
    let cut: i64 = stage.pool.get().await.unwrap().query_one(cut, &[]).await.unwrap().get(0);
    assert_eq!(cut, 1, "one leads");
}

/// Waits until the world of an engine is as it should be.
async fn met(stage: &Stage, what: &str, is: impl Fn(&mut World) -> bool) {
    let begin = Instant::now();
    while !stage.model().with(&is) {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}

/// More often than what fails by itself is begun again.
#[tokio::test]
async fn who_loses_the_lead_alive_ends_what_it_runs_and_begins_it_again_when_it_leads() {
    let mut stage = Stage::new(&[EngineKind::Embedded]).await;
    stage.rules.restarts = 2;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    let mut calls = vec!["deploy r1 a1".to_owned()];
    for cut in 1..=3 {
        cut_the_lead(&stage).await;
        let again = until(&running.manager, &definition.id, "it runs again", |now| {
            now.attempt == cut + 1 && now.is_settled() && now.is_active
        })
        .await;
        assert_eq!((again.failed_revision, again.last_error, again.drift), (None, None, None), "{cut}");
        calls.extend(["lead is lost".to_owned(), format!("deploy r1 a{}", cut + 1)]);
    }
    assert_eq!(stage.model().with(|world| world.calls.clone()), calls);
    running.stop().await;
}

#[tokio::test]
async fn who_has_lost_the_lead_leads_again_once_what_it_ran_has_ended_whoever_leads_meanwhile() {
    let stage = Stage::new(&[EngineKind::Embedded]).await;
    let other = stage.beside();
    let first = stage.run();
    let definition = deployed(&first.manager, "orders", FIRST).await;
    let second = other.run();
    stage.model().with(|world| world.is_slow = true);
    cut_the_lead(&stage).await;
    let runs = |attempt: i32| move |now: &Definition| now.attempt == attempt && now.is_settled() && now.is_active;
    until(&second.manager, &definition.id, "it runs in the other one", runs(2)).await;
    met(&stage, "it is about to end", |world| world.waiting == 1).await;
    assert_eq!(stage.model().live().len(), 1);
    stage.model().with(|world| world.is_slow = false);
    met(&stage, "it has ended", |world| world.jobs.is_empty()).await;

    second.stop().await;
    other.model().with(World::forget_jobs);
    until(&first.manager, &definition.id, "it runs where it ran first", runs(3)).await;
    assert_eq!(stage.model().with(|world| world.calls.clone()), ["deploy r1 a1", "lead is lost", "deploy r1 a3"]);
    assert_eq!(other.model().with(|world| world.calls.clone()), ["deploy r1 a2"]);
    first.stop().await;
}

#[tokio::test]
async fn a_lead_that_is_cut_is_given_up_before_the_next_round() {
    let mut stage = Stage::new(&[EngineKind::Embedded]).await;
    (stage.rules.interval, stage.rules.restore_points) = (PATIENCE * 2, PATIENCE * 100);
    let running = stage.run();
    deployed(&running.manager, "orders", FIRST).await;
    cut_the_lead(&stage).await;
    met(&stage, "what it runs ends", |world| world.jobs.is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_round_asks_each_engine_once_however_many_definitions_there_are() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let manager = stage.manager();
    for number in 0..200 {
        create(&manager, &format!("stream {number}"), FIRST, None).await;
    }
    let everything = "update stream_definitions set intent = 'stopped', position = 'stopped', attempt = 1, \
                      observed = 'stopped', deployed_revision = 1, observed_at = now()";
    stage.pool.get().await.unwrap().batch_execute(everything).await.unwrap();
    let running = stage.run();
    let any = manager.list(&Filter::default(), None, 1).await.unwrap().definitions.remove(0);
    until(&manager, &any.id, "ten rounds", |_| stage.model().with(|world| world.observations) > 10).await;
    running.stop().await;
    stage.model().with(|world| assert_eq!(world.calls, [""; 0]));
}

#[tokio::test]
async fn orphans_are_listed_and_removed_by_a_person_only() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    let deletion = running.manager.delete(&definition.id, DeleteOptions::default(), PATIENCE, "anna").await.unwrap();
    assert!(deletion.is_done && deletion.leaves[0].contains(&definition.output_topic), "{deletion:?}");
    // A job with a name as ours have, and two that have nothing to do with us.
    stage.model().with(|world| {
        let job = super::model::Job {
            name: "sv-lost-0123abcd-r1-a1".to_owned(),
            state: ObservedState::Running,
            sql: String::new(),
            topic: "view_lost_0123abcd".to_owned(),
            restored: None,
            savepoint: None,
            checkpoints: Vec::new(),
            made: 0,
        };
        world.jobs.insert("f".repeat(32), job.clone());
        world.jobs.insert("e".repeat(32), super::model::Job { name: "somebody else's".to_owned(), ..job.clone() });
    });
    stage.topics.names.lock().unwrap().insert("view_of_somebody".to_owned());
    let listed = running.manager.orphans().await.unwrap().orphans;
    let names: Vec<&str> = listed.iter().map(|orphan| orphan.name.as_str()).collect();
    assert_eq!(names, ["sv-lost-0123abcd-r1-a1", definition.output_topic.as_str()]);
    assert!(listed[1].note.contains("anna"), "{listed:?}");
    let seen = stage.model().with(|world| world.observations);
    while stage.model().with(|world| world.observations) < seen + 10 {
        running.manager.orphans().await.unwrap();
    }
    assert_eq!(stage.model().live().len(), 2);
    running.manager.remove_orphan(OrphanKind::Job, None, &listed[0].id, "anna").await.unwrap();
    running.manager.remove_orphan(OrphanKind::Topic, None, &listed[1].id, "anna").await.unwrap();
    assert_eq!(running.manager.orphans().await.unwrap().orphans, []);
    assert_eq!(stage.ours(), ["view_of_somebody"]);
    let again = running.manager.remove_orphan(OrphanKind::Topic, None, "view_of_somebody", "anna").await;
    assert!(matches!(again, Err(Why::NotFound { what: "orphan", .. })));
}

/// What the embedded engine has put aside goes with its stream, or is named as what stays.
#[tokio::test]
async fn what_stands_beside_the_topic_of_a_stream_goes_with_it_or_is_told() {
    let stage = Stage::new(&[EngineKind::Embedded]).await;
    let running = stage.run();
    let put = |topic: String| stage.topics.names.lock().unwrap().insert(topic);
    let whole = deployed(&running.manager, "orders", FIRST).await;
    put(format!("{}.dlq", whole.output_topic));
    put(format!("{}.late", whole.output_topic));
    let deletion = running.manager.delete(&whole.id, WITH_TOPIC, PATIENCE, "anna").await.unwrap();
    assert!(deletion.is_done && deletion.leaves.is_empty(), "{deletion:?}");
    assert_eq!(stage.ours(), [""; 0]);

    let left = deployed(&running.manager, "orders", FIRST).await;
    let letters = format!("{}.dlq", left.output_topic);
    put(letters.clone());
    put("shop.dlq".to_owned());
    put("view_of_somebody.late".to_owned());
    assert_eq!(running.manager.orphans().await.unwrap().orphans, [], "a stream has them");
    let deletion = running.manager.delete(&left.id, DeleteOptions::default(), PATIENCE, "anna").await.unwrap();
    assert!(deletion.is_done && deletion.leaves.len() == 2, "nothing came late: {deletion:?}");
    for (told, topic) in deletion.leaves.iter().zip([&left.output_topic, &letters]) {
        assert!(told.starts_with(&format!("topic `{topic}` with ")), "{deletion:?}");
    }
    let listed = running.manager.orphans().await.unwrap().orphans;
    let names: Vec<&str> = listed.iter().map(|orphan| orphan.name.as_str()).collect();
    assert_eq!(names, [left.output_topic.as_str(), letters.as_str()]);
    assert!(listed.iter().all(|orphan| orphan.kind == OrphanKind::Topic && orphan.note.contains("anna")), "{listed:?}");
    running.manager.remove_orphan(OrphanKind::Topic, None, &left.output_topic, "anna").await.unwrap();
    let listed = running.manager.orphans().await.unwrap().orphans;
    assert!(listed.len() == 1 && listed[0].note.contains("anna"), "it is known whose it is: {listed:?}");
    running.manager.remove_orphan(OrphanKind::Topic, None, &letters, "anna").await.unwrap();
    assert_eq!(running.manager.orphans().await.unwrap().orphans, []);
    assert_eq!(stage.ours(), ["shop.dlq", "view_of_somebody.late"]);
    running.stop().await;
}

#[tokio::test]
async fn a_pull_query_is_judged_as_one_and_refused_by_name_where_there_are_none() {
    let stage = Stage::new(&[EngineKind::Flink, EngineKind::Ksqldb]).await;
    let manager = stage.manager();
    let judged = manager.validate(Some(EngineKind::Flink), StatementKind::Pull, FIRST).await.unwrap();
    assert_eq!(judged.errors.first().map(|refusal| refusal.code.as_str()), Some("pull_query"));
    let judged = manager.validate(Some(EngineKind::Ksqldb), StatementKind::Pull, FIRST).await.unwrap();
    assert_eq!((judged.errors.len(), judged.normalized.unwrap().contains("EMIT")), (0, false));
}

#[tokio::test]
async fn while_the_engine_is_away_the_gate_judges_alone_and_wishes_are_kept() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = deployed(&running.manager, "orders", FIRST).await;
    stage.model().with(|world| world.is_away = true);
    let kind = StatementKind::Persistent;
    let judged = running.manager.validate(None, kind, FIRST).await.unwrap();
    assert_eq!((judged.checked_by, judged.errors.len()), (CheckedBy::Gate, 0));
    assert!(judged.engine_trouble.is_some() && judged.normalized.is_some());
    let stopped = running.manager.stop(&definition.id, StopOptions::default(), Duration::ZERO, "anna").await.unwrap();
    assert_eq!(stopped.intent, Intent::Stopped);
    let other = create(&running.manager, "other", FIRST, None).await;
    let deploy = running.manager.deploy(&other.id, DeployOptions::default(), PATIENCE, "anna").await;
    assert!(matches!(deploy, Err(Why::EngineUnavailable { .. })), "{deploy:?}");
    // A draft needs no engine to go.
    assert!(running.manager.delete(&other.id, DeleteOptions::default(), PATIENCE, "anna").await.unwrap().is_done);
    let engines = running.manager.engines().await;
    assert!(engines.len() == 1 && !engines[0].is_reachable && engines[0].is_default);
    stage.model().with(|world| world.is_away = false);
    settled(&running.manager, &definition.id).await;
    assert_eq!(stage.model().live(), []);
}

#[tokio::test]
async fn what_may_not_be_asked_is_refused_with_what_may() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let running = stage.run();
    let definition = create(&running.manager, "orders", FIRST, None).await;
    let manager = &running.manager;
    match manager.pause(&definition.id, None, PATIENCE, "anna").await {
        Err(Why::Conflict { action: Action::Pause, allowed, .. }) => {
            assert_eq!(allowed, [Action::Update, Action::Deploy, Action::Delete]);
        }
        other => panic!("{other:?}"),
    }
    let new = |name: &str, sql: &str| NewDefinition { name: name.to_owned(), sql_script: sql.to_owned(), engine: None };
    assert!(matches!(manager.create(new("ORDERS", FIRST), "anna").await, Err(Why::NameTaken(_))));
    assert!(matches!(manager.create(new(" ", FIRST), "anna").await, Err(Why::Invalid { field: "name", .. })));
    match manager.create(new("x", "SELECT 1 FROM nowhere"), "anna").await {
        Err(Why::Refused(refusals)) => assert_eq!((refusals[0].line, refusals[0].column), (Some(1), Some(15))),
        other => panic!("{other:?}"),
    }
    for id in ["", "x", "0123", &"0".repeat(32)] {
        assert!(matches!(manager.get(id).await, Err(Why::NotFound { what: "stream", .. })), "{id}");
    }
    let change =
        |expected| Change { name: Some("new".to_owned()), expected_version: Some(expected), ..Change::default() };
    let stale = manager.update(&definition.id, change(7), "anna").await;
    assert!(matches!(stale, Err(Why::PreconditionFailed { expected: 7, .. })), "{stale:?}");
    let renamed = manager.update(&definition.id, change(1), "anna").await.unwrap();
    assert_eq!((renamed.version, renamed.revision, renamed.name.as_str()), (2, 1, "new"));
    assert_eq!(renamed.output_topic, definition.output_topic);
    let ksqldb = NewDefinition { engine: Some(EngineKind::Ksqldb), ..new("y", FIRST) };
    assert!(matches!(manager.create(ksqldb, "anna").await, Err(Why::EngineNotConfigured { .. })));
}

#[tokio::test]
async fn pages_texts_and_sources_are_as_they_were_written() {
    let stage = Stage::new(&[EngineKind::Flink]).await;
    let manager = stage.manager();
    for number in 0..5 {
        create(&manager, &format!("stream {number}"), FIRST, None).await;
    }
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let page = manager.list(&Filter::default(), after.as_deref(), 2).await.unwrap();
        names.extend(page.definitions.into_iter().map(|definition| definition.name));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(names, ["stream 4", "stream 3", "stream 2", "stream 1", "stream 0"]);
    let filter = Filter { name_contains: Some("M 3".to_owned()), intent: Some(Intent::Draft), ..Filter::default() };
    let found = manager.list(&filter, None, 10).await.unwrap().definitions;
    assert_eq!(found.len(), 1);
    let change = Change { sql_script: Some("SELECT AMOUNT FROM orders".to_owned()), ..Change::default() };
    manager.update(&found[0].id, change, "berta").await.unwrap();
    let revisions = manager.revisions(&found[0].id, None, 10).await.unwrap();
    let texts: Vec<_> =
        revisions.iter().map(|each| (each.revision, each.sql_script.as_str(), each.author.as_str())).collect();
    assert_eq!(texts, [(2, "SELECT AMOUNT FROM orders", "berta"), (1, FIRST, "anna")]);
    let events = manager.events(&found[0].id, None, 10).await.unwrap();
    assert_eq!(events.iter().map(|event| event.what.as_str()).collect::<Vec<_>>(), ["changed", "created"]);
    let catalog = manager.catalog(None).await.unwrap();
    assert_eq!((catalog.sources.len(), catalog.sources[0].origin), (1, Origin::Declared));
    let mut source = catalog.sources[0].source.clone();
    source.name = "ORDERS".to_owned();
    source.columns.truncate(1);
    manager.put_source(source.clone(), ANNA, ExpectedSource::Any).await.unwrap();
    assert_eq!(manager.catalog(None).await.unwrap().sources[0].source, source);
    let key = vec![source.columns[0].name.clone()];
    source.event_time = None;
    source.table = Some(Table { key, key_format: KeyFormat::Json });
    manager.put_source(source.clone(), ANNA, ExpectedSource::Any).await.unwrap();
    assert_eq!(manager.catalog(None).await.unwrap().sources[0].source, source);
    source.table = None;
    manager.put_source(source.clone(), ANNA, ExpectedSource::Any).await.unwrap();
    assert_eq!(manager.catalog(None).await.unwrap().sources[0].source, source);
    source.columns.clear();
    assert!(matches!(
        manager.put_source(source, ANNA, ExpectedSource::Any).await,
        Err(Why::Invalid { field: "columns", .. })
    ));
    manager.delete_source("orders", ANNA, ExpectedSource::Any).await.unwrap();
    assert!(matches!(
        manager.delete_source("orders", ANNA, ExpectedSource::Any).await,
        Err(Why::NotFound { what: "source", .. })
    ));
}
