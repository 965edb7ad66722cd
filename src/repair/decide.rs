//! Makes decisions: one transaction each, in the order that makes it safe beside running projectors.
//!
//! 1. An idempotency key is claimed; a call that was answered before gets its answer again.
//! 2. The view's progress rows are locked and their count of decisions raised.
//! 3. Only then the facts are read, the rules asked, and the decisions written together with the answer.
//!
//! What takes long (decoding letters) is done before, as letters do not change.

use std::time::Duration;

use serde_json::Value;

use super::facts::numbers;
use super::model::{Action, Decided, Decision, Links};
use super::request::{Request, SkipHeld, Why};
use super::rules::NotNow;
use super::{Desk, DeskError, Obstacle, Refusal};
use crate::api::parameters::encode;
use crate::repair::records::Prepared;
use crate::store::read::ReadError;
use crate::store::repair_write::NewDecision;
use crate::store::{Connection, repair_read, repair_write};

/// The longest that one call may take, reading and decoding the letters of a bulk call included.
const DEADLINE: Duration = Duration::from_secs(60);

/// What a call gets.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status: 202 for a decision, 200 for a dry run.
    pub status: u16,
    /// [`Decided`] or [`super::model::DecidedInBulk`] as JSON.
    pub body: Value,
    /// The answer of an earlier call with the same key.
    pub replayed: bool,
    /// How many decisions of which kind this call has made.
    pub made: Option<(Action, usize)>,
}

/// What a call is going to write.
pub(super) struct Plan {
    pub(super) action: Action,
    pub(super) decisions: Vec<NewDecision>,
    /// Value and encoded headers of a replacement.
    pub(super) record: Option<(Vec<u8>, Vec<u8>)>,
}

impl Plan {
    fn of(action: Action, decision: NewDecision) -> Self {
        Plan { action, decisions: vec![decision], record: None }
    }
}

impl Desk {
    /// Does what is asked, or says why not. With an idempotency key, the same request a second time gets the answer of
    /// the first; also when both come at the same time.
    pub async fn call(&self, request: &Request, why: &Why, key: Option<&str>) -> Result<Answer, DeskError> {
        let late = Err(DeskError::Database(ReadError::Unavailable(None)));
        if request.is_dry_run() {
            return tokio::time::timeout(DEADLINE, self.rehearse(request)).await.unwrap_or(late);
        }
        tokio::time::timeout(DEADLINE, self.decide(request, why, key)).await.unwrap_or(late)
    }

    async fn rehearse(&self, request: &Request) -> Result<Answer, DeskError> {
        let client = self.pool.get().await.map_err(ReadError::from)?;
        let prepared = self.prepare(&client, request).await?;
        let (_, body) = self.plan_bulk(&client, request, &prepared).await?;
        Ok(Answer { status: 200, body: json(&body), replayed: false, made: None })
    }

    async fn decide(&self, request: &Request, why: &Why, key: Option<&str>) -> Result<Answer, DeskError> {
        let client = self.writers.open().await?;
        let fingerprint = request.fingerprint(self.view, why);
        if let Some(key) = key
            && let Some(answer) = replay(&client, key, &fingerprint).await?
        {
            return Ok(answer);
        }
        let prepared = self.prepare(&client, request).await?;
        repair_write::begin(&client).await?;
        let outcome = self.decide_inside(&client, request, why, key.map(|key| (key, &*fingerprint)), &prepared).await;
        match outcome {
            Ok(answer) => {
                repair_write::commit(&client).await?;
                if let Some((action, decisions)) = answer.made {
                    let (view, action, actor) = (self.view, action.as_str(), why.actor.as_str());
                    tracing::info!(view, action, decisions, actor, "decided");
                }
                Ok(answer)
            }
            // The connection ends with this call, and with it the transaction.
            Err(error) => Err(error),
        }
    }

    async fn decide_inside(
        &self,
        client: &Connection,
        request: &Request,
        why: &Why,
        key: Option<(&str, &[u8])>,
        prepared: &Prepared,
    ) -> Result<Answer, DeskError> {
        if let Some((key, fingerprint)) = key
            && !repair_write::claim(client, key, fingerprint).await?
            && let Some(answer) = replay(client, key, fingerprint).await?
        {
            return Ok(answer);
        }
        repair_write::lock(client, self.view).await?;
        let (action, body, made) = match request {
            Request::SkipHeldByFilter(..) | Request::SkipLettersByFilter(..) | Request::RedriveByFilter(..) => {
                let (plan, mut body) = self.plan_bulk(client, request, prepared).await?;
                body.decided = self.write(client, &plan, why).await?.len();
                (plan.action, json(&body), body.decided)
            }
            _ => {
                let plan = self.plan(client, request, prepared).await?;
                let ids = self.write(client, &plan, why).await?;
                let decisions = repair_read::decisions_by_id(client, &ids).await?;
                (plan.action, json(&self.decided(decisions)), ids.len())
            }
        };
        if let Some((key, _)) = key {
            repair_write::answer(client, key, 202, &body).await?;
        }
        Ok(Answer { status: 202, body, replayed: false, made: Some((action, made)) })
    }

    async fn write(&self, client: &Connection, plan: &Plan, why: &Why) -> Result<Vec<i64>, DeskError> {
        let record = plan.record.as_ref().map(|(payload, headers)| (payload.as_slice(), headers.as_slice()));
        Ok(repair_write::insert(client, self.view, plan.action, why, &plan.decisions, record).await?)
    }

    /// What a request about one key or letter writes.
    async fn plan(&self, client: &Connection, request: &Request, prepared: &Prepared) -> Result<Plan, DeskError> {
        match request {
            Request::SkipHeld(skip) => self.plan_skip(client, skip).await,
            Request::SkipLetter(id) => self.plan_skip_letter(client, *id).await,
            Request::Replace(replacement) => self.plan_record(client, Action::Replace, replacement.id, prepared).await,
            Request::Redrive(id) => self.plan_record(client, Action::Redrive, *id, prepared).await,
            _ => unreachable!("bulk requests are planned by plan_bulk"),
        }
    }

    async fn plan_skip(&self, client: &Connection, skip: &SkipHeld) -> Result<Plan, DeskError> {
        let key = skip.key.as_str();
        let facts = self.facts(client, &[key]).await?.remove(key).unwrap_or_default();
        let refuse = |not_now: NotNow| DeskError::from(not_now.refusal(key));
        if facts.missing.is_none() && skip.from.is_none() {
            return Err(match facts.decided.last() {
                Some(decided) => refuse(NotNow::AlreadyDecided(decided.clone())),
                None => not_held(key).into(),
            });
        }
        let (from, to) = match (skip.from, skip.to) {
            (Some(from), to) => (from, to.unwrap_or(from)),
            (None, to) => {
                let (from, all) = facts.missing_range().map_err(refuse)?;
                (from, to.unwrap_or(all))
            }
        };
        if from > to {
            let detail =
                format!("`to` is {to}, which is before {from}, the number to begin with; give a `to` from {from}");
            return Err(Refusal::new(Obstacle::Unfit, detail).into());
        }
        let parked = repair_write::parked(client, self.view, &[(key, from, to)]).await?.into_values().next();
        facts.may_decide(from, to, parked).map_err(refuse)?;
        Ok(Plan::of(Action::Skip, NewDecision { numbers: Some((key.to_owned(), from, to)), letter: None }))
    }

    async fn plan_skip_letter(&self, client: &Connection, id: i64) -> Result<Plan, DeskError> {
        let letter = repair_read::letter(client, self.view, id, 0).await?.ok_or_else(|| no_such_letter(id))?.letter;
        self.refuse_decided(client, id).await?;
        let place = letter.key.zip(letter.sequence);
        let numbers = match place {
            None => None,
            Some((key, sequence)) => {
                let allowed = self.may_decide_one(client, &key, sequence).await?;
                closes_only(allowed).map_err(|not_now| not_now.refusal(&key))?.then_some((key, sequence, sequence))
            }
        };
        Ok(Plan::of(Action::Skip, NewDecision { numbers, letter: Some(id) }))
    }

    async fn plan_record(
        &self,
        client: &Connection,
        action: Action,
        id: i64,
        prepared: &Prepared,
    ) -> Result<Plan, DeskError> {
        self.refuse_decided(client, id).await?;
        let checked = match prepared.checked.get(&id) {
            Some(Ok(checked)) => checked,
            Some(Err(poison)) => return Err(violated(poison).into()),
            None => return Err(no_such_letter(id).into()),
        };
        let (key, sequence) = (&checked.key, checked.sequence);
        self.may_decide_one(client, key, sequence).await?.map_err(|not_now| not_now.refusal(key))?;
        let decision = NewDecision { numbers: Some((key.clone(), sequence, sequence)), letter: Some(id) };
        Ok(Plan { record: prepared.record.clone(), ..Plan::of(action, decision) })
    }

    /// A letter is answered once.
    async fn refuse_decided(&self, client: &Connection, id: i64) -> Result<(), DeskError> {
        let Some((decision, action, taken)) = repair_write::decided_letters(client, &[id]).await?.remove(&id) else {
            return Ok(());
        };
        Err(letter_decided(id, decision, action, taken).into())
    }

    /// Whether one number of one key may be decided about.
    pub(super) async fn may_decide_one(
        &self,
        client: &Connection,
        key: &str,
        sequence: i64,
    ) -> Result<Result<(), NotNow>, DeskError> {
        let facts = self.facts(client, &[key]).await?.remove(key).unwrap_or_default();
        let parked = repair_write::parked(client, self.view, &[(key, sequence, sequence)]).await?;
        Ok(facts.may_decide(sequence, sequence, parked.into_values().next()))
    }

    fn decided(&self, decisions: Vec<Decision>) -> Decided {
        let folds = decisions.first().and_then(|decision| {
            let (sequence, to) = (decision.sequence?, decision.sequence_to?);
            Some((decision.key.clone()?, sequence, to))
        });
        let (detail, links) = match folds {
            None => {
                let detail = "The dead letter is closed; no order waits for its number, so nothing else changes";
                (detail.to_owned(), Links::default())
            }
            Some((key, from, to)) => {
                let what = numbers(from, to);
                let detail = format!(
                    "Decided about {what} of `{key}`; it takes effect within about a second while a projector runs, \
                     else when one runs again"
                );
                (detail, self.links_of(&key))
            }
        };
        Decided { decisions, detail, links }
    }

    /// Where to look for a key.
    pub(super) fn links_of(&self, key: &str) -> Links {
        let key = encode(key);
        Links {
            row: Some(format!("/{}/{key}", self.view)),
            held: Some(format!("/ops/held/{key}")),
            decisions: Some(format!("/ops/decisions?key={key}")),
            position: None,
        }
    }
}

/// What skipping a letter does, by what the rules say of its number: `true` if the number is skipped, `false` if nobody
/// waits for it, so that the letter is only closed.
pub(super) fn closes_only(allowed: Result<(), NotNow>) -> Result<bool, NotNow> {
    match allowed {
        Ok(()) => Ok(true),
        Err(NotNow::AlreadyConsumed(_) | NotNow::NumberIsParked(_) | NotNow::Unknown) => Ok(false),
        Err(not_now @ (NotNow::AlreadyDecided(_) | NotNow::OutOfReach(..))) => Err(not_now),
    }
}

pub(super) fn letter_decided(id: i64, decision: i64, action: Action, taken: bool) -> Refusal {
    let state = if taken { "it has been taken" } else { "it has not been taken yet" };
    let detail = format!("Dead letter {id} is answered by decision {decision} ({}); {state}", action.as_str());
    Refusal::new(Obstacle::AlreadyDecided, detail).with("decisionId", decision)
}

pub(super) fn not_held(key: &str) -> Refusal {
    let detail = format!("`{key}` is not held: it waits for no event that could be skipped");
    Refusal::new(Obstacle::NotHeld, detail)
}

pub(super) fn no_such_letter(id: i64) -> Refusal {
    Refusal::new(Obstacle::NoSuchLetter, format!("There is no dead letter {id} in this view"))
}

pub(super) fn violated(poison: &crate::domain::poison::Poison) -> Refusal {
    let detail = format!("The record cannot be taken, {poison}");
    Refusal::new(Obstacle::ContractViolated, detail)
        .with("reason", poison.reason.as_str())
        .with("violation", &poison.detail)
}

/// The answer that was given to the same request under this key; another request under it is refused.
async fn replay(client: &Connection, key: &str, fingerprint: &[u8]) -> Result<Option<Answer>, DeskError> {
    let Some(earlier) = repair_write::answered(client, key).await? else { return Ok(None) };
    if earlier.request != fingerprint {
        let detail =
            "This Idempotency-Key was used for another request; use a new one for each thing that is to be done";
        return Err(Refusal::new(Obstacle::IdempotencyKeyReused, detail).into());
    }
    let status = u16::try_from(earlier.status).unwrap_or(202);
    Ok(Some(Answer { status, body: earlier.answer, replayed: true, made: None }))
}

pub(super) fn json(body: &impl serde::Serialize) -> Value {
    serde_json::to_value(body).expect("answers are plain data")
}
