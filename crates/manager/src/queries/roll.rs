//! The queries of all instances: each tells the others of its own, so that limits hold for all of them together, and whoever asks
//! for a query at the wrong one is told where it runs.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Active, QueryInfo, Shared};
use crate::fault::Fault;
use crate::query::TELL_EVERY;

/// Where instances tell each other of their queries.
#[async_trait]
pub trait Roll: Send + Sync {
    /// Enters a query, if no more than that many of other instances run: of its owner, and in all. Else how many do.
    async fn enter(&self, query: &QueryInfo, others: Active) -> Result<Option<Active>, Fault>;

    /// Says which queries of an instance run, and which have ended.
    async fn tell(&self, instance: &str, running: &[QueryInfo], ended: &[String]) -> Result<(), Fault>;

    /// The queries of all instances but this one, the eldest first.
    async fn elsewhere(&self, instance: &str) -> Result<Vec<QueryInfo>, Fault>;
}

/// Tells what runs as long as something does, and what has ended as soon as it has. Ends with the queries.
pub(super) async fn keep(shared: Weak<Shared>, roll: Arc<dyn Roll>, ended: Arc<Notify>) {
    loop {
        tokio::select! {
            () = ended.notified() => {}
            () = tokio::time::sleep(TELL_EVERY) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let (running, gone) = {
            let mut places = shared.places();
            (places.all(), places.take_ended())
        };
        if running.is_empty() && gone.is_empty() {
            continue;
        }
        if let Err(error) = roll.tell(&shared.instance, &running, &gone).await {
            tracing::warn!(error = %error, "other instances are not told which queries run here");
            shared.places().untold(gone);
        }
    }
}
