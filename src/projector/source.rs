//! Sees to it, at each takeover, that a build is made from one log only.

use std::sync::Arc;

use crate::domain::source::{Bond, Log};
use crate::failure::Failure;
use crate::platforms::kafka::log::LogReader;
use crate::projector::context::ViewContext;
use crate::projector::{guard, supervisor};
use crate::store::sqlstate::classify;
use crate::store::{Connection, source};

/// Binds the build to the log that is read, or fails because it is made from another one. `topic_id`: what the broker shows
/// now.
pub async fn confirm(
    client: &Connection,
    context: &ViewContext,
    reader: &Arc<LogReader>,
    topic_id: Option<&str>,
) -> Result<(), Failure> {
    let asked = Arc::clone(reader);
    let cluster = supervisor::blocking(move || asked.cluster_id()).await;
    let log = Log { cluster, topic: context.source.topic.clone(), topic_id: topic_id.map(str::to_owned) };
    match source::bind(client, &context.source, &log).await.map_err(|error| classify(error, None))? {
        Bond::Bound => Ok(()),
        Bond::Bind(binding) => {
            tracing::info!(view = context.source.view, build = %context.source.build, ?binding, "build is bound to its log");
            Ok(())
        }
        Bond::Recreated(detail) => Err(guard::changed(&detail)),
        Bond::Elsewhere(detail) => Err(elsewhere(&detail)),
    }
}

/// The halt for a log that is not the one that the build is made from.
pub fn elsewhere(detail: &str) -> Failure {
    Failure::halt(
        "source_changed",
        detail,
        "set kafka.bootstrap_servers and the view's topic back; or, if the topic was moved with its offsets, say so \
         with `streamview source moved`; or begin anew from the other topic in an empty database; then restart",
    )
}
