//! What changed between versions of the order events, and how the older ones are read as if they were the newest. Pure.
//!
//! | `x-event-version` | what a line says of its tax |
//! |---|---|
//! | 1 (or no header) | `taxRate`, a fraction: `0.19` |
//! | 2 | `taxPercent`: `19` |

use crate::codec::Head;
use crate::codec::fields::{self, Field};
use crate::domain::decimal::Decimal;
use crate::domain::poison::{Poison, Reason};
use crate::engine::view::StoredDetails;
use crate::views::orders::event::{Fields, Item, OrderEvent, parse_stored};

/// A version that this build reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Tax as a fraction.
    One,
    /// Tax in percent.
    Two,
}

/// Newest `x-event-version` understood.
pub const NEWEST: u32 = 2;

impl Version {
    /// The version with that number.
    pub fn of(number: u32) -> Result<Version, Poison> {
        match number {
            1 => Ok(Version::One),
            2 => Ok(Version::Two),
            _ => {
                let detail = format!("x-event-version is {number}; this build knows versions up to {NEWEST}");
                Err(Poison::new(Reason::UnsupportedVersion, detail))
            }
        }
    }

    /// The tax of a line as a fraction, whichever way its version states it.
    pub(super) fn tax_rate<'a, F: Field<'a>>(self, line: &Fields<F>) -> Result<Option<Decimal>, Poison> {
        let stated = |field: &Option<F>| field.as_ref().is_some_and(|field| !field.is_null());
        match self {
            Version::One if stated(&line.tax_rate) => fields::decimal("taxRate", line.tax_rate.as_ref()).map(Some),
            // Left aside, it would be an untaxed line; a producer that changed the header only has to hear of it.
            Version::Two if stated(&line.tax_rate) => {
                Err(fields::violation("taxRate", line.tax_rate.as_ref(), "taxPercent instead, in version 2"))
            }
            Version::Two if stated(&line.tax_percent) => {
                let percent = fields::decimal("taxPercent", line.tax_percent.as_ref())?;
                // Exact: the same digits, the point two places further left.
                Ok(Some(Decimal::new(percent.mantissa(), percent.scale() + 2)))
            }
            _ => Ok(None),
        }
    }
}

/// The version in which an event was read that stands in the ledger, which has no headers. `lines_before` is how many lines
/// the order had, `stored` are the lines that it has.
///
/// | its lines state | it was version |
/// |---|---|
/// | no tax | any: they say the same |
/// | a `taxRate` | 1, as 2 refuses that |
/// | only `taxPercent` | 2, but where the line that was made of it has no rate: 1, which passes over that field |
pub fn of_stored(head: &Head<'_>, payload: &str, lines_before: i32, stored: &StoredDetails) -> u32 {
    if !payload.contains("taxPercent") {
        return 1;
    }
    let [one, two] = [1, 2].map(|version| parse_stored(&Head { version, ..*head }, payload));
    let (Ok(one), Ok(two)) = (&one, two) else { return if one.is_ok() { 1 } else { 2 } };
    let lines = lines_of(one.as_ref()).iter().zip(lines_of(two.as_ref()));
    let differing = (i64::from(lines_before) + 1..).zip(lines).find(|(_, (one, two))| one.tax_rate != two.tax_rate);
    let line = differing.and_then(|(line_no, _)| stored.get(&line_no));
    if line.is_some_and(|line| line.get("tax_rate").is_none_or(Option::is_none)) { 1 } else { 2 }
}

fn lines_of<'e, 'a>(event: Option<&'e OrderEvent<'a>>) -> &'e [Item<'a>] {
    match event {
        Some(OrderEvent::Created { items, .. }) => items,
        Some(OrderEvent::ItemAdded(item)) => std::slice::from_ref(item),
        Some(OrderEvent::StatusChanged { .. }) | None => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::Sequence;
    use crate::views::orders::event::parse;

    fn tax(version: u32, fields: &str) -> Result<Option<String>, Reason> {
        let head = Head { key: "o-1", sequence: Sequence(2), event_type: None, version };
        let payload = format!(
            r#"{{"type":"OrderItemAdded","eventId":"e","occurredAt":"2026-01-01T00:00:00Z","orderId":"o-1",
            "itemId":"i","sku":"s","qty":1,"price":1{fields}}}"#
        );
        match parse(&head, &payload).map_err(|poison| poison.reason)?.event {
            Some(OrderEvent::ItemAdded(item)) => Ok(item.tax_rate.map(|rate| rate.to_string())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_versions_say_the_same_tax_exactly() {
        assert_eq!(tax(1, r#","taxRate":0.19"#), Ok(Some("0.19".to_owned())));
        assert_eq!(tax(2, r#","taxPercent":"19""#), Ok(Some("0.19".to_owned())));
        assert_eq!(tax(2, r#","taxPercent":"0.123456789012""#), Ok(Some("0.00123456789012".to_owned())));
        assert_eq!((tax(1, ""), tax(2, ""), tax(2, r#","taxPercent":null"#)), (Ok(None), Ok(None), Ok(None)));
    }

    #[test]
    fn a_field_of_the_next_version_is_ignored_and_one_of_the_last_is_refused() {
        assert_eq!(tax(1, r#","taxPercent":"19""#), Ok(None));
        assert_eq!(tax(2, r#","taxRate":0.19"#), Err(Reason::SchemaViolation));
        assert_eq!(tax(2, r#","taxPercent":"1e1""#), Err(Reason::SchemaViolation));
        assert_eq!(tax(3, ""), Err(Reason::UnsupportedVersion));
    }

    #[test]
    fn a_stored_event_is_of_the_version_that_its_lines_tell() {
        let item = |fields: &str| format!(r#"{{"itemId":"i","sku":"s","qty":1,"price":1{fields}}}"#);
        let created = |items: &[&str]| {
            let items: Vec<String> = items.iter().map(|fields| item(fields)).collect();
            format!(
                r#"{{"type":null,"orderId":"o-1","customerId":"c","currency":"EUR","items":[{}]}}"#,
                items.join(",")
            )
        };
        let line = |rate: Option<&str>| [("tax_rate".to_owned(), rate.map(str::to_owned))].into();
        let (taxed, untaxed) = (line(Some("0.19")), line(None));
        let of = |lines_before, payload: &str, stored: &[(i64, &crate::domain::comparison::RowText)]| {
            let event_type = Some("OrderCreated");
            let head = Head { key: "o-1", sequence: Sequence(2), event_type, version: 1 };
            let stored: StoredDetails = stored.iter().map(|(number, row)| (*number, (*row).clone())).collect();
            let version = of_stored(&head, payload, lines_before, &stored);
            assert!(parse_stored(&Head { version, ..head }, payload).unwrap().is_some(), "{payload}");
            version
        };
        let (rate, percent) = (r#","taxRate":"0.07""#, r#","taxPercent":19"#);
        assert_eq!(of(0, &created(&["", rate]), &[]), 1);
        assert_eq!(of(0, &created(&[percent, rate]), &[(1, &taxed)]), 1, "version 2 would have refused it");
        assert_eq!(of(0, &created(&["", percent]), &[(1, &untaxed), (2, &taxed)]), 2);
        assert_eq!(of(0, &created(&["", percent]), &[(1, &untaxed), (2, &untaxed)]), 1, "it was passed over");
        assert_eq!(of(3, &created(&[percent]), &[(1, &untaxed), (4, &taxed)]), 2);
        assert_eq!(of(3, &created(&[percent]), &[(1, &taxed), (4, &untaxed)]), 1);
        assert_eq!(of(0, &created(&[percent]), &[]), 2, "nothing tells: what the field is for");
        assert_eq!(of(0, &created(&[r#","taxPercent":"1e9""#]), &[(1, &taxed)]), 1);
    }
}
