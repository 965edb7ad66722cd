//! What changed between versions of the order events, and how the older ones are read as if they were the newest. Pure.
//!
//! | `x-event-version` | what a line says of its tax |
//! |---|---|
//! | 1 (or no header) | `taxRate`, a fraction: `0.19` |
//! | 2 | `taxPercent`: `19` |

use crate::codec::fields::{self, Field};
use crate::domain::decimal::Decimal;
use crate::domain::poison::{Poison, Reason};
use crate::views::orders::event::Fields;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Head;
    use crate::domain::units::Sequence;
    use crate::views::orders::event::{OrderEvent, parse};

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
}
