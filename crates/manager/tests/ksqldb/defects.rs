//! The original stream manager's defects that concern ksqlDB, each by its number.

use serde_json::Value;
use streamview_lab::ksqldb_stand_in::Switches;
use streamview_manager::engines::{AdHoc, Changes, Engine, EngineKind, Select, StopMode, Stopped, Trouble};
use streamview_manager::gate::{Dialect, Kind, check};
use streamview_manager::settings::Limits;

use crate::support::{World, all, records, topic_exists};

/// The hole is real on this endpoint, and no text leads to it.
#[tokio::test]
async fn defect_01_a_second_statement_on_deploy_runs_nothing() {
    let world = World::start().await;
    let deployment = world.deployment("Injected", "SELECT * FROM orders", Changes::Append).await;
    let handle = world.deploy(&deployment).await;
    let (sink, source) = (&handle.stream_name, &world.source.name);
    let texts = [
        format!("SELECT * FROM {source}; DROP STREAM {sink} DELETE TOPIC"),
        format!("SELECT * FROM {source}; TERMINATE ALL"),
        format!("SELECT * FROM {source} EMIT CHANGES; DROP STREAM {sink} DELETE TOPIC; --"),
    ];
    for text in &texts {
        let catalogue = vec![world.source.clone()];
        check(text, Dialect::of(EngineKind::Ksqldb), Kind::Persistent, &Limits::default(), &catalogue).unwrap_err();
        // Even what would get past the gate is not composed.
        let mut past = deployment.clone();
        past.select = Select { sql: text.clone(), sources: Vec::new() };
        past.names = streamview_manager::names::Names::of("ffffffff", "past");
        crate::support::create_topic(&past.names.topic(), 1).await;
        assert!(matches!(world.engine.deploy(&past).await, Err(Trouble::Refused(_))), "{text}");
        let query = AdHoc {
            id: "x".repeat(32),
            select: past.select.clone(),
            from_start: true,
            time_limit: std::time::Duration::from_secs(5),
        };
        assert!(matches!(world.engine.query(query).await.map(drop), Err(Trouble::Refused(_))), "{text}");
    }
    assert!(world.sent("DROP").is_empty() && world.sent("TERMINATE").is_empty());
    assert!(world.state(&handle).await.is_some());

    // As the original sent it: both statements run, and the topic is gone.
    let wrapped =
        format!("CREATE STREAM X1 AS SELECT * FROM `{source}` EMIT CHANGES; DROP STREAM {sink} DELETE TOPIC;");
    assert_eq!(world.by_hand(&wrapped).await.0, 200);
    assert!(world.state(&handle).await.is_none() && !topic_exists(&handle.output_topic));
}

#[tokio::test]
async fn defect_02_emit_changes_goes_before_the_limit() {
    let world = World::start().await;
    world.order(1, "a", "1");
    let (_, rows, _) =
        all(world.query("SELECT 'EMIT CHANGES' AS t FROM orders LIMIT 1 -- EMIT CHANGES", true).await.unwrap()).await;
    assert_eq!(rows[0].values, [Value::from("EMIT CHANGES")]);
}

#[tokio::test]
async fn defect_03_the_topic_is_the_topic_and_not_the_streams_name() {
    let world = World::start().await;
    let handle = world.deploy(&world.deployment("Named", "SELECT * FROM orders", Changes::Append).await).await;
    let observed = world.engine.observe().await.unwrap().remove(0);
    assert_eq!((&observed.name, &observed.topics), (&handle.stream_name, &vec![handle.output_topic.clone()]));
    assert_ne!(handle.stream_name, handle.output_topic);
    world.order(1, "a", "1");
    records(&handle.output_topic, 1).await;
}

#[tokio::test]
async fn defect_04_a_query_id_is_read_and_a_stop_leaves_no_orphan() {
    let world = World::start().await;
    let deployment = world.deployment("Stopped", "SELECT * FROM orders", Changes::Append).await;
    let handle = world.deploy(&deployment).await;
    let observed = world.engine.observe().await.unwrap();
    assert_eq!(observed[0].job_id, handle.job_id);

    // With an id that is stale the query is found by what it fills.
    let mut stale = handle.clone();
    stale.job_id = format!("{}9", handle.job_id);
    let stopped = world.engine.stop(&deployment, &stale, StopMode::Final).await.unwrap();

    assert_eq!((stopped, world.engine.observe().await.unwrap().len()), (Stopped::WithoutState, 0));
}

#[tokio::test]
async fn defect_06_a_deploy_after_a_stop_has_the_same_stream_and_topic() {
    let world = World::start().await;
    let mut deployment = world.deployment("Again", "SELECT * FROM orders", Changes::Append).await;
    let first = world.deploy(&deployment).await;
    world.engine.stop(&deployment, &first, StopMode::Final).await.unwrap();
    deployment.attempt = 2;

    let second = world.deploy(&deployment).await;

    assert_eq!((&second.stream_name, &second.output_topic), (&first.stream_name, &first.output_topic));
    let (_, answer) = world.by_hand("SHOW STREAMS;").await;
    let streams = answer[0]["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 2, "the source and one stream: {streams:?}");
    world.order(1, "a", "1");
    records(&second.output_topic, 1).await;
}

#[tokio::test]
async fn defect_10_a_refused_query_says_why() {
    let world = World::start().await;
    let select = Select { sql: "SELECT *\nFROM nowhere EMIT CHANGES".to_owned(), sources: Vec::new() };
    let time_limit = std::time::Duration::from_secs(5);
    let outcome = world.engine.query(AdHoc { id: "x".repeat(32), select, from_start: true, time_limit }).await;
    let Err(Trouble::Refused(refusal)) = outcome.map(drop) else { panic!("refused") };
    assert_eq!((refusal.code.as_str(), refusal.message.as_str()), ("unknown_source", "NOWHERE does not exist."));
}

#[tokio::test]
async fn defect_14_a_group_by_becomes_a_table() {
    let world = World::start().await;
    world.order(1, "a", "1.50");
    let text = "SELECT customer, SUM(amount) AS total FROM orders GROUP BY customer";
    let select = world.gated(text, Kind::Persistent);
    world.engine.prepare(&select).await.unwrap();
    let explained = world.engine.explain(&select).await.unwrap();
    let handle = world.deploy(&world.deployment("Grouped", text, explained.changes).await).await;
    assert!(handle.job_id.starts_with("CTAS_"), "{handle:?}");
    assert_eq!(records(&handle.output_topic, 1).await, [("a".to_owned(), "{\"TOTAL\":1.50}".to_owned())]);
    world.engine.remove(&handle, &[]).await.unwrap();
    assert_eq!(world.sent("DROP TABLE").len(), 1);
}

#[tokio::test]
async fn defect_14b_properties_are_sent_on_deploy() {
    let world = World::start().await;
    world.switch(Switches::default());
    world.order(1, "before", "1");
    let handle = world.deploy(&world.deployment("Propertied", "SELECT * FROM orders", Changes::Append).await).await;
    let asked = world.server.asked().unwrap();
    let create = asked
        .iter()
        .find(|asked| asked.statement.contains(&handle.stream_name) && asked.statement.starts_with("CREATE"));
    assert_eq!(create.unwrap().properties["ksql.streams.auto.offset.reset"], "earliest");
    records(&handle.output_topic, 1).await;
}
