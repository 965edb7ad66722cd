//! The order events and how they are read, from JSON or from Avro, in every version. Pure.
//!
//! This is the compiled form of `schemas/json/*.schema.json` and `schemas/avro/*.avsc`: same fields, same bounds, unknown
//! fields allowed. What changed between versions stands in [`super::versions`].

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::codec::Head;
use crate::codec::avro;
use crate::codec::fields::{self, Field, FieldSet, Typed};
use crate::domain::decimal::Decimal;
use crate::domain::poison::{Poison, Reason};
use crate::engine::view::Parsed;
use crate::views::orders::contract::ALL;
use crate::views::orders::lines::{Lines, items};
use crate::views::orders::versions::Version;

/// Names of all fields, as producers write them; Avro programs know a field by its place here.
const NAMES: [&str; 14] = [
    "type",
    "eventId",
    "occurredAt",
    "orderId",
    "customerId",
    "currency",
    "items",
    "status",
    "itemId",
    "sku",
    "qty",
    "price",
    "taxRate",
    "taxPercent",
];

/// What this view wants of Avro records.
pub const AVRO: avro::Shape = avro::Shape {
    fields: &NAMES,
    schemas: &[ALL[0].avro, ALL[3].avro, ALL[1].avro, ALL[4].avro, ALL[2].avro],
    ..avro::Shape::NONE
};

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
#[serde(rename_all = "camelCase", bound = "F: Deserialize<'de>")]
pub struct Fields<F> {
    #[serde(default = "nothing", deserialize_with = "present", rename = "type")]
    pub(super) event_type: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) event_id: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) occurred_at: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) order_id: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) customer_id: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) currency: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) items: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) status: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) item_id: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) sku: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) qty: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) price: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) tax_rate: Option<F>,
    #[serde(default = "nothing", deserialize_with = "present")]
    pub(super) tax_percent: Option<F>,
}

fn nothing<F>() -> Option<F> {
    None
}

fn present<'de, F: Deserialize<'de>, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<F>, D::Error> {
    F::deserialize(deserializer).map(Some)
}

impl<'a> Fields<Typed<'a>> {
    pub(super) fn of(set: FieldSet<'a>) -> Self {
        let mut values = [const { None }; NAMES.len()];
        for (slot, value) in set {
            values[usize::from(slot)] = Some(value);
        }
        let [
            event_type,
            event_id,
            occurred_at,
            order_id,
            customer_id,
            currency,
            items,
            status,
            item_id,
            sku,
            qty,
            price,
            tax_rate,
            tax_percent,
        ] = values;
        Fields {
            event_type,
            event_id,
            occurred_at,
            order_id,
            customer_id,
            currency,
            items,
            status,
            item_id,
            sku,
            qty,
            price,
            tax_rate,
            tax_percent,
        }
    }
}

/// Reads an order event from JSON.
///
/// An unknown type is not an error: it needs only `eventId` and `occurredAt`, so that its sequence number can be
/// consumed.
pub fn parse<'a>(head: &Head<'a>, payload: &'a str) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
    let fields = object(payload, "the value")?;
    let event_type = event_type(head, &fields, None)?;
    read(head, fields, event_type)
}

/// Reads an order event from Avro; the same rules.
pub fn parse_avro<'a>(head: &Head<'a>, event: avro::Event<'a>) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
    let fields = Fields::of(event.fields);
    let event_type = event_type(head, &fields, Some((event.record, event.is_ours)))?;
    read(head, fields, event_type)
}

fn read<'a, F: Lines<'a>>(
    head: &Head<'a>,
    fields: Fields<F>,
    event_type: Cow<'a, str>,
) -> Result<Parsed<'a, OrderEvent<'a>>, Poison> {
    let version = Version::of(head.version)?;
    let event_id = fields::name("eventId", fields.event_id.as_ref())?;
    let occurred_at = fields::timestamp("occurredAt", fields.occurred_at.as_ref())?;
    let event = event(head, (version, &event_type), fields)?;
    Ok(Parsed { event_id, event_type, occurred_at, event })
}

/// Reads an order event back from the ledger: as JSON, also where it came as Avro, by the type that stands beside it.
pub fn parse_stored<'a>(head: &Head<'a>, payload: &'a str) -> Result<Option<OrderEvent<'a>>, Poison> {
    let version = Version::of(head.version)?;
    let fields = object(payload, "the value")?;
    let event_type = head.event_type.unwrap_or_default();
    event(head, (version, event_type), fields)
}

fn event<'a, F: Lines<'a>>(
    head: &Head<'a>,
    (version, event_type): (Version, &str),
    fields: Fields<F>,
) -> Result<Option<OrderEvent<'a>>, Poison> {
    let order_id = fields.order_id.as_ref();
    let event = match event_type {
        "OrderCreated" => OrderEvent::Created {
            customer_id: fields::name("customerId", fields.customer_id.as_ref())?,
            currency: currency(fields.currency.as_ref())?,
            items: items(version, fields.items)?,
        },
        "OrderItemAdded" => OrderEvent::ItemAdded(item(version, &fields)?),
        "OrderStatusChanged" => OrderEvent::StatusChanged { status: fields::name("status", fields.status.as_ref())? },
        _ => return Ok(None),
    };
    check_order_id(head, order_id)?;
    Ok(Some(event))
}

pub(super) fn object<'a>(text: &'a str, what: &str) -> Result<Fields<&'a RawValue>, Poison> {
    if !text.trim_ascii_start().starts_with('{') {
        // A byte order mark would not be seen.
        let shown = text.chars().take(40).collect::<String>().replace('\u{feff}', "\\ufeff");
        return Err(Poison::new(Reason::InvalidJson, format!("{what} is not a JSON object: {shown}")));
    }
    serde_json::from_str(text)
        .map_err(|error| Poison::new(Reason::InvalidJson, format!("{what} is not valid JSON: {error}")))
}

/// The type that field, header and record name agree on. The name of an Avro record counts against the others only
/// if it is one of ours: an envelope may be called anything.
fn event_type<'a, F: Field<'a>>(
    head: &Head<'a>,
    fields: &Fields<F>,
    record: Option<(&'a str, bool)>,
) -> Result<Cow<'a, str>, Poison> {
    let in_payload = match &fields.event_type {
        Some(field) if record.is_some() && field.is_null() => None,
        Some(_) => Some(fields::name("type", fields.event_type.as_ref())?),
        None => None,
    };
    let in_header = head.event_type.filter(|text| !text.is_empty());
    let stated = match (in_payload, in_header) {
        (Some(field), Some(header)) if field != header => {
            return Err(mismatch(&format!("field type is `{field}`"), "header x-event-type", header));
        }
        (Some(field), _) => Some(field),
        (None, header) => header.map(Cow::Borrowed),
    };
    match (stated, record) {
        (Some(stated), Some((name, true))) if stated != name => {
            Err(mismatch(&format!("the event says `{stated}`"), "its Avro record", name))
        }
        (Some(stated), _) => Ok(stated),
        (None, Some((name, _))) => Ok(Cow::Borrowed(name)),
        (None, None) => Err(Poison::new(Reason::MissingType, "neither field type nor header x-event-type is there")),
    }
}

fn mismatch(one: &str, other: &str, name: &str) -> Poison {
    Poison::new(Reason::TypeMismatch, format!("{one} but {other} is `{name}`"))
}

fn check_order_id<'a, F: Field<'a>>(head: &Head<'_>, field: Option<&F>) -> Result<(), Poison> {
    let order_id = fields::name("orderId", field)?;
    if order_id == head.key {
        return Ok(());
    }
    let detail = format!("the record key is `{}` but orderId is `{order_id}`", head.key);
    Err(Poison::new(Reason::KeyMismatch, detail))
}

fn currency<'a, F: Field<'a>>(field: Option<&F>) -> Result<Cow<'a, str>, Poison> {
    let text = fields::text("currency", field)?;
    if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Ok(text);
    }
    Err(fields::violation("currency", field, "three upper-case letters (ISO 4217)"))
}

pub(super) fn item<'a, F: Field<'a>>(version: Version, fields: &Fields<F>) -> Result<Item<'a>, Poison> {
    Ok(Item {
        item_id: fields::name("itemId", fields.item_id.as_ref())?,
        sku: fields::name("sku", fields.sku.as_ref())?,
        qty: fields::decimal("qty", fields.qty.as_ref())?,
        price: fields::decimal("price", fields.price.as_ref())?,
        tax_rate: version.tax_rate(fields)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::Sequence;

    const HEAD: Head<'_> = Head { key: "o-1", sequence: Sequence(1), event_type: None, version: 1 };
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
        assert_eq!(refusal(Head { version: 3, ..HEAD }, CREATED), Reason::UnsupportedVersion);
    }

    #[test]
    fn a_list_that_is_none_of_items_is_shown_by_its_beginning() {
        let refused = |list: &str| {
            let (before, items) = CREATED.split_once(r#""items":"#).unwrap();
            let payload = format!("{before}\"items\":{list}{}", items.split_once("}]").unwrap().1);
            parse(&HEAD, &payload).unwrap_err().detail
        };
        let many = format!("[{}1]", "1,".repeat(10_000));
        for (list, shown) in
            [("7", "7"), ("null", "null"), (r#"{"itemId":1}"#, r#"{"itemId":1}"#), (&many, &many[..80])]
        {
            let expected = format!("field items is {shown}; expected an array of at most 10000 items");
            assert_eq!(refused(list), expected);
        }
        assert_eq!(refused("[[]]"), "items[0]: the item is not a JSON object: []");
        assert_eq!(refused("[{}]"), "items[0]: field itemId is missing; expected a string");
        let missing = parse(&HEAD, &CREATED.replacen("items", "lines", 1)).unwrap_err().detail;
        assert_eq!(missing, "field items is missing; expected an array of at most 10000 items");
    }
}
