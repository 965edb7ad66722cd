//! Sources that nobody has declared and no registry knows: topics of JSON objects, with the columns that their latest records
//! have. Only the embedded engine reads them: it refuses a record that does not fit by itself, where others would fail.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use super::Shared;
use crate::catalog::Column;
use crate::catalog::infer::Sample;
use crate::engines::EngineKind;
use crate::ports::{From, Place, PortError};

/// Records of a topic that are looked at.
const RECORDS: usize = 200;
/// Bytes of them.
const BYTES: usize = 1024 * 1024;
/// How long a topic's records are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long whoever asks waits for all topics.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(5);
/// How long a sample counts, and how long that there was none.
const FRESH: Duration = Duration::from_secs(60);
const FRESH_NOTHING: Duration = Duration::from_secs(10);
/// Topics that are read at once.
const AT_ONCE: usize = 4;
/// Topics that are looked at. More are not: somebody has to declare them.
const TOPICS: usize = 200;

/// What was seen of topics, and when.
#[derive(Default)]
pub(super) struct Samples(Mutex<HashMap<String, Seen>>);

/// When, and which columns, if any.
type Seen = (Instant, Option<Vec<Column>>);

impl Samples {
    fn known(&self, topic: &str) -> Option<Option<Vec<Column>>> {
        let samples = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (at, columns) = samples.get(topic)?;
        let fresh = if columns.is_some() { FRESH } else { FRESH_NOTHING };
        (at.elapsed() < fresh).then(|| columns.clone())
    }

    fn note(&self, topic: &str, columns: Option<Vec<Column>>) {
        let mut samples = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        samples.insert(topic.to_owned(), (Instant::now(), columns));
    }

    fn keep_only(&self, topics: &HashSet<&str>) {
        let mut samples = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        samples.retain(|topic, _| topics.contains(topic.as_str()));
    }
}

/// What a look at topics has found.
#[derive(Debug, Default)]
pub(super) struct Inferred {
    pub columns: Vec<(String, Vec<Column>)>,
    pub missing: Vec<String>,
}

impl Shared {
    /// Whether anybody could select from them.
    pub(super) fn infers(&self) -> bool {
        self.engine(EngineKind::Embedded).is_ok()
    }

    /// The columns of these topics, as far as they are seen in time.
    pub(super) async fn inferred(&self, samples: &Samples, mut topics: Vec<String>) -> Inferred {
        samples.keep_only(&topics.iter().map(String::as_str).collect());
        topics.sort();
        let more = topics.len().saturating_sub(TOPICS);
        topics.truncate(TOPICS);
        let mut found = Inferred::default();
        if more > 0 {
            found
                .missing
                .push(format!("{more} topics are not looked at for their columns: declare those that are read"));
        }
        let wanted = topics.len();
        let looks = topics.into_iter().map(|topic| async move {
            let columns = match samples.known(&topic) {
                Some(columns) => Ok(columns),
                None => self.sampled(&topic).await.inspect(|columns| samples.note(&topic, columns.clone())),
            };
            (topic, columns)
        });
        let looks = futures_util::stream::iter(looks).buffer_unordered(AT_ONCE);
        let mut looks = std::pin::pin!(looks.take_until(tokio::time::sleep(PATIENCE_IN_ALL)));
        let mut seen = 0;
        while let Some((topic, columns)) = looks.next().await {
            seen += 1;
            match columns {
                Ok(columns) => found.columns.extend(columns.map(|columns| (topic, columns))),
                Err(PortError::NoTopic(_)) => {}
                Err(error) => {
                    samples.note(&topic, None);
                    tracing::debug!(topic, error = %error, "a topic's columns are not known");
                }
            }
        }
        if seen < wanted {
            found.missing.push(format!("{} topics were not looked at in time: ask again", wanted - seen));
        }
        found
    }

    /// What the latest records of a topic have for columns.
    async fn sampled(&self, topic: &str) -> Result<Option<Vec<Column>>, PortError> {
        let marks = self.parts.kafka.watermarks(topic).await?;
        let last = marks.iter().map(|(_, next)| *next).max().unwrap_or_default();
        let begin = last.saturating_sub(i64::try_from(RECORDS).unwrap_or(i64::MAX)).max(0);
        let of_partition = |(first, next): &(i64, i64)| next - begin.clamp(*first, (*next).max(*first));
        let there = marks.iter().map(of_partition).sum::<i64>();
        let wanted = usize::try_from(there).unwrap_or_default().min(RECORDS);
        if wanted == 0 {
            return Ok(None);
        }
        let records = self.parts.kafka.tail(topic, From::Offset(begin), Place::default()).await?;
        // What a transaction has left counts as a record and is none: so it is waited no longer than this.
        let mut records = std::pin::pin!(records.take(wanted).take_until(tokio::time::sleep(PATIENCE)));
        let (mut sample, mut bytes) = (Sample::default(), 0);
        while let Some(record) = records.next().await {
            let Some(value) = record?.value else { continue };
            bytes += value.len();
            if !sample.add(&value) {
                return Ok(None);
            }
            if bytes >= BYTES {
                break;
            }
        }
        Ok(sample.columns())
    }
}
