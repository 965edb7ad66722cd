//! Runs a server as a child process that never outlives us, not even after `kill -9`.
//!
//! Knows nothing about what the server speaks: readiness is a probe that the caller hands in.
#![allow(unsafe_code)] // prctl and kill have no safe form in std; each call is one line with its reason

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How many lines of a failed server's log go into the error.
const LOG_TAIL_LINES: usize = 20;

/// What to start, how it wants to be stopped, and where it may write.
pub struct ServerCommand {
    /// Name for messages: `PostgreSQL 15.13`.
    pub name: String,
    /// Program, arguments and environment; standard streams are set by [`ChildServer::start`].
    pub command: Command,
    /// Receives standard output and error, appended.
    pub log_file: PathBuf,
    /// Asks for an orderly stop.
    pub stop_signal: Signal,
    /// Sent by the kernel when our process is gone.
    pub orphan_signal: Signal,
    /// The account to run as; `None` keeps ours.
    pub account: Option<Account>,
}

/// The signals that servers are told to stop with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGTERM`
    Terminate,
    /// `SIGINT`
    Interrupt,
    /// `SIGQUIT`
    Quit,
    /// `SIGKILL`
    Kill,
}

impl Signal {
    fn number(self) -> libc::c_int {
        match self {
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::Quit => libc::SIGQUIT,
            Signal::Kill => libc::SIGKILL,
        }
    }
}

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
}

impl Account {
    /// The account for servers that refuse to run as root: `None` unless we are root, else `postgres`
    /// or `nobody`. A uid without a passwd entry would not do: PostgreSQL looks itself up.
    pub fn unprivileged() -> Result<Option<Account>> {
        if effective_user_id() != 0 {
            return Ok(None);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        for name in ["postgres", "nobody"] {
            if let Some(account) = find_account(&passwd, name) {
                return Ok(Some(account));
            }
        }
        bail!("running as root, and neither the user postgres nor nobody exists: add one, or run as another user")
    }
}

fn find_account(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2);
    let uid = ids.next()?.parse().ok()?;
    let gid = ids.next()?.parse().ok()?;
    Some(Account { name: name.to_owned(), uid, gid })
}

/// The user id that this process acts with.
pub fn effective_user_id() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// A running server process. Dropping it kills it.
pub struct ChildServer {
    name: String,
    child: Child,
    log_file: PathBuf,
    stop_signal: Signal,
    #[cfg(not(target_os = "linux"))]
    watchdog: Child,
}

impl ChildServer {
    /// Starts the process; it is not yet ready, see [`ChildServer::wait_until_ready`].
    pub fn start(server: ServerCommand) -> Result<ChildServer> {
        let ServerCommand { name, mut command, log_file, stop_signal, orphan_signal, account } = server;
        let log = open_log(&log_file)?;
        let log_for_errors = log.try_clone().context("duplicating the log's handle")?;
        command.stdin(Stdio::null()).stdout(log).stderr(log_for_errors);
        // A group of its own: Ctrl-C reaches us only, and we stop the servers in order.
        command.process_group(0);
        if let Some(account) = &account {
            command.uid(account.uid).gid(account.gid); // std also drops the supplementary groups
        }
        let program = command.get_program().to_string_lossy().into_owned();
        let child = spawn_on_servers_thread(command, orphan_signal)
            .with_context(|| format!("starting {name}: cannot run {program}"))?;
        Ok(ChildServer {
            #[cfg(not(target_os = "linux"))]
            watchdog: start_watchdog(child.id(), orphan_signal).context("starting the watchdog")?,
            name,
            child,
            log_file,
            stop_signal,
        })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file with the server's output.
    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// Waits until `probe` says yes. Fails when the process exits first, or has said nothing new for `patience`: a busy
    /// machine makes it slow, not silent. With the end of its log.
    pub fn wait_until_ready(&mut self, patience: Duration, mut probe: impl FnMut() -> bool) -> Result<()> {
        let what = format!("{} to accept connections", self.name);
        let log_file = self.log_file.clone();
        let mut silence = Silence::begin(&log_file, patience);
        wait_until(Instant::now() + patience * LONGEST, &what, || {
            if let Some(status) = self.exit_status()? {
                bail!("{} exited with {status} before it was ready", self.name);
            }
            let is_ready = probe();
            if !is_ready && silence.is_too_long() {
                bail!("{} is not ready, and has said nothing for {} s", self.name, patience.as_secs_f64());
            }
            Ok(is_ready)
        })
        .with_context(|| log_excerpt(&log_file))
    }

    /// `None` while the process runs.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("asking for the state of {}", self.name))
    }

    /// For a program that ends by itself: waits for it and fails unless it succeeds, with the end of its log.
    pub fn wait_until_done(&mut self, patience: Duration) -> Result<()> {
        let what = format!("{} to end", self.name);
        let ended = wait_until(Instant::now() + patience, &what, || Ok(self.exit_status()?.is_some()));
        let outcome = match (ended, self.exit_status()?) {
            (Ok(()), Some(status)) if status.success() => return Ok(()),
            (Ok(()), Some(status)) => anyhow!("{} failed: {status}", self.name),
            (Ok(()), None) => anyhow!("{} is still running", self.name),
            (Err(error), _) => error,
        };
        Err(outcome.context(log_excerpt(&self.log_file)))
    }

    /// `SIGKILL`, then waits for the end. Fine on a process that is already gone.
    pub fn kill_hard(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for the end of {}", self.name))?;
        Ok(())
    }

    /// Asks for an orderly stop with the command's own signal, and kills after `grace`.
    pub fn stop(&mut self, grace: Duration) -> Result<()> {
        self.stop_with(self.stop_signal, grace)
    }

    /// As [`ChildServer::stop`], with another signal.
    pub fn stop_with(&mut self, signal: Signal, grace: Duration) -> Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        send_signal(self.child.id(), signal).with_context(|| format!("stopping {}", self.name))?;
        let what = format!("{} to stop", self.name);
        let stopped = wait_until(Instant::now() + grace, &what, || Ok(self.exit_status()?.is_some()));
        if stopped.is_err() {
            self.kill_hard()?;
        }
        Ok(())
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        if let Err(error) = self.kill_hard() {
            eprintln!("leaving a server behind: {error:#}");
        }
        #[cfg(not(target_os = "linux"))]
        if let Err(error) = self.watchdog.kill().and_then(|()| self.watchdog.wait()) {
            eprintln!("leaving a watchdog behind: {error}");
        }
    }
}

/// So many times its patience is waited for a server that goes on talking.
const LONGEST: u32 = 10;

/// How long nothing has been added to a log.
struct Silence<'a> {
    log_file: &'a Path,
    length: u64,
    since: Instant,
    patience: Duration,
}

impl<'a> Silence<'a> {
    fn begin(log_file: &'a Path, patience: Duration) -> Self {
        Silence { log_file, length: 0, since: Instant::now(), patience }
    }

    fn is_too_long(&mut self) -> bool {
        let length = fs::metadata(self.log_file).map_or(0, |log| log.len());
        if length != self.length {
            (self.length, self.since) = (length, Instant::now());
        }
        self.since.elapsed() >= self.patience
    }
}

/// Asks `probe` until it says yes, an error ends it, or the deadline passes. `what` completes
/// "gave up waiting for".
///
/// The one place of the project where waiting is done by looking again: another program's readiness
/// sends no event.
pub fn wait_until(deadline: Instant, what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    while !probe()? {
        if Instant::now() >= deadline {
            bail!("gave up waiting for {what} after {:.1} s", started.elapsed().as_secs_f64());
        }
        thread::park_timeout(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

/// Sends a signal to a process that is known to be ours.
pub(super) fn send_signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: kill only takes numbers. `pid` is positive, so no group is meant.
    match unsafe { libc::kill(pid, signal.number()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// True for a process that has ended; where the system has no /proc, always.
pub(super) fn is_gone(pid: u32) -> bool {
    // A zombie holds nothing any more; who reaps it is not our business.
    process_state(pid).is_none_or(|(state, _)| state == 'Z')
}

/// State letter and parent of a process, from /proc/PID/stat.
pub(super) fn process_state(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn log_excerpt(log_file: &Path) -> String {
    format!("the end of {}:\n{}\n", log_file.display(), log_tail(log_file))
}

/// The last lines of a log, or a word on why there are none.
fn log_tail(log_file: &Path) -> String {
    match fs::read(log_file) {
        Ok(bytes) => last_lines(&String::from_utf8_lossy(&bytes), LOG_TAIL_LINES),
        Err(error) => format!("(unreadable: {error})"),
    }
}

/// Without the frames of a JVM's stack traces, which would leave no room for the reasons that stand between them.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("\tat ")).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn open_log(log_file: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_file)
        .with_context(|| format!("opening the log {}", log_file.display()))
}

struct SpawnRequest {
    command: Command,
    orphan_signal: Signal,
    answer: Sender<io::Result<Child>>,
}

/// Starts a program that is killed when this process ends, however it ends (on Linux).
///
/// # Errors
/// When the program cannot be started.
pub fn spawn_tied_to_us(command: Command) -> Result<Child> {
    spawn_on_servers_thread(command, Signal::Kill)
}

/// The parent-death signal follows the thread that forked, not the process: a server started from a
/// test's thread would die with that thread. So all are started from one thread that never ends.
fn spawn_on_servers_thread(command: Command, orphan_signal: Signal) -> Result<Child> {
    static SERVERS_THREAD: OnceLock<Sender<SpawnRequest>> = OnceLock::new();
    let requests = SERVERS_THREAD.get_or_init(start_servers_thread);
    let (answer, child) = channel();
    requests
        .send(SpawnRequest { command, orphan_signal, answer })
        .map_err(|_| anyhow!("the thread `servers` is gone"))?;
    Ok(child.recv().context("the thread `servers` is gone")??)
}

fn start_servers_thread() -> Sender<SpawnRequest> {
    let (sender, requests) = channel::<SpawnRequest>();
    thread::Builder::new()
        .name("servers".to_owned())
        .spawn(move || {
            for SpawnRequest { command, orphan_signal, answer } in requests {
                if answer.send(spawn_tied(command, orphan_signal)).is_err() {
                    eprintln!("nobody waits for the server that was just started");
                }
            }
        })
        .expect("the system allows one more thread");
    sender
}

#[cfg(target_os = "linux")]
fn spawn_tied(mut command: Command, orphan_signal: Signal) -> io::Result<Child> {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: prctl and getppid are,
    // and nothing here allocates. Runs after the change of user, which would clear the setting.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, orphan_signal.number()) != 0 {
                return Err(io::Error::last_os_error());
            }
            // We may have died before the prctl.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    command.spawn()
}

#[cfg(not(target_os = "linux"))]
fn spawn_tied(mut command: Command, _orphan_signal: Signal) -> io::Result<Child> {
    command.spawn()
}

/// Where the kernel has no parent-death signal: a shell that reads a pipe of ours. The pipe ends when
/// we do, however we end.
#[cfg(any(not(target_os = "linux"), test))]
fn start_watchdog(pid: u32, orphan_signal: Signal) -> io::Result<Child> {
    Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("cat >/dev/null; kill -{} {pid}", orphan_signal.number()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(directory: &Path, script: &str) -> ServerCommand {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        ServerCommand {
            name: "a shell".to_owned(),
            command,
            log_file: directory.join("log"),
            stop_signal: Signal::Terminate,
            orphan_signal: Signal::Kill,
            account: None,
        }
    }

    #[test]
    fn a_server_that_goes_on_talking_is_waited_for_and_a_silent_one_is_not() {
        let directory = tempfile::tempdir().expect("a folder");
        let script = "for n in 1 2 3 4 5 6 7 8 9; do echo said $n; sleep 0.3; done; exec sleep 60";
        let mut server = ChildServer::start(sleeper(directory.path(), script)).expect("starts");
        let (log, patience) = (server.log_file().to_owned(), Duration::from_millis(2_000));
        let begun = Instant::now();
        server.wait_until_ready(patience, || log_tail(&log).contains("said 9")).expect("it talks");
        assert!(begun.elapsed() > patience, "{:?}", begun.elapsed());

        let error = server.wait_until_ready(patience, || false).expect_err("it is silent");
        assert!(format!("{error:#}").contains("has said nothing for 2 s"), "{error:#}");
    }

    #[test]
    fn a_server_outlives_the_thread_that_asked_for_it_and_dies_when_dropped() {
        let directory = tempfile::tempdir().expect("temp dir");
        let command = sleeper(directory.path(), "exec sleep 60");
        let mut server = thread::spawn(move || ChildServer::start(command)).join().expect("no panic").expect("starts");
        assert_eq!(server.exit_status().expect("a state"), None);

        let pid = server.pid();
        drop(server);

        assert!(send_signal(pid, Signal::Terminate).is_err(), "the process is gone");
    }

    #[test]
    fn an_early_exit_shows_the_end_of_the_log() {
        let directory = tempfile::tempdir().expect("temp dir");
        let mut server = ChildServer::start(sleeper(directory.path(), "seq 1 50; exit 3")).expect("the shell starts");

        let error = server.wait_until_ready(Duration::from_secs(10), || false).expect_err("it exits");

        let message = format!("{error:#}");
        assert!(message.contains("31\n32\n"), "{message}");
        assert!(!message.contains("30\n31"), "{message}");
        assert!(message.contains("exit status: 3"), "{message}");
    }

    #[test]
    fn frames_of_a_stack_trace_leave_room_for_the_reason() {
        let frames = "\tat a.B.c(B.java:1)\n".repeat(50);
        let log = format!("it fails: d.E\n{frames}Caused by: f.G: too late\n{frames}\t... 12 more\n");
        assert_eq!(last_lines(&log, 20), "it fails: d.E\nCaused by: f.G: too late\n\t... 12 more");
    }

    #[test]
    fn stop_kills_what_ignores_the_signal() {
        let directory = tempfile::tempdir().expect("temp dir");
        let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
        let mut server = ChildServer::start(sleeper(directory.path(), script)).expect("the shell starts");
        let log = directory.path().join("log");
        server.wait_until_ready(Duration::from_secs(10), || log_tail(&log).contains("ready")).expect("ready");

        server.stop(Duration::from_millis(50)).expect("stops");

        assert!(server.exit_status().expect("a state").is_some());
    }

    #[test]
    fn the_watchdog_kills_when_its_pipe_closes() {
        let directory = tempfile::tempdir().expect("temp dir");
        let mut server = ChildServer::start(sleeper(directory.path(), "exec sleep 60")).expect("starts");
        let mut watchdog = start_watchdog(server.pid(), Signal::Kill).expect("watchdog starts");

        drop(watchdog.stdin.take());

        wait_until(Instant::now() + Duration::from_secs(10), "the kill", || Ok(server.exit_status()?.is_some()))
            .expect("killed");
        watchdog.wait().expect("the watchdog ends");
    }

    /// Not a test by itself: the process that the next test kills.
    #[test]
    fn process_to_be_killed() {
        let Ok(directory) = std::env::var("STREAMVIEW_TEST_TO_BE_KILLED") else {
            return;
        };
        let directory = Path::new(&directory);
        let server = ChildServer::start(sleeper(directory, "exec sleep 60")).expect("starts");
        fs::write(directory.join("unnamed"), server.pid().to_string()).expect("written");
        fs::rename(directory.join("unnamed"), directory.join("pid")).expect("renamed");
        thread::park_timeout(Duration::from_secs(60));
    }

    #[test]
    fn a_server_dies_with_a_parent_that_was_killed_hard() {
        let directory = tempfile::tempdir().expect("temp dir");
        let mut parent = Command::new(std::env::current_exe().expect("our path"))
            .args(["--exact", "servers::process::tests::process_to_be_killed"])
            .env("STREAMVIEW_TEST_TO_BE_KILLED", directory.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        let pid_file = directory.path().join("pid");
        wait_until(deadline, "the grandchild", || Ok(pid_file.exists())).expect("it starts");
        let pid = fs::read_to_string(pid_file).expect("read").parse().expect("a number");
        assert!(!is_gone(pid));

        parent.kill().expect("killed");
        parent.wait().expect("reaped");

        wait_until(deadline, "the grandchild's end", || Ok(is_gone(pid))).expect("it dies too");
    }

    #[test]
    fn accounts_are_read_from_passwd_lines() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres:x:104:107:,,,:/var/lib/postgresql:/bin/bash\n";
        let expected = Account { name: "postgres".to_owned(), uid: 104, gid: 107 };
        assert_eq!(find_account(passwd, "postgres"), Some(expected));
        assert_eq!(find_account(passwd, "post"), None);
    }
}
