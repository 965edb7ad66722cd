//! Named points at which a test can kill the process. Compiled to nothing in release builds.
//!
//! `STREAMVIEW_CRASH_AT=commit.sent:3` sends SIGKILL to ourselves the third time `commit.sent` is reached: a real
//! crash, without unwinding, flushing or destructors.

/// Every point, in the order of a record's way.
pub const POINTS: [&str; 18] = [
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
];

/// Dies here if this point was asked for.
#[cfg(debug_assertions)]
pub fn point(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var("STREAMVIEW_CRASH_AT").ok()?;
        let (point, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((point.to_owned(), count.parse().ok()?))
    });
    static REACHED: AtomicU64 = AtomicU64::new(0);

    debug_assert!(POINTS.contains(&name), "crash point {name} is not listed");
    if let Some((wanted, count)) = WANTED.as_ref()
        && wanted == name
        && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        crate::servers::process::kill_self();
    }
}

/// Release builds cannot be told to die.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &str) {}
