//! Answers of calls that are no decisions, kept by their idempotency key as those of decisions are. The call itself is not of
//! this transaction: whoever makes it has to find again by other means what it did before it was cut short.

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::DeskError;
use super::decide::replay;
use super::model::Spelled;
use super::rows::write;
use crate::store::Connection;

/// What a call is compared by: all that makes it what it is.
pub fn fingerprint(call: &impl Serialize) -> Vec<u8> {
    Sha256::digest(serde_json::to_vec(call).expect("calls are plain data")).to_vec()
}

/// The answer of an earlier call with this key; refused if that was another call.
pub async fn answered(client: &Connection, key: &str, fingerprint: &[u8]) -> Result<Option<Spelled>, DeskError> {
    replay(client, key, fingerprint).await
}

/// Keeps the answer. If somebody has made the same call meanwhile, theirs counts and is given.
pub async fn keep(
    client: &Connection,
    (key, fingerprint): (&str, &[u8]),
    answer: Spelled,
) -> Result<Spelled, DeskError> {
    write::begin(client).await?;
    if !write::claim(client, key, fingerprint).await?
        && let Some(theirs) = replay(client, key, fingerprint).await?
    {
        write::commit(client).await?;
        return Ok(theirs);
    }
    write::answer(client, key, &answer).await?;
    write::commit(client).await?;
    Ok(answer)
}
