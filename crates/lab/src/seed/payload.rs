//! Writes what happened as an event of the contract in `schemas/`, or breaks it on purpose.

use fastrand::Rng;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::life::{Happening, Item};

/// Fields every event has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    event_id: String,
    occurred_at: Timestamp,
    order_id: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
enum Event<'a> {
    #[serde(rename = "OrderCreated")]
    Created {
        #[serde(flatten)]
        head: Head<'a>,
        customer_id: String,
        currency: &'static str,
        items: Vec<Line<'a>>,
    },
    #[serde(rename = "OrderItemAdded")]
    ItemAdded {
        #[serde(flatten)]
        head: Head<'a>,
        #[serde(flatten)]
        line: Line<'a>,
    },
    #[serde(rename = "OrderStatusChanged")]
    StatusChanged {
        #[serde(flatten)]
        head: Head<'a>,
        status: &'static str,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    item_id: String,
    sku: &'static str,
    qty: &'a str,
    price: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tax_rate: Option<&'static str>,
}

impl Happening {
    /// The event's name in the contract.
    pub(super) fn event_type(&self) -> &'static str {
        match self {
            Happening::Created { .. } => "OrderCreated",
            Happening::ItemAdded(_) => "OrderItemAdded",
            Happening::StatusChanged(_) => "OrderStatusChanged",
        }
    }
}

/// The event as JSON.
pub(super) fn to_json(order_id: &str, sequence: usize, occurred_at: Timestamp, happening: &Happening) -> Vec<u8> {
    let head = Head { event_id: format!("{order_id}-event-{sequence}"), occurred_at, order_id };
    let event = match happening {
        Happening::Created { customer, currency, items } => Event::Created {
            head,
            customer_id: format!("customer-{customer}"),
            currency,
            items: items.iter().map(line).collect(),
        },
        Happening::ItemAdded(item) => Event::ItemAdded { head, line: line(item) },
        Happening::StatusChanged(status) => Event::StatusChanged { head, status },
    };
    serde_json::to_vec(&event).expect("text and numbers are always JSON")
}

fn line(item: &Item) -> Line<'_> {
    let Item { number, sku, qty, price, tax_rate } = item;
    Line { item_id: format!("item-{number}"), sku, qty, price, tax_rate: *tax_rate }
}

/// How a record is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The value is no JSON and no UTF-8.
    BadBytes,
    /// The header `x-sequence` is missing.
    NoSequence,
    /// A field has the wrong type.
    WrongType,
    /// A required field is missing.
    MissingField,
    /// The record has no key.
    NoKey,
}

impl Flaw {
    pub(super) fn any(rng: &mut Rng) -> Flaw {
        let flaws = [Flaw::BadBytes, Flaw::NoSequence, Flaw::WrongType, Flaw::MissingField, Flaw::NoKey];
        flaws[rng.usize(..flaws.len())]
    }

    /// Breaks the value, if the flaw is in the value.
    pub(super) fn spoil(self, payload: &mut Vec<u8>) {
        match self {
            Flaw::BadBytes => {
                payload.truncate(payload.len() / 2);
                payload.extend([0xff, 0xfe, 0x00]);
            }
            Flaw::WrongType => edit(payload, |event| event["occurredAt"] = json!({ "when": "yesterday" })),
            Flaw::MissingField => edit(payload, |event| {
                event.as_object_mut().expect("events are objects").remove("eventId");
            }),
            Flaw::NoSequence | Flaw::NoKey => {}
        }
    }
}

fn edit(payload: &mut Vec<u8>, change: impl FnOnce(&mut Value)) {
    let mut event = serde_json::from_slice(payload).expect("written by to_json");
    change(&mut event);
    *payload = serde_json::to_vec(&event).expect("still JSON");
}
