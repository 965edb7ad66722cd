//! What the fold has made of a key can be made again from its ledger, up to any moment at which it stood still.

use super::*;
use crate::domain::ledger::LedgerRow;
use crate::engine::refold::{Refold, Refolded, Unfoldable, Until};
use crate::engine::view::StoredDetails;

/// A row of the ledger, owned.
#[derive(Debug, Clone)]
struct Kept {
    key: String,
    sequence: i64,
    event_id: String,
    event_type: String,
    occurred_at: i64,
    effect: Effect,
    payload: Option<String>,
}

impl Kept {
    fn row(&self) -> LedgerRow<'_> {
        LedgerRow {
            key: &self.key,
            sequence: Sequence(self.sequence),
            event_id: self.event_id.as_str().into(),
            event_type: self.event_type.as_str().into(),
            occurred_at: Micros(self.occurred_at),
            origin: Origin::NOWHERE,
            effect: self.effect,
            payload: self.payload.as_deref().map(Into::into),
        }
    }
}

/// What was kept of all keys, and what they were at each commit.
#[derive(Debug, Default, Clone)]
pub(super) struct History {
    rows: Vec<Kept>,
    moments: Vec<(String, Sequence, State)>,
}

impl History {
    pub(super) fn keep(&mut self, row: &LedgerRow<'_>) {
        self.rows.push(Kept {
            key: row.key.to_owned(),
            sequence: row.sequence.0,
            event_id: row.event_id.to_string(),
            event_type: row.event_type.to_string(),
            occurred_at: row.occurred_at.0,
            effect: row.effect,
            payload: row.payload.as_deref().map(str::to_owned),
        });
    }

    pub(super) fn stood(&mut self, key: &str, sequence: Sequence, state: &State) {
        self.moments.push((key.to_owned(), sequence, state.clone()));
    }

    pub(super) fn check(&self, lines: &[(String, i64, i64)]) -> TestResult {
        for (key, sequence, state) in &self.moments {
            let rows: Vec<Kept> = self.rows.iter().filter(|row| row.key == *key).cloned().collect();
            let (folded, _) = refold(&rows, Until::Sequence(*sequence)).unwrap();
            let expected = (sequence.0 > 0).then(|| (*sequence, state.clone()));
            prop_assert_eq!(folded.map(|folded| (folded.last_sequence, folded.state)), expected);
        }
        for order in 0..ORDERS {
            let key = format!("o-{order}");
            let rows: Vec<Kept> = self.rows.iter().filter(|row| row.key == key).cloned().collect();
            let stored: Vec<_> = lines.iter().filter(|line| line.0 == key).map(|line| (line.1, line.2)).collect();
            prop_assert_eq!(refold(&rows, Until::End).unwrap().1, stored);
        }
        Ok(())
    }
}

/// The key as far as `until`, and the numbers and quantities of its lines.
type Folded = (Option<Refolded<State>>, Vec<(i64, i64)>);

fn refold(rows: &[Kept], until: Until) -> Result<Folded, Unfoldable> {
    let view = Basket::new();
    let rows: Vec<LedgerRow<'_>> = rows.iter().map(Kept::row).collect();
    let (mut refold, mut lines) = (Refold::new(&view, Sequence(1)), Vec::new());
    for row in &rows {
        if !refold.take(row, until, &StoredDetails::new(), &mut lines)? {
            break;
        }
    }
    Ok((refold.finish(), lines.iter().map(|line| (line.number, line.quantity)).collect()))
}

fn event(sequence: i64, occurred_at: i64) -> Kept {
    let event_type = if sequence % 2 == 0 { "Put" } else { "Noted" };
    let fields = if sequence % 2 == 0 { r#""quantity":5"# } else { r#""note":"n""# };
    let payload = format!(r#"{{"type":"{event_type}","eventId":"e-{sequence}","occurredAt":{occurred_at},{fields}}}"#);
    Kept {
        key: "o-0".into(),
        sequence,
        event_id: format!("e-{sequence}"),
        event_type: event_type.into(),
        occurred_at,
        effect: Effect::Applied,
        payload: Some(payload),
    }
}

fn skipped(from: i64, to: i64) -> Kept {
    let payload = Some(format!(r#"{{"type":"Skipped","from":{from},"to":{to},"reason":"lost","decision":1}}"#));
    let event_id = format!("skipped:o-0:{to}");
    Kept { event_id, event_type: "Skipped".into(), effect: Effect::Skipped, payload, ..event(to, 1_000) }
}

/// Where it ends, or why it does not.
fn end(rows: &[Kept], until: Until) -> Result<Option<i64>, Unfoldable> {
    Ok(refold(rows, until)?.0.map(|folded| folded.last_sequence.0))
}

fn at(sequence: i64) -> Until {
    Until::Sequence(Sequence(sequence))
}

#[test]
fn a_key_stands_at_the_last_number_that_it_had_consumed_by_then() {
    let rows = [event(1, 10), event(2, 20), skipped(3, 5), event(6, 30)];
    let ends: Vec<_> = (0..9).map(|number| end(&rows, at(number)).unwrap()).collect();
    assert_eq!(ends, [None, Some(1), Some(2), Some(2), Some(2), Some(5), Some(6), Some(6), Some(6)]);
    assert_eq!(end(&rows, Until::End), Ok(Some(6)));
}

/// The prefix ends before the first event that happened later, even if one behind it says that it happened earlier.
#[test]
fn a_moment_is_before_the_first_event_that_happened_later() {
    let rows = [event(1, 10), event(2, 20), event(3, 15), skipped(4, 5), event(6, 40), event(7, 30), event(8, 50)];
    for (moment, expected) in
        [(9, None), (10, Some(1)), (19, Some(1)), (20, Some(5)), (39, Some(5)), (40, Some(7)), (50, Some(8))]
    {
        assert_eq!(end(&rows, Until::Moment(Micros(moment))), Ok(expected), "{moment}");
    }
    let rows = [skipped(1, 2), event(3, 10)];
    let ends = [-1, 0, 9, 10].map(|moment| end(&rows, Until::Moment(Micros(moment))).unwrap());
    assert_eq!(ends, [None, Some(2), Some(2), Some(3)], "what was skipped first is as old as time");
}

#[test]
fn a_hole_is_told_where_it_matters_and_not_beyond() {
    let rows = [event(1, 10), event(2, 20), event(5, 30)];
    let hole = Unfoldable::Missing { from: Sequence(3), to: Sequence(4) };
    assert_eq!(end(&rows, at(2)), Ok(Some(2)));
    for until in [at(3), at(4), at(5), Until::End, Until::Moment(Micros(25)), Until::Moment(Micros(30))] {
        assert_eq!(end(&rows, until), Err(hole.clone()), "{until:?}");
    }
    let begun_late = Unfoldable::Missing { from: Sequence(1), to: Sequence(1) };
    assert_eq!(end(&rows[1..], Until::End), Err(begun_late));
    let view = Basket::new();
    let rows = [event(1, 10)];
    let (row, mut refold, mut lines) = (rows[0].row(), Refold::new(&view, Sequence(1)), Vec::new());
    assert!(refold.take(&row, Until::End, &StoredDetails::new(), &mut lines).unwrap());
    assert_eq!(refold.ends_at(Sequence(1)), Ok(()));
    assert_eq!(refold.ends_at(Sequence(3)), Err(Unfoldable::Missing { from: Sequence(2), to: Sequence(3) }));
}

/// A skip may have been decided while some of its numbers were still to come, and came.
#[test]
fn a_run_that_was_skipped_may_begin_before_what_was_next() {
    assert_eq!(end(&[event(1, 10), event(2, 20), skipped(1, 4), event(5, 30)], Until::End), Ok(Some(5)));
}

#[test]
fn only_what_is_projected_needs_its_payload() {
    let without = |row: Kept| Kept { payload: None, ..row };
    let ignored = |effect: Effect, row: Kept| Kept { effect, ..without(row) };
    let rows = [event(1, 10), ignored(Effect::Duplicate, event(2, 20)), ignored(Effect::UnknownType, event(3, 30))];
    let (folded, lines) = refold(&rows, Until::End).unwrap();
    assert_eq!((folded.unwrap().state.updated_at, lines.len()), (Some(Micros(30)), 0));
    assert_eq!(end(&[event(1, 10), without(event(2, 20))], Until::End), Err(Unfoldable::NoPayload(Sequence(2))));
    let replaced = Kept { effect: Effect::Replaced, ..event(2, 20) };
    assert_eq!(refold(&[event(1, 10), replaced], Until::End).unwrap().1, [(1, 5)]);
}

#[test]
fn an_event_is_read_in_the_version_in_which_it_came() {
    let payload = r#"{"type":"Put","eventId":"e-2","occurredAt":20,"quantity":5,"in":"dozens"}"#;
    let dozens = Kept { payload: Some(payload.to_owned()), ..event(2, 20) };
    assert_eq!(refold(&[event(1, 10), dozens, event(3, 30), event(4, 40)], Until::End).unwrap().1, [(1, 60), (2, 5)]);
}

#[test]
fn what_cannot_be_read_or_projected_any_more_is_named() {
    let spoilt = |payload: &str| Kept { payload: Some(payload.to_owned()), ..event(2, 20) };
    let less = r#"{"type":"Put","eventId":"e-2","occurredAt":20,"quantity":-5}"#;
    let gone = r#"{"type":"Taken","eventId":"e-2","occurredAt":20}"#;
    for (payload, reason) in [("{", Reason::InvalidJson), (less, Reason::SchemaViolation), (gone, Reason::MissingType)]
    {
        match end(&[event(1, 10), spoilt(payload)], Until::End) {
            Err(Unfoldable::Refused(Sequence(2), poison)) => assert_eq!(poison.reason, reason),
            other => panic!("{payload}: {other:?}"),
        }
    }
}
