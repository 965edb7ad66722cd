//! Compares keys that are written faster than two builds keep abreast, so that they are never seen equally far in both. What
//! the old build has stored of such a key is held against what the ledger of the new one gives up to the same number: by the
//! projection and the rules that the new build is made by, that is what its rows were then. Writes nothing but temporary
//! tables of its own session.
//!
//! The new build must not be behind; the caller has the old one stand still until this has its snapshot.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::BuildError;
use super::compare::Readers;
use super::verify::{ByLedger, Ends, VerifyError, close, open};
use crate::config::DatabaseSettings;
use crate::domain::build::BuildId;
use crate::domain::comparison::{Difference, LAST_SEQUENCE};
use crate::domain::history::History;
use crate::domain::units::Sequence;
use crate::domain::verification::Looked;
use crate::engine::view::KeyedRows;
use crate::store::keyed_rows::{BuildRows, Place, tables};
use crate::store::rows::Stored;
use crate::store::{Connection, DbError, names, pool, scratch};

/// Keys that are folded together.
const KEYS_AT_ONCE: usize = 50;

/// Keys that move in both of these builds.
#[derive(Debug, Clone)]
pub struct Moving {
    /// Whose rows are compared.
    pub old: BuildId,
    /// Whose ledger is folded.
    pub new: BuildId,
    /// The number of its keys' first events.
    pub first_sequence: Sequence,
    /// What both keep of events: as far as that goes the ledgers are compared, too.
    pub history: History,
    /// The keys.
    pub keys: Vec<String>,
}

/// Judges them, in their order: what differs, nothing for a key that is equal; `None` for one of which the new build's ledger
/// does not tell, or which is not there or not as far. `opened` is told when whatever is read is of one moment.
pub async fn judge<V: Stored>(
    view: &V,
    settings: &DatabaseSettings,
    moving: &Moving,
    opened: oneshot::Sender<()>,
) -> Result<Vec<Option<Difference>>, VerifyError> {
    let client = pool::connect_writer(settings, &names::search_path(moving.new)).await?;
    let keyed = view.spec().tables.rows.ok_or(VerifyError::Undeclared(view.spec().name))?;
    let by_ledger = ByLedger::prepare(view, &client, (moving.new, moving.old), moving.first_sequence).await?;
    let ledgers = ledgers(&client, moving, &keyed).await?;
    open(&client).await?;
    let judged = judge_inside(&client, (&by_ledger, ledgers), moving, opened).await;
    close(&client, judged.map_err(Into::into)).await
}

/// Readers of both ledgers, if both builds have one.
async fn ledgers(client: &Connection, moving: &Moving, keyed: &KeyedRows) -> Result<Option<Readers>, BuildError> {
    if moving.history == History::Off {
        return Ok(None);
    }
    let tables = tables(keyed, moving.history);
    client.batch_execute("begin").await?;
    let prepared = async {
        let prepare = async |build| {
            let (search_path, schema) = (scratch::search_path_of(build), names::schema(build));
            BuildRows::prepare_in(client, (&search_path, &schema), &keyed.of_key, &tables).await
        };
        Ok::<_, BuildError>((prepare(moving.old).await?, prepare(moving.new).await?))
    };
    let prepared = prepared.await;
    let (old, new) = super::end(client, prepared).await?;
    Ok(Some(Readers { old, new, tables }))
}

async fn judge_inside<V: Stored>(
    client: &Connection,
    (by_ledger, ledgers): (&ByLedger<'_, V>, Option<Readers>),
    moving: &Moving,
    opened: oneshot::Sender<()>,
) -> Result<Vec<Option<Difference>>, DbError> {
    // The first statement makes the snapshot.
    client.query_one("select count(*) from view_builds", &[]).await?;
    // Who has gone away waits for nothing.
    opened.send(()).ok();
    let mut judged = BTreeMap::new();
    for keys in moving.keys.chunks(KEYS_AT_ONCE) {
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        let stored = by_ledger.readers.old.some(client, &names).await?;
        let ends: Ends = stored.into_iter().map(|print| (print.key, Sequence(print.sequence))).collect();
        let there: Vec<String> = ends.keys().cloned().collect();
        // In the order of their keys, as `look_into` has it.
        let looked = by_ledger.look(client, &there, &ends).await?;
        let mut differences: Vec<Difference> = looked.into_iter().filter_map(told).collect();
        if let Some(ledgers) = &ledgers {
            let asked: Vec<String> = differences.iter().map(|difference| difference.key.clone()).collect();
            let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
            let is_meant = |place: &Place| ends.get(&place.0).is_some_and(|end| place.1 <= end.0);
            let ledger = (ledgers.tables.len() - 1, &is_meant as &(dyn Fn(&Place) -> bool + Sync));
            ledgers.look_into(client, ledger, &asked, &mut differences).await?;
        }
        judged.extend(differences.into_iter().map(|difference| (difference.key.clone(), difference)));
    }
    Ok(moving.keys.iter().map(|key| judged.remove(key)).collect())
}

/// What was found of a key whose ledger tells, up to where the old build is.
fn told((key, looked): (String, Looked)) -> Option<Difference> {
    match looked {
        Looked::Equal => Some(Difference::of(&key)),
        Looked::Different(difference) if difference.columns.contains_key(LAST_SEQUENCE) => None,
        Looked::Different(difference) => Some(difference),
        Looked::Nowhere | Looked::Untold(_) | Looked::Aside(_) => None,
    }
}
