//! How our exact types travel in Postgres' binary format: NUMERIC and timestamptz, without a detour over text; and our
//! words, which are checked on the way in.

use std::error::Error;
use std::fmt::{Display, Write};
use std::str::FromStr;

use serde::{Serialize, Serializer};
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::domain::decimal::Decimal;
use crate::domain::units::Micros;

/// What is wrong with a value.
pub type BoxedError = Box<dyn Error + Sync + Send>;

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

/// A decimal as NUMERIC: the domain's type knows no driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlDecimal(pub Decimal);

impl ToSql for SqlDecimal {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        put_numeric(self.0, out);
        Ok(IsNull::No)
    }

    accepts!(NUMERIC);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for SqlDecimal {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        let words: Vec<u16> = raw.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        let [count, weight, sign, scale, groups @ ..] = words.as_slice() else { return Err("short NUMERIC".into()) };
        if !matches!(*sign, POSITIVE | NEGATIVE) {
            return Err("NUMERIC is NaN or infinite".into());
        }
        let too_large = || BoxedError::from("NUMERIC needs more than 38 digits");
        // The groups read as an integer end at this many digits after the point (negative: before it).
        let end = 4 * (i32::from(*count) - 1 - i32::from(*weight as i16));
        let shift = if *count == 0 { 0 } else { i32::from(*scale) - end };
        // The last group may reach beyond the scale: read whole, it would need up to three digits more than the number has.
        let beyond = u32::try_from(-shift).unwrap_or(0).min(4);
        let mut mantissa = 0i128;
        for (index, group) in groups.iter().enumerate() {
            let cut = 10i128.pow(if index + 1 == groups.len() { beyond } else { 0 });
            let shifted = mantissa.checked_mul(10_000 / cut).ok_or_else(too_large)?;
            mantissa = shifted.checked_add(i128::from(*group) / cut).ok_or_else(too_large)?;
        }
        let factor = 10i128.checked_pow(u32::try_from(shift).unwrap_or(0)).ok_or_else(too_large)?;
        mantissa = mantissa.checked_mul(factor).ok_or_else(too_large)?;
        let signed = if *sign == NEGATIVE { -mantissa } else { mantissa };
        Ok(SqlDecimal(Decimal::new(signed, u8::try_from(*scale).map_err(|_| too_large())?)))
    }

    accepts!(NUMERIC);
}

/// A NUMERIC as it came, with every digit. Its text is what `numeric_out` of PostgreSQL prints.
#[derive(Debug, Clone, Copy)]
pub struct Numeric<'a> {
    weight: i16,
    is_negative: bool,
    scale: u16,
    groups: &'a [u8],
}

impl<'a> Numeric<'a> {
    /// Reads the binary form.
    pub fn read(raw: &'a [u8]) -> Result<Self, BoxedError> {
        let Some((head, groups)) = raw.split_first_chunk::<8>() else { return Err("short NUMERIC".into()) };
        let word = |index: usize| u16::from_be_bytes([head[index], head[index + 1]]);
        let (count, weight, sign, scale) = (word(0), word(2) as i16, word(4), word(6));
        if !matches!(sign, POSITIVE | NEGATIVE) || groups.len() != 2 * usize::from(count) {
            return Err("NUMERIC is NaN, infinite or cut off".into());
        }
        Ok(Numeric { weight, is_negative: sign == NEGATIVE, scale, groups })
    }

    /// The group worth 10,000 to the power of `power`.
    fn group(&self, power: i32) -> u16 {
        let index = usize::try_from(i32::from(self.weight) - power).unwrap_or(usize::MAX);
        let pair = index.checked_mul(2).and_then(|start| self.groups.get(start..start + 2));
        pair.map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// Plain decimal notation.
    pub fn text(&self) -> String {
        let scale = usize::from(self.scale);
        let mut text = String::with_capacity(4 * usize::try_from(self.weight).unwrap_or(0) + scale + 10);
        if self.is_negative {
            text.push('-');
        }
        let first = i32::from(self.weight).max(0);
        push_group(&mut text, self.group(first), false);
        (0..first).rev().for_each(|power| push_group(&mut text, self.group(power), true));
        if scale > 0 {
            text.push('.');
            let end = text.len() + scale;
            (1..=scale.div_ceil(4) as i32).for_each(|place| push_group(&mut text, self.group(-place), true));
            text.truncate(end);
        }
        text
    }
}

/// Four digits, or as many as it takes.
fn push_group(text: &mut String, group: u16, all: bool) {
    let mut begun = all;
    for unit in [1000, 100, 10, 1] {
        let digit = (group / unit % 10) as u8;
        begun |= digit > 0 || unit == 1;
        if begun {
            text.push(char::from(b'0' + digit));
        }
    }
}

impl<'a> FromSql<'a> for Numeric<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        Numeric::read(raw)
    }

    accepts!(NUMERIC);
}

impl Serialize for Numeric<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// An array of rows of `N` columns, as `array(select row(…))` gives it; each column as it came, `None` for null.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a, const N: usize> {
    raw: &'a [u8],
}

impl<'a, const N: usize> Records<'a, N> {
    /// Row by row (source: `array_send` and `record_send` of PostgreSQL).
    pub fn read(self) -> Result<Vec<[Option<&'a [u8]>; N]>, BoxedError> {
        let mut rest = self.raw;
        let (dimensions, _flags, _type) = (next_i32(&mut rest)?, next_i32(&mut rest)?, next_i32(&mut rest)?);
        if dimensions == 0 {
            return Ok(Vec::new());
        }
        let (length, _first) = (next_i32(&mut rest)?, next_i32(&mut rest)?);
        let mut records = Vec::with_capacity(usize::try_from(length)?.min(rest.len()));
        for _ in 0..length {
            let _bytes = next_i32(&mut rest)?;
            if dimensions != 1 || usize::try_from(next_i32(&mut rest)?)? != N {
                return Err("not an array of rows of as many columns".into());
            }
            let mut columns = [None; N];
            for column in &mut columns {
                let _type = next_i32(&mut rest)?;
                *column = next_value(&mut rest)?;
            }
            records.push(columns);
        }
        Ok(records)
    }
}

fn next_i32(rest: &mut &[u8]) -> Result<i32, BoxedError> {
    let (word, after) = rest.split_first_chunk::<4>().ok_or("cut off")?;
    *rest = after;
    Ok(i32::from_be_bytes(*word))
}

fn next_value<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BoxedError> {
    let Ok(length) = usize::try_from(next_i32(rest)?) else { return Ok(None) };
    let (value, after) = rest.split_at_checked(length).ok_or("cut off")?;
    *rest = after;
    Ok(Some(value))
}

impl<'a, const N: usize> FromSql<'a> for Records<'a, N> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        Ok(Records { raw })
    }

    accepts!(RECORD_ARRAY);
}

/// One of a list of words, as text; an unknown one is an error that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<T>(pub T);

impl<'a, T> FromSql<'a> for Word<T>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    fn from_sql(column: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        Ok(Word(<&str>::from_sql(column, raw)?.parse()?))
    }

    accepts!(TEXT);
}

/// `{1,2}`: an array as text. Arrays of arrays cannot be unnested row by row, so each of them travels like this. Only for
/// numbers and plain words: nothing is quoted.
pub fn array_text(elements: impl IntoIterator<Item = impl Display>) -> String {
    let mut text = String::from("{");
    for (index, element) in elements.into_iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(text, "{comma}{element}").expect("a String takes everything");
    }
    text.push('}');
    text
}

/// A timestamptz as microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlTimestamp(pub Micros);

/// Postgres counts from 2000-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl SqlTimestamp {
    /// As Postgres counts. Times that an event can have are far from the ends of the range.
    pub fn since_2000(self) -> i64 {
        self.0.0.saturating_sub(POSTGRES_EPOCH)
    }
}

impl ToSql for SqlTimestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        out.extend_from_slice(&self.since_2000().to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for SqlTimestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        let value = i64::from_be_bytes(raw.try_into()?);
        Ok(SqlTimestamp(Micros(value.checked_add(POSTGRES_EPOCH).ok_or("time is infinite")?)))
    }

    accepts!(TIMESTAMPTZ);
}

/// A timestamptz as the calendar of an answer shows it; `None` for what Postgres has and that calendar has not: years
/// after 9999, and the two infinities. One such value is no reason to show nothing of the other rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenTime(pub Option<jiff::Timestamp>);

impl<'a> FromSql<'a> for SeenTime {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        let since_2000 = i64::from_be_bytes(raw.try_into()?);
        let micros = since_2000.checked_add(POSTGRES_EPOCH);
        Ok(SeenTime(micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())))
    }

    accepts!(TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Three digits more than 38 stand on the wire, since it goes by groups of four.
    #[test]
    fn a_number_of_38_digits_is_read_as_it_was_written() {
        for (mantissa, scale) in [(10i128.pow(38) - 1, 2), (-170_485_060_234_421_741_519_066_003_014_336_071, 33)] {
            let sent = Decimal::new(mantissa, scale);
            let mut bytes = BytesMut::new();
            put_numeric(sent, &mut bytes);
            let SqlDecimal(received) = SqlDecimal::from_sql(&Type::NUMERIC, &bytes).unwrap();
            assert_eq!((received.mantissa(), received.scale()), (mantissa, scale));
        }
    }

    #[test]
    fn what_no_calendar_of_ours_has_is_no_time() {
        let read = |since_2000: i64| SeenTime::from_sql(&Type::TIMESTAMPTZ, &since_2000.to_be_bytes()).unwrap().0;
        for far in [i64::MAX, i64::MIN, Micros::LATEST.0 - POSTGRES_EPOCH + 1, 9_223_371_331_199_999_999] {
            assert_eq!(read(far), None, "{far}");
        }
        assert_eq!(read(Micros::LATEST.0 - POSTGRES_EPOCH), jiff::Timestamp::from_microsecond(Micros::LATEST.0).ok());
        assert!(read(Micros::EARLIEST.0 - POSTGRES_EPOCH).is_some());
    }

    proptest! {
        #[test]
        fn numeric_survives_the_wire(
            mantissa in prop_oneof![-10i128.pow(38) + 1..10i128.pow(38), -10_000_000i128..10_000_000],
            scale in 0u8..=38,
        ) {
            let sent = Decimal::new(mantissa, scale);
            let mut bytes = BytesMut::new();
            SqlDecimal(sent).to_sql(&Type::NUMERIC, &mut bytes).unwrap();
            let SqlDecimal(received) = SqlDecimal::from_sql(&Type::NUMERIC, &bytes).unwrap();
            prop_assert_eq!((received.mantissa(), received.scale()), (sent.mantissa(), sent.scale()));
            prop_assert_eq!(Numeric::read(&bytes).unwrap().text(), sent.to_string());
        }
    }
}
