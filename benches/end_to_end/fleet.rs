//! The servers of a run, and the service as a process of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use streamview_lab::servers::{KafkaOptions, KafkaServer, Postgres, PostgresOptions, free_port};
use tokio_postgres::{Client, NoTls};

use crate::http::Connection;
use crate::processes::Watched;

/// The topic of the preloaded events; live phases have their own.
pub const BACKLOG_TOPIC: &str = "bench.orders.backlog";
/// Partitions of every topic.
pub const PARTITIONS: i32 = 6;

/// Server settings beyond the defaults of a durable server (fsync, synchronous_commit and full_page_writes on).
pub const POSTGRES_SETTINGS: [(&str, &str); 5] = [
    ("shared_buffers", "1GB"),
    ("max_wal_size", "8GB"),
    ("min_wal_size", "4GB"), // keeps recycled WAL files from run to run
    ("checkpoint_timeout", "15min"),
    ("wal_compression", "off"),
];

/// Kafka and Postgres, gone with the run.
pub struct Fleet {
    /// The broker.
    pub kafka: KafkaServer,
    /// The database server.
    pub postgres: Postgres,
}

impl Fleet {
    /// Starts both; `settings` are further Postgres settings.
    pub fn start(settings: &[(String, String)]) -> Result<Fleet> {
        let kafka = KafkaServer::start(KafkaOptions { optimise: true, heap_mb: 1024, ..KafkaOptions::default() })?;
        let ours = POSTGRES_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = ours.into_iter().chain(settings.iter().cloned()).collect();
        let postgres = Postgres::start(PostgresOptions { durable: true, settings, ..PostgresOptions::default() })?;
        Ok(Fleet { kafka, postgres })
    }

    /// Makes the server look like one that has run for a while: its WAL files are recycled ones and its shared buffers
    /// have been touched. Otherwise the first run pays for both (about 3 us of CPU per event) and the ceilings do not.
    pub async fn warm_up(&self) -> Result<()> {
        let client = self.connect("postgres").await?;
        let script = "create table warm_up (number bigint, filling text);
                      insert into warm_up select number, repeat('x', 500) from generate_series(1, 2200000) number;
                      drop table warm_up";
        for statement in script.split(';').chain(["checkpoint"]) {
            client.batch_execute(statement).await.context("warming up Postgres")?;
        }
        Ok(())
    }

    /// A connection to `database`.
    pub async fn connect(&self, database: &str) -> Result<Client> {
        let (client, connection) =
            tokio_postgres::connect(&self.postgres.url(database), NoTls).await.context("connecting to Postgres")?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("connection to Postgres: {error}");
            }
        });
        Ok(client)
    }

    /// An empty database with the service's tables.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        let admin = self.connect("postgres").await?;
        admin.batch_execute(&format!("create database {name}")).await.context("creating a database")?;
        let status = service_command(&self.settings(name, "unused", "unused", 0))
            .arg("migrate")
            .stdout(Stdio::null())
            .status()?;
        if !status.success() {
            bail!("streamview migrate failed: {status}");
        }
        Ok(())
    }

    /// Drops it with everything in it.
    pub async fn drop_database(&self, name: &str) -> Result<()> {
        let admin = self.connect("postgres").await?;
        admin.batch_execute(&format!("drop database {name} with (force)")).await.context("dropping a database")
    }

    /// Stops the services and drops their database.
    pub async fn discard(&self, services: Vec<Service>, database: &str) -> Result<()> {
        for service in services {
            service.stop()?;
        }
        self.drop_database(database).await
    }

    /// Starts `streamview serve`; ready when HTTP answers (it may still be joining its group).
    pub fn serve(&self, database: &str, topic: &str, group: &str) -> Result<Service> {
        self.launch(&["serve"], (database, topic, group))
    }

    /// The same with further settings.
    pub fn serve_with(&self, place: (&str, &str, &str), settings: &[(&'static str, String)]) -> Result<Service> {
        self.launch_with(&["serve"], place, settings)
    }

    /// Starts `streamview serve --only api`.
    pub fn serve_only_api(&self, database: &str, topic: &str, group: &str) -> Result<Service> {
        self.launch(&["serve", "--only", "api"], (database, topic, group))
    }

    /// The same with further settings.
    pub fn serve_only_api_with(
        &self,
        place: (&str, &str, &str),
        settings: &[(&'static str, String)],
    ) -> Result<Service> {
        self.launch_with(&["serve", "--only", "api"], place, settings)
    }

    /// Makes a reader's API key.
    pub fn make_api_key(&self, database: &str) -> Result<String> {
        let output = service_command(&self.settings(database, "unused", "unused", 0))
            .args(["apikey", "create", "--name", "bench", "--role", "reader"])
            .stderr(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "streamview apikey create failed: {}", output.status);
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts `streamview load`, which ends by itself, without a bound of memory that it could reach.
    pub fn load(&self, database: &str, topic: &str) -> Result<Service> {
        self.launch(&["load", "--memory", "8192"], (database, topic, database))
    }

    fn launch(&self, arguments: &[&str], place: (&str, &str, &str)) -> Result<Service> {
        self.launch_with(arguments, place, &[])
    }

    fn launch_with(
        &self,
        arguments: &[&str],
        (database, topic, group): (&str, &str, &str),
        settings: &[(&'static str, String)],
    ) -> Result<Service> {
        let port = free_port()?;
        let log_file = std::env::temp_dir().join(format!("streamview-bench-{}-{port}.log", std::process::id()));
        let log = fs::File::create(&log_file).context("creating the service's log")?;
        let started = Instant::now();
        let settings = [self.settings(database, topic, group, port), settings.to_vec()].concat();
        let child = service_command(&settings)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting streamview")?;
        Ok(Service { child, port, started, log_file })
    }

    /// The processes of the run.
    pub fn watched(&self, services: &[Service]) -> Result<Watched> {
        Ok(Watched {
            services: services.iter().map(Service::pid).collect(),
            postgres: self.postgres.pid().context("Postgres is not running")?,
            kafka: self.kafka.pid().context("Kafka is not running")?,
        })
    }

    /// pgbench of the server that runs, if it came with one.
    pub fn pgbench(&self) -> Option<PathBuf> {
        let program = fs::read_link(format!("/proc/{}/exe", self.postgres.pid()?)).ok()?;
        Some(program.parent()?.join("pgbench")).filter(|pgbench| pgbench.is_file())
    }

    fn settings(&self, database: &str, topic: &str, group: &str, port: u16) -> Vec<(&'static str, String)> {
        vec![
            ("STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS", self.kafka.bootstrap()),
            ("STREAMVIEW_KAFKA__GROUP_ID", group.to_owned()),
            ("STREAMVIEW_DATABASE__URL", self.postgres.url(database)),
            ("STREAMVIEW_HTTP__BIND", format!("127.0.0.1:{port}")),
            ("STREAMVIEW_VIEWS__ORDERS__TOPIC", topic.to_owned()),
            ("STREAMVIEW_VIEWS__ORDERS__DLQ_TOPIC", format!("{topic}.dlq")),
        ]
    }
}

/// Other settings are inherited: `STREAMVIEW_PROJECTOR__LANES=3 make bench` compares.
fn service_command(settings: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_streamview"));
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    command
}

/// The service under test. Dropping it kills it.
pub struct Service {
    child: Child,
    /// Its HTTP port.
    pub port: u16,
    /// When it was launched.
    pub started: Instant,
    log_file: PathBuf,
}

impl Service {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Fails with the end of its log if it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        bail!("streamview serve ended: {status}\n{}", self.log_tail())
    }

    /// Whether it has ended, as it should.
    pub fn has_ended(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            Some(status) if !status.success() => bail!("streamview ended: {status}\n{}", self.log_tail()),
            status => Ok(status.is_some()),
        }
    }

    /// The last lines it logged.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log_file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// One of its own metrics; 0 if it has none of this name yet.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.metrics().await?;
        let line = text.lines().find(|line| line.starts_with(name));
        Ok(line.and_then(|line| line.rsplit(' ').next()).map_or(Ok(0.0), str::parse)?)
    }

    /// All of its metrics, as Prometheus reads them.
    pub async fn metrics(&self) -> Result<String> {
        let mut connection = Connection::open(self.port).await?;
        Ok(String::from_utf8(connection.get("/metrics").await?.body.to_vec())?)
    }

    /// Waits until it serves.
    pub fn wait_for_http(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.serves().unwrap_or(false) {
            self.check_alive()?;
            if Instant::now() > deadline {
                bail!("streamview does not serve on port {}\n{}", self.port, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Whether it serves: its port is open before.
    fn serves(&self) -> io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status == *b"HTTP/1.1 200")
    }

    /// SIGTERM, and waits for the orderly end.
    pub fn stop(mut self) -> Result<()> {
        let pid = self.pid().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().context("sending SIGTERM")?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("streamview serve stopped with {status}\n{}", self.log_tail());
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait()
            && let Err(error) = self.child.kill().and_then(|()| self.child.wait())
        {
            eprintln!("cannot stop the service: {error}");
        }
        if let Err(error) = fs::remove_file(&self.log_file) {
            eprintln!("leaving {}: {error}", self.log_file.display());
        }
    }
}
