//! Sees to it, at each takeover, that a build is made by one meaning only: who has started with other rules than are stored
//! by now does not go on.

use crate::domain::meaning::in_words;
use crate::failure::Failure;
use crate::projector::context::ViewContext;
use crate::store::sqlstate::classify;
use crate::store::{Connection, meaning};

/// Fails if the build has other rules than this process goes by. They change only while no row has a meaning, so this
/// process has written none.
pub async fn confirm(client: &Connection, context: &ViewContext) -> Result<(), Failure> {
    let build = context.source.id();
    let stored = meaning::meaning_of(client, build).await.map_err(|error| classify(error, None))?;
    let Some(stored) = stored else { return Ok(()) };
    let differences = stored.or(&context.meaning).differences(&context.meaning);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::halt(
        "rules_changed",
        format!("{build} has had other rules since this process started. {}", in_words(&differences)),
        "give all instances the same settings, then restart this one: it goes by the rules of the build",
    ))
}
