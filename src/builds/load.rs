//! Fills an empty build in bulk: a whole topic is read once, keys are folded in memory, ledger and details are written
//! as they come into tables without indexes, the rows of the keys at the end; then the indexes are built.
//!
//! Progress, holds, parked events, dead letters and decisions are committed batch by batch as ever. Until all is done
//! the build is marked as being loaded: nobody else projects into it, and a load that was cut short begins anew.
//! Memory is bounded: when the keys take more than allowed, the load ends early, and the rest is applied as ever.
//! What only applying batch by batch gets past ends the load by a name of its own ([`OnlyInOrder`]): an event id that is the latest
//! of two keys, what Postgres refuses, the bound of parked events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ViewRules};
use crate::crash;
use crate::domain::meaning::Meaning;
use crate::domain::units::{NextOffset, Partition};
use crate::engine::view::{BuildScripts, ViewSpec};
use crate::failure::Halt;
use crate::platforms::kafka::log::{LogReader, Watermarks};
use crate::projector::context::ViewContext;
use crate::projector::keyed::{Filling, InMemory, ONLY_IN_ORDER};
use crate::projector::runtime::{self, Parts};
use crate::projector::supervisor::Supervisor;
use crate::status::ViewState;
use crate::store::meaning::{self, Asking};
use crate::store::progress::BuildSource;
use crate::store::rows::Stored;
use crate::store::sqlstate::{describe, refuses_rows};
use crate::store::{Connection, DbError, build, ledger, names, pool};

/// How often it is looked how far the load is.
const LOOK: Duration = Duration::from_millis(20);
/// How often progress is logged.
const SAY: Duration = Duration::from_secs(5);

/// Who runs a load, and what is heard of it.
#[derive(Debug, Clone)]
pub struct LoadControl {
    /// Bytes that keys may take in memory.
    pub memory: usize,
    /// Whether a build that ends by [`OnlyInOrder`] is emptied and given free then, so that projectors fill it; if not, it stays
    /// marked, as after any other error.
    pub gives_way: bool,
    /// Cancelled when the load is called off: it fails then, in order.
    pub stop: CancellationToken,
    /// Told where the load is.
    pub stage: watch::Sender<LoadStage>,
}

impl LoadControl {
    /// A load that nobody calls off or follows.
    pub fn new(memory: usize) -> Self {
        let (stop, stage) = (CancellationToken::new(), watch::Sender::new(LoadStage::Reading));
        LoadControl { memory, gives_way: false, stop, stage }
    }
}

/// Where a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadStage {
    /// It reads the log.
    Reading,
    /// It builds the indexes.
    Indexing,
}

/// The load was called off.
#[derive(Debug, thiserror::Error)]
#[error("the load was called off")]
pub struct CalledOff;

/// The load came to what only applying the topic batch by batch gets past: another load would end in the same way.
#[derive(Debug, thiserror::Error)]
#[error("{detail}; {next_step}")]
pub struct OnlyInOrder {
    /// What that is.
    pub detail: String,
    /// What to do where the build was not given free.
    pub next_step: &'static str,
}

/// What a load did.
#[derive(Debug, Clone, Copy)]
pub struct LoadSummary {
    /// Records consumed.
    pub records: i64,
    /// Rows of keys written.
    pub keys: u64,
    /// From the start until all records were folded.
    pub reading: Duration,
    /// From then on: rows of keys, indexes.
    pub finishing: Duration,
    /// Records that were left for `serve`, because the memory bound was reached.
    pub left: i64,
}

/// A build that is ours to load, as long as the connection lives.
struct Claim {
    client: Connection,
    source: BuildSource,
    scripts: BuildScripts,
}

impl Claim {
    async fn take(spec: &ViewSpec, config: &Config, source: BuildSource) -> Result<Claim> {
        let client = pool::connect_owner(&config.database, &names::search_path(source.id()))
            .await
            .context("cannot connect to Postgres")?;
        // Building an index takes as long as it takes, and so does waiting beside it.
        // Whoever reads the view whole, to join streams with it, has its table for up to a minute.
        let patience =
            "set statement_timeout = 0; set idle_in_transaction_session_timeout = 0; set lock_timeout = '90s'";
        client.batch_execute(patience).await?;
        let (view, number) = (source.view, source.build);
        ensure!(build::lock(&client, &source).await?, "another process is loading build {number} of view {view}");
        Ok(Claim { client, source, scripts: spec.tables })
    }

    /// By what the build is made: its rules, or those configured if it is the active one and empty.
    async fn settle(&self, configured: &Meaning) -> Result<Meaning> {
        let id = self.source.id();
        let settled = meaning::settle(&self.client, id, configured, Asking::Load).await?;
        let settled = settled.with_context(|| format!("there is no {id}"))?;
        match settled.stands {
            Some(standing) => bail!("{}: {}", standing.code, standing.detail),
            None => Ok(settled.meaning),
        }
    }

    /// Marks the build as being loaded, and takes off its indexes.
    async fn strip(&self, log: &[Extent]) -> Result<()> {
        let consumed = build::consumed(&self.client, &self.source).await?;
        ensure!(
            consumed == 0,
            "build {} of view {} is not empty, {consumed} records were applied to it: only an empty one can be loaded",
            self.source.build,
            self.source.view
        );
        let begins: Vec<(Partition, NextOffset)> =
            log.iter().map(|(partition, marks)| (*partition, NextOffset::before(marks.low))).collect();
        let strip = build::strip(&self.client, &self.source, &begins, self.scripts.unindex).await;
        strip.context("cannot prepare the tables; the role of database.url has to own them, as for `migrate`, or be a member of who does")
    }

    /// Builds the indexes, side by side, and gives the build free.
    async fn dress(&self, config: &Config) -> Result<()> {
        let search_path = names::search_path(self.source.id());
        let scripts = [ledger::INDEX].into_iter().chain(self.scripts.index.iter().copied()).map(async |script| {
            let client = pool::connect_owner(&config.database, &search_path).await?;
            client.batch_execute("set statement_timeout = 0; set maintenance_work_mem = '256MB'").await?;
            client.batch_execute(script).await
        });
        // All of them: whoever empties the tables after one has failed would wait for the others.
        for built in futures_util::future::join_all(scripts).await {
            built.map_err(unbuilt)?;
        }
        crash::point("load.dressed");
        build::set_free(&self.client, &self.source).await.context("cannot give the build free")
    }

    /// Empties the build, whatever a load has left in it, and gives it free.
    async fn empty(&self, config: &Config) -> Result<()> {
        self.strip(&look_at_log(config, &self.source.topic).await?).await?;
        self.dress(config).await
    }
}

/// Why the indexes are not there.
fn unbuilt(error: DbError) -> anyhow::Error {
    let detail = format!("the indexes cannot be built: {}", describe(&error));
    if !refuses_rows(&error) {
        return anyhow::anyhow!(detail);
    }
    let next_step = "If an event id is the latest of two orders, only applying the topic in its order tells which event to \
                     refuse: run `streamview load --discard`, then `streamview serve`";
    OnlyInOrder { detail, next_step }.into()
}

/// Empties a build whose load was cut short, and gives it free.
pub async fn discard(spec: &ViewSpec, parts: Parts) -> Result<()> {
    let claim = Claim::take(spec, &parts.config, parts.source(spec.name)).await?;
    ensure!(
        build::is_loading(&claim.client, &claim.source).await?,
        "build {} of view {} is not being loaded: nothing was done",
        claim.source.build,
        spec.name
    );
    claim.empty(&parts.config).await
}

/// Loads the whole topic, as it is now, into the build, with the view that `make` makes by the build's rules.
pub async fn load<V: Stored>(
    make: impl Fn(&ViewRules) -> Result<V>,
    mut parts: Parts,
    control: LoadControl,
) -> Result<LoadSummary> {
    let started = Instant::now();
    let spec = make(&parts.meaning.rules)?.spec().clone();
    let source = parts.source(spec.name);
    let log = look_at_log(&parts.config, &source.topic).await?;
    let claim = Claim::take(&spec, &parts.config, source).await?;
    parts.meaning = claim.settle(&parts.configured(&spec)).await?;
    let view = make(&parts.meaning.rules)?;
    claim.strip(&log).await?;
    crash::point("load.stripped");
    match fill(view, &parts, &claim, (started, &log, &control)).await {
        Err(error) if control.gives_way && error.is::<OnlyInOrder>() => {
            let emptied = claim.empty(&parts.config).await;
            emptied.with_context(|| format!("{error}; and what was loaded cannot be taken back"))?;
            crash::point("load.emptied");
            Err(error)
        }
        filled => filled,
    }
}

/// Fills a build that was stripped, and gives it free.
async fn fill<V: Stored>(
    view: V,
    parts: &Parts,
    claim: &Claim,
    (started, log, control): (Instant, &[Extent], &LoadControl),
) -> Result<LoadSummary> {
    let (written, reports) = unbounded_channel();
    let filling = Arc::new(Filling { enough: CancellationToken::new(), written, bytes: AtomicUsize::new(0) });
    let (context, stop) = (runtime::context(view.spec(), parts, true)?, CancellationToken::new());
    let group = format!("{}.load", parts.group);
    let lanes = Arc::clone(&filling);
    let keys = move || InMemory::new(Arc::clone(&lanes));
    let mut projecting = Supervisor::new(&context.status);
    let work = runtime::project(view, keys, Arc::clone(&context), group, stop.clone());
    projecting.part("projector", &stop, work);
    let done = read_all(&context, (&filling, reports), log, control).await;
    stop.cancel();
    projecting.ended().await;
    let Read { at: reading, keys, left } = done?;
    crash::point("load.written");
    control.stage.send_replace(LoadStage::Indexing);
    claim.dress(&parts.config).await?;

    let records = build::consumed(&claim.client, &claim.source).await?;
    Ok(LoadSummary { records, keys, reading: reading - started, finishing: reading.elapsed(), left })
}

/// What the lanes have read and written.
struct Read {
    /// When enough was read.
    at: Instant,
    /// Keys written.
    keys: u64,
    /// Records that were not read.
    left: i64,
}

/// Waits until the lanes have read up to the ends and written their keys.
async fn read_all(
    context: &ViewContext,
    (filling, mut reports): (&Filling, UnboundedReceiver<u64>),
    log: &[Extent],
    control: &LoadControl,
) -> Result<Read> {
    let (mut tick, mut said) = (tokio::time::interval(LOOK), Instant::now());
    loop {
        tick.tick().await;
        check_halted(context)?;
        ensure!(!control.stop.is_cancelled(), CalledOff);
        let (left, bytes) = (left_of(context, log), filling.bytes.load(Ordering::Relaxed));
        if said.elapsed() >= SAY {
            said = Instant::now();
            tracing::info!(view = context.source.view, left, megabytes = bytes / 1_000_000, "loading");
        }
        if left == 0 || bytes > control.memory {
            break;
        }
    }
    let read = Instant::now();
    filling.enough.cancel();
    let mut keys = 0;
    for _ in 0..context.settings.lanes {
        keys += loop {
            tokio::select! {
                Some(written) = reports.recv() => break written,
                _ = tick.tick() => {
                    check_halted(context)?;
                    ensure!(!control.stop.is_cancelled(), CalledOff);
                }
            }
        };
    }
    // Asked while the partitions are still ours: of one that was let go nobody knows here how far it is.
    Ok(Read { at: read, keys, left: left_of(context, log) })
}

fn check_halted(context: &ViewContext) -> Result<()> {
    match context.status.snapshot().state {
        ViewState::Halted(Halt { code: ONLY_IN_ORDER, detail, next_step }) => {
            Err(OnlyInOrder { detail, next_step }.into())
        }
        ViewState::Halted(halt) => bail!("{}; {}", halt.detail, halt.next_step),
        _ => Ok(()),
    }
}

/// Records of the log, as it was when the load began, that are not read yet.
fn left_of(context: &ViewContext, log: &[Extent]) -> i64 {
    let owned = context.status.snapshot().partitions;
    let left = log.iter().map(|(partition, marks)| match owned.get(partition) {
        Some(owned) => owned.next_offset.distance_to(marks.high),
        // Even an empty partition has to be taken over.
        None => NextOffset::before(marks.low).distance_to(marks.high).max(1),
    });
    left.sum()
}

/// A partition and where it begins and ends.
pub(super) type Extent = (Partition, Watermarks);

/// Records of a topic, as it is now.
pub async fn records_of(config: &Config, topic: &str) -> Result<i64> {
    let extents = look_at_log(config, topic).await?;
    Ok(extents.iter().map(|(_, marks)| NextOffset::before(marks.low).distance_to(marks.high)).sum())
}

pub(super) async fn look_at_log(config: &Config, topic: &str) -> Result<Vec<Extent>> {
    let (kafka, topic) = (config.kafka.clone(), topic.to_owned());
    let looked = tokio::task::spawn_blocking(move || LogReader::open(&kafka, &topic)?.extents());
    let extents = looked
        .await
        .context("the log reader failed")?
        .with_context(|| format!("Kafka at {} does not answer", config.kafka.bootstrap_servers))?;
    ensure!(!extents.is_empty(), "the topic does not exist");
    Ok(extents)
}
