//! Any cut of any history into pages tells every row once, and each key's rows in order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Each transaction: rows as key and partition.
type History = Vec<Vec<(u8, i32)>>;

/// The ledger that such a history leaves, as each partition's rows in order.
fn ledger(history: &History) -> Vec<Entry> {
    let (mut commits, mut sequences) = (BTreeMap::new(), BTreeMap::new());
    let mut entries = Vec::new();
    for transaction in history {
        let mut partitions: Vec<i32> = transaction.iter().map(|(_, partition)| *partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        for partition in partitions {
            *commits.entry(partition).or_insert(0) += 1;
        }
        for (key, partition) in transaction {
            let sequence: &mut i64 = sequences.entry(*key).or_default();
            *sequence += 1;
            entries.push(entry(*partition, commits[partition], &key.to_string(), *sequence));
        }
    }
    entries
        .sort_by(|a, b| (a.partition, a.commit, &a.key, a.sequence).cmp(&(b.partition, b.commit, &b.key, b.sequence)));
    entries
}

fn entry(partition: i32, commit: i64, key: &str, sequence: i64) -> Entry {
    Entry {
        partition: Partition(partition),
        commit,
        key: key.to_owned(),
        sequence: Sequence(sequence),
        event_id: String::new(),
        event_type: String::new(),
        effect: String::new(),
        is_there: true,
    }
}

/// The rows of one page, as `store::changes::page` reads them, and what it finds before open rows.
fn next(ledger: &[Entry], cut: &Cut, limit: usize) -> Merged {
    let mut ahead = Vec::new();
    let mut rows = Vec::new();
    for partition in (0..3).map(Partition) {
        let of_partition: Vec<&Entry> = ledger.iter().filter(|entry| entry.partition == partition).collect();
        let (from, until) = (cut.reached(partition), of_partition.last().map_or(0, |entry| entry.commit));
        if from.commit < until {
            ahead.push(Ahead { partition, from, until });
            let after = of_partition.iter().filter(|entry| entry.commit > from.commit).skip(from.rows as usize);
            rows.extend(after.take(limit + 1).map(|entry| (*entry).clone()));
        }
    }
    let mut read = Read::new(&ahead, rows, limit);
    for open in read.open() {
        let (key, sequence) = read.row(open);
        let before = ledger.iter().filter(|entry| entry.key == key && entry.sequence < sequence);
        let before = before.max_by_key(|entry| entry.sequence);
        let before = before.map(|e| Earlier { partition: e.partition, commit: e.commit, sequence: e.sequence });
        if let Some(before) = before {
            read.wait(open, before);
        }
    }
    read.merge(cut.clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pages_of_any_size_tell_every_row_once_and_in_order_of_its_key(
        history in prop::collection::vec(prop::collection::vec((0..4u8, 0..3i32), 1..6), 1..12),
        limit in 1..5usize,
    ) {
        let ledger = ledger(&history);
        let (mut cut, mut told) = (Cut::default(), Vec::new());
        loop {
            let page = next(&ledger, &cut, limit);
            for (_, place) in &page.entries {
                prop_assert!(!cut.covers(place));
                prop_assert!(page.cut.covers(place));
            }
            prop_assert!(page.is_all || !page.entries.is_empty(), "a page that does not move");
            told.extend(page.entries.into_iter().map(|(entry, _)| (entry.key, entry.sequence)));
            cut = page.cut;
            if page.is_all {
                break;
            }
        }
        let mut last = BTreeMap::new();
        for (key, sequence) in &told {
            prop_assert_eq!(last.insert(key.clone(), *sequence).map_or(1, |last: Sequence| last.0 + 1), sequence.0);
        }
        prop_assert_eq!(told.len(), ledger.len());
    }
}

#[test]
fn a_key_that_moved_to_another_partition_keeps_its_order() {
    // Its first event stands behind in a partition that is read in small pages.
    let ledger = ledger(&vec![vec![(9, 2); 3], vec![(1, 2)], vec![(1, 0)]]);
    let page = next(&ledger, &Cut::default(), 2);
    let told: Vec<(&str, i64)> = page.entries.iter().map(|(entry, _)| (entry.key.as_str(), entry.sequence.0)).collect();
    assert_eq!(told, [("9", 1), ("9", 2)], "what comes after the rest of partition 2 waits");
}

#[test]
fn rows_that_wait_in_a_circle_are_told_all_the_same() {
    // Both keys were lost whole, and mended one after the other behind their later events.
    let circle = [entry(0, 1, "a", 2), entry(0, 2, "b", 1), entry(1, 1, "b", 2), entry(1, 2, "a", 1)];
    for (limit, moving) in [(1, 0), (5, 0), (2, 1), (2, 30)] {
        let mut ledger = circle.to_vec();
        let (mut cut, mut told, mut grown) = (Cut::default(), Vec::new(), 0);
        loop {
            // Another partition goes on meanwhile, so that there is something to tell in each page.
            if grown < moving {
                grown += 1;
                ledger.push(entry(2, grown, "c", grown));
            }
            let page = next(&ledger, &cut, limit);
            assert!(page.is_all || !page.entries.is_empty(), "a page that does not move");
            told.extend(page.entries.into_iter().map(|(entry, _)| entry));
            cut = page.cut;
            if page.is_all && grown == moving {
                break;
            }
            assert!(grown < 10 || told.iter().any(|entry| entry.key == "a"), "those that wait are never told");
        }
        let place = |entry: &Entry| (entry.partition, entry.commit);
        told.sort_by_key(place);
        ledger.sort_by_key(place);
        assert_eq!(told, ledger);
    }
}
