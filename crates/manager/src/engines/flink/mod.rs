//! Apache Flink: statements through its SQL gateway, jobs through its JobManager.
//!
//! ```text
//!   explain, deploy, query ── text (tokens, quotes), ddl, types ──▶ gateway     a session per piece of work
//!   deploy, observe, stop  ── plan, causes, compatible ───────────▶ jobmanager  jobs by ids that we choose
//! ```
//!
//! The gateway forgets its sessions and the JobManager its jobs when they die: nothing of either is kept here. A job is found
//! again by the id that we chose for it, which Flink takes once only. What runs for somebody who looks ends with its reader:
//! its operation is closed, its job is cancelled by its id, and if we die ourselves Flink misses the gateway's heartbeat.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use self::gateway::Gateway;
use self::http::Server;
use self::jobmanager::JobManager;
use super::{
    AdHoc, Capabilities, Deployment, Details, Engine, EngineKind, Explained, Handle, Kept, Observed, RestorePoint,
    Rows, Select, StopMode, Stopped, Trouble,
};
use crate::catalog::Source;
use crate::names;
use crate::settings::FlinkSettings;

mod causes;
mod cluster;
mod compatible;
mod ddl;
mod deploy;
mod explain;
mod gateway;
mod http;
mod jobmanager;
mod observe;
mod plan;
mod query;
mod stop;
mod text;
mod types;

pub use compatible::keeps_state;
pub use ddl::RECORD_TIME;

/// How often a deployed job writes its state down, unless told otherwise: its lag is seen, and it begins anew after a crash,
/// from there.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// Flink behind the contract.
pub struct FlinkEngine {
    inner: Arc<Inner>,
}

/// What every operation needs.
struct Inner {
    settings: FlinkSettings,
    gateway: Gateway,
    jobmanager: JobManager,
    checkpoint_interval: Duration,
    /// Jobs whose checkpoints were seen to fail.
    failing: Mutex<HashSet<String>>,
}

/// A request was made that does something: what cannot be seen now has to be looked for later.
fn submitted(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Unavailable(why) => Trouble::Unknown(why),
        other => other,
    }
}

impl FlinkEngine {
    /// The cluster of these settings. `http` is used for both of its servers.
    pub fn new(settings: FlinkSettings, http: reqwest::Client) -> FlinkEngine {
        let gateway = Gateway { server: Server::new(http.clone(), &settings.gateway_url, "Flink's SQL gateway") };
        let jobmanager = JobManager { server: Server::new(http, &settings.rest_url, "Flink's JobManager") };
        let checkpoint_interval = CHECKPOINT_INTERVAL;
        let failing = Mutex::default();
        FlinkEngine { inner: Arc::new(Inner { settings, gateway, jobmanager, checkpoint_interval, failing }) }
    }

    /// The same with another interval of checkpoints.
    pub fn with_checkpoint_interval(self, checkpoint_interval: Duration) -> FlinkEngine {
        let Inner { settings, gateway, jobmanager, .. } = &*self.inner;
        let (settings, gateway, jobmanager) = (settings.clone(), gateway.clone(), jobmanager.clone());
        let failing = Mutex::default();
        FlinkEngine { inner: Arc::new(Inner { settings, gateway, jobmanager, checkpoint_interval, failing }) }
    }
}

impl Inner {
    /// Part of every id that we choose: so those of two clusters differ.
    fn address(&self) -> String {
        cluster::address(self.jobmanager.server.base())
    }

    /// The job id of a deployment.
    fn job_id(&self, deployment: &Deployment) -> String {
        names::job_id(&self.address(), &deployment.definition, deployment.revision, deployment.attempt)
    }
}

#[async_trait]
impl Engine for FlinkEngine {
    fn kind(&self) -> EngineKind {
        EngineKind::Flink
    }

    async fn capabilities(&self) -> Result<Capabilities, Trouble> {
        // Both, as they fail apart.
        let version = self.inner.gateway.version().await.map_err(http::NoAnswer::reading)?;
        let overview = self.inner.jobmanager.cluster().await?;
        if overview.flink_version != version {
            tracing::debug!(
                gateway = version,
                jobmanager = overview.flink_version,
                "Flink's servers differ in version"
            );
        }
        Ok(Capabilities {
            version,
            cluster: cluster::cluster(&self.inner).await?,
            can_pause: false,
            can_savepoint: true,
            replaces_in_place: false,
            free_slots: Some(overview.slots_available),
        })
    }

    async fn cluster(&self) -> Result<String, Trouble> {
        cluster::cluster(&self.inner).await
    }

    async fn explain(&self, select: &Select) -> Result<Explained, Trouble> {
        explain::explain(&self.inner, select).await
    }

    async fn keeps_state(&self, old: &Select, new: &Select) -> Result<(), String> {
        compatible::keeps_state(old, new)
    }

    async fn deploy(&self, deployment: &Deployment) -> Result<Handle, Trouble> {
        deploy::deploy(&self.inner, deployment).await
    }

    async fn observe(&self) -> Result<Vec<Observed>, Trouble> {
        observe::observe(&self.inner).await
    }

    async fn details(&self, job_id: &str) -> Result<Details, Trouble> {
        observe::details(&self.inner, job_id).await
    }

    async fn checkpoint(&self, job_id: &str) -> Result<Kept, Trouble> {
        observe::checkpoint(&self.inner, job_id).await
    }

    async fn stop(&self, deployment: &Deployment, handle: &Handle, mode: StopMode) -> Result<Stopped, Trouble> {
        stop::stop(&self.inner, deployment, handle, mode).await
    }

    async fn resume(&self, handle: &Handle) -> Result<(), Trouble> {
        let message = format!("Flink can't pause: deploy `{}` again from its restore point", handle.stream_name);
        Err(Trouble::Refused(super::Refusal { code: "cannot_pause".to_owned(), message, line: None, column: None }))
    }

    async fn remove(&self, handle: &Handle, restore_points: &[RestorePoint]) -> Result<(), Trouble> {
        stop::remove(&self.inner, handle, restore_points).await
    }

    async fn query(&self, query: AdHoc) -> Result<Rows, Trouble> {
        query::query(Arc::clone(&self.inner), query).await
    }

    async fn sources(&self) -> Result<Vec<Source>, Trouble> {
        Ok(Vec::new())
    }
}
