//! Signals to the process: how they are heard, and what a service or a command that works for long does about them.

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::part_ended;
use crate::crash;

/// SIGTERM and Ctrl-C, as they come.
pub struct Interrupts {
    terminate: Signal,
    interrupt: Signal,
}

impl Interrupts {
    /// Begins to listen: from now on neither of them ends the process by itself.
    pub fn listen() -> Result<Interrupts> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Interrupts { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for one; gives the exit code of who is ended by it, as shells have it.
    pub async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.terminate.recv() => 143,
            _ = self.interrupt.recv() => 130,
        }
    }
}

/// What the operator wants of the process, and the task that listens for it.
pub struct Signals {
    /// Cancelled by SIGTERM or Ctrl-C; a second signal ends the process at once.
    pub stop: CancellationToken,
    listening: JoinHandle<()>,
}

impl Signals {
    /// Begins to listen.
    pub fn listen() -> Result<Signals> {
        let (stop, mut interrupts) = (CancellationToken::new(), Interrupts::listen()?);
        let first = stop.clone();
        let listening = tokio::spawn(async move {
            crash::point("part.signals");
            loop {
                let code = interrupts.next().await;
                if first.is_cancelled() {
                    std::process::exit(code);
                }
                first.cancel();
            }
        });
        Ok(Signals { stop, listening })
    }

    /// Does `work`, which ends when it is told to stop. A process that nobody can stop any more is stopped, and fails.
    pub async fn with<T>(mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = std::pin::pin!(work);
        let ended = tokio::select! {
            done = &mut work => return done,
            ended = &mut self.listening => ended,
        };
        self.stop.cancel();
        work.await?;
        bail!("{}", part_ended("signal task", ended))
    }
}
