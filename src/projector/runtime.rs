//! Starts and stops the parts of one view: membership, lanes with their readers, relay, observer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ViewSettings};
use crate::domain::build::{Build, BuildId};
use crate::domain::meaning::{Meaning, Standing};
use crate::engine::view::ViewSpec;
use crate::failure::{Backoff, Halt, Waiting};
use crate::platforms::kafka::consumer::MemberName;
use crate::platforms::kafka::fetch::FetchProblem;
use crate::platforms::kafka::log::{LogError, LogReader, no_topic};
use crate::projector::applier::Applier;
use crate::projector::compaction::CompactionCheck;
use crate::projector::context::ViewContext;
use crate::projector::coordinator::{Coordinator, Inbox, LaneHandle};
use crate::projector::guard::LogGuard;
use crate::projector::keeper::Keeper;
use crate::projector::keyed::{Cached, Heal, Keyed, Keys};
use crate::projector::lane::{Errand, Lane, LaneCommand, LaneEvent};
use crate::projector::mailbox::{LaneReader, Mailbox};
use crate::projector::membership::{Group, Membership};
use crate::projector::observer::Observer;
use crate::projector::relay;
use crate::projector::seating::Seating;
use crate::projector::supervisor::{self, Supervisor};
use crate::schemas::SchemaSource;
use crate::status::{Phase, Reporter, ViewStatus};
use crate::store::progress::BuildSource;
use crate::store::read::ReadPool;
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
    pub pool: ReadPool,
    /// The view's active build.
    pub build: Build,
    /// What the rows of that build mean.
    pub meaning: Meaning,
    /// Why it is not projected by this binary, if so.
    pub stands: Option<Standing>,
    /// Consumer group.
    pub group: String,
}

impl Parts {
    /// What the rows of the view's next build would mean.
    pub fn configured(&self, spec: &ViewSpec) -> Meaning {
        Meaning { projection_version: spec.projection_version, rules: self.config.rules_of(&self.settings) }
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

struct Stage {
    stop: CancellationToken,
    parts: Supervisor,
}

impl Stage {
    fn new(status: &Arc<ViewStatus>) -> Self {
        Stage { stop: CancellationToken::new(), parts: Supervisor::new(status) }
    }

    /// Starts a part that works until the stage is stopped.
    fn part<W: Future<Output = ()> + Send + 'static>(&mut self, name: &str, work: impl FnOnce(CancellationToken) -> W) {
        self.parts.part(name, &self.stop, work(self.stop.clone()));
    }
}

impl RunningView {
    fn new(status: &Arc<ViewStatus>) -> Self {
        RunningView { status: Arc::clone(status), stages: [Stage::new(status), Stage::new(status)] }
    }

    /// Adds a part that decides something: it is stopped with what projects.
    pub fn also<W: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &str,
        work: impl FnOnce(CancellationToken) -> W,
    ) {
        let [projecting, _] = &mut self.stages;
        projecting.part(name, work);
    }

    /// Stops all parts: the batch under way is finished or abandoned, the outbox flushed, the group left.
    pub async fn stop(self) {
        self.status.stopping();
        for mut stage in self.stages {
            stage.stop.cancel();
            stage.parts.ended().await;
        }
    }
}

/// Observes the view without projecting it.
pub fn start_observing(spec: &ViewSpec, parts: &Parts) -> RunningView {
    let status = base(spec, parts, Phase::NotProjecting);
    let mut running = RunningView::new(&status);
    let [_, observing] = &mut running.stages;
    observing.part("observer", |stop| observer(parts, parts.source(spec.name), &status, Box::new(|_| {})).run(stop));
    running
}

/// Projects and observes the view; only observes it if its build is not ours to project into.
pub fn start<V: Stored>(view: V, parts: &Parts) -> Result<RunningView> {
    if parts.stands.is_some() {
        return Ok(start_observing(view.spec(), parts));
    }
    let context = context(view.spec(), parts, false)?;
    let mut running = RunningView::new(&context.status);
    let [projecting, observing] = &mut running.stages;
    let cache_bytes = context.settings.cache_bytes / context.settings.lanes.max(1);
    let keys = move || Cached::new(cache_bytes);
    projecting.part("projector", |stop| project(view, keys, Arc::clone(&context), parts.group.clone(), stop));
    let parked = Arc::clone(&context);
    let on_parked = Box::new(move |count| parked.parked_total.store(count, Ordering::Relaxed));
    let observer = observer(parts, context.source.clone(), &context.status, on_parked);
    observing.part("observer", |stop| observer.run(stop));
    // Dead letters of the last batches are published, too.
    observing.part("relay", |stop| relay::run(context, stop));
    Ok(running)
}

/// What all parts of a view share, before any of them runs. `is_filling`: the build is filled in bulk.
pub fn context(spec: &ViewSpec, parts: &Parts, is_filling: bool) -> Result<Arc<ViewContext>> {
    let (source, status, config) = (parts.source(spec.name), base(spec, parts, Phase::Starting), &parts.config);
    let guard = LogGuard::start(&config.kafka, &source.topic, &status).context("cannot start the log guard")?;
    Ok(Arc::new(ViewContext {
        source,
        dlq_topic: parts.settings.dlq_topic.clone(),
        owner: format!("{}-{}", config.kafka.client_id, std::process::id()),
        status,
        metrics: Arc::clone(&parts.metrics),
        kafka: config.kafka.clone(),
        database: config.database.clone(),
        settings: config.projector.clone(),
        meaning: parts.meaning.clone(),
        gap_policy: config.gap_policy_of(&parts.settings),
        guard,
        compaction: CompactionCheck::default(),
        schemas: SchemaSource::new(spec.name, spec.avro, &config.schema_registry, Arc::clone(&parts.metrics))?,
        new_dead_letters: Notify::new(),
        parked_total: AtomicI64::new(0),
        is_filling,
        skipped: std::sync::Mutex::default(),
    }))
}

fn base(spec: &ViewSpec, parts: &Parts, phase: Phase) -> Arc<ViewStatus> {
    let reasons = crate::domain::poison::Reason::ALL.map(crate::domain::poison::Reason::as_str);
    parts.metrics.prepare_view(spec.name, &spec.event_types, &reasons);
    let build = BuildId { view: spec.name, build: parts.build };
    let names = (parts.settings.topic.as_str(), parts.group.as_str());
    let status = ViewStatus::new(build, names, parts.configured(spec), phase);
    status.learn(&parts.meaning);
    let differs = !status.differences().is_empty();
    parts.metrics.configuration_differs.with_label_values(&[spec.name]).set(differs.into());
    if let Some(standing) = &parts.stands {
        status.stand(standing);
    }
    Arc::new(status)
}

fn observer(
    parts: &Parts,
    source: BuildSource,
    status: &Arc<ViewStatus>,
    on_parked: Box<dyn Fn(i64) + Send + Sync>,
) -> Observer {
    Observer {
        source,
        status: Arc::clone(status),
        metrics: Arc::clone(&parts.metrics),
        pool: parts.pool.clone(),
        kafka: parts.config.kafka.clone(),
        on_parked,
    }
}

/// Joins the group as soon as the topic is there, and works until `stop`; `keys` makes the memory of one lane.
pub async fn project<V: Stored, K: Keys<V>>(
    view: V,
    keys: impl Fn() -> K + Send + Sync,
    context: Arc<ViewContext>,
    group: String,
    stop: CancellationToken,
) {
    let seating = Arc::new(Seating::new(Arc::clone(&context), group.clone()));
    let ready = async {
        let log = wait_for_topic(&context).await;
        (log, seating.first_name().await)
    };
    let (joined, name) = tokio::select! {
        () = stop.cancelled() => return,
        ready = ready => ready,
    };
    let name = match name {
        Ok(name) => name,
        Err(halt) => {
            context.status.halt(halt);
            return stop.cancelled().await;
        }
    };
    let mut crew = Crew {
        parts: Supervisor::new(&context.status),
        lanes_stop: CancellationToken::new(),
        readers: Vec::new(),
        to_lanes: Vec::new(),
        errands: Vec::new(),
    };
    let appliers = {
        let context = Arc::clone(&context);
        let view = Arc::new(view);
        move || Keyed::new(Arc::clone(&view), Arc::clone(&context), keys())
    };
    let place = (group, Arc::clone(&seating), name);
    if let Err(detail) = crew.consume(appliers, &context, place, joined, &stop).await {
        give_up(&context, &detail);
    }
    // Whatever became of the coordinator: without it nobody works, and nothing is ours.
    crew.stop();
    context.status.disown_all();
    crew.parts.ended().await;
    // The view has halted if nobody has stopped it, and there is nothing left to do here.
    stop.cancelled().await;
}

/// What works under a coordinator, and outlives it, however it ends.
struct Crew {
    parts: Supervisor,
    lanes_stop: CancellationToken,
    readers: Vec<Arc<LaneReader>>,
    to_lanes: Vec<UnboundedSender<LaneCommand>>,
    errands: Vec<UnboundedSender<Errand<Heal>>>,
}

/// Whoever is aborted leaves no thread behind, which would keep its queues and with them a whole Kafka client.
impl Drop for Crew {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Crew {
    /// Ends all work.
    fn stop(&self) {
        self.lanes_stop.cancel();
        self.readers.iter().for_each(|reader| reader.stop());
    }

    /// Joins the group and consumes until `stop`. An error says why that could not begin.
    async fn consume<A: Applier<Errand = Heal>>(
        &mut self,
        appliers: impl Fn() -> A + Send + Sync,
        context: &Arc<ViewContext>,
        (group, seating, name): (String, Arc<Seating>, MemberName),
        (log, partitions): (Arc<LogReader>, usize),
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let (news, group_news) = unbounded_channel();
        let group = Group { name: group, partitions, news };
        let membership = Membership::join(Arc::clone(context), group, Arc::clone(&seating), name)
            .map_err(|error| format!("cannot join the group: {error}"))?;
        self.parts.part("seat", &self.lanes_stop, seating.keep(self.lanes_stop.clone()));
        let (lane_sender, lane_events) = unbounded_channel();
        let (problem_sender, problems) = unbounded_channel();
        for number in 0..context.settings.lanes {
            self.add_lane(appliers(), context, number, (&lane_sender, &problem_sender))
                .map_err(|error| format!("cannot start a reader thread: {error}"))?;
        }
        // A filling takes decisions along as it meets them, and heals nothing that others have changed.
        if !context.is_filling {
            let keeper = Keeper::new(Arc::clone(context), self.errands.clone());
            self.parts.part("keeper", &self.lanes_stop, keeper.run(self.lanes_stop.clone()));
        }
        let lanes = self.to_lanes.iter().cloned().zip(self.readers.iter().cloned());
        let lanes = lanes.map(|(commands, reader)| LaneHandle { commands, reader }).collect();
        let (coordinator, results) = Coordinator::new(Arc::clone(context), membership, lanes, log, problem_sender);
        let inbox = Inbox { group: group_news, lanes: lane_events, problems };
        let (status, is_over) = (Arc::clone(&context.status), || stop.is_cancelled());
        let work = coordinator.run(inbox, results, stop.clone());
        supervisor::watched(status, "coordinator".to_owned(), is_over, work).await;
        Ok(())
    }

    fn add_lane<A: Applier<Errand = Heal>>(
        &mut self,
        applier: A,
        context: &Arc<ViewContext>,
        number: usize,
        (events, problems): (&UnboundedSender<LaneEvent>, &UnboundedSender<FetchProblem>),
    ) -> std::io::Result<()> {
        let mailbox = Arc::new(Mailbox::new(context.settings.max_batch_events, context.settings.max_batch_bytes));
        let (reader, thread) = LaneReader::start(number, Arc::clone(&mailbox), problems.clone(), &context.status)?;
        self.readers.push(reader);
        self.parts.adopt(thread);
        let (commands, received) = unbounded_channel();
        self.to_lanes.push(commands);
        let (errands, to_do) = unbounded_channel();
        self.errands.push(errands);
        let lane = Lane::new(applier, Arc::clone(context), number, (received, to_do), events.clone());
        let work = lane.run(mailbox, self.lanes_stop.clone());
        if context.is_filling {
            // It ends when it has written its keys.
            self.parts.chore(format!("lane {number}"), work);
        } else {
            self.parts.part(format!("lane {number}"), &self.lanes_stop, work);
        }
        Ok(())
    }
}

/// The view cannot start in this process, and says so.
fn give_up(context: &ViewContext, detail: &str) {
    let next_step = "correct the kafka settings or the limits of the process, then restart";
    context.status.halt(Halt { code: "cannot_start", detail: detail.to_owned(), next_step });
}

async fn wait_for_topic(context: &Arc<ViewContext>) -> (Arc<LogReader>, usize) {
    let mut backoff = Backoff::default();
    loop {
        let (settings, topic) = (context.kafka.clone(), context.source.topic.clone());
        let look = move || {
            let log = LogReader::open(&settings, &topic)?;
            let partitions = log.partitions()?.len();
            Ok::<_, LogError>((Arc::new(log), partitions))
        };
        let reason = match supervisor::blocking(look).await {
            Ok((log, partitions)) if partitions > 0 => {
                context.status.clear(Reporter::Start);
                return (log, partitions);
            }
            Ok(_) => no_topic(&context.source.topic),
            Err(error) => error.at(&context.kafka.bootstrap_servers),
        };
        context.status.report(Reporter::Start, Waiting::Kafka, &reason);
        tokio::time::sleep(backoff.next_wait().max(Duration::from_millis(200))).await;
    }
}
