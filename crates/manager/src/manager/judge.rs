//! Whether a text may run, and what becomes of the state if it takes the place of another: the gate, then the engine.

use super::{CheckedBy, Shared, StatementKind, Validation};
use crate::catalog::Source;
use crate::engines::{Changes, EngineKind, ObservedState, Refusal, Select, Trouble};
use crate::fault::Fault;
use crate::gate::{self, Dialect, Gated, Kind, WithViews};
use crate::lifecycle::record::{Position, Record, is_active};
use crate::lifecycle::{Effect, Plan};
use crate::store::{Planned, StoredRevision};

impl Shared {
    /// What the gate says, with the sources that the engine can read.
    pub(super) async fn gate(
        &self,
        engine: EngineKind,
        kind: Kind,
        sql: &str,
    ) -> Result<Result<Gated, Vec<Refusal>>, Fault> {
        let (catalog, hidden) = self.gathered(Some(engine)).await?;
        let sources: Vec<Source> = catalog.sources.iter().cloned().map(|entry| entry.source).collect();
        let views = if engine == EngineKind::Embedded { Vec::new() } else { self.views().await };
        let limits = &self.parts.settings.limits;
        let known = WithViews { sources: &sources, views: &views };
        let judged = gate::check(sql, Dialect::of(engine), kind, limits, &known);
        Ok(judged.map_err(|faults| {
            let refusals = faults.into_iter().map(|fault| {
                let mut refusal = Refusal::from(fault);
                if refusal.code == "unknown_source" {
                    // Perhaps it is there, and who knows it was not heard; or a topic has the name of a view, or several come to it.
                    let named = refusal.message.to_ascii_lowercase();
                    let of_it = |(name, _): &&(String, String)| named.contains(&format!("`{name}`"));
                    let why = hidden.iter().filter(of_it).map(|(_, why)| why).chain(&catalog.missing);
                    let why: Vec<&str> = why.map(String::as_str).collect();
                    if !why.is_empty() {
                        refusal.message = format!("{} ({})", refusal.message, why.join("; "));
                    }
                }
                refusal
            });
            refusals.collect()
        }))
    }

    /// A text that the gate lets through as one of a definition.
    pub(super) async fn gated(&self, engine: EngineKind, sql: &str) -> Result<Gated, Fault> {
        self.gate(engine, Kind::Persistent, sql).await?.map_err(Fault::Refused)
    }

    /// What it will be deployed as, by the engine's word. What the engine lacks for that is made: only for who deploys.
    pub(super) async fn planned(&self, engine: EngineKind, gated: &Gated) -> Result<Planned, Fault> {
        let fault = |trouble| Fault::of(engine, placed(gated, trouble));
        self.engine(engine)?.prepare(&gated.select).await.map_err(fault)?;
        self.explained(engine, gated).await
    }

    /// What it would be deployed as, by the engine's word; only where the engine lacks nothing for that.
    async fn explained(&self, engine: EngineKind, gated: &Gated) -> Result<Planned, Fault> {
        let explained = match self.engine(engine)?.explain(&gated.select).await {
            Ok(explained) => explained,
            Err(trouble) => return Err(Fault::of(engine, placed(gated, trouble))),
        };
        if let Some(refusal) = explained.only_adhoc {
            return Err(Fault::Refused(vec![at_users(gated, refusal)]));
        }
        Ok(Planned { select: gated.select.clone(), columns: explained.columns, changes: explained.changes })
    }

    pub(super) async fn validate(
        &self,
        engine: Option<EngineKind>,
        kind: StatementKind,
        sql: &str,
    ) -> Result<Validation, Fault> {
        let kind_of_engine = engine.unwrap_or(self.parts.settings.default_engine);
        let engine = self.engine(kind_of_engine)?;
        let gate_kind = match kind {
            StatementKind::Adhoc => Kind::AdHoc { pull: false },
            StatementKind::Pull => Kind::AdHoc { pull: true },
            StatementKind::Persistent => Kind::Persistent,
        };
        let mut found = Validation {
            errors: Vec::new(),
            normalized: None,
            explained: None,
            checked_by: CheckedBy::Gate,
            engine_trouble: None,
        };
        let gated = match self.gate(kind_of_engine, gate_kind, sql).await? {
            Ok(gated) => gated,
            Err(errors) => return Ok(Validation { errors, ..found }),
        };
        found.normalized = Some(gated.normalized.clone());
        match engine.explain(&gated.select).await {
            Ok(explained) => {
                let refusal = explained.only_adhoc.clone().filter(|_| kind == StatementKind::Persistent);
                found.errors.extend(refusal.map(|refusal| at_users(&gated, refusal)));
                (found.explained, found.checked_by) = (Some(explained), CheckedBy::Engine);
            }
            Err(Trouble::Refused(refusal)) => {
                found.errors.push(at_users(&gated, refusal));
                found.checked_by = CheckedBy::Engine;
            }
            Err(trouble) => found.engine_trouble = Some(trouble.to_string()),
        }
        Ok(found)
    }

    pub(super) async fn plan(&self, id: &str, sql_script: Option<&str>) -> Result<Plan, Fault> {
        let record = self.record(id).await?;
        let text = sql_script.unwrap_or(&record.sql_script);
        let is_new = text != record.sql_script;
        let to = record.revision + i32::from(is_new);
        let judged = match self.gated(record.engine, text).await {
            Ok(gated) => self.foreseen(&record, to, &gated).await,
            Err(fault) => Err(fault),
        };
        match judged {
            Ok(plan) => Ok(plan),
            Err(Fault::Refused(refused)) => Ok(Plan {
                refused,
                ..plan(&record, to, Effect::Refused, "the text is refused; what runs is not touched", &[])
            }),
            Err(fault) => Err(fault),
        }
    }

    /// What would become of the state. Nothing is made for it: where the engine lacks something, the gate alone has judged.
    async fn foreseen(&self, record: &Record, to: i32, gated: &Gated) -> Result<Plan, Fault> {
        let fault = |trouble| Fault::of(record.engine, placed(gated, trouble));
        match self.engine(record.engine)?.unprepared(&gated.select).await.map_err(fault)? {
            None => {
                let planned = self.explained(record.engine, gated).await?;
                self.effect(record, to, (&planned.select, Some(planned.changes))).await
            }
            Some(lacks) => {
                let plan = self.effect(record, to, (&gated.select, None)).await?;
                let reason = format!("{}; only the gate has judged the text, as {lacks}", plan.reason);
                Ok(Plan { reason, ..plan })
            }
        }
    }

    /// What becomes of the state if a text that may run is deployed as that revision, and gives such rows, if that is known.
    pub(super) async fn effect(
        &self,
        record: &Record,
        to: i32,
        (select, gives): (&Select, Option<Changes>),
    ) -> Result<Plan, Fault> {
        let engine = self.engine(record.engine)?;
        let Some(from) = record.deployed_revision else {
            return Ok(plan(record, to, Effect::Starts, "it never ran", &["create the topic", "deploy"]));
        };
        let keeps = record.restore.is_some() || matches!(record.position, Position::Deployed | Position::Paused);
        if !keeps {
            let why = "nothing keeps its state: it begins again, and its topic gets rows a second time";
            return Ok(plan(record, to, Effect::RestartsFromBeginning, why, &["deploy"]));
        }
        if from == to {
            let runs = record.position == Position::Deployed && is_active(record.observed);
            return Ok(match runs {
                true => plan(record, to, Effect::Nothing, "it runs as it is wanted", &[]),
                false => plan(record, to, Effect::KeepsState, "it goes on where it is", &["go on with the state"]),
            });
        }
        let of = record.restore.as_ref().filter(|_| record.position == Position::Stopped);
        let of = of.map_or(from, |restore| restore.revision);
        let Some(StoredRevision { select: Some(old), changes, .. }) = self.store.revision(&record.id, of).await? else {
            let why = "it is not known any more how the text that runs was deployed";
            return Ok(plan(record, to, Effect::RestartsFromBeginning, why, &["stop", "deploy"]));
        };
        let judged = match gives.is_none() || changes == gives {
            true => engine.keeps_state(&old, select).await,
            false => Err("rows were only added before, and change now, or the other way round".to_owned()),
        };
        Ok(match judged {
            Ok(()) => {
                let why = "the new text can go on with the state of the one that runs";
                let steps = [
                    "stop with the state kept, or replace in place",
                    "deploy with that state",
                    "take the old text back if the new one does not come to run",
                ];
                plan(record, to, Effect::KeepsState, why, &steps)
            }
            Err(why) => {
                let why = format!("{why}: the state would be lost, and the topic would get rows a second time");
                let steps =
                    ["stop", "deploy from the beginning", "take the old text back if the new one does not come to run"];
                Plan { differences: vec![why.clone()], ..plan(record, to, Effect::RestartsFromBeginning, &why, &steps) }
            }
        })
    }
}

fn plan(record: &Record, to: i32, effect: Effect, reason: &str, steps: &[&str]) -> Plan {
    Plan {
        engine: record.engine,
        from_revision: record.deployed_revision,
        to_revision: to,
        effect,
        reason: reason.to_owned(),
        steps: steps.iter().map(|step| (*step).to_owned()).collect(),
        refused: Vec::new(),
        differences: Vec::new(),
    }
}

/// A refusal of the engine, with its place in the user's text.
fn at_users(gated: &Gated, refusal: Refusal) -> Refusal {
    match (refusal.line, refusal.column) {
        (Some(line), Some(column)) => {
            let (line, column) = gated.map_position(line, column);
            Refusal { line: Some(line), column: Some(column), ..refusal }
        }
        _ => refusal,
    }
}

pub(super) fn placed(gated: &Gated, trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Refused(refusal) => Trouble::Refused(at_users(gated, refusal)),
        other => other,
    }
}

/// Whether something would be lost that somebody may want to keep.
pub(super) fn loses_state(record: &Record, plan: &Plan) -> bool {
    let keeps = record.restore.is_some()
        || matches!(record.position, Position::Paused)
        || record.position == Position::Deployed && record.observed != ObservedState::Failed;
    plan.effect == Effect::RestartsFromBeginning && keeps
}
