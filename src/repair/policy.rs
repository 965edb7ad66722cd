//! What is done about proven gaps without an operator: by default nothing. Decides through the same desk, by the same
//! rules, with the same trace.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::request::{Bulk, DEFAULT_BULK, HeldFilter, Request, Why};
use super::{Desk, DeskError};
use crate::crash;
use crate::projector::state::ViewStatus;

/// How often proven gaps are looked for.
const INTERVAL: Duration = Duration::from_secs(5);

/// Skips proven gaps until `stop`.
pub async fn skip_proven_gaps(desk: Desk, status: Arc<ViewStatus>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        crash::point("part.gap_policy");
        match skip(&desk).await {
            Ok(false) => {}
            Ok(true) => status.decided.notify_one(),
            // Somebody else decided meanwhile, or Postgres is away: the next round looks again.
            Err(error) => tracing::debug!(view = desk.view, error = %error, "proven gaps were not skipped"),
        }
    }
}

/// Whether anything was decided.
async fn skip(desk: &Desk) -> Result<bool, DeskError> {
    let filter = HeldFilter {
        reasons: vec!["gap".to_owned()],
        proven: Some(true),
        nothing_refused: true,
        ..HeldFilter::default()
    };
    let why = Why {
        reason: "the missing events are not in the log (projector.gap_policy = skip)".to_owned(),
        actor: "gap_policy".to_owned(),
    };
    let bulk = Bulk { dry_run: true, limit: DEFAULT_BULK, expect: None };
    let found = desk.call(&Request::SkipHeldByFilter(filter.clone(), bulk), &why, None).await?.body;
    let number = |name: &str| found[name].as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(0);
    if number("possible") == 0 {
        return Ok(false);
    }
    let bulk = Bulk { dry_run: false, expect: Some(number("matched")), ..bulk };
    desk.call(&Request::SkipHeldByFilter(filter, bulk), &why, None).await?;
    Ok(true)
}
