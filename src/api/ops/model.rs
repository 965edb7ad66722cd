//! What operators are shown, as JSON and as OpenAPI schemas; the command line prints the same. It is filled from the
//! desk's plain values in [`super::render`].

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// What is decided about a missing event.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Action)]
pub enum ActionWord {
    /// Go on without it.
    Skip,
    /// Go on with another payload.
    Replace,
    /// Go on with the refused record as it was, which can be read by now.
    Redrive,
}

/// A key that waits for an event.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HeldKey)]
pub struct HeldKeyBody {
    /// View.
    #[schema(example = "orders")]
    pub view: String,
    /// The key: an order's id.
    #[schema(example = "order-275")]
    pub key: String,
    /// `gap` (an event has not arrived), `poison` (it arrived and could not be read), `event_id_reused` or `conflict`.
    #[schema(example = "gap")]
    pub reason: &'static str,
    /// The sequence number it waits for.
    pub missing_from: i64,
    /// The last missing one before the first parked event; null while nothing is parked.
    #[schema(required)]
    pub missing_to: Option<i64>,
    /// Numbers ahead that arrived and were refused.
    #[schema(minimum = 0)]
    pub refused_count: i32,
    /// Events parked behind the missing ones.
    #[schema(minimum = 0)]
    pub parked_count: i32,
    /// Their bytes.
    #[schema(minimum = 0)]
    pub parked_bytes: i64,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Since when it is sure that the missing event is not in the log; null: it may still come.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub proven_at: Option<Timestamp>,
    /// Whether there is a decision about the number it waits for, which the projector has not taken yet.
    pub decided: bool,
    /// More about it.
    #[schema(example = "/ops/held/order-275")]
    pub href: String,
}

/// A page of held keys.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HeldPage)]
pub struct HeldPageBody {
    /// Those that have waited longest first.
    pub items: Vec<HeldKeyBody>,
    /// Keys on a page.
    #[schema(minimum = 1)]
    pub page_size: u32,
}

/// A held key with everything that is known about it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = HeldDetail)]
pub struct HeldDetailBody {
    /// As in the list.
    #[serde(flatten)]
    pub held: HeldKeyBody,
    /// The refused numbers ahead.
    pub refused: Vec<i64>,
    /// The lowest parked events, at most 20.
    pub parked: Vec<ParkedEventBody>,
    /// The dead letters of the key from the missing number on, at most 20.
    pub dead_letters: Vec<LetterBody>,
    /// What was decided about the key so far, the newest first, at most 20.
    pub decisions: Vec<DecisionBody>,
    /// What can be done now.
    pub next: Vec<NextStepBody>,
    /// Where to look further.
    pub links: LinksBody,
}

/// An event that waits behind a missing one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ParkedEvent)]
pub struct ParkedEventBody {
    /// Its number.
    pub sequence: i64,
    /// Its id.
    pub event_id: String,
    /// Its type; null where its value or its headers are too long to be read here.
    #[serde(rename = "type")]
    #[schema(required)]
    pub event_type: Option<String>,
    /// When it happened, says the event.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub occurred_at: Option<Timestamp>,
    /// Topic it was read from.
    pub topic: String,
    /// Partition of that topic.
    #[schema(minimum = 0)]
    pub partition: i32,
    /// Offset in that partition.
    #[schema(minimum = 0)]
    pub offset: i64,
    /// When it was parked.
    #[schema(value_type = String, format = DateTime)]
    pub parked_at: Timestamp,
    /// The beginning of its value.
    pub payload: PayloadBody,
}

/// Bytes, as far as they are shown.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Payload)]
pub struct PayloadBody {
    /// How many bytes there are.
    #[schema(minimum = 0)]
    pub bytes: i64,
    /// Whether less than that is shown.
    pub truncated: bool,
    /// Decoded, if it is JSON and whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub json: Option<Box<RawValue>>,
    /// As text, if it is text but not JSON or not whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes themselves, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// A refused record.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Letter)]
pub struct LetterBody {
    /// Its id.
    #[schema(minimum = 1)]
    pub id: i64,
    /// The view that refused it.
    pub view: String,
    /// `open`, `deciding` (decided, not folded yet), `skipped`, `replaced`, `redriven`, or `refused`: the decision could
    /// not be followed, see `refusedBecause`.
    #[schema(example = "open")]
    pub status: &'static str,
    /// Why it was refused, a stable name.
    #[schema(example = "schema_violation")]
    pub reason: String,
    /// The sentence to it.
    pub error: String,
    /// Its key, if it could be read.
    #[schema(required)]
    pub key: Option<String>,
    /// Its number, if it could be read.
    #[schema(required)]
    pub sequence: Option<i64>,
    /// Topic it was read from.
    pub topic: String,
    /// Partition of that topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// The record's own time.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub record_time: Option<Timestamp>,
    /// When it was refused.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Bytes of its value; null: it has none.
    #[schema(required, minimum = 0)]
    pub payload_bytes: Option<i64>,
    /// The decision that answers it.
    #[schema(required)]
    pub decision_id: Option<i64>,
    /// Why that decision could not be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_because: Option<String>,
    /// More about it.
    #[schema(example = "/ops/dead-letters/12")]
    pub href: String,
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LetterPage)]
pub struct LetterPageBody {
    /// The newest first.
    pub items: Vec<LetterBody>,
    /// Letters on a page.
    #[schema(minimum = 1)]
    pub page_size: u32,
}

/// Which topics dead letters came from.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LetterTopics)]
pub struct LetterTopicsBody {
    /// The topic of most first; at most 200.
    pub items: Vec<LetterTopicBody>,
    /// Whether there are more letters than the 10,000 newest, which were looked at.
    pub partial: bool,
}

/// A topic that dead letters came from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LetterTopic)]
pub struct LetterTopicBody {
    /// Its name.
    pub topic: String,
    /// How many letters.
    #[schema(minimum = 1)]
    pub letters: i64,
    /// When the newest was refused.
    #[schema(value_type = String, format = DateTime)]
    pub newest_at: Timestamp,
}

/// A dead letter, whole.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LetterDetail)]
pub struct LetterDetailBody {
    /// As in the list.
    #[serde(flatten)]
    pub letter: LetterBody,
    /// The record's headers, in order.
    pub headers: Vec<HeaderBody>,
    /// The record's key.
    #[schema(required)]
    pub record_key: Option<PayloadBody>,
    /// The record's value; null: it has none.
    #[schema(required)]
    pub payload: Option<PayloadBody>,
    /// When it was published to the DLQ topic.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub published_at: Option<Timestamp>,
    /// The decision that answers it.
    #[schema(required)]
    pub decision: Option<DecisionBody>,
    /// What can be done now.
    pub next: Vec<NextStepBody>,
    /// Where to look further.
    pub links: LinksBody,
}

/// A header of a record.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Header)]
pub struct HeaderBody {
    /// Its name.
    pub name: String,
    /// Its value, if that is text. Neither: the header has no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its value in base64, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

/// What was decided, by whom and why.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Decision)]
pub struct DecisionBody {
    /// Its id.
    #[schema(minimum = 1)]
    pub id: i64,
    /// View.
    pub view: String,
    /// What was decided.
    #[schema(value_type = ActionWord)]
    pub action: String,
    /// `pending` (made, not folded yet), `taken`, `closed` (it only closes a dead letter) or `refused`.
    #[schema(example = "pending")]
    pub status: String,
    /// The key; null: it only closes a dead letter.
    #[schema(required)]
    pub key: Option<String>,
    /// First number that it is about.
    #[schema(required)]
    pub sequence: Option<i64>,
    /// Last number that it is about.
    #[schema(required)]
    pub sequence_to: Option<i64>,
    /// Topic of the dead letter that it answers.
    #[schema(required)]
    pub topic: Option<String>,
    /// Partition of that dead letter.
    #[schema(required)]
    pub partition: Option<i32>,
    /// Offset of that dead letter.
    #[schema(required)]
    pub offset: Option<i64>,
    /// Bytes of the payload to go on with.
    #[schema(required)]
    pub payload_bytes: Option<i64>,
    /// Why, in the words of who decided.
    pub reason: String,
    /// Who: where callers log in, who has logged in.
    pub actor: String,
    /// For whom, as who has logged in says in `actor`; null where they say nothing, or nobody logs in.
    #[schema(required)]
    pub on_behalf_of: Option<String>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub decided_at: Timestamp,
    /// When the view first folded with it.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    pub taken_at: Option<Timestamp>,
    /// Why the view could not fold with it: it counts as never made.
    #[schema(required)]
    pub refused: Option<String>,
}

/// A page of decisions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DecisionPage)]
pub struct DecisionPageBody {
    /// The newest first.
    pub items: Vec<DecisionBody>,
    /// Decisions on a page.
    #[schema(minimum = 1)]
    pub page_size: u32,
}

/// Something that can be done now.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NextStep)]
pub struct NextStepBody {
    /// `skip`, `replace`, `redrive` or `look`.
    #[schema(example = "skip")]
    pub action: &'static str,
    /// What it does.
    pub effect: String,
    /// HTTP method.
    #[schema(example = "POST")]
    pub method: &'static str,
    /// Where to.
    pub href: String,
    /// A body to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
}

/// Where to look further.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Links)]
pub struct LinksBody {
    /// The view's row of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "/orders/order-275")]
    pub row: Option<String>,
    /// What the key waits for, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Every decision about the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decisions: Option<String>,
    /// The record's position in Kafka: topic, partition and offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "orders.events/3/4711")]
    pub position: Option<String>,
}

/// What a call has decided.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Decided)]
pub struct DecidedBody {
    /// The decisions made.
    pub decisions: Vec<DecisionBody>,
    /// When it shows.
    pub detail: String,
    /// Where to see it.
    pub links: LinksBody,
}

/// What a call by filter has decided, or would decide.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DecidedInBulk)]
pub struct DecidedInBulkBody {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Keys or letters that match the filter, up to `limit`: repeat this number as `expect`.
    #[schema(minimum = 0)]
    pub matched: usize,
    /// More than `limit` match: call again afterwards.
    pub more: bool,
    /// Of those that match, how many can be decided about.
    #[schema(minimum = 0)]
    pub possible: usize,
    /// Decisions made: 0 in a dry run.
    #[schema(minimum = 0)]
    pub decided: usize,
    /// The first of those that can be decided about, at most 20: keys, or ids of letters.
    #[schema(value_type = Vec<Value>)]
    pub sample: Vec<Value>,
    /// How many cannot be decided about.
    #[schema(minimum = 0)]
    pub impossible: usize,
    /// The first of them, at most 20, and why.
    pub impossible_sample: Vec<ImpossibleBody>,
}

/// What cannot be decided about.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Impossible)]
pub struct ImpossibleBody {
    /// The key, if there is one.
    #[schema(required)]
    pub key: Option<String>,
    /// The letter, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_id: Option<i64>,
    /// Stable name of the obstacle, as of the same call about it alone.
    #[schema(example = "already_consumed")]
    pub code: String,
    /// The obstacle.
    pub detail: String,
}

/// What became of the letters of a DLQ topic.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportedBody {
    /// Records read.
    pub read: usize,
    /// Letters that are in the table now and were not before.
    pub imported: usize,
    /// Letters that were there already.
    pub known: usize,
}
