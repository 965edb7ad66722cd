//! What is done about proven gaps without an operator: by default nothing. Decides through the same desk, by the same
//! rules, with the same trace.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::decide::Called;
use super::model::{DecidedInBulk, Outcome};
use super::request::{BulkBounds, DEFAULT_BULK, HeldFilter, Request, Why};
use super::{Desk, DeskError};
use crate::crash;
use crate::domain::held::HeldReason;
use crate::status::{Reporter, ViewStatus};
use crate::store::sqlstate::classify_read;

/// How often proven gaps are looked for.
const INTERVAL: Duration = Duration::from_secs(5);
/// So many rounds have to fail in a row before it counts as an outage: one may have met an operator's lock.
const PATIENCE: u32 = 2;

/// Skips proven gaps until `stop`.
pub async fn skip_proven_gaps(desk: Desk, status: Arc<ViewStatus>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failures = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        crash::point("part.gap_policy");
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = skip(&desk) => done,
        };
        match done {
            Ok(decided) => {
                failures = 0;
                status.clear(Reporter::GapPolicy);
                if decided {
                    status.decided.notify_one();
                }
            }
            // Somebody else decided meanwhile: the next round looks again.
            Err(DeskError::Refused(why)) => {
                // Postgres has answered.
                failures = 0;
                status.clear(Reporter::GapPolicy);
                tracing::debug!(view = desk.view, why = why.detail, "proven gaps were not skipped");
            }
            Err(DeskError::Database(error)) => {
                failures += 1;
                match classify_read(&error).wait_or_halt() {
                    Ok((_, why)) if failures < PATIENCE => {
                        tracing::debug!(view = desk.view, why, "proven gaps were not skipped");
                    }
                    Ok((waiting, why)) => {
                        status.report(Reporter::GapPolicy, waiting, &format!("proven gaps are not skipped: {why}"));
                    }
                    Err(halt) => status.halt(halt),
                }
            }
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
    let why = Why::new("the missing events are not in the log (gap_policy = skip)", "gap_policy");
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
