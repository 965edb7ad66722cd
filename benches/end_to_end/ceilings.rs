//! What Postgres itself can do with the same rows, in the same run: COPY into equal tables, and pgbench.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio_postgres::Client;

use crate::backlog::Backlog;
use crate::fleet::Fleet;
use crate::results::Better::{Less, More};
use crate::section::{Lines, Section};

/// A COPY of rows that lie ready in files of the server.
#[derive(Debug, Clone, Serialize)]
pub struct Copied {
    /// Rows over all tables.
    pub rows: u64,
    /// From the first row to the last commit.
    pub seconds: f64,
    /// Rows a second.
    pub rows_per_s: f64,
    /// CPU microseconds of Postgres per row.
    pub postgres_us: f64,
}

/// The ceilings of a backlog run.
#[derive(Debug, Clone, Serialize)]
pub struct Ceilings {
    /// The final rows of orders, items and ledger into equal tables, one connection.
    pub same_rows: Copied,
    /// The same, halves of the rows on two connections at once.
    pub same_rows_two_connections: Copied,
    /// One row per event into a table like `orders`, with all its indexes.
    pub row_per_event: Copied,
    /// One row per event into a table with primary key and status index only: the table of the peers' figures.
    pub row_per_event_two_indexes: Copied,
}

type Named = (&'static str, fn(&Ceilings) -> &Copied);

/// How they are reported: each ceiling, and the backlog run before it as a share of it.
pub fn section(runs: &[(Backlog, Ceilings)]) -> Section {
    let ceilings: [Named; 4] = [
        ("final rows and ledger", |all| &all.same_rows),
        ("the same by two connections", |all| &all.same_rows_two_connections),
        ("a row per event, all indexes", |all| &all.row_per_event),
        ("a row per event, 2 indexes", |all| &all.row_per_event_two_indexes),
    ];
    let mut lines = Lines::of("COPY of rows that lie ready in files", runs);
    for (name, copied) in ceilings {
        lines = lines
            .informs(More, name, "rows/s", |(_, all)| copied(all).rows_per_s)
            .informs(Less, &format!("{name}: CPU"), "us/row", |(_, all)| copied(all).postgres_us)
            .judged(More, &format!("{name}: speed, backlog / COPY"), "", |(run, all)| {
                copied(all).seconds * run.events_per_s / run.events as f64
            })
            .judged(Less, &format!("{name}: CPU, backlog / COPY"), "", |(run, all)| {
                let Copied { postgres_us, rows, .. } = copied(all);
                run.us() * run.events as f64 / (postgres_us * *rows as f64)
            });
    }
    lines.done()
}

struct Load {
    table: &'static str,
    file: PathBuf,
}

const HALVES: [(&str, &str); 2] = [("even", "% 2 = 0"), ("odd", "% 2 <> 0")];

/// Measures the COPY ceilings with the rows of `database`.
pub async fn copy(fleet: &Fleet, database: &str) -> Result<Ceilings> {
    let client = fleet.connect(database).await?;
    let folder = fleet.postgres.data_dir().to_owned();
    let mut whole = Vec::new();
    let mut halves = [Vec::new(), Vec::new()];
    for table in ["orders", "order_items", "ledger"] {
        whole.push(dump(&client, &folder, table, &format!("select * from orders_1.{table}"), "all").await?);
        let key = if table == "ledger" { "key" } else { "order_id" };
        for (half, (name, condition)) in halves.iter_mut().zip(HALVES) {
            let rows = format!("select * from orders_1.{table} where hashtext({key}) {condition}");
            half.push(dump(&client, &folder, table, &rows, name).await?);
        }
    }
    // Whether or not the ledger keeps them.
    let events = "select o.order_id || '/' || n, o.last_event_sequence, o.item_count, o.updated_at, o.total_net, \
                  o.total_gross, o.status, o.currency, o.customer_id, o.tax_basis, o.last_event_id, \
                  gen_random_uuid()::text, o.anomalies \
                  from orders_1.orders o, generate_series(1, o.last_event_sequence) n order by o.updated_at";
    let per_event = [dump(&client, &folder, "orders", events, "events").await?];
    let [left, right] = halves;
    Ok(Ceilings {
        same_rows: load(fleet, database, &[&whole], "").await?,
        same_rows_two_connections: load(fleet, database, &[&left, &right], "").await?,
        row_per_event: load(fleet, database, &[&per_event], "").await?,
        row_per_event_two_indexes: load(fleet, database, &[&per_event], TWO_INDEXES).await?,
    })
}

const TWO_INDEXES: &str =
    "alter table ceiling.orders drop constraint orders_dedup_event_id_key; drop index ceiling.orders_customer_id_idx";

async fn dump(client: &Client, folder: &Path, table: &'static str, rows: &str, name: &str) -> Result<Load> {
    let file = folder.join(format!("ceiling-{table}-{name}"));
    client.batch_execute(&format!("copy ({rows}) to '{}' (format binary)", file.display())).await?;
    Ok(Load { table, file })
}

async fn load(fleet: &Fleet, database: &str, parts: &[&[Load]], change: &str) -> Result<Copied> {
    let client = fleet.connect(database).await?;
    client.batch_execute("create schema ceiling").await?;
    for table in ["orders", "order_items", "ledger"] {
        let sql = format!("create table ceiling.{table} (like orders_1.{table} including all)");
        client.batch_execute(&sql).await?;
    }
    client.batch_execute(change).await?;
    client.batch_execute("checkpoint").await?;
    let watched = fleet.watched(&[])?;
    let (before, started) = (watched.cpu()?, Instant::now());
    let connections = parts.iter().map(|part| async {
        let client = fleet.connect(database).await?;
        let mut rows = 0;
        for Load { table, file } in *part {
            let sql = format!("copy ceiling.{table} from '{}' (format binary)", file.display());
            rows += client.execute(&sql, &[]).await?;
        }
        anyhow::Ok(rows)
    });
    let rows: u64 = futures_util::future::try_join_all(connections).await?.iter().sum();
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), watched.cpu()?.since(before));
    client.batch_execute("drop schema ceiling cascade").await?;
    let postgres_us = cpu.postgres / rows as f64 * 1e6;
    Ok(Copied { rows, seconds, rows_per_s: rows as f64 / seconds, postgres_us })
}

/// Runs `script` by pgbench with prepared statements; gives transactions a second.
pub fn pgbench(fleet: &Fleet, database: &str, script: &str, connections: usize, seconds: u64) -> Result<Option<f64>> {
    let Some(program) = fleet.pgbench() else { return Ok(None) };
    let file = std::env::temp_dir().join(format!("streamview-bench-{}.sql", std::process::id()));
    std::fs::write(&file, script).context("writing the script of pgbench")?;
    let output = Command::new(program)
        // `page` is the number of pages that a script which walks through a list has read.
        .args(["-h", "127.0.0.1", "-U", "postgres", "-n", "-M", "prepared", "-j", "2", "-D", "page=0"])
        .args(["-p", &fleet.postgres.port().to_string(), "-c", &connections.to_string()])
        .args(["-T", &seconds.to_string(), "-f"])
        .arg(&file)
        .arg(database)
        .output()
        .context("running pgbench")?;
    std::fs::remove_file(&file)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(tps) = text.lines().find_map(|line| line.strip_prefix("tps = ")) else {
        bail!("pgbench: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(Some(tps.split(' ').next().context("odd output of pgbench")?.parse()?))
}
