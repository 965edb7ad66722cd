//! What operators ask for that takes longer than a call: its kinds, states and phases, in the words of SQL and JSON.

use std::str::FromStr;

use super::word::UnknownWord;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $kind:literal: $($(#[$of:meta])* $variant:ident = $word:literal),* $(,)?) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$of])* $variant),* }

        impl $name {
            /// Every word.
            pub const WORDS: &[&str] = &[$($word),*];

            /// The word in SQL and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok($name::$variant),)*
                    _ => Err(UnknownWord::new($kind, word, Self::WORDS)),
                }
            }
        }
    };
}

words! {
    /// What is done.
    OperationKind, "kind of operation":
    /// A new build is made from the log, and readers are switched to it.
    Rebuild = "rebuild",
    /// Readers are switched back to a build that was kept.
    Rollback = "rollback",
    /// Rows are compared with what a fold gives.
    Verify = "verify",
}

words! {
    /// Whether it is over, and how.
    OperationState, "state of an operation":
    /// Somebody works on it, or will as soon as a process of the service runs.
    Running = "running",
    /// It has done what was asked.
    Done = "done",
    /// It was called off, and has left nothing behind.
    Cancelled = "cancelled",
    /// It could not be done; `error` says why and what to do.
    Failed = "failed",
}

words! {
    /// How far it is. A rebuild goes through them in this order.
    Phase, "phase of an operation":
    /// It is looked whether it can be done at all.
    Preflight = "preflight",
    /// The log is read into tables without indexes.
    Loading = "loading",
    /// The indexes are built.
    Indexing = "indexing",
    /// The new build applies what came since, as the old one does.
    CatchingUp = "catching_up",
    /// Both builds are compared, key by key.
    Comparing = "comparing",
    /// Readers can be switched; somebody has to say so.
    Ready = "ready",
    /// Readers are being switched.
    CuttingOver = "cutting_over",
    /// There is nothing left to do.
    Done = "done",
}

impl Phase {
    /// Whether the new build is fed by projectors in this phase, as the old one is.
    pub fn feeds(self) -> bool {
        matches!(self, Phase::CatchingUp | Phase::Comparing | Phase::Ready | Phase::CuttingOver)
    }

    /// Whether it can still be called off: until readers were switched, which is one transaction.
    pub fn may_be_cancelled(self) -> bool {
        self < Phase::Done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_back_and_unknown_ones_are_named() {
        for word in Phase::WORDS {
            assert_eq!(word.parse::<Phase>().unwrap().as_str(), *word);
        }
        assert_eq!("rebuild".parse(), Ok(OperationKind::Rebuild));
        let error = "over".parse::<OperationState>().unwrap_err().to_string();
        assert_eq!(error, "\"over\" is no state of an operation; known are running, done, cancelled, failed");
    }

    #[test]
    fn a_build_is_fed_from_when_it_is_whole_and_cancelled_until_readers_are_switched() {
        let phases = [Phase::Preflight, Phase::Loading, Phase::Indexing, Phase::CatchingUp, Phase::Comparing];
        assert_eq!(phases.map(Phase::feeds), [false, false, false, true, true]);
        assert!(phases.into_iter().all(Phase::may_be_cancelled));
        let last = [Phase::Ready, Phase::CuttingOver, Phase::Done];
        assert_eq!(last.map(Phase::feeds), [true, true, false]);
        assert_eq!(last.map(Phase::may_be_cancelled), [true, true, false]);
    }
}
