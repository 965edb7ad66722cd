//! What an error of Postgres means for a batch: whose fault it is, and what to do.

use std::error::Error;

use tokio_postgres::error::SqlState;

use crate::domain::word::UnknownWord;
use crate::failure::Failure;
use crate::store::DbError;
use crate::store::read::ReadError;
use crate::store::wire;

/// Classifies an error of a statement.
///
/// | SQLSTATE | meaning | failure |
/// |---|---|---|
/// | none (connection lost, refused, timed out) | infrastructure | retry |
/// | none (a column holds a word that we do not know) | another version wrote it | halt |
/// | 08, 40, 53, 57, 58, 55P03, 25P03, 25P04, XX000 | infrastructure | retry |
/// | 25P02 | another statement sent beside it has failed, whose error was not seen first | retry: it may be then |
/// | 25006 | the session may only read | retry over another connection |
/// | 57014 (statement timeout) | too much at once | smaller batch |
/// | 22, 54 | the record cannot be held | record |
/// | 23505 on `event_id_constraint` | an event id is used twice | record (reused id) |
/// | other 23505 | another writer was faster | stale |
/// | other 23 | the record cannot be held | record |
/// | 26000, 42P05 | the session is shared with others | halt |
/// | 42501, 28, 3D, 42, the rest | permissions or schema | halt |
pub fn classify(error: DbError, event_id_constraint: Option<&str>) -> Failure {
    sort(&error, event_id_constraint)
}

/// Likewise, of what was read or decided through the pools.
pub fn classify_read(error: &ReadError) -> Failure {
    match error {
        ReadError::Failed(error) | ReadError::ReadOnly(error) => sort(error, None),
        other => Failure::Retry(describe_read(other)),
    }
}

/// Whether the same read may well succeed later, without anybody's doing.
pub fn passes_by_itself(error: &ReadError) -> bool {
    let failure = classify_read(error);
    let is_passing = matches!(failure, Failure::Retry(_) | Failure::ReadOnly(_) | Failure::TooMuch(_));
    is_passing && !matches!(error, ReadError::Unreadable(_))
}

fn sort(error: &DbError, event_id_constraint: Option<&str>) -> Failure {
    let Some(db) = error.as_db_error() else {
        if let Some(word) = error.source().and_then(|cause| cause.downcast_ref::<UnknownWord>()) {
            return unknown_word(word);
        }
        let infrastructure = error.is_closed() || error_is_io(error) || wire::is_of_tls(error);
        return if infrastructure { Failure::Retry(describe(error)) } else { internal(error) };
    };
    let code = db.code().code();
    let detail = format!("{} (SQLSTATE {code})", db.message());
    match code {
        "57014" => Failure::TooMuch(detail),
        "55P03" | "25P02" | "25P03" | "25P04" | "XX000" => Failure::Retry(detail),
        "25006" => Failure::ReadOnly(detail),
        "23505" if db.constraint().is_some() && db.constraint() == event_id_constraint => {
            Failure::ReusedEventId { detail, event_ids: Vec::new() }
        }
        "23505" => Failure::Stale,
        "26000" | "42P05" => Failure::halt(
            "transaction_pooling",
            format!("a statement that was prepared is not there, or was there already: {detail}"),
            "connect to Postgres directly, or through a pooler in session mode, then restart",
        ),
        "42501" => Failure::halt(
            "permission_denied",
            detail,
            "grant the role of database.url the rights of the writer (`streamview migrate --roles`, docs/security.md), then restart",
        ),
        _ => match code.get(..2) {
            Some("08" | "40" | "53" | "57" | "58") => Failure::Retry(detail),
            Some("22" | "23" | "54") => Failure::Record(detail),
            Some("28" | "3D") => Failure::halt("database_login_refused", detail, "correct database.url, then restart"),
            _ => Failure::halt(
                "schema_mismatch",
                detail,
                "run `streamview migrate` with this version of the binary, then restart",
            ),
        },
    }
}

fn error_is_io(error: &DbError) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() {
            return true;
        }
        source = cause.source();
    }
    // Connection time-outs carry no cause.
    error.to_string().contains("timed out") || error.to_string().contains("timeout")
}

fn internal(error: &DbError) -> Failure {
    Failure::halt("internal_error", describe(error), "this is a bug: report it with the log, then restart")
}

fn unknown_word(word: &UnknownWord) -> Failure {
    Failure::halt(
        "unknown_word",
        word.to_string(),
        "start the version of the binary that wrote it, or correct the row, then restart",
    )
}

/// What a failed read says, in the words of its cause.
pub fn describe_read(error: &ReadError) -> String {
    match error {
        ReadError::Failed(cause) if cause.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let advice = "the role of database.read_url, or of database.url, lacks a right; `streamview migrate --roles` grants it";
            format!("{}; {advice}", describe(cause))
        }
        ReadError::Failed(cause)
        | ReadError::Timeout(cause)
        | ReadError::Displaced(cause)
        | ReadError::ReadOnly(cause) => describe(cause),
        ReadError::Unavailable(Some(cause)) => cause.downcast_ref().map_or_else(|| cause.to_string(), describe),
        ReadError::Unavailable(None) | ReadError::Busy | ReadError::Unreadable(_) => error.to_string(),
    }
}

/// Whether a lock was not had in time, or a deadlock was lost: worth another attempt.
pub fn is_lost_lock(error: &DbError) -> bool {
    matches!(error.code().map(|code| code.code()), Some("55P03" | "40P01"))
}

/// Whether it is the rows themselves that Postgres does not take: their values, or one beside another.
pub fn refuses_rows(error: &DbError) -> bool {
    error.code().is_some_and(|state| matches!(state.code().get(..2), Some("22" | "23" | "54")))
}

/// Whether Postgres does not let us in, or not into that database, or either side does not trust the other.
pub fn is_login(error: &ReadError) -> bool {
    let ReadError::Unavailable(Some(cause)) = error else { return false };
    let Some(error) = cause.downcast_ref::<DbError>() else { return false };
    wire::is_of_tls(error) || error.code().is_some_and(|state| matches!(state.code().get(..2), Some("28" | "3D")))
}

/// A chain of causes in one line. What Postgres said stands there in its own words, and ends it; nothing is said twice.
pub fn describe_chain<'e>(chain: impl IntoIterator<Item = &'e (dyn Error + 'static)>) -> String {
    let mut text = String::new();
    for cause in chain {
        let database = cause.downcast_ref().map(describe).or_else(|| cause.downcast_ref().map(describe_read));
        let is_last = database.is_some();
        let words = database.unwrap_or_else(|| cause.to_string());
        if !text.ends_with(&words) {
            let colon = if text.is_empty() { "" } else { ": " };
            text = format!("{text}{colon}{words}");
        }
        if is_last {
            break;
        }
    }
    text
}

/// The message with its cause, without addresses or statements, and with what to do where the wire is the cause.
pub fn describe(error: &DbError) -> String {
    let words = match (error.as_db_error(), error.source()) {
        (Some(db), _) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    };
    match wire::advice(error) {
        Some(advice) => format!("{words}; {advice}"),
        None => words,
    }
}
