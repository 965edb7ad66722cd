//! The part of the fold that folds with decisions: numbers that an operator skipped, or gave another record.

use std::borrow::Cow;

use super::{Fold, Outcome, refused_as};
use crate::domain::decision::Decision;
use crate::domain::ledger::{Effect, LedgerRow, Origin};
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::{Micros, Sequence};
use crate::engine::decisions::{Settled, StoredDecision, Substitute, Verdict};
use crate::engine::event_ids::Fingerprint;
use crate::engine::view::View;

/// The ids of skipped numbers begin like this; the key follows, a colon, and the last of the numbers.
const SKIPPED: &str = "skipped:";

impl<'a, V: View> Fold<'a, V> {
    /// Folds with the decision about the key's next number. `None`: there is none; `Some(false)`: it cannot be folded
    /// with, the key stays where it is.
    pub(super) fn take_decision(&mut self, key: &'a str) -> Option<bool> {
        let work = self.work(key);
        let next = work.entry.last_sequence.next();
        let index = work.decisions.iter().position(|decision| decision.covers(next))?;
        let decision = work.decisions.remove(index);
        work.decided = true;
        let refused = match &decision.verdict {
            Verdict::Skip => {
                self.skip(key, decision);
                None
            }
            Verdict::Take(substitute) => self.substitute(key, next, substitute).err().map(|poison| poison.to_string()),
        };
        let taken = refused.is_none();
        if taken {
            *self.plan.tally.decisions.entry(decision.action()).or_default() += 1;
        }
        self.plan.settled.push(Settled { id: decision.id, refused });
        Some(taken)
    }

    /// Settles what this build waits for in vain: decisions about numbers that the key has left behind, as it had refused less when
    /// they were made, or begins with a later number. It is as far as they would have brought it.
    pub(super) fn pass_over_decisions(&mut self, key: &'a str) {
        let work = self.work(key);
        let last = work.entry.last_sequence;
        let passed = work.decisions.iter().filter(|decision| decision.is_awaited && decision.sequence_to <= last);
        let settled: Vec<Settled> = passed.map(|decision| Settled { id: decision.id, refused: None }).collect();
        work.decided |= !settled.is_empty();
        self.plan.settled.extend(settled);
    }

    /// Consumes the decided numbers. The ledger gets one row, under the last of them.
    fn skip(&mut self, key: &'a str, decision: &'a StoredDecision) {
        let (from, to) = (decision.sequence, decision.sequence_to);
        // No event has this id (`why_reused`): one that comes later with that number is told as a conflict.
        let mut event_id = format!("{SKIPPED}{key}:{to}");
        while self.other_holder(key, &event_id, Fingerprint::of(&event_id)).is_some() {
            // But one that was applied before such ids were refused.
            event_id.push('+');
        }
        let id = Fingerprint::of(&event_id);
        let view = self.decoder.view;
        let history = self.limits.history;
        let work = self.work(key);
        if work.entry.last_event_id.is_none() {
            // Nothing has happened yet, and the clock of the decision is not the order's: the beginning of time.
            view.skip(&mut work.entry.state, Micros::EPOCH);
        }
        let before = work.entry.last_event_id.replace(event_id.as_str().into());
        work.entry.last_sequence = to;
        work.entry.remember(id, history);
        work.changed = true;
        self.latest_ids.move_on(key, before.as_deref(), id);
        let payload = serde_json::json!({
            "type": "Skipped", "from": from.0, "to": to.0, "reason": decision.reason, "decision": decision.id,
        });
        self.plan.ledger.push(LedgerRow {
            key,
            sequence: to,
            event_id: Cow::Owned(event_id),
            event_type: Cow::Borrowed("Skipped"),
            occurred_at: decision.decided_at,
            origin: Origin::NOWHERE,
            effect: Effect::Skipped,
            payload: Some(Cow::Owned(payload.to_string())),
        });
    }

    /// Consumes the record that the operator put there.
    fn substitute(&mut self, key: &'a str, next: Sequence, substitute: &'a Substitute) -> Result<Outcome, Poison> {
        let record = substitute.record(key);
        let event = self.decoder.decode(record).outcome.map_err(|refused| refused.poison)?;
        if (event.key, event.sequence) != (key, next) {
            let detail = format!("it is event {} of `{}`, not {next} of `{key}`", event.sequence, event.key);
            return Err(Poison::new(Reason::InvalidSequence, detail));
        }
        let id = Fingerprint::of(&event.parsed.event_id);
        let history = self.limits.history;
        match self.work(key).decide(next, (&event.parsed.event_id, id), history) {
            decision @ (Decision::Apply | Decision::Duplicate { .. }) => {
                self.consume(event, id, record, decision, substitute.effect).map_err(|(poison, _)| poison)
            }
            // Not reached: the number is the next one.
            _ => Err(Poison::new(Reason::SequenceConflict, "the number is taken")),
        }
    }

    /// Why no event of `key` can have this id: it is another key's, or could be that of a skip, which then could not be stored.
    pub(super) fn why_reused(&self, key: &str, event_id: &str, id: Fingerprint) -> Option<String> {
        if let Some(holder) = self.other_holder(key, event_id, id) {
            return Some(format!("event id `{event_id}` is the latest of `{holder}`"));
        }
        let is_unique = self.decoder.view.spec().event_id_constraint.is_some();
        (is_unique && is_of_a_skip(event_id)).then(|| {
            format!(
                "event id `{event_id}` has the form of the ids of skipped numbers, `{SKIPPED}<key>:<number>`; \
                 expected another id"
            )
        })
    }

    /// Refuses a record that was next but cannot be applied.
    pub(super) fn refuse_next(
        &mut self,
        record: crate::domain::record::Record<'a>,
        (poison, event_id): (Poison, Cow<'a, str>),
        place: (&'a str, Sequence),
    ) -> Outcome {
        let outcome = refused_as(&poison);
        self.dead_letter(record, poison, place, Some(event_id));
        outcome
    }
}

/// Whether a skip may make up such an id.
fn is_of_a_skip(event_id: &str) -> bool {
    let place = event_id.strip_prefix(SKIPPED).and_then(|place| place.rsplit_once(':'));
    let is_number = |number: &str| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    place.is_some_and(|(_, number)| is_number(number.trim_end_matches('+')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_skips_are_told_from_those_of_events() {
        for id in ["skipped:o-1:2", "skipped:shop:o-1:20", "skipped::0"] {
            assert!(is_of_a_skip(id), "{id}");
        }
        for id in ["", "skipped:", "skipped:2", "skipped:o-1:", "skipped:o-1:2a", "Skipped:o-1:2", "a:skipped:o-1:2"] {
            assert!(!is_of_a_skip(id), "{id}");
        }
    }
}
