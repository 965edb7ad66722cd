//! Who declares what, which topics are sources, and how often the outside is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::stage::{ANNA, PATIENCE, Stage, create};
use crate::catalog::{Column, DataType, Format, KeyFormat, Source, Table};
use crate::engines::EngineKind;
use crate::fault::Fault;
use crate::hub::{Call, Client, ConnectionId, HubService};
use crate::lifecycle::Effect;
use crate::live::Live;
use crate::manager::{CheckedBy, Declarer, DeployOptions, ExpectedSource, Origin, StatementKind};
use crate::ports::{Decoded, PortError, Schemas};
use crate::preview::Watchable;

const BERTA: Declarer<'static> = Declarer { name: "berta", is_operator: false };
const OLGA: Declarer<'static> = Declarer { name: "olga", is_operator: true };

fn columns() -> Vec<Column> {
    vec![Column { name: "a".to_owned(), data_type: DataType::Int, nullable: true }]
}

fn source(name: &str, topic: &str) -> Source {
    Source {
        name: name.to_owned(),
        topic: topic.to_owned(),
        format: Format::Json,
        columns: columns(),
        event_time: None,
        table: None,
    }
}

/// Knows a schema for each topic; cannot read that of `odd`, and is away for `away`.
#[derive(Default)]
struct Registry(AtomicUsize);

#[async_trait]
impl Schemas for Registry {
    async fn columns_of(&self, topic: &str) -> Result<Option<(Format, Vec<Column>)>, PortError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        match topic {
            "odd" => Err(PortError::Refused("its schema is PROTOBUF".to_owned())),
            "away" => Err(PortError::Unavailable("nobody answers".to_owned())),
            _ => Ok(Some((Format::Json, columns()))),
        }
    }

    async fn decode(&self, _: &[u8]) -> Result<Option<Decoded>, PortError> {
        Ok(None)
    }
}

async fn stage(topics: &[&str]) -> (Stage, Arc<Registry>) {
    let (mut stage, registry) = (Stage::new(&[EngineKind::Ksqldb]).await, Arc::<Registry>::default());
    stage.schemas = Some(registry.clone());
    *stage.topics.names.lock().unwrap() = topics.iter().map(|topic| (*topic).to_owned()).collect();
    (stage, registry)
}

#[tokio::test]
async fn a_declaration_is_its_declarers_or_an_operators_to_change() {
    let (stage, _) = stage(&[]).await;
    let manager = stage.manager();
    let refused = manager.put_source(source("Orders", "other"), BERTA, ExpectedSource::Any).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`Orders` is declared by `anna`, and to change it: that asks for the role `operator`"
    );
    assert!(matches!(
        manager.delete_source("orders", BERTA, ExpectedSource::Any).await,
        Err(Fault::AsksForOperator(_))
    ));
    assert_eq!(manager.catalog(None).await.unwrap().sources[0].source.topic, "orders", "nothing was changed");
    manager.put_source(source("orders", "mine"), ANNA, ExpectedSource::Any).await.unwrap();
    manager.put_source(source("orders", "hers"), OLGA, ExpectedSource::Any).await.unwrap();
    assert!(matches!(
        manager.put_source(source("orders", "mine"), ANNA, ExpectedSource::Any).await,
        Err(Fault::AsksForOperator(_))
    ));
    let left = manager.delete_source("orders", OLGA, ExpectedSource::Any).await.unwrap();
    assert_eq!(left, ["topic `hers` with its records"]);
}

#[tokio::test]
async fn topics_that_are_nobodys_are_no_source_and_not_watched() {
    let (stage, _) = stage(&["shop", "orders.dlq", "_schemas", "default_ksql_processing_log"]).await;
    let manager = stage.manager();
    for topic in ["_schemas", "default_ksql_processing_log"] {
        let refused = manager.put_source(source("x", topic), OLGA, ExpectedSource::Any).await;
        assert!(matches!(refused, Err(Fault::Invalid { field: "topic", .. })), "{topic}");
        assert!(manager.watchable(topic).await.unwrap().is_none(), "{topic}");
    }
    assert!(matches!(
        manager.put_source(source("x", "orders.dlq"), ANNA, ExpectedSource::Any).await,
        Err(Fault::AsksForOperator(_))
    ));
    assert!(manager.watchable("orders.dlq").await.unwrap().is_none(), "the registry alone does not make it one");
    assert!(manager.watchable("shop").await.unwrap().is_some());
    let sources = manager.catalog(None).await.unwrap().sources;
    let of_registry: Vec<_> = sources
        .iter()
        .filter(|entry| entry.origin == Origin::Registry)
        .map(|entry| entry.source.topic.as_str())
        .collect();
    assert_eq!(of_registry, ["shop"]);
    manager.put_source(source("letters", "orders.dlq"), OLGA, ExpectedSource::Any).await.unwrap();
    assert!(manager.watchable("orders.dlq").await.unwrap().is_some(), "an operator has said so");
}

#[tokio::test]
async fn the_registry_is_asked_once_however_many_ask_and_whatever_it_says() {
    let (stage, registry) = stage(&["odd", "shop"]).await;
    let manager = stage.manager();
    let asked = (0..50).map(|_| manager.watchable("nonsense"));
    for found in futures_util::future::join_all(asked).await {
        assert!(found.unwrap().is_none());
    }
    assert_eq!(registry.0.load(Ordering::SeqCst), 2, "one walk over two topics");
    let catalog = manager.catalog(None).await.unwrap();
    assert!(catalog.missing.is_empty(), "what is no source is nothing that lacks: {:?}", catalog.missing);

    let (stage, registry) = self::stage(&["away", "shop"]).await;
    let manager = stage.manager();
    for _ in 0..2 {
        assert_eq!(manager.catalog(None).await.unwrap().missing.len(), 1);
    }
    assert_eq!(registry.0.load(Ordering::SeqCst), 2, "what it could not say is not asked at once again");
    assert!(manager.watchable("orders").await.unwrap().is_some(), "declared");
}

/// One connection may join 20.
#[tokio::test]
async fn a_connection_has_not_to_leave_topics_that_have_ended_to_join_others() {
    let (stage, _) = stage(&[]).await;
    let manager = stage.manager();
    let live = Live::of(&manager);
    let (client, mut pushes) = Client::new(ConnectionId("one".into()));
    for number in 0..=20 {
        let topic = format!("topic_{number}");
        manager.put_source(source(&topic, &topic), ANNA, ExpectedSource::Any).await.unwrap();
        let (client, target) = (client.clone(), "JoinStreamGroup".to_owned());
        let call = Call { client, caller: Arc::default(), target, arguments: vec![json!(topic)] };
        assert_eq!(live.invoke(call).await, Ok(Value::Null), "{topic}");
        let told = pushes.next().await.unwrap();
        assert!(told.as_str().contains("ReceiveEnd"), "{}", told.as_str());
    }
}

#[tokio::test]
async fn a_declaration_that_is_taken_back_says_what_an_engine_keeps_of_it() {
    let (stage, _) = stage(&[]).await;
    let manager = stage.manager();
    stage.model().with(|world| world.knows = vec![source("orders", "orders"), source("other", "orders")]);
    let left = manager.delete_source("Orders", ANNA, ExpectedSource::Any).await.unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[1].contains("`orders` in ksqldb"), "{left:?}");

    manager.put_source(source("orders", "elsewhere"), ANNA, ExpectedSource::Any).await.unwrap();
    stage.model().with(|world| world.is_away = true);
    let left = manager.delete_source("orders", ANNA, ExpectedSource::Any).await.unwrap();
    assert!(left[0].contains("`elsewhere`") && left[1].contains("the model is away"), "{left:?}");
}

#[tokio::test]
async fn only_who_deploys_has_anything_made_in_the_engine() {
    let stage = Stage::new(&[EngineKind::Ksqldb]).await;
    let running = stage.run();
    let manager = &running.manager;
    stage.model().with(|world| world.is_unprepared = true);
    let text = "SELECT ORDER_ID FROM orders";
    let definition = create(manager, "One", text, None).await;

    let found = manager.validate(None, StatementKind::Persistent, text).await.unwrap();
    let plan = manager.plan(&definition.id, None).await.unwrap();

    assert_eq!((found.checked_by, found.errors, found.explained), (CheckedBy::Gate, Vec::new(), None));
    assert_eq!(found.engine_trouble.unwrap(), "the model has no `orders` yet");
    assert_eq!(plan.effect, Effect::Starts);
    assert!(plan.reason.ends_with("as the model has no `orders` yet"), "{}", plan.reason);
    assert!(stage.model().with(|world| world.calls.is_empty() && world.is_unprepared), "nothing was made");

    manager.deploy(&definition.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
    assert_eq!(stage.model().with(|world| world.calls[0].clone()), "prepare");
    let found = manager.validate(None, StatementKind::Persistent, text).await.unwrap();
    assert_eq!(found.checked_by, CheckedBy::Engine);
    running.stop().await;
}

async fn with_records(engines: &[EngineKind], topics: &[(&str, &[&str])]) -> Stage {
    let stage = Stage::new(engines).await;
    *stage.topics.names.lock().unwrap() = topics.iter().map(|(topic, _)| (*topic).to_owned()).collect();
    let records = |(topic, values): &(&str, &[&str])| {
        ((*topic).to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
    };
    *stage.topics.records.lock().unwrap() = topics.iter().map(records).collect();
    stage
}

#[tokio::test]
async fn what_nobody_describes_has_the_columns_of_its_latest_records_for_the_embedded_engine() {
    let many: Vec<String> = (0..500).map(|number| format!("{{\"old\": {number}}}")).collect();
    let latest: Vec<&str> = many.iter().map(String::as_str).chain(["{\"n\": 1}"; 200]).collect();
    let topics: &[(&str, &[&str])] = &[
        ("clicks.v2", &["{\"id\": 1, \"at\": \"2026-01-01T00:00:00Z\"}", "{\"id\": 2, \"to\": {\"x\": 1.5}}"]),
        ("empty", &[]),
        ("latest", &latest),
        ("orders", &["{\"other\": 1}"]),
        ("text", &["{\"a\": 1}", "hello"]),
        ("orders.dlq", &["{\"a\": 1}"]),
        ("_schemas", &["{\"a\": 1}"]),
    ];
    let stage = with_records(&[EngineKind::Ksqldb, EngineKind::Embedded], topics).await;
    let manager = stage.manager();
    let sources = manager.catalog(None).await.unwrap().sources;
    let seen = |origin: Origin| -> Vec<String> {
        let of = sources.iter().filter(|entry| entry.origin == origin);
        let column = |column: &Column| format!("{} {}", column.name, column.data_type);
        of.map(|entry| {
            let columns: Vec<String> = entry.source.columns.iter().map(column).collect();
            format!("{}: {} for {:?}", entry.source.name, columns.join(", "), entry.engines)
        })
        .collect()
    };
    assert_eq!(
        seen(Origin::Inferred),
        ["clicks_v2: id bigint, at timestamp(3), to row<`x` double> for [Embedded]", "latest: n bigint for [Embedded]"]
    );
    assert_eq!(sources.iter().filter(|entry| entry.source.name == "orders").count(), 1, "what is declared counts");
    let reads = || *stage.topics.reads.lock().unwrap();
    let read = reads();
    assert!(manager.catalog(Some(EngineKind::Embedded)).await.unwrap().sources.len() >= 3);
    assert!(
        !manager
            .catalog(Some(EngineKind::Ksqldb))
            .await
            .unwrap()
            .sources
            .iter()
            .any(|entry| entry.origin == Origin::Inferred)
    );
    assert!(manager.watchable("clicks.v2").await.unwrap().is_some());
    assert_eq!(reads(), read, "a sample counts for a while");

    let stage = with_records(&[EngineKind::Ksqldb], topics).await;
    let manager = stage.manager();
    assert!(manager.catalog(None).await.unwrap().sources.iter().all(|entry| entry.origin != Origin::Inferred));
    assert_eq!(*stage.topics.reads.lock().unwrap(), 0, "nobody reads topics for engines that could not use it");
}

/// Knows a schema for these topics.
struct Only(&'static [&'static str]);

#[async_trait]
impl Schemas for Only {
    async fn columns_of(&self, topic: &str) -> Result<Option<(Format, Vec<Column>)>, PortError> {
        Ok(self.0.contains(&topic).then(|| (Format::Json, columns())))
    }

    async fn decode(&self, _: &[u8]) -> Result<Option<Decoded>, PortError> {
        Ok(None)
    }
}

/// Else whoever may write to the registry could make a text mean another topic, without a word.
#[tokio::test]
async fn a_name_that_a_described_topic_and_another_one_come_to_is_neithers_where_both_are_read() {
    use EngineKind::{Embedded, Ksqldb};
    const JSON: &[&str] = &["{\"a\": 1}"];
    let mut stage = with_records(&[Ksqldb, Embedded], &[("a-b", JSON), ("a.b", &[]), ("c", JSON)]).await;
    let named = async |stage: &Stage| {
        let catalog = stage.manager().catalog(None).await.unwrap();
        let of_it = catalog.sources.into_iter().filter(|entry| entry.source.name == "a_b");
        (of_it.map(|entry| (entry.source.topic, entry.engines)).collect::<Vec<_>>(), catalog.missing)
    };
    assert_eq!(named(&stage).await, (vec![("a-b".to_owned(), vec![Embedded])], Vec::new()));

    stage.schemas = Some(Arc::new(Only(&["a.b"])));
    let (entries, missing) = named(&stage).await;
    assert_eq!(entries, [("a.b".to_owned(), vec![Ksqldb])]);
    let [why] = missing.as_slice() else { panic!("{missing:?}") };
    assert!(why.starts_with("`a_b` is no source of the embedded engine") && why.ends_with(": a-b, a.b"), "{why}");
    let judged = async |stage: &Stage, engine, text: &str| {
        let found = stage.manager().validate(Some(engine), StatementKind::Persistent, text).await.unwrap();
        found.errors.first().map(|fault| fault.message.clone())
    };
    let refused = judged(&stage, Embedded, "SELECT a FROM A_B").await.unwrap();
    assert!(refused.contains(why.as_str()), "{refused}");
    assert_eq!(judged(&stage, Ksqldb, "SELECT a FROM a_b").await, None);
    assert_eq!(judged(&stage, Embedded, "SELECT a FROM c").await, None);

    // Somebody says which one is meant.
    stage.manager().put_source(source("a_b", "a-b"), ANNA, ExpectedSource::Any).await.unwrap();
    assert_eq!(named(&stage).await, (vec![("a-b".to_owned(), vec![Ksqldb, Embedded])], Vec::new()));
}

fn view(name: &str) -> Source {
    let table = Some(Table { key: vec!["a".to_owned()], key_format: KeyFormat::Text });
    Source { format: Format::View, table, ..source(name, "") }
}

/// Else a text would mean something else once the registry is back, or the first record is there.
#[tokio::test]
async fn a_name_is_the_topics_and_not_the_views_before_its_columns_are_known_too() {
    let topics: &[(&str, &[&str])] =
        &[("empty", &[]), ("Stock", &["{\"a\": 1}"]), ("STOCK", &["{\"a\": 1}"]), ("shop", &["{\"a\": 1}"])];
    let mut stage = with_records(&[EngineKind::Embedded], topics).await;
    stage.engines[0].with(|world| world.knows = ["empty", "stock", "free", "away"].map(view).to_vec());
    let views = async |stage: &Stage| {
        let catalog = stage.manager().catalog(None).await.unwrap();
        let views = catalog.sources.into_iter().filter(|entry| entry.origin == Origin::View);
        (views.map(|entry| entry.source.name).collect::<Vec<_>>(), catalog.missing)
    };
    let (shown, missing) = views(&stage).await;
    assert_eq!(shown, ["away", "free"]);
    for (name, topic) in [("empty", "empty"), ("stock", "STOCK")] {
        let why = format!("the view `{name}` of this service is no source, as topic `");
        let told = missing.iter().find(|told| told.starts_with(&why)).unwrap_or_else(|| panic!("{missing:?}"));
        assert!(told.to_ascii_lowercase().contains(&format!("topic `{}`", topic.to_ascii_lowercase())), "{told}");
    }
    let refusal = async |text: &str| {
        let found = stage.manager().validate(None, StatementKind::Persistent, text).await.unwrap();
        found.errors[0].message.clone()
    };
    let message = refusal("SELECT s.a FROM shop s JOIN empty e ON s.a = e.a").await;
    assert!(message.contains("the view `empty` of this service is no source"), "{message}");
    assert!(!message.contains("view `stock`"), "who asks for something else is not told of it: {message}");
    let message = refusal("SELECT a FROM nothing").await;
    assert!(!message.contains("view `"), "{message}");

    stage.schemas = Some(Arc::<Registry>::default());
    stage.topics.names.lock().unwrap().insert("away".to_owned());
    let (shown, missing) = views(&stage).await;
    assert_eq!(shown, ["free"], "{missing:?}");
}

#[tokio::test]
async fn a_view_is_the_embedded_engines_alone_and_the_last_of_its_name() {
    let stage = Stage::new(&[EngineKind::Ksqldb, EngineKind::Embedded]).await;
    stage.engines[1].with(|world| world.knows = vec![view("orders"), view("stock")]);
    let manager = stage.manager();
    let catalog = manager.catalog(None).await.unwrap();
    let shown: Vec<_> =
        catalog.sources.iter().map(|entry| (entry.source.name.as_str(), entry.origin, entry.engines.len())).collect();
    assert_eq!(shown, [("orders", Origin::Declared, 2), ("stock", Origin::View, 1)]);
    assert_eq!(catalog.sources[1].engines, [EngineKind::Embedded]);
    let [hidden] = catalog.missing.as_slice() else { panic!("{:?}", catalog.missing) };
    assert!(
        hidden.starts_with("the view `orders` of this service is no source, as topic `orders` has that name"),
        "{hidden}"
    );
    let of_ksqldb = manager.catalog(Some(EngineKind::Ksqldb)).await.unwrap();
    assert!(of_ksqldb.sources.iter().all(|entry| entry.origin == Origin::Declared) && of_ksqldb.missing.is_empty());

    // Whoever means it elsewhere is told what it is, and at its place.
    let judged = async |engine, text: &str| {
        let found = manager.validate(Some(engine), StatementKind::Persistent, text).await.unwrap();
        found.errors.first().map(|fault| (fault.code.clone(), fault.column, fault.message.clone()))
    };
    let (code, column, message) = judged(EngineKind::Ksqldb, "SELECT a FROM Stock").await.unwrap();
    assert_eq!((code.as_str(), column), ("view_source", Some(15)));
    assert!(
        message.contains("`Stock` is a view of this service, whose rows only the embedded engine can join"),
        "{message}"
    );
    assert_eq!(judged(EngineKind::Ksqldb, "SELECT a FROM stocks").await.unwrap().0, "unknown_source");
    assert_eq!(
        judged(EngineKind::Embedded, "SELECT o.AMOUNT FROM orders o JOIN stock s ON o.ORDER_ID = s.a").await,
        None
    );

    // It has no topic, and nobody declares one.
    assert!(manager.watchable("").await.unwrap().is_none());
    let declared =
        manager.put_source(Source { topic: "shop".to_owned(), ..view("mine") }, OLGA, ExpectedSource::Any).await;
    assert!(matches!(declared, Err(Fault::Invalid { field: "format", .. })), "{declared:?}");
}
