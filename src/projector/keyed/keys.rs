//! Where the entries of keys live between batches.

use std::future::Future;

use tokio_util::sync::CancellationToken;

use crate::domain::units::Partition;
use crate::engine::plan::{ByKey, KeyEntry, Work};
use crate::failure::{Failure, Halt};
use crate::projector::applier::Partitions;
use crate::projector::context::ViewContext;
use crate::projector::keyed::loading::Loading;
use crate::projector::keyed::session::Session;
use crate::status::Pause;
use crate::store::control::DecisionsByKey;
use crate::store::rows::Stored;

/// The entries of a batch's keys.
pub type Entries<'a, S> = ByKey<'a, Box<KeyEntry<S>>>;

/// The memory of a keyed applier. What is taken out and not put back was not committed.
pub trait Keys<V: Stored>: Send + Sync + 'static {
    /// Whether rows of keys are written with each batch; if not, all at once by [`Keys::finish`].
    const WRITES_WITH_EACH_BATCH: bool;
    /// Whether what was folded is kept although nothing of it had to be written.
    const KEEPS_UNWRITTEN: bool;
    /// Whether what is forgotten can be had again from Postgres.
    const RELOADS: bool;

    /// Takes the entry of a key out, if there is one that counts. `to_heal`: somebody else may have moved the key.
    fn take(&mut self, key: &str, owned: &Partitions, to_heal: bool) -> Option<Box<KeyEntry<V::State>>>;

    /// Adds the entries of the keys that [`Keys::take`] did not have, and gives what was decided about keys.
    fn load<'a>(
        &self,
        loading: &Loading<'_, V>,
        missing: &[&'a str],
        entries: &mut Entries<'a, V::State>,
    ) -> impl Future<Output = Result<DecisionsByKey, Failure>> + Send;

    /// Keeps a key as it was committed; `bytes` is what its state holds, the place its partition and generation.
    fn put(&mut self, key: &str, work: Work<'_, V::State>, bytes: usize, place: (Partition, u64));

    /// Nothing has come for a while: gives memory back, as far as it can be had again.
    fn rest(&mut self) {}

    /// Bytes held, roughly.
    fn bytes(&self) -> usize;

    /// Forgets everything.
    fn forget(&mut self);

    /// A partition is opened; a halt where that must not happen again.
    fn opened(&mut self, _partition: Partition) -> Result<(), Halt> {
        Ok(())
    }

    /// Whether what it holds is still true after that failure.
    fn survives(&self, _failure: &Failure) -> Result<(), Halt> {
        Ok(())
    }

    /// Whether a partition can be let go, to be taken over again later.
    fn may_let_go(&self, _partition: Partition, _pause: &Pause) -> Result<(), Halt> {
        Ok(())
    }

    /// Cancelled when no more records are wanted.
    fn enough(&self) -> CancellationToken {
        CancellationToken::new()
    }

    /// Writes what is held and was not written.
    fn finish(
        &mut self,
        _session: Option<&Session<V>>,
        _context: &ViewContext,
        _owned: &Partitions,
    ) -> impl Future<Output = Result<(), Halt>> + Send {
        async { Ok(()) }
    }
}
