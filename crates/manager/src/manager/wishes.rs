//! What people want, written down. Each call reads a definition, changes it and writes it back; where somebody else was
//! quicker, it begins again with what they wrote.

use std::time::Duration;

use jiff::Timestamp;

use super::judge::loses_state;
use super::{Change, DeleteOptions, Deletion, DeployOptions, Filter, NewDefinition, Page, Shared, StopOptions};
use crate::definition::{Definition, Intent};
use crate::engines::{ObservedState, Refusal};
use crate::fault::Fault;
use crate::lifecycle::outcome::Happened;
use crate::lifecycle::record::{Position, Record};
use crate::lifecycle::wish::{How, another_text, is_being_updated, wish};
use crate::lifecycle::{Action, Effect};
use crate::settings::Limits;
use crate::store::{Find, NewRow, Planned, StoreError, Write, Written};

/// The longest name.
const MAX_NAME: usize = 128;
/// How often a call begins again when somebody else was quicker.
const MAX_TURNS: u32 = 20;

impl Shared {
    /// A definition by its id, with or without hyphens.
    pub(super) async fn record(&self, id: &str) -> Result<Record, Fault> {
        let digits: String = id.chars().filter(|letter| *letter != '-').collect();
        let unknown = || Fault::NotFound { what: "stream", id: id.to_owned() };
        if digits.len() != 32 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        self.store.get(&digits.to_ascii_lowercase()).await?.ok_or_else(unknown)
    }

    pub(super) async fn create(&self, new: NewDefinition, actor: &str) -> Result<Definition, Fault> {
        let name = checked_name(&new.name)?;
        let engine = new.engine.unwrap_or(self.parts.settings.default_engine);
        self.engine(engine)?;
        self.gated(engine, &new.sql_script).await?;
        loop {
            let id = self.store.new_id().await?;
            let row = NewRow { id: &id, name, sql_script: &new.sql_script, engine, actor };
            let limits = &self.parts.settings.limits;
            match self.store.insert(&row, (limits.definitions_per_user, limits.definitions)).await {
                Ok(full @ (Written::OwnerIsFull(_) | Written::AllIsFull(_))) => {
                    return Err(no_room(actor, limits, full));
                }
                Ok(_) => return Ok(self.record(&id).await?.into()),
                Err(StoreError::Taken(what)) if what == "stream_definitions_name" => {
                    return Err(Fault::NameTaken(name.to_owned()));
                }
                // The first digits of the id are those of another one of that name: another id, then.
                Err(StoreError::Taken(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) async fn list(&self, filter: &Filter, after: Option<&str>, limit: u32) -> Result<Page, Fault> {
        let before = after.map(cursor).transpose()?;
        let find = Find {
            id: None,
            engine: filter.engine,
            owner: filter.owner.clone(),
            intent: filter.intent.map(Intent::word),
            observed: filter.observed,
            name_contains: filter.name_contains.clone(),
            for_a_round: false,
            before,
        };
        let mut records = self.store.find(&find, i64::from(limit) + 1).await?;
        let has_more = records.len() > limit as usize;
        records.truncate(limit as usize);
        let last = records.last().filter(|_| has_more);
        let next = last.map(|last| format!("{}-{}", last.created_at.as_microsecond(), last.id));
        Ok(Page { definitions: records.into_iter().map(Definition::from).collect(), next })
    }

    pub(super) async fn update(&self, id: &str, change: Change, actor: &str) -> Result<Definition, Fault> {
        let limits = &self.parts.settings.limits;
        let mut turns = Turns::default();
        loop {
            let record = self.record(id).await?;
            turns.next(&record, Action::Update, change.expected_version)?;
            let mut new = record.clone();
            let name = change.name.as_deref().map(checked_name).transpose()?;
            let text = change.sql_script.as_deref().filter(|text| *text != record.sql_script);
            if let Some(name) = name {
                name.clone_into(&mut new.name);
            }
            if text.is_none() && new.name == record.name {
                return Ok(record.into());
            }
            new.version += 1;
            if !wish(&mut new, Action::Update, How::default()) || text.is_some() && is_being_updated(&record) {
                return Err(conflict(&record, Action::Update));
            }
            let planned = match text {
                Some(text) => self.new_text(&mut new, text, change.accept_state_loss, &mut turns).await?,
                None => None,
            };
            let detail = match text {
                Some(_) => format!("revision {}", new.revision),
                None => format!("it is called `{}` now", new.name),
            };
            let happened = Happened::with("changed", detail);
            let write = Write {
                record: &new,
                actor,
                happened,
                is_new_revision: text.is_some(),
                planned: planned.as_ref(),
                // What has failed has given its place away: another text takes one.
                places: (planned.is_some() && !record.has_place()).then_some((limits.streams_per_user, limits.streams)),
            };
            match self.store.write(&write).await {
                Ok(full @ (Written::OwnerIsFull(_) | Written::AllIsFull(_))) => {
                    return Err(limit(&record, limits.streams_per_user, limits.streams, full));
                }
                Ok(Written::Done) => {
                    self.wake();
                    return Ok(self.record(id).await?.into());
                }
                Ok(_) => {}
                Err(StoreError::Taken(what)) if what == "stream_definitions_name" => {
                    return Err(Fault::NameTaken(new.name));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives it another text. If it is wanted to run, the text takes the place of the one that runs, so the engine judges it,
    /// too; a text that nobody runs is judged by the engine when it is deployed.
    async fn new_text(
        &self,
        new: &mut Record,
        text: &str,
        accept_state_loss: bool,
        turns: &mut Turns,
    ) -> Result<Option<Planned>, Fault> {
        let is_judged = turns.planned.is_some();
        let gated = if is_judged { None } else { Some(self.gated(new.engine, text).await?) };
        let old = new.clone();
        text.clone_into(&mut new.sql_script);
        another_text(new);
        if new.intent != Intent::Running {
            return Ok(None);
        }
        if let Some(gated) = gated {
            turns.planned = Some((text.to_owned(), self.planned(new.engine, &gated).await?));
        }
        let Some((_, planned)) = turns.planned.clone() else { return Ok(None) };
        let plan = self.effect(&old, new.revision, (&planned.select, Some(planned.changes))).await?;
        if plan.effect == Effect::RestartsFromBeginning {
            if loses_state(&old, &plan) && !accept_state_loss {
                return Err(Fault::WouldLoseState(Box::new(plan)));
            }
            new.fresh_revision = Some(new.revision);
        }
        Ok(Some(planned))
    }

    pub(super) async fn deploy(
        &self,
        id: &str,
        action: Action,
        options: DeployOptions,
        patience: Duration,
        actor: &str,
    ) -> Result<Definition, Fault> {
        let limits = &self.parts.settings.limits;
        let mut turns = Turns::default();
        loop {
            let record = self.record(id).await?;
            turns.next(&record, action, options.expected_version)?;
            let mut new = record.clone();
            if !wish(&mut new, action, How::default()) {
                return Err(conflict(&record, action));
            }
            self.engine(record.engine)?;
            let restarts = options.from_beginning && record.deployed_revision.is_some();
            if restarts && is_being_updated(&record) {
                return Err(conflict(&record, action));
            }
            if restarts {
                // The same text as another revision: so what runs makes room for it as for any other.
                new.revision += 1;
                new.version += 1;
                new.fresh_revision = Some(new.revision);
            }
            let planned = self.plan_of(&record, &mut new, options, restarts, &mut turns).await?;
            let has_place = record.has_place();
            let write = Write {
                record: &new,
                actor,
                happened: Happened::with(wanted(action), format!("revision {}", new.revision)),
                is_new_revision: restarts,
                planned: planned.as_ref(),
                places: (!has_place).then_some((limits.streams_per_user, limits.streams)),
            };
            match self.store.write(&write).await? {
                Written::Done => break,
                Written::Stale => {}
                full => return Err(limit(&record, limits.streams_per_user, limits.streams, full)),
            }
        }
        self.wake();
        let is_done = |record: &Record| {
            let is_taken = record.position == Position::Deployed && record.deployed_revision == Some(record.revision);
            record.call.is_none() && is_taken || record.failed_revision == Some(record.revision)
        };
        let Some(record) = self.until(id, patience, is_done).await? else {
            return Err(Fault::NotFound { what: "stream", id: id.to_owned() });
        };
        if record.failed_revision == Some(record.revision) && record.intent == Intent::Running {
            let message = record.last_error.unwrap_or_else(|| "the engine does not say why".to_owned());
            return Err(Fault::Refused(vec![Refusal {
                code: "engine_refused".to_owned(),
                message,
                line: None,
                column: None,
            }]));
        }
        Ok(record.into())
    }

    /// What its text will be deployed as, if that is not known yet.
    async fn plan_of(
        &self,
        record: &Record,
        new: &mut Record,
        options: DeployOptions,
        restarts: bool,
        turns: &mut Turns,
    ) -> Result<Option<Planned>, Fault> {
        let known = self.store.revision(&record.id, record.revision).await?;
        let is_known = known.is_some_and(|known| known.select.is_some());
        if is_known && !restarts && record.deployed_revision == Some(record.revision) {
            return Ok(None); // as it was: that needs nobody's word
        }
        // The text is as it was at the turn before: so is what the gate and the engine say of it.
        let judged = turns.planned.take().filter(|(text, _)| *text == record.sql_script);
        let planned = match judged {
            Some((_, planned)) => planned,
            None => {
                let gated = self.gated(record.engine, &record.sql_script).await?;
                self.planned(record.engine, &gated).await?
            }
        };
        turns.planned = Some((record.sql_script.clone(), planned.clone()));
        if restarts {
            return Ok(Some(planned));
        }
        let plan = self.effect(record, record.revision, (&planned.select, Some(planned.changes))).await?;
        if plan.effect == Effect::RestartsFromBeginning {
            let is_accepted = options.accept_state_loss || record.fresh_revision == Some(record.revision);
            if loses_state(record, &plan) && !is_accepted {
                return Err(Fault::WouldLoseState(Box::new(plan)));
            }
            new.fresh_revision = Some(record.revision);
        }
        Ok(Some(planned))
    }

    /// Wants it paused or stopped.
    pub(super) async fn rest(
        &self,
        id: &str,
        action: Action,
        options: StopOptions,
        patience: Duration,
        actor: &str,
    ) -> Result<Definition, Fault> {
        let how = How { discard_state: options.discard_state, delete_topic: false };
        self.ask(id, (action, how), options.expected_version, actor).await?;
        let is_done = |record: &Record| {
            let is_down = match record.position {
                Position::Deployed => false,
                Position::Paused => action == Action::Pause,
                Position::Nothing | Position::Stopped | Position::Removed => true,
            };
            is_down && record.call.is_none()
        };
        match self.until(id, patience, is_done).await? {
            Some(record) => Ok(record.into()),
            None => Err(Fault::NotFound { what: "stream", id: id.to_owned() }),
        }
    }

    pub(super) async fn delete(
        &self,
        id: &str,
        options: DeleteOptions,
        patience: Duration,
        actor: &str,
    ) -> Result<Deletion, Fault> {
        let how = How { discard_state: false, delete_topic: options.delete_topic };
        let record = self.ask(id, (Action::Delete, how), options.expected_version, actor).await?;
        let rest = self.until(id, patience, |_| false).await?;
        let mut leaves = Vec::new();
        if record.attempt > 0 && !record.delete_topic {
            leaves = self.topics_left(&record).await;
        }
        match &rest {
            // Why the topic is still there.
            Some(rest) if rest.position == Position::Removed => leaves.extend(rest.last_error.clone()),
            Some(_) => {
                let engine = record.engine.name();
                leaves.push(format!("what {engine} still runs or keeps of it, until {engine} lets go"));
            }
            None => {}
        }
        Ok(Deletion { is_done: rest.is_none(), leaves })
    }

    /// The topics that stay when their stream goes, as sentences. Whether anything stands beside the first, only the brokers know.
    async fn topics_left(&self, record: &Record) -> Vec<String> {
        let (topic, mut beside) = (record.names().topic(), record.topics());
        beside.retain(|name| *name != topic);
        let mut left = vec![format!("topic `{topic}` with its records")];
        if beside.is_empty() {
            return left;
        }
        match self.parts.kafka.topics().await {
            Ok(topics) => {
                beside.retain(|name| topics.iter().any(|topic| topic.name == *name));
                left.extend(beside.iter().map(|name| format!("topic `{name}` with what was put aside")));
            }
            Err(error) => {
                left.push(format!("topics `{}`, if they are there: {error}", beside.join("`, `")));
            }
        }
        left
    }

    async fn ask(
        &self,
        id: &str,
        (action, how): (Action, How),
        expected_version: Option<i32>,
        actor: &str,
    ) -> Result<Record, Fault> {
        let mut turns = Turns::default();
        loop {
            let record = self.record(id).await?;
            turns.next(&record, action, expected_version)?;
            let mut new = record.clone();
            if !wish(&mut new, action, how) {
                return Err(conflict(&record, action));
            }
            let happened = Happened::new(wanted(action));
            let write = Write { record: &new, actor, happened, is_new_revision: false, planned: None, places: None };
            if self.store.write(&write).await? == Written::Done {
                self.wake();
                return Ok(new);
            }
        }
    }

    /// Waits until it is done, or for so long; `None` if the definition is gone.
    async fn until(
        &self,
        id: &str,
        patience: Duration,
        is_done: impl Fn(&Record) -> bool,
    ) -> Result<Option<Record>, Fault> {
        let look = async || match self.record(id).await {
            Ok(record) => Ok(Some(record)),
            Err(Fault::NotFound { .. }) => Ok(None),
            Err(fault) => Err(fault),
        };
        self.waits.until(patience, look, is_done).await
    }
}

/// Turns of one call: each reads anew what somebody else has written, and the reconciler writes often.
#[derive(Default)]
struct Turns {
    taken: u32,
    /// A text, and what it will be deployed as.
    planned: Option<(String, Planned)>,
}

impl Turns {
    /// Of what the caller has not read nothing is done, whichever turn finds that out.
    fn next(&mut self, record: &Record, action: Action, expected: Option<i32>) -> Result<(), Fault> {
        if let Some(expected) = expected.filter(|expected| *expected != record.version) {
            return Err(Fault::PreconditionFailed { expected, current: Box::new(record.clone().into()) });
        }
        self.taken += 1;
        if self.taken <= MAX_TURNS {
            return Ok(());
        }
        let state = format!("written by others all the time ({MAX_TURNS} turns): ask again");
        Err(Fault::Conflict { action, state, allowed: Action::allowed(record.intent) })
    }
}

const fn wanted(action: Action) -> &'static str {
    match action {
        Action::Update => "changed",
        Action::Deploy => "deploy_wanted",
        Action::Pause => "pause_wanted",
        Action::Resume => "resume_wanted",
        Action::Stop => "stop_wanted",
        Action::Delete => "delete_wanted",
    }
}

fn conflict(record: &Record, action: Action) -> Fault {
    let mut allowed = Action::allowed(record.intent);
    let mut state = format!("wanted {}", record.intent.word());
    if is_being_updated(record) {
        allowed.retain(|allowed| *allowed != Action::Update);
        state = format!("being updated to revision {}", record.revision);
    } else if record.observed == ObservedState::Unknown {
        state.push_str(", and its engine cannot be asked");
    }
    Fault::Conflict { action, state, allowed }
}

fn limit(record: &Record, of_owner: usize, of_all: usize, full: Written) -> Fault {
    match full {
        Written::OwnerIsFull(in_use) => Fault::LimitReached {
            setting: "streams_per_user",
            scope: format!("of `{}`", record.owner),
            most: of_owner,
            in_use,
        },
        Written::AllIsFull(in_use) => {
            Fault::LimitReached { setting: "streams", scope: "in all".to_owned(), most: of_all, in_use }
        }
        Written::Done | Written::Stale => conflict(record, Action::Deploy),
    }
}

/// As many are written down as may be.
fn no_room(owner: &str, limits: &Limits, full: Written) -> Fault {
    let (setting, scope, most, in_use) = match full {
        Written::OwnerIsFull(in_use) => {
            ("definitions_per_user", format!("of `{owner}`"), limits.definitions_per_user, in_use)
        }
        Written::AllIsFull(in_use) => ("definitions", "in all".to_owned(), limits.definitions, in_use),
        Written::Done | Written::Stale => ("definitions", "in all".to_owned(), limits.definitions, 0),
    };
    Fault::LimitReached { setting, scope, most, in_use }
}

fn checked_name(name: &str) -> Result<&str, Fault> {
    let name = name.trim();
    let length = name.chars().count();
    let problem = match () {
        () if length == 0 => "a stream needs a name".to_owned(),
        () if length > MAX_NAME => format!("the name has {length} characters, and no more than {MAX_NAME} fit"),
        () if name.chars().any(char::is_control) => "the name holds control characters: leave them out".to_owned(),
        () => return Ok(name),
    };
    Err(Fault::Invalid { field: "name", problem })
}

/// Where a page ended: `<microseconds>-<id>`.
fn cursor(text: &str) -> Result<(Timestamp, String), Fault> {
    let read = || {
        let (time, id) = text.rsplit_once('-')?;
        let is_id = id.len() == 32 && id.chars().all(|digit| digit.is_ascii_hexdigit());
        let time = Timestamp::from_microsecond(time.parse().ok()?).ok()?;
        is_id.then(|| (time, id.to_owned()))
    };
    read().ok_or_else(|| Fault::Invalid {
        field: "cursor",
        problem: format!("`{text}` is not where a page ended: take it from the page before"),
    })
}
