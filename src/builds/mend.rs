//! Mends one key of a build: folds it again, from its ledger or from the log, and puts what comes out in the place of its
//! rows. At a standstill of the view, so that no owner writes meanwhile, and whoever comes next loads what is there then.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::BuildError;
use super::from_log::{self, Folding, LogFault, Reading, Share, Wanted};
use super::switch::{Stands, stands};
use crate::config::{Config, ViewRules, ViewSettings};
use crate::domain::build::BuildId;
use crate::domain::comparison::{Difference, Found};
use crate::domain::history::History;
use crate::domain::ledger::LedgerRow;
use crate::domain::meaning::StoredRules;
use crate::domain::units::Sequence;
use crate::engine::refold::{Refold, Until};
use crate::engine::view::{ChangedKey, KeyedRows, StoredDetails, WriteSet};
use crate::schemas::SchemaSource;
use crate::store::control::ControlStatements;
use crate::store::keyed_rows::{self, BuildRows, Table, tables};
use crate::store::ledger::{self, Commit, LedgerWriter};
use crate::store::meaning::MeantBuild;
use crate::store::progress::BuildSource;
use crate::store::rows::{Rows, Stored};
use crate::store::scratch::Keys;
use crate::store::standstill::Standstill;
use crate::store::{Connection, DbError, names, pool, progress};
use crate::telemetry::metrics::Metrics;

/// The place of the view's first further table among those of a key.
const DETAILS: usize = 1;

/// What became of a key in one build.
#[derive(Debug, Clone, PartialEq)]
pub enum Mended {
    /// There is nothing of it.
    Nothing,
    /// Its rows are what they should be: what was changed, from `old` to `new`.
    Rows {
        /// The last number that it has consumed.
        last_sequence: Sequence,
        /// What was changed.
        difference: Difference,
    },
    /// It cannot be told what they should be; nothing was changed.
    Impossible {
        /// A stable name.
        reason: &'static str,
        /// What is missing.
        detail: String,
    },
}

impl Mended {
    fn impossible(reason: &'static str, detail: impl Into<String>) -> Self {
        Mended::Impossible { reason, detail: detail.into() }
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// The log does not tell.
    #[error(transparent)]
    Log(#[from] LogFault),
    /// The settings are not those of a view.
    #[error("{0}")]
    Settings(String),
    /// Postgres did not do it.
    #[error(transparent)]
    Database(#[from] DbError),
}

impl From<BuildError> for MendError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Database(error) => MendError::Database(error),
            other => MendError::Settings(other.to_string()),
        }
    }
}

/// Mends the keys of one view, whatever its type.
#[derive(Clone)]
pub struct Mender(Arc<dyn Mends>);

trait Mends: Send + Sync {
    fn read<'m>(&'m self, key: &'m str) -> BoxFuture<'m, Result<Share, MendError>>;

    fn mend<'m>(
        &'m self,
        at: &'m Standstill<'_>,
        build: &'m MeantBuild,
        key: &'m str,
        log: Option<&'m mut Share>,
    ) -> BoxFuture<'m, Result<Mended, MendError>>;
}

impl Mender {
    /// For a view that `make` makes of what its settings say.
    pub fn new<V: Stored>(
        name: &'static str,
        make: impl Fn(&ViewRules) -> Result<V> + Send + Sync + 'static,
        (config, settings): (&Config, &ViewSettings),
        metrics: &Arc<Metrics>,
    ) -> Result<Self> {
        let rules = config.rules_of(settings);
        let schemas = SchemaSource::new(name, make(&rules)?.spec().avro, &config.schema_registry, Arc::clone(metrics))?;
        let (config, topic) = (config.clone(), settings.topic.clone());
        Ok(Mender(Arc::new(OfView { name, make, config, topic, rules, schemas })))
    }

    /// Reads what the log has of a key, to its present end.
    pub async fn read(&self, key: &str) -> Result<Share, MendError> {
        self.0.read(key).await
    }

    /// Mends the key in one build: from its ledger, or from what was read of the log, which is read on where that is needed.
    pub async fn mend(
        &self,
        at: &Standstill<'_>,
        build: &MeantBuild,
        key: &str,
        log: Option<&mut Share>,
    ) -> Result<Mended, MendError> {
        self.0.mend(at, build, key, log).await
    }
}

struct OfView<M> {
    name: &'static str,
    make: M,
    config: Config,
    topic: String,
    /// Those configured: of a build that has stored none.
    rules: ViewRules,
    schemas: SchemaSource,
}

impl<V: Stored, M: Fn(&ViewRules) -> Result<V> + Send + Sync> Mends for OfView<M> {
    fn read<'m>(&'m self, key: &'m str) -> BoxFuture<'m, Result<Share, MendError>> {
        Box::pin(async move {
            let client = pool::connect_operator(&self.config.database).await?;
            let active = progress::active_build(&client, self.name).await?;
            let Some(build) = active else { return Err(MendError::Settings("the view has no build".to_owned())) };
            let source = self.source(BuildId { view: self.name, build });
            let stands = stands(&client, source.id()).await?;
            let reading = self.reading(&client, &source, &stands).await?;
            drop(client);
            from_log::check(&self.config, source).await?;
            Ok(Share::read(&reading, Wanted::one(key)).await?)
        })
    }

    fn mend<'m>(
        &'m self,
        at: &'m Standstill<'_>,
        build: &'m MeantBuild,
        key: &'m str,
        log: Option<&'m mut Share>,
    ) -> BoxFuture<'m, Result<Mended, MendError>> {
        Box::pin(async move {
            let rules = match &build.meaning.rules {
                StoredRules::Known(rules) => rules,
                StoredRules::None => &self.rules,
                StoredRules::Unknown(why) => return Ok(Mended::impossible("rules_unknown", why)),
            };
            let view = (self.make)(rules).map_err(|error| MendError::Settings(error.to_string()))?;
            let (ours, theirs) = (view.spec().projection_version, build.meaning.projection_version);
            if ours != theirs {
                let detail = format!("the build is made by version {theirs} of the projection, this binary has {ours}");
                return Ok(Mended::impossible("projection_version_differs", detail));
            }
            let Some(keyed) = view.spec().tables.rows else {
                return Ok(Mended::impossible("not_mendable", "the view does not say which rows belong to a key"));
            };
            let source = self.source(BuildId { view: self.name, build: build.build });
            let history = if log.is_some() { rules.history } else { History::Off };
            let bench = Bench::prepare(&view, at, (source, rules, keyed, history), key).await?;
            match log {
                None => bench.by_ledger().await,
                Some(share) => self.by_log(&bench, share).await,
            }
        })
    }
}

impl<M> OfView<M> {
    fn source(&self, build: BuildId) -> BuildSource {
        BuildSource { view: build.view, build: build.build, topic: self.topic.clone() }
    }

    async fn reading(&self, client: &Connection, source: &BuildSource, stands: &Stands) -> Result<Reading, MendError> {
        Ok(Reading {
            kafka: self.config.kafka.clone(),
            topic: self.topic.clone(),
            memory: self.config.rebuild.memory_bytes,
            stop: CancellationToken::new(),
            skipped: from_log::skipped(client, source, stands).await?,
        })
    }

    async fn by_log<V: Stored>(&self, bench: &Bench<'_, V>, share: &mut Share) -> Result<Mended, MendError> {
        let (client, source, key) = (bench.client(), &bench.source, bench.key);
        let stands = stands(client, source.id()).await?;
        if share.is_behind(&stands) {
            // Nobody consumes anything now, so the end of the log is far enough. Little is left to read.
            let reading = self.reading(client, source, &stands).await?;
            *share = std::mem::take(share).read_on(&reading, &[key.to_owned()]).await?;
        }
        let control = ControlStatements::prepare(client).await?;
        let decisions = control.load_decisions(client, source, &[key]).await?;
        let overrules = from_log::overrules(client, source, &[key]).await?;
        let schemas = from_log::schemas_of(&self.schemas, (share, &stands, &decisions), &[key]).await?;
        let limits = from_log::limits(&self.config, bench.rules);
        let folding = Folding {
            view: bench.view,
            limits,
            share,
            stands: &stands,
            decisions: &decisions,
            overrules: &overrules,
            schemas: &schemas,
        };
        let plan = folding.fold(key);
        let entry = plan.keys.get(key).map(|work| &*work.entry);
        let folded = entry.and_then(|entry| Some((entry.last_sequence, entry.last_event_id.as_deref()?, &entry.state)));
        let has = bench.consumed().await?;
        let Some((last_sequence, last_event_id, state)) =
            folded.filter(|(last, ..)| has.is_none_or(|has| *last >= has))
        else {
            return Ok(match (has, share.lost_before(key)) {
                (None, None) => Mended::Nothing,
                (_, Some(where_from)) => {
                    let detail = format!("the log does not hold all events of `{key}` any more: {where_from}");
                    Mended::impossible("history_truncated", detail)
                }
                (Some(has), None) => {
                    let last =
                        folded.map_or_else(|| "no event".to_owned(), |(last, ..)| format!("its events up to {last}"));
                    let detail = format!("the log gives {last} of `{key}`, and its ledger has {has}");
                    Mended::impossible("log_differs", detail)
                }
            });
        };
        let changed = ChangedKey { key, base_sequence: None, last_sequence, last_event_id, state };
        let set = WriteSet { changed: vec![changed], details: &plan.details };
        let ledger = (bench.rules.history != History::Off).then_some((plan.ledger.as_slice(), &stands));
        bench.put(&set, ledger).await
    }
}

/// One key of one build, at a standstill.
struct Bench<'b, V: Stored> {
    view: &'b V,
    at: &'b Standstill<'b>,
    source: BuildSource,
    rules: &'b ViewRules,
    keyed: KeyedRows,
    key: &'b str,
    tables: Vec<Table>,
    reader: BuildRows,
}

impl<'b, V: Stored> Bench<'b, V> {
    async fn prepare(
        view: &'b V,
        at: &'b Standstill<'_>,
        (source, rules, keyed, history): (BuildSource, &'b ViewRules, KeyedRows, History),
        key: &'b str,
    ) -> Result<Self, MendError> {
        let tables = tables(&keyed, history);
        let reader = BuildRows::prepare(at.client(), source.id(), &keyed.of_key, &tables).await?;
        Ok(Bench { view, at, source, rules, keyed, key, tables, reader })
    }

    fn client(&self) -> &'b Connection {
        self.at.client()
    }

    /// The build's tables are meant from here on.
    async fn enter(&self) -> Result<(), DbError> {
        self.client().batch_execute(&format!("set local search_path = {}", names::search_path(self.source.id()))).await
    }

    /// How far the key is: by its ledger, or by its row where there is no ledger.
    async fn consumed(&self) -> Result<Option<Sequence>, DbError> {
        self.enter().await?;
        if self.rules.history != History::Off {
            let commits = ledger::commits_of(self.client(), self.key).await?;
            return Ok(commits.last_key_value().map(|(last, _)| *last));
        }
        self.stored().await
    }

    /// How far the key's row is.
    async fn stored(&self) -> Result<Option<Sequence>, DbError> {
        let prints = self.reader.some(self.client(), &[self.key]).await?;
        Ok(prints.first().map(|print| Sequence(print.sequence)))
    }

    async fn by_ledger(&self) -> Result<Mended, MendError> {
        let incomplete = |detail: String| Ok(Mended::impossible("history_incomplete", detail));
        let keys = Keys::prepare(self.client(), self.source.id(), &self.keyed.of_key).await?;
        let page = keys.ledger(self.client(), &[self.key]).await?;
        let (rows, stored) = (page.rows()?, self.stored().await?);
        let details: StoredDetails = match self.keyed.details {
            [] => StoredDetails::new(),
            _ => self.reader.rows_of(self.client(), DETAILS, self.key).await?,
        };
        let (mut refold, mut made) = (Refold::new(self.view, self.rules.first_sequence), Vec::new());
        for row in &rows {
            if let Err(why) = refold.take(row, Until::End, &details, &mut made) {
                return incomplete(why.to_string());
            }
        }
        let folded = match (refold.finish(), stored) {
            (None, None) => return Ok(Mended::Nothing),
            (None, Some(_)) => return incomplete(format!("the history holds nothing of `{}`", self.key)),
            (Some(folded), Some(stored)) if folded.last_sequence < stored => {
                let last = folded.last_sequence;
                return incomplete(format!("the history of `{}` ends at {last}, its row is at {stored}", self.key));
            }
            (Some(folded), _) => folded,
        };
        let changed = ChangedKey {
            key: self.key,
            base_sequence: None,
            last_sequence: folded.last_sequence,
            last_event_id: &folded.last_event_id,
            state: &folded.state,
        };
        self.put(&WriteSet { changed: vec![changed], details: &made }, None).await
    }

    /// Puts these rows in the place of those that are there, and the ledger's where it differs.
    async fn put(
        &self,
        set: &WriteSet<'_, '_, V>,
        ledger: Option<(&[LedgerRow<'_>], &Stands)>,
    ) -> Result<Mended, MendError> {
        let before = self.texts().await?;
        let writing = self.at.writing();
        self.enter().await?;
        keyed_rows::delete_key(writing, &self.keyed, self.key).await?;
        V::Rows::prepare(self.view, self.client()).await?.write(writing, set).await?;
        if let Some((rows, stands)) = ledger {
            self.amend(rows, stands).await?;
        }
        let after = self.texts().await?;
        let last_sequence = set.changed[0].last_sequence;
        Ok(Mended::Rows { last_sequence, difference: self.difference(&before, &after) })
    }

    /// Its rows, table by table.
    async fn texts(&self) -> Result<Vec<StoredDetails>, DbError> {
        let mut texts = Vec::new();
        for table in 0..self.tables.len() {
            texts.push(self.reader.rows_of(self.client(), table, self.key).await?);
        }
        Ok(texts)
    }

    fn difference(&self, before: &[StoredDetails], after: &[StoredDetails]) -> Difference {
        let mut difference = Difference::of(self.key);
        for (table, (before, after)) in self.tables.iter().zip(before.iter().zip(after)) {
            if table.shown_as.is_empty() {
                let row = |rows: &StoredDetails| rows.values().next().cloned().unwrap_or_default();
                difference.row(&row(before), &row(after));
                if before.is_empty() {
                    difference.found = Found::MissingOld;
                }
            } else {
                difference.rows(table.shown_as, before, after);
            }
        }
        difference
    }

    /// Puts the ledger right where it is not as `rows`. A row that was lost comes back with the commit of its neighbour: who
    /// follows changes is not told of it again.
    async fn amend(&self, rows: &[LedgerRow<'_>], stands: &Stands) -> Result<(), MendError> {
        self.enter().await?;
        let commits = ledger::commits_of(self.client(), self.key).await?;
        let keys = Keys::prepare(self.client(), self.source.id(), &self.keyed.of_key).await?;
        let page = keys.ledger(self.client(), &[self.key]).await?;
        let there: BTreeMap<Sequence, LedgerRow<'_>> =
            page.rows()?.into_iter().map(|row| (row.sequence, row)).collect();
        let is_wrong = |row: &&LedgerRow<'_>| there.get(&row.sequence).is_none_or(|there| !is_same(there, row));
        let wrong: Vec<LedgerRow<'_>> = rows.iter().filter(is_wrong).cloned().collect();
        let extra = there.keys().filter(|sequence| rows.iter().all(|row| row.sequence != **sequence));
        let gone: Vec<Sequence> = wrong.iter().map(|row| row.sequence).chain(extra.copied()).collect();
        self.enter().await?;
        ledger::delete(self.at.writing(), self.key, &gone).await?;
        let of_row = |row: &LedgerRow<'_>| {
            let neighbour = commits.range(row.sequence..).next().or_else(|| commits.range(..row.sequence).next_back());
            neighbour.map_or_else(
                || {
                    let number = stands.get(&row.origin.partition).map_or(0, |stand| stand.commits);
                    Commit { partition: row.origin.partition, number }
                },
                |(_, commit)| *commit,
            )
        };
        let wrong: Vec<_> = wrong.iter().map(|row| (of_row(row), row)).collect();
        LedgerWriter::prepare(self.client()).await?.write(self.at.writing(), &wrong).await?;
        Ok(())
    }
}

/// Whether two rows of the ledger say the same, wherever their records stood.
fn is_same(one: &LedgerRow<'_>, other: &LedgerRow<'_>) -> bool {
    one.event_id == other.event_id
        && one.event_type == other.event_type
        && one.occurred_at == other.occurred_at
        && one.effect == other.effect
        && one.payload == other.payload
}
