//! Looks, before anything is made, what can be expected of a rebuild: whether the log still holds what the present build
//! was made from (judged in [`crate::domain::preflight`]), how much there is to read, and how much room it may take.
//!
//! Postgres does not tell in SQL how much room is left on its disks, so there is only the estimate, for people: the present
//! build's tables with their indexes. A new build is not larger than that unless its projection is another one, since it
//! has no dead rows; sorting for its indexes takes up to as much again as the largest of them, for a while. If the disk is full
//! all the same, the load fails by that name, and the present build is as it was.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::config::{Config, KafkaSettings};
use crate::domain::identity::Anchor;
use crate::domain::preflight::{Evidence, Outlook, Standing, Stretch, judge};
use crate::domain::source::{self, Bond, Log};
use crate::domain::units::{Millis, NextOffset, Offset, Partition};
use crate::platforms::kafka::log::{LogReader, Watermarks};
use crate::platforms::kafka::topic_id::{TopicIdReader, TopicIdentity};
use crate::platforms::kafka::topic_settings::{CleanupPolicy, cleanup_policy};
use crate::projector::runtime::Parts;
use crate::store::progress::BuildSource;
use crate::store::{self, Connection, DbError, names, pool};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight {
    /// Whether it can begin.
    pub outlook: Outlook,
    /// Records that there are to read; control records count.
    pub records: i64,
    /// Bytes on disk that the new build may take.
    pub bytes: i64,
}

/// Looks. `parts` are those of the present build of `view`, of the configuration as it is. An error: Kafka or Postgres
/// does not answer.
pub async fn preflight(view: &'static str, parts: &Parts) -> Result<Preflight> {
    look(&parts.config, parts.source(view)).await
}

/// The same of a build that nobody has to run.
pub async fn look(config: &Config, source: BuildSource) -> Result<Preflight> {
    let client = pool::connect_writer(&config.database, &names::search_path(source.id()))
        .await
        .context("cannot connect to Postgres")?;
    // Reads whole tables, as long as that takes.
    client.batch_execute("set statement_timeout = 0; set enable_seqscan = on").await?;
    let bytes = client.query_one(include_str!("sql/build_bytes.sql"), &[&names::schema(source.id())]).await?;
    let binding = store::source::read(&client, &source).await?;
    // Before the ends of the log: the build is fed meanwhile, and must not seem to be beyond them.
    let mut standings = standings(&client, &source).await?;
    let seen = look_at_log(&config.kafka, &source.topic, &standings).await?;
    let Some(seen) = seen else {
        let outlook = judge(&evidence(Bond::Bound, Vec::new(), None, &config.kafka));
        return Ok(Preflight { outlook, records: 0, bytes: bytes.try_get(0)? });
    };
    if seen.extents.values().any(|marks| marks.low > Offset(0)) {
        for (partition, offset) in least_offsets(&client, &source).await? {
            if let Some(standing) = standings.get_mut(&partition) {
                standing.least_known = Some(offset);
            }
        }
    }
    let records = seen.extents.values().map(|marks| NextOffset::before(marks.low).distance_to(marks.high)).sum();
    // Of whatever topic: it may be another one by now.
    let has_consumed = store::build::consumed(&client, &source).await? > 0;
    let bond = source::judge(&binding, &seen.log, has_consumed);
    let partitions = with_log(standings, &seen);
    let outlook = judge(&evidence(bond, partitions, seen.cleanup_policy, &config.kafka));
    Ok(Preflight { outlook, records, bytes: bytes.try_get(0)? })
}

fn evidence(bond: Bond, partitions: Vec<Standing>, cleanup_policy: Option<String>, kafka: &KafkaSettings) -> Evidence {
    Evidence { bond, partitions, cleanup_policy, allow_compacted: kafka.allow_compacted }
}

/// What the log shows.
struct SeenLog {
    log: Log,
    extents: BTreeMap<Partition, Watermarks>,
    at_anchors: BTreeMap<Partition, Anchor>,
    cleanup_policy: Option<String>,
}

/// `None`: there is no such topic.
async fn look_at_log(
    kafka: &KafkaSettings,
    topic: &str,
    standings: &BTreeMap<Partition, Standing>,
) -> Result<Option<SeenLog>> {
    let anchors: Vec<(Partition, Anchor)> =
        standings.values().filter_map(|standing| Some((standing.partition, standing.anchor?))).collect();
    let (settings, name) = (kafka.clone(), topic.to_owned());
    let looked = tokio::task::spawn_blocking(move || look_blocking(&settings, &name, &anchors));
    let Some(mut seen) = looked.await.context("the log reader failed")?? else { return Ok(None) };
    seen.cleanup_policy = match cleanup_policy(kafka, topic).await {
        Ok(CleanupPolicy::Known(policy)) => Some(policy),
        // Believed to keep everything, as by the projector.
        Ok(CleanupPolicy::Untold(_)) => None,
        // Whatever it is, that is meant; and not every broker answers the question.
        Err(_) if kafka.allow_compacted => None,
        Err(error) => bail!("Kafka at {} does not tell how it keeps the topic: {error}", kafka.bootstrap_servers),
    };
    Ok(Some(seen))
}

fn look_blocking(kafka: &KafkaSettings, topic: &str, anchors: &[(Partition, Anchor)]) -> Result<Option<SeenLog>> {
    let away = || format!("Kafka at {} does not answer", kafka.bootstrap_servers);
    let topic_id = if kafka.topic_ids {
        match TopicIdReader::open(kafka, topic)?.read().map_err(anyhow::Error::msg).with_context(away)? {
            TopicIdentity::Id(id) => Some(id),
            TopicIdentity::Missing => return Ok(None),
        }
    } else {
        None
    };
    let reader = LogReader::open(kafka, topic)?;
    let extents: BTreeMap<Partition, Watermarks> = reader.extents().with_context(away)?.into_iter().collect();
    if extents.is_empty() {
        return Ok(None);
    }
    let mut at_anchors = BTreeMap::new();
    for (partition, anchor) in anchors {
        if !extents.get(partition).is_some_and(|marks| marks.hold(anchor.offset)) {
            continue;
        }
        if let Some(there) = reader.record_at(*partition, anchor.offset).with_context(away)? {
            at_anchors.insert(*partition, there);
        }
    }
    let log = Log { cluster: reader.cluster_id(), topic: topic.to_owned(), topic_id };
    Ok(Some(SeenLog { log, extents, at_anchors, cleanup_policy: None }))
}

/// The partitions of either.
fn with_log(mut standings: BTreeMap<Partition, Standing>, seen: &SeenLog) -> Vec<Standing> {
    for (partition, marks) in &seen.extents {
        let standing = standings.entry(*partition).or_insert_with(|| Standing {
            partition: *partition,
            next_offset: NextOffset::before(marks.low),
            consumed: 0,
            least_known: None,
            skipped: Vec::new(),
            log: None,
            anchor: None,
            at_anchor: None,
        });
        standing.log = Some(Stretch { from: marks.low, to: marks.high });
        standing.at_anchor = seen.at_anchors.get(partition).copied();
    }
    standings.into_values().collect()
}

/// Where the build stands, without what the log shows of it.
async fn standings(client: &Connection, source: &BuildSource) -> Result<BTreeMap<Partition, Standing>, DbError> {
    let statement = include_str!("sql/standing.sql");
    let rows = client.query(statement, &[&source.view, &source.build.0, &source.topic]).await?;
    rows.iter()
        .map(|row| {
            let partition = Partition(row.try_get(0)?);
            let (offset, crc): (Option<i64>, Option<i64>) = (row.try_get(3)?, row.try_get(4)?);
            let timestamp_ms = row.try_get::<_, Option<i64>>(5)?.map(Millis);
            let anchor =
                offset.zip(crc).map(|(offset, crc)| Anchor { offset: Offset(offset), crc: crc as u32, timestamp_ms });
            let (from, to): (Vec<i64>, Vec<i64>) = (row.try_get(6)?, row.try_get(7)?);
            let stretch = |(from, to)| Stretch { from: Offset(from), to: NextOffset(to) };
            let standing = Standing {
                partition,
                next_offset: NextOffset(row.try_get(1)?),
                consumed: row.try_get(2)?,
                least_known: None,
                skipped: from.into_iter().zip(to).map(stretch).collect(),
                log: None,
                anchor,
                at_anchor: None,
            };
            Ok((partition, standing))
        })
        .collect()
}

async fn least_offsets(client: &Connection, source: &BuildSource) -> Result<Vec<(Partition, Offset)>, DbError> {
    let statement = include_str!("sql/least_offsets.sql");
    let rows = client.query(statement, &[&source.view, &source.build.0, &source.topic]).await?;
    rows.iter().map(|row| Ok((Partition(row.try_get(0)?), Offset(row.try_get(1)?)))).collect()
}
