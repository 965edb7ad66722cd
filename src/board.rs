//! Which builds of a view run in this process, and which of them readers read: the one place that is asked for the state of
//! a view, whatever build it stands on by now.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::domain::build::Build;
use crate::status::ViewStatus;
use crate::telemetry::metrics::Metrics;

/// A build that runs here: its state and what it counts.
#[derive(Clone)]
pub struct Shown {
    /// Its state.
    pub status: Arc<ViewStatus>,
    /// Its own metrics: only those of the build that readers read are shown.
    pub metrics: Arc<Metrics>,
}

/// The builds of one view in this process.
pub struct ViewBoard {
    /// The view's name.
    pub view: &'static str,
    builds: RwLock<Builds>,
    look_now: Notify,
}

struct Builds {
    active: Shown,
    others: Vec<Shown>,
}

impl ViewBoard {
    /// Only this build runs here, and readers read it.
    pub fn new(active: Shown) -> Arc<ViewBoard> {
        Arc::new(ViewBoard {
            view: active.status.view,
            builds: RwLock::new(Builds { active, others: Vec::new() }),
            look_now: Notify::new(),
        })
    }

    /// What readers read.
    pub fn active(&self) -> Shown {
        self.builds.read().unwrap_or_else(PoisonError::into_inner).active.clone()
    }

    /// The state of what readers read.
    pub fn status(&self) -> Arc<ViewStatus> {
        self.active().status
    }

    /// The state of that build, if it runs here.
    pub fn status_of(&self, build: Build) -> Option<Arc<ViewStatus>> {
        self.statuses().into_iter().find(|status| status.build == build)
    }

    /// The states of all builds that run here, that of the active one first.
    pub fn statuses(&self) -> Vec<Arc<ViewStatus>> {
        let builds = self.builds.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&builds.active).chain(&builds.others).map(|shown| Arc::clone(&shown.status)).collect()
    }

    /// Has the steward look at once: something was asked for, or is done.
    pub fn look_now(&self) {
        self.look_now.notify_one();
    }

    /// Returns when somebody has said so.
    pub async fn asked_to_look(&self) {
        self.look_now.notified().await;
    }

    /// From now on these run here, and readers read the first.
    pub fn show(&self, active: Shown, others: Vec<Shown>) {
        *self.builds.write().unwrap_or_else(PoisonError::into_inner) = Builds { active, others };
    }
}
