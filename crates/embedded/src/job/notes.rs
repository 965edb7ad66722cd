//! What a job writes beside each position, in the same transaction: so there is nothing that could disagree with it.

use std::collections::BTreeSet;
use std::fmt;

/// Bytes of [`Notes::future`] as they are written: a broker takes 4,096 of all notes.
const MOST_FUTURE: usize = 3_000;

/// The notes of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Below this offset everything was read and judged: what is read again from below it is not late anew, nor from the future.
    pub read: i64,
    /// Below which offset the text has judged that has written this. Not in notes of earlier versions.
    pub judged: Option<Judged>,
    /// Windows that end at or before this were written.
    pub closed_until: Option<i64>,
    /// Offsets of rows that were from the future when they were read, and may be read again: by then they are none, and have been
    /// written to the dead letters. Where there are too many stretches of such offsets, the earliest.
    pub future: BTreeSet<i64>,
    /// The topic's id: another one is another topic of the same name.
    pub topic_id: Option<String>,
}

/// How far a text has judged: another one may refuse what it has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judged {
    /// Its [`mark`].
    pub text: u64,
    /// The offset.
    pub below: i64,
}

/// By what a text is known again: the 64 bits of FNV-1a, for they are the same in every build.
pub(crate) fn mark(text: &str) -> u64 {
    let with = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, with)
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1 read={}", self.read)?;
        if let Some(closed_until) = self.closed_until {
            write!(f, " closed={closed_until}")?;
        }
        let future = stretches(&self.future);
        if !future.is_empty() {
            write!(f, " future={future}")?;
        }
        if let Some(Judged { text, below }) = self.judged {
            write!(f, " judged={below}:{text:016x}")?;
        }
        if let Some(id) = &self.topic_id {
            write!(f, " topic={id}")?;
        }
        Ok(())
    }
}

impl Notes {
    /// Reads what was written; `None` if it was not written by us.
    pub fn read(text: &str) -> Option<Notes> {
        let mut notes = Notes::default();
        let mut words = text.split(' ');
        if words.next() != Some("v1") {
            return None;
        }
        for word in words {
            match word.split_once('=')? {
                ("read", value) => notes.read = value.parse().ok()?,
                ("closed", value) => notes.closed_until = Some(value.parse().ok()?),
                ("future", value) => notes.future = offsets(value)?,
                ("judged", value) => notes.judged = Some(judged(value)?),
                ("topic", value) => notes.topic_id = Some(value.to_owned()),
                // A later version may have more to say.
                _ => {}
            }
        }
        Some(notes)
    }

    /// Below which offset this text need not refuse anything anew: it has judged that, or it is not known who has.
    pub fn judged_by(&self, text: u64) -> i64 {
        match self.judged {
            None => self.read,
            Some(judged) if judged.text == text => judged.below,
            Some(_) => 0,
        }
    }
}

/// Offsets as stretches, each by how far it begins behind the end of the one before, and by how many there are: `100+3,7+1` is
/// 100, 101, 102, 110.
fn stretches(offsets: &BTreeSet<i64>) -> String {
    let mut all: Vec<(i64, i64)> = Vec::new();
    for offset in offsets {
        match all.last_mut() {
            Some((first, count)) if *first + *count == *offset => *count += 1,
            _ => all.push((*offset, 1)),
        }
    }
    let (mut text, mut end) = (String::new(), 0);
    for (first, count) in all {
        let comma = if text.is_empty() { "" } else { "," };
        let one = format!("{comma}{}+{count}", first - end);
        if text.len() + one.len() > MOST_FUTURE {
            break;
        }
        text.push_str(&one);
        end = first + count;
    }
    text
}

fn judged(text: &str) -> Option<Judged> {
    let (below, text) = text.split_once(':')?;
    Some(Judged { below: below.parse().ok()?, text: u64::from_str_radix(text, 16).ok()? })
}

fn offsets(text: &str) -> Option<BTreeSet<i64>> {
    let (mut offsets, mut end) = (BTreeSet::new(), 0_i64);
    for stretch in text.split(',') {
        let (behind, count) = stretch.split_once('+')?;
        let first = end.checked_add(behind.parse().ok()?)?;
        end = first.checked_add(count.parse().ok()?)?;
        offsets.extend(first..end);
    }
    Some(offsets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_are_written() {
        let future = BTreeSet::from([0, 1, 2, 9, i64::MAX - 1]);
        let judged = Some(Judged { text: mark("SELECT 1"), below: 5 });
        let all = Notes { read: 7, judged, closed_until: Some(-60_000), future, topic_id: Some("a+b/c==".to_owned()) };
        for notes in [all, Notes::default()] {
            assert_eq!(Notes::read(&notes.to_string()), Some(notes));
        }
        assert_eq!(Notes::read(""), None);
        assert_eq!(Notes::read("v1 read=x"), None);
        // As an earlier version wrote them.
        let before = Notes { read: 7, closed_until: Some(60_000), ..Notes::default() };
        assert_eq!(Notes::read("v1 read=7 closed=60000"), Some(before));
    }

    #[test]
    fn what_a_text_has_judged_it_does_not_refuse_anew() {
        let (text, other) = (mark("SELECT a FROM t"), mark("SELECT b FROM t"));
        let notes = Notes { read: 7, judged: Some(Judged { text, below: 5 }), ..Notes::default() };
        assert_eq!((notes.judged_by(text), notes.judged_by(other)), (5, 0));
        let before = Notes { judged: None, ..notes };
        assert_eq!(before.judged_by(other), 7);
        // As every build has to say it.
        assert_eq!(mark("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn notes_have_room_for_as_many_offsets_as_a_broker_takes() {
        let together: BTreeSet<i64> = (1_000_000_000..1_000_100_000).collect();
        assert_eq!(stretches(&together), "1000000000+100000");
        let apart: BTreeSet<i64> = (0..100_000).map(|at| 1_000_000_000_000 + at * 100).collect();
        let judged = Some(Judged { text: u64::MAX, below: i64::MAX });
        let notes =
            Notes { read: i64::MAX, judged, closed_until: Some(i64::MIN), future: apart.clone(), topic_id: None };
        let text = notes.to_string();
        assert!(text.len() < 3_500, "{}", text.len());
        let kept = Notes::read(&text).unwrap().future;
        assert!(kept.len() > 500 && apart.iter().take(kept.len()).eq(&kept), "{}", kept.len());
    }
}
