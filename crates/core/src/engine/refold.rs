//! Folds a key again from its ledger: what it was after any of its events, and what its rows have to be. Pure.
//!
//! The view reads and projects by the code that it had for the records. Here stands only what each effect means, how far to
//! go, and whether the ledger is whole so far. Where the ledger comes from is the caller's.

use crate::codec::Head;
use crate::domain::ledger::{Effect, LedgerRow};
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::{Micros, Sequence};
use crate::engine::view::{StoredDetails, View};

/// How far a key is folded again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// To the end of its ledger.
    End,
    /// To the last number that it had consumed by then, which is this one or one before.
    Sequence(Sequence),
    /// Up to the first event that says that it happened later. What follows it is not looked at, whatever it says: the order
    /// of the numbers is what the rows were made by, and a state in between was never there.
    Moment(Micros),
}

/// Why a key cannot be folded from its ledger.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfoldable {
    /// Numbers that were consumed are not there.
    #[error("the history has no events {from} to {to}")]
    Missing {
        /// The first of them.
        from: Sequence,
        /// The last.
        to: Sequence,
    },
    /// Only what the event did is there.
    #[error("the history holds event {0} without its payload")]
    NoPayload(Sequence),
    /// The view cannot read or project it, as it did before.
    #[error("event {0} cannot be folded as it stands in the history: {1}")]
    Refused(Sequence, Poison),
}

/// A key that is being folded again.
#[derive(Debug)]
pub struct Refold<'v, V: View> {
    view: &'v V,
    first_sequence: Sequence,
    last: Option<(Sequence, String)>,
    state: V::State,
}

/// A key as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refolded<S> {
    /// The last number that it had consumed.
    pub last_sequence: Sequence,
    /// Id of that event.
    pub last_event_id: String,
    /// The view's state.
    pub state: S,
}

impl<'v, V: View> Refold<'v, V> {
    /// A key of which nothing is folded yet; its first number is `first_sequence`.
    pub fn new(view: &'v V, first_sequence: Sequence) -> Self {
        Refold { view, first_sequence, last: None, state: V::State::default() }
    }

    /// Takes the next row of the key's ledger, in the order of the numbers; `false`, and nothing is done, if it lies beyond
    /// `until`. `stored` are the key's rows in the view's further table, for [`View::stored_version`].
    ///
    /// | effect | is folded as |
    /// |---|---|
    /// | applied, replaced | projected |
    /// | duplicate, unknown type | skipped at the event's time |
    /// | skipped | skipped at the beginning of time if nothing came before, else nothing |
    pub fn take<'a>(
        &mut self,
        row: &'a LedgerRow<'a>,
        until: Until,
        stored: &StoredDetails,
        details: &mut Vec<V::Detail<'a>>,
    ) -> Result<bool, Unfoldable> {
        if matches!(until, Until::Sequence(sequence) if self.next() > sequence) {
            return Ok(false);
        }
        if first_number(row) > self.next() {
            return Err(Unfoldable::Missing { from: self.next(), to: first_number(row).previous() });
        }
        let is_beyond = match until {
            Until::End => false,
            Until::Sequence(sequence) => row.sequence > sequence,
            Until::Moment(moment) => self.moment_of(row).is_some_and(|happened| happened > moment),
        };
        if is_beyond {
            return Ok(false);
        }
        match row.effect {
            Effect::Applied | Effect::Replaced => self.project(row, stored, details)?,
            Effect::Duplicate | Effect::UnknownType | Effect::Skipped => {
                if let Some(moment) = self.moment_of(row) {
                    self.view.skip(&mut self.state, moment);
                }
            }
        }
        self.last = Some((row.sequence, row.event_id.clone().into_owned()));
        Ok(true)
    }

    /// The ledger has no further row, and the key has consumed its numbers up to `present`: an error if that is more.
    pub fn ends_at(&self, present: Sequence) -> Result<(), Unfoldable> {
        let from = self.next();
        if from <= present { Err(Unfoldable::Missing { from, to: present }) } else { Ok(()) }
    }

    /// The key as far as it was folded; `None` if there was nothing of it.
    pub fn finish(self) -> Option<Refolded<V::State>> {
        let (last_sequence, last_event_id) = self.last?;
        Some(Refolded { last_sequence, last_event_id, state: self.state })
    }

    fn next(&self) -> Sequence {
        self.last.as_ref().map_or(self.first_sequence, |(last, _)| last.next())
    }

    /// When it happened. What was skipped has no time: it goes with what came before it, and at the very beginning it is as
    /// old as time.
    fn moment_of(&self, row: &LedgerRow<'_>) -> Option<Micros> {
        match row.effect {
            Effect::Skipped => self.last.is_none().then_some(Micros::EPOCH),
            _ => Some(row.occurred_at),
        }
    }

    fn project<'a>(
        &mut self,
        row: &'a LedgerRow<'a>,
        stored: &StoredDetails,
        details: &mut Vec<V::Detail<'a>>,
    ) -> Result<(), Unfoldable> {
        let refused = |poison| Unfoldable::Refused(row.sequence, poison);
        let payload = row.payload.as_deref().ok_or(Unfoldable::NoPayload(row.sequence))?;
        let head = Head { key: row.key, sequence: row.sequence, event_type: Some(&*row.event_type), version: 1 };
        let head = Head { version: self.view.stored_version(&head, payload, &self.state, stored), ..head };
        let event = self.view.parse_stored(&head, payload).map_err(refused)?.ok_or_else(|| {
            let detail = format!("it was applied, and the type {} is unknown by now", row.event_type);
            refused(Poison::new(Reason::MissingType, detail))
        })?;
        self.view.project(row.key, &mut self.state, event, row.occurred_at, details).map(drop).map_err(refused)
    }
}

/// The first of the numbers that a row stands for: what was skipped has one row, under the last of them.
fn first_number(row: &LedgerRow<'_>) -> Sequence {
    #[derive(serde::Deserialize)]
    struct Run {
        from: i64,
    }
    let run = row.payload.as_deref().filter(|_| row.effect == Effect::Skipped);
    let run: Option<Run> = run.and_then(|payload| serde_json::from_str(payload).ok());
    run.map_or(row.sequence, |run| Sequence(run.from))
}
