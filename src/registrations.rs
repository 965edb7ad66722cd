//! The views that this binary knows, one line each; and a view as the process knows it, whatever its type.

use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Result, ensure};
use tokio::sync::{mpsc, oneshot};

use crate::api::routes::ViewApi;
use crate::builds::load::{self, LoadControl, LoadSummary};
use crate::builds::mend::Mender;
use crate::builds::moving::{self, Moving};
use crate::builds::verify::{self, Ask, Report, Verification};
use crate::config::{Config, ViewRules, ViewSettings};
use crate::domain::comparison::Difference;
use crate::domain::decimal::Decimal;
use crate::domain::meaning::Meaning;
use crate::domain::name::{intern, is_view_name};
use crate::engine::view::ViewSpec;
use crate::projector::runtime::{self, Parts, RunningView};
use crate::repair::check::Checker;
use crate::store::read::SequencesOf;
use crate::store::rows::Stored;
use crate::telemetry::metrics::Metrics;
use crate::views::orders::Orders;

/// All views, one line each. The first is the default of the operator's endpoints.
pub fn all() -> Vec<Registration> {
    use crate::views::orders::{api, queries};
    vec![
        Registration::of("orders", Some(queries::sequences), Some(api::configure), |name, rules| {
            Ok(Orders::new(name, Decimal::parse(&rules.default_tax_rate)?))
        })
        .expect("its name is one"),
    ]
}

/// A result to come.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A view as the process knows it.
#[derive(Clone)]
pub struct Registration {
    /// Its name: `views.<name>` in the configuration.
    pub name: &'static str,
    /// How to see how far its keys are, if it tells.
    pub sequences: Option<SequencesOf>,
    /// Its REST API, if it has one.
    pub api: Option<fn() -> ViewApi>,
    view: Arc<dyn Registered>,
}

impl Registration {
    /// A view under `name`, made by `make` from what its settings say. An error: the name cannot be a view's.
    pub fn of<V: Stored>(
        name: &str,
        sequences: Option<SequencesOf>,
        api: Option<fn() -> ViewApi>,
        make: impl Fn(&str, &ViewRules) -> Result<V> + Send + Sync + 'static,
    ) -> Result<Self> {
        ensure!(
            is_view_name(name),
            "{name:?} cannot be a view's name: a lower-case letter, then at most 47 of a-z, 0-9 and _"
        );
        let name = intern(name);
        let view = Arc::new(Made { make: move |rules: &ViewRules| make(name, rules) });
        Ok(Registration { name, sequences, api, view })
    }

    /// What the engine has to know of it, under these rules.
    pub fn spec(&self, rules: &ViewRules) -> Result<ViewSpec> {
        self.view.spec(rules)
    }

    /// What its next build would mean, under these rules.
    pub fn meaning(&self, rules: ViewRules) -> Result<Meaning> {
        Ok(Meaning { projection_version: self.spec(&rules)?.projection_version, rules })
    }

    /// Projects and observes it.
    pub fn start(&self, parts: &Parts) -> Result<RunningView> {
        self.view.start(parts)
    }

    /// Observes it only.
    pub fn observe(&self, parts: &Parts) -> Result<RunningView> {
        self.view.observe(parts)
    }

    /// Fills an empty build in bulk.
    pub fn load(&self, parts: Parts, control: LoadControl) -> Pending<LoadSummary> {
        Arc::clone(&self.view).load(parts, control)
    }

    /// Empties a build whose load was cut short.
    pub fn discard_load(&self, parts: Parts) -> Pending<()> {
        Arc::clone(&self.view).discard_load(parts)
    }

    /// Compares keys of a build with what its ledger or its log says they should be.
    pub fn verify(&self, parts: Parts, ask: Ask, reports: mpsc::Sender<Report>) -> Pending<Verification> {
        Arc::clone(&self.view).verify(parts, ask, reports)
    }

    /// Makes what mends single keys.
    pub fn mender(&self, of: (&Config, &ViewSettings), metrics: &Arc<Metrics>) -> Result<Mender> {
        Arc::clone(&self.view).mender(of, metrics)
    }

    /// Compares keys that two builds are never equally far in; the parts are those of the new one.
    pub fn judge_moving(
        &self,
        parts: Parts,
        keys: Moving,
        opened: oneshot::Sender<()>,
    ) -> Pending<Vec<Option<Difference>>> {
        Arc::clone(&self.view).judge_moving(parts, keys, opened)
    }

    /// Makes what reads single records as the view's projector would.
    pub fn checker(&self, config: &Config, rules: &ViewRules, metrics: &Arc<Metrics>) -> Result<Checker> {
        self.view.checker(config, rules, metrics)
    }
}

/// What the process does with a view, its type forgotten.
trait Registered: Send + Sync {
    fn spec(&self, rules: &ViewRules) -> Result<ViewSpec>;
    fn start(&self, parts: &Parts) -> Result<RunningView>;
    fn observe(&self, parts: &Parts) -> Result<RunningView>;
    fn load(self: Arc<Self>, parts: Parts, control: LoadControl) -> Pending<LoadSummary>;
    fn discard_load(self: Arc<Self>, parts: Parts) -> Pending<()>;
    fn verify(self: Arc<Self>, parts: Parts, ask: Ask, reports: mpsc::Sender<Report>) -> Pending<Verification>;
    fn mender(self: Arc<Self>, of: (&Config, &ViewSettings), metrics: &Arc<Metrics>) -> Result<Mender>;
    fn judge_moving(
        self: Arc<Self>,
        parts: Parts,
        keys: Moving,
        opened: oneshot::Sender<()>,
    ) -> Pending<Vec<Option<Difference>>>;
    fn checker(&self, config: &Config, rules: &ViewRules, metrics: &Arc<Metrics>) -> Result<Checker>;
}

struct Made<M> {
    make: M,
}

impl<V: Stored, M: Fn(&ViewRules) -> Result<V> + Send + Sync + 'static> Registered for Made<M> {
    fn spec(&self, rules: &ViewRules) -> Result<ViewSpec> {
        Ok((self.make)(rules)?.spec().clone())
    }

    fn start(&self, parts: &Parts) -> Result<RunningView> {
        runtime::start((self.make)(&parts.meaning.rules)?, parts)
    }

    fn observe(&self, parts: &Parts) -> Result<RunningView> {
        Ok(runtime::start_observing((self.make)(&parts.meaning.rules)?.spec(), parts))
    }

    fn load(self: Arc<Self>, parts: Parts, control: LoadControl) -> Pending<LoadSummary> {
        Box::pin(async move { load::load(&self.make, parts, control).await })
    }

    fn discard_load(self: Arc<Self>, parts: Parts) -> Pending<()> {
        Box::pin(async move { load::discard((self.make)(&parts.meaning.rules)?.spec(), parts).await })
    }

    fn verify(self: Arc<Self>, parts: Parts, ask: Ask, reports: mpsc::Sender<Report>) -> Pending<Verification> {
        Box::pin(async move {
            let view = (self.make)(&parts.meaning.rules)?;
            Ok(verify::verify(&view, &parts, &ask, reports).await?)
        })
    }

    fn mender(self: Arc<Self>, of: (&Config, &ViewSettings), metrics: &Arc<Metrics>) -> Result<Mender> {
        let name = (self.make)(&of.0.rules_of(of.1))?.spec().name;
        Mender::new(name, move |rules| (self.make)(rules), of, metrics)
    }

    fn judge_moving(
        self: Arc<Self>,
        parts: Parts,
        keys: Moving,
        opened: oneshot::Sender<()>,
    ) -> Pending<Vec<Option<Difference>>> {
        Box::pin(async move {
            let view = (self.make)(&parts.meaning.rules)?;
            Ok(moving::judge(&view, &parts.config.database, &keys, opened).await?)
        })
    }

    fn checker(&self, config: &Config, rules: &ViewRules, metrics: &Arc<Metrics>) -> Result<Checker> {
        Checker::new((self.make)(rules)?, config, rules, metrics)
    }
}
