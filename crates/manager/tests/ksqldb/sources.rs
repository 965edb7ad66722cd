//! What is selected from: registered by who deploys or queries only, and never another one of the same name.

use streamview_lab::ksqldb_stand_in::{Refuse, Switches};
use streamview_manager::catalog::Column;
use streamview_manager::engines::{AdHoc, Changes, Engine, Trouble};
use streamview_manager::gate::Kind;

use crate::support::{PATIENCE, World, next, records};

const BIG: &str = "SELECT order_id, amount FROM orders WHERE amount > 100";

/// The statements that have changed something.
fn commands(world: &World) -> Vec<String> {
    ["CREATE", "DROP", "TERMINATE"]
        .iter()
        .flat_map(|word| world.sent(word))
        .filter(|statement| is_command(statement))
        .collect()
}

fn is_command(statement: &str) -> bool {
    !statement.starts_with("EXPLAIN") && !statement.starts_with("DESCRIBE")
}

fn refused<T>(outcome: Result<T, Trouble>) -> String {
    match outcome {
        Err(Trouble::Refused(refusal)) => {
            assert_eq!(refusal.code, "source_differs", "{}", refusal.message);
            refusal.message
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it reads what was not declared"),
    }
}

#[tokio::test]
async fn who_only_looks_changes_nothing_on_the_server() {
    let world = World::start().await;
    let select = world.gated(BIG, Kind::Persistent);

    let Err(Trouble::Unavailable(why)) = world.engine.explain(&select).await else { panic!("it is not there yet") };

    assert!(why.contains(&format!("`{}`", world.source.name)), "{why}");
    assert_eq!(world.engine.unprepared(&select).await.unwrap(), Some(why));
    assert_eq!((commands(&world), world.engine.sources().await.unwrap()), (Vec::new(), Vec::new()));

    let mut rows = world.query("SELECT customer FROM orders", true).await.unwrap();
    next(&mut rows).await;
    assert_eq!(world.engine.unprepared(&select).await.unwrap(), None, "a query has it registered");
    world.engine.explain(&select).await.unwrap();
    world.engine.prepare(&select).await.unwrap();
    assert_eq!(commands(&world).len(), 1, "once");
}

#[tokio::test]
async fn a_stream_of_that_name_on_another_topic_is_never_read() {
    let world = World::start().await;
    let (name, topic) = (&world.source.name, &world.source.topic);
    let theirs = format!(
        "CREATE STREAM `{name}` (ORDER_ID BIGINT, CUSTOMER STRING, AMOUNT DECIMAL(10, 2)) WITH \
         (KAFKA_TOPIC='theirs_{topic}', PARTITIONS=1, VALUE_FORMAT='JSON');"
    );
    assert_eq!(world.by_hand(&theirs).await.0, 200);
    let select = world.gated(BIG, Kind::Persistent);

    let why = refused(world.engine.explain(&select).await);
    assert!(why.contains(&format!("reads the topic `theirs_{topic}`, not `{topic}`")), "{why}");
    refused(world.engine.prepare(&select).await);
    refused(world.query("SELECT customer FROM orders", true).await.map(drop));
    refused(world.engine.deploy(&world.deployment("Theirs", BIG, Changes::Append).await).await);
    assert_eq!(commands(&world), [theirs], "nothing but their own");
}

#[tokio::test]
async fn columns_that_are_declared_anew_are_told_apart() {
    let mut world = World::start().await;
    world.engine.prepare(&world.gated(BIG, Kind::Persistent)).await.unwrap();
    let column = Column { name: "city".to_owned(), data_type: "string".parse().unwrap(), nullable: true };
    world.source.columns.push(column);
    let why = refused(world.engine.explain(&world.gated(BIG, Kind::Persistent)).await);
    assert!(why.contains("it has no column `CITY`"), "{why}");

    world.source.columns.truncate(2);
    world.engine.explain(&world.gated("SELECT order_id FROM orders", Kind::Persistent)).await.unwrap();
    let why = refused(world.engine.explain(&world.gated("SELECT * FROM orders", Kind::Persistent)).await);
    assert!(why.contains("`AMOUNT`"), "{why}");

    world.source.columns[0].data_type = "string".parse().unwrap();
    let why = refused(world.engine.explain(&world.gated("SELECT order_id FROM orders", Kind::Persistent)).await);
    assert!(why.contains("`ORDER_ID` is bigint, not string"), "{why}");
}

#[tokio::test]
async fn a_registration_that_waits_in_the_command_topic_is_waited_for() {
    let world = World::start().await;
    world.order(1, "a", "500");
    world.switch(Switches { hold: true, ..Switches::default() });
    let deployment = world.deployment("Waits", BIG, Changes::Append).await;
    let (handle, ()) = tokio::join!(world.deploy(&deployment), async {
        crate::support::until("it is asked again how it stands", || async {
            let asked = world.server.asked().unwrap();
            asked
                .iter()
                .any(|asked| asked.what.contains("/status/") && asked.what.contains(&world.source.name))
                .then_some(())
        })
        .await;
        world.switch(Switches::default());
    });
    records(&handle.output_topic, 1).await;
}

#[tokio::test]
async fn all_sources_are_described_in_two_requests_or_one_by_one() {
    let world = World::start().await;
    for name in ["A", "B", "C"] {
        let topic = &world.source.topic;
        let made = format!("CREATE STREAM {name} (X INTEGER) WITH (KAFKA_TOPIC='{topic}', VALUE_FORMAT='JSON');");
        assert_eq!(world.by_hand(&made).await.0, 200);
    }
    let described = |world: &World| world.sent("DESCRIBE").len() + world.sent("SHOW").len();
    let at_once = world.engine.sources().await.unwrap();
    assert_eq!((at_once.len(), described(&world)), (3, 2));

    // An older server does not know the words.
    let body =
        serde_json::json!({ "@type": "statement_error", "error_code": 40001, "message": "line 1:10: Syntax Error" });
    let refuse = Refuse { words: "EXTENDED".to_owned(), times: None, status: 400, body, retry_after: None };
    world.switch(Switches { refuse: vec![refuse], ..Switches::default() });
    let mut one_by_one = world.engine.sources().await.unwrap();
    one_by_one.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(one_by_one, at_once);
}

#[tokio::test]
async fn a_query_of_a_source_that_the_server_knows_itself_registers_nothing() {
    let mut world = World::start().await;
    let statement = "CREATE STREAM PAYMENTS (ID BIGINT KEY, `by` STRING) WITH (KAFKA_TOPIC='payments_of_them', PARTITIONS=1, \
                     VALUE_FORMAT='JSON');";
    assert_eq!(world.by_hand(statement).await.0, 200);
    world.source = world.engine.sources().await.unwrap().remove(0);
    let select = world.gated("SELECT * FROM PAYMENTS", Kind::AdHoc { pull: false });
    let query = AdHoc { id: "q".repeat(32), select, from_start: true, time_limit: PATIENCE };
    next(&mut world.engine.query(query).await.unwrap()).await;
    assert_eq!(commands(&world), [statement]);
}
