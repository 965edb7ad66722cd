//! Writes the JSON text of an Avro body, within bounds that Postgres' `jsonb` and our memory have.

use std::fmt::Write;

use crate::domain::poison::{Poison, Reason};

/// A text may grow to this many bytes per byte of its body, for names of fields stand in it and not in the body ...
const GROWTH: usize = 32;
/// ... and to this many bytes beyond.
const HEADROOM: usize = 4 * 1024;
/// Longest number, in digits; the same bound as in JSON payloads.
const MAX_DIGITS: usize = 1000;

/// A JSON text in the making.
pub struct Text {
    out: String,
    limit: usize,
}

impl Text {
    /// For a body of so many bytes.
    pub fn new(body: usize) -> Self {
        Text { out: String::with_capacity(body * 2 + 64), limit: body.saturating_mul(GROWTH).saturating_add(HEADROOM) }
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.out
    }

    /// Checks the bound: called once per value, so that each value adds something bounded to it.
    #[inline]
    pub fn check(&self) -> Result<(), Poison> {
        if self.out.len() <= self.limit {
            return Ok(());
        }
        let detail = format!("as JSON the body has more than {} bytes", self.limit);
        Err(Poison::new(Reason::Unrepresentable, detail))
    }

    /// Text that is JSON already.
    #[inline]
    pub fn raw(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Something whose text is a JSON value, or stands between quotes in it.
    pub fn display(&mut self, value: impl std::fmt::Display) {
        write!(self.out, "{value}").expect("a String takes everything");
    }

    /// A number of our own making, as a JSON string.
    pub fn quoted(&mut self, value: impl std::fmt::Display) {
        write!(self.out, "\"{value}\"").expect("a String takes everything");
    }

    /// A float; what JSON has no number for is a string.
    pub fn float(&mut self, value: f64) {
        if value.is_finite() { write!(self.out, "{value:?}") } else { write!(self.out, "\"{value}\"") }
            .expect("a String takes everything");
    }

    /// A text, escaped.
    pub fn string(&mut self, text: &str) -> Result<(), Poison> {
        self.out.push('"');
        // Without a way out in the middle the compiler looks at many bytes at once.
        let is_odd = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
        if !text.bytes().fold(false, |odd, byte| odd | is_odd(byte)) {
            self.out.push_str(text);
            self.out.push('"');
            return Ok(());
        }
        let mut plain = 0;
        for (index, byte) in text.bytes().enumerate() {
            if !is_odd(byte) {
                continue;
            }
            self.out.push_str(&text[plain..index]);
            plain = index + 1;
            match byte {
                0 => return Err(Poison::new(Reason::Unrepresentable, "a text holds a NUL character")),
                b'"' => self.out.push_str("\\\""),
                b'\\' => self.out.push_str("\\\\"),
                b'\n' => self.out.push_str("\\n"),
                control => write!(self.out, "\\u{control:04x}").expect("a String takes everything"),
            }
        }
        self.out.push_str(&text[plain..]);
        self.out.push('"');
        Ok(())
    }

    /// Bytes as base64.
    pub fn bytes(&mut self, bytes: &[u8]) {
        use base64::Engine as _;
        self.out.push('"');
        base64::engine::general_purpose::STANDARD.encode_string(bytes, &mut self.out);
        self.out.push('"');
    }

    /// A moment as RFC 3339 in UTC; beyond the years that have such a form, the count itself.
    pub fn time(&mut self, time: Result<jiff::Timestamp, jiff::Error>, count: i64) {
        match time {
            Ok(time) => self.quoted(time),
            Err(_) => self.display(count),
        }
    }

    /// `mantissa / 10^scale` as a string, for the numbers that events have.
    pub fn short_decimal(&mut self, mantissa: i64, scale: usize) {
        let mut digits = [b'0'; 24];
        let (mut at, mut rest) = (digits.len(), mantissa.unsigned_abs());
        let mut written = 0;
        while rest > 0 || written <= scale {
            if written == scale && scale > 0 {
                at -= 1;
                digits[at] = b'.';
            }
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            written += 1;
        }
        self.out.push_str(if mantissa < 0 { "\"-" } else { "\"" });
        self.out.push_str(std::str::from_utf8(&digits[at..]).expect("digits are ASCII"));
        self.out.push('"');
    }

    /// A two's-complement number of any length with so many zeros behind it, as a string.
    pub fn whole_decimal(&mut self, bytes: &[u8], zeros: usize) -> Result<(), Poison> {
        let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
        let digits = magnitude_digits(bytes, is_negative)?;
        let (sign, zeros) = (if is_negative { "-" } else { "" }, if digits == "0" { 0 } else { zeros });
        self.quoted(format_args!("{sign}{digits}{:0<zeros$}", ""));
        Ok(())
    }

    /// A two's-complement number of any length with `scale` digits after the point, as a string.
    pub fn decimal(&mut self, bytes: &[u8], scale: usize) -> Result<(), Poison> {
        let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
        let mut digits = magnitude_digits(bytes, is_negative)?;
        if digits.len() <= scale {
            digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
        }
        let (integer, fraction) = digits.split_at(digits.len() - scale);
        self.out.push('"');
        if is_negative {
            self.out.push('-');
        }
        self.out.push_str(integer);
        if scale > 0 {
            self.out.push('.');
            self.out.push_str(fraction);
        }
        self.out.push('"');
        Ok(())
    }
}

fn magnitude_digits(bytes: &[u8], is_negative: bool) -> Result<String, Poison> {
    if let Some(small) = small_integer(bytes) {
        return Ok(small.unsigned_abs().to_string());
    }
    // 2.408 digits per byte
    if bytes.len() > MAX_DIGITS * 5 / 12 {
        let detail = format!("a decimal has more than {MAX_DIGITS} digits");
        return Err(Poison::new(Reason::Unrepresentable, detail));
    }
    let mut magnitude: Vec<u8> = bytes.to_vec(); // most significant first
    if is_negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, overflow);
        }
    }
    const CHUNK: u64 = 1_000_000_000;
    let mut chunks: Vec<u64> = Vec::new(); // least significant first
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut remainder = 0u64;
        for byte in &mut magnitude {
            let value = remainder * 256 + u64::from(*byte);
            *byte = (value / CHUNK) as u8;
            remainder = value % CHUNK;
        }
        chunks.push(remainder);
    }
    let mut digits = chunks.pop().unwrap_or(0).to_string();
    for chunk in chunks.iter().rev() {
        write!(digits, "{chunk:09}").expect("a String takes everything");
    }
    Ok(digits)
}

/// A big-endian two's-complement number, if it fits.
pub fn small_integer(bytes: &[u8]) -> Option<i128> {
    let fill = if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0 };
    let surplus = bytes.len().saturating_sub(16);
    if bytes[..surplus].iter().any(|byte| *byte != fill) {
        return None;
    }
    let mut whole = [fill; 16];
    whole[16 - (bytes.len() - surplus)..].copy_from_slice(&bytes[surplus..]);
    let number = i128::from_be_bytes(whole);
    // With leading bytes cut off the sign must still be the same.
    ((number < 0) == (fill == 0xff)).then_some(number)
}
