//! Growth, and shapes: the backlog again with more events, fewer and more orders, hot orders, ids in no order, other numbers of
//! partitions and of instances. What an event costs should not follow any of them, and memory must stay bounded.

mod table;
mod variants;

use anyhow::Result;
use serde::Serialize;
use streamview_lab::servers::SchemaRegistry;

use crate::avro;
use crate::backlog::{self, Backlog, Task};
use crate::fleet::Fleet;
use crate::publish;
use crate::workload::Expected;

pub use table::{print, sections};
pub use variants::{Series, Variant, shapes, variants};

/// A variant and its runs.
#[derive(Debug, Clone, Serialize)]
pub struct Grown {
    /// What is different.
    pub variant: String,
    /// The runs.
    pub runs: Vec<Backlog>,
}

/// A topic that is full.
struct Filled<'a> {
    topic: String,
    with: &'a Variant,
    expected: Expected,
    /// Where its schemas are, if its values have some.
    registry: Option<SchemaRegistry>,
}

/// Rounds of all variants: side by side in time, as machines drift.
pub async fn run(fleet: &Fleet, (name, variants): (&str, &[Variant]), rounds: usize) -> Result<Vec<Grown>> {
    let mut topics: Vec<Filled<'_>> = Vec::new();
    let mut grown: Vec<Grown> =
        variants.iter().map(|variant| Grown { variant: variant.name.clone(), runs: Vec::new() }).collect();
    for _ in 0..rounds {
        for (variant, grown) in variants.iter().zip(&mut grown) {
            let place = match topics.iter().position(|filled| filled.with.has_topic_of(variant)) {
                Some(place) => place,
                None => {
                    topics.push(fill(fleet, &format!("bench.orders.{name}.{}", topics.len()), variant).await?);
                    topics.len() - 1
                }
            };
            let Filled { topic, expected, registry, .. } = &topics[place];
            eprintln!("{name}: {}", variant.name);
            let registry = registry.iter().map(|registry| ("STREAMVIEW_SCHEMA_REGISTRY__URL", registry.url()));
            let (instances, settings) = (variant.instances, registry.collect());
            let task = Task { instances, settings, ..Task::new(&format!("bench_{name}"), topic, expected) };
            grown.runs.push(backlog::run_and_discard(fleet, &task).await?);
        }
    }
    Ok(grown)
}

async fn fill<'a>(fleet: &Fleet, topic: &str, with: &'a Variant) -> Result<Filled<'a>> {
    let (encode, registry) = if with.shape.is_avro {
        let (encode, registry) = avro::encoder(with.shape).await?;
        (encode, Some(registry))
    } else {
        (publish::json(with.shape), None)
    };
    publish::fill_with(fleet, (topic, with.partitions), with.workload.events(), encode).await?;
    Ok(Filled { topic: topic.to_owned(), with, expected: Expected::with(with.workload, with.shape), registry })
}
