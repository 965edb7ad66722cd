//! What can be asked of the benchmark.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};

use crate::growth::Series;
use crate::workload::{EVENTS_PER_ORDER, Ids};

/// Measures StreamView end to end and compares with the last saved result.
///
/// make bench ARGS='-- --events 1500000 --phases backlog,ceilings'
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Events of the backlog, three per order
    #[arg(long, default_value_t = 600_000)]
    pub events: u64,
    /// Ids of the backlog's events
    #[arg(long, value_enum, default_value_t)]
    pub ids: Ids,
    /// Rounds of each phase but storm and manager: the median is reported. 3 without this, 1 of growth
    #[arg(long)]
    repeat: Option<usize>,
    /// Seconds of each live rate
    #[arg(long, default_value_t = 10)]
    pub live_seconds: u64,
    /// Milliseconds the live producer waits for a batch to fill; part of the measured latency
    #[arg(long, default_value_t = 1)]
    pub linger_ms: u32,
    /// Seconds of each read
    #[arg(long, default_value_t = 3)]
    pub read_seconds: u64,
    /// Phases to run; all but growth without this
    #[arg(long, value_enum, value_delimiter = ',')]
    phases: Option<Vec<Phase>>,
    /// Events of growth's base variant
    #[arg(long, default_value_t = 1_000_000)]
    pub growth_events: u64,
    /// Rows that the embedded engine and Flink read from Kafka
    #[cfg(feature = "embedded-engine")]
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(100_000..))]
    pub rows: u64,
    /// What grows; everything but ten-times without this
    #[arg(long, value_enum, value_delimiter = ',')]
    pub series: Option<Vec<Series>>,
    /// Further Postgres setting, NAME=VALUE
    #[arg(long = "postgres", value_parser = name_and_value)]
    pub postgres: Vec<(String, String)>,
    /// SQL to run in each empty database before its backlog: drop an index to see what it costs
    #[arg(long)]
    pub sql: Option<String>,
    /// Write every run's figures as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// The saved result to compare with
    #[arg(long, default_value = "benches/results.json")]
    pub results: PathBuf,
    /// Save this run's figures there; those of phases that did not run stay if the conditions are the same
    #[arg(long)]
    pub save: bool,
    /// End with exit code 1 if a judged figure is more than 10 % worse than the saved one
    #[arg(long)]
    pub fail_on_regression: bool,
    /// End with exit code 1 if our CPU per event with a whole history, in peers, is more than this share of the peer's
    #[arg(long)]
    pub peer_ratio: Option<f64>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Phase {
    /// From a full topic into an empty database; runs before every other phase but announce, storm, preview, manager, embedded and growth
    #[value(alias = "none")]
    Backlog,
    /// COPY of the same rows, right after each backlog
    Ceilings,
    /// The same events by `streamview load`
    Load,
    /// The same backlog while 500 requests wait for their write
    Waiting,
    /// The same backlog while 200 clients follow changes, of which 50 never read; then what 0, 1 and 500 cost
    Following,
    /// How commits of another instance become known: NOTIFY and looking
    Announce,
    /// The service after its backlog, with nothing to do
    Idle,
    /// The first, middle and last page of a list
    Pages,
    /// 1,000 and 10,000 events/s: how soon a reader sees them
    Live,
    /// A rebuild, a rollback and a second cutover under 2,000 events/s and constant reads
    Rebuild,
    /// Reads as fast as they go, beside pgbench
    Reads,
    /// Reads with API keys and tokens beside those without log-in, and while wrong keys come
    Access,
    /// Held orders by the ten thousand
    Storm,
    /// Topics and queries that people watch: rows a second, latency, memory with 200 watchers, idle connections to the hub
    Preview,
    /// The stream manager with 200 streams: what a round costs
    Manager,
    /// Queries of the embedded engine, from memory and over Kafka, beside Flink; `make bench-embedded` runs it alone
    #[cfg(feature = "embedded-engine")]
    Embedded,
    /// Half the backlog's events without lines, with three lines an order, as Avro, with ids in order
    Shapes,
    /// More events, orders, partitions, instances; takes long, so only if named
    Growth,
    /// Debezium's JDBC sink on the same broker, Postgres and schedule; needs Java and Maven, so only if named (`make bench-peers`)
    Peers,
}

impl Arguments {
    /// Refuses what cannot be measured.
    pub fn check(&self) -> Result<()> {
        ensure!(self.events >= 60_000, "--events must be at least 60000");
        ensure!(self.growth_events >= 60_000, "--growth-events must be at least 60000");
        Ok(())
    }

    /// Whether this phase was asked for.
    pub fn runs(&self, phase: Phase) -> bool {
        let by_default = !matches!(phase, Phase::Growth | Phase::Peers);
        self.phases.as_ref().map_or(by_default, |phases| phases.contains(&phase))
    }

    /// Whether a phase needs what a backlog leaves.
    pub fn needs_backlog(&self) -> bool {
        use Phase::{Access, Backlog, Ceilings, Following, Idle, Live, Load, Pages, Reads, Rebuild, Waiting};
        [Backlog, Ceilings, Load, Waiting, Following, Idle, Pages, Live, Rebuild, Reads, Access]
            .into_iter()
            .any(|phase| self.runs(phase))
    }

    /// Whether Postgres has to be as it is after some time.
    pub fn needs_warm_postgres(&self) -> bool {
        #[cfg(feature = "embedded-engine")]
        if self.phases.as_deref() == Some(&[Phase::Embedded]) {
            return false;
        }
        true
    }

    /// Orders of the backlog.
    pub fn orders(&self) -> u64 {
        self.events / EVENTS_PER_ORDER
    }

    /// Rounds of most phases.
    pub fn rounds(&self) -> usize {
        self.repeat.unwrap_or(3).max(1)
    }

    /// Runs of each variant of growth.
    pub fn growth_rounds(&self) -> usize {
        self.repeat.unwrap_or(1).max(1)
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
