//! A query over rows that lie in memory: what the engine itself costs, from the bytes of a record to those of its output. Reader and
//! writer do what Kafka's do, but for Kafka: they copy records into a batch, and take what a commit holds.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use streamview::embedded::engine::{Counts, Embedded};
use streamview::embedded::log::{Batch, Delivery, Log, LogError, Outgoing, Place, Position, Reader, Writer};
use streamview::embedded::settings::Settings;
use streamview::manager::engines::{Changes, Deployment, Engine, Select};
use streamview::manager::names::Names;

use super::rows;
use crate::processes::own_cpu;

/// Different rows: more than a cache holds.
const ROWS: u64 = 256 * 1024;
/// Rows of a millisecond of their own time: a minute has 600,000 of them.
const PER_MS: u64 = 10;
const WARM_UP: Duration = Duration::from_secs(2);

/// What a query does with rows from memory.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Rate {
    /// Rows that it reads for each second of a core.
    pub rows_per_cpu_s: f64,
    /// The same for each second of the clock.
    pub rows_per_s: f64,
    /// Rows that it has written, for each row read.
    pub written: f64,
}

#[derive(Clone)]
struct Memory {
    rows: Arc<Vec<Vec<u8>>>,
}

impl Log for Memory {
    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn reader(&self, _: &[String]) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(Read { rows: self.rows.to_vec(), next: 0 }))
    }

    fn writer(&self, _: &str, _: &str, _: &[String]) -> Result<Box<dyn Writer>, LogError> {
        Ok(Box::new(Taken))
    }

    fn fence(&self, _: &str) -> Result<(), LogError> {
        Ok(())
    }

    fn make_topic(&self, _: &str) -> Result<(), LogError> {
        Ok(())
    }

    fn groups(&self, _: &str) -> Result<Vec<String>, LogError> {
        Ok(Vec::new())
    }

    fn delete_groups(&self, _: &[String]) -> Result<(), LogError> {
        Ok(())
    }
}

struct Read {
    rows: Vec<Vec<u8>>,
    next: u64,
}

impl Reader for Read {
    fn partitions(&mut self) -> Result<Vec<Vec<i32>>, LogError> {
        Ok(vec![vec![0]])
    }

    fn bounds(&mut self, _: Place) -> Result<(i64, i64), LogError> {
        Ok((0, i64::MAX))
    }

    fn end(&mut self, _: Place) -> Result<i64, LogError> {
        Ok(i64::MAX)
    }

    fn ids(&mut self) -> Result<Vec<Option<String>>, LogError> {
        Ok(vec![None])
    }

    fn assign(&mut self, _: &[(Place, i64)]) -> Result<(), LogError> {
        Ok(())
    }

    fn next(&mut self, into: &mut Batch, _: Duration) -> Result<(), LogError> {
        into.clear();
        while !into.is_full() {
            let row = &mut self.rows[(self.next % ROWS) as usize];
            // The same rows come again and again, at later times.
            rows::set_time(row, self.next / PER_MS);
            let place = (Place { topic: 0, partition: 0 }, self.next as i64);
            into.push(place, Some(1_767_225_600_000), (None, Some(row)), std::iter::empty());
            self.next += 1;
        }
        Ok(())
    }
}

struct Taken;

impl Writer for Taken {
    fn positions(&mut self, _: &[Place]) -> Result<Vec<Position>, LogError> {
        Ok(Vec::new())
    }

    fn commit(&mut self, records: &[Outgoing], positions: &[Position]) -> Result<(), LogError> {
        black_box((records, positions));
        Ok(())
    }
}

/// Has a query read rows for so long. Nothing else may work in this process meanwhile.
pub async fn rate(sql: &str, seconds: f64) -> Result<Rate> {
    let rows: Vec<Vec<u8>> = (0..ROWS)
        .map(|n| {
            let mut row = Vec::new();
            rows::row(n, 0, &mut row);
            row
        })
        .collect();
    let engine = Embedded::new(Arc::new(Memory { rows: Arc::new(rows) }), None, Settings::default());
    let definition = "0123456789abcdef0123456789abcdef".to_owned();
    let select = Select { sql: sql.to_owned(), sources: vec![rows::source("orders")] };
    let deployment = Deployment {
        names: Names::of(&definition, "bench"),
        definition,
        revision: 1,
        attempt: 1,
        select,
        changes: Changes::Append,
        replaces: false,
        restore: None,
    };
    engine.deploy(&deployment).await.with_context(|| format!("deploying {sql}"))?;
    tokio::time::sleep(WARM_UP).await;
    let counted = || -> Result<(f64, f64)> {
        let running = engine.running();
        let counts = running.first().context("the query has ended")?.counts();
        let refused = Counts::get(&counts.refused) + Counts::get(&counts.late) + Counts::get(&counts.future);
        ensure!(refused == 0, "{refused} rows were put aside");
        Ok((Counts::get(&counts.read) as f64, Counts::get(&counts.written) as f64))
    };
    let (began, cpu, (read, written)) = (std::time::Instant::now(), own_cpu()?, counted()?);
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (elapsed, cpu, (read_now, written_now)) = (began.elapsed(), own_cpu()? - cpu, counted()?);
    let read = read_now - read;
    Ok(Rate {
        rows_per_cpu_s: read / cpu,
        rows_per_s: read / elapsed.as_secs_f64(),
        written: (written_now - written) / read,
    })
}
