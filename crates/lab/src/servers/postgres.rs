//! A PostgreSQL server of our own, from the machine's binaries: for `playground`, tests and benchmarks.
//!
//! Starts, stops, kills and restarts it. Creates no databases and no tables, and opens no connection
//! beyond the first message of the protocol. Trusts everybody on 127.0.0.1: never for real data.

mod standby;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, io};

use anyhow::{Context, Result, bail};

use super::folders::{RunFolder, build_once, cache_folder, copy_tree, give_to, remove_tree};
use super::ports::free_port;
use super::process::{Account, ChildServer, ServerCommand, Signal, is_gone, process_state, send_signal, wait_until};

const OLDEST_MAJOR: u32 = 15;
const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How to run the server.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// `fsync`, `synchronous_commit` and `full_page_writes`: off for throw-away data, on for crash tests
    /// and benchmarks.
    pub durable: bool,
    /// A folder that stays; initialised when empty or missing. `None`: a throw-away folder.
    pub data_dir: Option<PathBuf>,
    /// The port on 127.0.0.1; `None`: a free one.
    pub port: Option<u16>,
    /// Further server settings; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Files in the data directory, by name, such as `pg_hba.conf`, `server.crt` and `server.key`: only the server may read them.
    pub files: Vec<(String, String)>,
}

/// A PostgreSQL server that accepts connections. Dropping it kills it and removes throw-away data.
pub struct Postgres {
    server: Option<ChildServer>,
    binaries: Binaries,
    account: Option<Account>,
    options: PostgresOptions,
    port: u16,
    data_dir: PathBuf,
    log_file: PathBuf,
    /// The folder to remove with us, and the run that it belongs to.
    throw_away: Option<(PathBuf, Arc<RunFolder>)>,
}

impl Postgres {
    /// Finds the binaries, prepares the data directory and starts the server.
    /// About 0.1 s; the first time on a machine a second more, for `initdb`.
    pub fn start(options: PostgresOptions) -> Result<Postgres> {
        let binaries = Binaries::find()?;
        let account = Account::unprivileged()?;
        let template = template(&binaries, account.as_ref())?;
        let throw_away = match options.data_dir {
            Some(_) => None,
            None => {
                let run = RunFolder::current()?;
                Some((run.server_folder("postgres")?, run))
            }
        };
        let data_dir = match (&options.data_dir, &throw_away) {
            (Some(kept), _) => std::path::absolute(kept).context("resolving the data directory")?,
            (None, Some((folder, _))) => folder.join("data"),
            (None, None) => unreachable!("a server without a kept folder has a throw-away one"),
        };
        prepare_data(&data_dir, &template, &binaries, account.as_ref())?;
        for (name, contents) in &options.files {
            put_file(&data_dir.join(name), contents, account.as_ref())?;
        }
        let log_file = data_dir.with_added_extension("log");
        let port = options.port.map_or_else(free_port, Ok)?;
        let mut postgres = Postgres { server: None, binaries, account, options, port, data_dir, log_file, throw_away };
        postgres.launch()?;
        Ok(postgres)
    }

    /// Connection string for a database, as the superuser `postgres` without a password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1; the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of the postmaster; `None` after [`Postgres::kill_hard`] or [`Postgres::stop`].
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(ChildServer::pid)
    }

    /// Version of the server: `15.13`.
    pub fn version(&self) -> &str {
        &self.binaries.version
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The server's log.
    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// Puts a file into the data directory, as the first ones were (see [`PostgresOptions::files`]), in the place of what is
    /// there. `pg_reload_conf()` tells the server.
    pub fn put_file(&self, name: &str, contents: &str) -> Result<()> {
        put_file(&self.data_dir.join(name), contents, self.account.as_ref())
    }

    /// `SIGKILL` for the postmaster and every process of it, and waits until all are gone. Nothing is
    /// written after this returns; the data directory stays as it was at that moment.
    pub fn kill_hard(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let backends = children_of(server.pid());
        server.kill_hard()?;
        for backend in &backends {
            match send_signal(*backend, Signal::Kill) {
                Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                    return Err(error).context("killing a process of PostgreSQL");
                }
                _ => {}
            }
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        wait_until(deadline, "the processes of PostgreSQL to end", || {
            Ok(backends.iter().all(|backend| is_gone(*backend)))
        })
    }

    /// Fast shutdown: open transactions are rolled back, a checkpoint is written.
    pub fn stop(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.stop(STOP_PATIENCE),
            None => Ok(()),
        }
    }

    /// Starts again on the same directory and port; stops first when running. After
    /// [`Postgres::kill_hard`] this is PostgreSQL's own crash recovery.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        // Its process id may belong to somebody else by now, which PostgreSQL would take for a live
        // server. Ours is known to be gone.
        match fs::remove_file(self.data_dir.join("postmaster.pid")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing postmaster.pid"),
            _ => self.launch(),
        }
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(self.binaries.folder.join("postgres"));
        command.arg("-D").arg(&self.data_dir).current_dir(&self.data_dir);
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let started = ChildServer::start(ServerCommand {
            name: format!("PostgreSQL {}", self.binaries.version),
            command,
            log_file: self.log_file.clone(),
            stop_signal: Signal::Interrupt,
            // Immediate shutdown: the postmaster takes its children along and frees its shared memory.
            orphan_signal: Signal::Quit,
            account: self.account.clone(),
        });
        let mut server = started.with_context(|| match &self.account {
            Some(account) => format!(
                "PostgreSQL refuses to run as root, so it runs as {}, who must be able to enter {}",
                account.name,
                self.data_dir.display()
            ),
            None => format!("in {}", self.data_dir.display()),
        })?;
        let port = self.port;
        server.wait_until_ready(START_PATIENCE, || accepts_connections(port))?;
        self.server = Some(server);
        Ok(())
    }

    fn settings(&self) -> Vec<(String, String)> {
        let durable = if self.options.durable { "on" } else { "off" };
        let port = self.port.to_string();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", ""),
            ("max_connections", "300"),
            ("fsync", durable),
            ("synchronous_commit", durable),
            ("full_page_writes", durable),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ours.into_iter().chain(self.options.settings.iter().cloned()).collect()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nobody needs throw-away data, so no checkpoint for it; a kept folder is closed in order.
        let ended = match (self.server.take(), &self.throw_away) {
            (None, _) => Ok(()),
            (Some(mut server), Some(_)) => server.stop_with(Signal::Quit, STOP_PATIENCE),
            (Some(mut server), None) => server.stop(STOP_PATIENCE),
        };
        let removed = self.throw_away.as_ref().map_or(Ok(()), |(folder, _)| remove_tree(folder));
        for error in [ended, removed].into_iter().filter_map(Result::err) {
            eprintln!("PostgreSQL on port {}: {error:#}", self.port);
        }
    }
}

#[derive(Clone)]
struct Binaries {
    folder: PathBuf,
    version: String,
}

impl Binaries {
    fn find() -> Result<Binaries> {
        let candidates = match env::var_os("STREAMVIEW_POSTGRES_BIN") {
            Some(folder) => vec![PathBuf::from(folder)],
            None => candidate_folders(),
        };
        let Some(folder) = candidates.iter().find(|folder| holds_a_server(folder)) else {
            let looked_in: Vec<String> = candidates.iter().map(|folder| folder.display().to_string()).collect();
            bail!(
                "no PostgreSQL binaries found: looked for `initdb` and `postgres` in {}; install the package \
                 `postgresql` or set STREAMVIEW_POSTGRES_BIN to the folder that holds them",
                looked_in.join(", ")
            );
        };
        let version = version_of(folder)?;
        let major: u32 = major_of(&version).parse().with_context(|| format!("odd PostgreSQL version {version}"))?;
        if major < OLDEST_MAJOR {
            bail!(
                "PostgreSQL {version} in {} is too old: install {OLDEST_MAJOR} or newer, or set \
                 STREAMVIEW_POSTGRES_BIN to the folder of a newer one",
                folder.display()
            );
        }
        Ok(Binaries { folder: folder.clone(), version })
    }
}

/// Folders that may hold the server, the most wanted first: PATH with links resolved (Debian puts links
/// to a wrapper there), then the packages' own places, the highest version first.
fn candidate_folders() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path)
        .flat_map(|folder| ["initdb", "pg_ctl"].map(|program| folder.join(program)))
        .filter_map(|program| fs::canonicalize(program).ok())
        .filter_map(|program| Some(program.parent()?.to_owned()))
        .collect();
    for (parent, prefix, suffix) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        folders.extend(versioned_folders(Path::new(parent), prefix, suffix));
    }
    folders.dedup();
    folders
}

fn versioned_folders(parent: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join(suffix)))
        })
        .collect();
    versions.sort();
    versions.into_iter().rev().map(|(_, folder)| folder).collect()
}

fn holds_a_server(folder: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|program| folder.join(program).is_file())
}

fn version_of(folder: &Path) -> Result<String> {
    let program = folder.join("postgres");
    let output = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    // postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().nth(2);
    Ok(version.with_context(|| format!("{} --version said: {text}", program.display()))?.to_owned())
}

/// `15` of `15.13`, `18` of `18beta1`.
fn major_of(version: &str) -> &str {
    let end = version.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(version.len());
    &version[..end]
}

/// The folder with a freshly initialised data directory, made once per version and machine: `initdb`
/// takes a second, a copy 40 ms.
fn template(binaries: &Binaries, account: Option<&Account>) -> Result<PathBuf> {
    let target = cache_folder()?.join(format!("postgres-template-{}", binaries.version));
    build_once(&target, |unfinished| {
        // Not in the cache itself: another user cannot enter root's home.
        let run = RunFolder::current()?;
        let workshop = run.server_folder("initdb")?;
        give_to(&workshop, account).context("preparing initdb")?;
        let data = workshop.join("data");
        run_initdb(binaries, &data, &workshop.join("log"), account)?;
        copy_tree(&data, unfinished, None)?;
        remove_tree(&workshop)
    })?;
    Ok(target)
}

fn run_initdb(binaries: &Binaries, data: &Path, log_file: &Path, account: Option<&Account>) -> Result<()> {
    let mut command = Command::new(binaries.folder.join("initdb"));
    command.args(["-U", "postgres", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync", "-D"]);
    command.arg(data).current_dir(data.parent().context("a data directory has a parent")?);
    let mut initdb = ChildServer::start(ServerCommand {
        name: "initdb".to_owned(),
        command,
        log_file: log_file.to_owned(),
        stop_signal: Signal::Terminate,
        orphan_signal: Signal::Terminate,
        account: account.cloned(),
    })?;
    initdb.wait_until_done(Duration::from_secs(120))
}

fn prepare_data(data: &Path, template: &Path, binaries: &Binaries, account: Option<&Account>) -> Result<()> {
    let version_file = data.join("PG_VERSION");
    if !version_file.exists() {
        if data.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            bail!("{} holds other files: name an empty folder for PostgreSQL's data", data.display());
        }
        let parent = data.parent().context("a data directory has a parent")?;
        fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        return copy_tree(template, data, account);
    }
    let found = fs::read_to_string(&version_file).context("reading PG_VERSION")?;
    if found.trim() != major_of(&binaries.version) {
        bail!(
            "{} was written by PostgreSQL {}, and these binaries are {}: remove it, or set STREAMVIEW_POSTGRES_BIN",
            data.display(),
            found.trim(),
            binaries.version
        );
    }
    Ok(())
}

/// PostgreSQL takes no private key that others may read.
fn put_file(path: &Path, contents: &str, account: Option<&Account>) -> Result<()> {
    let put = || {
        let unfinished = path.with_added_extension("new");
        fs::write(&unfinished, contents)?;
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(0o600))?;
        give_to(&unfinished, account)?;
        fs::rename(&unfinished, path)
    };
    put().with_context(|| format!("writing {}", path.display()))
}

/// True when the server answers a startup message by asking for authentication (`R`), not with the
/// error that it is still starting (`E`). Protocol 3.0, "Message Formats", StartupMessage.
fn accepts_connections(port: u16) -> bool {
    let ask = || -> io::Result<u8> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let parameters = b"user\0postgres\0database\0postgres\0\0";
        let length = u32::try_from(parameters.len() + 8).map_err(io::Error::other)?;
        let mut message = length.to_be_bytes().to_vec();
        message.extend(196_608_u32.to_be_bytes());
        message.extend(parameters);
        stream.write_all(&message)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        stream.write_all(&[b'X', 0, 0, 0, 4])?;
        Ok(kind[0])
    };
    ask().is_ok_and(|kind| kind == b'R')
}

/// The direct children of a process; empty where the system has no /proc.
fn children_of(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|candidate| process_state(*candidate).is_some_and(|(_, parent)| parent == pid))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_a_major_part() {
        assert_eq!(major_of("15.13"), "15");
        assert_eq!(major_of("18beta1"), "18");
        assert_eq!(major_of("17"), "17");
    }

    #[test]
    fn newest_version_comes_first() {
        let parent = tempfile::tempdir().expect("temp dir");
        for name in ["9", "15", "16", "common"] {
            fs::create_dir(parent.path().join(name)).expect("folder");
        }
        let folders = versioned_folders(parent.path(), "", "bin");
        assert_eq!(folders, ["16/bin", "15/bin", "9/bin"].map(|folder| parent.path().join(folder)));
    }

    #[test]
    fn a_killed_server_comes_back_on_the_same_port() {
        let mut postgres = Postgres::start(PostgresOptions { durable: true, ..Default::default() }).expect("starts");
        let folder = postgres.data_dir().to_owned();
        let port = postgres.port();
        assert!(accepts_connections(port));

        postgres.kill_hard().expect("dies");
        assert!(!accepts_connections(port));
        postgres.restart().expect("recovers");

        assert!(accepts_connections(port));
        drop(postgres);
        assert!(!folder.exists(), "throw-away data goes with the server");
    }
}
