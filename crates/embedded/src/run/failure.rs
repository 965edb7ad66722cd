//! Why a query that runs has to end.

use datafusion::common::DataFusionError;
use datafusion::error::DataFusionError as Fault;

use crate::plan::grown::TooMuch;

/// Why a query has to end. Rows that are wrong are no such reason: they are refused alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// A stable word: `limit_exceeded`, `panicked`, `failed`.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
}

impl Failure {
    /// It passed a bound.
    pub(crate) fn limit(message: impl Into<String>) -> Failure {
        Failure { code: "limit_exceeded", message: message.into() }
    }

    /// A fault of the engine itself.
    pub(crate) fn panicked(what: &str) -> Failure {
        Failure { code: "panicked", message: format!("the engine met a fault of its own: {what}") }
    }

    pub(crate) fn of(error: &DataFusionError) -> Failure {
        if is_about_memory(error) {
            return Failure::limit(
                "the query needs more memory than it may have: group by fewer keys, take a smaller window, or use Flink",
            );
        }
        if let Some(too_much) = TooMuch::of(error) {
            return Failure::limit(too_much.to_string());
        }
        Failure { code: "failed", message: sentence(error) }
    }
}

/// Whether the pool had no room.
pub(crate) fn is_about_memory(error: &DataFusionError) -> bool {
    matches!(error.find_root(), Fault::ResourcesExhausted(_))
}

/// What a row did wrong, in one line.
pub(crate) fn sentence(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        Fault::ArrowError(error, _) => error.to_string(),
        other => other.message().into_owned(),
    };
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("Arrow error: ").unwrap_or(first);
    first.chars().take(300).collect()
}
