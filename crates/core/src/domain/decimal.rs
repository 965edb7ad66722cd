//! Exact decimal numbers for money, quantities and rates. Every operation is exact or says that it cannot be.
//!
//! A value is `mantissa / 10^scale` with a 128-bit mantissa: 38 significant digits. No floats, no silent rounding;
//! rounding happens only in [`Decimal::round_half_even`], where the caller asks for it.

use std::fmt;

/// An exact decimal. Equality is by value: `1.50 == 1.5`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decimal {
    mantissa: i128,
    scale: u8,
}

/// The result does not fit 38 significant digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("number needs more than 38 significant digits")]
pub struct Overflow;

/// A text that is not a decimal number we accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not of the form `-?digits[.digits]` (exponents are not accepted).
    #[error("is not a plain decimal number")]
    Malformed,
    /// More than 18 digits before or 12 after the point, zeros at the end not counted.
    #[error("has more than {MAX_INTEGER_DIGITS} integer or {MAX_FRACTION_DIGITS} fraction digits")]
    TooLong,
}

/// Digits accepted before the point in an event.
pub const MAX_INTEGER_DIGITS: usize = 18;
/// Digits accepted after the point in an event.
pub const MAX_FRACTION_DIGITS: usize = 12;

impl Decimal {
    /// 0
    pub const ZERO: Decimal = Decimal { mantissa: 0, scale: 0 };
    /// 1
    pub const ONE: Decimal = Decimal { mantissa: 1, scale: 0 };

    /// `mantissa / 10^scale`
    pub const fn new(mantissa: i128, scale: u8) -> Self {
        Decimal { mantissa, scale }
    }

    /// The digits without the point, with the sign.
    pub const fn mantissa(self) -> i128 {
        self.mantissa
    }

    /// How many of the digits stand after the point.
    pub const fn scale(self) -> u8 {
        self.scale
    }

    /// Whether it is below zero.
    pub const fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// Whether it is zero.
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Reads a number as JSON writes it, without an exponent: `^-?(0|[1-9][0-9]*)(\.[0-9]+)?$`. Zeros at the end do not
    /// make it too long: equal values are treated alike, however they are written.
    pub fn parse(text: &str) -> Result<Decimal, ParseError> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (integer, fraction) = match digits.split_once('.') {
            Some((_, "")) => return Err(ParseError::Malformed),
            Some((integer, fraction)) => (integer, fraction),
            None => (digits, ""),
        };
        let well_formed = !integer.is_empty()
            && (integer.len() == 1 || !integer.starts_with('0'))
            && integer.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
        if !well_formed {
            return Err(ParseError::Malformed);
        }
        let fraction = without_surplus_zeros(fraction);
        if integer.len() > MAX_INTEGER_DIGITS || fraction.len() > MAX_FRACTION_DIGITS {
            return Err(ParseError::TooLong);
        }
        let magnitude =
            integer.bytes().chain(fraction.bytes()).fold(0i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        let mantissa = if negative { -magnitude } else { magnitude };
        Ok(Decimal { mantissa, scale: fraction.len() as u8 })
    }

    /// Exact sum.
    pub fn checked_add(self, other: Decimal) -> Result<Decimal, Overflow> {
        let scale = self.scale.max(other.scale);
        let (a, b) = (self.at_scale(scale)?, other.at_scale(scale)?);
        Ok(Decimal { mantissa: within_digits(a.checked_add(b).ok_or(Overflow)?)?, scale })
    }

    /// Exact product.
    pub fn checked_mul(self, other: Decimal) -> Result<Decimal, Overflow> {
        let mantissa = self.mantissa.checked_mul(other.mantissa).ok_or(Overflow)?;
        Ok(Decimal { mantissa: within_digits(mantissa)?, scale: self.scale + other.scale })
    }

    /// The nearest value with `digits` digits after the point; a tie goes to the even neighbour (IEEE 754
    /// roundTiesToEven, "banker's rounding"). Shorter values are widened, so the scale is always `digits`.
    pub fn round_half_even(self, digits: u8) -> Result<Decimal, Overflow> {
        if self.scale <= digits {
            return Ok(Decimal { mantissa: within_digits(self.at_scale(digits)?)?, scale: digits });
        }
        let divisor = 10i128.checked_pow(u32::from(self.scale - digits)).ok_or(Overflow)?;
        let (quotient, remainder) = (self.mantissa / divisor, (self.mantissa % divisor).abs());
        let up = match (remainder * 2).cmp(&divisor) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => quotient % 2 != 0,
        };
        let step = if !up { 0 } else { self.mantissa.signum() };
        Ok(Decimal { mantissa: quotient + step, scale: digits })
    }

    fn at_scale(self, scale: u8) -> Result<i128, Overflow> {
        let factor = 10i128.checked_pow(u32::from(scale - self.scale)).ok_or(Overflow)?;
        self.mantissa.checked_mul(factor).ok_or(Overflow)
    }

    fn normalized(self) -> (i128, u8) {
        let (mut mantissa, mut scale) = (self.mantissa, self.scale);
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        (mantissa, scale)
    }
}

/// The digits after the point without the zeros that are too many.
fn without_surplus_zeros(fraction: &str) -> &str {
    let Some((kept, surplus)) = fraction.split_at_checked(MAX_FRACTION_DIGITS) else { return fraction };
    if surplus.bytes().all(|digit| digit == b'0') { kept } else { fraction }
}

fn within_digits(mantissa: i128) -> Result<i128, Overflow> {
    const LIMIT: i128 = 10i128.pow(38) - 1;
    if (-LIMIT..=LIMIT).contains(&mantissa) { Ok(mantissa) } else { Err(Overflow) }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.normalized() == other.normalized()
    }
}

impl Eq for Decimal {}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let digits = self.mantissa.unsigned_abs().to_string();
        let scale = usize::from(self.scale);
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (integer, fraction) = padded.split_at(padded.len() - scale);
        write!(f, "{sign}{integer}.{fraction}")
    }
}

/// Digits after the point of a currency's smallest coin (ISO 4217); 2 for codes not listed.
pub fn minor_unit_digits(currency: Option<&str>) -> u8 {
    match currency {
        Some(
            "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
            | "VUV" | "XAF" | "XOF" | "XPF",
        ) => 0,
        Some("BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND") => 3,
        Some("CLF" | "UYW") => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap()
    }

    #[test]
    fn reads_and_writes_plain_decimals_only() {
        for text in ["0", "-0.5", "12.340", "999999999999999999.999999999999", "-1"] {
            assert_eq!(decimal(text).to_string(), text);
        }
        for text in ["", "-", ".5", "5.", "05", "1e3", "+1", "1.2.3", "NaN", " 1", "1_000", "-.1", "٣"] {
            assert_eq!(Decimal::parse(text).unwrap_err(), ParseError::Malformed, "{text}");
        }
        assert_eq!(Decimal::parse("1234567890123456789").unwrap_err(), ParseError::TooLong);
        assert_eq!(Decimal::parse("0.1234567890123").unwrap_err(), ParseError::TooLong);
    }

    #[test]
    fn zeros_at_the_end_make_no_number_too_long() {
        assert_eq!(decimal(&format!("9.99{}", "0".repeat(16))).to_string(), "9.990000000000");
        assert_eq!(decimal(&format!("-0.{}", "0".repeat(1000))), Decimal::ZERO);
        assert_eq!(Decimal::parse(&format!("9.99{}1", "0".repeat(16))).unwrap_err(), ParseError::TooLong);
        assert_eq!(Decimal::parse("1000000000000000000.0").unwrap_err(), ParseError::TooLong);
    }

    #[test]
    fn ties_round_to_even() {
        for (text, rounded) in [("0.125", "0.12"), ("0.135", "0.14"), ("-0.125", "-0.12"), ("-0.135", "-0.14")] {
            assert_eq!(decimal(text).round_half_even(2).unwrap().to_string(), rounded, "{text}");
        }
        assert_eq!(decimal("2.5").round_half_even(0).unwrap().to_string(), "2");
        assert_eq!(decimal("7").round_half_even(2).unwrap().to_string(), "7.00");
    }

    #[test]
    fn equality_and_sign_are_those_of_the_value() {
        for (one, other) in [("1.50", "1.5"), ("-1.50", "-1.5"), ("0.00", "0"), ("-0", "0"), ("100", "100.000")] {
            assert_eq!(decimal(one), decimal(other));
        }
        for (one, other) in [("1.5", "15"), ("1.5", "-1.5"), ("10", "1"), ("1.50", "1.05"), ("0.1", "0.01")] {
            assert_ne!(decimal(one), decimal(other));
        }
        let signs = ["-0.01", "0.00", "0.01"].map(|text| (decimal(text).is_negative(), decimal(text).is_zero()));
        assert_eq!(signs, [(true, false), (false, true), (false, false)]);
    }

    #[test]
    fn a_currency_has_as_many_digits_as_iso_4217_gives_its_smallest_coin() {
        let digits = ["JPY", "EUR", "KWD", "CLF", "???"].map(|code| minor_unit_digits(Some(code)));
        assert_eq!(digits, [0, 2, 3, 4, 2]);
        assert_eq!(minor_unit_digits(None), 2);
    }

    #[test]
    fn overflow_is_said_not_wrapped() {
        let huge = Decimal::new(10i128.pow(38) - 1, 0);
        assert_eq!(huge.checked_add(Decimal::ONE), Err(Overflow));
        assert_eq!(huge.checked_mul(decimal("10")), Err(Overflow));
        assert_eq!(huge.round_half_even(2), Err(Overflow));
    }

    proptest! {
        #[test]
        fn arithmetic_agrees_with_integers(a in -1_000_000_000i64..1_000_000_000, b in -1_000_000i64..1_000_000, s in 0u8..6, t in 0u8..6) {
            let (x, y) = (Decimal::new(a.into(), s), Decimal::new(b.into(), t));
            let wide = 10i128.pow(6);
            let scaled = |d: Decimal| d.mantissa() * wide / 10i128.pow(d.scale().into());
            prop_assert_eq!(scaled(x.checked_add(y).unwrap()), scaled(x) + scaled(y));
            let product = x.checked_mul(y).unwrap();
            prop_assert_eq!(product.mantissa(), i128::from(a) * i128::from(b));
            prop_assert_eq!(product.scale(), s + t);
        }
    }
}
