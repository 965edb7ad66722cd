//! Starts and stops the parts of one view: membership, lanes with their readers, relay, observer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use deadpool_postgres::Pool;
use tokio::sync::Notify;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ViewRules, ViewSettings};
use crate::engine::view::ViewSpec;
use crate::failure::Backoff;
use crate::platforms::kafka::consumer::GroupMember;
use crate::platforms::kafka::log::LogReader;
use crate::projector::compaction::CompactionCheck;
use crate::projector::context::ViewContext;
use crate::projector::coordinator::{Coordinator, Inbox, LaneHandle, Rejoin};
use crate::projector::guard::LogGuard;
use crate::projector::keeper::Keeper;
use crate::projector::keyed::{Cached, Keyed, Keys};
use crate::projector::lane::Lane;
use crate::projector::mailbox::{LaneReader, Mailbox};
use crate::projector::observer::Observer;
use crate::projector::relay;
use crate::projector::state::{Halt, ViewState, ViewStatus};
use crate::schemas::SchemaSource;
use crate::store::progress::BuildSource;
use crate::store::rows::Stored;
use crate::telemetry::metrics::Metrics;

/// What a view is started with.
#[derive(Clone)]
pub struct Parts {
    /// Settings of the process.
    pub config: Arc<Config>,
    /// Settings of the view.
    pub settings: ViewSettings,
    /// Metrics of the process.
    pub metrics: Arc<Metrics>,
    /// Reads for the observer.
    pub pool: Pool,
    /// The view's active build.
    pub build: i32,
    /// Consumer group.
    pub group: String,
}

impl Parts {
    /// What the view's rows are, by its settings.
    pub fn rules(&self) -> ViewRules {
        self.config.rules_of(&self.settings)
    }

    /// The view's log and build.
    pub fn source(&self, view: &'static str) -> BuildSource {
        BuildSource { view, build: self.build, topic: self.settings.topic.clone() }
    }
}

/// A started view.
pub struct RunningView {
    /// Its state.
    pub status: Arc<ViewStatus>,
    /// What projects, and what publishes and observes: stopped in this order.
    stages: [Stage; 2],
}

#[derive(Default)]
struct Stage {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl RunningView {
    /// Stops all parts: the batch under way is finished or abandoned, the outbox flushed, the group left.
    pub async fn stop(self) {
        self.status.enter(ViewState::Stopping, None);
        for stage in self.stages {
            stage.stop.cancel();
            for task in stage.tasks {
                if let Err(error) = task.await {
                    tracing::error!(view = self.status.view, error = %error, "a part of the view failed");
                }
            }
        }
    }
}

/// Observes the view without projecting it.
pub fn start_observing(spec: &ViewSpec, parts: &Parts) -> RunningView {
    let (status, stop) = (base(spec, parts, ViewState::NotProjecting), CancellationToken::new());
    let tasks = vec![observe(parts, parts.source(spec.name), &status, Box::new(|_| {}), &stop)];
    RunningView { status, stages: [Stage::default(), Stage { stop, tasks }] }
}

/// Projects and observes the view.
pub fn start<V: Stored>(view: V, parts: &Parts) -> Result<RunningView> {
    let (context, stop) = (context(view.spec(), parts, false)?, CancellationToken::new());
    let status = Arc::clone(&context.status);
    let parked = Arc::clone(&context);
    let on_parked = Box::new(move |count| parked.parked_total.store(count, Ordering::Relaxed));
    let projecting = CancellationToken::new();
    let cache_bytes = context.settings.cache_bytes / context.settings.lanes.max(1);
    let keys = move || Cached::new(cache_bytes);
    let projector = project(view, keys, Arc::clone(&context), parts.group.clone(), projecting.clone());
    let projector = tokio::spawn(projector);
    // Dead letters of the last batches are published, too.
    let tasks = vec![
        observe(parts, context.source.clone(), &status, on_parked, &stop),
        tokio::spawn(relay::run(context, stop.clone())),
    ];
    let stages = [Stage { stop: projecting, tasks: vec![projector] }, Stage { stop, tasks }];
    Ok(RunningView { status, stages })
}

/// What all parts of a view share, before any of them runs. `is_filling`: the build is filled in bulk.
pub fn context(spec: &ViewSpec, parts: &Parts, is_filling: bool) -> Result<Arc<ViewContext>> {
    let (source, status, config) = (parts.source(spec.name), base(spec, parts, ViewState::Starting), &parts.config);
    Ok(Arc::new(ViewContext {
        source: source.clone(),
        dlq_topic: parts.settings.dlq_topic.clone(),
        owner: format!("{}-{}", config.kafka.client_id, std::process::id()),
        status,
        metrics: Arc::clone(&parts.metrics),
        kafka: config.kafka.clone(),
        database: config.database.clone(),
        settings: config.projector.clone(),
        rules: parts.rules(),
        guard: LogGuard::start(&config.kafka, &source.topic).context("cannot start the log guard")?,
        compaction: CompactionCheck::default(),
        schemas: SchemaSource::new(spec.name, spec.avro, &config.schema_registry, Arc::clone(&parts.metrics))?,
        new_dead_letters: Notify::new(),
        parked_total: AtomicI64::new(0),
        is_filling,
        skipped: std::sync::Mutex::default(),
    }))
}

fn base(spec: &ViewSpec, parts: &Parts, state: ViewState) -> Arc<ViewStatus> {
    let reasons = crate::domain::poison::Reason::ALL.map(crate::domain::poison::Reason::as_str);
    parts.metrics.prepare_view(spec.name, &spec.event_types, &reasons);
    Arc::new(ViewStatus::new(&parts.source(spec.name), &parts.group, parts.rules().history, state))
}

fn observe(
    parts: &Parts,
    source: BuildSource,
    status: &Arc<ViewStatus>,
    on_parked: Box<dyn Fn(i64) + Send + Sync>,
    stop: &CancellationToken,
) -> JoinHandle<()> {
    let observer = Observer {
        source,
        status: Arc::clone(status),
        metrics: Arc::clone(&parts.metrics),
        pool: parts.pool.clone(),
        kafka: parts.config.kafka.clone(),
        on_parked,
    };
    tokio::spawn(observer.run(stop.clone()))
}

/// Joins the group as soon as the topic is there, and works until `stop`; `keys` makes the memory of one lane.
pub async fn project<V: Stored, K: Keys<V>>(
    view: V,
    keys: impl Fn() -> K + Send,
    context: Arc<ViewContext>,
    group: String,
    stop: CancellationToken,
) {
    let view = Arc::new(view);
    let joined = tokio::select! {
        () = stop.cancelled() => return,
        joined = wait_for_topic(&context) => joined,
    };
    let (log, partitions) = joined;
    let (group_sender, group_events) = unbounded_channel();
    let topic = &context.source.topic;
    let member = match GroupMember::join(&context.kafka, &group, topic, partitions, group_sender.clone()) {
        Ok(member) => member,
        Err(error) => {
            return give_up(&context, &format!("cannot join the group: {error}"));
        }
    };
    let (lane_sender, lane_events) = unbounded_channel();
    let (problem_sender, problems) = unbounded_channel();
    let lanes_stop = CancellationToken::new();
    let (mut handles, mut tasks, mut threads, mut to_lanes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..context.settings.lanes {
        let mailbox = Arc::new(Mailbox::new(context.settings.max_batch_events, context.settings.max_batch_bytes));
        let (reader, thread) = match LaneReader::start(number, Arc::clone(&mailbox), problem_sender.clone()) {
            Ok(started) => started,
            Err(error) => {
                return give_up(&context, &format!("cannot start a reader thread: {error}"));
            }
        };
        let (commands, received) = unbounded_channel();
        let (errands, to_do) = unbounded_channel();
        let applier = Keyed::new(Arc::clone(&view), Arc::clone(&context), keys());
        let lane = Lane::new(applier, Arc::clone(&context), received, to_do, lane_sender.clone());
        tasks.push(tokio::spawn(lane.run(mailbox, lanes_stop.clone())));
        threads.push(thread);
        to_lanes.push(errands);
        handles.push(LaneHandle { commands, reader });
    }
    let (coordinator, takeovers) = Coordinator::new(
        Arc::clone(&context),
        member,
        handles,
        log,
        Rejoin { group, partitions, events: group_sender },
        problem_sender.clone(),
    );
    // A filling takes decisions along as it meets them, and heals nothing that others have changed.
    if !context.is_filling {
        tasks.push(tokio::spawn(Keeper::new(Arc::clone(&context), to_lanes).run(lanes_stop.clone())));
    }
    let inbox = Inbox { group: group_events, lanes: lane_events, problems };
    coordinator.run(inbox, takeovers, stop).await;
    lanes_stop.cancel();
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(view = context.source.view, error = %error, "a lane failed");
        }
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!(view = context.source.view, "a reader thread panicked");
        }
    }
}

/// The view cannot start in this process, and says so.
fn give_up(context: &ViewContext, detail: &str) {
    tracing::error!(view = context.source.view, detail, "view halted before it started");
    let next_step = "correct the kafka settings or the limits of the process, then restart";
    let halt = Halt { code: "cannot_start", detail: detail.to_owned(), next_step };
    context.status.enter(ViewState::Halted(halt), Some(detail.to_owned()));
}

async fn wait_for_topic(context: &Arc<ViewContext>) -> (Arc<LogReader>, usize) {
    let mut backoff = Backoff::default();
    loop {
        let (settings, topic) = (context.kafka.clone(), context.source.topic.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let log = LogReader::open(&settings, &topic)?;
            let partitions = log.partitions()?.len();
            Ok::<_, crate::platforms::kafka::log::LogError>((Arc::new(log), partitions))
        });
        let reason = match looked.await {
            Ok(Ok((log, partitions))) if partitions > 0 => return (log, partitions),
            Ok(Ok(_)) => format!("topic {} does not exist", context.source.topic),
            Ok(Err(error)) => format!("Kafka at {} does not answer: {error}", context.kafka.bootstrap_servers),
            Err(panic) => panic.to_string(),
        };
        context.wait_for(ViewState::WaitingForKafka, &reason);
        tokio::time::sleep(backoff.next_wait().max(Duration::from_millis(200))).await;
    }
}
