//! What a verification is asked for, and what two looks at one key come to. Pure.

use crate::domain::comparison::Difference;
use crate::domain::word::UnknownWord;

/// Which keys are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// So many of those that have a row, any.
    Sample(u32),
    /// This one.
    Key(String),
}

/// By what it is told what rows should be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Basis {
    /// The build's own ledger.
    #[default]
    Ledger,
    /// The log.
    Log,
    /// Either of them.
    Both,
}

impl Basis {
    /// All of them.
    pub const ALL: [Basis; 3] = [Basis::Ledger, Basis::Log, Basis::Both];

    /// The word in requests.
    pub const fn as_str(self) -> &'static str {
        match self {
            Basis::Ledger => "ledger",
            Basis::Log => "log",
            Basis::Both => "both",
        }
    }

    /// Whether keys are folded again from their ledger.
    pub const fn asks_ledger(self) -> bool {
        matches!(self, Basis::Ledger | Basis::Both)
    }

    /// Whether keys are folded again from the log.
    pub const fn asks_log(self) -> bool {
        matches!(self, Basis::Log | Basis::Both)
    }
}

impl std::str::FromStr for Basis {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        let found = Basis::ALL.into_iter().find(|basis| basis.as_str() == word);
        found.ok_or_else(|| UnknownWord::new("basis of a verification", word, &Basis::ALL.map(Basis::as_str)))
    }
}

/// What was found of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// There is nothing of it anywhere.
    Nowhere,
    /// It is as it should be.
    Equal,
    /// It is not.
    Different(Difference),
    /// Nobody can say, and why.
    Untold(String),
    /// It moves: to be looked at again.
    Aside(Moving),
}

/// A key that was not seen equally far in its rows and by what tells what they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moving {
    /// What differs if that stays so.
    pub difference: Difference,
    /// Whether its rows are ahead only because the log was not read as far.
    pub is_ahead: bool,
}

impl Looked {
    /// What two ways to look at the same key come to. What moves is looked at again; one that tells beats one that does
    /// not; of one value that both name the log's word counts, as the ledger may be what is wrong.
    ///
    /// | by the ledger | by the log | together |
    /// |---|---|---|
    /// | any | aside | aside |
    /// | different | different | different, in whatever differs by either |
    /// | different | anything else | different |
    /// | any | different | different |
    /// | untold | untold | untold |
    /// | untold, nowhere | other | what the other one says |
    #[must_use]
    pub fn and_by_log(self, by_log: Looked) -> Looked {
        match (self, by_log) {
            (_, aside @ Looked::Aside(_)) | (aside @ Looked::Aside(_), _) => aside,
            (Looked::Different(ledger), Looked::Different(log)) => Looked::Different(joined(ledger, log)),
            (different @ Looked::Different(_), _) | (_, different @ Looked::Different(_)) => different,
            (Looked::Equal, _) | (_, Looked::Equal) => Looked::Equal,
            (untold @ Looked::Untold(_), _) | (_, untold @ Looked::Untold(_)) => untold,
            (Looked::Nowhere, Looked::Nowhere) => Looked::Nowhere,
        }
    }

    /// The same of who does not look again.
    #[must_use]
    pub fn at_last(self) -> Looked {
        match self {
            Looked::Aside(Moving { is_ahead: true, .. }) => {
                Looked::Untold("it gets events faster than the log is read".to_owned())
            }
            Looked::Aside(Moving { difference, .. }) => Looked::Different(difference),
            other => other,
        }
    }
}

fn joined(ledger: Difference, log: Difference) -> Difference {
    let Difference { found, key, more, .. } = log;
    let mut joined = Difference { found, more, ..Difference::of(&key) };
    joined.more += ledger.more;
    for (column, values) in log.columns {
        joined.values(&column, values.old, values.new);
    }
    for (column, values) in ledger.columns {
        if !joined.columns.contains_key(&column) {
            joined.values(&column, values.old, values.new);
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::comparison::Found;

    fn different(columns: &[(&str, &str)]) -> Looked {
        let mut difference = Difference::of("o-1");
        for (column, new) in columns {
            difference.values(column, json!("is"), json!(new));
        }
        Looked::Different(difference)
    }

    fn aside(is_ahead: bool) -> Looked {
        Looked::Aside(Moving { difference: Difference::of("o-1"), is_ahead })
    }

    #[test]
    fn two_looks_at_a_key_come_to_one() {
        let untold = || Looked::Untold("no payload".to_owned());
        let (by_ledger, by_log) = (different(&[("a", "1"), ("b", "1")]), different(&[("b", "2"), ("c", "2")]));
        for (ledger, log, expected) in [
            (Looked::Equal, Looked::Equal, Looked::Equal),
            (Looked::Equal, aside(true), aside(true)),
            (by_ledger.clone(), by_log.clone(), different(&[("a", "1"), ("b", "2"), ("c", "2")])),
            (by_ledger.clone(), untold(), by_ledger.clone()),
            (Looked::Equal, by_log.clone(), by_log.clone()),
            (untold(), untold(), untold()),
            (untold(), Looked::Equal, Looked::Equal),
            (Looked::Nowhere, by_log.clone(), by_log),
            (Looked::Nowhere, Looked::Nowhere, Looked::Nowhere),
        ] {
            assert_eq!(ledger.clone().and_by_log(log.clone()), expected, "{ledger:?} {log:?}");
        }
    }

    #[test]
    fn what_two_looks_leave_out_is_added_up_and_the_log_says_where_the_key_is() {
        let with = |found, more| Looked::Different(Difference { found, more, ..Difference::of("o-1") });
        let (ledger, log) = (with(Found::Different, 2), with(Found::MissingNew, 3));
        assert_eq!(ledger.and_by_log(log), with(Found::MissingNew, 5));
    }

    #[test]
    fn who_moves_on_and_on_is_untold_and_who_stands_still_elsewhere_differs() {
        assert_eq!(aside(true).at_last(), Looked::Untold("it gets events faster than the log is read".to_owned()));
        assert_eq!(aside(false).at_last(), different(&[]));
        assert_eq!(Looked::Equal.at_last(), Looked::Equal);
    }

    #[test]
    fn a_basis_reads_back() {
        for basis in Basis::ALL {
            assert_eq!(basis.as_str().parse(), Ok(basis));
        }
        assert_eq!(
            Basis::ALL.map(|basis| (basis.asks_ledger(), basis.asks_log())),
            [(true, false), (false, true), (true, true)]
        );
    }
}
