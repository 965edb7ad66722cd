//! A manager with a real Postgres, the model engine, and topics that are names in a set. It can be ended at a named point, as
//! a process that is killed there.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use streamview_lab::servers::{Postgres, PostgresOptions};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use super::model::Model;
use crate::catalog::{Column, DataType, Format, Source};
use crate::definition::Definition;
use crate::engines::{Engine, EngineKind};
use crate::manager::{Declarer, DeleteOptions, DeployOptions, ExpectedSource, Manager, NewDefinition, Parts};
use crate::ports::{Consumers, From, Kafka, Place, PortError, RawRecord, Records, Schemas, Topic};
use crate::settings::{Limits, ManagerSettings, Reconcile};
use crate::store::Pool;

/// How long something may take that takes a moment.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A deletion that takes the topic, too.
pub const WITH_TOPIC: DeleteOptions = DeleteOptions { delete_topic: true, expected_version: None };

/// A developer.
pub const ANNA: Declarer<'static> = Declarer { name: "anna", is_operator: false };

/// The topics of a broker.
#[derive(Default)]
pub struct Topics {
    pub names: Mutex<BTreeSet<String>>,
    /// Why none can be deleted, and how often that was tried.
    pub refuses: Mutex<Option<u32>>,
    /// Values by topic, and how often a topic was read.
    pub records: Mutex<std::collections::HashMap<String, Vec<String>>>,
    pub reads: Mutex<usize>,
}

#[async_trait]
impl Kafka for Topics {
    async fn topics(&self) -> Result<Vec<Topic>, PortError> {
        let names = self.names.lock().unwrap();
        Ok(names.iter().map(|name| Topic { name: name.clone(), partitions: 1 }).collect())
    }

    async fn create_topic(&self, name: &str, _: u32) -> Result<(), PortError> {
        self.names.lock().unwrap().insert(name.to_owned());
        Ok(())
    }

    async fn delete_topic(&self, name: &str) -> Result<(), PortError> {
        if let Some(tries) = self.refuses.lock().unwrap().as_mut() {
            *tries += 1;
            return Err(PortError::Refused("not allowed".to_owned()));
        }
        self.names.lock().unwrap().remove(name);
        Ok(())
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(i64, i64)>, PortError> {
        let count = self.records.lock().unwrap().get(topic).map_or(0, Vec::len);
        Ok(vec![(0, i64::try_from(count).unwrap())])
    }

    async fn group_lag(&self, _: &str, _: &str) -> Result<Option<u64>, PortError> {
        Ok(None)
    }

    async fn consumers(&self, topic: &str, _: usize) -> Result<Consumers, PortError> {
        Err(PortError::Unavailable(format!("nobody tells who reads {topic}")))
    }

    async fn tail(&self, topic: &str, from: From, _: Place) -> Result<Records, PortError> {
        let begin = match from {
            From::Offset(begin) => begin,
            // It is read, and right after that no longer.
            From::Latest => return Ok(Box::pin(futures_util::stream::once(ends()))),
            From::Earliest | From::Time(_) => return Err(PortError::Refused("nobody reads here".to_owned())),
        };
        *self.reads.lock().unwrap() += 1;
        let records = self.records.lock().unwrap().get(topic).cloned().unwrap_or_default();
        let record = |(offset, value): (usize, String)| {
            let value = Some(value.into_bytes());
            Ok(RawRecord {
                partition: 0,
                offset: i64::try_from(offset).unwrap(),
                timestamp_ms: None,
                key: None,
                value,
                headers: Default::default(),
            })
        };
        let there = records.into_iter().enumerate().skip(usize::try_from(begin).unwrap()).map(record);
        // As a topic does, it says nothing more behind its last record.
        Ok(Box::pin(futures_util::StreamExt::chain(futures_util::stream::iter(there), futures_util::stream::pending())))
    }
}

async fn ends() -> Result<RawRecord, PortError> {
    tokio::task::yield_now().await;
    Err(PortError::Unavailable("the topic is gone".to_owned()))
}

thread_local! {
    static CRASH_AT: Cell<Option<&'static str>> = const { Cell::new(None) };
    static HAS_CRASHED: Cell<bool> = const { Cell::new(false) };
}

/// Ends the manager at this point, once; each test has a thread, and all its tasks are on it.
pub fn crash_at(point: &'static str) {
    CRASH_AT.set(Some(point));
    HAS_CRASHED.set(false);
}

pub fn has_crashed() -> bool {
    HAS_CRASHED.get()
}

fn crash(point: &'static str) {
    if CRASH_AT.get() == Some(point) {
        CRASH_AT.set(None);
        HAS_CRASHED.set(true);
        std::panic::resume_unwind(Box::new(point));
    }
}

fn maintenance() -> &'static str {
    static SERVER: OnceLock<(String, Option<Postgres>)> = OnceLock::new();
    let start = || match std::env::var("STREAMVIEW_TEST_DATABASE").ok().filter(|url| !url.is_empty()) {
        Some(url) => (url, None),
        None => {
            let server = Postgres::start(PostgresOptions::default()).unwrap();
            (server.url("postgres"), Some(server))
        }
    };
    // On a thread of its own: the caller is inside a runtime.
    &SERVER.get_or_init(|| std::thread::scope(|scope| scope.spawn(start).join().unwrap())).0
}

/// A database of its own, with the tables of the manager.
async fn database() -> Pool {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("manager_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let (client, driver) = tokio_postgres::connect(maintenance(), NoTls).await.unwrap();
    let driver = tokio::spawn(driver);
    client.batch_execute(&format!("create database {name} template template0")).await.unwrap();
    driver.abort();
    let mut config: tokio_postgres::Config = maintenance().parse().unwrap();
    config.dbname(&name);
    let pool = Pool::builder(deadpool_postgres::Manager::new(config, NoTls)).max_size(8).build().unwrap();
    for migration in [
        include_str!("../../../../migrations/V018__stream_definitions.sql"),
        include_str!("../../../../migrations/V019__stream_healing.sql"),
        include_str!("../../../../migrations/V020__embedded_engine.sql"),
        include_str!("../../../../migrations/V021__source_versions.sql"),
        include_str!("../../../../migrations/V022__stream_queries.sql"),
        include_str!("../../../../migrations/V023__tables_of_topics.sql"),
    ] {
        pool.get().await.unwrap().batch_execute(migration).await.unwrap();
    }
    pool
}

pub struct Stage {
    pub pool: Pool,
    pub engines: Vec<Arc<Model>>,
    pub topics: Arc<Topics>,
    pub rules: Reconcile,
    pub limits: Limits,
    pub schemas: Option<Arc<dyn Schemas>>,
}

/// A manager that runs.
pub struct Running {
    pub manager: Manager,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends it in order.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Waits until it has died of [`crash_at`].
    pub async fn dies(self) {
        let end = tokio::time::timeout(PATIENCE, self.task).await.expect("the point was never reached");
        assert!(end.unwrap_err().is_panic() && has_crashed());
    }
}

impl Stage {
    pub async fn new(engines: &[EngineKind]) -> Stage {
        let stage = Stage {
            pool: database().await,
            engines: engines.iter().map(|kind| Arc::new(Model::new(*kind))).collect(),
            topics: Arc::new(Topics::default()),
            rules: Reconcile {
                interval: Duration::from_millis(20),
                second_look: Duration::from_millis(20),
                time_to_run: Duration::from_millis(300),
                first_wait: Duration::from_millis(10),
                longest_wait: Duration::from_millis(40),
                restore_points: Duration::from_millis(30),
                ..Reconcile::default()
            },
            limits: Limits::default(),
            schemas: None,
        };
        let column = |name: &str| Column { name: name.to_owned(), data_type: DataType::Int, nullable: true };
        let source = Source {
            name: "orders".to_owned(),
            topic: "orders".to_owned(),
            format: Format::Json,
            columns: vec![column("ORDER_ID"), column("AMOUNT")],
            event_time: None,
            table: None,
        };
        stage.manager().put_source(source, ANNA, ExpectedSource::Any).await.unwrap();
        stage
    }

    /// Another process over the same database and topics, with engines of its own.
    pub fn beside(&self) -> Stage {
        Stage {
            pool: self.pool.clone(),
            engines: self.engines.iter().map(|engine| Arc::new(Model::new(engine.kind))).collect(),
            topics: Arc::clone(&self.topics),
            rules: self.rules.clone(),
            limits: self.limits.clone(),
            schemas: self.schemas.clone(),
        }
    }

    pub fn model(&self) -> &Model {
        &self.engines[0]
    }

    /// A manager that only writes down what is wanted.
    pub fn manager(&self) -> Manager {
        Manager::new(Parts {
            settings: ManagerSettings {
                instance: "test".to_owned(),
                default_engine: self.engines[0].kind,
                flink: None,
                ksqldb: None,
                limits: self.limits.clone(),
                preview: Default::default(),
                reconcile: self.rules.clone(),
                own_topics: ["orders.dlq".to_owned()].into(),
            },
            pool: self.pool.clone(),
            kafka: Arc::clone(&self.topics) as Arc<dyn Kafka>,
            schemas: self.schemas.clone(),
            engines: self.engines.iter().map(|engine| Arc::clone(engine) as Arc<dyn Engine>).collect(),
            crash,
        })
    }

    pub fn run(&self) -> Running {
        let (manager, stop) = (self.manager(), CancellationToken::new());
        let task = tokio::spawn({
            let (manager, stop) = (manager.clone(), stop.clone());
            async move { manager.run(stop).await }
        });
        Running { manager, stop, task }
    }

    /// Our topics.
    pub fn ours(&self) -> Vec<String> {
        self.topics.names.lock().unwrap().iter().cloned().collect()
    }
}

/// Waits until a definition is as it should be.
pub async fn until(manager: &Manager, id: &str, what: &str, is: impl Fn(&Definition) -> bool) -> Definition {
    let begin = Instant::now();
    loop {
        let definition = manager.get(id).await.unwrap();
        if is(&definition) {
            return definition;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}: {definition:#?}");
        tokio::task::yield_now().await;
    }
}

pub async fn settled(manager: &Manager, id: &str) -> Definition {
    until(manager, id, "it is settled", Definition::is_settled).await
}

pub async fn create(manager: &Manager, name: &str, sql: &str, engine: Option<EngineKind>) -> Definition {
    let new = NewDefinition { name: name.to_owned(), sql_script: sql.to_owned(), engine };
    manager.create(new, "anna").await.unwrap()
}

/// Deploys it and waits until it is seen to run.
pub async fn deployed(manager: &Manager, name: &str, sql: &str) -> Definition {
    let definition = create(manager, name, sql, None).await;
    manager.deploy(&definition.id, DeployOptions::default(), PATIENCE, "anna").await.unwrap();
    settled(manager, &definition.id).await
}
