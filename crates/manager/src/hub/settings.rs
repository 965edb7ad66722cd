//! Times of a hub.

use std::time::Duration;

/// Times of a hub. The defaults are those of the stock clients and servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubTimes {
    /// What comes within so long of a frame travels in the next one; zero: each item in a frame of its own.
    pub window: Duration,
    /// Silence of our own after which a sign of life is sent.
    pub keep_alive: Duration,
    /// Silence of a client after which it is taken for gone.
    pub silence: Duration,
    /// How long a client has for its handshake.
    pub handshake: Duration,
    /// How long a client may take nothing of what is there for it.
    pub send_timeout: Duration,
}

impl Default for HubTimes {
    fn default() -> Self {
        HubTimes {
            window: Duration::from_millis(20),
            keep_alive: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            handshake: Duration::from_secs(15),
            send_timeout: Duration::from_secs(10),
        }
    }
}
