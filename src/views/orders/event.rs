//! The order events and how they are read from JSON. Pure.
//!
//! This is the compiled form of `schemas/json/*.schema.json`: same fields, same bounds, unknown fields allowed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::codec::{Head, json};
use crate::domain::decimal::Decimal;
use crate::domain::poison::{Poison, Reason};
use crate::views::Parsed;

/// Most items in one `OrderCreated`.
pub const MAX_ITEMS: usize = 10_000;
/// Newest `x-event-version` understood.
const NEWEST_VERSION: u32 = 1;

/// A line of an order as the event states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<'a> {
    /// Id of the line.
    pub item_id: Cow<'a, str>,
    /// What was ordered.
    pub sku: Cow<'a, str>,
    /// How many.
    pub qty: Decimal,
    /// Net price of one.
    pub price: Decimal,
    /// 0.19 for 19 %.
    pub tax_rate: Option<Decimal>,
}

/// What can happen to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEvent<'a> {
    /// `OrderCreated`
    Created {
        /// Who ordered.
        customer_id: Cow<'a, str>,
        /// ISO 4217 letters.
        currency: Cow<'a, str>,
        /// The first lines.
        items: Vec<Item<'a>>,
    },
    /// `OrderItemAdded`
    ItemAdded(Item<'a>),
    /// `OrderStatusChanged`
    StatusChanged {
        /// The new status; any text.
        status: Cow<'a, str>,
    },
}

/// Every field any of the events has, unread. `null` stays apart from a missing field.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present", rename = "type")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    event_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    occurred_at: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    order_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    customer_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    currency: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    items: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    status: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    item_id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    sku: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    qty: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    price: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    tax_rate: Option<&'a RawValue>,
}

fn present<'de: 'a, 'a, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads an order event.
///
/// An unknown type is not an error: it needs only `eventId` and `occurredAt`, so that its sequence number can be
/// consumed.
pub fn parse<'a>(head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
    let fields = object(payload, "the value")?;
    let event_type = event_type(head, &fields)?;
    if head.version > NEWEST_VERSION {
        let detail = format!("x-event-version is {}; this build knows versions up to {NEWEST_VERSION}", head.version);
        return Err(Poison::new(Reason::UnsupportedVersion, detail));
    }
    let event_id = json::name("eventId", fields.event_id)?;
    let occurred_at = json::timestamp("occurredAt", fields.occurred_at)?;
    let event = match &*event_type {
        "OrderCreated" => Some(OrderEvent::Created {
            customer_id: json::name("customerId", fields.customer_id)?,
            currency: currency(fields.currency)?,
            items: items(fields.items)?,
        }),
        "OrderItemAdded" => Some(OrderEvent::ItemAdded(item(&fields)?)),
        "OrderStatusChanged" => Some(OrderEvent::StatusChanged { status: json::name("status", fields.status)? }),
        _ => None,
    };
    if event.is_some() {
        check_order_id(head, fields.order_id)?;
    }
    Ok(Parsed { event_id, event_type, occurred_at, event })
}

fn object<'a>(text: &'a str, what: &str) -> Result<Fields<'a>, Poison> {
    if !text.trim_ascii_start().starts_with('{') {
        let shown: String = text.chars().take(40).collect();
        return Err(Poison::new(Reason::InvalidJson, format!("{what} is not a JSON object: {shown}")));
    }
    serde_json::from_str(text)
        .map_err(|error| Poison::new(Reason::InvalidJson, format!("{what} is not valid JSON: {error}")))
}

fn event_type<'a>(head: &Head<'a>, fields: &Fields<'a>) -> Result<Cow<'a, str>, Poison> {
    let in_payload = match fields.event_type {
        Some(_) => Some(json::name("type", fields.event_type)?),
        None => None,
    };
    match (in_payload, head.event_type) {
        (None, None | Some("")) => {
            Err(Poison::new(Reason::MissingType, "neither field type nor header x-event-type is there"))
        }
        (None, Some(header)) => Ok(Cow::Borrowed(header)),
        (Some(field), Some(header)) if field != header => {
            let detail = format!("field type is `{field}` but header x-event-type is `{header}`");
            Err(Poison::new(Reason::TypeMismatch, detail))
        }
        (Some(field), _) => Ok(field),
    }
}

fn check_order_id(head: &Head<'_>, raw: Option<&RawValue>) -> Result<(), Poison> {
    let order_id = json::name("orderId", raw)?;
    if order_id == head.key {
        return Ok(());
    }
    let detail = format!("the record key is `{}` but orderId is `{order_id}`", head.key);
    Err(Poison::new(Reason::KeyMismatch, detail))
}

fn currency<'a>(raw: Option<&'a RawValue>) -> Result<Cow<'a, str>, Poison> {
    let text = json::text("currency", raw)?;
    if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(text);
    }
    Err(json::violation("currency", raw, "three upper-case letters (ISO 4217)"))
}

fn items<'a>(raw: Option<&'a RawValue>) -> Result<Vec<Item<'a>>, Poison> {
    let expected = "an array of at most 10000 items";
    let Some(value) = raw else { return Err(json::violation("items", raw, expected)) };
    let list: Vec<&RawValue> =
        serde_json::from_str(value.get()).map_err(|_| json::violation("items", raw, expected))?;
    if list.len() > MAX_ITEMS {
        return Err(json::violation("items", raw, expected));
    }
    let mut items = Vec::with_capacity(list.len());
    for (index, entry) in list.into_iter().enumerate() {
        let in_items =
            |poison: Poison| Poison::new(Reason::SchemaViolation, format!("items[{index}]: {}", poison.detail));
        let fields = object(entry.get(), "the item").map_err(in_items)?;
        items.push(item(&fields).map_err(in_items)?);
    }
    Ok(items)
}

fn item<'a>(fields: &Fields<'a>) -> Result<Item<'a>, Poison> {
    let tax_rate = match fields.tax_rate {
        Some(raw) if raw.get() != "null" => Some(json::decimal("taxRate", fields.tax_rate)?),
        _ => None,
    };
    Ok(Item {
        item_id: json::name("itemId", fields.item_id)?,
        sku: json::name("sku", fields.sku)?,
        qty: json::decimal("qty", fields.qty)?,
        price: json::decimal("price", fields.price)?,
        tax_rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head<'_> = Head { key: "o-1", sequence: 1, event_type: None, version: 1 };
    const CREATED: &str = r#"{"type":"OrderCreated","eventId":"e-1","occurredAt":"2026-01-01T00:00:00Z",
        "orderId":"o-1","customerId":"c-1","currency":"EUR","items":[{"itemId":"i-1","sku":"s","qty":2,"price":"9.99"}]}"#;

    fn refusal(head: Head<'_>, payload: &str) -> Reason {
        parse(&head, payload).unwrap_err().reason
    }

    #[test]
    fn reads_numbers_and_strings_as_exact_decimals() {
        let parsed = parse(&HEAD, CREATED).unwrap();
        let Some(OrderEvent::Created { items, .. }) = parsed.event else { panic!("not created") };
        assert_eq!((items[0].qty.to_string(), items[0].price.to_string()), ("2".into(), "9.99".into()));
    }

    #[test]
    fn unknown_fields_and_unknown_types_are_allowed() {
        let extra = CREATED.replacen('{', r#"{"status":5,"new":{"deep":[1,2]},"#, 1);
        assert!(parse(&HEAD, &extra).is_ok());
        let unknown = r#"{"type":"OrderGiftWrapped","eventId":"e","occurredAt":"2026-01-01T00:00:00Z","items":7}"#;
        assert!(parse(&HEAD, unknown).unwrap().event.is_none());
    }

    #[test]
    fn the_type_comes_from_field_or_header_and_must_agree() {
        let with_header = |name| Head { event_type: Some(name), ..HEAD };
        assert!(parse(&with_header("OrderCreated"), CREATED).is_ok());
        assert_eq!(refusal(with_header("OrderItemAdded"), CREATED), Reason::TypeMismatch);
        let untyped = CREATED.replacen(r#""type":"OrderCreated","#, "", 1);
        assert!(parse(&with_header("OrderCreated"), &untyped).is_ok());
        assert_eq!(refusal(HEAD, &untyped), Reason::MissingType);
    }

    #[test]
    fn each_broken_payload_has_its_reason() {
        assert_eq!(refusal(HEAD, "[1]"), Reason::InvalidJson);
        assert_eq!(refusal(HEAD, "{"), Reason::InvalidJson);
        assert_eq!(refusal(HEAD, ""), Reason::InvalidJson);
        assert_eq!(refusal(HEAD, &format!("{CREATED} x")), Reason::InvalidJson);
        for (from, to) in [
            ("\"EUR\"", "\"eur\""),
            ("\"EUR\"", "null"),
            ("\"c-1\"", "7"),
            ("\"c-1\"", "\"\""),
            ("\"qty\":2", "\"qty\":1e2"),
            ("\"qty\":2", "\"qty\":\"two\""),
            ("\"qty\":2,", ""),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00"),
            ("[{", "[[],{"),
        ] {
            assert_eq!(refusal(HEAD, &CREATED.replacen(from, to, 1)), Reason::SchemaViolation, "{from} -> {to}");
        }
        assert_eq!(refusal(Head { key: "o-2", ..HEAD }, CREATED), Reason::KeyMismatch);
        assert_eq!(refusal(Head { version: 2, ..HEAD }, CREATED), Reason::UnsupportedVersion);
    }
}
