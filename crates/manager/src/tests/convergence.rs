//! The planner alone, with the model engine: whatever people, engines and crashes do, once they leave off it comes to what is
//! wanted.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::model::{Fault, Model, World};
use crate::definition::Intent;
use crate::engines::{Changes, Deployment, Engine, EngineKind, ObservedState, Select};
use crate::lifecycle::Action;
use crate::lifecycle::look::{Shown, look, settle};
use crate::lifecycle::outcome::{self, Done};
use crate::lifecycle::record::{Call, Position, Record, is_active, stop_mode};
use crate::lifecycle::step::{Seen, Step, next_step};
use crate::lifecycle::wish::{How, another_text, is_being_updated, wish};
use crate::names::Names;
use crate::settings::Reconcile;

pub fn record(engine: EngineKind) -> Record {
    let now = Timestamp::UNIX_EPOCH;
    Record {
        id: "0123abcd000000000000000000000000".to_owned(),
        name: "orders".to_owned(),
        first_name: "orders".to_owned(),
        engine,
        version: 1,
        revision: 1,
        sql_script: "SELECT 1".to_owned(),
        owner: "anna".to_owned(),
        intent: Intent::Draft,
        position: Position::Nothing,
        attempt: 0,
        deployed_revision: None,
        previous_revision: None,
        failed_revision: None,
        fresh_revision: None,
        changes: None,
        job_id: None,
        restore: None,
        keeps_at: None,
        cluster: None,
        called_at: None,
        savepoints: Vec::new(),
        call: None,
        tries: 0,
        discard_state: false,
        delete_topic: false,
        restarts: 0,
        failures: 0,
        retry_at: None,
        deployed_at: None,
        heals: 0,
        heals_since: None,
        running_as: None,
        observed: ObservedState::Absent,
        engine_state: None,
        observed_at: None,
        drift: None,
        last_error: None,
        created_at: now,
        updated_at: now,
        change: 1,
    }
}

/// A definition, its texts, its engine and a clock.
struct Stage {
    record: Record,
    texts: Vec<&'static str>,
    model: Model,
    now: Timestamp,
    shown: Shown,
    is_forgotten: bool,
    rules: Reconcile,
    heals: bool,
    /// How often somebody has said that the state may be lost.
    losses: usize,
}

/// What happens between two rounds.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// A round that ends as it should.
    Round,
    /// A round whose reconciler dies after it has written down what it will do; or after it has done it.
    DiesBeforeCall,
    DiesAfterCall,
    Ask(Action, bool),
    Edit(&'static str, bool),
    /// The next call that changes something goes wrong.
    Fault(Fault),
    Away(bool),
    /// By hand, at the engine.
    CancelsAll,
    PausesAll,
    ForgetsAll,
    FailsAll,
}

#[derive(Clone, Copy, PartialEq)]
enum Dies {
    Never,
    BeforeCall,
    AfterCall,
}

impl Stage {
    fn new(engine: EngineKind) -> Stage {
        let rules = Reconcile {
            steady: std::time::Duration::from_secs(60),
            longest_wait: std::time::Duration::from_secs(30),
            ..Reconcile::default()
        };
        Stage {
            record: record(engine),
            texts: vec!["SELECT 1"],
            model: Model::new(engine),
            now: Timestamp::UNIX_EPOCH,
            shown: Shown { state: ObservedState::Absent, other: None },
            is_forgotten: false,
            rules,
            heals: true,
            losses: 0,
        }
    }

    fn deployment(&self, revision: i32, attempt: i32, replaces: bool) -> Deployment {
        let sql = self.texts[usize::try_from(revision).unwrap() - 1].to_owned();
        Deployment {
            definition: self.record.id.clone(),
            names: self.record.names(),
            revision,
            attempt,
            select: Select { sql, sources: Vec::new() },
            changes: Changes::Append,
            replaces,
            restore: None,
        }
    }

    async fn call(&self, call: &Call) -> Result<Done, crate::engines::Trouble> {
        let last = self.deployment(self.record.deployed_revision.unwrap_or(1), self.record.attempt, false);
        match call {
            Call::Deploy { revision, attempt, replaces, restore } => {
                let deployment =
                    Deployment { restore: restore.clone(), ..self.deployment(*revision, *attempt, *replaces) };
                self.model.deploy(&deployment).await.map(Done::Deployed)
            }
            Call::Stop { keep_state } => {
                let handle = self.record.handle();
                self.model.stop(&last, &handle, stop_mode(*keep_state)).await.map(Done::Stopped)
            }
            Call::Resume => self.model.resume(&self.record.handle()).await.map(|()| Done::Resumed),
            Call::Remove => {
                self.model.remove(&self.record.handle(), &self.record.savepoints).await.map(|()| Done::Removed)
            }
        }
    }

    /// Looks, and takes the next step.
    async fn round(&mut self, dies: Dies) -> Option<Step> {
        if self.is_forgotten {
            return None;
        }
        self.now += SignedDuration::from_secs(5);
        let observed = self.model.observe().await;
        let (state, strays, job_id) = match &observed {
            Ok(observed) => {
                let sighting = look(&self.record, observed);
                (sighting.state, sighting.strays, sighting.job_id)
            }
            Err(_) => (ObservedState::Unknown, Vec::new(), None),
        };
        let shown = Shown { state: self.record.observed, other: self.shown.other };
        self.shown = settle(self.record.engine, shown, state, self.now, &self.rules);
        self.record.observed = self.shown.state;
        if let Some(id) = job_id.clone().filter(|_| self.record.call.is_none()) {
            self.record.job_id = Some(id);
        }
        let overdue = |at| self.now.duration_since(at) > SignedDuration::from_secs(60);
        let seen = Seen {
            state: if state == ObservedState::Unknown { state } else { self.shown.state },
            is_sure: self.shown.other.is_none(),
            strays,
            job_id,
            is_call_old: self
                .record
                .called_at
                .is_none_or(|at| self.now.duration_since(at) > SignedDuration::from_secs(30)),
            is_due: self.record.retry_at.is_none_or(|at| at <= self.now),
            is_overdue: self.record.deployed_at.is_none_or(overdue),
            may_restart: self.record.restarts < self.rules.restarts,
            heals: self.heals,
            is_other_text: false,
        };
        let step = next_step(&self.record, &seen, &self.model.can());
        self.take(&step, dies).await;
        Some(step)
    }

    async fn take(&mut self, step: &Step, dies: Dies) {
        match step {
            Step::Rest(_) => {}
            Step::Call(call) => {
                if self.record.call.is_none() {
                    outcome::count_restart(&mut self.record, call);
                }
                outcome::begin(&mut self.record, call, self.now);
                if dies == Dies::BeforeCall {
                    return;
                }
                let done = self.call(call).await;
                if dies == Dies::AfterCall {
                    return;
                }
                outcome::finish(&mut self.record, call, done, self.now, &self.rules);
                self.shown = Shown { state: self.record.observed, other: None };
            }
            Step::End { job_id } => {
                let handle = crate::engines::Handle { job_id: job_id.clone(), ..self.record.handle() };
                let deployment = self.deployment(1, 1, false);
                drop(self.model.stop(&deployment, &handle, stop_mode(true)).await);
            }
            Step::Adopt { job_id } => drop(outcome::adopt(&mut self.record, job_id, self.now, &self.rules)),
            Step::DropCall => drop(outcome::drop_call(&mut self.record)),
            Step::Accept => drop(outcome::accept(&mut self.record)),
            Step::TakeBack => drop(outcome::take_back(&mut self.record, None)),
            Step::GiveUp => drop(outcome::give_up(&mut self.record, None)),
            Step::Forget => self.is_forgotten = true,
        }
    }

    fn ask(&mut self, action: Action, option: bool) {
        // Who asks once more for a text that begins anew says so once more.
        let begins_anew = self.record.fresh_revision == Some(self.record.revision);
        self.losses += usize::from(action == Action::Stop && option || action == Action::Deploy && begins_anew);
        wish(&mut self.record, action, How { discard_state: option, delete_topic: option });
    }

    fn edit(&mut self, text: &'static str, loses_state: bool) {
        if is_being_updated(&self.record) || self.record.intent == Intent::Deleted {
            return; // refused while an update is under way
        }
        self.texts.push(text);
        another_text(&mut self.record);
        if loses_state {
            self.losses += 1;
            self.record.fresh_revision = Some(self.record.revision);
        }
    }

    async fn turn(&mut self, turn: Turn) {
        let is_flink = self.model.kind == EngineKind::Flink;
        match turn {
            Turn::Round => drop(self.round(Dies::Never).await),
            Turn::DiesBeforeCall | Turn::DiesAfterCall => {
                drop(
                    self.round(if matches!(turn, Turn::DiesBeforeCall) { Dies::BeforeCall } else { Dies::AfterCall })
                        .await,
                );
                if self.model.kind.dies_with_us() {
                    self.model.with(World::forget_jobs);
                }
            }
            Turn::Ask(action, option) => self.ask(action, option),
            Turn::Edit(text, loses_state) => self.edit(text, loses_state),
            Turn::Fault(fault) => self.model.with(|world| world.faults.push_back(fault)),
            Turn::Away(is_away) => self.model.with(|world| world.is_away = is_away),
            Turn::CancelsAll if is_flink => self.by_hand(|state| is_active(state).then_some(ObservedState::Stopped)),
            Turn::CancelsAll => self.model.with(|world| world.jobs.clear()),
            Turn::PausesAll if is_flink => {}
            Turn::PausesAll => self.by_hand(|state| is_active(state).then_some(ObservedState::Paused)),
            Turn::ForgetsAll => self.model.with(World::forget_jobs),
            Turn::FailsAll => self.by_hand(|state| is_active(state).then_some(ObservedState::Failed)),
        }
    }

    fn by_hand(&self, change: impl Fn(ObservedState) -> Option<ObservedState>) {
        self.model.with(|world| {
            for job in world.jobs.values_mut() {
                job.state = change(job.state).unwrap_or(job.state);
            }
        });
    }

    /// Everybody leaves off: how many rounds until nothing is left to do.
    async fn calm(&mut self) -> Result<usize, String> {
        self.model.with(|world| {
            world.is_away = false;
            world.faults.clear();
        });
        let mut rests = 0;
        for round in 0..400 {
            // What can run comes to run.
            self.model.with(|world| {
                for job in world.jobs.values_mut().filter(|job| !job.sql.contains("crashing")) {
                    if matches!(job.state, ObservedState::Starting | ObservedState::Restarting) {
                        job.state = ObservedState::Running;
                    }
                }
            });
            match self.round(Dies::Never).await {
                None => return Ok(round),
                Some(Step::Rest(_)) if self.record.retry_at.is_none_or(|at| at <= self.now) => rests += 1,
                Some(_) => rests = 0,
            }
            // A step may wait for a time to pass, and a look for another one: so long nothing comes any more.
            if rests > 20 {
                return Ok(round);
            }
        }
        Err(format!("no rest after 400 rounds: {:?}", self.record))
    }

    /// Whether what is, is what is wanted.
    fn judge(&self) -> Result<(), String> {
        let live = self.model.live();
        if self.record.call.is_none() != (self.record.tries == 0) {
            return Err(format!("tries of no call: {:?}", self.record)); // the database refuses that
        }
        let fault = |why: &str| Err(format!("{why}\n{:?}\n{:?}", self.record, self.model.world.lock().unwrap()));
        if self.is_forgotten {
            let (jobs, sinks) = self.model.with(|world| (live.len(), world.sinks.len()));
            return if jobs + sinks == 0 { Ok(()) } else { fault("something outlived its definition") };
        }
        if self.record.call.is_some() || is_being_updated(&self.record) {
            return fault("something is still under way");
        }
        match self.record.intent {
            Intent::Draft if live.is_empty() => Ok(()),
            Intent::Paused | Intent::Stopped if live.is_empty() => Ok(()),
            Intent::Running => match (self.record.target(), live.as_slice()) {
                (None, []) => Ok(()),
                (None, [job]) if job.sql.contains("crashing") => Ok(()),
                // Given up, and not seen to fail any more: it is let be.
                (None, [job])
                    if Some(&job.sql.as_str()) == self.texts.last() && job.state != ObservedState::Running =>
                {
                    Ok(())
                }
                (Some(target), [job]) => {
                    let text = self.texts[usize::try_from(target).unwrap() - 1];
                    if job.sql == text { Ok(()) } else { fault("another text runs") }
                }
                // What fails again and again is not begun for ever; nor is the text before, taken back, when it does no better, though
                // its job has died with the process since, and is seen to fail no more.
                (Some(_), []) if self.record.observed == ObservedState::Failed => Ok(()),
                (Some(_), [])
                    if self.record.observed == ObservedState::Absent
                        && self.model.kind.dies_with_us()
                        && self.record.failed_revision == Some(self.record.revision)
                        && self.record.restarts >= self.rules.restarts =>
                {
                    Ok(())
                }
                _ => fault("not one job runs"),
            },
            _ => fault("it is not as it is wanted"),
        }
    }
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let texts = prop_oneof![
        4 => Just("SELECT 2"),
        1 => Just("SELECT 3 refused"),
        1 => Just("SELECT 4 crashing"),
        1 => Just("SELECT 5 failing"),
        1 => Just("SELECT 6 incompatible"),
    ];
    let action = prop_oneof![
        4 => Just(Action::Deploy),
        1 => Just(Action::Pause),
        1 => Just(Action::Resume),
        1 => Just(Action::Stop),
        1 => Just(Action::Delete),
    ];
    let fault = prop_oneof![
        Just(Fault::Away),
        Just(Fault::LostBefore),
        Just(Fault::LostAfter),
        Just(Fault::Busy),
        Just(Fault::NoSlot)
    ];
    let turn = prop_oneof![
        12 => Just(Turn::Round),
        3 => Just(Turn::DiesBeforeCall),
        3 => Just(Turn::DiesAfterCall),
        6 => (action, any::<bool>()).prop_map(|(action, option)| Turn::Ask(action, option)),
        3 => (texts, any::<bool>()).prop_map(|(text, loses)| Turn::Edit(text, loses)),
        4 => fault.prop_map(Turn::Fault),
        1 => any::<bool>().prop_map(Turn::Away),
        1 => Just(Turn::CancelsAll),
        1 => Just(Turn::PausesAll),
        1 => Just(Turn::ForgetsAll),
        1 => Just(Turn::FailsAll),
    ];
    prop::collection::vec(turn, 1..60)
}

fn engines() -> impl Strategy<Value = EngineKind> {
    prop_oneof![Just(EngineKind::Flink), Just(EngineKind::Ksqldb), Just(EngineKind::Embedded)]
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn comes_to_what_is_wanted(engine: EngineKind, turns: Vec<Turn>) -> Result<(), String> {
    let mut stage = Stage::new(engine);
    for turn in turns {
        stage.turn(turn).await;
        // At no time do two texts of one definition run side by side.
        let live = stage.model.live().len();
        if live > 1 {
            return Err(format!("{live} jobs: {:?}", stage.model.world));
        }
    }
    stage.calm().await?;
    // What keeps its state from its beginning on begins anew only where somebody has said so, whoever dies when.
    let begun = stage.model.with(|world| world.begun.len());
    if begun > 1 + stage.losses {
        return Err(format!("{:?}\n{:?}", stage.record, stage.model.world));
    }
    stage.judge()
}

/// `PROPTEST_CASES` for more of them.
fn cases() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(2_000), ..config }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_happens_it_comes_to_what_is_wanted(engine in engines(), turns in turns()) {
        run(comes_to_what_is_wanted(engine, turns)).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn from_any_state_it_comes_to_what_is_wanted(
        engine in engines(),
        (intent, position) in (prop::sample::select(&Intent::ALL), prop::sample::select(&Position::ALL)),
        state in prop::sample::select(vec![
            ObservedState::Starting, ObservedState::Running, ObservedState::Degraded, ObservedState::Restarting,
            ObservedState::Paused, ObservedState::Stopped, ObservedState::Failed, ObservedState::Absent,
        ]),
        (deployed, previous, failed, fresh) in (1..=2, prop::option::of(Just(1)), prop::option::of(1..=2), prop::option::of(1..=2)),
        call in prop::option::of(prop_oneof![
            Just(Call::Deploy { revision: 2, attempt: 4, replaces: false, restore: None }),
            Just(Call::Stop { keep_state: true }),
            Just(Call::Stop { keep_state: false }),
            Just(Call::Resume),
            Just(Call::Remove),
        ]),
    ) {
        run(async {
            let mut stage = Stage::new(engine);
            stage.texts = vec!["SELECT 1", "SELECT 2"];
            let deployment = stage.deployment(deployed, 3, false);
            let handle = stage.model.deploy(&deployment).await.unwrap();
            stage.model.with(|world| match state {
                ObservedState::Absent => world.jobs.clear(),
                // ksqlDB shows no query that has stopped, and Flink pauses none.
                ObservedState::Stopped if engine == EngineKind::Ksqldb => world.jobs.clear(),
                ObservedState::Paused if engine == EngineKind::Flink => world.jobs.clear(),
                state => world.jobs.get_mut(&handle.job_id).unwrap().state = state,
            });
            if matches!(position, Position::Removed | Position::Nothing) && !is_active(state) {
                stage.model.with(|world| {
                    world.jobs.clear();
                    world.sinks.clear();
                });
            }
            let was_there = position != Position::Nothing;
            stage.record = Record {
                revision: 2,
                attempt: 3,
                intent: if was_there && intent == Intent::Draft { Intent::Stopped } else { intent },
                position,
                observed: state,
                deployed_revision: Some(deployed),
                previous_revision: previous,
                failed_revision: failed,
                fresh_revision: fresh,
                tries: u32::from(call.is_some()),
                call,
                job_id: Some(handle.job_id.clone()),
                ..stage.record
            };
            if stage.record.intent == Intent::Draft {
                stage.model.with(|world| world.jobs.clear());
                (stage.record.call, stage.record.tries, stage.record.previous_revision) = (None, 0, None);
            }
            stage.calm().await.map_err(TestCaseError::fail)?;
            stage.judge().map_err(TestCaseError::fail)
        })?;
    }
}

#[test]
fn names_of_a_family_are_its_own() {
    let names = Names::of("0123abcd000000000000000000000000", "orders");
    assert!(names.job_name(1, 1).starts_with(&format!("{}-r", names.job_family())));
}

/// The outcome of an update is not known, its query fails, and it is paused and deployed again before anybody has looked.
#[test]
fn an_update_without_an_outcome_that_is_paused_and_asked_for_again_is_carried_out() {
    let turns = vec![
        Turn::Ask(Action::Deploy, false),
        Turn::Round,
        Turn::Edit("SELECT 2", false),
        Turn::DiesAfterCall,
        Turn::FailsAll,
        Turn::Round,
        Turn::Round,
        Turn::Fault(Fault::NoSlot),
        Turn::Round,
        Turn::Round,
        Turn::Ask(Action::Pause, false),
        Turn::Round,
        Turn::Ask(Action::Deploy, false),
    ];
    assert_eq!(run(comes_to_what_is_wanted(EngineKind::Ksqldb, turns)), Ok(()));
}

/// An update that does not come to run is taken back, whoever dies meanwhile, and somebody asks for it once more: the text before
/// still goes on where it was.
#[test]
fn the_text_before_keeps_its_state_while_an_update_is_tried_twice() {
    let mut turns =
        vec![Turn::Ask(Action::Deploy, false), Turn::Round, Turn::Round, Turn::Edit("SELECT 5 failing", false)];
    turns.extend([Turn::Round; 4]);
    turns.extend([Turn::DiesBeforeCall, Turn::Ask(Action::Deploy, false)]);
    for engine in [EngineKind::Flink, EngineKind::Embedded] {
        for rounds in 0..8 {
            let mut turns = turns.clone();
            turns.splice(3..3, [Turn::Round].repeat(rounds));
            assert_eq!(run(comes_to_what_is_wanted(engine, turns)), Ok(()), "{engine:?}, {rounds} rounds");
        }
    }
}
