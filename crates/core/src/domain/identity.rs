//! Is this still the log that our progress was made on? Pure: what was seen comes in, the verdict goes out.

use crate::domain::units::{Millis, NextOffset, Offset, Partition};

/// What is stored of our position and what the broker shows now, for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Our position.
    pub next_offset: NextOffset,
    /// First offset in the log.
    pub low: Offset,
    /// One past its last readable offset.
    pub high: NextOffset,
    /// Topic id under which progress was made, if the broker showed one then.
    pub known_topic_id: Option<String>,
    /// Topic id now, if shown.
    pub topic_id: Option<String>,
    /// The record consumed last: offset, checksum and timestamp.
    pub anchor: Option<Anchor>,
    /// What stands at the anchor's offset now; `None` if nothing readable does.
    pub at_anchor: Option<Anchor>,
}

/// What makes a record recognisable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Offset.
    pub offset: Offset,
    /// CRC-32 of key and value.
    pub crc: u32,
    /// Timestamp.
    pub timestamp_ms: Option<Millis>,
}

/// What speaks against going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The topic was deleted and created again, or another record stands where ours stood.
    IdentityChanged(String),
    /// Records that we have not seen are gone, or our position lies beyond the end.
    Truncated(String),
}

/// Judges the evidence.
///
/// | seen | verdict |
/// |---|---|
/// | topic ids differ | identity changed |
/// | another record at the anchor | identity changed |
/// | log begins after our position | truncated |
/// | log ends before our position | truncated |
/// | otherwise, also when the anchor itself was removed by retention or compaction | fine |
pub fn judge(partition: Partition, seen: &Evidence) -> Result<(), Mismatch> {
    if let (Some(known), Some(now)) = (&seen.known_topic_id, &seen.topic_id)
        && known != now
    {
        let detail = format!("topic id is {now}, but progress was made on topic id {known}");
        return Err(Mismatch::IdentityChanged(detail));
    }
    if let (Some(ours), Some(there)) = (seen.anchor, seen.at_anchor)
        && ours != there
    {
        let offset = ours.offset;
        return Err(Mismatch::IdentityChanged(format!(
            "partition {partition} offset {offset} holds another record than the one we consumed"
        )));
    }
    let Evidence { next_offset, low, high, .. } = seen;
    if *next_offset < NextOffset::before(*low) {
        return Err(Mismatch::Truncated(format!(
            "partition {partition} begins at offset {low}, but {next_offset} is the next we need"
        )));
    }
    if high < next_offset {
        return Err(Mismatch::Truncated(format!(
            "partition {partition} ends at offset {high}, before our position {next_offset}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        let anchor = Anchor { offset: Offset(9), crc: 1, timestamp_ms: Some(Millis(5)) };
        Evidence {
            next_offset: NextOffset(10),
            low: Offset(0),
            high: NextOffset(20),
            known_topic_id: Some("a".into()),
            topic_id: Some("a".into()),
            anchor: Some(anchor),
            at_anchor: Some(anchor),
        }
    }

    #[test]
    fn every_row_of_the_truth_table() {
        let identity = |seen: Evidence| matches!(judge(Partition(0), &seen), Err(Mismatch::IdentityChanged(_)));
        let truncated = |seen: Evidence| matches!(judge(Partition(0), &seen), Err(Mismatch::Truncated(_)));
        assert_eq!(judge(Partition(0), &evidence()), Ok(()));
        assert!(identity(Evidence { topic_id: Some("b".into()), ..evidence() }));
        let other = Anchor { offset: Offset(9), crc: 2, timestamp_ms: Some(Millis(5)) };
        assert!(identity(Evidence { at_anchor: Some(other), ..evidence() }));
        assert!(truncated(Evidence { low: Offset(11), at_anchor: None, ..evidence() }));
        assert!(truncated(Evidence { high: NextOffset(9), at_anchor: None, ..evidence() }));
        assert_eq!(
            judge(Partition(0), &Evidence { low: Offset(10), at_anchor: None, topic_id: None, ..evidence() }),
            Ok(())
        );
        assert_eq!(judge(Partition(0), &Evidence { high: NextOffset(10), ..evidence() }), Ok(()), "at the end");
    }
}
