//! Deploy, observe, pause, resume, update, stop, remove: with rows that flow.

use streamview_lab::ksqldb_stand_in::{Options, Switches};
use streamview_manager::engines::{Changes, Engine, ObservedState, StopMode, Stopped, Trouble};
use streamview_manager::gate::Kind;

use crate::support::{World, count, produce, records, topic_exists, until};

const BIG: &str = "SELECT order_id, amount FROM orders WHERE amount > 100";

#[tokio::test]
async fn rows_arrive_in_the_output_topic_as_they_are_written() {
    let world = World::start().await;
    world.order(9_007_199_254_740_993, "a", "112.50");
    world.order(2, "b", "99.99");
    let deployment = world.deployment("Big orders", BIG, Changes::Append).await;

    let handle = world.deploy(&deployment).await;
    world.order(3, "c", "100.01");

    assert!(handle.job_id.starts_with(&format!("CSAS_{}_", handle.stream_name)), "{handle:?}");
    assert_eq!((&handle.stream_name, &handle.output_topic), (&deployment.names.sink(), &deployment.names.topic()));
    let rows: Vec<String> = records(&handle.output_topic, 2).await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(rows, ["{\"ORDER_ID\":9007199254740993,\"AMOUNT\":112.50}", "{\"ORDER_ID\":3,\"AMOUNT\":100.01}"]);
    assert_eq!(world.state(&handle).await, Some(ObservedState::Running));
}

#[tokio::test]
async fn explain_says_columns_kind_and_plan_without_a_trace() {
    let world = World::start().await;
    world.engine.prepare(&world.gated(BIG, Kind::Persistent)).await.unwrap();
    let plain = world.engine.explain(&world.gated(BIG, Kind::Persistent)).await.unwrap();
    let totals = "SELECT customer, SUM(amount) AS total, COUNT(*) AS n FROM orders GROUP BY customer";
    let grouped = world.engine.explain(&world.gated(totals, Kind::Persistent)).await.unwrap();

    assert_eq!((plain.changes, grouped.changes), (Changes::Append, Changes::Upsert));
    let columns: Vec<String> =
        grouped.columns.iter().map(|column| format!("{} {}", column.name, column.data_type)).collect();
    assert_eq!(columns, ["CUSTOMER string", "TOTAL decimal(10, 2)", "N bigint"]);
    assert!(grouped.plan.contains("AGGREGATE") && grouped.plan.contains("Sub-topology"), "{}", grouped.plan);
    assert_eq!(world.engine.observe().await.unwrap(), []);
    let names: Vec<String> = world.engine.sources().await.unwrap().into_iter().map(|source| source.name).collect();
    assert_eq!(names, std::slice::from_ref(&world.source.name), "only the source was registered, once");
    assert_eq!(world.sent("IF NOT EXISTS").len(), 1);
}

#[tokio::test]
async fn a_paused_query_keeps_its_place() {
    let world = World::start().await;
    let deployment = world.deployment("Paused", BIG, Changes::Append).await;
    let handle = world.deploy(&deployment).await;
    world.order(1, "a", "101");
    records(&handle.output_topic, 1).await;

    let stopped = world.engine.stop(&deployment, &handle, StopMode::KeepState).await.unwrap();
    assert_eq!((stopped, world.state(&handle).await), (Stopped::Paused, Some(ObservedState::Paused)));
    world.engine.stop(&deployment, &handle, StopMode::KeepState).await.unwrap();
    world.order(2, "b", "102");
    world.engine.resume(&handle).await.unwrap();

    assert_eq!(world.state(&handle).await, Some(ObservedState::Running));
    records(&handle.output_topic, 2).await;
    world.order(3, "c", "103");
    let rows = records(&handle.output_topic, 3).await;
    assert!(rows[1].1.contains(":2,") && rows[2].1.contains(":3,"), "none lost, none twice: {rows:?}");
}

#[tokio::test]
async fn an_update_keeps_id_and_place_and_a_refused_one_changes_nothing() {
    let world = World::start().await;
    let mut deployment = world.deployment("Updated", BIG, Changes::Append).await;
    let handle = world.deploy(&deployment).await;
    world.order(1, "a", "101");
    records(&handle.output_topic, 1).await;

    (deployment.revision, deployment.replaces) = (2, true);
    deployment.select = world.gated("SELECT order_id, amount FROM orders WHERE amount > 200", Kind::Persistent);
    assert_eq!(world.engine.deploy(&deployment).await.unwrap(), handle);
    world.order(2, "b", "150");
    world.order(3, "c", "201");
    let rows = records(&handle.output_topic, 2).await;
    assert!(rows[1].1.contains("201"), "{rows:?}");

    deployment.select = world.gated("SELECT order_id FROM orders WHERE amount > 200", Kind::Persistent);
    let Err(Trouble::Refused(refusal)) = world.engine.deploy(&deployment).await else { panic!("it loses a column") };
    assert_eq!(refusal.code, "cannot_upgrade");
    world.order(4, "d", "300");
    assert_eq!(records(&handle.output_topic, 3).await[2].1, "{\"ORDER_ID\":4,\"AMOUNT\":300.00}");
}

#[tokio::test]
async fn what_shall_begin_anew_takes_the_place_of_what_cannot_be_upgraded() {
    let world = World::start().await;
    let mut deployment = world.deployment("Anew", BIG, Changes::Append).await;
    let old = world.deploy(&deployment).await;

    deployment.revision = 2;
    deployment.select = world.gated("SELECT customer FROM orders", Kind::Persistent);
    let new = world.deploy(&deployment).await;

    assert_ne!(old.job_id, new.job_id);
    let observed = world.engine.observe().await.unwrap();
    assert_eq!(observed.into_iter().map(|observed| observed.job_id).collect::<Vec<_>>(), [new.job_id]);
}

#[tokio::test]
async fn a_restart_of_the_server_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { folder: Some(folder.path().to_owned()), ..Options::default() };
    let mut world = World::with(options).await;
    let text = "SELECT customer, SUM(amount) AS total, COUNT(*) AS n FROM orders GROUP BY customer";
    let deployment = world.deployment("Totals", text, Changes::Upsert).await;
    let handle = world.deploy(&deployment).await;
    world.order(1, "a", "1.10");
    world.order(2, "a", "2.20");
    records(&handle.output_topic, 2).await;
    // Offsets are committed behind the rows: what was not committed would be counted twice.
    let world_state = || async { (world.state(&handle).await == Some(ObservedState::Running)).then_some(()) };
    until("it runs", world_state).await;
    let group = world.engine.details(&handle.job_id).await.unwrap().group.unwrap();
    committed(&group, &world.source.topic, 2).await;

    world.server.restart().unwrap();
    world.order(3, "a", "3.30");

    assert_eq!(world.deploy(&deployment).await, handle, "it is adopted by its name");
    let rows = records(&handle.output_topic, 3).await;
    assert_eq!(rows[2], ("a".to_owned(), "{\"TOTAL\":6.60,\"N\":3}".to_owned()));
}

async fn committed(group: &str, topic: &str, offset: i64) {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
    let mut config = rdkafka::ClientConfig::new();
    config.set("bootstrap.servers", crate::support::kafka()).set("group.id", group);
    let consumer: BaseConsumer = config.create().unwrap();
    until("the commit", || async {
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        let found = consumer.committed_offsets(list, std::time::Duration::from_secs(10)).unwrap();
        (found.elements()[0].offset() == Offset::Offset(offset)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn removal_leaves_the_topic_and_may_be_repeated() {
    let world = World::start().await;
    let deployment = world.deployment("Removed", BIG, Changes::Append).await;
    let mut handle = world.deploy(&deployment).await;
    // It was remembered as the other kind.
    handle.changes = Changes::Upsert;

    for _ in 0..2 {
        world.engine.remove(&handle, &[]).await.unwrap();
    }

    assert_eq!(world.engine.observe().await.unwrap(), []);
    assert!(topic_exists(&handle.output_topic));
    assert!(world.sent("DELETE TOPIC").is_empty());
    let names: Vec<String> = world.engine.sources().await.unwrap().into_iter().map(|source| source.name).collect();
    assert_eq!(names, std::slice::from_ref(&world.source.name));
}

#[tokio::test]
async fn what_writes_to_another_topic_is_not_ours() {
    let world = World::start().await;
    let deployment = world.deployment("Taken", BIG, Changes::Append).await;
    world.engine.prepare(&deployment.select).await.unwrap();
    let (sink, source) = (deployment.names.sink(), &world.source.name);
    let taken = format!(
        "CREATE STREAM {sink} WITH (KAFKA_TOPIC='of_somebody_{source}') AS SELECT * FROM `{source}` EMIT CHANGES;"
    );
    assert_eq!(world.by_hand(&taken).await.0, 200);

    let Err(Trouble::Refused(refusal)) = world.engine.deploy(&deployment).await else { panic!("it is another's") };

    assert_eq!(refusal.code, "name_of_another");
    assert!(world.sent("DROP").is_empty() && world.sent("TERMINATE").is_empty());
}

#[tokio::test]
async fn details_say_group_topology_and_the_first_cause() {
    let world = World::start().await;
    let handle = world.deploy(&world.deployment("Detailed", BIG, Changes::Append).await).await;
    let why = "org.example.AuthorizationException: no right to\n\twrite\n\tat org.example.Deep";
    let failed = [(handle.job_id.clone(), why.to_owned())].into_iter().collect();
    world.switch(Switches { failed, unresponsive: true, ..Switches::default() });

    let details = world.engine.details(&handle.job_id).await.unwrap();

    assert_eq!(details.failure.as_deref(), Some("org.example.AuthorizationException: no right to write"));
    assert!(details.group.unwrap().ends_with(&format!("query_{}", handle.job_id)));
    assert_eq!((details.topology.nodes.len(), details.topology.edges.len()), (3, 2));
    assert_eq!(world.state(&handle).await, Some(ObservedState::Failed));
    world.switch(Switches { unresponsive: true, ..Switches::default() });
    assert_eq!(world.state(&handle).await, Some(ObservedState::Degraded));
    let Err(Trouble::Refused(refusal)) = world.engine.details("CSAS_NOPE_1").await else { panic!("there is none") };
    assert_eq!(refusal.code, "unknown_query");
}

#[tokio::test]
async fn the_engines_own_sources_have_columns() {
    let world = World::start().await;
    let statement = "CREATE TABLE PRICES (SKU STRING PRIMARY KEY, PARTS ARRAY<STRUCT<N INTEGER, P DECIMAL(9, 3)>>) WITH \
                     (KAFKA_TOPIC='prices_of_them', PARTITIONS=2, VALUE_FORMAT='JSON');";
    assert_eq!(world.by_hand(statement).await.0, 200);
    let sources = world.engine.sources().await.unwrap();
    let columns: Vec<String> = sources[0].columns.iter().map(|c| format!("{} {}", c.name, c.data_type)).collect();
    assert_eq!((sources[0].name.as_str(), sources[0].topic.as_str()), ("PRICES", "prices_of_them"));
    assert_eq!(columns, ["SKU string", "PARTS array<row<`N` int, `P` decimal(9, 3)>>"]);
}

#[tokio::test]
async fn capabilities_name_the_cluster() {
    let world = World::start().await;
    let capabilities = world.engine.capabilities().await.unwrap();
    assert_eq!(capabilities.version, "7.6.0");
    assert!(capabilities.cluster.starts_with("stand-in-kafka-cluster/t"), "{capabilities:?}");
    assert!(capabilities.can_pause && capabilities.replaces_in_place && !capabilities.can_savepoint);
    world.switch(Switches { degraded: true, ..Switches::default() });
    let Err(Trouble::Unavailable(why)) = world.engine.capabilities().await else { panic!("it is damaged") };
    assert!(why.contains("DEGRADED"), "{why}");
}

#[tokio::test]
async fn records_that_are_no_rows_are_passed_over() {
    let world = World::start().await;
    produce(&world.source.topic, None, Some("not json"));
    world.order(1, "a", "500");
    let handle = world.deploy(&world.deployment("Odd", BIG, Changes::Append).await).await;
    assert_eq!(records(&handle.output_topic, 1).await[0].1, "{\"ORDER_ID\":1,\"AMOUNT\":500.00}");
    assert_eq!(count(&handle.output_topic), 1);
}
