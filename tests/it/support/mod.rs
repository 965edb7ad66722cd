//! What the integration tests stand on: real servers started once per run ([`servers`]), one topic and one database
//! per test ([`world`]), the real binary as a child process ([`instance`]), a disorderly load ([`load`]), events and their in-order fold ([`orders`]).

pub mod instance;
pub mod load;
pub mod orders;
pub mod rebuild;
pub mod registry;
pub mod segment;
pub mod servers;
pub mod world;

use std::time::{Duration, Instant};

/// Asks again and again until `probe` has an answer; fails after `patience` with what was awaited.
///
/// The only place where a test waits for time to pass: everything else waits for something to happen.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + patience;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        if let Some(answer) = probe().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain until {what}");
    }
}

/// Long enough for anything on a busy machine; no passing test waits that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
