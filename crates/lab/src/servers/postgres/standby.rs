//! A standby of a server of ours: copied from it while it runs, following its log from then on. Promoting it is the caller's.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::folders::{RunFolder, give_to};
use super::super::ports::free_port;
use super::super::process::{ChildServer, ServerCommand, Signal};
use super::{Postgres, PostgresOptions};

const COPY_PATIENCE: Duration = Duration::from_secs(120);

impl Postgres {
    /// A hot standby of this server, with further settings of its own, on a port of its own. It streams, asynchronously, what is
    /// committed here, and answers reads. About half a second.
    pub fn standby(&self, settings: Vec<(String, String)>) -> Result<Postgres> {
        let run = RunFolder::current()?;
        let folder = run.server_folder("standby")?;
        give_to(&folder, self.account.as_ref()).context("preparing a standby")?;
        let data_dir = folder.join("data");
        let mut command = Command::new(self.binaries.folder.join("pg_basebackup"));
        command
            .args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync", "--pgdata"])
            .arg(&data_dir)
            .arg("--dbname")
            .arg(format!("host=127.0.0.1 port={} user=postgres", self.port))
            .current_dir(&folder);
        let mut copy = ChildServer::start(ServerCommand {
            name: "pg_basebackup".to_owned(),
            command,
            log_file: folder.join("copy.log"),
            stop_signal: Signal::Terminate,
            orphan_signal: Signal::Terminate,
            account: self.account.clone(),
        })?;
        copy.wait_until_done(COPY_PATIENCE)?;
        let mut standby = Postgres {
            server: None,
            binaries: self.binaries.clone(),
            account: self.account.clone(),
            options: PostgresOptions { settings, ..self.options.clone() },
            port: free_port()?,
            log_file: data_dir.with_added_extension("log"),
            data_dir,
            throw_away: Some((folder, run)),
        };
        standby.launch()?;
        Ok(standby)
    }
}
