//! Words that are stored, shown and counted by, each list of them once as an enum. Reading one that is not on the list is
//! an error that names it: going on with another would be a guess.

/// A word that is not on its list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no {kind}; known are {known}")]
pub struct UnknownWord {
    /// What it should be, for people.
    pub kind: &'static str,
    /// What was read.
    pub word: String,
    /// The list.
    pub known: String,
}

impl UnknownWord {
    /// `word` is none of `known`.
    pub fn new(kind: &'static str, word: &str, known: &[&str]) -> Self {
        UnknownWord { kind, word: word.to_owned(), known: known.join(", ") }
    }
}
