//! Growth: the backlog again with more events, fewer and more orders, hot orders, ids in no order, other numbers of
//! partitions and of instances. What an event costs should not follow any of them, and memory must stay bounded.

mod table;
mod variants;

use anyhow::Result;
use serde::Serialize;

use crate::backlog::{self, Backlog, Task};
use crate::fleet::Fleet;
use crate::publish;
use crate::workload::Expected;

pub use table::{print, sections};
pub use variants::{Series, Variant, variants};

/// A variant and its runs.
#[derive(Debug, Clone, Serialize)]
pub struct Grown {
    /// What is different.
    pub variant: String,
    /// The runs.
    pub runs: Vec<Backlog>,
}

/// A topic that is there already.
struct Filled<'a> {
    topic: String,
    with: &'a Variant,
    expected: Expected,
}

/// Runs each variant so many times, one after the other.
pub async fn run(fleet: &Fleet, variants: &[Variant], rounds: usize) -> Result<Vec<Grown>> {
    let mut grown = Vec::new();
    let mut last: Option<Filled<'_>> = None;
    for (number, variant) in variants.iter().enumerate() {
        let filled = match last.take() {
            Some(filled) if filled.with.has_topic_of(variant) => filled,
            other => {
                if let Some(Filled { topic, .. }) = other {
                    fleet.delete_topic(&topic).await?;
                }
                fill(fleet, &format!("bench.orders.growth.{number}"), variant).await?
            }
        };
        let mut runs = Vec::new();
        for round in 1..=rounds {
            eprintln!("growth: {}", variant.name);
            let task = Task {
                instances: variant.instances,
                ..Task::new(&format!("bench_growth_{number}_{round}"), &filled.topic, &filled.expected)
            };
            runs.push(backlog::run_and_discard(fleet, &task).await?);
        }
        grown.push(Grown { variant: variant.name.clone(), runs });
        last = Some(filled);
    }
    Ok(grown)
}

async fn fill<'a>(fleet: &Fleet, topic: &str, with: &'a Variant) -> Result<Filled<'a>> {
    publish::fill(fleet, (topic, with.partitions), with.workload.events()).await?;
    Ok(Filled { topic: topic.to_owned(), with, expected: Expected::of(with.workload) })
}
