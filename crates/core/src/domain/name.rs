//! Names of views: few in a process, in every log line and metric, so each is kept once and for good.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, PoisonError};

/// Longest name of a view, in bytes: with a build's number behind it, it names a schema (63 bytes in Postgres).
pub const MAX_VIEW_NAME: usize = 48;

/// Whether `name` can be a view's: a lower-case letter, then lower-case letters, digits and underscores, at most
/// [`MAX_VIEW_NAME`]. It stands in names of schemas, routes and metric labels, so nothing has to be quoted anywhere.
pub fn is_view_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && name.len() <= MAX_VIEW_NAME
}

/// The one copy of `name`. It is never freed: only for what a process has few of.
pub fn intern(name: &str) -> &'static str {
    static NAMES: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        assert!(std::ptr::eq(intern("orders"), intern(&String::from("orders"))));
        assert_ne!(intern("orders"), intern("pings"));
    }

    #[test]
    fn names_that_would_need_quotes_are_none() {
        let longest = "v".repeat(MAX_VIEW_NAME);
        for good in ["orders", "o", "pings_per_minute2", longest.as_str()] {
            assert!(is_view_name(good), "{good}");
        }
        for bad in ["", "Orders", "2orders", "_o", "or-ders", "or ders", "o\"", "ö", &format!("{longest}v")] {
            assert!(!is_view_name(bad), "{bad}");
        }
    }
}
