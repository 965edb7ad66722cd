//! Strict query parameters: nothing unknown, nothing twice, nothing malformed, and every fault named at once.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use jiff::Timestamp;

use super::problem::{self, ParameterError, Problem};
use crate::codec::json;
use crate::repair::request;

/// The longest identifier taken as a parameter, in characters.
pub const MAX_ID_CHARS: usize = 256;

/// Unix time of the earliest moment that Postgres knows: the beginning of Julian day 0.
const EARLIEST_SECOND: i64 = -2_440_588 * 86_400;

/// The parameters of one request, taken out one by one.
#[derive(Debug)]
pub struct Parameters {
    received: Vec<(String, String)>,
    errors: Vec<ParameterError>,
}

impl Parameters {
    /// Reads a raw query string; only the names in `allowed` may occur.
    pub fn parse(query: &str, allowed: &[&str]) -> Self {
        let mut parameters = Parameters { received: Vec::new(), errors: Vec::new() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = decode(&raw_name.replace('+', " ")) else {
                parameters.reject(raw_name, raw_value, "the name is not percent-encoded UTF-8 without NUL");
                continue;
            };
            if !allowed.contains(&name.as_str()) {
                parameters.reject(&name, raw_value, &unknown(&name, allowed));
                continue;
            }
            match decode(&raw_value.replace('+', " ")) {
                Some(value) => parameters.received.push((name, value)),
                None => parameters.reject(&name, raw_value, "the value is not percent-encoded UTF-8 without NUL"),
            }
        }
        parameters
    }

    /// Adds a fault.
    pub fn reject(&mut self, parameter: &str, value: &str, detail: &str) {
        let error = ParameterError {
            parameter: problem::shorten(parameter),
            value: problem::shorten(value),
            detail: detail.into(),
        };
        self.errors.push(error);
    }

    /// Whether there is one of this name that was not taken yet.
    pub fn has(&self, name: &str) -> bool {
        self.received.iter().any(|(received, _)| received == name)
    }

    /// Every value of a repeatable parameter.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        self.received.extract_if(.., |(received, _)| received == name).map(|(_, value)| value).collect()
    }

    /// The value of a parameter that may occur once.
    pub fn one(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name).into_iter();
        let value = values.next()?;
        if let Some(second) = values.next() {
            self.reject(name, &second, "is given more than once, but takes one value");
        }
        Some(value)
    }

    /// A text of 1 to 256 characters.
    pub fn id(&mut self, name: &str) -> Option<String> {
        let value = self.one(name)?;
        self.checked_id(name, value)
    }

    /// Texts of 1 to 256 characters each, at most `most` of them; sorted, without repetitions.
    pub fn ids(&mut self, name: &str, most: usize) -> Vec<String> {
        let values = self.all(name);
        if values.len() > most {
            self.reject(name, &values[most], &format!("is given {} times, at most {most} are allowed", values.len()));
            return Vec::new();
        }
        let mut checked: Vec<String> = values.into_iter().filter_map(|value| self.checked_id(name, value)).collect();
        checked.sort();
        checked.dedup();
        checked
    }

    fn checked_id(&mut self, name: &str, value: String) -> Option<String> {
        if is_id(&value) {
            return Some(value);
        }
        self.reject(name, &value, "must have 1 to 256 characters");
        None
    }

    /// A whole number in `range`.
    pub fn number<N: FromStr + PartialOrd + Display>(&mut self, name: &str, range: RangeInclusive<N>) -> Option<N> {
        let value = self.one(name)?;
        let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse::<N>() {
            Ok(number) if plain && range.contains(&number) => Some(number),
            _ => {
                let detail = format!("must be a whole number from {} to {}", range.start(), range.end());
                self.reject(name, &value, &detail);
                None
            }
        }
    }

    /// A whole number from `least` on. How far our own type reaches is not said: numbers of events have 18 digits at most.
    pub fn number_from(&mut self, name: &str, least: i64) -> Option<i64> {
        let value = self.one(name)?;
        let number = whole_number(&value).filter(|number| *number >= least);
        if number.is_none() {
            self.reject(name, &value, &whole_number_form(least));
        }
        number
    }

    /// The number of a page, from 1. One deeper than `deepest` is a number all the same: what is said of it is the list's.
    pub fn page(&mut self, name: &str, deepest: u64) -> Option<u64> {
        let value = self.one(name)?;
        let is_plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        let page = value.parse().ok().filter(|page| is_plain && *page > 0);
        if page.is_none() {
            self.reject(name, &value, &format!("must be a whole number from 1 to {deepest}"));
        }
        page
    }

    /// Two moments, of which the first is not after the second.
    pub fn times(&mut self, from: &str, to: &str) -> (Option<Timestamp>, Option<Timestamp>) {
        let given = self.received.iter().find(|(name, _)| name == from).map(|(_, value)| value.clone());
        let (begins, ends) = (self.time(from), self.time(to));
        if let (Some(begin), Some(end), Some(given)) = (begins, ends, given)
            && begin > end
        {
            self.reject(from, &given, &format!("must not be after `{to}`, which is {end}"));
        }
        (begins, ends)
    }

    /// Two ages: at least `older`, and less than `newer`.
    pub fn ages(&mut self, older: &str, newer: &str) -> (Option<i64>, Option<i64>) {
        let given = self.received.iter().find(|(name, _)| name == older).map(|(_, value)| value.clone());
        let (least, most) = (self.age(older), self.age(newer));
        if let (Some(why), Some(given)) = (request::empty_window(least, most), given) {
            self.reject(older, &given, &format!("must not be {why} `{newer}`"));
        }
        (least, most)
    }

    /// A moment, RFC 3339 with its offset.
    pub fn time(&mut self, name: &str) -> Option<Timestamp> {
        let value = self.one(name)?;
        if let Ok(time) = value.parse::<Timestamp>()
            && is_of_postgres(time)
            && json::is_a_second(&value, time)
        {
            return Some(time);
        }
        let hint = if value.replace(' ', "+").parse::<Timestamp>().is_ok() { "; write its `+` as `%2B`" } else { "" };
        let detail = format!("must be an RFC 3339 time with offset, like 2026-01-31T12:00:00Z or …+01:00{hint}");
        self.reject(name, &value, &detail);
        None
    }

    /// An age in seconds: a number of them, or an ISO 8601 duration.
    pub fn age(&mut self, name: &str) -> Option<i64> {
        let value = self.one(name)?;
        let age = request::age(&value);
        if age.is_none() {
            self.reject(name, &value, request::AGE_FORM);
        }
        age
    }

    /// `true` or `false`.
    pub fn switch(&mut self, name: &str) -> Option<bool> {
        let value = self.one(name)?;
        let switch = value.parse().ok();
        if switch.is_none() {
            self.reject(name, &value, "must be true or false");
        }
        switch
    }

    /// Words out of `known`, each at most once.
    pub fn words(&mut self, name: &str, known: &[&str]) -> Vec<String> {
        let words = self.ids(name, known.len());
        for word in words.iter().filter(|word| !known.contains(&word.as_str())) {
            self.reject(name, word, &format!("must be one of {}", known.join(", ")));
        }
        words
    }

    /// Ends the reading: every fault found, in one problem.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::of_parameters(self.errors)) }
    }
}

/// Whether Postgres has a word for this moment.
pub fn is_of_postgres(time: Timestamp) -> bool {
    time.as_second() >= EARLIEST_SECOND
}

/// A whole number as it is written in a query or a path: digits only.
pub fn whole_number(text: &str) -> Option<i64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// What such a number has to be.
pub fn whole_number_form(least: i64) -> String {
    format!("must be a whole number from {least}, of at most 18 digits")
}

/// Whether `value` is usable as an id.
pub fn is_id(value: &str) -> bool {
    !value.is_empty() && value.chars().nth(MAX_ID_CHARS).is_none()
}

/// What is said of an unknown name, with the nearest known one.
pub fn unknown(name: &str, allowed: &[&str]) -> String {
    if allowed.is_empty() {
        return "is unknown; this resource takes no parameters".into();
    }
    let nearest = allowed.iter().max_by(|a, b| {
        let similarity = |known: &str| strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase());
        similarity(a).total_cmp(&similarity(b))
    });
    let hint = match nearest {
        Some(known) if strsim::jaro_winkler(&known.to_lowercase(), &name.to_lowercase()) > 0.75 => {
            format!(", did you mean `{known}`?")
        }
        _ => String::from(";"),
    };
    format!("is unknown{hint} Allowed: {}", allowed.join(", "))
}

/// Percent-decodes to UTF-8 without NUL; `None` where that does not go.
pub fn decode(raw: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        decoded.push((high * 16 + low) as u8);
    }
    String::from_utf8(decoded).ok().filter(|text| !text.contains('\0'))
}

/// Percent-encodes everything but the unreserved characters.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(query: &str, read: impl FnOnce(&mut Parameters)) -> ParameterError {
        let mut parameters = Parameters::parse(query, &["status", "pageSize", "from"]);
        read(&mut parameters);
        let problem = parameters.finish().unwrap_err();
        assert_eq!((problem.code(), problem.errors().len()), ("invalid_parameter", 1), "{query}");
        problem.errors()[0].clone()
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_known_one() {
        let error = fault("pagesize=3", |_| ());
        assert_eq!((error.parameter.as_str(), error.value.as_str()), ("pagesize", "3"));
        assert!(error.detail.contains("did you mean `pageSize`?"), "{}", error.detail);
        assert!(!fault("zzz=3", |_| ()).detail.contains("did you mean"));
    }

    #[test]
    fn a_second_value_is_refused() {
        let error = fault("pageSize=3&pageSize=4", |parameters| {
            assert_eq!(parameters.number("pageSize", 1..=200_u32), Some(3));
        });
        assert!(error.detail.contains("more than once"), "{}", error.detail);
    }

    #[test]
    fn numbers_name_their_range() {
        for value in ["0", "201", "-1", "+5", "1.0", "abc", "", "99999999999999999999"] {
            let error = fault(&format!("pageSize={}", encode(value)), |parameters| {
                assert_eq!(parameters.number("pageSize", 1..=200_u32), None);
            });
            assert_eq!((error.value.as_str(), error.detail.as_str()), (value, "must be a whole number from 1 to 200"));
        }
    }

    #[test]
    fn bounds_are_those_of_the_thing_and_not_of_our_types() {
        for value in ["0", "-1", "x", "", "99999999999999999999"] {
            let error =
                fault(&format!("from={value}"), |parameters| assert_eq!(parameters.number_from("from", 1), None));
            assert_eq!(error.detail, "must be a whole number from 1, of at most 18 digits", "{value}");
        }
        for value in ["0", "-1", "x", "", "99999999999999999999"] {
            let error = fault(&format!("from={value}"), |parameters| assert_eq!(parameters.page("from", 201), None));
            assert_eq!(error.detail, "must be a whole number from 1 to 201", "{value}");
        }
        assert_eq!(Parameters::parse("from=202", &["from"]).page("from", 201), Some(202), "too deep, but a page");
    }

    #[test]
    fn a_window_that_ends_before_it_begins_is_refused() {
        let error = fault("from=2026-02-01T00:00:00%2B01:00&status=2026-01-01T00:00:00Z", |parameters| {
            parameters.times("from", "status");
        });
        assert_eq!((error.parameter.as_str(), error.value.as_str()), ("from", "2026-02-01T00:00:00+01:00"));
        assert_eq!(error.detail, "must not be after `status`, which is 2026-01-01T00:00:00Z");
        let error = fault("from=P1D&status=PT1H", |parameters| {
            assert_eq!(parameters.ages("from", "status"), (Some(86_400), Some(3_600)));
        });
        assert_eq!((error.parameter.as_str(), error.value.as_str()), ("from", "P1D"));
        assert_eq!(error.detail, "must not be longer ago than `status`");
        for fine in ["from=2026-01-01T00:00:00Z&status=2026-01-01T01:00:00%2B01:00", "from=2026-01-01T00:00:00Z"] {
            let mut parameters = Parameters::parse(fine, &["status", "from"]);
            parameters.times("from", "status");
            parameters.finish().unwrap();
        }
        let mut parameters = Parameters::parse("from=3600&status=PT1H", &["status", "from"]);
        assert_eq!(parameters.ages("from", "status"), (Some(3600), Some(3600)));
        parameters.finish().unwrap();
    }

    #[test]
    fn times_need_an_offset() {
        for value in ["2026-01-01", "2026-01-01T00:00:00", "yesterday", "-009999-01-01T00:00:00Z"] {
            let error = fault(&format!("from={value}"), |parameters| assert_eq!(parameters.time("from"), None));
            assert!(error.detail.contains("RFC 3339"), "{}", error.detail);
        }
        let unencoded = fault("from=2026-01-01T00:00:00+01:00", |parameters| assert_eq!(parameters.time("from"), None));
        assert!(unencoded.detail.contains("%2B"), "{}", unencoded.detail);
        let mut parameters = Parameters::parse("from=2026-01-01T00:00:00%2B01:00", &["from"]);
        assert_eq!(parameters.time("from").unwrap().to_string(), "2025-12-31T23:00:00Z");
    }

    #[test]
    fn malformed_encoding_and_nul_are_refused() {
        for value in ["%", "%2", "%zz", "%ff", "%00", "a%00b"] {
            let error = fault(&format!("status={value}"), |_| ());
            assert_eq!((error.parameter.as_str(), error.value.as_str()), ("status", value));
        }
    }

    #[test]
    fn ids_have_a_length_and_a_count() {
        let long = "é".repeat(257);
        for value in ["", long.as_str()] {
            let error = fault(&format!("status={value}"), |parameters| assert!(parameters.ids("status", 3).is_empty()));
            assert!(error.detail.contains("1 to 256"), "{}", error.detail);
        }
        fault("status=a&status=b&status=c&status=d", |parameters| assert!(parameters.ids("status", 3).is_empty()));
        let mut fine =
            Parameters::parse(&format!("status=b&status=a&status=b&status={}", "é".repeat(256)), &["status"]);
        assert_eq!(fine.ids("status", 4)[..2], ["a", "b"]);
        fine.finish().unwrap();
    }

    #[test]
    fn encoding_reads_back() {
        let text = "a b&c=d/é%+\"";
        assert_eq!(decode(&encode(text)).as_deref(), Some(text));
    }
}
