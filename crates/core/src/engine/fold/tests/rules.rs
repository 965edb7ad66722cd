//! One rule of the fold per test: what is counted, what is bounded, what a refusal leaves behind.

use super::*;
use crate::engine::decisions::Settled;

const KEY: &str = "o-0";

fn sent(sequence: i64, content: Content) -> Sent {
    send(Delivery { order: 0, sequence, content })
}

fn good(sequence: i64) -> Sent {
    sent(sequence, Content::Good)
}

/// A key that has consumed the good events up to `last`.
fn consumed(last: i64) -> KeyEntry<State> {
    let ids: Vec<String> = (1..=last).map(good_id).collect();
    KeyEntry {
        last_sequence: Sequence(last),
        last_event_id: ids.last().map(|id| id.as_str().into()),
        event_ids: EventIds::of(&ids),
        stored: last > 0,
        ..KeyEntry::default()
    }
}

fn good_id(sequence: i64) -> String {
    event_id(Delivery { order: 0, sequence, content: Content::Good })
}

/// A good event as it is stored while it is parked; without its body where only its presence was asked for.
fn parked(sequence: i64, has_body: bool) -> StoredParked {
    let event = good(sequence);
    StoredParked {
        sequence: Sequence(sequence),
        event_id: good_id(sequence),
        origin: Origin { partition: Partition(0), offset: Offset(100 + sequence) },
        timestamp_ms: None,
        bytes: 10,
        body: has_body.then(|| (event.payload.into_bytes(), event.headers)),
    }
}

fn holding(rows: &[StoredParked]) -> Held {
    Held {
        first_parked: rows.first().map(|row| row.sequence),
        parked_count: rows.len() as i32,
        parked_bytes: 10 * rows.len() as i64,
        ..Held::default()
    }
}

/// What a batch of one key starts from.
#[derive(Default)]
struct Start {
    entry: KeyEntry<State>,
    parked: Vec<StoredParked>,
    load: Option<ParkedLoad>,
    decisions: Vec<StoredDecision>,
    overrules: Overrules,
    /// Other keys of the batch.
    others: Vec<(&'static str, KeyEntry<State>)>,
}

impl Start {
    fn of(entry: KeyEntry<State>) -> Start {
        Start { entry, ..Start::default() }
    }

    /// Folds a batch and shows what it changes.
    fn fold<T>(self, limits: FoldLimits, batch: &[Sent], look: impl FnOnce(&Plan<'_, Basket>) -> T) -> T {
        self.plan(limits, batch, |plan| look(&plan))
    }

    /// Folds a batch and hands on what it changes.
    fn plan<T>(self, limits: FoldLimits, batch: &[Sent], take: impl FnOnce(Plan<'_, Basket>) -> T) -> T {
        let (view, schemas) = (Basket::new(), Schemas::default());
        let Start { entry, parked, load, decisions, overrules, others } = self;
        let decoder = Decoder { view: &view, limits: limits.record, overrules: &overrules, schemas: &schemas };
        let mut fold = fold_of(&view, limits, (&overrules, &schemas));
        fold.add_key(KEY, Box::new(entry), (&parked, load.unwrap_or(ParkedLoad::All)), &decisions);
        for (key, entry) in others {
            fold.add_key(key, Box::new(entry), (&[], ParkedLoad::All), &[]);
        }
        for (offset, sent) in (0..).zip(batch) {
            fold.take(decoder.decode(sent.record(offset)));
        }
        if batch.is_empty() {
            fold.heal(KEY, Partition(0));
        }
        take(fold.finish())
    }
}

fn counted(plan: &Plan<'_, Basket>) -> Counters {
    plan.counters.get(&Partition(0)).copied().unwrap_or_default()
}

fn numbers(plan: &Plan<'_, Basket>) -> Vec<i64> {
    plan.ledger.iter().map(|row| row.sequence.0).collect()
}

fn reasons(plan: &Plan<'_, Basket>) -> Vec<&'static str> {
    plan.dead_letters.iter().map(|letter| letter.poison.reason.as_str()).collect()
}

#[test]
fn every_outcome_is_counted_once() {
    let batch = [
        good(1),
        good(2),
        good(3),
        sent(4, Content::Renumbered), // the event of 3 again: only the number advances
        sent(4, Content::Renumbered), // a copy
        good(2),                      // late
        sent(5, Content::Unknown),
        good(7),
        good(7),
        sent(7, Content::Rival),
        sent(6, Content::Broken),
    ];
    Start::default().fold(LIMITS, &batch, |plan| {
        let tally = &plan.tally;
        assert_eq!(tally.by_type, [1, 2, 1], "Put, Noted, others");
        assert_eq!((tally.duplicates_by_sequence, tally.duplicates_by_event_id, tally.late), (2, 1, 1));
        assert_eq!((tally.gaps, tally.anomalies), (1, 0));
        assert_eq!(tally.dead_letters, HashMap::from([("sequence_conflict", 1), ("invalid_json", 1)]));
        let (consumed, applied, duplicate, late) = (11, 4, 3, 1);
        let (conflict, parked, dead_lettered) = (1, 1, 1);
        assert_eq!(counted(plan), Counters { consumed, applied, duplicate, late, conflict, parked, dead_lettered });
        assert_eq!(numbers(plan), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_record_without_a_number_is_refused_and_counted_each_time() {
    let nameless = || Sent { headers: Vec::new(), ..good(1) };
    Start::default().fold(LIMITS, &[nameless(), nameless()], |plan| {
        assert_eq!(plan.tally.dead_letters, HashMap::from([("missing_sequence", 2)]));
        let letters = plan.dead_letters.iter().map(|letter| (letter.key, letter.sequence));
        assert_eq!(letters.collect::<Vec<_>>(), [(Some(KEY), None); 2]);
        assert_eq!((numbers(plan), counted(plan).dead_lettered), (vec![], 2));
    });
}

#[test]
fn oddities_of_the_view_are_counted() {
    let mut odd = good(2);
    odd.payload = odd.payload.replace(r#""quantity":2"#, r#""quantity":0"#);
    Start::of(consumed(1)).fold(LIMITS, &[odd], |plan| assert_eq!(plan.tally.anomalies, 1));
}

#[test]
fn who_a_late_event_is_can_be_told_where_the_ids_of_its_key_are_kept() {
    for (history, strangers) in [(History::Payload, 1), (History::Compact, 1), (History::Off, 0)] {
        let limits = FoldLimits { history, ..LIMITS };
        Start::of(consumed(3)).fold(limits, &[sent(2, Content::Rival), good(1), good(4)], |plan| {
            assert_eq!((plan.tally.late, plan.strangers.len(), numbers(plan)), (2, strangers, vec![4]), "{history:?}");
        });
        // The event of 3 under the number 4: its id is the latest.
        Start::of(consumed(3)).fold(limits, &[sent(4, Content::Renumbered)], |plan| {
            assert_eq!(plan.tally.duplicates_by_event_id, 1, "{history:?}");
        });
    }
}

/// What is refused after a late event, under its number and with its id, is no original of which it could be the copy.
#[test]
fn a_late_event_is_a_copy_of_what_was_refused_before_it_only() {
    for (letters_before, reused) in [(0, 1), (1, 0)] {
        Start::of(consumed(3)).plan(LIMITS, &[sent(2, Content::Rival)], |mut plan| {
            plan.strangers[0].letters_before = letters_before;
            let Stranger { event_id, record, .. } = plan.strangers[0].clone();
            plan.dead_letters.push(DeadLetter {
                poison: Poison::new(Reason::SchemaViolation, "of another batch"),
                key: Some(KEY),
                sequence: Some(Sequence(2)),
                event_id: Some(event_id),
                record,
            });
            plan.judge(&HashSet::new());
            let told = reasons(&plan).into_iter().filter(|reason| *reason == "sequence_reused").count();
            assert_eq!((told, plan.tally.late), (reused, 1 - reused as u64), "{letters_before}");
            let counted = plan.tally.dead_letters.get("sequence_reused").copied().unwrap_or(0);
            assert_eq!(counted, reused as u64);
        });
    }
}

#[test]
fn a_payload_is_kept_where_the_history_says_so() {
    for (history, is_kept) in [(History::Payload, true), (History::Compact, false), (History::Off, false)] {
        let limits = FoldLimits { history, ..LIMITS };
        Start::default().fold(limits, &[good(1)], |plan| {
            assert_eq!(plan.ledger[0].payload.is_some(), is_kept, "{history:?}");
        });
    }
}

#[test]
fn no_more_is_parked_than_the_budget_allows_and_the_partition_stops_before_it() {
    let limits = |parked_budget| FoldLimits { parked_budget, ..LIMITS };
    Start::default().fold(limits(2), &[good(3), good(4), good(5)], |plan| {
        let (offset, why) = &plan.blocked[&Partition(0)];
        assert_eq!((*offset, why.contains("max_parked_total")), (Offset(2), true));
        assert_eq!((plan.new_parked().len(), counted(plan).consumed), (2, 2));
    });
    Start::default().fold(limits(0), &[good(3)], |plan| {
        assert!(plan.blocked.contains_key(&Partition(0)) && plan.keys[KEY].entry.held.is_none());
    });
}

/// What is loaded to drain it is bounded by that.
#[test]
fn what_is_parked_counts_with_its_headers() {
    let mut heavy = good(3);
    Headers::push(&mut heavy.headers, b"baggage", Some(&[b'x'; 5_000]));
    let bytes = |sent: &Sent| (sent.key.len() + sent.payload.len() + sent.headers.len()) as i64;
    let all = bytes(&heavy) + bytes(&good(4));
    Start::default().fold(LIMITS, &[heavy, good(4)], |plan| {
        let held = plan.keys[KEY].entry.held.as_ref().unwrap();
        assert_eq!((held.parked_count, held.parked_bytes), (2, all));
    });
}

#[test]
fn no_more_is_parked_behind_a_key_than_its_bound() {
    let limits = FoldLimits { max_parked_per_key: 2, ..LIMITS };
    Start::default().fold(limits, &[good(3), good(4), good(5)], |plan| {
        let (offset, why) = &plan.blocked[&Partition(0)];
        assert_eq!((*offset, why.contains("max_parked_per_key")), (Offset(2), true));
    });
}

#[test]
fn a_drain_goes_on_behind_what_is_not_ahead_any_more() {
    let rows: Vec<_> = [1, 2, 3].map(|sequence| parked(sequence, true)).into();
    let entry = KeyEntry { held: Some(holding(&rows)), ..consumed(2) };
    Start { parked: rows, ..Start::of(entry) }.fold(LIMITS, &[], |plan| {
        assert_eq!(numbers(plan), [3]);
        assert_eq!((plan.tally.late, plan.tally.duplicates_by_sequence), (1, 1));
        let (applied, duplicate, late, parked) = (1, 1, 1, -3);
        assert_eq!(counted(plan), Counters { applied, duplicate, late, parked, ..Counters::default() });
        assert_eq!(plan.drained, [1, 2, 3].map(|sequence| (KEY, Sequence(sequence))));
    });
}

/// A drain that was cut short knows of a parked event by its presence only; the copy that comes takes its place.
#[test]
fn a_copy_of_what_is_parked_next_takes_its_place_and_a_rival_does_not() {
    let start = || {
        let rows = vec![parked(2, false)];
        let entry = KeyEntry { held: Some(holding(&rows)), ..consumed(1) };
        Start { parked: rows, load: Some(ParkedLoad::Presence), ..Start::of(entry) }
    };
    start().fold(LIMITS, &[good(2)], |plan| {
        assert_eq!((numbers(plan), plan.drained.as_slice()), (vec![2], [(KEY, Sequence(2))].as_slice()));
        let (consumed, applied, duplicate, parked) = (1, 1, 1, -1);
        assert_eq!(counted(plan), Counters { consumed, applied, duplicate, parked, ..Counters::default() });
        assert_eq!(plan.tally.duplicates_by_sequence, 1);
    });
    start().fold(LIMITS, &[sent(2, Content::Rival)], |plan| {
        assert_eq!((numbers(plan), reasons(plan)), (vec![], vec!["sequence_conflict"]));
        assert_eq!(counted(plan).conflict, 1);
    });
}

#[test]
fn an_event_id_that_is_the_latest_of_another_key_is_a_conflict() {
    let holder = || {
        let last_event_id = Some(good_id(1).as_str().into());
        KeyEntry { last_sequence: Sequence(4), last_event_id, stored: true, ..KeyEntry::default() }
    };
    let reused = |plan: &Plan<'_, Basket>| {
        assert_eq!((numbers(plan), reasons(plan)), (vec![], vec!["event_id_reused"]));
        assert_eq!((counted(plan).conflict, counted(plan).dead_lettered), (1, 0));
    };
    Start { others: vec![("o-1", holder())], ..Start::default() }.fold(LIMITS, &[good(1)], reused);

    // Of keys outside the batch Postgres tells; those within have moved on since.
    let told =
        |holder: &str| Overrules { holders: HashMap::from([(good_id(1), holder.to_owned())]), ..Overrules::default() };
    Start { overrules: told("o-9"), ..Start::default() }.fold(LIMITS, &[good(1)], reused);
    let moved_on = KeyEntry { last_event_id: Some("another".into()), ..holder() };
    Start { overrules: told("o-1"), others: vec![("o-1", moved_on)], ..Start::default() }.fold(
        LIMITS,
        &[good(1)],
        |plan| assert_eq!(numbers(plan), [1]),
    );
}

fn skipping(sequence: i64) -> StoredDecision {
    StoredDecision { verdict: Verdict::Skip, ..replacing(sequence, good(sequence)) }
}

/// Else a skip could end with another key's id, which Postgres refuses for as long as that key stands there.
#[test]
fn an_event_cannot_have_the_id_of_a_skip() {
    let mut event = good(1);
    event.payload = event.payload.replace(&good_id(1), "skipped:o-9:3");
    Start::default().fold(LIMITS, &[event], |plan| {
        assert_eq!((numbers(plan), reasons(plan)), (vec![], vec!["event_id_reused"]));
        let detail = &plan.dead_letters[0].poison.detail;
        assert!(detail.contains("`skipped:o-9:3` has the form of the ids of skipped numbers"), "{detail}");
    });
}

/// Where one was applied before they were refused, the skip steps aside.
#[test]
fn a_skip_does_not_take_the_id_that_another_key_has() {
    let id_of = |start: Start| {
        let start = Start { decisions: vec![skipping(2)], ..start };
        start.fold(LIMITS, &[], |plan| {
            assert_eq!((numbers(plan), &plan.settled[0].refused), (vec![2], &None));
            assert_eq!(plan.keys[KEY].entry.last_event_id.as_deref(), Some(&*plan.ledger[0].event_id));
            plan.ledger[0].event_id.clone().into_owned()
        })
    };
    let of_other = |id: &str| KeyEntry { last_event_id: Some(id.into()), stored: true, ..consumed(4) };
    assert_eq!(id_of(Start::of(consumed(1))), "skipped:o-0:2");
    let in_batch = Start { others: vec![("o-1", of_other("skipped:o-0:2"))], ..Start::of(consumed(1)) };
    assert_eq!(id_of(in_batch), "skipped:o-0:2+");
    // Of keys outside the batch Postgres tells.
    let holders = ["skipped:o-0:2", "skipped:o-0:2+"].map(|id| (id.to_owned(), "o-9".to_owned()));
    let overrules = Overrules { holders: HashMap::from(holders), ..Overrules::default() };
    assert_eq!(id_of(Start { overrules, ..Start::of(consumed(1)) }), "skipped:o-0:2++");
}

fn refused_by(entry: KeyEntry<State>, sequence: i64) -> (Vec<i64>, bool) {
    Start::of(entry).fold(LIMITS, &[sent(sequence, Content::Broken)], |plan| {
        assert_eq!(reasons(plan), ["invalid_json"]);
        let work = &plan.keys[KEY];
        let refused = work.entry.held.as_ref().map(|held| held.refused.iter().map(|number| number.0).collect());
        (refused.unwrap_or_default(), work.held_changed)
    })
}

#[test]
fn a_key_remembers_the_refused_numbers_ahead_of_it() {
    assert_eq!(refused_by(consumed(1), 3), (vec![3], true));
    assert_eq!(refused_by(consumed(1), 2), (vec![2], true));
    assert_eq!(refused_by(consumed(1), 1), (vec![], false), "it is behind");
    let known = Held { missing_from: Sequence(2), refused: [Sequence(3)].into(), ..Held::default() };
    assert_eq!(refused_by(KeyEntry { held: Some(known), ..consumed(1) }, 3), (vec![3], false), "nothing is new");
}

#[test]
fn what_is_refused_under_the_number_of_a_parked_event_leaves_nothing_missing() {
    Start::of(consumed(1)).fold(LIMITS, &[good(3), sent(3, Content::Broken)], |plan| {
        assert!(plan.keys[KEY].entry.held.as_ref().unwrap().refused.is_empty());
    });
}

#[test]
fn the_lowest_refused_numbers_are_remembered() {
    let max = MAX_REFUSED as i64;
    let with = |count: i64| {
        let refused = (10..10 + count).map(Sequence).collect();
        KeyEntry { held: Some(Held { missing_from: Sequence(2), refused, ..Held::default() }), ..consumed(1) }
    };
    let (one_less, changed) = refused_by(with(max - 1), 5_000);
    assert_eq!((one_less.len(), one_less.last(), changed), (MAX_REFUSED, Some(&5_000), true));
    let (full, changed) = refused_by(with(max), 5_000);
    assert_eq!((full.len(), full.last(), changed), (MAX_REFUSED, Some(&(9 + max)), false));
    let (lower, changed) = refused_by(with(max), 5);
    assert_eq!((lower.len(), lower[0], lower.last(), changed), (MAX_REFUSED, 5, Some(&(8 + max)), true));
}

/// As many as a step may drain, and then the next gap: what lies beyond is a guess, and has to be looked at.
#[test]
fn a_drain_that_is_cut_before_the_next_gap_ends_with_what_is_missing_there() {
    let all = [parked(12, true), parked(13, true), parked(15, true)];
    let held = Some(holding(&all));
    let [twelve, thirteen, fifteen] = all;
    let start = Start {
        parked: vec![twelve, thirteen],
        load: Some(ParkedLoad::Lowest),
        ..Start::of(KeyEntry { held, ..consumed(10) })
    };
    let entry = start.plan(LIMITS, &[good(11)], |mut plan| {
        let work = plan.keys.remove(KEY).unwrap();
        assert_eq!((work.entry.last_sequence, work.unfinished), (Sequence(13), true));
        *work.entry
    });
    let there = ParkedSummary { lowest: Sequence(15), count: 1 };
    assert!(entry.is_in_need(Some(there)), "{:?}", entry.held);
    Start { parked: vec![fifteen], ..Start::of(entry) }.fold(LIMITS, &[], |plan| {
        let work = &plan.keys[KEY];
        assert_eq!((work.unfinished, work.held_changed), (false, true));
        assert_eq!(work.entry.held.as_ref().unwrap().first_parked, Some(Sequence(15)));
        assert!(!work.entry.is_in_need(Some(there)));
    });
}

/// Two lanes at once: one released the key, the other one parked behind it.
#[test]
fn what_is_parked_behind_a_key_without_a_hold_is_held_or_drained() {
    let rows = || vec![parked(4, true), parked(6, true)];
    let without_hold = |last: i64, parked: Vec<StoredParked>, load: ParkedLoad| {
        Start { parked, load: Some(load), ..Start::of(consumed(last)) }.fold(LIMITS, &[], |plan| {
            let work = &plan.keys[KEY];
            let held = work.entry.held.as_ref();
            let held =
                held.map(|held| (held.missing_from.0, held.first_parked.map(|first| first.0), held.parked_count));
            (held, work.held_changed, work.unfinished, numbers(plan))
        })
    };
    assert_eq!(without_hold(2, rows(), ParkedLoad::All), (Some((3, Some(4), 2)), true, false, vec![]));
    assert_eq!(without_hold(3, rows(), ParkedLoad::All), (Some((5, Some(6), 1)), true, false, vec![4]));
    // There may be more of them: the next step tells.
    let one = vec![parked(4, true)];
    assert_eq!(without_hold(3, one, ParkedLoad::Lowest), (Some((5, Some(5), 1)), true, true, vec![4]));
    assert_eq!(without_hold(3, vec![], ParkedLoad::All), (None, false, false, vec![]));
}

fn replacing(sequence: i64, substitute: Sent) -> StoredDecision {
    let origin = Origin { partition: Partition(0), offset: Offset(50) };
    let substitute = Substitute {
        origin,
        timestamp_ms: None,
        payload: substitute.payload.into_bytes(),
        headers: substitute.headers,
        effect: Effect::Replaced,
    };
    StoredDecision {
        id: 7,
        sequence: Sequence(sequence),
        sequence_to: Sequence(sequence),
        verdict: Verdict::Take(Box::new(substitute)),
        reason: "mended".into(),
        decided_at: Micros::EPOCH,
        is_awaited: true,
    }
}

#[test]
fn a_decision_about_a_number_that_the_key_has_left_behind_is_passed_over_once() {
    let heal = |last, is_awaited| {
        let decision = StoredDecision { is_awaited, ..replacing(2, good(2)) };
        Start { decisions: vec![decision], ..Start::of(consumed(last)) }
    };
    heal(3, true).fold(LIMITS, &[], |plan| {
        assert_eq!(plan.settled, [Settled { id: 7, refused: None }]);
        assert!(numbers(plan).is_empty() && plan.tally.decisions.is_empty() && !plan.keys[KEY].changed);
    });
    heal(3, false).fold(LIMITS, &[], |plan| assert_eq!(plan.settled, []));
    heal(0, true).fold(LIMITS, &[], |plan| assert_eq!(plan.settled, [], "it may still have its turn"));
}

#[test]
fn a_substitute_is_consumed_in_its_place_and_refused_at_any_other() {
    let fold = |decision| Start { decisions: vec![decision], ..Start::of(consumed(1)) };
    fold(replacing(2, good(2))).fold(LIMITS, &[], |plan| {
        let row = &plan.ledger[0];
        assert_eq!((numbers(plan), row.effect, row.origin.offset), (vec![2], Effect::Replaced, Offset(50)));
        assert_eq!(plan.tally.decisions, HashMap::from([("replace", 1)]));
        assert_eq!((plan.settled[0].id, plan.settled[0].refused.as_deref()), (7, None));
    });
    fold(replacing(2, good(3))).fold(LIMITS, &[], |plan| {
        let refused = plan.settled[0].refused.as_deref().unwrap();
        assert!(numbers(plan).is_empty() && refused.contains("it is event 3 of `o-0`, not 2"), "{refused}");
        assert!(plan.tally.decisions.is_empty());
    });
}
