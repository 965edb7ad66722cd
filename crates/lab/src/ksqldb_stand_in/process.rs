//! Runs the stand-in as a child process: another start of the program that wants it, which calls [`run_if_asked`].

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::switches::{Asked, Switches};
use crate::servers::free_port;
use crate::servers::process::{ChildServer, ServerCommand, Signal};

/// Holds the options of a process that shall be a stand-in.
const ASKED_BY: &str = "KSQLDB_STAND_IN";
const PATIENCE: Duration = Duration::from_secs(30);

/// How to run it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Kafka.
    pub bootstrap_servers: String,
    /// Port on 127.0.0.1; 0: a free one.
    pub port: u16,
    /// `ksql.service.id`
    pub service_id: String,
    /// Name and password that everybody has to give.
    pub login: Option<(String, String)>,
    /// Where the command topic is kept; `None`: in memory.
    pub folder: Option<PathBuf>,
    /// Persistent queries are known and read nothing: hundreds of them cost what none does.
    pub idle: bool,
}

/// A stand-in that answers. Dropping it kills it.
pub struct KsqldbStandIn {
    server: Option<ChildServer>,
    options: Options,
    arguments: Vec<String>,
    _folder: tempfile::TempDir,
    log_file: PathBuf,
}

/// Is the stand-in if this process was started for that, until it is killed; else it returns at once.
///
/// A program calls it first in `main`; a test binary has a test that does nothing else.
///
/// # Errors
/// When it cannot serve.
pub fn run_if_asked() -> Result<()> {
    let Ok(options) = env::var(ASKED_BY) else { return Ok(()) };
    let options = serde_json::from_str(&options).context(ASKED_BY)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(super::server::serve(options))
}

impl KsqldbStandIn {
    /// Starts this program again with these arguments, which have to lead to [`run_if_asked`].
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(mut options: Options, arguments: &[&str]) -> Result<KsqldbStandIn> {
        if options.port == 0 {
            options.port = free_port()?;
        }
        if options.service_id.is_empty() {
            options.service_id = "stand_in_".to_owned();
        }
        let folder = tempfile::tempdir().context("a folder for its log")?;
        let log_file = folder.path().join("ksqldb.log");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut stand_in = KsqldbStandIn { server: None, options, arguments, _folder: folder, log_file };
        stand_in.restart()?;
        Ok(stand_in)
    }

    /// Its base URL, the same after a restart.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.options.port)
    }

    /// `SIGKILL`, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill_hard(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.kill_hard(),
            None => Ok(()),
        }
    }

    /// Starts again on the same port, with what its folder kept; push queries are gone.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill_hard()?;
        let mut command = Command::new(env::current_exe().context("our own path")?);
        command.args(&self.arguments).env(ASKED_BY, serde_json::to_string(&self.options)?);
        let mut server = ChildServer::start(ServerCommand {
            name: "the ksqlDB stand-in".to_owned(),
            command,
            log_file: self.log_file.clone(),
            stop_signal: Signal::Terminate,
            orphan_signal: Signal::Kill,
            account: None,
        })?;
        server.wait_until_ready(PATIENCE, || self.call("GET", "/chc/ready", "").is_ok())?;
        self.server = Some(server);
        Ok(())
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log_file).unwrap_or_default()
    }

    /// Switches the hard facts: these, and no others.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn switch(&self, switches: &Switches) -> Result<()> {
        self.call("POST", "/stand-in/switches", &serde_json::to_string(switches)?).map(drop)
    }

    /// What it was asked since it was started, without what is the stand-in's own.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn asked(&self) -> Result<Vec<Asked>> {
        Ok(serde_json::from_value(self.call("GET", "/stand-in/asked", "")?)?)
    }

    /// The push queries that run.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn live(&self) -> Result<Vec<String>> {
        Ok(serde_json::from_value(self.call("GET", "/stand-in/live", "")?)?)
    }

    /// One request of the stand-in's own, by hand: the lab has no HTTP client.
    fn call(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        use std::io::{Read, Write};
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], self.options.port));
        let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: stand-in\r\nConnection: close\r\nContent-Length: {length}");
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").context("an answer without a body")?;
        Ok(if body.is_empty() { Value::Null } else { serde_json::from_str(body)? })
    }
}
