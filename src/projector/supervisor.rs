//! Owns the tasks and threads of a view: each has a name and somebody who waits for its end.
//!
//! A part that ends although nobody asked it to is a defect to be seen, not a silence: the view halts by its name, and
//! whatever it consumes is let go. Parts watch themselves, by a wrapper around their work, so there is no watcher that
//! could die first. What a halt does is the coordinator's.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use futures_util::FutureExt;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::failure::{Halt, panic_text};
use crate::status::ViewStatus;

/// The halt for a part that is there no more; `panic` is what it said.
pub fn part_ended(part: &str, panic: Option<&str>) -> Halt {
    let how = match panic {
        Some(text) => format!("panicked: {text}"),
        None => "ended although nobody asked it to".to_owned(),
    };
    let next_step = "this is a bug: report it with the log, then restart";
    Halt { code: "part_ended", detail: format!("{part} {how}"), next_step }
}

/// Does `work` to its end. It halts the view by the name of `part` if it panics, or if it ends and `is_over` does not say
/// that it should have.
pub async fn watched(
    status: Arc<ViewStatus>,
    part: String,
    is_over: impl FnOnce() -> bool,
    work: impl Future<Output = ()>,
) {
    let _works = status.works(&part);
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(()) if is_over() => {}
        Ok(()) => status.halt(part_ended(&part, None)),
        Err(panic) => status.halt(part_ended(&part, Some(&panic_text(&*panic)))),
    }
}

/// Starts a thread for a part, watched in the same way. `name` is what the system calls it.
pub fn thread(
    status: &Arc<ViewStatus>,
    (name, part): (String, String),
    is_over: impl FnOnce() -> bool + Send + 'static,
    work: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let status = Arc::clone(status);
    std::thread::Builder::new().name(name).spawn(move || {
        let _works = status.works(&part);
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(()) if is_over() => {}
            Ok(()) => status.halt(part_ended(&part, None)),
            Err(panic) => status.halt(part_ended(&part, Some(&panic_text(&*panic)))),
        }
    })
}

/// Does what blocks on a thread for that. If it panics, so does the part that waits for it: no bug is weather.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime is going down, and takes us with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The tasks and threads of one view, or of one part that has tasks of its own. What is left of its tasks is aborted
/// when it is dropped.
#[derive(Debug)]
pub struct Supervisor {
    status: Arc<ViewStatus>,
    tasks: JoinSet<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Supervisor {
    /// Nothing runs yet.
    pub fn new(status: &Arc<ViewStatus>) -> Self {
        Supervisor { status: Arc::clone(status), tasks: JoinSet::new(), threads: Vec::new() }
    }

    /// Starts a part that works until `stop`.
    pub fn part(
        &mut self,
        name: impl Into<String>,
        stop: &CancellationToken,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let stop = stop.clone();
        self.spawn(name.into(), move || stop.is_cancelled(), work);
    }

    /// Starts work that ends by itself: only a panic is a defect.
    pub fn chore(&mut self, name: impl Into<String>, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.spawn(name.into(), || true, work)
    }

    fn spawn(
        &mut self,
        part: String,
        is_over: impl FnOnce() -> bool + Send + 'static,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        // Chores that are done would be kept until somebody asks for them.
        while let Some(done) = self.tasks.try_join_next() {
            log_end(done.map_err(|error| error.to_string()));
        }
        self.tasks.spawn(watched(Arc::clone(&self.status), part, is_over, work))
    }

    /// Waits for this thread, too.
    pub fn adopt(&mut self, thread: JoinHandle<()>) {
        self.threads.push(thread);
    }

    /// Waits until everything has ended; to be called when everything was told to.
    pub async fn ended(&mut self) {
        while let Some(done) = self.tasks.join_next().await {
            log_end(done.map_err(|error| error.to_string()));
        }
        for thread in std::mem::take(&mut self.threads) {
            log_end(blocking(move || thread.join()).await.map_err(|panic| panic_text(&*panic)));
        }
    }
}

/// Work that panics is caught where it is done. What is left is the end of the runtime, or a panic while a part was
/// taken down.
fn log_end(end: Result<(), String>) {
    if let Err(error) = end {
        tracing::error!(error, "a part of the view did not end in order");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::domain::build::BuildId;
    use crate::domain::meaning::Meaning;
    use crate::status::{Phase, ViewState};

    fn status() -> Arc<ViewStatus> {
        let config = Config::defaults();
        let configured = Meaning { projection_version: 1, rules: config.rules_of(&config.views["orders"]) };
        let names = ("orders.events", "streamview");
        let status = ViewStatus::new(BuildId::new("orders", 1), names, configured, Phase::Starting);
        status.started();
        Arc::new(status)
    }

    fn halt_of(status: &ViewStatus) -> Option<String> {
        match status.snapshot().state {
            ViewState::Halted(halt) => Some(format!("{}: {}", halt.code, halt.detail)),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_part_that_ends_unasked_halts_the_view_and_one_that_is_stopped_does_not() {
        let (status, stop) = (status(), CancellationToken::new());
        let mut parts = Supervisor::new(&status);
        let until_stopped = stop.clone();
        parts.part("relay", &stop, async move { until_stopped.cancelled().await });
        parts.chore("search", async {});
        // Whoever does not end is named by the end of the process.
        while status.parts() != ["relay"] {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        parts.ended().await;
        assert!(status.parts().is_empty());
        assert_eq!(halt_of(&status), None);

        let (mut parts, stop) = (Supervisor::new(&status), CancellationToken::new());
        parts.part("relay", &stop, async {});
        parts.ended().await;
        assert_eq!(halt_of(&status).as_deref(), Some("part_ended: relay ended although nobody asked it to"));
    }

    #[tokio::test]
    async fn a_panic_halts_the_view_whatever_it_happens_in() {
        for kind in ["task", "chore", "blocking work", "thread"] {
            let (status, stop) = (status(), CancellationToken::new());
            let mut parts = Supervisor::new(&status);
            let fails = move || panic!("{kind} is lost");
            match kind {
                "task" => parts.part("p", &stop, async move { fails() }),
                "chore" => drop(parts.chore("p", async move { fails() })),
                "blocking work" => drop(parts.chore("p", async move { blocking(fails).await })),
                _ => parts.adopt(thread(&status, ("p".into(), "p".into()), || true, fails).unwrap()),
            }
            parts.ended().await;
            assert_eq!(halt_of(&status), Some(format!("part_ended: p panicked: {kind} is lost")));
        }
    }
}
