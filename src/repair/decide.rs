//! Makes decisions: one transaction each, in the order that makes it safe beside running projectors.
//!
//! 1. An idempotency key is claimed; a call that was answered before gets its answer again.
//! 2. The view's progress rows are locked and their count of decisions raised.
//! 3. Only then the facts are read, the rules asked, and the decisions written together with the answer.
//!
//! What takes long (decoding letters) is done before, as letters do not change.

use std::time::Duration;

use super::model::{OperatorDecision, Outcome, Spelled};
use super::records::Prepared;
use super::request::{Request, SkipHeld, Why};
use super::rows::write::NewDecision;
use super::rows::{read, write};
use super::rules::{NotNow, Numbers};
use super::{Desk, DeskError, Obstacle, Refusal, Seen};
use crate::domain::action::Action;
use crate::domain::units::Sequence;
use crate::store::Connection;
use crate::store::read::ReadError;

/// The longest that one call may take, reading and decoding the letters of a bulk call included; or as long as its statement may.
const DEADLINE: Duration = Duration::from_secs(60);

/// By what a call that is made again is known, and how its answer is spelled to be kept.
#[derive(Debug, Clone, Copy)]
pub struct Once<'a> {
    /// The idempotency key.
    pub key: &'a str,
    /// Spells the answer, which is then given to whoever calls again.
    pub spell: fn(&Outcome) -> Spelled,
}

/// What a call gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Called {
    /// What it has done.
    Now(Outcome),
    /// The answer of an earlier call with the same key, as it was spelled then.
    Before(Spelled),
}

/// What a call is going to write.
pub(super) struct Draft {
    pub(super) action: Action,
    pub(super) decisions: Vec<NewDecision>,
    /// Value and encoded headers of a replacement.
    pub(super) record: Option<(Vec<u8>, Vec<u8>)>,
}

impl Draft {
    fn of(action: Action, decision: NewDecision) -> Self {
        Draft { action, decisions: vec![decision], record: None }
    }
}

impl Desk {
    /// Does what is asked, or says why not. With an idempotency key, the same request a second time gets the answer of
    /// the first; also when both come at the same time.
    pub async fn call(&self, request: &Request, why: &Why, once: Option<Once<'_>>) -> Result<Called, DeskError> {
        let late = Err(DeskError::Database(ReadError::Unavailable(None)));
        let longest = DEADLINE.max(self.writers.longest());
        if request.is_dry_run() {
            return tokio::time::timeout(longest, self.rehearse(request)).await.unwrap_or(late);
        }
        tokio::time::timeout(longest, self.decide(request, why, once)).await.unwrap_or(late)
    }

    async fn rehearse(&self, request: &Request) -> Result<Called, DeskError> {
        // As patient as what it rehearses.
        let client = self.writers.open().await?;
        let prepared = self.prepare(&client, request).await?;
        let (_, told) = self.draft_bulk(&client, request, &prepared).await?;
        Ok(Called::Now(Outcome::InBulk(told)))
    }

    async fn decide(&self, request: &Request, why: &Why, once: Option<Once<'_>>) -> Result<Called, DeskError> {
        let client = self.writers.open().await?;
        let fingerprint = request.fingerprint(self.view, why);
        if let Some(once) = once
            && let Some(answer) = replay(&client, once.key, &fingerprint).await?
        {
            return Ok(Called::Before(answer));
        }
        let prepared = self.prepare(&client, request).await?;
        write::begin(&client).await?;
        // If it fails, the connection ends with this call, and with it the transaction.
        let called =
            self.decide_inside(&client, request, why, once.map(|once| (once, &*fingerprint)), &prepared).await?;
        write::commit(&client).await?;
        if let Called::Now(outcome) = &called {
            let (view, action, Why { actor, on_behalf_of, .. }) = (self.view, request.action().as_str(), why);
            tracing::info!(view, action, decisions = outcome.made(), actor, on_behalf_of, "decided");
        }
        Ok(called)
    }

    async fn decide_inside(
        &self,
        client: &Connection,
        request: &Request,
        why: &Why,
        once: Option<(Once<'_>, &[u8])>,
        prepared: &Prepared,
    ) -> Result<Called, DeskError> {
        if let Some((once, fingerprint)) = once
            && !write::claim(client, once.key, fingerprint).await?
            && let Some(answer) = replay(client, once.key, fingerprint).await?
        {
            return Ok(Called::Before(answer));
        }
        write::lock(client, self.view).await?;
        let outcome = match request {
            Request::SkipHeldByFilter(..) | Request::SkipLettersByFilter(..) | Request::RedriveByFilter(..) => {
                let (draft, mut told) = self.draft_bulk(client, request, prepared).await?;
                told.decided = self.write(client, &draft, why).await?.len();
                Outcome::InBulk(told)
            }
            _ => {
                let draft = self.draft(client, request, prepared).await?;
                let ids = self.write(client, &draft, why).await?;
                Outcome::Decided(read::decisions_by_id(client, &ids).await?)
            }
        };
        if let Some((once, _)) = once {
            write::answer(client, once.key, &(once.spell)(&outcome)).await?;
        }
        Ok(Called::Now(outcome))
    }

    async fn write(&self, client: &Connection, draft: &Draft, why: &Why) -> Result<Vec<i64>, DeskError> {
        let record = draft.record.as_ref().map(|(payload, headers)| (payload.as_slice(), headers.as_slice()));
        Ok(write::insert(client, self.view, draft.action, why, &draft.decisions, record).await?)
    }

    /// What a request about one key or letter writes.
    async fn draft(&self, client: &Connection, request: &Request, prepared: &Prepared) -> Result<Draft, DeskError> {
        match request {
            Request::SkipHeld(skip) => self.draft_skip(client, skip).await,
            Request::SkipLetter(id) => self.draft_skip_letter(client, *id).await,
            Request::Replace(replacement) => self.draft_record(client, Action::Replace, replacement.id, prepared).await,
            Request::Redrive(id) => self.draft_record(client, Action::Redrive, *id, prepared).await,
            _ => unreachable!("bulk requests are drafted by draft_bulk"),
        }
    }

    async fn draft_skip(&self, client: &Connection, skip: &SkipHeld) -> Result<Draft, DeskError> {
        let key = skip.key.as_str();
        let facts = self.facts(client, &[key]).await?.remove(key).unwrap_or_default();
        let refuse = |not_now: NotNow| DeskError::from(not_now.refusal(key));
        if facts.missing.is_none() && skip.from.is_none() {
            return Err(match facts.decided.last() {
                Some(decided) => refuse(NotNow::AlreadyDecided(decided.clone())),
                None => not_held(key).into(),
            });
        }
        let (from, to) = (skip.from.map(Sequence), skip.to.map(Sequence));
        let numbers = match from {
            Some(from) => Numbers { from, to: to.unwrap_or(from) },
            None => {
                let missing = facts.missing_range().map_err(refuse)?;
                Numbers { to: to.unwrap_or(missing.to), ..missing }
            }
        };
        let Numbers { from, to } = numbers;
        if from > to {
            let detail =
                format!("`to` is {to}, which is before {from}, the number to begin with; give a `to` from {from}");
            return Err(Refusal::new(Obstacle::Unfit, detail).into());
        }
        let parked = write::parked(client, self.view, &[(key, numbers)]).await?.into_values().next();
        facts.may_decide(numbers, parked).map_err(refuse)?;
        Ok(Draft::of(Action::Skip, NewDecision { about: Some((key.to_owned(), numbers)), letter: None }))
    }

    async fn draft_skip_letter(&self, client: &Connection, id: i64) -> Result<Draft, DeskError> {
        let letter = read::letter(client, self.view, id, 0).await?.ok_or_else(|| no_such_letter(id))?.letter;
        self.refuse_decided(client, id).await?;
        let place = letter.key.zip(letter.sequence.map(Sequence));
        let about = match place {
            None => None,
            Some((key, sequence)) => {
                let allowed = self.may_decide_one(client, &key, sequence).await?;
                let folds = closes_only(allowed).map_err(|not_now| not_now.refusal(&key))?;
                folds.then_some((key, Numbers::one(sequence)))
            }
        };
        Ok(Draft::of(Action::Skip, NewDecision { about, letter: Some(id) }))
    }

    async fn draft_record(
        &self,
        client: &Connection,
        action: Action,
        id: i64,
        prepared: &Prepared,
    ) -> Result<Draft, DeskError> {
        self.refuse_decided(client, id).await?;
        let (key, sequence) = match prepared.checked.get(&id) {
            Some(Ok((key, sequence))) => (key, *sequence),
            Some(Err(poison)) => return Err(violated(poison).into()),
            None => return Err(no_such_letter(id).into()),
        };
        self.may_decide_one(client, key, sequence).await?.map_err(|not_now| not_now.refusal(key))?;
        let decision = NewDecision { about: Some((key.clone(), Numbers::one(sequence))), letter: Some(id) };
        Ok(Draft { record: prepared.record.clone(), ..Draft::of(action, decision) })
    }

    /// A letter is answered once.
    async fn refuse_decided(&self, client: &Connection, id: i64) -> Result<(), DeskError> {
        let Some((decision, action, taken)) = write::decided_letters(client, &[id]).await?.remove(&id) else {
            return Ok(());
        };
        Err(letter_decided(id, decision, action, taken).into())
    }

    /// Whether one number of one key may be decided about.
    pub(super) async fn may_decide_one(
        &self,
        client: &Connection,
        key: &str,
        sequence: Sequence,
    ) -> Result<Result<(), NotNow>, DeskError> {
        let numbers = Numbers::one(sequence);
        let facts = self.facts(client, &[key]).await?.remove(key).unwrap_or_default();
        let parked = write::parked(client, self.view, &[(key, numbers)]).await?;
        Ok(facts.may_decide(numbers, parked.into_values().next()))
    }
}

/// What a call about one key or letter has decided, in words; and the key that folds with it, if one does.
pub fn in_words(decisions: &[OperatorDecision]) -> (String, Option<&str>) {
    let folds = decisions.first().and_then(|decision| {
        let (from, to) = (Sequence(decision.sequence?), Sequence(decision.sequence_to?));
        Some((decision.key.as_deref()?, Numbers { from, to }))
    });
    let Some((key, numbers)) = folds else {
        let detail = "The dead letter is closed; no order waits for its number, so nothing else changes";
        return (detail.to_owned(), None);
    };
    let detail = format!(
        "Decided about {numbers} of `{key}`; it takes effect within about a second while a projector runs, \
         else when one runs again"
    );
    (detail, Some(key))
}

/// What skipping a letter does, by what the rules say of its number: `true` if the number is skipped, `false` if nobody
/// waits for it, so that the letter is only closed.
pub(super) fn closes_only(allowed: Result<(), NotNow>) -> Result<bool, NotNow> {
    match allowed {
        Ok(()) => Ok(true),
        Err(NotNow::AlreadyConsumed(_) | NotNow::NumberIsParked(_) | NotNow::Unknown) => Ok(false),
        Err(not_now @ (NotNow::AlreadyDecided(_) | NotNow::OutOfReach { .. })) => Err(not_now),
    }
}

pub(super) fn letter_decided(id: i64, decision: i64, action: Action, taken: bool) -> Refusal {
    let state = if taken { "it has been taken" } else { "it has not been taken yet" };
    let detail = format!("Dead letter {id} is answered by decision {decision} ({}); {state}", action.as_str());
    Refusal::new(Obstacle::AlreadyDecided, detail).because(Seen::Decision(decision))
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
    let seen = Seen::Unreadable { reason: poison.reason.as_str(), violation: Some(poison.detail.clone()) };
    Refusal::new(Obstacle::ContractViolated, detail).because(seen)
}

/// The answer that was given to the same request under this key; another request under it is refused.
pub(super) async fn replay(client: &Connection, key: &str, fingerprint: &[u8]) -> Result<Option<Spelled>, DeskError> {
    let Some(earlier) = write::answered(client, key).await? else { return Ok(None) };
    if earlier.request != fingerprint {
        let detail = "This Idempotency-Key was used for another request, or by somebody else; use a new one for each thing that is to be \
             done";
        return Err(Refusal::new(Obstacle::IdempotencyKeyReused, detail).into());
    }
    Ok(Some(earlier.answer))
}
