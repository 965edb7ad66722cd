//! Walks one body by its program: fields that the view wants on one side, the JSON text of everything on the other.

use jiff::SignedDuration;
use jiff::civil::DateTime;

use crate::codec::avro::Event;
use crate::codec::avro::bytes::{Bytes, broken};
use crate::codec::avro::compile::{MAX_SCALE, Node, Program};
use crate::codec::avro::render::{Text, small_integer};
use crate::codec::fields::{FieldSet, Typed};
use crate::codec::frame::uuid_text;
use crate::codec::json::MAX_DEPTH;
use crate::domain::decimal::{Decimal, MAX_FRACTION_DIGITS, MAX_INTEGER_DIGITS};
use crate::domain::poison::{Poison, Reason};
use crate::domain::units::Micros;

/// Most rows of a list that are handed to a view; of a longer one the view gets one row more, so that it can tell.
pub const MAX_ROWS: usize = 10_000;

/// Reads a whole body.
pub fn read<'a>(program: &'a Program, body: &'a [u8]) -> Result<Event<'a>, Poison> {
    let mut walk = Walk { program, bytes: Bytes(body), text: Text::new(body.len()), depth: 0 };
    let mut node = &program.nodes[program.root];
    if let Node::Union(variants) = node {
        node = &program.nodes[walk.variant(variants)?];
    }
    let Node::Record(record) = node else { return Err(broken("the body is no record")) };
    let mut fields = FieldSet::new();
    walk.record(*record, Some(&mut fields))?;
    if !walk.bytes.0.is_empty() {
        return Err(broken(format!("{} bytes follow the event", walk.bytes.0.len())));
    }
    let record = &program.records[*record];
    Ok(Event { record: &record.name, is_ours: record.is_ours, fields, json: walk.text.finish() })
}

struct Walk<'a> {
    program: &'a Program,
    bytes: Bytes<'a>,
    text: Text,
    depth: usize,
}

impl<'a> Walk<'a> {
    fn variant(&mut self, variants: &[usize]) -> Result<usize, Poison> {
        let index = self.bytes.long()?;
        let variant = usize::try_from(index).ok().and_then(|index| variants.get(index));
        variant.copied().ok_or_else(|| broken(format!("branch {index} of a union that has {}", variants.len())))
    }

    /// Reads a record; its wanted fields go into `fields`, if somebody wants them.
    fn record(&mut self, record: usize, mut fields: Option<&mut FieldSet<'a>>) -> Result<(), Poison> {
        let record = &self.program.records[record];
        self.enter()?;
        if let Some(fields) = fields.as_deref_mut() {
            fields.reserve_exact(record.wanted);
            fields.extend(record.defaults.iter().map(|(slot, default)| (*slot, default.typed())));
        }
        self.text.raw("{");
        for member in &record.fields {
            self.text.raw(&member.label);
            match (member.slot, fields.as_deref_mut()) {
                (Some(slot), Some(fields)) => fields.push((slot, self.wanted(member.node)?)),
                _ => drop(self.value(member.node)?),
            }
        }
        self.text.raw("}");
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Poison> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let detail = format!("records, arrays and maps are nested deeper than {MAX_DEPTH}");
            return Err(Poison::new(Reason::NestingTooDeep, detail));
        }
        self.text.check()
    }

    /// Reads a value of which a view may want the rows.
    fn wanted(&mut self, node: usize) -> Result<Typed<'a>, Poison> {
        let nodes = &self.program.nodes;
        match &nodes[node] {
            Node::Union(variants) => {
                let variant = self.variant(variants)?;
                self.wanted(variant)
            }
            Node::Array(entries) => match nodes[*entries] {
                Node::Record(record) => {
                    let mut rows = Vec::new();
                    self.entries("[", "]", |walk| {
                        if rows.len() > MAX_ROWS {
                            return walk.record(record, None);
                        }
                        let mut fields = FieldSet::new();
                        walk.record(record, Some(&mut fields))?;
                        rows.push(fields);
                        Ok(())
                    })?;
                    Ok(Typed::Rows(rows))
                }
                _ => self.value(node),
            },
            _ => self.value(node),
        }
    }

    /// Reads any value and writes its text.
    fn value(&mut self, node: usize) -> Result<Typed<'a>, Poison> {
        self.text.check()?;
        Ok(match &self.program.nodes[node] {
            Node::Null => {
                self.text.raw("null");
                Typed::Null
            }
            Node::Text => {
                let text = self.bytes.text()?;
                self.text.string(text)?;
                Typed::Text(text)
            }
            Node::Decimal { scale, fixed } => {
                let bytes = match fixed {
                    Some(size) => self.bytes.take(*size)?,
                    None => self.bytes.run()?,
                };
                self.decimal(bytes, *scale)?
            }
            Node::Millis => self.time(1_000)?,
            Node::Micros => self.time(1_000_000)?,
            Node::Nanos => self.time(1_000_000_000)?,
            Node::Int => {
                let number = self.bytes.int()?;
                self.text.display(number);
                Typed::Integer(number.into())
            }
            Node::Long => {
                let number = self.bytes.long()?;
                self.text.display(number);
                Typed::Integer(number)
            }
            Node::Enum(symbols) => {
                let index = self.bytes.long()?;
                let symbol = usize::try_from(index).ok().and_then(|index| symbols.get(index));
                let symbol = symbol.ok_or_else(|| broken(format!("symbol {index} of an enum that has fewer")))?;
                self.text.string(symbol)?;
                Typed::Text(symbol)
            }
            Node::Union(variants) => {
                let variant = self.variant(variants)?;
                return self.value(variant);
            }
            Node::Record(record) => {
                self.record(*record, None)?;
                Typed::Other("a record")
            }
            Node::Array(entries) => {
                self.entries("[", "]", |walk| walk.value(*entries).map(drop))?;
                Typed::Other("a list of something else")
            }
            Node::Map(entries) => {
                self.entries("{", "}", |walk| {
                    let key = walk.bytes.text()?;
                    walk.text.string(key)?;
                    walk.text.raw(":");
                    walk.value(*entries).map(drop)
                })?;
                Typed::Other("a map")
            }
            plain => self.plain(plain)?,
        })
    }

    /// What no field of ours can be.
    fn plain(&mut self, node: &Node) -> Result<Typed<'a>, Poison> {
        Ok(match node {
            Node::Boolean => {
                let value = self.bytes.boolean()?;
                self.text.display(value);
                Typed::Other(if value { "true" } else { "false" })
            }
            Node::Float => {
                let value = self.bytes.float()?;
                // Through its shortest digits: 0.1 as a float is not 0.1 as a double.
                self.text.float(value.to_string().parse().unwrap_or(f64::from(value)));
                Typed::Other("a float, which is not exact")
            }
            Node::Double => {
                let value = self.bytes.double()?;
                self.text.float(value);
                Typed::Other("a double, which is not exact")
            }
            Node::Date => {
                let days = self.bytes.int()?;
                let date = jiff::Span::new().try_days(days);
                match date.and_then(|span| jiff::civil::date(1970, 1, 1).checked_add(span)) {
                    Ok(date) => self.text.quoted(date),
                    Err(_) => self.text.display(days),
                }
                Typed::Other("a date")
            }
            Node::NoMoment { what, per_second } => {
                let count = self.bytes.long()?;
                match civil(count, *per_second).filter(|_| self.program.spells_times) {
                    Some(at) => self.text.quoted(at),
                    None => self.text.display(count),
                }
                Typed::Other(what)
            }
            Node::TimeOfDay { per_second } => {
                let count = if *per_second == 1_000 { self.bytes.int()?.into() } else { self.bytes.long()? };
                match civil(count, *per_second).filter(|at| at.date() == EPOCH.date()) {
                    Some(at) => self.text.quoted(at.time()),
                    None => self.text.display(count),
                }
                Typed::Other("a time of day")
            }
            Node::Uuid { has_length } => self.uuid(*has_length)?,
            Node::BigDecimal => self.big_decimal()?,
            Node::Fixed(size) => {
                let bytes = self.bytes.take(*size)?;
                self.text.bytes(bytes);
                Typed::Other("bytes without a logical type")
            }
            _ => {
                let bytes = self.bytes.run()?;
                self.text.bytes(bytes);
                Typed::Other("bytes without a logical type")
            }
        })
    }

    fn time(&mut self, per_second: i64) -> Result<Typed<'a>, Poison> {
        let count = self.bytes.long()?;
        let time = match per_second {
            1_000 => jiff::Timestamp::from_millisecond(count),
            1_000_000 => jiff::Timestamp::from_microsecond(count),
            _ => jiff::Timestamp::from_nanosecond(count.into()),
        };
        let typed = match &time {
            Ok(time) if time.as_microsecond() >= Micros::EARLIEST.0 => Typed::Micros(Micros(time.as_microsecond())),
            _ => Typed::Other("a time after the year 9999 or before 24 November 4714 BC"),
        };
        if time.is_err()
            && self.program.spells_times
            && let Some(at) = civil(count, per_second)
        {
            // The last two hours of the year 9999, where times that never come are put.
            self.text.quoted(format_args!("{at}Z"));
        } else {
            self.text.time(time, count);
        }
        Ok(typed)
    }

    fn decimal(&mut self, bytes: &[u8], scale: usize) -> Result<Typed<'a>, Poison> {
        let number = small_integer(bytes);
        match number.and_then(|number| i64::try_from(number).ok()) {
            Some(short) if scale <= MAX_FRACTION_DIGITS => self.text.short_decimal(short, scale),
            _ => self.text.decimal(bytes, scale)?,
        }
        let exact = number.and_then(|number| within_bounds(number, scale));
        Ok(exact.map_or(Typed::Other("a decimal of more digits"), Typed::Decimal))
    }

    fn uuid(&mut self, has_length: bool) -> Result<Typed<'a>, Poison> {
        let bytes = if has_length { self.bytes.run()? } else { self.bytes.take(16)? };
        let Ok(uuid) = <[u8; 16]>::try_from(bytes) else {
            self.text.bytes(bytes);
            return Ok(Typed::Other("a UUID that has not 16 bytes"));
        };
        let uuid = u128::from_be_bytes(uuid);
        self.text.quoted(uuid_text(uuid));
        Ok(Typed::Uuid(uuid))
    }

    /// A number with its scale: bytes that hold bytes and an int.
    fn big_decimal(&mut self) -> Result<Typed<'a>, Poison> {
        let mut inner = Bytes(self.bytes.run()?);
        let (digits, scale) = (inner.run()?, inner.int()?);
        if !inner.0.is_empty() {
            return Err(broken(format!("{} bytes follow the scale of a big-decimal", inner.0.len())));
        }
        if scale.unsigned_abs() as usize > MAX_SCALE {
            let detail = format!("a big-decimal has a scale of {scale}, at most {MAX_SCALE} either way");
            return Err(Poison::new(Reason::Unrepresentable, detail));
        }
        if let Ok(scale) = usize::try_from(scale) {
            return self.decimal(digits, scale);
        }
        let zeros = scale.unsigned_abs();
        self.text.whole_decimal(digits, zeros as usize)?;
        let number = small_integer(digits).and_then(|number| match number {
            0 => Some(0),
            number => number.checked_mul(10i128.checked_pow(zeros)?),
        });
        let exact = number.and_then(|number| within_bounds(number, 0));
        Ok(exact.map_or(Typed::Other("a decimal of more digits"), Typed::Decimal))
    }

    /// Reads the blocks of a list or map, each entry by `entry`.
    fn entries(
        &mut self,
        open: &str,
        close: &str,
        mut entry: impl FnMut(&mut Self) -> Result<(), Poison>,
    ) -> Result<(), Poison> {
        self.enter()?;
        self.text.raw(open);
        let mut is_first = true;
        loop {
            let count = self.bytes.block()?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                if !is_first {
                    self.text.raw(",");
                }
                is_first = false;
                // Entries may take no bytes at all, so the bound of the text is what ends a lie about their number.
                self.text.check()?;
                entry(self)?;
            }
        }
        self.text.raw(close);
        self.depth -= 1;
        Ok(())
    }
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// What a clock without a zone shows so many parts of a second after 1970 began; `None` beyond the years -9999 to 9999.
fn civil(count: i64, per_second: i64) -> Option<DateTime> {
    let passed = match per_second {
        1_000 => SignedDuration::from_millis(count),
        1_000_000 => SignedDuration::from_micros(count),
        _ => SignedDuration::from_nanos(count),
    };
    EPOCH.checked_add(passed).ok()
}

/// The decimal, if it has at most as many digits as an event may give; zeros at the end do not count.
fn within_bounds(mut mantissa: i128, mut scale: usize) -> Option<Decimal> {
    const SHORT: u128 = 10u128.pow(MAX_INTEGER_DIGITS as u32);
    if scale <= MAX_FRACTION_DIGITS && mantissa.unsigned_abs() < SHORT {
        return Some(Decimal::new(mantissa, scale as u8));
    }
    while scale > MAX_FRACTION_DIGITS && mantissa % 10 == 0 {
        mantissa /= 10;
        scale -= 1;
    }
    let limit = 10u128.pow((MAX_INTEGER_DIGITS + scale.min(MAX_FRACTION_DIGITS)) as u32);
    let fits = scale <= MAX_FRACTION_DIGITS && mantissa.unsigned_abs() < limit;
    fits.then(|| Decimal::new(mantissa, scale as u8))
}
