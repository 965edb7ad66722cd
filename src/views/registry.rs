//! The registered views.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::Result;

use crate::api::routes::ViewApi;
use crate::config::Config;
use crate::domain::decimal::Decimal;
use crate::projector::load::{self, Loaded};
use crate::projector::runtime::{self, Parts, RunningView};
use crate::repair::check::Checker;
use crate::telemetry::metrics::Metrics;
use crate::views::orders::Orders;
use crate::views::{BuildScripts, View};

/// A result to come.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A view as the process knows it.
#[derive(Clone, Copy)]
pub struct Registration {
    /// Its name: `views.<name>` in the configuration.
    pub name: &'static str,
    /// What the tables of its builds are.
    pub scripts: BuildScripts,
    /// Projects and observes it.
    pub start: fn(&Parts) -> Result<RunningView>,
    /// Observes it only.
    pub observe: fn(&Parts) -> RunningView,
    /// Fills an empty build in bulk, within so many bytes of memory for its keys.
    pub load: fn(Parts, usize) -> Pending<Loaded>,
    /// Empties a build whose load was cut short.
    pub discard_load: fn(Parts) -> Pending<()>,
    /// Makes what reads single records as the view's projector would.
    pub checker: fn(&Config, &Arc<Metrics>) -> Result<Checker>,
    /// Its REST API, if it has one.
    pub api: Option<fn() -> ViewApi>,
}

/// A view that can be made from the configuration.
pub trait FromConfig: View {
    /// Makes the view.
    fn from_config(config: &Config) -> Result<Self>;
}

impl FromConfig for Orders {
    fn from_config(config: &Config) -> Result<Self> {
        Ok(Orders::new(Decimal::parse(&config.tax.default_rate)?))
    }
}

impl Registration {
    /// The line for view `V`.
    pub const fn of<V: FromConfig>(api: Option<fn() -> ViewApi>) -> Self {
        Registration {
            name: V::NAME,
            scripts: V::SCRIPTS,
            start: |parts| runtime::start(V::from_config(&parts.config)?, parts),
            observe: runtime::start_observing::<V>,
            load: |parts, memory| {
                Box::pin(async move { load::load(V::from_config(&parts.config)?, parts, memory).await })
            },
            discard_load: |parts| Box::pin(load::discard::<V>(parts)),
            checker: |config, metrics| Checker::new(V::from_config(config)?, config, metrics),
            api,
        }
    }
}

/// All views, one line each. The first is the default of the operator's endpoints.
pub fn all() -> Vec<Registration> {
    vec![Registration::of::<Orders>(Some(crate::views::orders::api::configure))]
}
