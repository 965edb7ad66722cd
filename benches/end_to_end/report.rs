//! The report: a table for people, JSON for comparison.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::backlog::Backlog;
use crate::ceilings::{Ceilings, Copied};
use crate::live::{Idle, Live};
use crate::load::Load;
use crate::reads::Reads;
use crate::storm::Storm;

/// Everything one run measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Machine, servers and settings.
    pub conditions: BTreeMap<String, String>,
    /// Backlog runs, each with the ceilings measured right after it.
    pub backlogs: Vec<(Backlog, Option<Ceilings>)>,
    /// Bulk loads, one beside each backlog.
    pub loads: Vec<Load>,
    /// The idle service.
    pub idle: Option<Idle>,
    /// Live rates.
    pub live: Vec<Live>,
    /// Reads by primary key.
    pub by_id: Option<Reads>,
    /// Reads of list pages.
    pub pages: Option<Reads>,
    /// Held orders.
    pub storm: Option<Storm>,
}

impl Report {
    /// Prints the table.
    pub fn print(&self) {
        println!("\n# conditions");
        for (name, value) in &self.conditions {
            println!("{name:<28} {value}");
        }
        self.print_backlogs();
        self.print_loads();
        if let Some(idle) = &self.idle {
            println!("\n# idle, {:.0} s: {:.1} % of a core, RSS {:.0} MB", idle.seconds, idle.cpu_percent, idle.rss_mb);
        }
        if !self.live.is_empty() {
            println!("\n# live: from produce to visible over REST");
            println!(
                "{:>9} {:>8} {:>7} {:>8} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8} {:>7} {:>6}",
                "events/s",
                "samples",
                "unseen",
                "p50 ms",
                "p99 ms",
                "max ms",
                "client %",
                "Postgres%",
                "broker %",
                "bench %",
                "RSS MB",
                "others",
                "load"
            );
        }
        for live in &self.live {
            println!(
                "{:>9} {:>8} {:>7} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>9.1} {:>8.1} {:>8.1} {:>8.0} {:>7.2} {:>6.2}",
                live.sent_per_s.round(),
                live.visible.samples,
                live.unseen,
                live.visible.p50_ms,
                live.visible.p99_ms,
                live.visible.max_ms,
                live.client_cpu_percent,
                live.postgres_cpu_percent,
                live.kafka_cpu_percent,
                live.bench_cpu_percent,
                live.peak_rss_mb,
                live.others_cores,
                live.load_average
            );
        }
        for (name, reads) in [("GET /orders/{id}", &self.by_id), ("GET /orders?status=, 50 a page", &self.pages)] {
            if let Some(reads) = reads {
                print_reads(name, reads);
            }
        }
        if let Some(storm) = &self.storm {
            print_storm(storm);
        }
    }

    fn print_backlogs(&self) {
        if self.backlogs.is_empty() {
            return;
        }
        println!("\n# backlog: median of {} (least .. greatest)", self.backlogs.len());
        let line = |name: &str, unit: &str, value: fn(&Backlog) -> f64| {
            print_spread(name, unit, self.backlogs.iter().map(|(backlog, _)| value(backlog)).collect());
        };
        line("from launch to first rows", "s", |run| run.launch_to_first_row_s);
        line("first to last row", "s", |run| run.seconds);
        line("events", "/s", |run| run.events_per_s);
        line("events, second half", "/s", |run| run.second_half_events_per_s);
        line("CPU of the service", "us/event", |run| run.client_us);
        line("CPU of Postgres", "us/event", |run| run.postgres_us);
        line("CPU of the broker", "us/event", |run| run.kafka_us);
        line("peak RSS of the service", "MB", |run| run.peak_rss_mb);
        line("WAL", "B/event", |run| run.wal_bytes);
        line("batch", "events", |run| run.batch_events);
        line("cores used by others", "", |run| run.others_cores);
        line("load average before", "", |run| run.load_average);
        let ceilings: Vec<_> =
            self.backlogs.iter().filter_map(|(run, ceilings)| Some((run, ceilings.as_ref()?))).collect();
        if ceilings.is_empty() {
            return;
        }
        println!("\n# COPY of rows that lie ready in files of the server, and the backlog as a share of it");
        let ceiling = |name: &str, copied: fn(&Ceilings) -> &Copied| {
            print_spread(name, "rows/s", ceilings.iter().map(|(_, all)| copied(all).rows_per_s).collect());
            print_spread("", "us/row", ceilings.iter().map(|(_, all)| copied(all).postgres_us).collect());
            print_spread("", "s", ceilings.iter().map(|(_, all)| copied(all).seconds).collect());
            let shares = ceilings.iter().map(|(run, all)| copied(all).seconds / (run.events as f64 / run.events_per_s));
            print_spread("", "= ours / ceiling", shares.collect());
        };
        ceiling("final rows and ledger", |all| &all.same_rows);
        ceiling("the same by two connections", |all| &all.same_rows_two_connections);
        ceiling("a row per event, all indexes", |all| &all.row_per_event);
        ceiling("a row per event, 2 indexes", |all| &all.row_per_event_two_indexes);
    }
}

impl Report {
    fn print_loads(&self) {
        if self.loads.is_empty() {
            return;
        }
        println!("\n# bulk load, launch and indexes included: median of {} (least .. greatest)", self.loads.len());
        let line = |name: &str, unit: &str, value: fn(&Load) -> f64| {
            print_spread(name, unit, self.loads.iter().map(value).collect());
        };
        line("all of it", "s", |load| load.seconds);
        line("events", "/s", |load| load.events_per_s);
        line("CPU of the process", "us/event", |load| load.client_us);
        line("CPU of Postgres", "us/event", |load| load.postgres_us);
        line("peak RSS of the process", "MB", |load| load.peak_rss_mb);
        line("WAL", "B/event", |load| load.wal_bytes);
        line("cores used by others", "", |load| load.others_cores);
        let pairs = self.loads.iter().zip(&self.backlogs);
        let shares = pairs.map(|(load, (backlog, _))| load.events_per_s / backlog.events_per_s);
        print_spread("", "= load / backlog", shares.collect());
    }
}

fn print_reads(name: &str, reads: &Reads) {
    println!("\n# {name}: {:.0} requests/s", reads.requests_per_s);
    if let Some(pgbench) = reads.pgbench_per_s {
        println!("pgbench {pgbench:.0} /s, ours / pgbench {:.2}", reads.requests_per_s / pgbench);
    }
    for (load, latency) in [("full", &reads.full_load), ("half", &reads.half_load)] {
        println!(
            "{load} load: p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms of {}",
            latency.p50_ms, latency.p99_ms, latency.max_ms, latency.samples
        );
    }
    println!(
        "CPU per request: service {:.0} us, Postgres {:.0} us; load average before {:.2}",
        reads.client_us, reads.postgres_us, reads.load_average
    );
}

fn print_storm(storm: &Storm) {
    println!("\n# storm: {} orders held by their first event, {} events parked behind them", storm.held, storm.parked);
    println!("parked {:.0} events/s, peak RSS {:.0} MB", storm.parked_per_s, storm.parking_rss_mb);
    println!(
        "other orders: {:.0} events/s before, {:.0} with the storm parked, ratio {:.2}; peak RSS {:.0} and {:.0} MB",
        storm.before_per_s,
        storm.during_per_s,
        storm.during_per_s / storm.before_per_s,
        storm.before_rss_mb,
        storm.during_rss_mb
    );
    println!(
        "healed by one call: answered in {:.2} s, {:.0} events/s drained, {:.1} s in all, peak RSS {:.0} MB",
        storm.call_s, storm.drained_per_s, storm.healing_s, storm.healing_rss_mb
    );
}

fn print_spread(name: &str, unit: &str, mut values: Vec<f64>) {
    values.sort_unstable_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (values.first(), values.last()) else { return };
    let median = values[values.len() / 2];
    let digits = if median.abs() >= 100.0 { 0 } else { 2 };
    println!("{name:<28} {median:>11.digits$} {unit:<17} ({least:.digits$} .. {greatest:.digits$})");
}
