//! Decisions by filter: the same rules as for one key or letter, asked for all of them with a few statements.

use std::collections::HashSet;

use super::decide::{Draft, closes_only, letter_decided, violated};
use super::model::{DecidedInBulk, Impossible, Subject};
use super::records::Prepared;
use super::request::{BulkBounds, HeldFilter, LetterFilter, MAX_BULK, Request};
use super::rows::write::NewDecision;
use super::rows::{read, write};
use super::rules::{NotNow, Numbers};
use super::{Desk, DeskError, Obstacle, Refusal, Seen};
use crate::domain::units::Sequence;
use crate::store::Connection;

/// Keys or letters named in an answer.
const SAMPLE: usize = 20;

/// What a bulk call finds, as it goes.
struct Findings {
    decisions: Vec<NewDecision>,
    sample: Vec<Subject>,
    impossible: usize,
    impossible_sample: Vec<Impossible>,
}

impl Findings {
    fn new() -> Self {
        Findings { decisions: Vec::new(), sample: Vec::new(), impossible: 0, impossible_sample: Vec::new() }
    }

    fn possible(&mut self, subject: impl FnOnce() -> Subject, decision: NewDecision) {
        if self.sample.len() < SAMPLE {
            self.sample.push(subject());
        }
        self.decisions.push(decision);
    }

    fn impossible(&mut self, key: Option<&str>, letter: Option<i64>, refusal: &Refusal) {
        self.impossible += 1;
        if self.impossible_sample.len() < SAMPLE {
            self.impossible_sample.push(Impossible {
                key: key.map(str::to_owned),
                letter,
                obstacle: refusal.obstacle,
                detail: refusal.detail.clone(),
            });
        }
    }

    fn told(self, matched: usize, bounds: BulkBounds) -> (Vec<NewDecision>, DecidedInBulk) {
        let limit = bounds.limit.min(MAX_BULK) as usize;
        let told = DecidedInBulk {
            dry_run: bounds.dry_run,
            matched: matched.min(limit),
            more: matched > limit,
            possible: self.decisions.len(),
            decided: 0,
            sample: self.sample,
            impossible: self.impossible,
            impossible_sample: self.impossible_sample,
        };
        (self.decisions, told)
    }
}

impl Desk {
    /// What a bulk request writes and answers. The number that matches must be the one that the caller was told.
    pub(super) async fn draft_bulk(
        &self,
        client: &Connection,
        request: &Request,
        prepared: &Prepared,
    ) -> Result<(Draft, DecidedInBulk), DeskError> {
        let (bounds, (findings, matched)) = match request {
            Request::SkipHeldByFilter(filter, bounds) => (*bounds, self.skip_held(client, filter, *bounds).await?),
            Request::SkipLettersByFilter(filter, bounds) => {
                (*bounds, self.answer_letters(client, filter, *bounds, None).await?)
            }
            Request::RedriveByFilter(filter, bounds) => {
                (*bounds, self.answer_letters(client, filter, *bounds, Some(prepared)).await?)
            }
            _ => unreachable!("requests about one key or letter are drafted by draft"),
        };
        let (decisions, told) = findings.told(matched, bounds);
        if !bounds.dry_run && bounds.expect != Some(told.matched) {
            return Err(count_changed(told.matched, bounds.expect).into());
        }
        Ok((Draft { action: request.action(), decisions, record: None }, told))
    }

    async fn skip_held(
        &self,
        client: &Connection,
        filter: &HeldFilter,
        bounds: BulkBounds,
    ) -> Result<(Findings, usize), DeskError> {
        let limit = bounds.limit.min(MAX_BULK);
        let held = read::held(client, self.view, filter, None, i64::from(limit) + 1).await?;
        let matched = held.len();
        let keys: Vec<&str> = held.iter().take(limit as usize).map(|held| held.key.as_str()).collect();
        let facts = self.facts(client, &keys).await?;
        let mut findings = Findings::new();
        let mut ranges = Vec::with_capacity(keys.len());
        for key in keys {
            match facts.get(key).ok_or(NotNow::Unknown).and_then(|facts| facts.missing_range()) {
                Ok(numbers) => ranges.push((key, numbers)),
                Err(not_now) => findings.impossible(Some(key), None, &not_now.refusal(key)),
            }
        }
        let parked = write::parked(client, self.view, &ranges).await?;
        for (key, numbers) in ranges {
            let parked = parked.get(&(key.to_owned(), numbers.from)).copied();
            match facts[key].may_decide(numbers, parked) {
                Ok(()) => {
                    let about = Some((key.to_owned(), numbers));
                    findings.possible(|| Subject::Key(key.to_owned()), NewDecision { about, letter: None });
                }
                Err(not_now) => findings.impossible(Some(key), None, &not_now.refusal(key)),
            }
        }
        Ok((findings, matched))
    }

    /// Skips letters, or redrives those that were found readable.
    async fn answer_letters(
        &self,
        client: &Connection,
        filter: &LetterFilter,
        bounds: BulkBounds,
        redrive: Option<&Prepared>,
    ) -> Result<(Findings, usize), DeskError> {
        let limit = bounds.limit.min(MAX_BULK);
        let mut letters = read::matching_letters(client, self.view, filter, i64::from(limit) + 1).await?;
        let matched = letters.len();
        letters.truncate(limit as usize);
        let mut findings = Findings::new();
        let mut places = Vec::with_capacity(letters.len());
        for letter in &letters {
            let place = match redrive.map(|prepared| prepared.checked.get(&letter.id)) {
                None => letter.place.clone(),
                Some(Some(Ok(place))) => Some(place.clone()),
                Some(Some(Err(poison))) => {
                    findings.impossible(letter.key.as_deref(), Some(letter.id), &violated(poison));
                    continue;
                }
                // It was not there when the letters were read.
                Some(None) => return Err(count_changed(matched.min(limit as usize), bounds.expect).into()),
            };
            places.push((letter.id, place));
        }
        let ids: Vec<i64> = places.iter().map(|(id, _)| *id).collect();
        let answered = write::decided_letters(client, &ids).await?;
        let keys: HashSet<&str> = places.iter().filter_map(|(_, place)| Some(place.as_ref()?.0.as_str())).collect();
        let facts = self.facts(client, &keys.into_iter().collect::<Vec<_>>()).await?;
        let places_with_key = places.iter().filter_map(|(_, place)| place.as_ref());
        let ranges: Vec<(&str, Numbers)> =
            places_with_key.map(|(key, sequence)| (key.as_str(), Numbers::one(*sequence))).collect();
        let parked = write::parked(client, self.view, &ranges).await?;
        let mut here: HashSet<(&str, Sequence)> = HashSet::new();
        for (id, place) in &places {
            let key = place.as_ref().map(|(key, _)| key.as_str());
            if let Some((decision, action, taken)) = answered.get(id) {
                findings.impossible(key, Some(*id), &letter_decided(*id, *decision, *action, *taken));
                continue;
            }
            let Some((key, sequence)) = place else {
                findings.possible(|| Subject::Letter(*id), NewDecision { about: None, letter: Some(*id) });
                continue;
            };
            let numbers = Numbers::one(*sequence);
            let allowed = facts[key].may_decide(numbers, parked.get(&(key.clone(), *sequence)).copied());
            let folds = if redrive.is_some() { allowed.map(|()| true) } else { closes_only(allowed) };
            match folds {
                Ok(true) if !here.insert((key, *sequence)) => {
                    let detail =
                        format!("Number {sequence} of `{key}` is decided about by an older letter of this call");
                    findings.impossible(Some(key), Some(*id), &Refusal::new(Obstacle::AlreadyDecided, detail));
                }
                Ok(folds) => {
                    let about = folds.then(|| (key.clone(), numbers));
                    findings.possible(|| Subject::Letter(*id), NewDecision { about, letter: Some(*id) });
                }
                Err(not_now) => findings.impossible(Some(key), Some(*id), &not_now.refusal(key)),
            }
        }
        Ok((findings, matched))
    }
}

fn count_changed(matched: usize, expected: Option<usize>) -> Refusal {
    let expected = expected.map_or("nothing was expected".to_owned(), |expected| format!("{expected} were expected"));
    let detail =
        format!("{matched} match now, {expected}; look again with dry_run=true, then repeat with the new number");
    Refusal::new(Obstacle::CountChanged, detail).because(Seen::Matched(matched))
}
