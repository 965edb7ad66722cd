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
use crate::manager::definition::{Definition, Intent};
use crate::manager::engines::EngineKind;
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
    // As the name is stored: else what an earlier call has made would not be found under it.
    let new = NewDefinition { name: new.name.trim().to_owned(), ..new };
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
    let mut alike = found.filter(|other| is_twin(other, (&new.name, &new.sql_script, engine)));
    Ok(alike.next())
}

/// What is about to go is nobody's answer any more: its name is taken until it has gone.
fn is_twin(other: &Definition, new: (&str, &str, EngineKind)) -> bool {
    let is_there = other.revision == 1 && other.intent != Intent::Deleted;
    is_there && (other.name.as_str(), other.sql_script.as_str(), other.engine) == new
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::manager::engines::ObservedState;

    fn made(intent: Intent) -> Definition {
        Definition {
            id: "0193f0ab7c1d7e229d0a5b1f6f0c2a11".to_owned(),
            name: "orders".to_owned(),
            engine: EngineKind::Flink,
            version: 1,
            revision: 1,
            sql_script: "SELECT 1".to_owned(),
            owner: "ada".to_owned(),
            intent,
            observed: ObservedState::Absent,
            engine_state: None,
            observed_at: None,
            is_active: false,
            attempt: 0,
            deployed_revision: None,
            previous_revision: None,
            failed_revision: None,
            job_id: None,
            stream_name: String::new(),
            output_topic: String::new(),
            step: None,
            restore_point: None,
            drift: None,
            last_error: None,
            retry_at: None,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_an_earlier_call_has_made_is_the_same_and_is_not_about_to_go() {
        let new = ("orders", "SELECT 1", EngineKind::Flink);
        for (intent, is) in [(Intent::Draft, true), (Intent::Running, true), (Intent::Deleted, false)] {
            assert_eq!(is_twin(&made(intent), new), is, "{intent:?}");
        }
        assert!(!is_twin(&Definition { revision: 2, ..made(Intent::Draft) }, new));
        for other in [("order", new.1, new.2), (new.0, "SELECT 2", new.2), (new.0, new.1, EngineKind::Ksqldb)] {
            assert!(!is_twin(&made(Intent::Draft), other), "{other:?}");
        }
    }
}
