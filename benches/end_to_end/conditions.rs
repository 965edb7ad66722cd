//! Under which conditions a run measures. Only what makes its figures comparable or not: noise is measured, not described.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::fleet::{Fleet, PARTITIONS, POSTGRES_SETTINGS};
use crate::processes::cpu_model;
use crate::workload::Ids;

/// Machine, servers and settings.
pub fn of(fleet: &Fleet, arguments: &Arguments) -> Result<BTreeMap<String, String>> {
    let cores = std::thread::available_parallelism()?;
    let mut conditions = BTreeMap::from([
        ("CPU".to_owned(), cpu_model()?),
        ("cores".to_owned(), cores.to_string()),
        ("Postgres".to_owned(), fleet.postgres.version().to_owned()),
        ("Kafka".to_owned(), streamview_lab::servers::kafka::KAFKA_VERSION.to_owned()),
        ("events".to_owned(), arguments.events.to_string()),
        ("partitions".to_owned(), PARTITIONS.to_string()),
        ("linger of the live producer, ms".to_owned(), arguments.linger_ms.to_string()),
    ]);
    let ours = POSTGRES_SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, value) in ours.iter().chain(&arguments.postgres) {
        conditions.insert(format!("Postgres {name}"), value.clone());
    }
    if arguments.ids != Ids::default() {
        conditions.insert("ids of events".to_owned(), "sequential".to_owned());
    }
    if let Some(sql) = &arguments.sql {
        conditions.insert("SQL before the backlog".to_owned(), sql.clone());
    }
    conditions.extend(std::env::vars().filter(|(name, _)| name.starts_with("STREAMVIEW_")));
    Ok(conditions)
}
