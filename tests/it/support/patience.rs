//! How long a test waits: as long as something moves. A slow machine costs time and fails nothing; a standstill fails.

use std::cell::RefCell;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use crate::support::wires;

/// How long nothing may move, whatever the machine has to do; no passing test stands still that long.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// So many patiences in all: something that moves for ever, such as a log of failures, does not hide that nothing comes
/// of it.
const LIMIT: u32 = 10;
/// So often within one patience a look is taken whether something has moved.
const LOOKS: u32 = 4;

/// Everything that a batch, a takeover, a decision or the relay leaves behind, in one text. Numbers that only readers or
/// clocks move are not in it.
const MOVEMENT: &str = "
    select concat_ws(' ',
        (select string_agg(concat_ws(':', build, partition, next_offset, owner_epoch, consumed, parked, dead_lettered), ' '
                           order by build, partition)
         from projection_progress),
        (select concat_ws(':', count(*), count(published_at)) from dead_letters),
        (select concat_ws(':', count(*), count(taken_at), count(refused)) from decision_outcomes),
        (select concat_ws(':', count(*), sum(parked_count)) from held_keys))";

thread_local! {
    /// What the test of this thread has started: each test has a thread of its own.
    static WATCHED: RefCell<Watched> =
        const { RefCell::new(Watched { databases: Vec::new(), logs: Vec::new(), servers: Vec::new() }) };
}

#[derive(Clone, Default)]
struct Watched {
    databases: Vec<String>,
    logs: Vec<PathBuf>,
    /// Port and process.
    servers: Vec<(u16, u32)>,
}

/// Rows of this database count as movement for the test that calls.
pub fn watch_database(url: &str) {
    WATCHED.with_borrow_mut(|watched| watched.databases.push(url.to_owned()));
}

/// So do lines of this log.
pub fn watch_log(path: &Path) {
    WATCHED.with_borrow_mut(|watched| watched.logs.push(path.to_owned()));
}

/// Of this process it is told what it does when it does not answer.
pub fn watch_server(port: u16, process: u32) {
    WATCHED.with_borrow_mut(|watched| watched.servers.push((port, process)));
}

/// Asks again and again until `probe` has an answer; fails with what was awaited once nothing has moved for `patience`:
/// no row of the test's databases, no line of its instances' logs.
///
/// The only place where a test waits for time to pass: everything else waits for something to happen.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    patience: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let mut standstill = Standstill::begin(patience, Instant::now());
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tick.tick().await;
        let Ok(answer) = tokio::time::timeout(patience * LIMIT, probe()).await else {
            let servers = WATCHED.with_borrow(|watched| watched.servers.clone());
            let told: Vec<String> = servers.into_iter().map(|(port, process)| wires::of(port, process)).collect();
            panic!("the probe itself has not come back, in vain until {what}\n{}", told.join("\n"));
        };
        if let Some(answer) = answer {
            return answer;
        }
        if standstill.is_due(Instant::now()) {
            let pulse = pulse().await;
            let verdict = standstill.verdict(pulse, Instant::now());
            assert!(verdict.is_ok(), "{} until {what}", verdict.unwrap_err());
        }
    }
}

/// Whether something has moved, and when.
struct Standstill {
    patience: Duration,
    began: Instant,
    moved: Instant,
    looked: Instant,
    seen: Option<String>,
}

impl Standstill {
    fn begin(patience: Duration, now: Instant) -> Standstill {
        Standstill { patience, began: now, moved: now, looked: now, seen: None }
    }

    /// Looks are rare: a test that passes takes none.
    fn is_due(&self, now: Instant) -> bool {
        now - self.looked >= self.patience / LOOKS
    }

    /// Whether to wait on. What cannot be read for once, as the database was killed, has not moved.
    fn verdict(&mut self, pulse: String, now: Instant) -> Result<(), String> {
        self.looked = now;
        if self.seen.as_ref().is_some_and(|seen| *seen != pulse) {
            self.moved = now;
        }
        self.seen = Some(pulse);
        if now - self.moved >= self.patience {
            return Err(format!("nothing has moved for {:?}, in vain", now - self.moved));
        }
        if now - self.began >= self.patience * LIMIT {
            return Err(format!("waited {:?} in vain, though something moves,", now - self.began));
        }
        Ok(())
    }
}

/// Where everything that this test has started stands.
async fn pulse() -> String {
    let Watched { databases, logs, .. } = WATCHED.with_borrow(Clone::clone);
    let mut pulse = String::new();
    for log in logs {
        let length = std::fs::metadata(log).map_or(0, |log| log.len());
        pulse.push_str(&format!("log {length} "));
    }
    for database in databases {
        let rows = tokio::time::timeout(Duration::from_secs(10), rows(&database)).await;
        pulse.push_str(&format!("rows {} ", rows.ok().flatten().unwrap_or_default()));
    }
    pulse
}

/// `None` while the database is away, or has no tables yet.
async fn rows(database: &str) -> Option<String> {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await.ok()?;
    let driver = tokio::spawn(connection);
    let row = client.query_one(MOVEMENT, &[]).await;
    drop(client);
    driver.await.ok()?.ok()?;
    row.ok()?.get(0)
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;

    use super::*;
    use crate::support::world::World;

    const SECOND: Duration = Duration::from_secs(1);

    fn ages(patience: u32, pulses: impl Iterator<Item = u32>) -> Option<(u32, String)> {
        let began = Instant::now();
        let mut standstill = Standstill::begin(SECOND * patience, began);
        for (age, pulse) in (1..).zip(pulses) {
            let now = began + SECOND * age;
            if standstill.is_due(now)
                && let Err(why) = standstill.verdict(pulse.to_string(), now)
            {
                return Some((age, why));
            }
        }
        None
    }

    #[test]
    fn what_moves_is_waited_for_and_a_standstill_is_not() {
        assert_eq!(ages(60, (0..599).map(|age| age / 50)), None, "slow, but it moves");
        let (age, why) = ages(60, std::iter::repeat_n(7, 1000)).unwrap();
        assert_eq!((age, why.as_str()), (60, "nothing has moved for 60s, in vain"));
        let (age, _) = ages(60, (0..1000).map(|age| age.min(100))).unwrap();
        assert_eq!(age, 165, "a patience after what was seen to move last");
        let (age, why) = ages(60, 0..1000).unwrap();
        assert_eq!((age, why.contains("though something moves")), (600, true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_that_move_slowly_outlast_any_patience() {
        let world = World::new(1).await;
        let insert = "insert into projection_progress (view, build, topic, partition, next_offset) values ('orders', 1, 't', 7, 0)";
        world.sql.batch_execute(insert).await.unwrap();
        let patience = SECOND * 2;
        let began = Instant::now();
        let count = std::cell::Cell::new(0);
        let moving = until("three patiences are over", patience, || async {
            count.set(count.get() + 1);
            if count.get() % 5 == 0 {
                let update = "update projection_progress set next_offset = next_offset + 1 where partition = 7";
                world.sql.batch_execute(update).await.unwrap();
            }
            (began.elapsed() > patience * 3).then_some(())
        });
        moving.await;

        let still = AssertUnwindSafe(until::<(), _>("the sky falls", patience, || async { None })).catch_unwind().await;
        let why = *still.unwrap_err().downcast::<String>().unwrap();
        assert!(why.starts_with("nothing has moved for") && why.ends_with("in vain until the sky falls"), "{why}");
    }
}
