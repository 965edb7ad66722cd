//! What a key should be by the log, as far as the build has consumed it.
//!
//! The build's positions are read in the same snapshot as its rows, and only what stands before them is folded: so both are
//! equally far, unless the log was not read to there yet. Then, and where the projector has something left to do (parked
//! events to drain, a decision to take), the key is put aside.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Course, VerifyError};
use crate::builds::compare::{Readers, Seen};
use crate::builds::from_log::{self, Folding, LogFault, Reading, Share, Wanted};
use crate::builds::switch::{Stands, stands};
use crate::domain::comparison::Difference;
use crate::domain::units::Sequence;
use crate::domain::verification::{Looked, Moving};
use crate::engine::fold::FoldLimits;
use crate::engine::plan::Plan;
use crate::engine::view::{ChangedKey, View, WriteSet};
use crate::projector::runtime::Parts;
use crate::schemas::SchemaSource;
use crate::store::Connection;
use crate::store::control::ControlStatements;
use crate::store::progress::BuildSource;
use crate::store::rows::Stored;

/// What is needed to look by the log.
pub(super) struct ByLog {
    source: BuildSource,
    limits: FoldLimits,
    schemas: SchemaSource,
    control: ControlStatements,
    reading: Reading,
    /// Of the ledger, too.
    pub(super) readers: Readers,
    share: Share,
}

impl ByLog {
    /// Prepares; nothing is read yet.
    pub(super) async fn prepare<V: View>(
        view: &V,
        parts: &Parts,
        client: &Connection,
        (readers, stop): (Readers, CancellationToken),
    ) -> Result<Self, VerifyError> {
        let (spec, source) = (view.spec(), parts.source(view.spec().name));
        let schemas =
            SchemaSource::new(spec.name, spec.avro, &parts.config.schema_registry, Arc::clone(&parts.metrics))
                .map_err(|error| VerifyError::Settings(error.to_string()))?;
        let skipped = from_log::skipped(client, &source, &stands(client, source.id()).await?).await?;
        let reading = Reading {
            kafka: parts.config.kafka.clone(),
            topic: source.topic.clone(),
            memory: parts.config.rebuild.memory_bytes,
            stop,
            skipped,
        };
        let control = ControlStatements::prepare(client).await?;
        let limits = from_log::limits(&parts.config, &parts.meaning.rules);
        Ok(ByLog { source, limits, schemas, control, reading, readers, share: Share::default() })
    }

    /// Reads the next share of keys, and the last of them, if there may be more.
    pub(super) async fn read(&mut self, wanted: Wanted) -> Result<Option<String>, LogFault> {
        self.share = Share::default();
        self.share = Share::read(&self.reading, wanted).await?;
        Ok(self.share.last_key().map(str::to_owned))
    }

    /// Reads on, for these keys only.
    pub(super) async fn read_on(&mut self, keys: &[String]) -> Result<(), LogFault> {
        self.share = std::mem::take(&mut self.share).read_on(&self.reading, keys).await?;
        Ok(())
    }

    pub(super) fn share(&self) -> &Share {
        &self.share
    }
}

impl<V: Stored> Course<'_, V> {
    /// What is found of these keys, inside a snapshot.
    pub(super) async fn look_by_log(
        &self,
        log: &ByLog,
        keys: &[String],
    ) -> Result<BTreeMap<String, Looked>, VerifyError> {
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let stands = stands(&self.client, log.source.id()).await?;
        let decisions = log.control.load_decisions(&self.client, &log.source, &names).await?;
        let overrules = from_log::overrules(&self.client, &log.source, &names).await?;
        let schemas = from_log::schemas_of(&log.schemas, (&log.share, &stands, &decisions), &names).await?;
        let folding = Folding {
            view: self.by_ledger.view,
            limits: log.limits,
            share: &log.share,
            stands: &stands,
            decisions: &decisions,
            overrules: &overrules,
            schemas: &schemas,
        };
        let mut plans: Vec<(&str, Plan<'_, V>)> = names.iter().map(|key| (*key, folding.fold(key))).collect();
        self.write_plans(&mut plans).await?;
        let seen = log.readers.look(&self.client, &names).await?;
        Ok(seen.into_iter().map(|(seen, found)| (seen.key.clone(), self.judge(log, &stands, &seen, found))).collect())
    }

    /// Has the scratch tables hold what was folded.
    async fn write_plans<'a>(&self, plans: &mut [(&'a str, Plan<'a, V>)]) -> Result<(), VerifyError> {
        let (mut details, mut ledger) = (Vec::new(), Vec::new());
        for (_, plan) in plans.iter_mut() {
            details.append(&mut plan.details);
            ledger.append(&mut plan.ledger);
        }
        let changed = plans.iter().filter_map(|(key, plan)| {
            let entry = &plan.keys.get(key)?.entry;
            Some(ChangedKey {
                key,
                base_sequence: None,
                last_sequence: entry.last_sequence,
                last_event_id: entry.last_event_id.as_deref()?,
                state: &entry.state,
            })
        });
        let set = WriteSet { changed: changed.collect(), details: &details };
        Ok(self.by_ledger.scratch.write(&self.client, &set, &ledger).await?)
    }

    fn judge(&self, log: &ByLog, stands: &Stands, seen: &Seen, found: Difference) -> Looked {
        let (old, new) = seen.sequences();
        let Some(difference) = Difference::of_sequences(&seen.key, old, new) else {
            return match old {
                None => Looked::Nowhere,
                Some(_) if found.columns.is_empty() => Looked::Equal,
                Some(_) => Looked::Different(found),
            };
        };
        if old < new {
            // Something is left to do for its projector, perhaps.
            return Looked::Aside(Moving { difference, is_ahead: false });
        }
        match log.share.lost_before(&seen.key) {
            Some(where_from) => {
                let next = new.map_or(self.by_ledger.first_sequence, |last| Sequence(last).next());
                Looked::Untold(format!("event {next} is not in the log any more: {where_from}"))
            }
            None if log.share.is_behind(stands) => Looked::Aside(Moving { difference, is_ahead: true }),
            None => Looked::Different(difference),
        }
    }
}
