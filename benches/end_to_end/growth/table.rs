//! How growth is reported: one table, each variant beside the base of its round.

use super::Grown;
use crate::backlog::Backlog;
use crate::results::Better::{Less, More};
use crate::results::Figure;
use crate::section::{Lines, Section};

/// A run and the base of its round.
type Beside<'a> = (&'a Backlog, &'a Backlog);

/// One line a variant, medians of its runs.
pub fn print(name: &str, grown: &[Grown]) {
    let Some(base) = grown.first() else { return };
    println!("\n# {name}, median of {}", base.runs.len());
    let names = ["events/s", "/ base", "service us", "Postgres us", "CPU/base", "RSS MB", "WAL B", "batch", "others"];
    println!("{:<40}{}", "", names.map(|name| format!("{name:>12}")).concat());
    for one in grown {
        let runs = beside(one, base);
        let numbers = [
            format!("{:.0}", median(&runs, |(run, _)| run.events_per_s)),
            format!("{:.2}", median(&runs, |(run, base)| run.events_per_s / base.events_per_s)),
            format!("{:.2}", median(&runs, |(run, _)| run.client_us)),
            format!("{:.2}", median(&runs, |(run, _)| run.postgres_us)),
            format!("{:.2}", median(&runs, |(run, base)| run.us() / base.us())),
            format!("{:.0}", median(&runs, |(run, _)| run.peak_rss_mb)),
            format!("{:.0}", median(&runs, |(run, _)| run.wal_bytes)),
            format!("{:.0}", median(&runs, |(run, _)| run.batch_events)),
            format!("{:.2}", median(&runs, |(run, _)| run.others_cores)),
        ];
        println!("{:<40}{}", one.variant, numbers.map(|number| format!("{number:>12}")).concat());
    }
}

/// What is kept of each variant.
pub fn sections(name: &str, grown: &[Grown]) -> Vec<Section> {
    let Some(base) = grown.first() else { return Vec::new() };
    grown.iter().map(|one| section(name, one, base)).collect()
}

fn section(name: &str, one: &Grown, base: &Grown) -> Section {
    Lines::of(&format!("{name}, {}", one.variant), &beside(one, base))
        .informs(More, "events", "/s", |(run, _)| run.events_per_s)
        .judged(Less, "CPU of both", "us/event", |(run, _)| run.us())
        .judged(Less, &format!("CPU of both / {}", base.variant), "", |(run, base)| run.us() / base.us())
        .judged(Less, "peak RSS", "MB", |(run, _)| run.peak_rss_mb)
        .done()
}

fn beside<'a>(one: &'a Grown, base: &'a Grown) -> Vec<Beside<'a>> {
    one.runs.iter().zip(&base.runs).collect()
}

fn median(runs: &[Beside<'_>], value: fn(&Beside<'_>) -> f64) -> f64 {
    let values = runs.iter().map(value).collect();
    Figure::of("", Less, false, values).map_or(f64::NAN, |figure| figure.median)
}
