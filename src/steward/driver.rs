//! Drives one operation through its phases. Whoever holds its lock drives it; what is done is noted before the next step, so
//! that another process can go on where this one died:
//!
//! | died in | the next driver |
//! |---|---|
//! | `preflight` | begins anew |
//! | `loading`, `indexing` | loads anew, into the same build, also where a load has just given way to projectors |
//! | `catching_up`, `comparing`, `ready` | goes on |
//! | `cutting_over` | looks which build readers read: the switch is one transaction. Until it has happened it can be called off |
//!
//! An error of the way to Postgres ends the driver and not the operation: the steward has it driven again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::Household;
use super::findings::Findings;
use crate::board::ViewBoard;
use crate::builds::compare::{self, CompareError, Pace, Pair};
use crate::builds::load::{self, CalledOff, LoadControl, LoadStage, OnlyInOrder};
use crate::builds::preflight::preflight;
use crate::builds::switch::{self, Lack, Switch, Switched, behind, stands};
use crate::builds::{self, BuildError};
use crate::crash;
use crate::domain::build::{Build, BuildId};
use crate::domain::explanation::unexplained;
use crate::domain::meaning::{self, Meaning, in_words};
use crate::domain::operation::{OperationKind, OperationState, Phase};
use crate::engine::view::ViewSpec;
use crate::store::operations::{self, Operation, OperationError};
use crate::store::progress::BuildSource;
use crate::store::sqlstate::{classify, describe, describe_chain, is_lost_lock};
use crate::store::{Connection, DbError, build, names, pauses, pool, progress};

/// How often it is noted how far it is, and looked what was asked meanwhile.
pub(super) const NOTE: Duration = Duration::from_millis(500);
/// So close is close enough to compare and to switch: the switch waits for the rest.
pub(super) const CLOSE: i64 = 2_000;
/// Between two attempts to switch; longer each time that the new build was behind, as the old one stands still for each.
const AGAIN: Duration = Duration::from_millis(200);
const MOST_AGAIN: Duration = Duration::from_secs(6);
/// How long the old build is kept if nothing else was asked for.
const KEEP_HOURS: f64 = 24.0;

/// How a step ends if not well.
pub(super) enum Stopped {
    /// Somebody has called the operation off.
    Cancelled,
    /// This process is told to stop, or cannot reach Postgres: somebody drives on.
    Left(anyhow::Error),
    /// It cannot be done.
    Failed(OperationError),
}

impl From<DbError> for Stopped {
    fn from(error: DbError) -> Self {
        let said = describe(&error);
        match classify(error, None).wait_or_halt() {
            Ok(_) => Stopped::Left(anyhow::anyhow!(said)),
            Err(halt) => failed(halt.code, halt.detail, &halt.next_step.replace("restart", "ask for it again")),
        }
    }
}

impl From<BuildError> for Stopped {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Database(error) => error.into(),
            other => failed("build_failed", other.to_string(), "see `GET /ops/views`, then ask for it again"),
        }
    }
}

/// What explains that rows differ, by its name and both values.
fn reason(difference: &meaning::Difference) -> serde_json::Value {
    let meaning::Difference { setting, stored, configured } = difference;
    serde_json::json!({ "setting": setting, "old": stored, "new": configured })
}

fn paused() -> Stopped {
    Stopped::Left(anyhow::anyhow!("the view is paused: it goes on when it is resumed"))
}

pub(super) fn failed(code: &'static str, detail: String, next_step: &str) -> Stopped {
    Stopped::Failed(OperationError { code, detail, next_step: next_step.to_owned() })
}

/// Drives one operation.
pub(super) struct Driver {
    pub(super) household: Household,
    pub(super) board: Arc<ViewBoard>,
    stop: CancellationToken,
}

/// What the steps of one operation share.
pub(super) struct Course<'d> {
    pub(super) driver: &'d Driver,
    pub(super) client: Connection,
    pub(super) operation: Operation,
    spec: ViewSpec,
    /// By what a new build is made.
    pub(super) meaning: Meaning,
}

impl Driver {
    pub(super) fn new(household: Household, board: Arc<ViewBoard>, stop: CancellationToken) -> Self {
        Driver { household, board, stop }
    }

    /// Drives it as far as it goes here.
    pub(super) async fn drive(self, operation: Operation) {
        let (view, id) = (self.household.name(), operation.id);
        match self.try_drive(operation).await {
            Ok(()) => {}
            Err(error) => {
                let error = describe_chain(error.chain());
                tracing::warn!(view, operation = id, error, "the operation is not driven here for now");
            }
        }
        self.board.look_now();
    }

    async fn try_drive(&self, operation: Operation) -> Result<()> {
        let client = pool::connect_owning_operator(&self.household.config.database).await?;
        // It lives as long as the operation, and mostly waits.
        client.batch_execute("set idle_in_transaction_session_timeout = 0").await?;
        if !operations::take(&client, operation.id).await? {
            return Ok(());
        }
        let Some(operation) = operations::running(&client, self.household.name())
            .await
            .map_err(|error| anyhow::anyhow!(error))?
            .filter(|found| found.id == operation.id)
        else {
            return Ok(());
        };
        let (view, settings) = &self.household.served;
        // What is configured is what a new build is made by.
        let meaning = view.meaning(self.household.config.rules_of(settings))?;
        let spec = view.spec(&meaning.rules)?;
        let (view, id, kind) = (self.household.name(), operation.id, operation.kind);
        tracing::info!(
            view,
            operation = id,
            kind = kind.as_str(),
            phase = operation.phase.as_str(),
            "operation is driven here"
        );
        let mut course = Course { driver: self, client, operation, spec, meaning };
        let ended = match course.run().await {
            Ok(()) => (OperationState::Done, None),
            Err(Stopped::Cancelled) => (OperationState::Cancelled, None),
            Err(Stopped::Failed(error)) => (OperationState::Failed, Some(error)),
            Err(Stopped::Left(error)) => return Err(error),
        };
        crash::point("operation.ending");
        operations::end(&course.client, id, ended.0, ended.1.as_ref()).await?;
        let (state, error) = (ended.0.as_str(), ended.1.map(|error| error.detail));
        tracing::info!(view, operation = id, state, error, "operation has ended");
        Ok(())
    }
}

impl Course<'_> {
    async fn run(&mut self) -> Result<(), Stopped> {
        match self.operation.kind {
            OperationKind::Rebuild if self.operation.is_in_place() => self.replay_in_place().await,
            OperationKind::Rebuild => self.rebuild().await,
            OperationKind::Rollback => self.roll_back().await,
            OperationKind::Verify => self.verify().await,
        }
    }

    async fn rebuild(&mut self) -> Result<(), Stopped> {
        let (from, to) = self.builds().await?;
        if self.operation.phase <= Phase::Indexing {
            self.look_ahead(from).await?;
            self.make(to).await?;
            // Whole already, and the driver died before it noted that.
            if build::consumed(&self.client, &self.source(to)).await? == 0 {
                self.load(to).await?;
            }
        }
        if self.is_active(to).await? {
            return Ok(());
        }
        self.enter(Phase::CatchingUp).await?;
        self.catch_up(from, to).await?;
        let is_as_expected = self.compare(from, to).await?;
        let is_automatic = self.operation.request["cutover"].as_str() != Some("manual");
        if !is_automatic || !is_as_expected {
            self.enter(Phase::Ready).await?;
            self.wait_for_word().await?;
        }
        self.cut_over(from, to).await
    }

    async fn roll_back(&mut self) -> Result<(), Stopped> {
        let (Some(from), Some(to)) = (self.operation.from_build, self.operation.to_build) else {
            return Err(failed("nothing_kept", "no build is kept".to_owned(), "rebuild the view"));
        };
        let (from, to) = (self.id(from), self.id(to));
        if self.is_active(to).await? {
            return Ok(());
        }
        let seen =
            operations::look(&self.client, to.view).await.map_err(|error| Stopped::Left(anyhow::anyhow!(error)))?;
        if seen.iter().all(|seen| seen.build != to.build) {
            let detail = format!("{to} is not there any more");
            return Err(failed("nothing_kept", detail, "rebuild the view"));
        }
        self.enter(Phase::CatchingUp).await?;
        self.catch_up(from, to).await?;
        self.cut_over(from, to).await
    }

    pub(super) fn source(&self, build: BuildId) -> BuildSource {
        BuildSource { view: build.view, build: build.build, topic: self.driver.household.served.1.topic.clone() }
    }

    pub(super) fn id(&self, build: Build) -> BuildId {
        BuildId { view: self.driver.household.name(), build }
    }

    /// The build that readers read and the one that is made, by numbers that are noted before anything has them.
    async fn builds(&mut self) -> Result<(BuildId, BuildId), Stopped> {
        if let (Some(from), Some(to)) = (self.operation.from_build, self.operation.to_build) {
            return Ok((self.id(from), self.id(to)));
        }
        let view = self.driver.household.name();
        let Some(from) = progress::active_build(&self.client, view).await? else {
            return Err(failed("no_build", format!("view {view} has no build"), "run `streamview migrate`"));
        };
        let to = operations::next_build(&self.client, view).await?;
        operations::set_target(&self.client, self.operation.id, from, to).await?;
        Ok((self.id(from), self.id(to)))
    }

    async fn is_active(&self, build: BuildId) -> Result<bool, Stopped> {
        Ok(progress::active_build(&self.client, build.view).await? == Some(build.build))
    }

    pub(super) async fn enter(&mut self, phase: Phase) -> Result<(), Stopped> {
        self.enter_otherwise(phase, None).await
    }

    /// Likewise, and why it goes on otherwise than usual.
    async fn enter_otherwise(&mut self, phase: Phase, why: Option<&str>) -> Result<(), Stopped> {
        operations::enter_otherwise(&self.client, self.operation.id, phase, why).await?;
        self.operation.phase = phase;
        let (view, operation) = (self.driver.household.name(), self.operation.id);
        tracing::info!(view, operation, phase = phase.as_str(), "operation goes on");
        self.driver.board.look_now();
        Ok(())
    }

    /// Notes how far it is; an error if somebody has called it off or has the view stand still, or this process stops.
    pub(super) async fn note(&mut self, done: i64, total: Option<i64>) -> Result<(), Stopped> {
        if self.driver.stop.is_cancelled() {
            return Err(Stopped::Left(anyhow::anyhow!("this process stops")));
        }
        let noted = operations::note(&self.client, self.operation.id, done, total).await?;
        self.operation.asked = noted.asked;
        match self.operation.asked.as_deref() {
            Some("cancel") if self.operation.may_be_cancelled() => Err(Stopped::Cancelled),
            _ if noted.is_paused && self.operation.waits_for_resumption() => Err(paused()),
            _ => Ok(()),
        }
    }

    /// Whether the log still makes what the present build holds.
    pub(super) async fn look_ahead(&mut self, from: BuildId) -> Result<(), Stopped> {
        let household = &self.driver.household;
        let found = household.find(&self.client, from.build).await.map_err(Stopped::Left)?;
        let seen = preflight(from.view, &household.parts(found)).await;
        let seen = seen.map_err(|error| {
            let detail = describe_chain(error.chain());
            failed("log_unreadable", detail, "see that Kafka and Postgres answer, then ask for it again")
        })?;
        let accepted = self.operation.request["acceptTruncated"].as_bool().unwrap_or(false);
        let may_begin = match self.operation.is_in_place() {
            false => seen.outlook.may_begin(accepted),
            true => seen.outlook.may_clear(accepted),
        };
        match seen.outlook.code() {
            Some(code) if !may_begin => Err(failed(code, seen.outlook.detail(), &seen.outlook.next_step())),
            _ => self.note(0, Some(seen.records)).await,
        }
    }

    /// Compares both builds, and notes what differs and what explains it. Whether that is as it should be: nothing, unless the
    /// new build has another meaning.
    async fn compare(&mut self, from: BuildId, to: BuildId) -> Result<bool, Stopped> {
        self.enter(Phase::Comparing).await?;
        let household = self.driver.household.clone();
        let old = household.find(&self.client, from.build).await.map_err(Stopped::Left)?.meaning;
        let found = household.find(&self.client, to.build).await.map_err(Stopped::Left)?;
        let new = found.meaning.clone();
        let database = &household.config.database;
        let reader = pool::connect_writer(database, "public").await?;
        reader.batch_execute("set statement_timeout = 0; set idle_in_transaction_session_timeout = 0").await?;
        let writer = pool::connect_writer(database, "public").await?;
        compare::forget(&writer, self.operation.id).await?;
        let (spec, keys) = (self.spec.clone(), Arc::new(AtomicU64::new(0)));
        let pair =
            Pair { spec: &spec, old: from.build, new: to.build, history: old.rules.history.common(new.rules.history) };
        let mut findings = Findings {
            household: household.clone(),
            found,
            history: pair.history,
            writer,
            operation: self.operation.id,
            builds: (from, to),
            scripts: self.spec.tables,
            keys: Arc::clone(&keys),
            is_full: false,
        };
        let cancel = CancellationToken::new();
        let mut comparing = Box::pin(compare::compare(&reader, pair, Pace::default(), &mut findings, &cancel));
        let mut tick = tokio::time::interval(NOTE);
        let compared = loop {
            tokio::select! {
                compared = &mut comparing => break compared,
                _ = tick.tick() => {
                    let done = i64::try_from(keys.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
                    self.note(done, None).await?;
                }
            }
        };
        let comparison = match compared {
            Ok(comparison) => comparison,
            // Nothing is compared where a view does not say how.
            Err(CompareError::Undeclared(_)) => return Ok(true),
            Err(CompareError::Database(error)) => return Err(error.into()),
            Err(error) => return Err(Stopped::Left(error.into())),
        };
        let is_equal = comparison.different == 0 && comparison.only_old == 0 && comparison.only_new == 0;
        let explained = old.explains(&new);
        let of_tax_rate = spec.tables.rows.map_or(&[] as &[&str], |rows| rows.of_tax_rate);
        let mut told = serde_json::to_value(&comparison).expect("a comparison is plain data");
        let unexplained = unexplained(&comparison, &explained, of_tax_rate);
        told["explainedBy"] = explained.iter().map(reason).collect();
        told["unexplained"] = serde_json::json!(unexplained);
        operations::put_comparison(&self.client, self.operation.id, &told).await?;
        crash::point("rebuild.compared");
        if !is_equal {
            let (view, operation) = (to.view, self.operation.id);
            let (different, only_old, only_new) = (comparison.different, comparison.only_old, comparison.only_new);
            let by = if explained.is_empty() { "nothing".to_owned() } else { in_words(&explained) };
            tracing::warn!(
                view,
                operation,
                different,
                only_old,
                only_new,
                by,
                "the new build has other rows; explained by"
            );
        }
        Ok(unexplained.is_empty())
    }

    async fn make(&mut self, to: BuildId) -> Result<(), Stopped> {
        match builds::create(&self.client, to, &self.spec.tables, &self.meaning).await {
            // Made by a driver that died.
            Ok(()) | Err(BuildError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        crash::point("rebuild.created");
        Ok(())
    }

    pub(super) async fn load(&mut self, to: BuildId) -> Result<(), Stopped> {
        self.enter(Phase::Loading).await?;
        let household = self.driver.household.clone();
        let found = household.find(&self.client, to.build).await.map_err(Stopped::Left)?;
        if let Some(standing) = &found.stands {
            return Err(failed(standing.code, standing.detail.clone(), "ask for it again"));
        }
        let parts = household.parts(found);
        let source = self.source(to);
        let total = load::records_of(&household.config, &household.served.1.topic).await;
        let total = total.map_err(|error| {
            failed("log_unreadable", format!("{error:#}"), "see that Kafka answers, then ask for it again")
        })?;
        let control = LoadControl { gives_way: true, ..LoadControl::new(household.config.rebuild.memory_bytes) };
        let mut stage = control.stage.subscribe();
        let mut loading = household.served.0.load(parts, control.clone());
        let mut tick = tokio::time::interval(NOTE);
        let mut called_off = None;
        let loaded = loop {
            tokio::select! {
                loaded = &mut loading => break loaded,
                Ok(()) = stage.changed() => {
                    if *stage.borrow_and_update() == LoadStage::Indexing {
                        self.enter(Phase::Indexing).await?;
                    }
                }
                _ = tick.tick(), if called_off.is_none() => {
                    let done = build::consumed(&self.client, &source).await?;
                    if let Err(stopped) = self.note(done, Some(total)).await {
                        control.stop.cancel();
                        called_off = Some(stopped);
                    }
                }
            }
        };
        if called_off.is_none()
            && let Some(OnlyInOrder { detail, .. }) =
                loaded.as_ref().err().and_then(|error| error.downcast_ref::<OnlyInOrder>())
        {
            return self.leave_to_projectors(to, detail).await;
        }
        match (loaded, called_off) {
            (_, Some(stopped)) => Err(stopped),
            (Ok(summary), None) => {
                self.note(summary.records, Some(total.max(summary.records))).await?;
                crash::point("rebuild.loaded");
                Ok(())
            }
            (Err(error), None) if error.is::<CalledOff>() => Err(Stopped::Cancelled),
            // The fence of a pause reaches it before its driver.
            (Err(_), None) if pauses::current(&self.client, to.view).await?.is_some() => Err(paused()),
            (Err(error), None) => Err(failed(
                "load_failed",
                describe_chain(error.chain()),
                match self.operation.is_in_place() {
                    false => "mend what it says, then ask for the rebuild again",
                    true => {
                        "the view was cleared and holds a part or nothing: mend what it says, then ask for it again"
                    }
                },
            )),
        }
    }

    /// The load has given way: the build is empty and free, and projectors fill it, who get past what no load does. Where this
    /// process dies before that is noted, the next driver loads anew; in place it goes on from here.
    async fn leave_to_projectors(&mut self, to: BuildId, why: &str) -> Result<(), Stopped> {
        let (view, operation, build) = (to.view, self.operation.id, to.build);
        tracing::warn!(view, operation, %build, why,
            "the topic cannot be loaded in bulk: projectors apply it batch by batch");
        let detail = format!(
            "the topic is applied batch by batch, which takes longer than to load it, as the load met this: {why}"
        );
        self.enter_otherwise(Phase::CatchingUp, Some(&detail)).await
    }

    /// Waits until the new build is close behind the old one.
    async fn catch_up(&mut self, from: BuildId, to: BuildId) -> Result<(), Stopped> {
        loop {
            let (old, new) = (stands(&self.client, from).await?, stands(&self.client, to).await?);
            let done: i64 = new.values().map(|stand| stand.next_offset.0).sum();
            let left = behind(&new, &old);
            self.note(done, Some(done + left)).await?;
            if left <= CLOSE {
                return Ok(());
            }
            tokio::time::sleep(NOTE).await;
        }
    }

    /// Waits until somebody says that readers are to be switched.
    async fn wait_for_word(&mut self) -> Result<(), Stopped> {
        loop {
            let (done, total) = (self.operation.records_done, self.operation.records_total);
            self.note(done, total).await?;
            if self.operation.asked.as_deref() == Some("cutover") {
                return Ok(());
            }
            tokio::time::sleep(NOTE).await;
        }
    }

    async fn cut_over(&mut self, from: BuildId, to: BuildId) -> Result<(), Stopped> {
        self.enter(Phase::CuttingOver).await?;
        // The public names are replaced by their owner, in the sight of whoever makes tables.
        let writer = pool::connect_owner(&self.driver.household.config.database, &names::search_path(to)).await?;
        let keep_hours = self.operation.request["keepHours"].as_f64().unwrap_or(KEEP_HOURS);
        let scripts = self.spec.tables;
        let wanted =
            Switch { from, to, keep_seconds: keep_hours * 3600.0, operation: self.operation.id, scripts: &scripts };
        let mut pause = AGAIN;
        loop {
            self.note(self.operation.records_done, None).await?;
            match switch::switch(&writer, wanted).await {
                Ok(Switched::Done(took)) => {
                    let (view, from, to, ms) = (to.view, from.build, to.build, took.as_millis());
                    tracing::info!(view, %from, %to, ms, "readers were switched");
                    self.driver.board.look_now();
                    return Ok(());
                }
                Ok(Switched::Behind(Lack { records, decisions })) => {
                    pause = (pause * 2).min(MOST_AGAIN);
                    let (view, operation) = (to.view, self.operation.id);
                    match pause == MOST_AGAIN {
                        true => tracing::warn!(view, operation, build = %to.build, records, ?decisions,
                            "readers are not switched yet: the build that they are to read lacks this"),
                        false => {
                            tracing::debug!(view, operation, records, ?decisions, "the new build is not as far yet")
                        }
                    }
                }
                Err(BuildError::Database(error)) if is_lost_lock(&error) => {
                    pause = AGAIN;
                    tracing::debug!(view = to.view, "readers kept the public names; tried again");
                }
                Err(error) => return Err(error.into()),
            }
            let until = tokio::time::Instant::now() + pause;
            while tokio::time::Instant::now() < until {
                tokio::time::sleep(NOTE.min(until - tokio::time::Instant::now())).await;
                self.note(self.operation.records_done, None).await?;
            }
        }
    }
}
