//! The list of engines: a line makes each, where its settings are there.

use std::sync::Arc;

use anyhow::{Context, Result};

use crate::manager::engines::Engine;
use crate::manager::engines::flink::FlinkEngine;
use crate::manager::engines::ksqldb::{Ksqldb, Patience};
use crate::manager::settings::ManagerSettings;
use crate::schemas::client::install_tls;

/// The engines that are configured. Connects to nothing.
pub fn of(settings: &ManagerSettings) -> Result<Vec<Arc<dyn Engine>>> {
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
    Ok(engines)
}
