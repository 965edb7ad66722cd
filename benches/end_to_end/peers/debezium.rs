//! Kafka Connect, standalone, with Debezium's JDBC sink.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use streamview_lab::servers::{KafkaServer, fetched_jars, free_port};
use tokio_postgres::Client;

use crate::backlog::wal_position;
use crate::fleet::Fleet;
use crate::processes::{Cpu, Watched, cpu_of, memory_mb};

/// What Kafka Connect brings itself, of which a plugin must not have a second copy; and drivers of other databases.
const EXCLUDED: [&str; 13] = [
    "jackson-annotations",
    "jackson-core",
    "jackson-databind",
    "connect-api",
    "kafka-clients",
    "slf4j-api",
    "lz4-java",
    "snappy-java",
    "zstd-jni",
    "mariadb-java-client",
    "mssql-jdbc",
    "mysql-connector-j",
    "ojdbc11",
];
/// The columns of `table.sql`, by their types in Connect's schemas.
const COLUMNS: [(&str, &str); 10] = [
    ("order_id", "string"),
    ("customer_id", "string"),
    ("status", "string"),
    ("currency", "string"),
    ("total_net", "double"),
    ("total_gross", "double"),
    ("item_count", "int32"),
    ("last_event_sequence", "int64"),
    ("last_event_id", "string"),
    ("updated_at", "int64"),
];
/// How long nothing may happen.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a run of the sink took.
#[derive(Debug, Clone, Serialize)]
pub struct Sunk {
    /// From launching the process to its first rows: the JVM starts meanwhile, which the rest leaves out.
    pub launch_to_first_row_s: f64,
    /// Events in its rows, per second, from the first rows to the last.
    pub events_per_s: f64,
    /// CPU microseconds of the worker per event in that time.
    pub client_us: f64,
    /// The same of Postgres, but for the connection that looks how far it is.
    pub postgres_us: f64,
    /// Highest resident memory of the worker.
    pub peak_rss_mb: f64,
    /// WAL written per event in that time.
    pub wal_bytes: f64,
    /// Cores that processes outside this benchmark used meanwhile.
    pub others_cores: f64,
}

impl Sunk {
    /// CPU microseconds per event, worker and Postgres.
    pub fn us(&self) -> f64 {
        self.client_us + self.postgres_us
    }
}

/// The sink's jars, on this machine.
pub struct Debezium {
    plugin: PathBuf,
    converter: PathBuf,
}

impl Debezium {
    /// Finds Java, and fetches the jars when this machine has none (half a minute).
    pub fn prepare(kafka: &KafkaServer) -> Result<Debezium> {
        ensure!(kafka.java(&[])?.arg("-version").stderr(Stdio::null()).status()?.success(), "Java does not start");
        let plugin = fetched_jars("debezium-jdbc-3.5.0", include_str!("../../peers/debezium.xml"), &EXCLUDED)?;
        let converter = fetched_jars("connect-json-4.2.0", include_str!("../../peers/connect-json.xml"), &[])?;
        Ok(Debezium { plugin, converter })
    }

    /// From an empty table to all `events` of the topic in it; the rows are checked.
    pub async fn run(&self, fleet: &Fleet, (topic, events): (&str, i64)) -> Result<Sunk> {
        const DATABASE: &str = "bench_peer";
        let admin = fleet.connect("postgres").await?;
        admin.batch_execute(&format!("create database {DATABASE}")).await.context("creating the peer's database")?;
        let client = fleet.connect(DATABASE).await?;
        client.batch_execute(include_str!("../../peers/table.sql")).await?;
        client.batch_execute("checkpoint").await?;
        let mut worker = self.launch(fleet, (topic, DATABASE))?;
        let sunk = watch(fleet, &client, &mut worker, events).await?;
        drop(worker);
        fleet.drop_database(DATABASE).await?;
        eprintln!("Debezium: {:.0} events/s, {:.1} us", sunk.events_per_s, sunk.us());
        Ok(sunk)
    }

    fn launch(&self, fleet: &Fleet, (topic, database): (&str, &str)) -> Result<Worker> {
        let folder = tempfile::tempdir().context("a folder for the worker")?;
        let plugins = self.plugin.parent().context("jars have a folder")?;
        let worker = format!(
            "bootstrap.servers={}\nlisteners=http://127.0.0.1:{}\noffset.storage.file.filename={}\nplugin.path={}\n\
             plugin.discovery=service_load\nkey.converter=org.apache.kafka.connect.storage.StringConverter\n\
             value.converter=org.apache.kafka.connect.json.JsonConverter\n",
            fleet.kafka.bootstrap(),
            free_port()?,
            folder.path().join("offsets").display(),
            plugins.display(),
        );
        let fields = COLUMNS.map(|(name, kind)| format!(r#"{{"field":"{name}","type":"{kind}","optional":false}}"#));
        let schema = format!(r#"{{"type":"struct","name":"Order","optional":false,"fields":[{}]}}"#, fields.join(","));
        // A group of its own, so that each run reads from the beginning.
        let sink = format!(
            "{}name=peer-{}\ntopics={topic}\nconnection.url=jdbc:postgresql://127.0.0.1:{}/{database}\n\
             connection.username=postgres\nconnection.password=none\nvalue.converter.schema.content={schema}\n",
            include_str!("../../peers/sink.properties"),
            fastrand::u64(..),
            fleet.postgres.port(),
        );
        let files = [("worker.properties", worker), ("sink.properties", sink)].map(|(name, text)| {
            let path = folder.path().join(name);
            fs::write(&path, text).map(|()| path)
        });
        let [worker, sink] = files;
        let log_file = folder.path().join("worker.log");
        let log = fs::File::create(&log_file)?;
        let launched = Instant::now();
        let child = fleet
            .kafka
            .java(std::slice::from_ref(&self.converter))?
            .args(["-Xms2g", "-Xmx2g", "org.apache.kafka.connect.cli.ConnectStandalone"])
            .args([worker?, sink?])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting Kafka Connect")?;
        Ok(Worker { child, launched, log_file, _folder: folder })
    }
}

/// The JVM. Dropping it kills it.
struct Worker {
    child: Child,
    launched: Instant,
    log_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Worker {
    fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        bail!("Kafka Connect ended: {status}\n{}", self.log_tail())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log_file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("cannot stop Kafka Connect: {error}");
        }
    }
}

/// How far the sink was at one moment.
#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    applied: i64,
    cpu: Cpu,
    /// Of the connection that looks.
    looking: f64,
    wal: i64,
}

async fn watch(fleet: &Fleet, client: &Client, worker: &mut Worker, events: i64) -> Result<Sunk> {
    let looker: i32 = client.query_one("select pg_backend_pid()", &[]).await?.try_get(0)?;
    let pid = worker.child.id();
    let watched = Watched { services: vec![pid], ..fleet.watched(&[])? };
    // Sequences run from 1 without gap: their sum is the number of events that were applied.
    let applied = client.prepare("select coalesce(sum(last_event_sequence), 0)::bigint from orders").await?;
    let any = client.prepare("select exists (select from orders)").await?;
    while !client.query_one(&any, &[]).await?.try_get::<_, bool>(0)? {
        worker.check_alive()?;
        ensure!(worker.launched.elapsed() < PATIENCE, "the sink writes nothing\n{}", worker.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sample = async |applied: i64| {
        anyhow::Ok(Sample {
            at: Instant::now(),
            applied,
            cpu: watched.cpu()?,
            looking: cpu_of(looker.unsigned_abs())?,
            wal: wal_position(client).await?,
        })
    };
    let first = sample(client.query_one(&applied, &[]).await?.try_get(0)?).await?;
    let (mut seen, mut moved) = (first.applied, Instant::now());
    while seen < events {
        // Looking reads the whole table; the nearer to the end, the more often.
        let rate = seen as f64 / first.at.elapsed().as_secs_f64().max(0.1);
        let left = (events - seen) as f64 / rate.max(1.0);
        tokio::time::sleep(Duration::from_secs_f64((left / 10.0).clamp(0.05, 1.0))).await;
        worker.check_alive()?;
        let now: i64 = client.query_one(&applied, &[]).await?.try_get(0)?;
        if now > seen {
            (seen, moved) = (now, Instant::now());
        }
        ensure!(moved.elapsed() < PATIENCE, "the sink stands still at {seen} of {events}\n{}", worker.log_tail());
    }
    let last = sample(seen).await?;
    let row = client.query_one("select count(*), count(*) filter (where status = 'Shipped') from orders", &[]).await?;
    let (rows, shipped): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    ensure!(
        seen == events && rows == shipped && 3 * rows == events,
        "the sink's rows are wrong: {rows}, {shipped} shipped"
    );
    let (seconds, count) = ((last.at - first.at).as_secs_f64(), (last.applied - first.applied) as f64);
    let cpu = last.cpu.since(first.cpu);
    Ok(Sunk {
        launch_to_first_row_s: (first.at - worker.launched).as_secs_f64(),
        events_per_s: count / seconds,
        client_us: cpu.client / count * 1e6,
        postgres_us: (cpu.postgres - (last.looking - first.looking)) / count * 1e6,
        peak_rss_mb: memory_mb(pid)?.1,
        wal_bytes: (last.wal - first.wal) as f64 / count,
        others_cores: cpu.others() / seconds,
    })
}
