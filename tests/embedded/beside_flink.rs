//! The same window over the same log, here and on a real Flink: rows out of order, rows that come just in time, rows too late, and
//! in the end the same counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use streamview::manager::engines::{Changes, Deployment, Engine, Handle, Select, StopMode};
use streamview::manager::names::Names;

use crate::bench::{PER_MINUTE, definition, patient_engine, source, values};
use crate::orders::put_aside;
use crate::support::world::{TestRecord, World};
use crate::support::{PATIENCE, flink, until};

const PER_MINUTE_ON_FLINK: &str = "SELECT window_start AS `minute`, customer, COUNT(*) AS n, SUM(amount) AS total \
                                   FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) \
                                   GROUP BY window_start, window_end, customer";
const MINUTE: i64 = 60_000;
const PARTITIONS: i32 = 2;
/// What the source declares.
const LATENESS_MS: i64 = 5_000;
/// A window of Flink SQL closes a millisecond before its lateness is over. That much before, it is open on both.
const OPEN_MS: i64 = LATENESS_MS - 2;
/// 2026-01-01T00:00Z.
const FIRST_MS: i64 = 1_767_225_600_000;

/// By minute and customer: rows and cents.
type Windows = BTreeMap<(i64, String), (u64, i64)>;

struct Log {
    random: Rng,
    id: i64,
    fold: Windows,
}

impl Log {
    /// A row at a time since the first minute. Those that count are noted.
    fn row(&mut self, partition: i32, at_ms: i64, counts: bool) -> TestRecord {
        let (customer, cents) = (format!("c{}", self.random.u8(..5)), self.random.i64(1..100_000));
        if counts {
            let folded = self.fold.entry((at_ms / MINUTE, customer.clone())).or_default();
            *folded = (folded.0 + 1, folded.1 + cents);
        }
        let ts = jiff::Timestamp::from_millisecond(FIRST_MS + at_ms).unwrap().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        let (id, whole, rest) = (self.id, cents / 100, cents % 100);
        self.id += 1;
        let value = format!(r#"{{"id":{id},"customer":"{customer}","amount":{whole}.{rest:02},"ts":"{ts}"}}"#);
        TestRecord { payload: Some(value.into_bytes()), partition: Some(partition), ..TestRecord::default() }
    }

    /// Rows of these minutes, up to the lateness of the source out of order.
    fn minutes(&mut self, from: i64, to: i64) -> Vec<TestRecord> {
        let mut rows = Vec::new();
        for partition in 0..PARTITIONS {
            let mut at = from * MINUTE + LATENESS_MS;
            while at < to * MINUTE {
                let behind = self.random.i64(0..LATENESS_MS);
                rows.push(self.row(partition, at - behind, true));
                at += self.random.i64(0..1_500);
            }
        }
        rows
    }

    /// The time of each partition comes so far behind the end of the minute before. These rows are in a window that stays open.
    fn passes(&mut self, minute: i64, by_ms: i64) -> Vec<TestRecord> {
        (0..PARTITIONS).map(|partition| self.row(partition, minute * MINUTE + by_ms, false)).collect()
    }

    /// The last that come in time for the minute before, as late as they may be.
    fn stragglers(&mut self, minute: i64) -> Vec<TestRecord> {
        (0..PARTITIONS)
            .flat_map(|partition| [1, 2].map(|by_ms| self.row(partition, minute * MINUTE - by_ms, true)))
            .collect()
    }
}

/// What an engine has written of the minutes before this one. A window that was written twice is none.
fn written(world: &World, output: &str, before: i64) -> Windows {
    let mut windows = Windows::new();
    for value in tokio::task::block_in_place(|| values(world, output)) {
        let minute = value["minute"].as_str().unwrap()[..19].replace(' ', "T");
        let minute: jiff::Timestamp = format!("{minute}Z").parse().unwrap();
        let minute = (minute.as_millisecond() - FIRST_MS) / MINUTE;
        let cents = (value["total"].as_f64().unwrap() * 100.0).round() as i64;
        let key = (minute, value["customer"].as_str().unwrap().to_owned());
        if minute < before {
            let before = windows.insert(key, (value["n"].as_u64().unwrap(), cents));
            assert_eq!(before, None, "{output}: {value} is written twice");
        }
    }
    windows
}

/// A stream over the world's topic.
async fn deployed(world: &World, engine: &dyn Engine, sql: &str) -> (Deployment, Handle) {
    let definition = definition();
    let names = Names::of(&definition, "per minute");
    let select = Select { sql: sql.to_owned(), sources: vec![source(&world.topic)] };
    let explained = engine.explain(&select).await.unwrap();
    assert_eq!(explained.changes, Changes::Append, "a window is written once");
    world.create_topic(&names.topic(), 1, &[]).await;
    let (changes, replaces, restore) = (explained.changes, false, None);
    let deployment = Deployment { definition, names, revision: 1, attempt: 1, select, changes, replaces, restore };
    let handle = engine.deploy(&deployment).await.unwrap();
    (deployment, handle)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_window_on_flink_and_here_has_the_same_counts() {
    let world = World::new(PARTITIONS).await;
    let there = flink::engine(flink::settings(tokio::task::block_in_place(flink::shared), &world.kafka));
    let engines: [(Arc<dyn Engine>, &str); 2] =
        [(Arc::new(patient_engine(&world.kafka)), PER_MINUTE), (there, PER_MINUTE_ON_FLINK)];
    let mut running = Vec::new();
    for (engine, sql) in &engines {
        running.push(deployed(&world, &**engine, sql).await);
    }
    let outputs: Vec<String> = running.iter().map(|(deployment, _)| deployment.names.topic()).collect();
    let mut log = Log { random: Rng::with_seed(55), id: 0, fold: Windows::new() };
    let until_written = async |before: i64, windows: &Windows| {
        for output in &outputs {
            until(&format!("{output} holds the minutes before {before}"), PATIENCE * 3, || async {
                (written(&world, output, before).len() >= windows.len()).then_some(())
            })
            .await;
        }
    };

    // What comes just in time for a window has to find it open: it comes when ours has read how far the time is.
    let until_read = async |count: i64| {
        let ((here, _), (_, handle)) = (&engines[0], &running[0]);
        until("all is read here", PATIENCE, || async {
            let details = here.details(&handle.job_id).await.unwrap();
            let read = format!("query: {count} records read,");
            details.topology.nodes.iter().any(|node| node.label.starts_with(&read)).then_some(())
        })
        .await;
    };

    world.publish(log.minutes(0, 5)).await;
    world.publish(log.passes(5, OPEN_MS)).await;
    until_read(log.id).await;
    world.publish(log.stragglers(5)).await;
    until_read(log.id).await;
    world.publish(log.passes(5, LATENESS_MS)).await;
    until_written(5, &log.fold.clone()).await;
    // All of these are too late by now, on whatever engine: their windows were seen.
    let first_late = log.id;
    let late: Vec<_> = (0..40).map(|n| log.row(n % PARTITIONS, i64::from(n) * MINUTE / 10, false)).collect();
    let last_late = log.id;
    world.publish(late).await;
    // From the sixth minute on: the fifth holds what has closed those before it.
    world.publish(log.minutes(6, 9)).await;
    world.publish(log.passes(9, OPEN_MS)).await;
    until_read(log.id).await;
    world.publish(log.stragglers(9)).await;
    world.publish(log.passes(9, LATENESS_MS)).await;
    let expected = log.fold.clone();
    let of = |windows: Windows| -> Windows { windows.into_iter().filter(|((minute, _), _)| *minute != 5).collect() };
    for output in &outputs {
        until(&format!("{output} holds all minutes"), PATIENCE * 3, || async {
            (of(written(&world, output, 9)).len() >= expected.len()).then_some(())
        })
        .await;
    }
    let [here, on_flink] = [0, 1].map(|engine: usize| written(&world, &outputs[engine], 9));
    assert_eq!(of(here.clone()), expected);
    assert_eq!(here, on_flink);
    let mut aside = put_aside(&world, &outputs[0]).await;
    aside.sort_unstable();
    assert_eq!(aside, Vec::from_iter(first_late..last_late), "what was too late is kept here");
    for ((engine, _), (deployment, handle)) in engines.iter().zip(&running) {
        engine.stop(deployment, handle, StopMode::Final).await.unwrap();
    }
}
