//! May a view be rebuilt from its log? Only if the log still holds what the present build was made from. Pure: what was
//! seen comes in, the outlook goes out.
//!
//! A progress row does not say where its build began. It consumed each record once, so it began no later than the number of
//! its records before its position, skipped offsets not counted; control records and compacted offsets may have been in
//! between, so perhaps earlier, and the least offset among its own rows may tell. A build that began where the log began
//! then, after offset 0, has lost nothing if the log begins there still.

use std::fmt;

use crate::domain::identity::Anchor;
use crate::domain::source::Bond;
use crate::domain::units::{NextOffset, Offset, Partition};

/// Offsets that follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The first one.
    pub from: Offset,
    /// The position behind the last one.
    pub to: NextOffset,
}

/// Offsets of a partition that a rebuild would not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The partition.
    pub partition: Partition,
    /// The offsets.
    pub stretch: Stretch,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Missing { partition, stretch: Stretch { from, to } } = self;
        write!(formatter, "partition {partition}: offsets {from} up to, but not with, {to}")
    }
}

/// One partition, as the present build and the log show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The partition.
    pub partition: Partition,
    /// The build's position.
    pub next_offset: NextOffset,
    /// How many records it has consumed.
    pub consumed: i64,
    /// The least offset that it is known to have consumed, by its rows.
    pub least_known: Option<Offset>,
    /// What operators have skipped.
    pub skipped: Vec<Stretch>,
    /// Where the log begins and ends, asked for after the build's position; `None`: it has no such partition.
    pub log: Option<Stretch>,
    /// The record that the build consumed last, if it is still to be there.
    pub anchor: Option<Anchor>,
    /// What stands in its place; `None` if nothing readable does.
    pub at_anchor: Option<Anchor>,
}

/// Everything that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Whether the log is the one that the build is bound to.
    pub bond: Bond,
    /// The partitions of either; none: there is no such topic.
    pub partitions: Vec<Standing>,
    /// The topic's cleanup policy, if the broker tells.
    pub cleanup_policy: Option<String>,
    /// Whether a compacted topic is meant to be one.
    pub allow_compacted: bool,
}

/// What can be expected of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// It will read all that the present build was made from.
    Whole,
    /// It would not: who wants it anyway has to say so.
    Truncated {
        /// What is gone, by partition.
        missing: Vec<Missing>,
        /// Whether the broker removes further records anywhere: what is gone of those nobody can tell.
        is_compacted: bool,
    },
    /// The broker removes records that later ones replace, and nobody has said that this is meant; its policy.
    Compacted(String),
    /// The view is configured to be made from another topic or cluster than the present build; in words.
    Elsewhere(String),
    /// It is not the log any more that the present build was made from; in words.
    AnotherLog(String),
}

impl Outlook {
    /// The stable name of what speaks against it.
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Outlook::Whole => None,
            Outlook::Truncated { .. } => Some("history_truncated"),
            Outlook::Compacted(_) => Some("topic_compacted"),
            Outlook::Elsewhere(_) => Some("source_changed"),
            Outlook::AnotherLog(_) => Some("log_identity_changed"),
        }
    }

    /// What speaks against it, in words; nothing where nothing does.
    pub fn detail(&self) -> String {
        match self {
            Outlook::Whole => String::new(),
            Outlook::Truncated { missing, is_compacted } => {
                let mut words: Vec<String> = missing.iter().map(ToString::to_string).collect();
                if *is_compacted {
                    words.push("the topic is compacted, so further records may be gone anywhere".to_owned());
                }
                format!("the log does not hold all that the present build was made from: {}", words.join("; "))
            }
            Outlook::Compacted(policy) => format!("the topic is compacted (cleanup.policy = {policy})"),
            Outlook::Elsewhere(words) | Outlook::AnotherLog(words) => words.clone(),
        }
    }

    /// Whether a rebuild may begin; what is gone counts only if nobody has accepted that.
    pub const fn may_begin(&self, accept_truncated: bool) -> bool {
        match self {
            Outlook::Whole => true,
            Outlook::Truncated { .. } => accept_truncated,
            Outlook::Compacted(_) | Outlook::Elsewhere(_) | Outlook::AnotherLog(_) => false,
        }
    }

    /// Whether the present build may be cleared and made anew in place. Of another log nothing of it would come again, which
    /// counts only if nobody has accepted that.
    pub const fn may_clear(&self, accept_truncated: bool) -> bool {
        match self {
            Outlook::Elsewhere(_) | Outlook::AnotherLog(_) => accept_truncated,
            _ => self.may_begin(accept_truncated),
        }
    }

    /// What the operator can do: one of these.
    pub const fn choices(&self) -> &'static [&'static str] {
        match self {
            Outlook::Whole => &[],
            Outlook::Truncated { .. } => &[
                "restore the records in the topic and ask again",
                "ask with acceptTruncated: true, and the new build will be made without them: orders whose first events are \
                 gone will be held",
                "keep the present build, which has them",
            ],
            Outlook::Compacted(_) => &[
                "set cleanup.policy=delete on the topic and look whether events are missing already",
                "accept the gaps with kafka.allow_compacted = true",
            ],
            Outlook::Elsewhere(_) => &[
                "set kafka.bootstrap_servers and the view's topic back",
                "if the topic was moved with its offsets, say so with `streamview source moved`",
                "begin anew from the other topic in an empty database",
            ],
            Outlook::AnotherLog(_) => &[
                "restore the topic",
                "keep the present build: this log does not make its rows",
                "begin anew from the new topic in an empty database",
            ],
        }
    }

    /// The same in one sentence.
    pub fn next_step(&self) -> String {
        match self.choices() {
            [] => "none".to_owned(),
            choices => choices.join("; or "),
        }
    }
}

/// Judges; the first row that fits.
///
/// | seen | outlook |
/// |---|---|
/// | the build is bound to another topic or cluster | elsewhere |
/// | it is bound to another topic of that name | another log |
/// | there is no such topic, or not the partition; the log ends before the build's position; another record at the anchor | another log |
/// | the topic is compacted and that is not meant | compacted |
/// | it is compacted, or begins after what the build has consumed, skipped offsets not counted | truncated |
/// | otherwise | whole |
pub fn judge(seen: &Evidence) -> Outlook {
    match &seen.bond {
        Bond::Elsewhere(words) => return Outlook::Elsewhere(words.clone()),
        Bond::Recreated(words) => return Outlook::AnotherLog(words.clone()),
        Bond::Bound | Bond::Bind(_) => {}
    }
    if seen.partitions.is_empty() {
        return Outlook::AnotherLog("the topic does not exist".to_owned());
    }
    if let Some(words) = seen.partitions.iter().find_map(of_another_log) {
        return Outlook::AnotherLog(words);
    }
    let policy = seen.cleanup_policy.as_deref().unwrap_or_default();
    let is_compacted = policy.split(',').any(|part| part.trim() == "compact");
    if is_compacted && !seen.allow_compacted {
        return Outlook::Compacted(policy.to_owned());
    }
    let missing: Vec<Missing> = seen.partitions.iter().flat_map(missing).collect();
    if missing.is_empty() && !is_compacted { Outlook::Whole } else { Outlook::Truncated { missing, is_compacted } }
}

/// Why the build was not made from this partition, if so.
fn of_another_log(seen: &Standing) -> Option<String> {
    let Standing { partition, next_offset, .. } = seen;
    let begin = first(seen)?;
    let Some(log) = seen.log else {
        return Some(format!("the topic has no partition {partition}, of which the build has consumed records"));
    };
    if log.to < *next_offset {
        return Some(format!(
            "partition {partition} ends at offset {}, but the build has consumed it from {begin} up to {next_offset}",
            log.to
        ));
    }
    match (seen.anchor, seen.at_anchor) {
        (Some(ours), Some(there)) if ours != there => Some(format!(
            "partition {partition} offset {} holds another record than the one that the build consumed",
            ours.offset
        )),
        _ => None,
    }
}

/// The first offset that the build has consumed, as far as can be told; `None`: it has consumed nothing.
fn first(seen: &Standing) -> Option<Offset> {
    let counted = (seen.consumed > 0).then(|| {
        let (mut left, mut at) = (seen.consumed, seen.next_offset.0);
        let mut skipped = seen.skipped.clone();
        skipped.sort_by_key(|stretch| std::cmp::Reverse(stretch.to));
        for Stretch { from, to } in skipped {
            let read = at - to.0.min(at);
            if left <= read {
                break;
            }
            left -= read;
            at = from.0.min(at);
        }
        Offset((at - left).max(0))
    });
    counted.into_iter().chain(seen.least_known).min()
}

/// What the build has consumed before the log begins, without what was skipped anyway.
fn missing(seen: &Standing) -> Vec<Missing> {
    let (Some(begin), Some(log)) = (first(seen), seen.log) else { return Vec::new() };
    let mut skipped = seen.skipped.clone();
    skipped.sort_by_key(|stretch| stretch.from);
    let (mut at, mut gone) = (begin.0, Vec::new());
    for Stretch { from, to } in skipped {
        gone.push((at, from.0));
        at = at.max(to.0);
    }
    gone.push((at, i64::MAX));
    let low = log.from.0;
    let cut = gone.into_iter().map(|(from, to)| (from, to.min(low))).filter(|(from, to)| from < to);
    cut.map(|(from, to)| Missing {
        partition: seen.partition,
        stretch: Stretch { from: Offset(from), to: NextOffset(to) },
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::Millis;

    fn stretch(from: i64, to: i64) -> Stretch {
        Stretch { from: Offset(from), to: NextOffset(to) }
    }

    /// A partition of which 0 up to 80 are consumed, all there.
    fn standing() -> Standing {
        let anchor = Anchor { offset: Offset(79), crc: 1, timestamp_ms: Some(Millis(5)) };
        Standing {
            partition: Partition(3),
            next_offset: NextOffset(80),
            consumed: 80,
            least_known: None,
            skipped: Vec::new(),
            log: Some(stretch(0, 100)),
            anchor: Some(anchor),
            at_anchor: Some(anchor),
        }
    }

    fn evidence(standing: Standing) -> Evidence {
        let cleanup_policy = Some("delete".to_owned());
        Evidence { bond: Bond::Bound, partitions: vec![standing], cleanup_policy, allow_compacted: false }
    }

    fn gone(standing: Standing) -> Vec<(i64, i64)> {
        match judge(&evidence(standing)) {
            Outlook::Whole => Vec::new(),
            Outlook::Truncated { missing, is_compacted: false } => {
                assert!(missing.iter().all(|missing| missing.partition == Partition(3)));
                missing.iter().map(|missing| (missing.stretch.from.0, missing.stretch.to.0)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_build_that_began_where_the_log_begins_has_lost_nothing() {
        assert_eq!(gone(standing()), []);
        let late = Standing { consumed: 30, log: Some(stretch(50, 100)), ..standing() };
        assert_eq!(gone(late.clone()), []);
        assert_eq!(gone(Standing { log: Some(stretch(51, 100)), ..late.clone() }), [(50, 51)]);
        // Unless its rows tell of more: control records took offsets that nobody counts.
        assert_eq!(gone(Standing { least_known: Some(Offset(12)), ..late }), [(12, 50)]);
    }

    #[test]
    fn what_is_gone_is_named_up_to_where_the_log_begins() {
        assert_eq!(gone(Standing { log: Some(stretch(30, 100)), ..standing() }), [(0, 30)]);
        // Of what the build itself has yet to read, too.
        assert_eq!(gone(Standing { log: Some(stretch(90, 100)), at_anchor: None, ..standing() }), [(0, 90)]);
        // A build that has consumed nothing misses nothing.
        let fresh = Standing { next_offset: NextOffset(0), consumed: 0, anchor: None, at_anchor: None, ..standing() };
        assert_eq!(gone(Standing { log: Some(stretch(90, 100)), ..fresh }), []);
    }

    #[test]
    fn what_was_skipped_is_neither_consumed_nor_missing() {
        let skipped = |ranges: &[(i64, i64)], consumed, low| Standing {
            skipped: ranges.iter().map(|(from, to)| stretch(*from, *to)).collect(),
            consumed,
            log: Some(stretch(low, 100)),
            ..standing()
        };
        assert_eq!(gone(skipped(&[(10, 20)], 70, 0)), []);
        assert_eq!(gone(skipped(&[(10, 20)], 70, 30)), [(0, 10), (20, 30)]);
        assert_eq!(gone(skipped(&[(20, 25), (5, 10)], 70, 22)), [(0, 5), (10, 20)]);
        assert_eq!(gone(skipped(&[(10, 20), (40, 60)], 45, 30)), [(5, 10), (20, 30)]);
        // Skipped twice, and ahead of what was consumed.
        assert_eq!(gone(skipped(&[(10, 30), (15, 20), (78, 90)], 58, 12)), [(0, 10)]);
        // It began behind what was skipped, for an earlier build.
        assert_eq!(gone(skipped(&[(40, 60)], 20, 60)), []);
        assert_eq!(gone(skipped(&[(10, 20)], 20, 60)), []);
        assert_eq!(gone(skipped(&[(10, 20)], 20, 61)), [(60, 61)]);
    }

    #[test]
    fn every_row_of_the_truth_table() {
        let whole = evidence(standing());
        let another = Bond::Elsewhere("there".to_owned());
        assert_eq!(judge(&Evidence { bond: another, ..whole.clone() }), Outlook::Elsewhere("there".to_owned()));
        let recreated = Bond::Recreated("anew".to_owned());
        assert_eq!(judge(&Evidence { bond: recreated, ..whole.clone() }), Outlook::AnotherLog("anew".to_owned()));
        let other = Anchor { crc: 2, ..standing().anchor.unwrap() };
        for standing in [
            Standing { log: None, ..standing() },
            Standing { log: Some(stretch(0, 79)), at_anchor: None, ..standing() },
            Standing { at_anchor: Some(other), ..standing() },
        ] {
            assert!(matches!(judge(&evidence(standing)), Outlook::AnotherLog(_)));
        }
        assert!(matches!(judge(&Evidence { partitions: Vec::new(), ..whole.clone() }), Outlook::AnotherLog(_)));
        let compacted = Evidence { cleanup_policy: Some("compact, delete".to_owned()), ..whole.clone() };
        assert_eq!(judge(&compacted), Outlook::Compacted("compact, delete".to_owned()));
        let meant = Evidence { allow_compacted: true, ..compacted };
        assert_eq!(judge(&meant), Outlook::Truncated { missing: Vec::new(), is_compacted: true });
        assert_eq!(judge(&Evidence { cleanup_policy: None, ..whole.clone() }), Outlook::Whole);
        assert_eq!(judge(&whole), Outlook::Whole);
        let at_its_end = Standing { log: Some(stretch(0, 80)), ..standing() };
        assert_eq!(judge(&evidence(at_its_end)), Outlook::Whole);
    }

    #[test]
    fn what_speaks_against_it_has_a_name_words_and_a_next_step() {
        let missing = vec![Missing { partition: Partition(2), stretch: stretch(0, 7) }];
        let truncated = |is_compacted| Outlook::Truncated { missing: missing.clone(), is_compacted };
        let gone = "the log does not hold all that the present build was made from: partition 2: offsets 0 up to, but not with, 7";
        let also = "; the topic is compacted, so further records may be gone anywhere";
        let words = "words".to_owned();
        // Whether it may be cleared in place, and whether if that is accepted.
        for (outlook, code, detail, step, may_clear) in [
            (Outlook::Whole, None, String::new(), "none", [true, true]),
            (truncated(false), Some("history_truncated"), gone.to_owned(), "restore the records", [false, true]),
            (truncated(true), Some("history_truncated"), format!("{gone}{also}"), "restore the records", [false, true]),
            (
                Outlook::Compacted("compact".to_owned()),
                Some("topic_compacted"),
                "the topic is compacted (cleanup.policy = compact)".to_owned(),
                "set cleanup.policy=delete",
                [false, false],
            ),
            (
                Outlook::Elsewhere(words.clone()),
                Some("source_changed"),
                words.clone(),
                "set kafka.bootstrap",
                [false, true],
            ),
            (Outlook::AnotherLog(words.clone()), Some("log_identity_changed"), words.clone(), "restore", [false, true]),
        ] {
            assert_eq!((outlook.code(), outlook.detail()), (code, detail));
            assert!(outlook.next_step().starts_with(step), "{}", outlook.next_step());
            assert_eq!([false, true].map(|accepted| outlook.may_clear(accepted)), may_clear, "{code:?}");
        }
        let choices = Outlook::AnotherLog(words).next_step();
        assert!(
            choices.contains("; or keep the present build: this log does not make its rows; or begin"),
            "{choices}"
        );
    }

    #[test]
    fn only_a_truncated_history_can_be_accepted() {
        let truncated = Outlook::Truncated { missing: Vec::new(), is_compacted: true };
        assert_eq!([truncated.may_begin(false), truncated.may_begin(true)], [false, true]);
        assert!(Outlook::Whole.may_begin(false));
        let never = [Outlook::Compacted, Outlook::Elsewhere, Outlook::AnotherLog].map(|outlook| outlook(String::new()));
        assert!(never.iter().all(|outlook| !outlook.may_begin(true) && outlook.code().is_some()));
        let missing = Missing { partition: Partition(2), stretch: stretch(0, 7) };
        assert_eq!(missing.to_string(), "partition 2: offsets 0 up to, but not with, 7");
    }
}
