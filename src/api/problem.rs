//! The one shape of every error: RFC 9457 `application/problem+json` with a stable code and a page that explains it.

use std::fmt;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::ops::pauses::PauseBody;
use crate::domain::preflight::{Missing, Outlook, Stretch};
use crate::feed::waiters::TooManyWaiters;
use crate::repair::{DeskError, Obstacle, Seen};
use crate::store::read::ReadError;
use crate::store::sqlstate::{describe_read, is_login};

/// One kind of error: a contract with clients, explained at `/problems/<name>`.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// The stable name.
    pub name: &'static str,
    /// HTTP status that it always has.
    pub status: StatusCode,
    /// The same few words every time.
    pub title: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What the caller does next.
    pub next_step: &'static str,
}

macro_rules! codes {
    ($($constant:ident = $name:literal $status:ident $title:literal $meaning:literal $next_step:literal;)*) => {
        $(
            #[doc = $title]
            pub static $constant: Code = Code {
                name: $name, status: StatusCode::$status, title: $title, meaning: $meaning, next_step: $next_step,
            };
        )*
        /// Every code of this file; views have more of their own.
        pub static CODES: &[&Code] = &[$(&$constant),*];
    };
}

pub(in crate::api) use codes;

codes! {
    INVALID_PARAMETER = "invalid_parameter" BAD_REQUEST "A parameter is not usable"
        "A parameter is unknown, repeated, malformed or out of its range."
        "Each entry of `errors` names one parameter, the value received and what is allowed. Correct them all and repeat.";
    INVALID_CURSOR = "invalid_cursor" BAD_REQUEST "The cursor does not fit this list"
        "A cursor belongs to one list: the same filters and the same sort. This one belongs to another, or was changed."
        "Start again without `cursor`, and follow the `Link` header from there without editing its URLs.";
    OFFSET_TOO_DEEP = "offset_too_deep" BAD_REQUEST "The page is too deep to count to"
        "Pages by number get slower the deeper they are, so they end at a depth (`http.max_offset`)."
        "Follow `Link: rel=\"next\"`: its cursor reaches every page at the same cost. Or narrow the filters.";
    BAD_REQUEST = "bad_request" BAD_REQUEST "The request cannot be read"
        "The request is malformed."
        "See `detail`, correct the request and repeat.";
    NOT_FOUND = "not_found" NOT_FOUND "There is no such resource"
        "Nothing is served at this path."
        "See `/docs` or `/openapi.json` for what there is.";
    PARTITION_NOT_FOUND = "partition_not_found" NOT_FOUND "There is no such partition"
        "The view's topic does not have this partition, or the view has not come to it yet."
        "`GET /ops/lags` lists the partitions.";
    PARTITION_NOT_BLOCKED = "partition_not_blocked" CONFLICT "No record stops the partition"
        "Records can be skipped only where the log itself stops the projector (`unreadable_batch`, `log_truncated`, `schema_not_found`), never while it can go on."
        "See `GET /ops/lags`. A single refused event is repaired where its order is held, not here.";
    OFFSET_MOVED = "offset_moved" CONFLICT "The partition stands elsewhere"
        "`from` is not the partition's position any more: somebody has skipped already, or the projector went on."
        "Read `nextOffset` anew, look whether anything still has to be skipped, and repeat with it.";
    LOG_UNAVAILABLE = "log_unavailable" SERVICE_UNAVAILABLE "Kafka has not answered yet"
        "What is asked needs the log, and this process has not seen its ends yet, or cannot read it."
        "Repeat after `Retry-After` seconds. Operators: `/readyz` says what Kafka does.";
    VIEW_NOT_FOUND = "view_not_found" NOT_FOUND "There is no such view"
        "The view does not exist, or does not run in this process."
        "`GET /ops/lags` without `view` lists those that do.";
    METHOD_NOT_ALLOWED = "method_not_allowed" METHOD_NOT_ALLOWED "The resource does not have this method"
        "The path exists, the method does not."
        "The `Allow` header lists the methods it has.";
    INVALID_BODY = "invalid_body" BAD_REQUEST "The body is not usable"
        "The body is not a JSON object, or a field of it is unknown, missing, malformed or out of its range."
        "Each entry of `errors` names one field, the value received and what is allowed. Correct them all and repeat.";
    OPERATIONS_NOT_ALLOWED = "operations_not_allowed" FORBIDDEN "Decisions are not allowed on this address"
        "The service listens where other machines reach it, and nobody has to log in. So it shows, but changes nothing."
        "Call an instance that listens on loopback, use the command line, or set `http.allow_anonymous_operations = true` if everybody who reaches the port may decide. Or have callers log in (`auth`).";
    NOT_LOGGED_IN = "not_logged_in" UNAUTHORIZED "Nobody has logged in"
        "The route is for those who have logged in, and the request shows no credentials."
        "Send `Authorization: Bearer` with an API key or a token of the identity provider, or `X-Api-Key`, or connect with a client certificate.";
    INVALID_CREDENTIALS = "invalid_credentials" UNAUTHORIZED "The credentials are not valid"
        "The API key, token or client certificate is malformed, unknown, revoked, over, or of somebody else."
        "Get a new one. `WWW-Authenticate` and `detail` say what is wrong with a token; of an API key it is not said.";
    ROLE_MISSING = "role_missing" FORBIDDEN "The role is missing"
        "Whoever has logged in does not have the role that the route asks for, which `requiredRole` names."
        "Ask an administrator for the role, or use other credentials.";
    ORIGIN_NOT_ALLOWED = "origin_not_allowed" FORBIDDEN "A web page of elsewhere may not do this"
        "The request comes from a web page of another origin (`Origin`), which may look but change nothing; or it asks whether it may, and may not."
        "Operators: name the page's origin in `http.cors_origins`, or, if it is a page of this service behind a proxy, its address in `http.public_url`.";
    HUB_CONNECTION_NOT_FOUND = "hub_connection_not_found" NOT_FOUND "There is no such connection to the hub"
        "No connection has this `id`: it was negotiated with another instance or too long ago, or it has ended."
        "Negotiate another one. Operators: several instances behind a balancer need sticky sessions, or clients with `skipNegotiation`.";
    HUB_CONNECTION_IN_USE = "hub_connection_in_use" CONFLICT "The connection to the hub is open already"
        "One connection is taken from in one way and by one request at a time."
        "Take the answer that is under way, or negotiate another connection.";
    HUB_CONNECTION_FOREIGN = "hub_connection_foreign" FORBIDDEN "The connection to the hub is somebody else's"
        "The request shows other credentials than those that the connection was negotiated with."
        "Negotiate a connection with these credentials.";
    TOO_MANY_HUB_CONNECTIONS = "too_many_hub_connections" SERVICE_UNAVAILABLE "Too many connections to the hub"
        "There are as many connections to the hub as this caller, or all, may have."
        "Close one, or repeat after `Retry-After` seconds.";
    TOO_MANY_ANSWERS = "too_many_answers" SERVICE_UNAVAILABLE "Too many requests are under way on one connection"
        "By HTTP/2 a connection carries many requests, and this one has as many as may be without a whole answer."
        "Take the answers that are under way, or open another connection, and repeat after `Retry-After` seconds.";
    LOGIN_UNAVAILABLE = "login_unavailable" SERVICE_UNAVAILABLE "Nobody can log in at the moment"
        "Whether the credentials are valid cannot be told: the identity provider's keys, or the API keys, could not be read yet."
        "Repeat after `Retry-After` seconds. Operators: the log says why.";
    RATE_LIMITED = "rate_limited" TOO_MANY_REQUESTS "Too many calls"
        "The caller, who has logged in or else everybody at one address, has called more often than `http.rate_limits` allows. `violated-policies` says of what; `RateLimit-Policy` and `RateLimit` how many there are in a minute."
        "Repeat after `Retry-After` seconds. Operators: raise the limit, or set it to 0 for none.";
    API_KEY_NOT_FOUND = "api_key_not_found" NOT_FOUND "There is no such API key"
        "No API key has this id."
        "`GET /ops/api-keys` lists them.";
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The body has to be JSON"
        "`Content-Type` is missing or not `application/json`. Forms of other web sites cannot send that, which is the point."
        "Send `Content-Type: application/json`.";
    BODY_TOO_SLOW = "body_too_slow" REQUEST_TIMEOUT "The body did not come in time"
        "A request's body has to be there within `http.send_timeout_ms` of its head. The connection ends with this answer."
        "Send the head of a request when its body is at hand, and repeat. Operators: raise `http.send_timeout_ms` where clients are that slow.";
    BODY_TOO_LARGE = "body_too_large" PAYLOAD_TOO_LARGE "The body is too long"
        "The body is longer than this resource reads; where it holds a record, that is what `projector.max_record_bytes` allows."
        "`detail` has the limit. Send a shorter one.";
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused" UNPROCESSABLE_ENTITY "The Idempotency-Key was used for something else"
        "The same key came before with another path, body or query, or from somebody else. Nothing was done this time."
        "Use a new key for each thing that is to be done, and the same key only to repeat a call.";
    SCHEMA_REGISTRY_UNAVAILABLE = "schema_registry_unavailable" SERVICE_UNAVAILABLE "The schema registry does not answer"
        "The record names a schema that only the registry knows, so it cannot be checked now. Nothing was changed."
        "Repeat after `Retry-After` seconds; `detail` says what the registry answered.";
    OPERATION_RUNNING = "operation_running" CONFLICT "Another operation of the view is under way"
        "A view is rebuilt, rolled back or verified by one operation at a time. Nothing was begun."
        "`operationId` names it: wait for its end at `GET /ops/operations/{id}`, or cancel it.";
    OPERATION_NOT_FOUND = "operation_not_found" NOT_FOUND "There is no such operation"
        "No operation has this id."
        "`GET /ops/operations` lists them.";
    OPERATION_OVER = "operation_over" CONFLICT "The operation is over"
        "It is done, cancelled or failed, and nothing can be asked of it any more."
        "`GET /ops/operations/{id}` says how it ended.";
    WRONG_PHASE = "wrong_phase" CONFLICT "The operation is in another phase"
        "Readers are switched by hand in phase `ready` only, and an operation is cancelled before they are being switched."
        "`GET /ops/operations/{id}` says in which phase it is; wait for the right one, or roll the view back afterwards.";
    NOTHING_KEPT = "nothing_kept" CONFLICT "No build is kept"
        "Readers can go back to the build that they left last as long as it is kept (`keepHours`), and there is none."
        "Rebuild the view instead.";
    MODE_NOT_ALLOWED = "mode_not_allowed" FORBIDDEN "Views are not cleared in place here"
        "`mode: \"in_place\"` clears the view that readers read and makes it anew; that is for `environment = \"dev\"` or `\"test\"` only. Nothing was begun."
        "Ask with `mode: \"shadow\"`, or leave it out: readers go on reading the present build until the new one is ready.";
    VIEW_PAUSED = "view_paused" CONFLICT "The view is paused"
        "An operator has the view stand still; nothing of it is rebuilt or switched meanwhile. Nothing was begun."
        "`paused` says who, since when and why. `POST /ops/views/{view}/resume`, then repeat.";
    HISTORY_TRUNCATED = "history_truncated" CONFLICT "The log does not hold all that the present build was made from"
        "Retention, truncation or compaction has removed records that the present build has applied: a new build would be made without them. Nothing was begun."
        "`missing` lists partitions and offsets, `choices` what can be done; `acceptTruncated: true` makes the build without them.";
    TOPIC_COMPACTED = "topic_compacted" CONFLICT "The topic is compacted"
        "The broker removes records that later ones replace, and nobody has said that this is meant. Nothing was begun."
        "`choices` says what can be done.";
    SOURCE_CHANGED = "source_changed" CONFLICT "The view is made from another topic"
        "The settings name another topic or cluster than the one that the present build is made from. Nothing was begun."
        "`choices` says what can be done.";
    LOG_IDENTITY_CHANGED = "log_identity_changed" CONFLICT "It is another log"
        "The topic is gone, or was created anew since the present build was made from it. Nothing was begun."
        "`choices` says what can be done.";
    KEY_NOT_FOUND = "key_not_found" NOT_FOUND "There is nothing of that key"
        "The view has neither a row of this key nor an event that one could be made of."
        "See how the key is spelled; a held key without a row waits for its first event: `GET /ops/held/{key}`.";
    NOT_MENDABLE = "not_mendable" CONFLICT "It cannot be told what the rows should be"
        "What the rows would be made of is not there: `reason` is `history_incomplete` (the ledger), `history_truncated` or `log_differs` (the log), or says why this binary cannot fold the build. Nothing was changed."
        "Mend from the other one: `from` = `ledger` or `log`. If neither has it, rebuild the view, or keep the rows as they are.";
    HELD_KEY_NOT_FOUND = "held_key_not_found" NOT_FOUND "The key is not held"
        "The key waits for no event: it never was held, or it goes on by now."
        "`GET /ops/held` lists those that wait.";
    DEAD_LETTER_NOT_FOUND = "dead_letter_not_found" NOT_FOUND "There is no such dead letter"
        "The view has no dead letter of this id."
        "`GET /ops/dead-letters?status=all` lists them.";
    ALREADY_DECIDED = "already_decided" CONFLICT "There is a decision about it already"
        "Somebody decided about the same letter or number before. A decision is not changed afterwards."
        "`decisionId` names it; `GET /ops/decisions` shows who decided what and why.";
    ALREADY_CONSUMED = "already_consumed" CONFLICT "The number is consumed already"
        "The key has gone past that number: its event arrived, or was skipped or replaced. What is consumed cannot be unmade."
        "Nothing has to be done about the number. A dead letter of it can still be skipped, which closes it.";
    NUMBER_IS_PARKED = "number_is_parked" CONFLICT "The event with that number is there"
        "An event with that number is parked and will be applied as soon as those before it are there or skipped."
        "Decide about the missing numbers only: `GET /ops/held/{key}` says which.";
    OUT_OF_REACH = "out_of_reach" CONFLICT "The key may not come to that number"
        "Only numbers that are known to be missing can be decided about: the next one, those before the first parked event, and those that were refused. Others may still arrive."
        "`waitsFor` is the number that the key waits for. Decide about that one first.";
    COUNT_CHANGED = "count_changed" CONFLICT "Another number matches than was expected"
        "Since the dry run, keys or letters were added or released. Nothing was changed."
        "Repeat with `dry_run=true`, look at the sample, and send its `matched` as `expect`.";
    CONTRACT_VIOLATED = "contract_violated" UNPROCESSABLE_ENTITY "The record is no event of the contract"
        "The projector would refuse this record again. `reason` is the reason it would give, `violation` names the field, the value and what is expected."
        "Correct the payload or headers and send them with `replace`. For a redrive: mend the schema or the code first.";
    SEQUENCE_NOT_REACHED = "sequence_not_reached" PRECONDITION_FAILED "The view has not got that far yet"
        "The wait for `minSequence` ended first. `currentSequence` says how far the view is (0: not there at all)."
        "Repeat, perhaps with a longer `waitMs`; `GET /ops/lags` says how far behind the view is, `held` whether it is stuck.";
    URI_TOO_LONG = "uri_too_long" URI_TOO_LONG "The request's URI is too long"
        "The path and query are longer than 8192 bytes."
        "Send fewer or shorter parameters.";
    TOO_MANY_WAITERS = "too_many_waiters" SERVICE_UNAVAILABLE "Too many requests are waiting"
        "As many requests as `http.max_waiters` allows already wait for their `minSequence`."
        "Repeat after `Retry-After` seconds, or ask without `waitMs`.";
    CURSOR_EXPIRED = "cursor_expired" GONE "What lies after the cursor cannot be told any more"
        "The cursor names a build whose history is gone: it was dropped after a rebuild, or the database was taken back to an earlier moment."
        "Begin anew, without `after` and `Last-Event-ID`: `restart` is the URL that sends what there is now first, and then every change.";
    TOO_MANY_FOLLOWERS = "too_many_followers" SERVICE_UNAVAILABLE "Too many clients follow changes"
        "As many clients as `http.max_followers` allows follow changes already."
        "Repeat after `Retry-After` seconds, or ask another instance. Operators: raise `http.max_followers`.";
    STARTING = "starting" SERVICE_UNAVAILABLE "The service is starting"
        "The process is there, but its database has not told yet what there is to serve."
        "Repeat after `Retry-After` seconds. Operators: `/readyz` and the log say what it waits for.";
    DATABASE_UNAVAILABLE = "database_unavailable" SERVICE_UNAVAILABLE "The database does not answer"
        "The service cannot reach its database at the moment. It reconnects by itself."
        "Repeat after `Retry-After` seconds. Operators: `/readyz` and the log say why.";
    DATABASE_BUSY = "database_busy" SERVICE_UNAVAILABLE "Every database connection is in use"
        "More reads are running than `database.read_pool_size` allows, for longer than a read may wait."
        "Repeat after `Retry-After` seconds with fewer requests at once.";
    DATABASE_READ_ONLY = "database_read_only" SERVICE_UNAVAILABLE "The database takes no changes"
        "The database answers, but lets nobody write: it is a standby, say, or an operator has made it read-only. Nothing was decided."
        "Repeat after `Retry-After` seconds; `detail` has the database's own words. Reads go on meanwhile.";
    QUERY_TIMEOUT = "query_timeout" SERVICE_UNAVAILABLE "The query took too long"
        "The database gave up on the query (`database.read_timeout_ms`; for a decision `database.decision_timeout_ms`)."
        "Narrow the filters, or sort by `updatedAt` or `orderId`, which have an index.";
    INTERNAL_ERROR = "internal_error" INTERNAL_SERVER_ERROR "Something went wrong here"
        "A defect of this service, not of the request."
        "Report `traceId`: the log has the cause under it.";
    CLIENT_ERROR = "client_error" BAD_REQUEST "The request was refused"
        "The HTTP layer refused the request; the status of the answer says why."
        "See the status and `detail`.";
}

/// One parameter that is not usable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ParameterError {
    /// Its name.
    pub parameter: String,
    /// The value received, cut after 200 characters.
    pub value: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

/// An error as sent, RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// A page that explains the code: `/problems/<code>`.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid_parameter")]
    pub kind: String,
    /// The same few words for every error of this code.
    pub title: &'a str,
    /// HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened this time.
    pub detail: &'a str,
    /// Path of the request.
    pub instance: &'a str,
    /// The stable code.
    #[schema(example = "invalid_parameter")]
    pub code: &'a str,
    /// Each parameter that is not usable.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    pub errors: &'a [ParameterError],
    /// Trace id of the request, as in the log and in the header `X-Trace-Id`.
    pub trace_id: &'a str,
    /// More, by code.
    #[serde(flatten)]
    #[schema(value_type = serde_json::Map<String, serde_json::Value>)]
    pub more: &'a Map<String, Value>,
}

/// An error on its way out. The middleware adds where it happened and its trace id.
#[derive(Debug)]
pub struct Problem {
    code: &'static Code,
    status: StatusCode,
    detail: String,
    errors: Vec<ParameterError>,
    retry_after: Option<u32>,
    /// `WWW-Authenticate`.
    challenge: Option<String>,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem of `code`; `detail` says what happened this time.
    pub fn new(code: &'static Code, detail: impl Into<String>) -> Self {
        Problem {
            code,
            status: code.status,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            challenge: None,
            more: Map::new(),
        }
    }

    /// The problem of an answer that only has a status, from the HTTP layer.
    pub fn of_status(status: StatusCode, detail: impl Into<String>) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => &NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED => &METHOD_NOT_ALLOWED,
            StatusCode::URI_TOO_LONG => &URI_TOO_LONG,
            StatusCode::BAD_REQUEST => &BAD_REQUEST,
            _ if status.is_client_error() => &CLIENT_ERROR,
            _ => &INTERNAL_ERROR,
        };
        Problem { status, ..Problem::new(code, detail) }
    }

    /// Several parameters that are not usable.
    pub fn of_parameters(errors: Vec<ParameterError>) -> Self {
        let named: Vec<String> =
            errors.iter().map(|error| format!("`{}`: {}", error.parameter, error.detail)).collect();
        Problem { errors, ..Problem::new(&INVALID_PARAMETER, named.join("; ")) }
    }

    /// Several fields of a body that are not usable.
    pub fn of_fields(errors: Vec<ParameterError>) -> Self {
        Problem { code: &INVALID_BODY, ..Problem::of_parameters(errors) }
    }

    /// Names one parameter.
    pub fn parameter(mut self, parameter: &str, value: &str, detail: &str) -> Self {
        self.errors.push(ParameterError { parameter: parameter.into(), value: shorten(value), detail: detail.into() });
        self
    }

    /// Asks the caller to come back after so many seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Says how to log in.
    pub fn challenge(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// Adds a member.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("members are plain data");
        self.more.insert(name.to_owned(), value);
        self
    }

    /// The stable name of its code.
    pub fn code(&self) -> &'static str {
        self.code.name
    }

    /// The parameters it names.
    pub fn errors(&self) -> &[ParameterError] {
        &self.errors
    }

    /// The answer.
    pub fn render(&self, instance: &str, trace_id: &str) -> HttpResponse {
        let body = ProblemBody {
            kind: format!("/problems/{}", self.code.name),
            title: self.code.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            instance,
            code: self.code.name,
            errors: &self.errors,
            trace_id,
            more: &self.more,
        };
        let json = serde_json::to_vec(&body).expect("a problem is plain data");
        let mut response = HttpResponse::build(self.status);
        response.content_type("application/problem+json").insert_header((header::CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if let Some(challenge) = &self.challenge {
            response.insert_header((header::WWW_AUTHENTICATE, challenge.as_str()));
        }
        response.body(json)
    }
}

/// Cuts a received value to what is worth repeating.
pub fn shorten(value: &str) -> String {
    value.chars().take(200).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.name, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.render("", "")
    }
}

impl From<DeskError> for Problem {
    fn from(error: DeskError) -> Self {
        let refusal = match error {
            DeskError::Database(error) => return error.into(),
            DeskError::Refused(refusal) => *refusal,
        };
        let code = match refusal.obstacle {
            Obstacle::AlreadyDecided => &ALREADY_DECIDED,
            Obstacle::AlreadyConsumed => &ALREADY_CONSUMED,
            Obstacle::NumberIsParked => &NUMBER_IS_PARKED,
            Obstacle::OutOfReach => &OUT_OF_REACH,
            Obstacle::CountChanged => &COUNT_CHANGED,
            Obstacle::ContractViolated => &CONTRACT_VIOLATED,
            Obstacle::IdempotencyKeyReused => &IDEMPOTENCY_KEY_REUSED,
            Obstacle::NotHeld => &HELD_KEY_NOT_FOUND,
            Obstacle::NoSuchLetter => &DEAD_LETTER_NOT_FOUND,
            Obstacle::RegistryAway => &SCHEMA_REGISTRY_UNAVAILABLE,
            Obstacle::Unfit => &INVALID_BODY,
            Obstacle::OperationRunning => &OPERATION_RUNNING,
            Obstacle::NoSuchOperation => &OPERATION_NOT_FOUND,
            Obstacle::OperationOver => &OPERATION_OVER,
            Obstacle::WrongPhase => &WRONG_PHASE,
            Obstacle::NothingKept => &NOTHING_KEPT,
            Obstacle::ModeNotAllowed => &MODE_NOT_ALLOWED,
            Obstacle::ViewPaused => &VIEW_PAUSED,
            Obstacle::HistoryTruncated => &HISTORY_TRUNCATED,
            Obstacle::TopicCompacted => &TOPIC_COMPACTED,
            Obstacle::SourceChanged => &SOURCE_CHANGED,
            Obstacle::LogIdentityChanged => &LOG_IDENTITY_CHANGED,
            Obstacle::NoSuchKey => &KEY_NOT_FOUND,
            Obstacle::NotMendable => &NOT_MENDABLE,
            Obstacle::LogAway => &LOG_UNAVAILABLE,
        };
        let comes_back = matches!(refusal.obstacle, Obstacle::RegistryAway | Obstacle::LogAway);
        let retry_after = comes_back.then_some(1);
        let problem = Problem { retry_after, ..Problem::new(code, refusal.detail) };
        match refusal.seen {
            Seen::Nothing => problem,
            Seen::Decision(id) => problem.with("decisionId", id),
            Seen::LastSequence(last) => problem.with("lastSequence", last),
            Seen::ParkedSequence(parked) => problem.with("parkedSequence", parked),
            Seen::Reach { waits_for, reach } => problem.with("waitsFor", waits_for).with("reach", reach),
            Seen::Matched(matched) => problem.with("matched", matched),
            Seen::Operation(id) => problem.with("operationId", id),
            Seen::Pause(pause) => problem.with("paused", PauseBody::from(pause)),
            Seen::Outlook(outlook) => with_outlook(problem, &outlook),
            Seen::Reason(reason) => problem.with("reason", reason),
            Seen::Unreadable { reason, violation: None } => problem.with("reason", reason),
            Seen::Unreadable { reason, violation: Some(violation) } => {
                problem.with("reason", reason).with("violation", violation)
            }
        }
    }
}

/// What is missing, and what can be done.
fn with_outlook(problem: Problem, outlook: &Outlook) -> Problem {
    let problem = problem.with("choices", outlook.choices());
    let Outlook::Truncated { missing, is_compacted } = outlook else { return problem };
    let missing: Vec<Value> = missing.iter().map(missing_body).collect();
    problem.with("missing", missing).with("isCompacted", is_compacted)
}

fn missing_body(missing: &Missing) -> Value {
    let Missing { partition, stretch: Stretch { from, to } } = missing;
    serde_json::json!({ "partition": partition.0, "fromOffset": from.0, "toOffset": to.0 })
}

impl From<TooManyWaiters> for Problem {
    fn from(_: TooManyWaiters) -> Self {
        let detail = "As many requests as allowed already wait for their `minSequence`";
        Problem::new(&TOO_MANY_WAITERS, detail).retry_after(1)
    }
}

impl From<ReadError> for Problem {
    /// Says nothing of statements or hosts; the log does, at the level that fits: an absent database is the projector's
    /// and readiness' news already.
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Unavailable(cause) => {
                let why = describe_read(&error);
                tracing::debug!(error = why, "the database does not answer");
                // Who may not log in, and from where, is for operators.
                let is_told = cause.is_some() && !is_login(&error);
                let why = if is_told { format!(": {why}") } else { String::new() };
                let detail = format!("The database does not answer as it should at the moment{why}");
                Problem::new(&DATABASE_UNAVAILABLE, detail).retry_after(1)
            }
            ReadError::ReadOnly(_) => {
                let why = describe_read(&error);
                tracing::warn!(error = why, "nothing was written, the database takes no changes");
                Problem::new(&DATABASE_READ_ONLY, format!("The database takes no changes now: {why}")).retry_after(1)
            }
            ReadError::Busy => {
                tracing::warn!("read refused, every connection of the pool is in use");
                Problem::new(&DATABASE_BUSY, "Every database connection is in use").retry_after(1)
            }
            ReadError::Timeout(_) => {
                tracing::warn!("read cancelled by its time limit");
                Problem::new(&QUERY_TIMEOUT, "The database gave up on this query").retry_after(2)
            }
            ReadError::Displaced(_) => {
                let why = describe_read(&error);
                tracing::warn!(error = why, "read given up by the database for another statement");
                Problem::new(&QUERY_TIMEOUT, format!("The database gave up on this query: {why}")).retry_after(1)
            }
            ReadError::Failed(_) | ReadError::Unreadable(_) => {
                tracing::error!(error = describe_read(&error), "read failed");
                Problem::new(&INTERNAL_ERROR, "The answer could not be read from the database")
            }
        }
    }
}
