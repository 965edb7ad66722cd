//! One figure of a result: the median of its runs and their spread.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// The more, the better.
    More,
    /// The less, the better.
    Less,
    /// It says how to read the others: the machine's load, the size of a batch.
    Neither,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its unit; empty for ratios.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// Whether it can be a regression. Ratios of one run, CPU per event and memory can; rates and latencies follow the
    /// machine's mood and only inform.
    pub judged: bool,
    /// The middle run.
    pub median: f64,
    /// The run with the least.
    pub least: f64,
    /// The run with the greatest.
    pub greatest: f64,
}

impl Figure {
    /// Of the values of all runs; none without runs.
    pub fn of(unit: &str, better: Better, judged: bool, mut values: Vec<f64>) -> Option<Figure> {
        values.sort_unstable_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Figure { unit: unit.to_owned(), better, judged, median, least, greatest })
    }

    /// How much worse it is than `before`, as a share of that; negative if it is better.
    pub fn worse_than(&self, before: &Figure) -> f64 {
        if self.median == before.median {
            return 0.0;
        }
        match self.better {
            Better::Less => self.median / before.median - 1.0,
            Better::More => 1.0 - self.median / before.median,
            Better::Neither => 0.0,
        }
    }

    /// Whether the runs of both have values in common: then the difference may be chance.
    pub fn overlaps(&self, other: &Figure) -> bool {
        self.least <= other.greatest && other.least <= self.greatest
    }
}

/// Median and spread, without unit.
impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.median.abs() >= 100.0 { 0 } else { 2 };
        write!(formatter, "{:>9.digits$} ({:.digits$} .. {:.digits$})", self.median, self.least, self.greatest)
    }
}
