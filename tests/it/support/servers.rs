//! The servers of a test run: given addresses first, else one Kafka and one Postgres as child processes.
//!
//! `STREAMVIEW_TEST_KAFKA` and `STREAMVIEW_TEST_DATABASE` give addresses. Child processes die with the run, however it
//! ends.

use std::sync::OnceLock;

use streamview::config::{Config, SecretUrl};
use streamview::store::migrate;
use streamview_lab::servers::{KafkaOptions, KafkaServer, Postgres, PostgresOptions};
use tokio_postgres::NoTls;

/// Addresses of the shared servers.
pub struct Servers {
    pub kafka: String,
    /// Url of a maintenance database in which databases can be created.
    pub database: String,
    _kafka: Option<KafkaServer>,
    _postgres: Option<Postgres>,
}

/// Every test database is a copy of this one.
pub const TEMPLATE: &str = "streamview_template";

/// Starts the servers with the first call.
pub fn shared() -> &'static Servers {
    static SERVERS: OnceLock<Servers> = OnceLock::new();
    SERVERS.get_or_init(|| {
        // On a thread of its own: the caller may be inside a runtime.
        std::thread::scope(|scope| scope.spawn(start).join().unwrap())
    })
}

fn start() -> Servers {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let kafka_server = std::thread::spawn(move || match given("STREAMVIEW_TEST_KAFKA") {
        Some(address) => (address, None),
        None => {
            let server = KafkaServer::start(KafkaOptions::default()).unwrap();
            (server.bootstrap(), Some(server))
        }
    });
    let (database, postgres) = match given("STREAMVIEW_TEST_DATABASE") {
        Some(url) => (url, None),
        None => {
            let server = Postgres::start(PostgresOptions::default()).unwrap();
            (server.url("postgres"), Some(server))
        }
    };
    migrate_template(&database);
    let (kafka, kafka_server) = kafka_server.join().unwrap();
    Servers { kafka, database, _kafka: kafka_server, _postgres: postgres }
}

/// A Postgres for one test that kills it: durable, with the template.
pub fn own_postgres() -> Postgres {
    let start = || {
        let server = Postgres::start(PostgresOptions { durable: true, ..PostgresOptions::default() }).unwrap();
        migrate_template(&server.url("postgres"));
        server
    };
    std::thread::scope(|scope| scope.spawn(start).join().unwrap())
}

/// A Postgres for one test, with settings and files of its own, and the template.
pub fn own_postgres_with(settings: &[(&str, &str)], files: Vec<(String, String)>) -> Postgres {
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let start = || {
        let server = Postgres::start(PostgresOptions { settings, files, ..PostgresOptions::default() }).unwrap();
        migrate_template(&server.url("postgres"));
        server
    };
    std::thread::scope(|scope| scope.spawn(start).join().unwrap())
}

/// A hot standby of that server, with settings of its own.
pub fn standby_of(primary: &Postgres, settings: &[(&str, &str)]) -> Postgres {
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    std::thread::scope(|scope| scope.spawn(|| primary.standby(settings).unwrap()).join().unwrap())
}

/// A Kafka for one test that kills it.
pub fn own_kafka() -> KafkaServer {
    KafkaServer::start(KafkaOptions::default()).unwrap()
}

/// Likewise, with further settings of the broker.
pub fn own_kafka_with(settings: &[(&str, &str)]) -> KafkaServer {
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    KafkaServer::start(KafkaOptions { settings, ..KafkaOptions::default() }).unwrap()
}

fn migrate_template(maintenance: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        execute(maintenance, &format!("drop database if exists {TEMPLATE}")).await;
        execute(maintenance, &format!("create database {TEMPLATE}")).await;
        migrate_database(&with_database(maintenance, TEMPLATE)).await;
    });
}

/// Applies the migrations, as `streamview migrate` does.
pub async fn migrate_database(url: &str) {
    let mut settings = Config::defaults().database;
    settings.url = SecretUrl::new(url);
    migrate::migrate(&settings).await.unwrap();
}

/// Runs one statement on its own connection.
pub async fn execute(url: &str, statement: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute(statement).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
}

/// `url` with another database.
pub fn with_database(url: &str, database: &str) -> String {
    let (server, _) = url.rsplit_once('/').unwrap();
    format!("{server}/{database}")
}
