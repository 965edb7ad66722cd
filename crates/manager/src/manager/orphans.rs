//! What looks like ours in engines and brokers, and that no definition names. Listed; removed only when a person says so.

use super::catalogue::is_ours;
use super::{Orphan, OrphanKind, Orphans, Shared};
use crate::catalog::Source;
use crate::engines::{Changes, Deployment, EngineKind, Handle, Observed, Select, StopMode};
use crate::fault::Fault;
use crate::lifecycle::record::is_active;
use crate::names::{Names, beside_which};
use crate::ports::Topic;
use crate::store::{Known, Leftover};

impl Shared {
    pub(super) async fn orphans(&self) -> Result<Orphans, Fault> {
        let mut found = Orphans { orphans: Vec::new(), missing: Vec::new() };
        // The engines first: what is deployed while they are asked is known by the time the definitions are read.
        let mut observed = Vec::new();
        for engine in &self.parts.engines {
            match engine.observe().await {
                Ok(jobs) => observed.extend(jobs.into_iter().map(|job| (engine.kind(), job))),
                Err(trouble) => found.missing.push(format!("{} cannot be asked: {trouble}", engine.kind().name())),
            }
        }
        let topics = match self.parts.kafka.topics().await {
            Ok(topics) => topics,
            Err(error) => {
                found.missing.push(format!("the brokers cannot be asked: {error}"));
                Vec::new()
            }
        };
        let (known, leftovers) = (self.store.known().await?, self.store.leftovers().await?);
        found.orphans.extend(observed.iter().filter_map(|(engine, job)| orphaned_job(*engine, job, &known)));
        let is_known = |topic: &str| known.iter().any(|known| known.topic == topic);
        let orphaned = topics.iter().filter(|topic| {
            // What stands beside the topic of a stream is the stream's, too.
            let of_stream = beside_which(&topic.name);
            is_ours(of_stream) && !is_known(of_stream)
        });
        found.orphans.extend(orphaned.map(|topic| orphaned_topic(&topic.name, &leftovers)));
        Ok(found)
    }

    pub(super) async fn remove_orphan(
        &self,
        kind: OrphanKind,
        engine: Option<EngineKind>,
        id: &str,
        actor: &str,
    ) -> Result<Orphan, Fault> {
        let is_it =
            |orphan: &Orphan| orphan.kind == kind && orphan.id == id && (engine.is_none() || orphan.engine == engine);
        let orphan = self.orphans().await?.orphans.into_iter().find(is_it);
        let orphan = orphan.ok_or_else(|| Fault::NotFound { what: "orphan", id: id.to_owned() })?;
        match orphan.engine {
            Some(engine) => self.remove_job(engine, &orphan).await?,
            None => {
                self.parts.kafka.delete_topic(&orphan.id).await?;
                self.forget_if_last(&orphan.id).await?;
            }
        }
        tracing::warn!(kind = ?kind, id, name = orphan.name, actor, "an orphan was removed");
        Ok(orphan)
    }

    /// Forgets who left a topic once nothing of it is there, nor beside it.
    async fn forget_if_last(&self, removed: &str) -> Result<(), Fault> {
        let of = beside_which(removed);
        let topics = self.parts.kafka.topics().await?;
        let is_another = |topic: &Topic| topic.name != removed && beside_which(&topic.name) == of;
        if !topics.iter().any(is_another) {
            self.store.forget_leftover(of).await?;
        }
        Ok(())
    }

    async fn remove_job(&self, kind: EngineKind, orphan: &Orphan) -> Result<(), Fault> {
        let engine = self.engine(kind)?;
        let (names, revision, attempt) = parts_of(&orphan.name);
        let handle = Handle {
            job_id: orphan.id.clone(),
            stream_name: names.sink(),
            output_topic: names.topic(),
            changes: Changes::Append,
            keeps_at: None,
        };
        let deployment = Deployment {
            definition: names.tag().to_owned(),
            names,
            revision,
            attempt,
            select: Select { sql: String::new(), sources: Vec::<Source>::new() },
            changes: Changes::Append,
            replaces: false,
            restore: None,
        };
        let fault = |trouble| Fault::of(kind, trouble);
        engine.stop(&deployment, &handle, StopMode::Final).await.map_err(fault)?;
        engine.remove(&handle, &[]).await.map_err(fault)
    }
}

fn orphaned_job(engine: EngineKind, job: &Observed, known: &[Known]) -> Option<Orphan> {
    let is_orphaned = match engine.names_deployments() {
        true => {
            let is_known = |known: &Known| job.name.starts_with(&format!("{}-r", known.names.job_family()));
            is_active(job.state) && is_our_job(&job.name) && !known.iter().any(is_known)
        }
        false => {
            let is_known = |known: &Known| known.sink == job.name;
            is_ours(&job.name.to_ascii_lowercase()) && !known.iter().any(is_known)
        }
    };
    is_orphaned.then(|| Orphan {
        kind: OrphanKind::Job,
        engine: Some(engine),
        id: job.job_id.clone(),
        name: job.name.clone(),
        state: Some(job.state),
        note: "it has a name as ours have, and no definition is known that it could be of".to_owned(),
    })
}

fn orphaned_topic(topic: &str, leftovers: &[Leftover]) -> Orphan {
    let note = match leftovers.iter().find(|leftover| leftover.topic == beside_which(topic)) {
        Some(Leftover { name, deleted_by, deleted_at, .. }) => {
            format!("it is what `{name}` left, which {deleted_by} deleted at {deleted_at}")
        }
        None => "it has a name as ours have, and no definition is known that it could be of".to_owned(),
    };
    Orphan { kind: OrphanKind::Topic, engine: None, id: topic.to_owned(), name: topic.to_owned(), state: None, note }
}

/// Whether it is a name as our jobs have where each deployment is one: `sv-<slug>-<tag>-r<revision>-a<attempt>`.
fn is_our_job(name: &str) -> bool {
    let (names, revision, attempt) = parts_of(name);
    names.job_name(revision, attempt) == name
}

/// The parts of a job's or sink's name; of another name something else.
fn parts_of(name: &str) -> (Names, i32, i32) {
    let lower = name.to_ascii_lowercase();
    if let Some((slug, tag)) = lower.strip_prefix("view_").and_then(|rest| rest.rsplit_once('_')) {
        return (Names::of(tag, slug), 0, 0);
    }
    let mut parts = lower.strip_prefix("sv-").unwrap_or_default().split('-');
    let (slug, tag) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut number = |mark| parts.next().and_then(|part| part.strip_prefix(mark)?.parse().ok()).unwrap_or_default();
    (Names::of(tag, slug), number('r'), number('a'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_jobs_with_our_names_are_ours() {
        assert!(is_our_job("sv-high_value-0123abcd-r2-a17"));
        for other in
            ["sv-orders", "sv-orders-0123abcd", "insert-into_default", "sv-orders-0123abcd-r1-a1-x", "sv--x-r1-a1"]
        {
            assert!(!is_our_job(other), "{other}");
        }
        assert_eq!(parts_of("VIEW_HIGH_VALUE_0123ABCD").0.sink(), "VIEW_HIGH_VALUE_0123ABCD");
    }
}
