//! PgBouncer in front of a PostgreSQL server, from the machine's binaries: for tests. Trusts everybody on 127.0.0.1, and
//! gives every database of that server under its own name.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::folders::{RunFolder, give_to, remove_tree};
use super::ports::free_port;
use super::process::{Account, ChildServer, ServerCommand, Signal};

const START_PATIENCE: Duration = Duration::from_secs(30);

/// A pooler that accepts connections. Dropping it kills it.
pub struct PgBouncer {
    server: ChildServer,
    port: u16,
    folder: PathBuf,
    _run: Arc<RunFolder>,
}

impl PgBouncer {
    /// Starts it in front of the server on `postgres`, a host and a port, with further settings (`pool_mode`, say).
    pub fn start((host, port_behind): (&str, u16), settings: &[(&str, &str)]) -> Result<PgBouncer> {
        let run = RunFolder::current()?;
        let folder = run.server_folder("pgbouncer")?;
        let (port, account) = (free_port()?, Account::unprivileged()?);
        fs::write(folder.join("users.txt"), "\"postgres\" \"\"\n").context("writing users.txt")?;
        let mut text = format!(
            "[databases]\n* = host={host} port={port_behind}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\n",
            folder.join("users.txt").display()
        );
        for (name, value) in settings {
            text += &format!("{name} = {value}\n");
        }
        fs::write(folder.join("pgbouncer.ini"), text).context("writing pgbouncer.ini")?;
        give_to(&folder, account.as_ref()).context("preparing PgBouncer")?;
        let mut command = Command::new(program());
        command.arg(folder.join("pgbouncer.ini")).current_dir(&folder);
        let started = ChildServer::start(ServerCommand {
            name: "PgBouncer".to_owned(),
            command,
            log_file: folder.join("log"),
            stop_signal: Signal::Interrupt,
            orphan_signal: Signal::Kill,
            account,
        });
        let mut server = started
            .context("install the package `pgbouncer` (scripts/setup --tests does), or set STREAMVIEW_PGBOUNCER")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        server.wait_until_ready(START_PATIENCE, || {
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
        })?;
        Ok(PgBouncer { server, port, folder, _run: run })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        for error in [self.server.kill_hard(), remove_tree(&self.folder)].into_iter().filter_map(Result::err) {
            eprintln!("PgBouncer on port {}: {error:#}", self.port);
        }
    }
}

/// Debian keeps it where not everybody's PATH looks.
fn program() -> PathBuf {
    let given = env::var_os("STREAMVIEW_PGBOUNCER").map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"].map(PathBuf::from);
    let mut found = env::split_paths(&path).chain(usual).map(|folder| folder.join("pgbouncer"));
    given.or_else(|| found.find(|program| program.is_file())).unwrap_or_else(|| PathBuf::from("pgbouncer"))
}
