//! The list of engines: a line makes each, where its settings are there.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::config::Config;
use crate::engine::view::KeyedRows;
use crate::manager::engines::Engine;
use crate::manager::engines::flink::FlinkEngine;
use crate::manager::engines::ksqldb::{Ksqldb, Patience};
use crate::manager::ports::Schemas;
use crate::manager::settings::ManagerSettings;
use crate::schemas::client::install_tls;
use crate::store::read::ReadPool;

#[cfg(feature = "embedded-engine")]
pub mod embedded;
#[cfg(not(feature = "embedded-engine"))]
#[path = "engines/no_embedded.rs"]
mod embedded;
#[cfg(feature = "embedded-engine")]
pub mod views;

pub use self::embedded::Queries;

/// The engines of a process.
pub struct Made {
    /// Those that are configured.
    pub engines: Vec<Arc<dyn Engine>>,
    /// The deployed queries of the one in this process, where it is one of them.
    pub deployed: Option<Queries>,
}

/// Views of this service that the engine in this process can join streams with.
#[derive(Clone)]
pub struct Joined {
    /// Their names and what they say of their rows. One that names no columns to join is none.
    pub views: Vec<(&'static str, KeyedRows)>,
    /// Whose connections read them: that of the API's readers.
    pub pool: ReadPool,
}

/// The engines that are configured. Connects to nothing. `schemas` is the registry, by which the one in this process reads, and
/// `joined` are the views that it joins.
pub fn of(
    config: &Config,
    settings: &ManagerSettings,
    schemas: Option<&Arc<dyn Schemas>>,
    joined: Joined,
) -> Result<Made> {
    // Chosen before any client is made.
    install_tls();
    // An engine redirects nowhere, and a redirect could take credentials elsewhere.
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let http = http.build().context("no HTTP client can be made")?;
    let mut engines: Vec<Arc<dyn Engine>> = Vec::new();
    if let Some(flink) = settings.flink.clone() {
        engines.push(Arc::new(FlinkEngine::new(flink, http)));
    }
    if let Some(ksqldb) = settings.ksqldb.clone() {
        engines.push(Arc::new(Ksqldb::new(ksqldb, Patience::default()).context("ksqldb.url")?));
    }
    let deployed = config.embedded.is_on().then(|| embedded::add(config, (schemas, joined), &mut engines));
    Ok(Made { engines, deployed })
}
