//! What a view needs of both at once: that the log is the one that it is made from, and still holds what it has yet to read,
//! and what a rebuild would.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::database::Database;
use super::kafka::{Kafka, rights_of_groups};
use super::{Check, LONG_PATIENCE, Status};
use crate::app::Served;
use crate::builds::preflight::{self, Preflight};
use crate::config::Config;
use crate::domain::build::Build;
use crate::domain::identity::{Evidence, Mismatch, judge};
use crate::domain::preflight::Outlook;
use crate::domain::units::{NextOffset, Partition};
use crate::platforms::kafka::log::{LogReader, Watermarks};
use crate::projector::{guard, source, takeover};
use crate::steward::group_of;
use crate::store::progress::BuildSource;
use crate::store::sqlstate::describe_chain;
use crate::store::{inspect, pool};

const POSITION: &str = "view.position";
const HISTORY: &str = "view.history";

/// Looks at one view.
pub async fn examine(config: &Arc<Config>, served: &Served, database: &Database, kafka: &Kafka) -> Vec<Check> {
    let (view, settings) = (served.0.name, &served.1);
    let source = database.builds.iter().find(|source| source.view == view);
    let (position, history, groups) = tokio::join!(
        async {
            match because(source, &settings.topic, kafka) {
                Ok(source) => bounded(POSITION, view, position(config, source)).await,
                Err(because) => Check::not_asked(POSITION, view, because),
            }
        },
        async {
            match because(source, &settings.topic, kafka) {
                Ok(source) => bounded(HISTORY, view, history(config, source)).await,
                Err(because) => Check::not_asked(HISTORY, view, because),
            }
        },
        async {
            let build = source.map_or(Build(1), |source| source.build);
            let [present, next] = [build, Build(build.0 + 1)].map(|build| group_of(config, view, build));
            match kafka.answers {
                true => rights_of_groups(&config.kafka, present, next).await,
                false => vec![Check::not_asked("kafka.rights", format!("group {present}"), "no broker answers")],
            }
        },
    );
    let position = match history.status {
        // Numbers of one log say nothing in another.
        Status::Failed => Check::not_asked(POSITION, view, "the log is not the one that the build is made from"),
        _ => position,
    };
    groups.into_iter().chain([position, history]).collect()
}

/// The build, or because of what nothing can be told of it.
fn because<'s>(source: Option<&'s BuildSource>, topic: &str, kafka: &Kafka) -> Result<&'s BuildSource, &'static str> {
    match source {
        None => Err("its build could not be looked at in Postgres"),
        Some(_) if !kafka.answers => Err("no broker answers"),
        Some(_) if !kafka.topics.contains(topic) => Err("its topic could not be looked at"),
        Some(source) => Ok(source),
    }
}

async fn bounded(name: &'static str, view: &str, look: impl Future<Output = anyhow::Result<Check>>) -> Check {
    match timeout(LONG_PATIENCE, look).await {
        Ok(Ok(check)) => check,
        Ok(Err(error)) => Check::not_asked(name, view, describe_chain(error.chain())),
        Err(_) => Check::not_asked(name, view, format!("it takes longer than {} s to tell", LONG_PATIENCE.as_secs())),
    }
}

/// Whether the log still holds what is to be read next.
async fn position(config: &Arc<Config>, build: &BuildSource) -> anyhow::Result<Check> {
    let client = pool::connect_writer(&config.database, "public").await?;
    let positions = inspect::positions(&client, build).await?;
    let (kafka, topic) = (config.kafka.clone(), build.topic.clone());
    let extents = spawn_blocking(move || LogReader::open(&kafka, &topic)?.extents()).await??;
    let lost = positions.iter().filter_map(|(partition, next_offset)| lost(*partition, *next_offset, &extents));
    let lost: Vec<String> = lost.collect();
    if !lost.is_empty() {
        return Ok(Check::failure(POSITION, build.view, takeover::truncated(&lost.join("; "))));
    }
    let left: i64 = extents
        .iter()
        .map(|(partition, marks)| {
            let stored = positions.iter().find(|(stored, _)| stored == partition);
            stored.map_or(NextOffset::before(marks.low), |(_, next_offset)| *next_offset).distance_to(marks.high)
        })
        .sum();
    let message = format!("{} partitions, all that is to be read next is there; {left} records are", extents.len());
    Ok(Check::ok(POSITION, build.view, message))
}

/// What the owner of the partition would say of what is lost, as it would when it takes it over.
fn lost(partition: Partition, next_offset: NextOffset, extents: &[(Partition, Watermarks)]) -> Option<String> {
    let (_, marks) = extents.iter().find(|(known, _)| *known == partition)?;
    let evidence = Evidence {
        next_offset,
        low: marks.low,
        high: marks.high,
        known_topic_id: None,
        topic_id: None,
        anchor: None,
        at_anchor: None,
    };
    match judge(partition, &evidence) {
        Err(Mismatch::Truncated(detail)) => Some(detail),
        Ok(()) | Err(Mismatch::IdentityChanged(_)) => None,
    }
}

/// Whether the log still makes the view.
async fn history(config: &Arc<Config>, build: &BuildSource) -> anyhow::Result<Check> {
    let Preflight { outlook, records, .. } = preflight::look(config, build.clone()).await?;
    let view = build.view;
    Ok(match &outlook {
        Outlook::Whole => {
            Check::ok(HISTORY, view, format!("the log makes all that {} holds: {records} records", build.id()))
        }
        Outlook::AnotherLog(words) => Check::failure(HISTORY, view, guard::changed(words)),
        Outlook::Elsewhere(words) => Check::failure(HISTORY, view, source::elsewhere(words)),
        Outlook::Truncated { .. } | Outlook::Compacted(_) => Check::warning(
            HISTORY,
            view,
            format!("{}; reads are right, and a rebuild would lack that", outlook.detail()),
            "restore the records before the view is rebuilt; or, to make it without them: \
             streamview rebuild --accept-truncated --reason '…'",
        ),
    })
}
