//! Takes partitions over from their last owner: reads where they stand, becomes their owner in Postgres, and judges
//! whether the log is still the one that progress was made on. Gives them to nobody: the coordinator does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::UnboundedSender;

use crate::crash;
use crate::domain::identity::{Evidence, Mismatch, judge};
use crate::domain::units::{NextOffset, Offset, Partition};
use crate::failure::{Backoff, Failure, Halt};
use crate::platforms::kafka::fetch::{FetchProblem, FetchTrouble};
use crate::platforms::kafka::log::{LogError, LogReader};
use crate::platforms::kafka::probe;
use crate::projector::context::ViewContext;
use crate::projector::{guard, meaning, source, supervisor};
use crate::status::{Pause, Reporter};
use crate::store::progress::{self, Acquired, Ownership};
use crate::store::sqlstate::classify;
use crate::store::{Connection, blocked, pauses, pool};

/// Partitions that the group gave us and has not taken back.
pub type Wanted = Arc<Mutex<BTreeSet<Partition>>>;
/// What a takeover gives: the partitions, or why the view has to halt.
pub type Takeover = Result<Vec<Acquired>, Halt>;

/// The code of the halt that an operator can end with skip-to.
pub const TRUNCATED: &str = "log_truncated";

/// The halt for a log that lost what we need.
pub fn truncated(detail: &str) -> Failure {
    Failure::halt(
        TRUNCATED,
        detail,
        "restore the records, or rebuild the view from what is left, or give up what is lost with \
         POST /ops/partitions/{partition}/skip-to; nothing more is applied until then",
    )
}

/// Notes in the control tables that the owner stands before a hole: an operator may then skip it, from any process.
async fn note_block(
    client: &Connection,
    context: &ViewContext,
    owner: Ownership,
    failure: &Failure,
) -> Result<(), Failure> {
    let Failure::Halt(halt) = failure else { return Ok(()) };
    if halt.code != TRUNCATED {
        return Ok(());
    }
    blocked::block(client, &context.source, owner, (halt.code, &halt.detail))
        .await
        .map_err(|error| classify(error, None))
}

/// Likewise, on a connection of its own.
pub async fn note_truncated(context: &ViewContext, owner: Ownership, failure: &Failure) -> Result<(), Failure> {
    let fail = |error| classify(error, None);
    let client = pool::connect_writer(&context.database, "public").await.map_err(fail)?;
    note_block(&client, context, owner, failure).await
}

/// What follows when a lane stands before a batch that cannot be read, or a record whose schema nobody knows: it is stepped over if an operator has skipped
/// it already, for another build perhaps; else it is noted, and an operator has to decide.
pub async fn at_unreadable(
    context: &ViewContext,
    owner: Ownership,
    offset: Offset,
    pause: &Pause,
) -> Result<(), Failure> {
    let fail = |error| classify(error, None);
    let client = pool::connect_writer(&context.database, "public").await.map_err(fail)?;
    let (view, partition) = (context.source.view, owner.partition);
    if let Some(next_offset) = blocked::step_over(&client, &context.source, owner, offset).await.map_err(fail)? {
        tracing::warn!(
            view,
            partition = partition.0,
            offset = offset.0,
            next_offset = next_offset.0,
            "an unreadable batch was skipped by an earlier decision"
        );
        return Ok(());
    }
    blocked::block(&client, &context.source, owner, (pause.code, &pause.detail)).await.map_err(fail)
}

/// Whether a partition that was too large to receive still is: asked for alone, so that the others are left in peace.
async fn is_still_too_large(
    context: &ViewContext,
    partition: Partition,
    next_offset: NextOffset,
) -> Result<bool, Failure> {
    let paused = context.status.snapshot().partitions.remove(&partition).and_then(|owned| owned.paused);
    if !paused.is_some_and(|pause| pause.too_large && pause.unreadable_at == Some(next_offset.first_ahead())) {
        return Ok(false);
    }
    let (kafka, topic) = (context.kafka.clone(), context.source.topic.clone());
    blocking(move || {
        Ok::<_, LogError>(probe::too_large_at(&kafka, &topic, partition, next_offset.first_ahead()).is_some())
    })
    .await
}

/// Looks which of these partitions, at these positions, is what cannot be received, and reports it as a problem.
pub async fn find_too_large(
    context: Arc<ViewContext>,
    positions: Vec<(Partition, NextOffset)>,
    problems: UnboundedSender<FetchProblem>,
) {
    let search = move || {
        for (partition, next_offset) in positions {
            let offset = next_offset.first_ahead();
            let Some(text) = probe::too_large_at(&context.kafka, &context.source.topic, partition, offset) else {
                continue;
            };
            let problem = FetchProblem { partition, trouble: FetchTrouble::TooLarge(offset), text };
            if problems.send(problem).is_err() {
                return;
            }
        }
    };
    supervisor::blocking(search).await;
}

/// Whether nothing of the view stands before a hole any more.
pub async fn is_truncation_over(context: &ViewContext) -> Result<bool, Failure> {
    let fail = |error| classify(error, None);
    let client = pool::connect_writer(&context.database, "public").await.map_err(fail)?;
    Ok(blocked::count(&client, &context.source, TRUNCATED).await.map_err(fail)? == 0)
}

/// Takes all `partitions` over, waiting for Postgres and Kafka as long as it takes, or as long as they are `wanted`:
/// a late takeover would fence the next owner. Reports as the takeover of that `number`. With `prove` each partition is
/// read first, whatever stands in it: we were not allowed to.
pub async fn acquire_all(
    context: &ViewContext,
    log: &Arc<LogReader>,
    (number, partitions, prove): (u64, &[Partition], bool),
    wanted: &Wanted,
) -> Takeover {
    let reporter = Reporter::Takeover(number);
    crash::point("part.takeover");
    let mut backoff = Backoff::default();
    let result = loop {
        match try_acquire(context, log, (partitions, prove), wanted).await.map_err(Failure::wait_or_halt) {
            Ok(acquired) => break Ok(acquired),
            Err(Err(halt)) => break Err(halt),
            // The group has taken back all of them: nobody waits for the answer.
            Err(Ok(_)) if !partitions.iter().any(|partition| is_wanted(wanted, *partition)) => break Ok(Vec::new()),
            Err(Ok((waiting, reason))) => context.status.report(reporter, waiting, &reason),
        }
        tokio::time::sleep(backoff.next_wait()).await;
    };
    context.status.clear(reporter);
    result
}

fn is_wanted(wanted: &Wanted, partition: Partition) -> bool {
    wanted.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition)
}

async fn try_acquire(
    context: &ViewContext,
    log: &Arc<LogReader>,
    (partitions, prove): (&[Partition], bool),
    wanted: &Wanted,
) -> Result<Vec<Acquired>, Failure> {
    let topic_id = context.guard.current().await?;
    context.compaction.confirm(context).await?;
    let client = pool::connect_writer(&context.database, "public").await.map_err(|error| classify(error, None))?;
    if is_paused(&client, context).await? {
        return Ok(Vec::new());
    }
    crash::point("part.acquiring");
    let acquired = acquire(context, &client, log, (partitions, prove, topic_id.as_deref()), wanted).await?;
    if let Some(topic_id) = topic_id {
        context.guard.expect(&topic_id);
    }
    // Whoever paused the view before we became the owners has not fenced us: what is ours is given to nobody.
    if is_paused(&client, context).await? {
        return Ok(Vec::new());
    }
    Ok(acquired)
}

/// Becomes the owner of each partition that is still wanted, and judges its log.
async fn acquire(
    context: &ViewContext,
    client: &Connection,
    log: &Arc<LogReader>,
    (partitions, prove, topic_id): (&[Partition], bool, Option<&str>),
    wanted: &Wanted,
) -> Result<Vec<Acquired>, Failure> {
    let fail = |error| classify(error, None);
    if !context.is_filling
        && let Some(since) = progress::loading_since(client, &context.source).await.map_err(fail)?
    {
        return Err(Failure::Retry(format!(
            "build {} is being loaded in bulk since {since}; if no `streamview load` runs any more, run it again or with --discard",
            context.source.build
        )));
    }
    meaning::confirm(client, context).await?;
    source::confirm(client, context, log, topic_id).await?;
    let mut acquired = Vec::new();
    for partition in partitions {
        if !is_wanted(wanted, *partition) {
            continue;
        }
        let marks = {
            let (log, partition) = (Arc::clone(log), *partition);
            blocking(move || log.watermarks(partition)).await?
        };
        if prove {
            let (log, partition) = (Arc::clone(log), *partition);
            blocking(move || log.try_read(partition, marks.low)).await?;
        }
        // No progress yet means: from the beginning of the log.
        let begin = NextOffset::before(marks.low);
        let owner = (topic_id, context.owner.as_str());
        let row = progress::acquire(client, (&context.source, &context.meaning), *partition, begin, owner)
            .await
            .map_err(fail)?;
        let Some(row) = row else {
            // Asked again, the build says to which one, or which rules.
            let why = "the build was bound to another topic, or given other rules, meanwhile";
            return Err(Failure::Retry(why.to_owned()));
        };
        let at_anchor = match row.anchor.filter(|anchor| marks.hold(anchor.offset)) {
            None => None,
            Some(anchor) => {
                let (log, partition) = (Arc::clone(log), *partition);
                blocking(move || log.record_at(partition, anchor.offset)).await?
            }
        };
        let evidence = Evidence {
            next_offset: row.next_offset,
            low: marks.low,
            high: marks.high,
            known_topic_id: row.topic_id.clone(),
            topic_id: topic_id.map(str::to_owned),
            anchor: row.anchor,
            at_anchor,
        };
        let judged = judge(*partition, &evidence).map_err(|mismatch| match mismatch {
            Mismatch::IdentityChanged(detail) => guard::changed(&detail),
            Mismatch::Truncated(detail) => truncated(&detail),
        });
        if let Err(failure) = judged {
            note_block(client, context, row.ownership(), &failure).await?;
            return Err(failure);
        }
        if is_still_too_large(context, *partition, row.next_offset).await? {
            continue;
        }
        let skipped = blocked::skipped(client, &context.source, *partition).await.map_err(fail)?;
        context.set_skipped(*partition, skipped);
        acquired.push(row);
    }
    Ok(acquired)
}

/// Whether an operator has paused the view.
async fn is_paused(client: &Connection, context: &ViewContext) -> Result<bool, Failure> {
    let pause = pauses::current(client, context.source.view).await.map_err(|error| classify(error, None))?;
    let is_paused = pause.is_some();
    if is_paused {
        // That it is resumed the steward says, who looks again and again.
        context.status.set_pause(pause);
    }
    Ok(is_paused)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, Failure> {
    supervisor::blocking(work).await.map_err(|error| Failure::KafkaAway(error.to_string()))
}
