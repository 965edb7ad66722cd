//! Named points at which a test can kill, stop or panic the process. Compiled to nothing in release builds.
//!
//! `STREAMVIEW_CRASH_AT=commit.sent:3` sends SIGKILL to ourselves the third time `commit.sent` is reached: a real
//! crash, without unwinding, flushing or destructors. `STREAMVIEW_STOP_AT` sends SIGSTOP instead: a process that
//! sleeps until somebody sends SIGCONT, as one does on a frozen machine. `STREAMVIEW_PANIC_AT` panics there: a part of the
//! process dies, and the others have to notice.
#![cfg_attr(debug_assertions, allow(unsafe_code))] // signals to ourselves; no part of a release build

/// Every point, in the order of a record's way; then those of the parts, each in its every turn.
pub const POINTS: [&str; 70] = [
    "assign.acquired",
    "batch.taken",
    "batch.decoded",
    "batch.loaded",
    "batch.folded",
    "commit.begun",
    "commit.written",
    "commit.fenced",
    "commit.identity_confirmed",
    "commit.sent",
    "commit.done",
    "acknowledge.before",
    "acknowledge.done",
    "relay.claimed",
    "relay.published",
    "relay.marked",
    "revoke.closed",
    "shutdown.begun",
    "load.stripped",
    "load.written",
    "load.dressed",
    "load.emptied",
    "rebuild.marked",
    "rebuild.created",
    "rebuild.loaded",
    "rebuild.compared",
    "switch.locked",
    "switch.before_commit",
    "switch.committed",
    "verify.begun",
    "mend.written",
    "operation.ending",
    "cleanup.removed",
    "manager.deploy.written",
    "manager.deploy.topic",
    "manager.deploy.called",
    "manager.deploy.done",
    "manager.update.written",
    "manager.update.called",
    "manager.update.done",
    "manager.stop.written",
    "manager.stop.called",
    "manager.stop.done",
    "manager.resume.written",
    "manager.resume.called",
    "manager.resume.done",
    "manager.remove.written",
    "manager.remove.called",
    "manager.remove.done",
    "manager.end.called",
    "manager.delete.topic",
    "manager.delete.done",
    "query.begun",
    "query.sent",
    "query.positions",
    "query.committed",
    "part.reader",
    "part.poll",
    "part.guard",
    "part.observer",
    "part.keeper",
    "part.takeover",
    "part.acquiring",
    "part.identity",
    "part.gap_policy",
    "part.audit",
    "part.http",
    "part.signals",
    "part.steward",
    "part.manager",
];

/// Dies, stops or panics here if this was asked for.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::LazyLock;

    static CRASH: LazyLock<Option<Trigger>> = LazyLock::new(|| Trigger::read("STREAMVIEW_CRASH_AT"));
    static STOP: LazyLock<Option<Trigger>> = LazyLock::new(|| Trigger::read("STREAMVIEW_STOP_AT"));
    static PANIC: LazyLock<Option<Trigger>> = LazyLock::new(|| Trigger::read("STREAMVIEW_PANIC_AT"));

    debug_assert!(POINTS.contains(&name), "crash point {name} is not listed");
    if CRASH.as_ref().is_some_and(|crash| crash.fires(name)) {
        kill_self();
    }
    if STOP.as_ref().is_some_and(|stop| stop.fires(name)) {
        stop_self();
    }
    if PANIC.as_ref().is_some_and(|panic| panic.fires(name)) {
        panic!("STREAMVIEW_PANIC_AT is {name}");
    }
}

/// A point, and how often it is passed until something happens there.
#[cfg(debug_assertions)]
struct Trigger {
    point: String,
    count: u64,
    reached: std::sync::atomic::AtomicU64,
}

#[cfg(debug_assertions)]
impl Trigger {
    fn read(variable: &str) -> Option<Trigger> {
        let text = std::env::var(variable).ok()?;
        let (point, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some(Trigger { point: point.to_owned(), count: count.parse().ok()?, reached: Default::default() })
    }

    fn fires(&self, name: &str) -> bool {
        self.point == name && self.reached.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == self.count
    }
}

/// Release builds cannot be told to die.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &str) {}

/// Dies at once by SIGKILL: no unwinding, no flushing, no destructors.
#[cfg(debug_assertions)]
fn kill_self() -> ! {
    // SAFETY: kill and getpid have no preconditions; SIGKILL does not return to us.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
    loop {
        std::thread::park();
    }
}

/// Sleeps by SIGSTOP, all threads at once, until somebody sends SIGCONT.
#[cfg(debug_assertions)]
fn stop_self() {
    // SAFETY: raise has no preconditions. It addresses this thread, which therefore goes no further; a signal to the
    // process would let it run on until another thread has taken it.
    unsafe {
        libc::raise(libc::SIGSTOP);
    }
}
