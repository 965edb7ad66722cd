//! How growth is reported: one table, each variant beside the base.

use super::Grown;
use crate::backlog::Backlog;
use crate::results::Better::{Less, More};
use crate::results::Figure;
use crate::section::{Lines, Section};

/// One line a variant, medians of its runs.
pub fn print(grown: &[Grown]) {
    let Some(base) = grown.first() else { return };
    let base_rate = median(base, |run| run.events_per_s);
    println!("\n# growth, median of {}", base.runs.len());
    let names = ["events/s", "/ base", "service us", "Postgres us", "CPU/base", "RSS MB", "WAL B", "batch", "others"];
    println!("{:<40}{}", "", names.map(|name| format!("{name:>12}")).concat());
    for one in grown {
        let rate = median(one, |run| run.events_per_s);
        let numbers = [
            format!("{rate:.0}"),
            format!("{:.2}", rate / base_rate),
            format!("{:.2}", median(one, |run| run.client_us)),
            format!("{:.2}", median(one, |run| run.postgres_us)),
            format!("{:.2}", median(one, Backlog::us) / median(base, Backlog::us)),
            format!("{:.0}", median(one, |run| run.peak_rss_mb)),
            format!("{:.0}", median(one, |run| run.wal_bytes)),
            format!("{:.0}", median(one, |run| run.batch_events)),
            format!("{:.2}", median(one, |run| run.others_cores)),
        ];
        println!("{:<40}{}", one.variant, numbers.map(|number| format!("{number:>12}")).concat());
    }
}

/// What is kept of each variant.
pub fn sections(grown: &[Grown]) -> Vec<Section> {
    let Some(base) = grown.first() else { return Vec::new() };
    let base_us = median(base, Backlog::us);
    grown.iter().map(|one| section(one, &base.variant, base_us)).collect()
}

fn section(one: &Grown, base: &str, base_us: f64) -> Section {
    Lines::of(&format!("growth, {}", one.variant), &one.runs)
        .informs(More, "events", "/s", |run| run.events_per_s)
        .judged(Less, "CPU of both", "us/event", Backlog::us)
        .judged(Less, &format!("CPU of both / {base}"), "", |run| run.us() / base_us)
        .judged(Less, "peak RSS", "MB", |run| run.peak_rss_mb)
        .done()
}

fn median(grown: &Grown, value: fn(&Backlog) -> f64) -> f64 {
    let values = grown.runs.iter().map(value).collect();
    Figure::of("", Less, false, values).map_or(f64::NAN, |figure| figure.median)
}
