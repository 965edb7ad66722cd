//! SIGTERM and Ctrl-C to commands that end by themselves. As process 1 of a container a program is ended by neither unless it
//! listens for them.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::app::Interrupts;

/// A signal has ended a command before it was done.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Interrupted {
    /// Exit code that tells of the signal.
    pub code: i32,
}

/// Has the first signal end the process. Nothing is lost by that: what it has under way in Postgres is one transaction, which is
/// rolled back, or has been committed whole; what it asks of others over HTTP they do or do not, as if the network had gone.
pub fn end_at_first() -> Result<()> {
    let mut interrupts = Interrupts::listen()?;
    // A task of its own, which lives as long as the process: a command may hold its thread while it reads from a terminal.
    tokio::spawn(async move {
        let code = interrupts.next().await;
        std::process::exit(code);
    });
    Ok(())
}

/// Does `work`, which ends when it is told to `stop`: at the first signal, and within `patience`. The second one ends it at once.
pub async fn in_order<T>(
    work: impl Future<Output = Result<T>>,
    stop: &CancellationToken,
    patience: Duration,
) -> Result<T> {
    let mut interrupts = Interrupts::listen()?;
    let mut work = pin!(work);
    let code = tokio::select! {
        done = &mut work => return done,
        code = interrupts.next() => code,
    };
    stop.cancel();
    tokio::select! {
        ended = &mut work => ended.context(Interrupted { code }),
        again = interrupts.next() => Err(Interrupted { code: again }.into()),
        () = sleep(patience) => Err(Interrupted { code }.into()),
    }
}
