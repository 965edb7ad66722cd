//! Problems of the stream manager, and which of them each of its faults is.

use actix_web::http::StatusCode;

use super::bodies::{PlanBody, shown_id};
use crate::api::problem::{self, Code, Problem, codes};
use crate::auth::role::Role;
use crate::manager::Fault;
use crate::manager::ports::PortError;
use crate::manager::store::StoreError;

/// Seconds after which who cannot be reached may be asked again.
const RETRY_AFTER: u32 = 5;

codes! {
    MANAGER_NOT_ENABLED = "manager_not_enabled" NOT_FOUND "There is no stream manager here"
        "Streams are defined and queried where `manager.enabled` is set, by processes that serve reads. This one does not."
        "Ask another instance. Operators: set `manager.enabled = true`; it needs an engine, the one in this program (`embedded-engine`), \
         `flink.gateway_url` or `ksqldb.url`.";
    STREAM_NOT_FOUND = "stream_not_found" NOT_FOUND "There is no such stream"
        "No stream has this id: it never was, or it is deleted."
        "`GET /api/streams` lists them.";
    SOURCE_NOT_FOUND = "source_not_found" NOT_FOUND "There is no such source"
        "Nobody has declared a source of this name. What engines and the schema registry say is there cannot be taken back here."
        "`GET /api/catalog` lists all sources and says where each comes from.";
    ORPHAN_NOT_FOUND = "orphan_not_found" NOT_FOUND "There is no such orphan"
        "Nothing of this kind and id is an orphan: it is gone, or a stream names it."
        "`GET /api/orphans` lists them.";
    NAME_TAKEN = "name_taken" CONFLICT "Another stream has this name"
        "No two streams have the same name; upper and lower case make no difference."
        "Choose another name, or change the stream that has it: `GET /api/streams?name=…`.";
    NOT_POSSIBLE_NOW = "not_possible_now" CONFLICT "That cannot be asked of the stream as it is"
        "What is asked for does not follow from what is wanted of the stream now, say a pause of something that was never deployed."
        "`state` says what is wanted now, `allowed` what may be asked for.";
    WOULD_LOSE_STATE = "would_lose_state" CONFLICT "The state would be lost"
        "It could be done, but what has been counted and joined so far would be thrown away, and the topic would get rows a second time. Nothing was changed."
        "`plan` says what would happen and which clauses differ. Repeat with `acceptStateLoss: true` if that is meant.";
    STATEMENT_REFUSED = "statement_refused" UNPROCESSABLE_ENTITY "The statement is refused"
        "The statement is no single SELECT that is allowed here, or the engine does not take it. Nothing was changed."
        "`statementErrors` has each reason with line and column. `POST /api/validate` judges a statement without storing it.";
    STREAM_LIMIT_REACHED = "stream_limit_reached" CONFLICT "As many streams are deployed, or written down, as may be"
        "`setting` allows no more. As deployed counts neither what is stopped nor what failed to start; as written down, every draft counts."
        "Stop a stream, or delete one if as many are written down as may be, or ask an operator to raise the limit.";
    VERSION_CHANGED = "version_changed" PRECONDITION_FAILED "Somebody has changed it since"
        "`If-Match` names another version than the stream or the source has by now, or what is declared already was to be new (`If-None-Match: *`). Nothing was changed."
        "Read it again, look at what has changed, and repeat with its `ETag`.";
    ENGINE_NOT_CONFIGURED = "engine_not_configured" CONFLICT "The engine is not configured"
        "The stream runs on an engine that this service has no address of."
        "`GET /api/engines` lists the engines. Operators: `detail` names the settings.";
    ENGINE_UNAVAILABLE = "engine_unavailable" SERVICE_UNAVAILABLE "The engine does not answer"
        "What is asked needs the engine, and it cannot be reached, or gave no answer in time. Nothing was changed."
        "Repeat after `Retry-After` seconds; `GET /api/engines` says which engines answer.";
    ENGINE_BUSY = "engine_busy" SERVICE_UNAVAILABLE "The engine has no room"
        "A limit of the engine itself is reached, such as its number of queries or slots. Nothing was changed."
        "Repeat after `Retry-After` seconds, or stop something.";
    BROKERS_UNAVAILABLE = "brokers_unavailable" SERVICE_UNAVAILABLE "Kafka or the schema registry does not answer"
        "What is asked needs topics or schemas, and they cannot be asked now."
        "Repeat after `Retry-After` seconds; `detail` says who does not answer.";
    BROKERS_REFUSE = "brokers_refuse" CONFLICT "Kafka or the schema registry does not allow it"
        "The brokers or the registry say no and would say so again: rights are missing, or a topic is not as it has to be."
        "See `detail`. Operators: `streamview doctor` tells which rights there are.";
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let words = sentence(&fault.to_string());
        match fault {
            Fault::NotFound { what, .. } => Problem::new(not_found(what), words),
            Fault::NameTaken(name) => Problem::new(&NAME_TAKEN, words).parameter("name", &name, "is taken"),
            Fault::Conflict { state, allowed, .. } => {
                let allowed: Vec<&str> = allowed.iter().map(|action| action.word()).collect();
                Problem::new(&NOT_POSSIBLE_NOW, words).with("state", state).with("allowed", allowed)
            }
            Fault::WouldLoseState(plan) => Problem::new(&WOULD_LOSE_STATE, words).with("plan", PlanBody::from(*plan)),
            Fault::Refused(refusals) => Problem::new(&STATEMENT_REFUSED, words).with("statementErrors", refusals),
            Fault::AsksForOperator(_) => {
                Problem::new(&problem::ROLE_MISSING, words).with("requiredRole", Role::Operator.as_str())
            }
            Fault::Invalid { field, problem } => {
                Problem::new(&problem::INVALID_BODY, words).parameter(field, "", &problem)
            }
            Fault::LimitReached { setting, most, in_use, .. } => Problem::new(&STREAM_LIMIT_REACHED, words)
                .with("setting", format!("manager.limits.{setting}"))
                .with("limit", most)
                .with("inUse", in_use),
            Fault::PreconditionFailed { current, .. } => Problem::new(&VERSION_CHANGED, words)
                .with("currentVersion", current.version)
                .with("streamId", shown_id(&current.id)),
            Fault::SourceChanged { name, current, .. } => {
                Problem::new(&VERSION_CHANGED, words).with("currentVersion", current).with("source", name)
            }
            Fault::EngineNotConfigured { .. } => Problem::new(&ENGINE_NOT_CONFIGURED, words),
            Fault::EngineUnavailable { .. } => Problem::new(&ENGINE_UNAVAILABLE, words).retry_after(RETRY_AFTER),
            Fault::EngineBusy { retry_after, .. } => {
                let seconds = retry_after.and_then(|after| u32::try_from(after.as_secs().max(1)).ok());
                Problem::new(&ENGINE_BUSY, words).retry_after(seconds.unwrap_or(RETRY_AFTER))
            }
            Fault::Port(PortError::Unavailable(_)) => {
                Problem::new(&BROKERS_UNAVAILABLE, words).retry_after(RETRY_AFTER)
            }
            Fault::Port(PortError::Refused(_) | PortError::NoTopic(_)) => Problem::new(&BROKERS_REFUSE, words),
            Fault::Store(error) => of_store(&error),
        }
    }
}

fn not_found(what: &str) -> &'static Code {
    match what {
        "source" => &SOURCE_NOT_FOUND,
        "orphan" => &ORPHAN_NOT_FOUND,
        _ => &STREAM_NOT_FOUND,
    }
}

fn of_store(error: &StoreError) -> Problem {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(error = %error, "the stream manager cannot ask the database");
            Problem::new(&problem::DATABASE_UNAVAILABLE, "The database does not answer").retry_after(1)
        }
        StoreError::Taken(_) => Problem::new(&NAME_TAKEN, sentence(&error.to_string())),
        StoreError::Failed(cause) => {
            tracing::error!(error = %error, cause = %cause, "a statement of the stream manager failed");
            Problem::new(&problem::INTERNAL_ERROR, "The request could not be answered")
        }
        StoreError::Strange { .. } => {
            tracing::error!(error = %error, "the stream manager does not know what is stored");
            Problem::new(&problem::INTERNAL_ERROR, "Another version of this service has written what is stored")
        }
    }
}

/// With a capital, as details are written.
pub(in crate::api) fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
