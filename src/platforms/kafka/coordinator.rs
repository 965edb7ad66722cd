//! How long librdkafka may wait for the coordinator of a group.

use std::time::Duration;

/// The time-out of each request to a group's coordinator: describing a group, deleting one. Nobody waits so long; whoever asks
/// gives up after a patience of its own, and its client is dropped long before.
///
/// A request that runs into its own time-out before the coordinator can be reached is freed, and used again when it can be:
/// the assertion `eonce->refcnt > 0` ends the process then (2.12.1; librdkafka issue 4605, pull request 5397). Dropping the
/// client with such a request under way is no trouble.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60 * 60); // the longest that librdkafka takes
