//! When a partition is silent, by a clock that the test holds.

use std::collections::BTreeSet;

use tokio::runtime::Runtime;

use super::*;
use crate::encode::values;
use crate::job::intake::Intake;
use crate::job::places::Places;
use crate::job::runtime;
use crate::log::{Batch, Place, Reader};
use crate::plan::{Bounds, Limits, Prepared, Purpose};
use crate::run::Execution;

const SILENCE: Duration = Duration::from_secs(30);
/// So much of a turn counts as silence at most.
const HEARD: Duration = Duration::from_secs(5);
/// What time it is by the clock of the rows, in milliseconds since 1970: long after all of them.
const NOW: i64 = 36_000_000;
const NOTHING: [(i64, i64); 0] = [];

/// What a job does in its turns, of a count per minute.
struct Turns {
    log: Memory,
    reader: Box<dyn Reader>,
    intake: Intake,
    execution: Execution,
    places: Places,
    batch: Batch,
    runtime: Runtime,
    now: Instant,
}

impl Turns {
    fn new(partitions: i32) -> Turns {
        let log = Memory::default();
        log.topic("orders", usize::try_from(partitions).unwrap());
        let prepared = Prepared::new(&select(PER_MINUTE), Purpose::Persistent, &Limits::default()).unwrap();
        let mut execution = prepared.start(Bounds::default()).unwrap();
        execution.assign(0, &(0..partitions).collect::<Vec<_>>());
        let (mut reader, mut places) = (log.reader(&["orders".to_owned()]).unwrap(), Places::default());
        for partition in 0..partitions {
            let place = Place { topic: 0, partition };
            places.add(place, 0, (0, 0), BTreeSet::new());
            reader.assign(&[(place, 0)]).unwrap();
        }
        let (intake, runtime) = (Intake::new(&prepared, None), runtime().unwrap());
        Turns { log, reader, intake, execution, places, batch: Batch::default(), runtime, now: Instant::now() }
    }

    /// An order in so many seconds since 1970.
    fn order(&self, partition: usize, second: i64) {
        let ts = second * 1_000;
        self.log.publish("orders", partition, ts, &format!(r#"{{"id":1,"customer":"a","amount":1,"ts":{ts}}}"#));
    }

    /// The windows that close: which minute, and how many orders.
    fn turn(&mut self) -> Vec<(i64, i64)> {
        self.reader.next(&mut self.batch, Duration::ZERO).unwrap();
        let mut moved = BTreeSet::new();
        let taken = self.intake.take(&self.batch, |_| false, &self.runtime).unwrap();
        for (source, rows) in taken.rows {
            let pushed = self.runtime.block_on(self.execution.push(source, rows, NOW)).unwrap();
            assert!(pushed.late.is_empty(), "{pushed:?}");
            moved.extend(pushed.moved.iter().map(|partition| Place { topic: source, partition: *partition }));
        }
        self.places.note(&self.batch, &moved, self.now);
        self.places.tell_idle(&mut self.execution, &mut *self.reader, SILENCE, self.now);
        let closed = self.runtime.block_on(self.execution.close(NOW)).unwrap();
        let of = |output: &crate::run::Output| {
            let (start, _) = output.window.unwrap();
            (start / 60_000, values(&output.rows, 0)[2].as_i64().unwrap())
        };
        closed.iter().map(of).collect()
    }

    /// The same, of a turn now and one after each second that passes.
    fn pass(&mut self, time: Duration) -> Vec<(i64, i64)> {
        let mut closed = self.turn();
        for _ in 0..time.as_secs() {
            self.now += Duration::from_secs(1);
            closed.extend(self.turn());
        }
        closed
    }
}

#[test]
fn a_partition_with_an_open_transaction_is_not_silent() {
    let mut turns = Turns::new(1);
    turns.order(0, 1);
    turns.log.open_transaction("orders", 0);
    turns.order(0, 2);
    assert_eq!(turns.pass(10 * SILENCE), NOTHING);
    turns.log.commit_transaction("orders", 0);
    assert_eq!(turns.pass(SILENCE), [(0, 2)]);
}

#[test]
fn a_partition_whose_end_nobody_tells_is_not_silent() {
    let mut turns = Turns::new(1);
    turns.order(0, 1);
    turns.log.tell_ends(false);
    assert_eq!(turns.pass(10 * SILENCE), NOTHING);
    turns.log.tell_ends(true);
    assert_eq!(turns.pass(SILENCE), [(0, 1)]);
}

#[test]
fn what_is_set_aside_ends_no_silence_and_a_row_does() {
    let mut turns = Turns::new(2);
    turns.order(1, 1);
    let mut closed = Vec::new();
    for second in 0..40 {
        match second % 4 {
            0 => turns.log.publish("orders", 0, 0, "no JSON"),
            1 => turns.log.put("orders", "a", None),
            2 => turns.log.publish("orders", 0, 0, r#"{"id":1}"#),
            _ => turns.order(0, NOW / 1_000 + 3_600),
        }
        // The other partition goes on, and is in another minute.
        turns.order(1, 130);
        closed.extend(turns.pass(Duration::from_secs(1)));
    }
    assert_eq!(closed, [(0, 1)]);
    turns.log.publish("orders", 0, 0, "no JSON");
    turns.order(1, 250);
    assert_eq!(turns.turn(), [(2, 40)], "it is silent still");
    turns.order(0, 260);
    turns.order(1, 400);
    assert_eq!(turns.turn(), NOTHING, "it is waited for again");
    assert_eq!(turns.pass(SILENCE), [(4, 2), (6, 1)]);
}

#[test]
fn a_partition_is_not_silent_before_all_is_read_that_came_meanwhile() {
    let mut turns = Turns::new(2);
    turns.order(1, 1);
    turns.order(1, 130);
    assert_eq!(turns.pass(SILENCE - Duration::from_secs(1)), NOTHING);
    // More than is read at once, and a row behind it.
    (0..20_000).for_each(|_| turns.log.publish("orders", 0, 0, "no JSON"));
    turns.order(0, 2);
    turns.order(1, 130);
    assert_eq!(turns.pass(Duration::from_secs(5)), NOTHING);
    assert_eq!(turns.pass(SILENCE), [(0, 2), (2, 2)]);
}

#[tokio::test]
async fn a_partition_of_which_nothing_can_be_read_holds_no_window_of_a_deployed_query() {
    let bench = Bench::new(2);
    bench.order(0, 1, "a", "1", 1_000);
    bench.deploy(&deployment(PER_MINUTE, 1, None)).await;
    let rows = until(|| {
        bench.log.publish("orders", 1, 0, "no JSON");
        Some(bench.log.values(&bench.output)).filter(|rows| !rows.is_empty())
    })
    .await;
    assert_eq!(rows.len(), 1, "{rows:?}");
}

#[tokio::test]
async fn a_partition_of_which_nothing_can_be_read_holds_no_window_of_a_look() {
    let bench = Bench::new(2);
    bench.order(0, 1, "a", "1", 1_000);
    let mut rows = bench.engine.query(look(PER_MINUTE, true)).await.unwrap();
    until(|| {
        bench.log.publish("orders", 1, 0, "no JSON");
        let item = rows.next().now_or_never()?;
        matches!(item, Some(Item::Row(_))).then_some(())
    })
    .await;
}

#[test]
fn who_stood_still_listens_anew_before_a_partition_is_silent() {
    let mut turns = Turns::new(1);
    turns.order(0, 1);
    assert_eq!(turns.turn(), NOTHING);
    turns.now += 2 * SILENCE;
    assert_eq!(turns.pass(SILENCE - HEARD - Duration::from_secs(1)), NOTHING);
    assert_eq!(turns.pass(Duration::from_secs(1)), [(0, 1)]);
}

/// It is slow, and hears everybody in each turn.
#[test]
fn who_always_takes_long_comes_to_an_end_of_a_silence_all_the_same() {
    let mut turns = Turns::new(2);
    turns.order(0, 1);
    let mut closed = Vec::new();
    for _ in 0..10 {
        closed.extend(turns.turn());
        turns.now += Duration::from_secs(20);
    }
    assert_eq!(closed, [(0, 1)]);
}

#[test]
fn who_stood_still_reads_what_has_come_of_idle_partitions_before_a_window_closes() {
    let mut turns = Turns::new(2);
    for _ in 0..=SILENCE.as_secs() {
        turns.order(0, 1);
        assert_eq!(turns.pass(Duration::from_secs(1)), NOTHING);
    }
    turns.now += SILENCE;
    // More than is read at once, and a row of the partition that is idle.
    (0..10_000).for_each(|_| turns.order(0, 130));
    turns.order(1, 2);
    assert_eq!(turns.turn(), NOTHING);
    assert_eq!(turns.turn(), NOTHING);
    assert_eq!(turns.pass(SILENCE), [(0, 32), (2, 10_000)]);
}
