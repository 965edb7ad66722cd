//! The end of a member of a consumer group: which of the group's last words still need an answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, ConsumerContext};

/// How long a client that is closed may take to end by itself before it is taken to wait for another answer.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

/// Whether a member is being closed, and whether it was asked anything since.
#[derive(Default)]
pub(super) struct Closing {
    has_begun: AtomicBool,
    has_answered: AtomicBool,
}

impl Closing {
    /// From now on whoever polls the client only closes it.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    /// Whether the client is being closed.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Whether the rebalance that is told now needs an answer. May wait.
    ///
    /// While a client is closed, the first answer gives up all there is, whatever it says. librdkafka may ask twice, though:
    /// for the rebalance that was under way and for the close. The second answer races with the end, and the end drops calls
    /// that it finds in its queue, without a word to who waits for them, for ever. So nothing that is asked behind the first
    /// answer has one, unless the end does not come without it.
    pub(super) fn needs_answer<C: ConsumerContext>(&self, client: &BaseConsumer<C>) -> bool {
        if !self.has_begun() || !self.has_answered.swap(true, Ordering::AcqRel) {
            return true;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if client.closed() {
                return false;
            }
            // librdkafka tells nobody that it has ended.
            std::thread::park_timeout(LOOK);
        }
        true
    }
}
