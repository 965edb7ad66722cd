//! Which functions a statement may call: the engine's own by a list, an administrator's by a setting, and some never.

use super::Dialect;
use crate::settings::Limits;

/// Functions that read files, reach out to the network, run code or tell of secrets, in modules and plug-ins that may be
/// loaded in an engine. No setting allows them.
const DENIED: [&str; 30] = [
    "AI_COMPLETE",
    "AI_EMBED",
    "ASSERT_TRUE",
    "AZURE_BLOB_READ",
    "CALL_PROCEDURE",
    "DBMS_LOB",
    "EXEC",
    "GET_SECRET",
    "HTTP_GET",
    "HTTP_POST",
    "INVOKE",
    "IN_FILE",
    "JAVA_METHOD",
    "KEY_SEARCH_AGG",
    "LOAD_FILE",
    "LO_IMPORT",
    "ML_EVALUATE",
    "ML_FORECAST",
    "ML_PREDICT",
    "PG_READ_FILE",
    "PYTHON",
    "READ_FILE",
    "REFLECT",
    "REFLECT2",
    "SHELL",
    "SYSTEM",
    "VECTOR_SEARCH",
    "VECTOR_SEARCH_AGG",
    "XP_CMDSHELL",
    "XMLPARSE",
];

/// Whether a function may be called.
pub(super) enum Verdict {
    /// It may.
    Allowed,
    /// It never may.
    Denied,
    /// Nobody knows it; perhaps this one was meant.
    Unknown(Option<&'static str>),
}

/// `name` is in upper case.
pub(super) fn verdict(name: &str, dialect: &Dialect, limits: &Limits) -> Verdict {
    if DENIED.contains(&name) {
        return Verdict::Denied;
    }
    if dialect.has_function(name) || limits.functions.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
        return Verdict::Allowed;
    }
    Verdict::Unknown(nearest(name, dialect.functions.lines()))
}

/// The name that is at most two letters away, if there is one.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let far = if name.len() < 4 { 1 } else { 2 };
    let near = names.filter(|other| other.len().abs_diff(name.len()) <= far && name.len() <= 64);
    let with_distance = near.map(|other| (distance(&name.to_ascii_uppercase(), &other.to_ascii_uppercase()), other));
    with_distance.filter(|(distance, _)| *distance <= far).min_by_key(|(distance, _)| *distance).map(|(_, other)| other)
}

/// How many letters must be put in, taken out or replaced.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<u8> = other.bytes().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (number, letter) in one.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = number + 1;
        for (place, other) in other.iter().enumerate() {
            let replaced = corner + usize::from(letter != *other);
            corner = row[place + 1];
            row[place + 1] = replaced.min(corner + 1).min(row[place] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
