//! This build has no engine of its own: [`crate::config::EmbeddedSettings::is_on`] is never so.

use std::sync::Arc;

use super::Joined;
use crate::config::Config;
use crate::manager::engines::Engine;
use crate::manager::ports::Schemas;
use crate::telemetry::metrics::Metrics;

/// There are none.
pub struct Queries;

impl Queries {
    pub(in crate::streams) async fn leave(&self) {}

    pub(in crate::streams) fn show(&self, _: &Metrics) {}
}

pub(super) fn add(_: &Config, _: (Option<&Arc<dyn Schemas>>, Joined), _: &mut Vec<Arc<dyn Engine>>) -> Queries {
    Queries
}
