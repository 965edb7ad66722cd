//! How our exact types travel in Postgres' binary format: NUMERIC and timestamptz, without a detour over text.

use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::domain::decimal::Decimal;

type BoxedError = Box<dyn Error + Sync + Send>;

const NEGATIVE: u16 = 0x4000;
const POSITIVE: u16 = 0;

/// NUMERIC on the wire: group count, weight of the first group, sign, display scale (u16 each, big endian), then
/// groups in base 10,000 (source: `numeric_send` of PostgreSQL).
pub fn put_numeric(value: Decimal, out: &mut BytesMut) {
    let scale = value.scale();
    let (mut integer, mut fraction) = at_the_point(value.mantissa().unsigned_abs(), scale);
    let mut groups = [0u16; GROUPS]; // least significant first
    let fraction_groups = usize::from(scale).div_ceil(4);
    for (number, group) in groups[..fraction_groups].iter_mut().enumerate() {
        // The last group may have fewer digits than four: they are its first ones.
        let missing = if number == 0 { 4 * fraction_groups - usize::from(scale) } else { 0 };
        let padding = 10u64.pow(missing as u32);
        *group = (take_rest(&mut fraction, 10_000 / padding) * padding) as u16;
    }
    let mut count = fraction_groups;
    while integer > 0 {
        groups[count] = take_rest(&mut integer, 10_000) as u16;
        count += 1;
    }
    while count > 0 && groups[count - 1] == 0 {
        count -= 1;
    }
    let weight = count as i32 - fraction_groups as i32 - 1;
    let trailing = groups[..count].iter().take_while(|group| **group == 0).count();
    let sign = if value.is_negative() { NEGATIVE } else { POSITIVE };
    for word in [(count - trailing) as u16, weight as i16 as u16, sign, scale.into()] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for group in groups[trailing..count].iter().rev() {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

/// A scale of 255 and an integer part of 39 digits.
const GROUPS: usize = 64 + 10;

/// What stands before and after the point. Divisions of 128 bits are calls, and hardly a value needs them.
fn at_the_point(magnitude: u128, scale: u8) -> (u128, u128) {
    match (u64::try_from(magnitude), 10u64.checked_pow(scale.into()), 10u128.checked_pow(scale.into())) {
        (Ok(magnitude), Some(unit), _) => ((magnitude / unit).into(), (magnitude % unit).into()),
        (_, _, Some(unit)) => (magnitude / unit, magnitude % unit),
        // No mantissa has so many digits.
        (_, _, None) => (0, magnitude),
    }
}

/// Divides `value` by `step`, gives the rest.
fn take_rest(value: &mut u128, step: u64) -> u64 {
    let (quotient, rest) = match u64::try_from(*value) {
        Ok(small) => ((small / step).into(), small % step),
        Err(_) => (*value / u128::from(step), (*value % u128::from(step)) as u64),
    };
    *value = quotient;
    rest
}

impl ToSql for Decimal {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        put_numeric(*self, out);
        Ok(IsNull::No)
    }

    accepts!(NUMERIC);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Decimal {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        let words: Vec<u16> = raw.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        let [count, weight, sign, scale, groups @ ..] = words.as_slice() else { return Err("short NUMERIC".into()) };
        if !matches!(*sign, POSITIVE | NEGATIVE) {
            return Err("NUMERIC is NaN or infinite".into());
        }
        let too_large = || BoxedError::from("NUMERIC needs more than 38 digits");
        let mut mantissa = 0i128;
        for group in groups {
            mantissa =
                mantissa.checked_mul(10_000).and_then(|m| m.checked_add((*group).into())).ok_or_else(too_large)?;
        }
        // The groups read as an integer end at this many digits after the point (negative: before it).
        let end = 4 * (i32::from(*count) - 1 - i32::from(*weight as i16));
        let shift = if *count == 0 { 0 } else { i32::from(*scale) - end };
        let factor = 10i128.checked_pow(shift.unsigned_abs()).ok_or_else(too_large)?;
        mantissa = if shift >= 0 { mantissa.checked_mul(factor).ok_or_else(too_large)? } else { mantissa / factor };
        let signed = if *sign == NEGATIVE { -mantissa } else { mantissa };
        Ok(Decimal::new(signed, u8::try_from(*scale).map_err(|_| too_large())?))
    }

    accepts!(NUMERIC);
}

/// A timestamptz as microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Micros(pub i64);

/// Postgres counts from 2000-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl Micros {
    /// As Postgres counts. Times that an event can have are far from the ends of the range.
    pub fn since_2000(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH)
    }
}

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        out.extend_from_slice(&self.since_2000().to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        let value = i64::from_be_bytes(raw.try_into()?);
        Ok(Micros(value.checked_add(POSTGRES_EPOCH).ok_or("time is infinite")?))
    }

    accepts!(TIMESTAMPTZ);
}

/// JSON as text that goes into a `jsonb` column: version 1 of its binary form is the text (source: `jsonb_recv`).
#[derive(Debug, Clone, Copy)]
pub struct JsonText<'a>(pub &'a str);

impl JsonText<'_> {
    /// Writes the binary form.
    pub fn put_binary(self, out: &mut BytesMut) {
        out.extend_from_slice(&[1]);
        out.extend_from_slice(self.0.as_bytes());
    }
}

impl ToSql for JsonText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        self.put_binary(out);
        Ok(IsNull::No)
    }

    accepts!(JSONB);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numeric_survives_the_wire(
            mantissa in prop_oneof![-10i128.pow(34)..10i128.pow(34), -10_000_000i128..10_000_000],
            scale in 0u8..30,
        ) {
            let sent = Decimal::new(mantissa, scale);
            let mut bytes = BytesMut::new();
            sent.to_sql(&Type::NUMERIC, &mut bytes).unwrap();
            let received = Decimal::from_sql(&Type::NUMERIC, &bytes).unwrap();
            prop_assert_eq!((received.mantissa(), received.scale()), (sent.mantissa(), sent.scale()));
        }
    }
}
