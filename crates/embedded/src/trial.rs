//! Before a text is judged in this process it is tried in one of its own, which may take so much of a core, of memory and of the
//! stack, and whose end harms nobody. DataFusion bounds none of these, and a text of a few lines may double with each of them. What
//! comes to an end there does so here, too: the same is done with the same text.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::thread;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use streamview_manager::catalog::Source;
use streamview_manager::engines::{Select, Trouble};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::engine::refused;
use crate::plan::{Bounds, Limits, NO_THREAD, Prepared, Purpose};

/// Seconds of a core that a trial may take: most take hundredths.
const CPU_SECONDS: u64 = 5;
/// Megabytes that it may have, the stacks of its threads among them.
const MEGABYTES: u64 = 256;
/// Half of the least stack of whoever drops here what was judged on a thread with more room.
const STACK: usize = 1 << 20;
/// How jemalloc is set there: what it keeps for later counts as taken.
const MALLOC_CONF: &str = "narenas:1,background_thread:false,retain:false";

/// How the process of a trial is begun: this program with these arguments does what [`run`] does, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// Its path.
    pub program: PathBuf,
    /// What it is told.
    pub arguments: Vec<String>,
}

/// The exit code of a trial that has come to its end: what this program says of nothing else, and no other program by chance.
pub const DONE: u8 = 86;

impl Trial {
    /// Tries a text for the first of these purposes that it may have. If nobody waits for it any more its process is ended.
    ///
    /// | | |
    /// |---|---|
    /// | it takes more than it may | `limit_exceeded` |
    /// | it cannot be tried | [`Trouble::Unavailable`] |
    pub(crate) async fn of(&self, select: &Select, purposes: &[Purpose], limits: &Limits) -> Result<(), Trouble> {
        let case = serde_json::to_vec(&(&select.sql, &select.sources, purposes, limits)).expect("it is plain data");
        let unavailable = |why: &str| {
            let program = self.program.display();
            Trouble::Unavailable(format!("the statement cannot be judged: the process to try it in ({program}) {why}"))
        };
        let status = self.process(&case).await;
        let status = status.map_err(|error| unavailable(&format!("does not begin: {error}")))?;
        if status.code() == Some(DONE.into()) {
            return Ok(());
        }
        let takes = match status.signal().and_then(Signal::from_named_raw) {
            Some(Signal::XCPU) => format!("{CPU_SECONDS} s of a core to be judged"),
            Some(Signal::ABORT | Signal::SEGV | Signal::BUS | Signal::ILL | Signal::TRAP) => {
                format!("{MEGABYTES} MB to be judged, or is too deep")
            }
            _ => return Err(unavailable(&format!("has ended before it was done: {status}"))),
        };
        let text = format!(
            "the statement takes more than {takes}: take it apart, let fewer queries hold each other, or write less that is \
             computed beforehand"
        );
        Err(refused("limit_exceeded", text))
    }

    async fn process(&self, case: &[u8]) -> io::Result<ExitStatus> {
        // Of the environment only where libraries are.
        let libraries = std::env::vars_os().filter(|(name, _)| name == "LD_LIBRARY_PATH");
        let mut process = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(libraries)
            .env("MALLOC_CONF", MALLOC_CONF)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = process.stdin.take() {
            // What ends before it has read all says by its status why.
            drop(input.write_all(case).await);
        }
        process.wait().await
    }
}

/// What the process of a [`Trial`] does: judges the text that `input` has, and forgets what comes of it. To be left by [`DONE`] then.
///
/// # Errors
/// When the input has no text, when the process cannot be bounded, or when it has no thread to judge on.
pub fn run(input: impl Read) -> io::Result<u8> {
    bound()?;
    let (sql, sources, purposes, limits): (String, Vec<Source>, Vec<Purpose>, Limits) = serde_json::from_reader(input)?;
    let select = Select { sql, sources };
    let thread = thread::Builder::new().stack_size(STACK).spawn(move || judge(&select, &purposes, &limits))?;
    thread.join().map_err(|_| io::Error::other("a fault of the engine's own"))??;
    Ok(DONE)
}

fn judge(select: &Select, purposes: &[Purpose], limits: &Limits) -> io::Result<()> {
    for purpose in purposes {
        match Prepared::new(select, *purpose, limits) {
            Ok(prepared) => {
                prepared.explain();
                drop(prepared.start(Bounds::default()));
                break;
            }
            Err(refusal) if refusal.message == NO_THREAD => return Err(io::Error::other(NO_THREAD)),
            Err(_) => {}
        }
    }
    Ok(())
}

fn bound() -> io::Result<()> {
    // Where a container is short of memory it goes first. Only Linux has this.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
    for (resource, most, hard) in [
        // A second later it is killed, if it has not ended by then.
        (Resource::Cpu, CPU_SECONDS, CPU_SECONDS + 1),
        (Resource::Data, MEGABYTES << 20, MEGABYTES << 20),
        // It has to open nothing more.
        (Resource::Core, 0, 0),
        (Resource::Nofile, 0, 0),
    ] {
        // Whoever began us may have left us less.
        let left = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(most.min(left)), maximum: Some(hard.min(left)) })?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What becomes of a text whose process does this.
    async fn tried(does: &str) -> Result<(), Trouble> {
        let arguments = vec!["-c".to_owned(), format!("ulimit -c 0; {does}")];
        let trial = Trial { program: "/bin/sh".into(), arguments };
        let select = Select { sql: "select 1".to_owned(), sources: Vec::new() };
        trial.of(&select, &[Purpose::AdHoc], &Limits::default()).await
    }

    #[tokio::test]
    async fn a_text_is_refused_whose_process_does_not_come_to_its_end() {
        let reads = r#"read -r case; case "$case" in '["select 1",[],["AdHoc"],{'*'}]') exit 86; esac; exit 1"#;
        assert_eq!(tried(reads).await, Ok(()));
        for (signal, words) in [("XCPU", "5 s of a core"), ("ABRT", "256 MB"), ("SEGV", "too deep")] {
            let tried = tried(&format!("kill -{signal} $$")).await;
            let Err(Trouble::Refused(why)) = tried else { panic!("{signal}: {tried:?}") };
            assert!(why.code == "limit_exceeded" && why.message.contains(words), "{signal}: {why:?}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_tried_is_no_fault_of_the_text() {
        // Another program may end like one that has done its work, and whoever runs short of memory kills.
        for (does, words) in
            [("exit 0", "exit status: 0"), ("exit 2", "exit status: 2"), ("kill -KILL $$", "signal: 9")]
        {
            let tried = tried(does).await;
            assert!(matches!(&tried, Err(Trouble::Unavailable(why)) if why.contains(words)), "{does}: {tried:?}");
        }
        let nobody = Trial { program: "/nobody/is/here".into(), arguments: Vec::new() };
        let select = Select { sql: String::new(), sources: Vec::new() };
        let tried = nobody.of(&select, &[Purpose::AdHoc], &Limits::default()).await;
        assert!(matches!(&tried, Err(Trouble::Unavailable(why)) if why.contains("/nobody/is/here")), "{tried:?}");
    }
}
