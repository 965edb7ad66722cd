//! The bodies of calls that decide, as documented. They are read by [`crate::api::body::Body`], which names every fault.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Skip missing numbers of a held key.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = SkipHeldBody)]
pub(super) struct SkipHeldBody {
    /// Why the key can do without these events.
    #[schema(
        min_length = 1,
        max_length = 500,
        pattern = "\\S",
        example = "lost by the producer, confirmed in OPS-123"
    )]
    reason: String,
    /// Who decides, `anonymous` if left out; where callers log in, for whom: `onBehalfOf` has it then.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false, example = "night shift")]
    actor: Option<String>,
    /// First number to skip; the one it waits for if left out.
    #[schema(minimum = 0, maximum = 999_999_999_999_999_999_i64, nullable = false)]
    from: Option<i64>,
    /// Last number to skip; `from` if left out, or everything that is missing if `from` is left out too.
    #[schema(minimum = 0, maximum = 999_999_999_999_999_999_i64, nullable = false)]
    to: Option<i64>,
}

/// Answer a dead letter without giving anything new.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ReasonBody)]
pub(super) struct ReasonBody {
    /// Why.
    #[schema(min_length = 1, max_length = 500, pattern = "\\S", example = "test data")]
    reason: String,
    /// Who decides, `anonymous` if left out; where callers log in, for whom: `onBehalfOf` has it then.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false)]
    actor: Option<String>,
}

/// Replace a dead letter.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ReplaceBody)]
pub(super) struct ReplaceBody {
    /// What was wrong with it.
    #[schema(min_length = 1, max_length = 500, pattern = "\\S", example = "price was sent as text")]
    reason: String,
    /// Who decides, `anonymous` if left out; where callers log in, for whom: `onBehalfOf` has it then.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false)]
    actor: Option<String>,
    /// The corrected event: an object, taken digit by digit as it is written, or a string that holds the text.
    payload: Value,
    /// Headers to set, or to take away with null; all others stay as they were.
    #[schema(nullable = false)]
    headers: Option<BTreeMap<String, Option<String>>>,
    /// The key; needed where the letter has none, and only there.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false)]
    key: Option<String>,
    /// The number; needed where the letter has none, and only there.
    #[schema(minimum = 0, maximum = 999_999_999_999_999_999_i64, nullable = false)]
    sequence: Option<i64>,
    /// Sets the header `x-event-type`.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false)]
    event_type: Option<String>,
    /// Sets the header `x-event-version`.
    #[schema(minimum = 1, maximum = 4_294_967_295_i64, nullable = false)]
    event_version: Option<i64>,
}

/// Which held keys. Left out: any.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = HeldFilter)]
pub(super) struct HeldFilterBody {
    /// Held for any of these reasons.
    #[schema(nullable = false)]
    reason: Option<Vec<HeldReason>>,
    /// Exactly this key.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false)]
    key: Option<String>,
    /// Held for at least so long: seconds, or an ISO 8601 duration such as PT15M.
    #[schema(nullable = false, pattern = "^([0-9]{1,9}|P.+)$", example = "PT15M")]
    older_than: Option<String>,
    /// Held for less than so long.
    #[schema(nullable = false, pattern = "^([0-9]{1,9}|P.+)$", example = "P1D")]
    newer_than: Option<String>,
    /// Only gaps whose missing event is known not to be in the log (true), or only others (false).
    #[schema(nullable = false)]
    proven: Option<bool>,
}

/// Why a key is held.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "documentation")]
pub(super) enum HeldReason {
    /// An event has not arrived.
    Gap,
    /// It arrived and could not be read.
    Poison,
    /// It carries the id of another key's latest event.
    EventIdReused,
    /// Its number is taken by another event.
    Conflict,
}

/// Which dead letters. Left out: any; but without `status` open ones only.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = DeadLetterFilter)]
pub(super) struct LetterFilterBody {
    /// In any of these states.
    #[schema(nullable = false)]
    status: Option<Vec<LetterStatus>>,
    /// Refused for any of these reasons.
    #[schema(nullable = false, max_items = 20)]
    reason: Option<Vec<String>>,
    /// Of exactly this key.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false)]
    key: Option<String>,
    /// Of exactly this topic.
    #[schema(min_length = 1, max_length = 249, pattern = "\\S", nullable = false)]
    topic: Option<String>,
    /// Refused at least so long ago: seconds, or an ISO 8601 duration such as PT15M.
    #[schema(nullable = false, pattern = "^([0-9]{1,9}|P.+)$", example = "PT15M")]
    older_than: Option<String>,
    /// Refused less than so long ago.
    #[schema(nullable = false, pattern = "^([0-9]{1,9}|P.+)$", example = "P1D")]
    newer_than: Option<String>,
}

/// State of a dead letter; `all` for any.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "documentation")]
pub(super) enum LetterStatus {
    /// Nothing is decided.
    Open,
    /// Decided, not folded yet.
    Deciding,
    /// The view goes on without it.
    Skipped,
    /// The view goes on with a corrected payload.
    Replaced,
    /// The view goes on with it as it was.
    Redriven,
    /// The decision could not be followed.
    Refused,
    /// Any of them.
    All,
}

/// Skip what every matching key waits for.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = HeldBulkBody)]
pub(super) struct HeldBulkBody {
    /// Which; `{}` for all.
    filter: HeldFilterBody,
    /// Why.
    #[schema(min_length = 1, max_length = 500, pattern = "\\S")]
    reason: String,
    /// Who decides, `anonymous` if left out; where callers log in, for whom: `onBehalfOf` has it then.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false)]
    actor: Option<String>,
    /// Look at so many at most, those that have waited longest.
    #[schema(minimum = 1, maximum = 100_000, default = 10_000, nullable = false)]
    limit: Option<i64>,
    /// The `matched` of the same call with `dry_run=true`; needed without `dry_run`.
    #[schema(minimum = 0, maximum = 100_000, nullable = false)]
    expect: Option<i64>,
}

/// Answer every matching dead letter.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = DeadLetterBulkBody)]
pub(super) struct LetterBulkBody {
    /// Which; `{}` for all that are open.
    filter: LetterFilterBody,
    /// Why.
    #[schema(min_length = 1, max_length = 500, pattern = "\\S")]
    reason: String,
    /// Who decides, `anonymous` if left out; where callers log in, for whom: `onBehalfOf` has it then.
    #[schema(min_length = 1, max_length = 256, pattern = "\\S", nullable = false)]
    actor: Option<String>,
    /// Look at so many at most, the oldest.
    #[schema(minimum = 1, maximum = 100_000, default = 10_000, nullable = false)]
    limit: Option<i64>,
    /// The `matched` of the same call with `dry_run=true`; needed without `dry_run`.
    #[schema(minimum = 0, maximum = 100_000, nullable = false)]
    expect: Option<i64>,
}
