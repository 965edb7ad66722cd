//! Which changes somebody follows. Pure.

use jiff::Timestamp;

use crate::store::changes::Shown;

/// Which rows a list shows, as they are at the moment of looking.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// For each word of a row (see [`Shown::words`]) those that are wanted; empty: any, or none at all.
    pub words: Vec<Vec<String>>,
    /// Changed at or after.
    pub from: Option<Timestamp>,
    /// Changed before.
    pub to: Option<Timestamp>,
}

impl Filter {
    /// Whether the row is among them.
    pub fn matches(&self, row: &Shown) -> bool {
        let is_wanted = |(wanted, word): (&Vec<String>, &Option<String>)| {
            wanted.is_empty() || word.as_ref().is_some_and(|word| wanted.contains(word))
        };
        self.words.iter().zip(&row.words).all(is_wanted)
            && self.from.is_none_or(|from| row.moment >= from)
            && self.to.is_none_or(|to| row.moment < to)
    }
}

/// What one client follows.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// One key.
    Key(String),
    /// The rows of a list.
    List(Filter),
}

impl Wanted {
    /// Whether a change of that key, which is shown like that now, is wanted.
    pub fn matches(&self, key: &str, row: &Shown) -> bool {
        match self {
            Wanted::Key(wanted) => wanted == key,
            Wanted::List(filter) => filter.matches(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::Sequence;

    #[test]
    fn a_row_matches_as_in_the_list() {
        let moment = |second| Timestamp::from_second(second).unwrap();
        let row = |status: Option<&str>, second| Shown {
            json: String::new(),
            words: vec![status.map(str::to_owned), Some("c-1".to_owned())],
            moment: moment(second),
            sequence: Sequence(1),
            event_id: String::new(),
        };
        let paid = Filter { words: vec![vec!["Paid".into(), "Sent".into()], vec![]], ..Filter::default() };
        assert!(paid.matches(&row(Some("Sent"), 0)) && !paid.matches(&row(Some("New"), 0)));
        assert!(!paid.matches(&row(None, 0)), "an order without a status shows only in lists without that filter");
        assert!(Filter::default().matches(&row(None, 0)));
        let window = Filter { from: Some(moment(5)), to: Some(moment(7)), ..Filter::default() };
        let inside: Vec<i64> = (4..9).filter(|second| window.matches(&row(None, *second))).collect();
        assert_eq!(inside, [5, 6]);
    }
}
