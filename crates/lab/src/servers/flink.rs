//! A real Apache Flink of our own as three child processes: JobManager, TaskManager, SQL gateway. For tests.
//!
//! Starts them, kills and restarts each of them. It is no client beyond the two requests that ask whether it is ready. The
//! jars come from Maven, once per machine, as `crates/lab/flink/pom.xml` pins them, and are never committed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::folders::{RunFolder, build_once, cache_folder, remove_tree};
use super::java;
use super::ports::free_port;
use super::process::{ChildServer, ServerCommand, Signal};

/// The version that is fetched.
pub const FLINK_VERSION: &str = "2.0.0";
const START_PATIENCE: Duration = Duration::from_secs(120);
/// Jars that Flink's artefacts ask for and streaming SQL on Kafka does not use.
const EXCLUDED: [&str; 9] = [
    "icu4j",
    "async-profiler",
    "checker-qual",
    "commons-collections",
    "flink-datastream",
    "flink-hadoop-fs",
    "javassist",
    "jsr305",
    "snappy-java",
];

/// How to run the cluster.
#[derive(Clone, Debug)]
pub struct FlinkOptions {
    /// Task slots of the TaskManager: so many jobs run at once.
    pub slots: u32,
    /// Leaves the JVM's optimising compiler on: for benchmarks. It starts later and is faster once warm.
    pub optimise: bool,
}

impl Default for FlinkOptions {
    fn default() -> Self {
        FlinkOptions { slots: 8, optimise: false }
    }
}

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlinkProcess {
    /// Knows the jobs, and forgets them when it dies.
    JobManager,
    /// Runs them.
    TaskManager,
    /// Takes SQL.
    Gateway,
}

impl FlinkProcess {
    /// All of them, in the order in which they are started.
    pub const ALL: [FlinkProcess; 3] = [FlinkProcess::JobManager, FlinkProcess::TaskManager, FlinkProcess::Gateway];

    const fn name(self) -> &'static str {
        match self {
            FlinkProcess::JobManager => "jobmanager",
            FlinkProcess::TaskManager => "taskmanager",
            FlinkProcess::Gateway => "gateway",
        }
    }

    /// Memory, and the class to run.
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            FlinkProcess::JobManager => &[
                "-Xmx256m",
                "-XX:MaxMetaspaceSize=160m",
                "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
                "--configDir",
                "conf",
            ],
            FlinkProcess::TaskManager => &[
                "-Xmx512m",
                "-XX:MaxDirectMemorySize=224m",
                "-XX:MaxMetaspaceSize=192m",
                "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
                "--configDir",
                "conf",
            ],
            FlinkProcess::Gateway => {
                &["-Xmx384m", "-XX:MaxMetaspaceSize=256m", "org.apache.flink.table.gateway.SqlGateway"]
            }
        }
    }
}

/// A Flink that takes statements and has all its slots. Dropping it kills it.
pub struct FlinkCluster {
    servers: [Option<ChildServer>; 3],
    java: PathBuf,
    class_path: String,
    options: FlinkOptions,
    rest_port: u16,
    gateway_port: u16,
    folder: PathBuf,
    _run: Arc<RunFolder>,
}

impl FlinkCluster {
    /// Finds Java, fetches Flink when this machine has none (half a minute), and starts it (10 s).
    pub fn start(options: FlinkOptions) -> Result<FlinkCluster> {
        let (java, _) = java::find()?;
        let jars = cache_folder()?.join("servers").join(format!("flink-{FLINK_VERSION}"));
        build_once(&jars, |unfinished| {
            eprintln!("fetching Apache Flink {FLINK_VERSION} (135 MB, once)");
            java::fetch_jars(unfinished, "Flink", include_str!("../../flink/pom.xml"), &EXCLUDED)
        })?;
        let run = RunFolder::current()?;
        let folder = run.server_folder("flink")?;
        let (rest_port, gateway_port) = (free_port()?, free_port()?);
        let servers = [None, None, None];
        let class_path = java::class_path(&jars.join("lib"))?;
        let mut cluster =
            FlinkCluster { servers, java, class_path, options, rest_port, gateway_port, folder, _run: run };
        cluster.configure()?;
        // All three at once: most of the time goes into loading classes.
        for process in FlinkProcess::ALL {
            cluster.launch(process)?;
        }
        for process in FlinkProcess::ALL {
            cluster.wait_until_ready(process)?;
        }
        Ok(cluster)
    }

    /// The JobManager's base URL, the same after a restart.
    pub fn rest_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.rest_port)
    }

    /// The SQL gateway's base URL, the same after a restart.
    pub fn gateway_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway_port)
    }

    /// Where savepoints go, as a URL.
    pub fn savepoint_dir(&self) -> String {
        format!("file://{}/savepoints", self.folder.display())
    }

    /// The process ids of those that run.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().flatten().map(ChildServer::pid).collect()
    }

    /// The log of one of the three.
    pub fn log_file(&self, process: FlinkProcess) -> PathBuf {
        self.folder.join(format!("{}.log", process.name()))
    }

    /// `SIGKILL` to one of the three, and waits until it is gone.
    pub fn kill_hard(&mut self, process: FlinkProcess) -> Result<()> {
        match self.servers[process as usize].take() {
            Some(mut server) => server.kill_hard(),
            None => Ok(()),
        }
    }

    /// Starts one of the three again, killing it first when it runs, and waits until it is ready. A JobManager is ready
    /// when the TaskManager has found it.
    pub fn restart(&mut self, process: FlinkProcess) -> Result<()> {
        self.kill_hard(process)?;
        self.launch(process)?;
        self.wait_until_ready(process)
    }

    fn configure(&self) -> Result<()> {
        for folder in ["conf", "tmp", "checkpoints", "savepoints"] {
            fs::create_dir(self.folder.join(folder)).with_context(|| format!("creating {folder} for Flink"))?;
        }
        let configuration = include_str!("../../flink/config.yaml")
            .replace("@RPC@", &free_port()?.to_string())
            .replace("@REST@", &self.rest_port.to_string())
            .replace("@GATEWAY@", &self.gateway_port.to_string())
            .replace("@SLOTS@", &self.options.slots.to_string())
            .replace("@FOLDER@", &self.folder.display().to_string());
        fs::write(self.folder.join("conf/config.yaml"), configuration).context("writing Flink's config.yaml")
    }

    fn launch(&mut self, process: FlinkProcess) -> Result<()> {
        let mut command = Command::new(&self.java);
        command.current_dir(&self.folder).env("FLINK_CONF_DIR", self.folder.join("conf"));
        command.args(["-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Xms64m"]);
        // Else one that gets little of a busy machine gives its start up after ten seconds and ends. Flink's own setting for it,
        // `pekko.startup-timeout`, does not come to what reads it (seen with 2.0.0); a property of the JVM does.
        command.arg("-Dpekko.remote.classic.startup-timeout=600s");
        if !self.options.optimise {
            command.arg("-XX:TieredStopAtLevel=1");
        }
        command.arg(format!("-Djava.io.tmpdir={}/tmp", self.folder.display()));
        command.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        command.arg("-cp").arg(&self.class_path).args(process.arguments());
        self.servers[process as usize] = Some(ChildServer::start(ServerCommand {
            name: format!("Apache Flink {FLINK_VERSION} {}", process.name()),
            command,
            log_file: self.log_file(process),
            stop_signal: Signal::Terminate,
            orphan_signal: Signal::Kill,
            account: None,
        })?);
        Ok(())
    }

    fn wait_until_ready(&mut self, process: FlinkProcess) -> Result<()> {
        let (rest_port, gateway_port) = (self.rest_port, self.gateway_port);
        let slots = format!("\"slots-total\":{}", self.options.slots);
        let server = self.servers[process as usize].as_mut().context("it was just started")?;
        server.wait_until_ready(START_PATIENCE, || match process {
            FlinkProcess::Gateway => get(gateway_port, "/v2/info").is_some_and(|answer| answer.contains("Flink")),
            // The slots say that the TaskManager has found the JobManager.
            FlinkProcess::JobManager | FlinkProcess::TaskManager => {
                get(rest_port, "/overview").is_some_and(|answer| answer.contains(&slots))
            }
        })
    }
}

impl Drop for FlinkCluster {
    fn drop(&mut self) {
        let killed = FlinkProcess::ALL.map(|process| self.kill_hard(process));
        for error in killed.into_iter().chain([remove_tree(&self.folder)]).filter_map(Result::err) {
            eprintln!("Flink on port {}: {error:#}", self.rest_port);
        }
    }
}

/// The answer of a GET, head and body; `None` while nobody answers.
fn get(port: u16, path: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: flink\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
