//! What a job writes beside each position, in the same transaction: so there is nothing that could disagree with it.

use std::fmt;

/// The notes of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes {
    /// Below this offset everything was read and judged: what is read again from below it is neither late nor refused anew.
    pub read: i64,
    /// Windows that end at or before this were written.
    pub closed_until: Option<i64>,
    /// The topic's id: another one is another topic of the same name.
    pub topic_id: Option<String>,
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v1 read={}", self.read)?;
        if let Some(closed_until) = self.closed_until {
            write!(f, " closed={closed_until}")?;
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
                ("topic", value) => notes.topic_id = Some(value.to_owned()),
                // A later version may have more to say.
                _ => {}
            }
        }
        Some(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_are_written() {
        let all = Notes { read: 7, closed_until: Some(-60_000), topic_id: Some("a+b/c==".to_owned()) };
        for notes in [all, Notes::default()] {
            assert_eq!(Notes::read(&notes.to_string()), Some(notes));
        }
        assert_eq!(Notes::read(""), None);
        assert_eq!(Notes::read("v1 read=x"), None);
    }
}
