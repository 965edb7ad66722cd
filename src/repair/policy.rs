//! What is done about proven gaps without an operator: by default nothing. Decides through the same desk, by the same
//! rules, with the same trace.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::decide::Called;
use super::model::{DecidedInBulk, Outcome};
use super::request::{BulkBounds, DEFAULT_BULK, HeldFilter, Request, Why};
use super::{Desk, DeskError};
use crate::domain::held::HeldReason;
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
        reasons: vec![HeldReason::Gap.as_str().to_owned()],
        proven: Some(true),
        nothing_refused: true,
        ..HeldFilter::default()
    };
    let why = Why {
        reason: "the missing events are not in the log (gap_policy = skip)".to_owned(),
        actor: "gap_policy".to_owned(),
    };
    let bounds = BulkBounds { dry_run: true, limit: DEFAULT_BULK, expect: None };
    let found = skip_by_filter(desk, filter.clone(), bounds, &why).await?;
    if found.possible == 0 {
        return Ok(false);
    }
    let bounds = BulkBounds { dry_run: false, expect: Some(found.matched), ..bounds };
    skip_by_filter(desk, filter, bounds, &why).await?;
    Ok(true)
}

async fn skip_by_filter(
    desk: &Desk,
    filter: HeldFilter,
    bounds: BulkBounds,
    why: &Why,
) -> Result<DecidedInBulk, DeskError> {
    match desk.call(&Request::SkipHeldByFilter(filter, bounds), why, None).await? {
        Called::Now(Outcome::InBulk(bulk)) => Ok(bulk),
        Called::Now(Outcome::Decided(_)) | Called::Before(_) => {
            unreachable!("a call by filter without a key ends in a count")
        }
    }
}
