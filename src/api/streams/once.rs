//! `Idempotency-Key` of the call that makes a stream. Others may be made again as they are: what they want is the same then.
//!
//! The answer is kept after the stream is made. Where the process ends in between, the name tells: no two streams have the same,
//! so what is found under it, with the same text, engine and owner, was made by the earlier call.

use actix_web::HttpRequest;
use serde_json::Value;

use super::bodies::StreamBody;
use crate::api::Api;
use crate::api::idempotency;
use crate::api::problem::Problem;
use crate::manager::definition::Definition;
use crate::manager::manager::{Filter, NewDefinition};
use crate::manager::{Fault, Manager};
use crate::repair::model::Spelled;
use crate::repair::once::{answered, fingerprint, keep};
use crate::store::Connection;
use crate::store::pool;
use crate::store::read::ReadError;

/// Longest key, in characters.
const MAX_KEY_CHARS: usize = 255;
const CREATED: i32 = 201;

/// What became of the call.
pub(super) enum Made {
    /// The stream is new.
    Now(Box<Definition>),
    /// An earlier call has made it; its answer.
    Before(Value),
}

/// Makes the stream, once for each key.
pub(super) async fn create(
    (api, manager): (&Api, &Manager),
    request: &HttpRequest,
    new: NewDefinition,
    actor: &str,
) -> Result<Made, Problem> {
    let Some(key) = idempotency::key_of(request, MAX_KEY_CHARS)? else {
        return Ok(Made::Now(Box::new(manager.create(new, actor).await?)));
    };
    let engine = new.engine.map(|engine| engine.name());
    let print = fingerprint(&("POST /api/streams", actor, &new.name, &new.sql_script, engine));
    let client: Box<Connection> = Box::new(pool::connect_operator(&api.state.database).await.map_err(ReadError::from)?);
    if let Some(before) = answered(&client, &key, &print).await? {
        return Ok(Made::Before(before.body));
    }
    let (definition, is_new) = match manager.create(new.clone(), actor).await {
        Ok(definition) => (definition, true),
        Err(Fault::NameTaken(name)) => match twin(manager, &new, actor).await? {
            Some(twin) => (twin, false),
            None => return Err(Fault::NameTaken(name).into()),
        },
        Err(fault) => return Err(fault.into()),
    };
    let body = serde_json::to_value(StreamBody::from(definition.clone())).expect("a stream is plain data");
    let kept = keep(&client, (&key, &print), Spelled { code: CREATED, body }).await?;
    Ok(if is_new { Made::Now(Box::new(definition)) } else { Made::Before(kept.body) })
}

/// The stream that an earlier call of the same has made.
async fn twin(manager: &Manager, new: &NewDefinition, actor: &str) -> Result<Option<Definition>, Fault> {
    let filter = Filter { name_contains: Some(new.name.clone()), owner: Some(actor.to_owned()), ..Filter::default() };
    let engine = new.engine.unwrap_or(manager.settings().default_engine);
    let found = manager.list(&filter, None, 1_000).await?.definitions.into_iter();
    let mut alike = found.filter(|other| {
        (&other.name, &other.sql_script, other.engine, other.revision) == (&new.name, &new.sql_script, engine, 1)
    });
    Ok(alike.next())
}
