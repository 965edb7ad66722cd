//! A real Apache Kafka of our own, broker and controller in one JVM (KRaft): for tests, benchmarks and
//! `servers`.
//!
//! Starts, stops, kills and restarts it. Creates no topics and is no client beyond the one request that
//! asks whether it is ready. The jars come from Maven, once per machine, and are never committed.

use std::fs;
use std::io::{self, Read, Write};
use std::iter;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::folders::{RunFolder, build_once, cache_folder, copy_tree, remove_tree};
use super::java;
use super::ports::free_port;
use super::process::{ChildServer, ServerCommand, Signal};

/// The version that is fetched; the class archive and the tests were tried with it.
pub const KAFKA_VERSION: &str = "4.1.0";
const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// How to run the broker.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// The clients' port on 127.0.0.1; `None`: a free one. The controller's is always a free one.
    pub port: Option<u16>,
    /// A folder that stays; formatted when empty or missing. `None`: a throw-away folder.
    pub data_dir: Option<PathBuf>,
    /// Largest heap, in MiB.
    pub heap_mb: u32,
    /// Leaves the JVM's optimising compiler on: for benchmarks. It starts a little later and is
    /// faster once warm.
    pub optimise: bool,
    /// Further listeners by name and protocol, such as `("SCRAM", "SASL_SSL")`, each for `localhost` on a free port of its
    /// own. What they need more, such as certificates, is in `settings`.
    pub listeners: Vec<(&'static str, &'static str)>,
    /// Further broker settings; they win over ours.
    pub settings: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        let (listeners, settings) = (Vec::new(), Vec::new());
        KafkaOptions { port: None, data_dir: None, heap_mb: 512, optimise: false, listeners, settings }
    }
}

/// A Kafka broker that answers clients. Dropping it kills it and removes throw-away data.
pub struct KafkaServer {
    server: Option<ChildServer>,
    installation: Installation,
    options: KafkaOptions,
    port: u16,
    controller_port: u16,
    /// Of the further listeners, in their order.
    further_ports: Vec<u16>,
    folder: PathBuf,
    throw_away: Option<Arc<RunFolder>>,
}

impl KafkaServer {
    /// Finds Java, fetches Kafka when this machine has none, and starts the broker.
    /// About 1.3 s; the first time on a machine about a minute more.
    pub fn start(options: KafkaOptions) -> Result<KafkaServer> {
        let installation = Installation::prepare()?;
        let mut kafka = KafkaServer::new(installation, options)?;
        let formatted = kafka.data_dir().join("meta.properties").exists();
        if !formatted {
            fs::create_dir_all(kafka.data_dir()).context("creating Kafka's data directory")?;
            copy_tree(&kafka.installation.prepared.join("formatted"), &kafka.data_dir(), None)?;
            // The template's identity must not be shared: clients may compare cluster ids.
            let identity = format!("version=1\nnode.id=1\ncluster.id={}\ndirectory.id={}\n", new_id(), new_id());
            fs::write(kafka.data_dir().join("meta.properties"), identity).context("writing meta.properties")?;
        }
        kafka.launch(&[])?;
        Ok(kafka)
    }

    /// `127.0.0.1:PORT`, the same after a restart.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `localhost:PORT` of a further listener, the same after a restart.
    pub fn bootstrap_of(&self, listener: &str) -> Result<String> {
        let place = self.options.listeners.iter().position(|(name, _)| *name == listener);
        let port = place.and_then(|place| self.further_ports.get(place));
        port.map(|port| format!("localhost:{port}")).with_context(|| format!("the broker has no listener {listener}"))
    }

    /// Process id; `None` after [`KafkaServer::kill_hard`] or [`KafkaServer::stop`].
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(ChildServer::pid)
    }

    /// The broker's log: warnings and errors.
    pub fn log_file(&self) -> PathBuf {
        self.folder.join("kafka.log")
    }

    /// One of Kafka's own tools by its class, such as `org.apache.kafka.tools.TopicCommand`; add its arguments.
    pub fn tool(&self, class: &str) -> Command {
        let mut command = self.installation.java_command(&self.folder);
        command.args(["-XX:TieredStopAtLevel=1", class]);
        command
    }

    /// Java as it comes, optimising compiler and all, with the jars of these folders before Kafka's own: for what runs on
    /// Kafka's classes, such as Connect. Options and class are the caller's.
    pub fn java(&self, first: &[PathBuf]) -> Result<Command> {
        let mut class_path = String::new();
        for folder in first {
            class_path += &java::class_path(folder)?;
            class_path.push(':');
        }
        let mut command = Command::new(&self.installation.java);
        command.current_dir(&self.folder).arg("-Dlog4j2.configurationFile=log4j2.properties");
        command.arg("-cp").arg(class_path + &self.installation.class_path);
        Ok(command)
    }

    /// `SIGKILL`, and waits until it is gone.
    pub fn kill_hard(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.kill_hard(),
            None => Ok(()),
        }
    }

    /// Controlled shutdown.
    pub fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.stop(STOP_PATIENCE),
            None => Ok(()),
        }
    }

    /// Starts again on the same data and ports; stops first when running. 1 s after a stop, 3 s after
    /// [`KafkaServer::kill_hard`]: the controller waits until the killed broker's session is over.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.launch(&[])
    }

    fn new(installation: Installation, options: KafkaOptions) -> Result<KafkaServer> {
        let (folder, throw_away) = match &options.data_dir {
            Some(kept) => (std::path::absolute(kept).context("resolving the data directory")?, None),
            None => {
                let run = RunFolder::current()?;
                (run.server_folder("kafka")?, Some(run))
            }
        };
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let port = options.port.map_or_else(free_port, Ok)?;
        let controller_port = free_port()?;
        let further_ports = options.listeners.iter().map(|_| free_port()).collect::<Result<_>>()?;
        let kafka = KafkaServer {
            server: None,
            installation,
            options,
            port,
            controller_port,
            further_ports,
            folder,
            throw_away,
        };
        fs::write(kafka.folder.join("log4j2.properties"), LOGGING).context("writing log4j2.properties")?;
        let properties: String = kafka.properties().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        fs::write(kafka.folder.join("server.properties"), properties).context("writing server.properties")?;
        Ok(kafka)
    }

    /// True for data of a broker that never reached its orderly end, whoever ran it.
    fn was_killed(&self) -> bool {
        let data = self.data_dir();
        data.join("__cluster_metadata-0").exists() && !data.join(".kafka_cleanshutdown").exists()
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn launch(&mut self, java_options: &[String]) -> Result<()> {
        let mut command = self.installation.java_command(&self.folder);
        command.arg(format!("-Xmx{}m", self.options.heap_mb));
        if !self.options.optimise {
            command.arg("-XX:TieredStopAtLevel=1");
        }
        command.args(java_options);
        let archive = self.installation.prepared.join("classes.jsa");
        if archive.exists() {
            // The JVM falls back by itself when the archive does not fit.
            command.arg(format!("-XX:SharedArchiveFile={}", archive.display()));
        }
        command.arg("kafka.Kafka").arg("server.properties");
        if self.was_killed() {
            // The default of 9 s is what a restart would wait; kept for servers that were never killed,
            // because a busy machine can miss heartbeats for a second.
            for short in ["broker.session.timeout.ms=1500", "broker.heartbeat.interval.ms=300"] {
                command.args(["--override", short]);
            }
        }
        let mut server = ChildServer::start(self.server_command("Apache Kafka", command))?;
        let port = self.port;
        server.wait_until_ready(START_PATIENCE, || is_ready(port))?;
        self.server = Some(server);
        Ok(())
    }

    fn server_command(&self, name: &str, command: Command) -> ServerCommand {
        ServerCommand {
            name: format!("{name} {KAFKA_VERSION}"),
            command,
            log_file: self.log_file(),
            stop_signal: Signal::Terminate,
            orphan_signal: Signal::Kill,
            account: None,
        }
    }

    fn properties(&self) -> Vec<(String, String)> {
        let (port, controller_port) = (self.port, self.controller_port);
        let (mut listeners, mut advertised, mut protocols) = (String::new(), String::new(), String::new());
        for ((name, protocol), port) in self.options.listeners.iter().zip(&self.further_ports) {
            listeners += &format!(",{name}://127.0.0.1:{port}");
            advertised += &format!(",{name}://localhost:{port}");
            protocols += &format!(",{name}:{protocol}");
        }
        let ours = [
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", "1".to_owned()),
            ("controller.quorum.voters", format!("1@127.0.0.1:{controller_port}")),
            ("listeners", format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}{listeners}")),
            ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}{advertised}")),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("listener.security.protocol.map", format!("PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}")),
            ("log.dirs", self.data_dir().display().to_string()),
            ("auto.create.topics.enable", "false".to_owned()),
            ("group.initial.rebalance.delay.ms", "0".to_owned()),
            ("offsets.topic.num.partitions", "5".to_owned()),
            ("offsets.topic.replication.factor", "1".to_owned()),
            ("transaction.state.log.num.partitions", "5".to_owned()),
            ("transaction.state.log.replication.factor", "1".to_owned()),
            ("transaction.state.log.min.isr", "1".to_owned()),
            ("share.coordinator.state.topic.num.partitions", "5".to_owned()),
            ("share.coordinator.state.topic.replication.factor", "1".to_owned()),
            ("share.coordinator.state.topic.min.isr", "1".to_owned()),
        ];
        let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value));
        ours.chain(self.options.settings.iter().cloned()).collect()
    }
}

impl Drop for KafkaServer {
    fn drop(&mut self) {
        // A kept folder is closed in order, which spares the next start its recovery.
        let ended = if self.throw_away.is_some() { self.kill_hard() } else { self.stop() };
        let removed = if self.throw_away.is_some() { remove_tree(&self.folder) } else { Ok(()) };
        for error in [ended, removed].into_iter().filter_map(Result::err) {
            eprintln!("Kafka on port {}: {error:#}", self.port);
        }
    }
}

/// Written beside the properties: the console is the log file.
const LOGGING: &str = "\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
";

/// Java, Kafka's jars, and what is prepared once for the two of them.
struct Installation {
    java: PathBuf,
    class_path: String,
    /// Holds `formatted/`, an empty data directory (formatting costs 1.3 s), and `classes.jsa`, an
    /// archive of the loaded classes (halves the time to start).
    prepared: PathBuf,
}

impl Installation {
    fn prepare() -> Result<Installation> {
        let (java, java_version) = java::find()?;
        let servers = cache_folder()?.join("servers");
        let jars = servers.join(format!("kafka-{KAFKA_VERSION}"));
        build_once(&jars, fetch_jars)?;
        let class_path = java::class_path(&jars.join("lib"))?;
        let prepared = servers.join(format!("kafka-{KAFKA_VERSION}-java-{java_version}"));
        build_once(&prepared, |unfinished| {
            eprintln!("preparing Apache Kafka {KAFKA_VERSION} for Java {java_version} (10 s, once)");
            let first =
                Installation { java: java.clone(), class_path: class_path.clone(), prepared: unfinished.into() };
            first.fill_prepared()
        })?;
        Ok(Installation { java, class_path, prepared })
    }

    fn fill_prepared(self) -> Result<()> {
        let prepared = self.prepared.clone();
        let mut kafka = KafkaServer::new(self, KafkaOptions::default())?;
        let mut command = kafka.installation.java_command(&kafka.folder);
        command.args(["kafka.tools.StorageTool", "format", "-c", "server.properties", "-t", &new_id()]);
        let mut format = ChildServer::start(kafka.server_command("formatting for Kafka", command))?;
        format.wait_until_done(START_PATIENCE)?;
        fs::create_dir(prepared.join("formatted")).context("creating the formatted template")?;
        copy_tree(&kafka.data_dir(), &prepared.join("formatted"), None)?;
        kafka.launch(&[format!("-XX:ArchiveClassesAtExit={}", prepared.join("classes.jsa").display())])?;
        kafka.stop()
    }

    fn java_command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.java);
        command.current_dir(folder).arg("-XX:+UseSerialGC");
        command.arg("-Dlog4j2.configurationFile=log4j2.properties").arg("-cp").arg(&self.class_path);
        command
    }
}

/// Fills `folder/lib`.
fn fetch_jars(folder: &Path) -> Result<()> {
    eprintln!("fetching Apache Kafka {KAFKA_VERSION} (54 MB, once)");
    java::fetch_jars(folder, "Kafka", &pom(), &[])
}

fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>\n"
        )
    };
    format!(
        "<project><modelVersion>4.0.0</modelVersion>\n\
         <groupId>streamview</groupId><artifactId>kafka-server</artifactId><version>1</version>\
         <packaging>pom</packaging>\n<dependencies>\n{}{}{}</dependencies></project>\n",
        dependency("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        dependency("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
        // Without a binding Kafka logs nothing at all.
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
    )
}

/// A random id in Kafka's form: 16 bytes as 22 letters of URL-safe base64, not starting with a dash.
fn new_id() -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let first = LETTERS[fastrand::usize(..52)];
    let middle = iter::repeat_with(|| LETTERS[fastrand::usize(..64)]).take(20);
    let last = b"AQgw"[fastrand::usize(..4)]; // 128 bits leave two for the last letter
    iter::once(first).chain(middle).chain(iter::once(last)).map(char::from).collect()
}

/// True when the broker lists itself and has its coordinators for groups and for transactions.
///
/// It answers ApiVersions already some milliseconds before topics can be created. And the first question
/// for a coordinator creates the internal topics, so that no client has to wait seconds for them.
fn is_ready(port: u16) -> bool {
    let ask = || -> io::Result<bool> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Metadata, version 1, no topics. The answer starts with the number of brokers.
        let metadata = request(&mut stream, 3, 1, &[0, 0, 0, 0])?;
        // FindCoordinator, version 0, for a group: the answer starts with the error code.
        let group = request(&mut stream, 10, 0, b"\0\x05ready")?;
        // FindCoordinator, version 1, for a transaction: throttle time, error code.
        let transaction = request(&mut stream, 10, 1, b"\0\x05ready\x01")?;
        let has_broker = metadata.get(..4).is_some_and(|brokers| brokers != [0; 4]);
        let has_groups = group.get(..2) == Some(&[0; 2]);
        let has_transactions = transaction.get(4..6) == Some(&[0; 2]);
        Ok(has_broker && has_groups && has_transactions)
    };
    ask().unwrap_or(false)
}

/// Sends one request of Kafka's protocol (header version 1) and returns the body of the answer.
fn request(stream: &mut TcpStream, api_key: i16, version: i16, body: &[u8]) -> io::Result<Vec<u8>> {
    const CORRELATION: [u8; 4] = [0, 0, 0, 7];
    const NO_CLIENT_ID: [u8; 2] = [0xff, 0xff];
    let size = i32::try_from(10 + body.len()).map_err(io::Error::other)?;
    let header = [&size.to_be_bytes()[..], &api_key.to_be_bytes(), &version.to_be_bytes(), &CORRELATION, &NO_CLIENT_ID];
    stream.write_all(&[&header.concat()[..], body].concat())?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = usize::try_from(i32::from_be_bytes(size)).map_err(io::Error::other)?;
    let mut answer = Vec::new();
    stream.take(size as u64).read_to_end(&mut answer)?;
    match answer.split_at_checked(CORRELATION.len()) {
        Some((correlation, body)) if correlation == CORRELATION => Ok(body.to_vec()),
        _ => Err(io::Error::other("not an answer to our request")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_kafkas_form() {
        for _ in 0..100 {
            let id = new_id();
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'), "{id}");
        }
    }
}
