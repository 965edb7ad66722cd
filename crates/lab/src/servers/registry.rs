//! A real schema registry of our own with Confluent's REST interface, as a child process: for tests and `servers`.
//!
//! Built from source by the Go toolchain, once per machine, from the versions pinned in `crates/lab/registry`. Keeps its
//! schemas in memory.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::folders::{RunFolder, build_once, cache_folder, remove_tree};
use super::ports::free_port;
use super::process::{ChildServer, ServerCommand, Signal};

/// The version that is built.
pub const REGISTRY_VERSION: &str = "0.2.1";
const PACKAGE: &str = "github.com/axonops/axonops-schema-registry/cmd/schema-registry";
const BUILD_PATIENCE: Duration = Duration::from_secs(15 * 60);
const START_PATIENCE: Duration = Duration::from_secs(30);

/// How to run the registry.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Port on 127.0.0.1; `None`: a free one.
    pub port: Option<u16>,
    /// Name and password that everybody has to give.
    pub login: Option<(String, String)>,
    /// Files with the certificate and its key: then it speaks https only.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// A schema registry that answers. Dropping it kills it.
pub struct SchemaRegistry {
    server: Option<ChildServer>,
    program: PathBuf,
    port: u16,
    is_tls: bool,
    folder: PathBuf,
    _run: Arc<RunFolder>,
}

impl SchemaRegistry {
    /// Builds it when this machine has none (a minute), and starts it (a tenth of a second).
    pub fn start(options: &RegistryOptions) -> Result<SchemaRegistry> {
        let program = install()?;
        let run = RunFolder::current()?;
        let folder = run.server_folder("registry")?;
        let port = options.port.map_or_else(free_port, Ok)?;
        fs::write(folder.join("config.yaml"), configuration(options, port)).context("writing config.yaml")?;
        let is_tls = options.tls.is_some();
        let mut registry = SchemaRegistry { server: None, program, port, is_tls, folder, _run: run };
        registry.restart()?;
        Ok(registry)
    }

    /// Its base URL, the same after a restart.
    pub fn url(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// `SIGKILL`, and waits until it is gone.
    pub fn kill_hard(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.kill_hard(),
            None => Ok(()),
        }
    }

    /// Starts again on the same port, empty.
    pub fn restart(&mut self) -> Result<()> {
        self.kill_hard()?;
        let mut command = Command::new(&self.program);
        command.arg("-config").arg(self.folder.join("config.yaml")).current_dir(&self.folder);
        let mut server = ChildServer::start(ServerCommand {
            name: format!("schema registry {REGISTRY_VERSION}"),
            command,
            log_file: self.folder.join("registry.log"),
            stop_signal: Signal::Terminate,
            orphan_signal: Signal::Kill,
            account: None,
        })?;
        let (port, is_tls) = (self.port, self.is_tls);
        server.wait_until_ready(START_PATIENCE, || is_ready(port, is_tls))?;
        self.server = Some(server);
        Ok(())
    }
}

impl Drop for SchemaRegistry {
    fn drop(&mut self) {
        for error in [self.kill_hard(), remove_tree(&self.folder)].into_iter().filter_map(Result::err) {
            eprintln!("schema registry on port {}: {error:#}", self.port);
        }
    }
}

/// Any answer at all; of https only that the port is open.
fn is_ready(port: u16, is_tls: bool) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let request = b"GET / HTTP/1.0\r\n\r\n";
    let mut first = [0; 4];
    is_tls
        || (stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
            && stream.write_all(request).is_ok()
            && stream.read_exact(&mut first).is_ok()
            && first == *b"HTTP")
}

/// Its settings as YAML; JSON strings are YAML strings.
fn configuration(options: &RegistryOptions, port: u16) -> String {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let mut yaml = format!(
        "server:\n  host: 127.0.0.1\n  port: {port}\nstorage:\n  type: memory\nlogging:\n  level: warn\nsecurity:\n"
    );
    if let Some((certificate, key)) = &options.tls {
        let (certificate, key) = (text(&certificate.to_string_lossy()), text(&key.to_string_lossy()));
        yaml += &format!("  tls:\n    enabled: true\n    cert_file: {certificate}\n    key_file: {key}\n");
    }
    if let Some((name, password)) = &options.login {
        let (name, password) = (text(name), text(password));
        yaml += &format!(
            "  auth:\n    enabled: true\n    methods: [basic]\n    bootstrap:\n      enabled: true\n      username: {name}\n      \
             password: {password}\n      email: \"\"\n"
        );
    }
    yaml
}

/// The program, built if need be by the machine's Go, which knows where modules come from here.
fn install() -> Result<PathBuf> {
    let folder = cache_folder()?.join("servers").join(format!("registry-{REGISTRY_VERSION}"));
    build_once(&folder, |unfinished| {
        eprintln!("building schema registry {REGISTRY_VERSION} (a minute, once)");
        for (name, text) in [
            ("go.mod", include_str!("../../registry/go.mod")),
            ("go.sum", include_str!("../../registry/go.sum")),
            ("tools.go", include_str!("../../registry/tools.go")),
        ] {
            fs::write(unfinished.join(name), text).with_context(|| format!("writing {name}"))?;
        }
        let mut command = Command::new("go");
        command.args(["build", "-mod=readonly", "-o", "schema-registry", PACKAGE]).current_dir(unfinished);
        let go = ChildServer::start(ServerCommand {
            name: "go build".to_owned(),
            command,
            log_file: unfinished.join("build.log"),
            stop_signal: Signal::Terminate,
            orphan_signal: Signal::Terminate,
            account: None,
        });
        let mut go = go.context("the schema registry is built by Go 1.21 or newer: install it, or give an address")?;
        go.wait_until_done(BUILD_PATIENCE)
    })?;
    Ok(folder.join("schema-registry"))
}
