//! The steward of a view: runs a projector for every build that is to be fed, has the process show the one that readers
//! read, drives what operators have asked for, and takes away what nobody has a use for any more.
//!
//! What there is to do stands in Postgres, so that every process of the service comes to the same: the steward looks once a
//! second, and at once when this process has changed something.
//!
//! | build | here |
//! |---|---|
//! | the active one | projected; shown |
//! | kept for a rollback | projected |
//! | new, whole, of an operation under way | projected |
//! | being loaded, or anybody else's | left alone |
//! | of an operation that is over, or kept long enough | dropped |
//!
//! What stands still is looked at again each time: the build may be one by now that this binary projects into. Who has run a
//! build that was cleared in place since runs it anew, by what it is made by now.

mod ahead;
mod driver;
mod findings;
mod found;
mod in_place;
mod verify;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::ahead::outlook;
use self::driver::Driver;
pub use self::found::{FoundBuild, look_at_active, no_build, settle_active};
use crate::board::{Shown, ViewBoard};
use crate::builds;
use crate::config::{Config, GapPolicy, ViewRules, ViewSettings};
use crate::crash;
use crate::domain::build::{Build, BuildId};
use crate::domain::meaning::Standing;
use crate::domain::operation::Phase;
use crate::failure::panic_text;
use crate::projector::runtime::{Parts, RunningView};
use crate::projector::supervisor::part_ended;
use crate::registrations::Registration;
use crate::repair::{self, Desk};
use crate::store::operations::{self, Operation, Seen};
use crate::store::read::ReadPool;
use crate::store::sqlstate::describe_chain;
use crate::store::types::BoxedError;
use crate::store::{Connection, pauses, pool};
use crate::telemetry::metrics::Metrics;

/// How often it looks without being told.
const LOOK: Duration = Duration::from_secs(1);

/// What a steward works with.
#[derive(Clone)]
pub struct Household {
    /// The view and its settings.
    pub served: (Registration, ViewSettings),
    /// Those of the process.
    pub config: Arc<Config>,
    /// Reads, for observers.
    pub pool: ReadPool,
    /// Its repair desk.
    pub desk: Desk,
    /// Whether builds are projected here, and operations driven; if not, the active one is observed.
    pub projects: bool,
}

impl Household {
    /// The view's name.
    pub fn name(&self) -> &'static str {
        self.served.0.name
    }

    /// What a build is run with. Each counts for itself.
    fn parts(&self, found: FoundBuild) -> Parts {
        Parts {
            config: Arc::clone(&self.config),
            settings: self.served.1.clone(),
            metrics: Arc::new(Metrics::new()),
            pool: self.pool.clone(),
            group: group_of(&self.config, self.name(), found.build),
            build: found.build,
            meaning: found.meaning,
            stands: found.stands,
        }
    }

    fn run(&self, found: FoundBuild) -> Result<Runner> {
        let (stands, cleared_by) = (found.stands.clone(), found.cleared_by);
        let parts = self.parts(found);
        let view = &self.served.0;
        let view = if self.projects { view.start(&parts)? } else { view.observe(&parts)? };
        Ok(Runner { view, metrics: parts.metrics, rules: parts.meaning.rules, stands, cleared_by })
    }

    /// By what a build is run here.
    async fn find(&self, client: &Connection, build: Build) -> Result<FoundBuild> {
        let id = BuildId { view: self.name(), build };
        match self.projects {
            true => found::settle(client, &self.config, &self.served, id).await,
            false => found::look_at(client, &self.config, &self.served, id).await,
        }
    }
}

/// The consumer group of a build. Builds share nothing, so each has its own; that of the first is the configured one.
pub fn group_of(config: &Config, view: &str, build: Build) -> String {
    let of_view = match view {
        "orders" => config.kafka.group_id.clone(),
        other => format!("{}-{other}", config.kafka.group_id),
    };
    if build == Build(1) { of_view } else { format!("{of_view}.{build}") }
}

/// A build that runs here.
struct Runner {
    view: RunningView,
    metrics: Arc<Metrics>,
    /// By what its rows are made.
    rules: ViewRules,
    /// Why it stands still, if so.
    stands: Option<Standing>,
    /// The last operation that has begun to clear the build before it was run here.
    cleared_by: Option<i64>,
}

impl Runner {
    fn shown(&self) -> Shown {
        Shown { status: Arc::clone(&self.view.status), metrics: Arc::clone(&self.metrics) }
    }

    /// Whether it may have to be run otherwise by now.
    fn may_be_outdated(&self, seen: &Seen) -> bool {
        self.stands.is_some() || seen.is_being_cleared || self.cleared_by != seen.cleared_by
    }
}

/// The steward of one view.
pub struct Steward {
    household: Household,
    board: Arc<ViewBoard>,
    running: BTreeMap<Build, Runner>,
    active: Build,
    client: Option<Connection>,
    driver: Option<JoinHandle<()>>,
    /// When it was last looked whether anybody projects a build that is not ours to project into.
    members_seen_at: Option<Instant>,
    /// Why that could not be told, as it was said last.
    members_unseen: Option<String>,
    /// Whether it could not look the last time.
    is_blind: bool,
}

impl Steward {
    /// Runs the active build; the rest comes with [`Steward::run`].
    pub fn new(household: Household, found: FoundBuild) -> Result<Steward> {
        let active = found.build;
        let runner = household.run(found)?;
        let board = ViewBoard::new(runner.shown());
        let mut steward = Steward {
            household,
            board,
            running: BTreeMap::from([(active, runner)]),
            active,
            client: None,
            driver: None,
            members_seen_at: None,
            members_unseen: None,
            is_blind: false,
        };
        steward.decide_by_policy(active);
        Ok(steward)
    }

    /// What the process shows of the view.
    pub fn board(&self) -> Arc<ViewBoard> {
        Arc::clone(&self.board)
    }

    /// Keeps house until `stop`, then stops everything in order. A bug in it halts the view by name.
    pub async fn run(mut self, stop: CancellationToken) {
        match AssertUnwindSafe(self.keep_house(&stop)).catch_unwind().await {
            Ok(()) => {}
            Err(panic) => {
                self.board.status().halt(part_ended("steward", Some(&panic_text(&*panic))));
                stop.cancelled().await;
            }
        }
        if let Some(driver) = self.driver.take()
            && let Err(error) = driver.await
        {
            tracing::error!(view = self.board.view, error = %error, "the driver of an operation did not end in order");
        }
        join_all(std::mem::take(&mut self.running).into_values().map(|runner| runner.view.stop())).await;
    }

    async fn keep_house(&mut self, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let board = Arc::clone(&self.board);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = board.asked_to_look() => {}
                _ = tick.tick() => {}
            }
            crash::point("part.steward");
            tokio::select! {
                () = stop.cancelled() => return,
                done = self.look(stop) => self.report(done),
            }
        }
    }

    /// Told once: that Postgres is away is said by whoever projects, too, but a missing right only here.
    fn report(&mut self, done: Result<()>) {
        let view = self.board.view;
        match done {
            Ok(()) => self.is_blind = false,
            Err(error) => {
                self.client = None;
                let error = describe_chain(error.chain());
                if !std::mem::replace(&mut self.is_blind, true) {
                    tracing::warn!(view, error, "builds and operations cannot be looked at");
                }
            }
        }
    }

    async fn look(&mut self, stop: &CancellationToken) -> Result<()> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => pool::connect_writer(&self.household.config.database, "public").await?,
        };
        let seen = operations::look(&client, self.board.view).await.map_err(boxed)?;
        self.arrange(&client, &seen).await;
        let pause = pauses::current(&client, self.board.view).await?;
        self.running.values().for_each(|runner| runner.view.status.set_pause(pause.clone()));
        if self.household.projects {
            for left in seen.iter().filter(|seen| seen.is_left_over) {
                self.drop_build(left.build).await;
            }
            self.drive(&client, stop, pause.is_some()).await?;
            if pause.is_none() {
                self.take_up_version().await;
            }
        }
        self.client = Some(client);
        Ok(())
    }

    /// Starts and stops runners so that what is to be fed is fed, and has the board show what readers read.
    async fn arrange(&mut self, client: &Connection, seen: &[Seen]) {
        let Some(active) = seen.iter().find(|seen| seen.is_active).map(|seen| seen.build) else { return };
        let is_wanted = |seen: &&Seen| seen.build == active || self.household.projects && is_fed(seen);
        let wanted: Vec<&Seen> = seen.iter().filter(is_wanted).collect();
        for seen in &wanted {
            if let Err(error) = self.see_run(client, seen).await {
                let (build, error) = (seen.build, describe_chain(error.chain()));
                tracing::error!(view = self.board.view, %build, error, "build cannot be run here");
            }
        }
        let wanted: Vec<Build> = wanted.into_iter().map(|seen| seen.build).collect();
        if active != self.active
            && let Some(runner) = self.running.get(&active)
        {
            tracing::info!(view = self.board.view, from = %self.active, to = %active, "readers read another build");
            // What it has counted so far, perhaps for days, would look as if it had happened just now.
            runner.metrics.begin_anew();
            self.active = active;
            self.equip_desk();
        }
        self.show();
        let idle: Vec<Build> =
            self.running.keys().copied().filter(|build| !wanted.contains(build) && *build != self.active).collect();
        for build in idle {
            let Some(runner) = self.running.remove(&build) else { continue };
            self.show();
            tracing::info!(view = self.board.view, %build, "build is not run here any more");
            runner.view.stop().await;
        }
    }

    /// Has the repair desk read and check by the rules of the build that readers read by now.
    fn equip_desk(&self) {
        let Some(Runner { metrics, rules, .. }) = self.running.get(&self.active) else { return };
        match self.household.served.0.checker(&self.household.config, rules, metrics) {
            Ok(checker) => self.household.desk.go_by(rules.clone(), checker),
            Err(error) => {
                let (view, error) = (self.board.view, describe_chain(error.chain()));
                tracing::error!(view, error, "the repair desk goes on by the rules of the build before");
            }
        }
    }

    /// Sees to it that the build is run here, as it has to be by now.
    async fn see_run(&mut self, client: &Connection, seen: &Seen) -> Result<()> {
        let build = seen.build;
        if self.running.get(&build).is_some_and(|runner| !runner.may_be_outdated(seen)) {
            return Ok(());
        }
        let mut found = self.household.find(client, build).await?;
        if seen.is_being_cleared {
            found.stands = Some(cleared(seen));
        }
        let is_as_before = |runner: &Runner| runner.stands == found.stands && runner.cleared_by == found.cleared_by;
        if self.running.get(&build).is_some_and(is_as_before) {
            return Ok(());
        }
        // Two that project would have one name in the group.
        let both_project = self.household.projects
            && found.stands.is_none()
            && self.running.get(&build).is_some_and(|before| before.stands.is_none());
        if both_project && let Some(before) = self.running.remove(&build) {
            before.view.stop().await;
        }
        tracing::info!(view = self.board.view, %build, "build is run here");
        let before = self.running.insert(build, self.household.run(found)?);
        self.decide_by_policy(build);
        if build == self.active {
            // Cleared in place, it may be made by other rules.
            self.equip_desk();
        }
        if let Some(before) = before {
            // Nobody is shown how it ends.
            self.show();
            before.view.stop().await;
        }
        Ok(())
    }

    /// Begins a rebuild if the settings say so and only a later version of the projection is left.
    async fn take_up_version(&mut self) {
        let stands = |runner: &&Runner| runner.stands.as_ref().is_some_and(Standing::is_of_another_version);
        let is_due = self.members_seen_at.is_none_or(|at| at.elapsed() >= ahead::LOOK_FOR_MEMBERS);
        let is_wanted = self.household.config.rebuild.on_version_change && is_due;
        let Some(runner) = self.running.get(&self.active).filter(stands).filter(|_| is_wanted) else { return };
        self.members_seen_at = Some(Instant::now());
        let begun = ahead::take_up_version(&self.household, runner.view.status.group.clone(), self.active).await;
        let why_not = begun.err().map(|error| describe_chain(error.chain()));
        if let Some(error) = why_not.as_ref().filter(|_| why_not != self.members_unseen) {
            tracing::warn!(view = self.board.view, error, "no rebuild begins by itself for now");
        }
        self.members_unseen = why_not;
    }

    fn show(&self) {
        let Some(active) = self.running.get(&self.active) else { return };
        let others = self.running.iter().filter(|(build, _)| **build != self.active);
        self.board.show(active.shown(), others.map(|(_, runner)| runner.shown()).collect());
    }

    /// Gaps are skipped by policy where they count: in the build that readers read. The desk looks at no other.
    fn decide_by_policy(&mut self, build: Build) {
        let desk = &self.household.desk;
        if !self.household.projects || desk.gap_policy != GapPolicy::Skip {
            return;
        }
        // It stands still, and so does the policy.
        let runner = self.running.get_mut(&build).filter(|runner| runner.view.status.snapshot().stands.is_none());
        if let Some(runner) = runner {
            let (desk, status) = (desk.clone(), Arc::clone(&runner.view.status));
            runner.view.also("gap policy", |stop| repair::policy::skip_proven_gaps(desk, status, stop));
        }
    }

    async fn drop_build(&self, build: Build) {
        let id = BuildId { view: self.household.name(), build };
        let removed = async {
            let client = pool::connect_owner(&self.household.config.database, "public").await?;
            builds::leftovers::remove(&client, id).await
        };
        match removed.await {
            Ok(true) => tracing::info!(view = id.view, %build, "nobody has a use for the build any more: dropped"),
            // Another one has dropped it, or somebody wants it back.
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(view = id.view, %build, error = %error, "a build that nobody has a use for is still there");
            }
        }
    }

    /// Has the operation under way driven, unless somebody else does.
    async fn drive(&mut self, client: &Connection, stop: &CancellationToken, is_paused: bool) -> Result<()> {
        if self.driver.as_ref().is_some_and(|driver| !driver.is_finished()) {
            return Ok(());
        }
        if let Some(ended) = self.driver.take()
            && let Err(error) = ended.await
        {
            tracing::error!(view = self.board.view, error = %error, "the driver of an operation failed; it is driven again");
        }
        let running = operations::running(client, self.board.view).await.map_err(boxed)?;
        if let Some(operation) = running.filter(|operation| !is_paused || goes_on_in_a_pause(operation)) {
            let driver = Driver::new(self.household.clone(), Arc::clone(&self.board), stop.clone());
            self.driver = Some(tokio::spawn(driver.drive(operation)));
        }
        Ok(())
    }
}

/// Whether there is something to do for an operation while an operator has the view stand still.
fn goes_on_in_a_pause(operation: &Operation) -> bool {
    let is_called_off = operation.asked.as_deref() == Some("cancel") && operation.may_be_cancelled();
    !operation.waits_for_resumption() || is_called_off
}

/// Why nothing is projected into a build that is made anew in place.
fn cleared(seen: &Seen) -> Standing {
    let operation = seen.cleared_by.unwrap_or_default();
    let detail = format!(
        "build {} is cleared and made anew by operation {operation}: reads show nothing or a part of it until that is done",
        seen.build
    );
    Standing { code: "rebuilding_in_place", detail }
}

/// Whether projectors feed a build that readers do not read.
fn is_fed(seen: &Seen) -> bool {
    !seen.is_loading && (seen.is_kept || seen.phase.is_some_and(Phase::feeds))
}

fn boxed(error: BoxedError) -> anyhow::Error {
    anyhow::anyhow!(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_fed_while_it_is_kept_or_to_be_read_and_never_while_it_is_loaded() {
        let seen = |is_loading, is_kept, phase| Seen {
            build: Build(2),
            is_active: false,
            is_loading,
            is_kept,
            phase,
            is_left_over: false,
            cleared_by: None,
            is_being_cleared: false,
        };
        assert!(is_fed(&seen(false, true, None)));
        assert!(is_fed(&seen(false, false, Some(Phase::Comparing))));
        assert!(!is_fed(&seen(true, false, Some(Phase::CatchingUp))));
        assert!(!is_fed(&seen(false, false, Some(Phase::Loading))));
        assert!(!is_fed(&seen(false, false, None)), "somebody else's");
    }
}
