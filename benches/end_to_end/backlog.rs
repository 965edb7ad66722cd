//! Backlog: the topic is full, the tables are empty, the service starts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tokio_postgres::Client;

use crate::fleet::{BACKLOG_TOPIC, Fleet, Service};
use crate::http::Connection;
use crate::processes::{load_average, memory_mb};
use crate::workload::{Expected, expected};

/// What a backlog run took.
#[derive(Debug, Clone, Serialize)]
pub struct Backlog {
    /// Events in the topic.
    pub events: i64,
    /// From launching the process to its first committed batch.
    pub launch_to_first_row_s: f64,
    /// From the first committed batch to the last.
    pub seconds: f64,
    /// Events committed in that time, per second.
    pub events_per_s: f64,
    /// The same of the second half.
    pub second_half_events_per_s: f64,
    /// CPU microseconds per event of the service, launch included.
    pub client_us: f64,
    /// The same of Postgres: all its processes.
    pub postgres_us: f64,
    /// The same of the broker.
    pub kafka_us: f64,
    /// Cores that processes outside this benchmark used meanwhile.
    pub others_cores: f64,
    /// Highest resident memory of the service.
    pub peak_rss_mb: f64,
    /// WAL written per event.
    pub wal_bytes: f64,
    /// Events per committed batch, on average.
    pub batch_events: f64,
    /// Load average before.
    pub load_average: f64,
}

/// Runs it once in an empty database and checks the result. Leaves the service running.
pub async fn run(fleet: &Fleet, database: &str, orders: u64, sql: Option<&str>) -> Result<(Backlog, Service)> {
    fleet.create_database(database).await?;
    let client = fleet.connect(database).await?;
    let expected = expected(orders);
    if let Some(sql) = sql {
        client.batch_execute(sql).await.context("the SQL before the backlog")?;
    }
    client.batch_execute("checkpoint").await?;
    let (load, wal_before) = (load_average()?, wal_position(&client).await?);
    let before = fleet.watched(None)?.cpu()?;

    let mut service = fleet.serve(database, BACKLOG_TOPIC, database)?;
    let watched = fleet.watched(Some(service.pid()))?;
    let samples = watch(&client, &mut service, expected.events).await?;
    let cpu = watched.cpu()?.since(before);
    let (_, peak_rss_mb) = memory_mb(service.pid())?;
    let elapsed = service.started.elapsed().as_secs_f64();
    let batch_events = batch_events(&service).await?;
    check(&client, &expected).await?;

    let (first, last) = (samples[0], samples[samples.len() - 1]);
    let middle = samples.iter().find(|sample| 2 * sample.1 >= expected.events).copied().unwrap_or(first);
    let rate = |from: (Instant, i64), to: (Instant, i64)| (to.1 - from.1) as f64 / (to.0 - from.0).as_secs_f64();
    let events = expected.events as f64;
    let backlog = Backlog {
        events: expected.events,
        launch_to_first_row_s: (first.0 - service.started).as_secs_f64(),
        seconds: (last.0 - first.0).as_secs_f64(),
        events_per_s: rate(first, last),
        second_half_events_per_s: rate(middle, last),
        client_us: cpu.client / events * 1e6,
        postgres_us: cpu.postgres / events * 1e6,
        kafka_us: cpu.kafka / events * 1e6,
        others_cores: cpu.others() / elapsed,
        peak_rss_mb,
        wal_bytes: (wal_position(&client).await? - wal_before) as f64 / events,
        batch_events,
        load_average: load,
    };
    Ok((backlog, service))
}

/// When how many events were committed, from the first that were seen to all of them.
async fn watch(client: &Client, service: &mut Service, events: i64) -> Result<Vec<(Instant, i64)>> {
    let statement = client.prepare("select coalesce(sum(next_offset), 0)::bigint from projection_progress").await?;
    let mut samples = Vec::new();
    let mut moved = Instant::now();
    loop {
        let applied: i64 = client.query_one(&statement, &[]).await?.try_get(0)?;
        let now = Instant::now();
        if applied > samples.last().map_or(0, |(_, applied)| *applied) {
            samples.push((now, applied));
            moved = now;
        }
        if applied >= events {
            ensure!(samples.len() > 1, "the backlog is too short to be measured");
            return Ok(samples);
        }
        service.check_alive()?;
        if moved.elapsed() > Duration::from_secs(60) {
            bail!("no progress for a minute at {applied} of {events} events\n{}", service.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Fails unless the views are what the oracle says.
pub async fn check(client: &Client, expected: &Expected) -> Result<()> {
    let sql = "select (select count(*) from orders_view), (select count(*) from order_items_view), \
               (select coalesce(sum(applied), 0)::bigint from projection_progress), \
               (select coalesce(sum(last_event_sequence), 0)::bigint from orders_view), \
               (select coalesce(sum(total_net * 100), 0)::bigint from orders_view), \
               (select count(*) from order_events_view where effect = 'applied')";
    let row = client.query_one(sql, &[]).await?;
    let (orders, items, events): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (sequences, net_cents, ledger): (i64, i64, i64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    let is_off = std::env::var("STREAMVIEW_PROJECTOR__HISTORY").is_ok_and(|history| history == "off");
    ensure!(ledger == if is_off { 0 } else { events }, "{ledger} ledger rows of {events} events");
    let mut statuses = std::collections::BTreeMap::new();
    for row in client.query("select coalesce(status, ''), count(*) from orders_view group by 1", &[]).await? {
        statuses.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let found = Expected { orders, events, net_cents, statuses };
    ensure!(
        found == *expected && items == orders && sequences == events,
        "the views are wrong: {found:?}, {items} items, sequences add up to {sequences}; expected {expected:?}"
    );
    Ok(())
}

/// Bytes of WAL written so far.
pub async fn wal_position(client: &Client) -> Result<i64> {
    let row = client.query_one("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint", &[]).await?;
    Ok(row.try_get(0)?)
}

/// From the service's own metrics.
async fn batch_events(service: &Service) -> Result<f64> {
    let mut connection = Connection::open(service.port).await?;
    let text = String::from_utf8(connection.get("/metrics").await?.body.to_vec())?;
    let value = |name: &str| -> Result<f64> {
        let line = text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no metric {name}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    Ok(value("streamview_batch_records_sum")? / value("streamview_batch_records_count")?)
}
