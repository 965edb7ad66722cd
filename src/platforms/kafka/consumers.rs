//! Which consumer groups read a topic, and how far. Joins no group. Brokers that cannot list groups, as that of the playground, are
//! asked by nothing but the call that lists them, whose refusal is harmless: other calls that a broker does not know have
//! librdkafka end the process.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::groups::GroupInfo;
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::config::KafkaSettings;
use crate::manager::ports::{ConsumerGroup, Consumers, PortError};
use crate::platforms::kafka::listener::Listener;
use crate::platforms::kafka::topics::{TIMEOUT, behind, fault, is_missing, partitions, position};
use crate::platforms::kafka::{base_config, open};

/// How long all of it may take. Groups that are left then are not asked.
const PATIENCE: Duration = Duration::from_secs(20);

/// A group that may read the topic.
struct Candidate {
    group: String,
    state: String,
    /// Members that have partitions of the topic; `None`: they do not say.
    members: Option<usize>,
    /// Where in line it is asked.
    rank: u8,
}

/// The groups that read `topic`, of the first `most` that could. Blocks for [`PATIENCE`] and one question at most.
pub(super) fn of(settings: &KafkaSettings, topic: &str, most: usize) -> Result<Consumers, PortError> {
    let until = Instant::now() + PATIENCE;
    let consumer = member(settings, "streamview-topics")?;
    let listed = consumer.fetch_group_list(None, TIMEOUT).map_err(|error| untold(&consumer, &error))?;
    let mut candidates: Vec<Candidate> = listed.groups().iter().filter_map(|group| candidate(group, topic)).collect();
    candidates.sort_by(|one, other| (one.rank, &one.group).cmp(&(other.rank, &other.group)));
    let ends = ends(&consumer, topic).map_err(|error| match is_missing(&error) {
        true => PortError::NoTopic(topic.to_owned()),
        false => fault(&consumer, &error),
    })?;
    let mut found = Consumers::default();
    for (place, candidate) in candidates.into_iter().enumerate() {
        let reads = candidate.members.is_some_and(|members| members > 0);
        let asked = if place < most && Instant::now() < until {
            lag(settings, &candidate.group, topic, &ends)
        } else {
            found.not_asked += 1;
            continue;
        };
        let (lag, trouble) = match asked {
            Ok(lag) => (lag, None),
            Err(error) => (None, Some(error.to_string())),
        };
        // Whoever reads it or has read it; of one that does not tell its positions nothing more is known.
        if reads || lag.is_some() {
            let Candidate { group, state, members, .. } = candidate;
            found.groups.push(ConsumerGroup { group, state, members, lag, trouble });
        } else if trouble.is_some() {
            found.not_asked += 1;
        }
    }
    found.groups.sort_by(|one, other| one.group.cmp(&other.group));
    Ok(found)
}

/// A client that could be of that group, and joins nothing.
fn member(settings: &KafkaSettings, group: &str) -> Result<BaseConsumer<Listener>, PortError> {
    let mut config = base_config(settings);
    config.set("group.id", group).set("enable.auto.commit", "false");
    open(&config, Listener::new(settings)).map_err(|error| PortError::Refused(error.to_string()))
}

/// Why groups are not listed.
fn untold(consumer: &BaseConsumer<Listener>, error: &KafkaError) -> PortError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion) => {
            PortError::Refused("this broker cannot list consumer groups (the one of the playground cannot)".to_owned())
        }
        _ => fault(consumer, error),
    }
}

fn candidate(group: &GroupInfo, topic: &str) -> Option<Candidate> {
    // Connect's workers and registries are groups too, and read no topics.
    if !matches!(group.protocol_type(), "consumer" | "") {
        return None;
    }
    // A group of the newer protocol tells its members to nobody who asks by the old one.
    let tells = group.state() != "Dead";
    let with_topic =
        group.members().iter().filter(|member| member.assignment().is_some_and(|bytes| names(bytes, topic)));
    let members = tells.then(|| with_topic.count());
    let rank = match members {
        Some(1..) => 0,
        _ if group.members().is_empty() => 1,
        _ => 2,
    };
    let state = if tells { group.state() } else { "not told" };
    Some(Candidate { group: group.name().to_owned(), state: state.to_owned(), members, rank })
}

/// Whether an assignment names a topic. As consumers tell it to their group: a version, then topics with their partitions, all
/// numbers big-endian (Kafka's `ConsumerProtocolAssignment`).
fn names(mut rest: &[u8], topic: &str) -> bool {
    fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
        let (taken, tail) = rest.split_at_checked(count)?;
        *rest = tail;
        Some(taken)
    }
    fn number(rest: &mut &[u8], bytes: usize) -> Option<usize> {
        let taken = take(rest, bytes)?;
        Some(taken.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
    let mut found = || {
        take(&mut rest, 2)?;
        for _ in 0..number(&mut rest, 4)? {
            let length = number(&mut rest, 2)?;
            let name = take(&mut rest, length)?;
            let partitions = number(&mut rest, 4)?;
            take(&mut rest, partitions.checked_mul(4)?)?;
            if name == topic.as_bytes() && partitions > 0 {
                return Some(());
            }
        }
        None
    };
    found().is_some()
}

/// A partition, with its first offset and the next one.
type Ends = (i32, (i64, i64));

/// The partitions of a topic.
fn ends(consumer: &BaseConsumer<Listener>, topic: &str) -> Result<Vec<Ends>, KafkaError> {
    let partitions = partitions(consumer, topic, TIMEOUT)?;
    let ends = partitions
        .into_iter()
        .map(|partition| consumer.fetch_watermarks(topic, partition, TIMEOUT).map(|ends| (partition, ends)));
    ends.collect()
}

/// Records that a group has not committed; `None` if it has committed nothing.
fn lag(settings: &KafkaSettings, group: &str, topic: &str, ends: &[Ends]) -> Result<Option<u64>, PortError> {
    let consumer = member(settings, group)?;
    let mut list = TopicPartitionList::new();
    for (partition, _) in ends {
        list.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(list, TIMEOUT).map_err(|error| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::GroupAuthorizationFailed) => PortError::Refused(format!(
            "Kafka does not let us see the positions of group {group}: grant DESCRIBE on it"
        )),
        _ => fault(&consumer, &error),
    })?;
    let of = |partition: i32| committed.find_partition(topic, partition).and_then(|found| position(found.offset()));
    if ends.iter().all(|(partition, _)| of(*partition).is_none()) {
        return Ok(None);
    }
    Ok(Some(ends.iter().map(|(partition, ends)| behind(of(*partition), *ends)).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An assignment as a consumer has it.
    fn assignment(topics: &[(&str, &[i32])]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend((topics.len() as i32).to_be_bytes());
        for (name, partitions) in topics {
            bytes.extend((name.len() as i16).to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend((partitions.len() as i32).to_be_bytes());
            bytes.extend(partitions.iter().flat_map(|partition| partition.to_be_bytes()));
        }
        bytes.extend((-1_i32).to_be_bytes()); // no user data
        bytes
    }

    #[test]
    fn an_assignment_names_the_topics_that_it_has_partitions_of() {
        let bytes = assignment(&[("a", &[0, 1]), ("ab", &[7]), ("none", &[])]);
        assert!(names(&bytes, "a") && names(&bytes, "ab"));
        assert!(!names(&bytes, "b") && !names(&bytes, "none") && !names(&bytes, ""));
        // Whatever its length, and however long it says it is.
        assert!((0..bytes.len()).all(|end| !names(&bytes[..end], "zz")));
        assert!(!names(&[0; 6], "a") && !names(&[0xff; 64], "a"));
    }
}
