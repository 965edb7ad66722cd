//! Numbers of JSON that those who read it with doubles would round: they become text.

use std::borrow::Cow;

/// So many significant digits survive in a double, whatever they are.
const SAFE_DIGITS: usize = 15;
/// Up to here a double holds every whole number, and shows it digit by digit; beyond, JavaScript shows -2^63 as
/// -9223372036854776000.
const EXACT: u128 = 1 << 53;
/// The longest number that is looked at closely; a longer one is text.
const MOST_DIGITS: usize = 64;

/// The same JSON, with each number that a double would round written as text with the same digits. `json` is valid JSON.
pub fn exact_numbers(json: &str) -> Cow<'_, str> {
    let bytes = json.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = behind_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let end = behind_number(bytes, at);
                if !survives(&json[at..end]) {
                    out.push_str(&json[copied..at]);
                    out.push('"');
                    out.push_str(&json[at..end]);
                    out.push('"');
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    out.push_str(&json[copied..]);
    Cow::Owned(out)
}

fn behind_string(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn behind_number(bytes: &[u8], start: usize) -> usize {
    let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    start + bytes[start..].iter().take_while(|byte| is_of_number(byte)).count()
}

/// Whether a double that is read from the number has its digits.
pub(super) fn survives(number: &str) -> bool {
    if let Ok(whole) = number.parse::<i128>() {
        return whole.unsigned_abs() <= EXACT;
    }
    let Some((digits, _)) = significant(number) else { return false };
    let fits = number.parse::<f64>().is_ok_and(f64::is_finite);
    if digits.len() <= SAFE_DIGITS && fits && number.len() <= MOST_DIGITS {
        // Too small for a double is as bad as too large.
        return digits.is_empty() || number.parse::<f64>().is_ok_and(|double| double.is_normal());
    }
    let read = number.parse::<f64>().ok().filter(|double| double.is_finite() && number.len() <= MOST_DIGITS);
    read.is_some_and(|double| significant(&format!("{double:e}")) == significant(number))
}

/// The significant digits, and the power of ten of the first one.
fn significant(number: &str) -> Option<(String, i64)> {
    let number = number.trim_start_matches('-');
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let zeros = all.len() - all.trim_start_matches('0').len();
    let digits = all[zeros..].trim_end_matches('0').to_owned();
    let power = exponent.checked_add(whole.len() as i64 - 1 - zeros as i64)?;
    Some(if digits.is_empty() { (digits, 0) } else { (digits, power) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_numbers_that_a_double_would_round_become_text() {
        let same = [
            r#"{"a":1,"b":[-0.1,1e3],"c":"9007199254740993","d":"\"9007199254740993"}"#,
            "9007199254740992",
            "123456789012345.0",
            "0",
            "-0.0e-999",
            "1.7976931348623157e308",
        ];
        for json in same {
            assert_eq!(exact_numbers(json), json);
        }
        for (json, exact) in [
            ("9007199254740993", r#""9007199254740993""#),
            ("[9223372036854775807, 1]", r#"["9223372036854775807", 1]"#),
            (r#"{"amount":0.12345678901234567890}"#, r#"{"amount":"0.12345678901234567890"}"#),
            ("-9223372036854775808", r#""-9223372036854775808""#),
            ("1e999", r#""1e999""#),
            ("1e-999", r#""1e-999""#),
            ("18446744073709551615", r#""18446744073709551615""#),
        ] {
            assert_eq!(exact_numbers(json), exact);
        }
    }

    proptest! {
        #[test]
        fn what_stays_a_number_is_one_that_survives(number: i64) {
            let text = number.to_string();
            let stays = exact_numbers(&text) == text.as_str();
            prop_assert_eq!(stays, number.unsigned_abs() <= 1 << 53);
        }

        #[test]
        fn doubles_stay_numbers(number in proptest::num::f64::NORMAL) {
            let text = format!("{number:e}");
            prop_assert_eq!(exact_numbers(&text), text.as_str());
        }
    }
}
