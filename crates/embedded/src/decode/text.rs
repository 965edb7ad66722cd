//! Numbers as exact decimals, by their digits.

/// So many digits fit into 64 bits, whatever they are.
const SMALL_DIGITS: usize = 19;

/// The number as so many units of 10^-`scale`; `None` if it is no number, has more digits behind the point than that, or more
/// than `precision` in all.
pub(super) fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // Zeros at the end change nothing but the place of the point.
    let fraction = fraction.trim_end_matches('0');
    let digits = || whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0');
    let mut units: i128 = if whole.len() + fraction.len() <= SMALL_DIGITS {
        // Most are: half as long as with 128 bits and a look at each digit.
        digits().fold(0_u64, |units, digit| units * 10 + u64::from(digit)).into()
    } else {
        digits().try_fold(0_i128, |units, digit| units.checked_mul(10)?.checked_add(digit.into()))?
    };
    let mut shift = i64::from(scale) + i64::from(exponent) - i64::try_from(fraction.len()).ok()?;
    while shift > 0 && units != 0 {
        units = units.checked_mul(10)?;
        shift -= 1;
    }
    while shift < 0 && units != 0 {
        if units % 10 != 0 {
            return None;
        }
        units /= 10;
        shift += 1;
    }
    let fits = units.checked_ilog10().unwrap_or_default() < u32::from(precision);
    fits.then_some(if is_negative { -units } else { units })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_by_their_digits_and_never_rounded() {
        for (text, precision, scale, expected) in [
            ("12.50", 10, 2, Some(1_250)),
            ("1e3", 10, 2, Some(100_000)),
            ("-0.5", 10, 2, Some(-50)),
            ("123456789012345678.10", 20, 2, Some(12_345_678_901_234_567_810)),
            ("1E-2", 10, 2, Some(1)),
            ("1.2300e0", 10, 2, Some(123)),
            ("0e999999", 10, 2, Some(0)),
            ("99999999999999999999999999999999999999", 38, 0, Some(99_999_999_999_999_999_999_999_999_999_999_999_999)),
            ("100000000000000000000000000000000000000", 38, 0, None),
            ("9999999999999999999", 38, 0, Some(9_999_999_999_999_999_999)),
            ("18446744073709551616", 38, 0, Some(18_446_744_073_709_551_616)),
            ("9999999999.999999999", 38, 9, Some(9_999_999_999_999_999_999)),
            ("0.005", 10, 2, None),
            ("1e38", 38, 0, None),
            ("1e999999999", 38, 0, None),
            ("123456789", 8, 0, None),
            ("", 10, 2, None),
            (".5", 10, 2, None),
            ("1.5.2", 10, 2, None),
            ("abc", 10, 2, None),
            ("1 ", 10, 2, None),
            ("NaN", 10, 2, None),
        ] {
            assert_eq!(decimal(text, precision, scale), expected, "{text}");
        }
    }
}
