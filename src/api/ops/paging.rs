//! Keyset paging of the operators' lists: one direction, from a `Link` header.

use crate::api::parameters::{Parameters, encode};
use crate::api::problem::{self, Problem};
use crate::config::HttpSettings;
use crate::domain::page::{Cursor, Direction};

/// A list as it was asked for.
pub(in crate::api) struct Page {
    path: String,
    sort: &'static str,
    /// The filters, always spelled the same way; a cursor belongs to them.
    filters: String,
    /// Rows on a page.
    pub(in crate::api) limit: u32,
    /// Value and key of the row before the page.
    pub(in crate::api) after: Option<(String, String)>,
}

impl Page {
    /// Takes `pageSize` and `cursor`; ends the reading of the parameters.
    pub(in crate::api) fn take(
        mut parameters: Parameters,
        settings: &HttpSettings,
        (path, sort): (impl Into<String>, &'static str),
        filters: &[(&str, Option<String>)],
    ) -> Result<Self, Problem> {
        let limit = parameters.number("pageSize", 1..=settings.max_page_size).unwrap_or(settings.default_page_size);
        let cursor = parameters.one("cursor");
        parameters.finish()?;
        let given = filters.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_ref()?))));
        let filters = given.collect::<Vec<_>>().join("&");
        let after = match cursor {
            None => None,
            Some(text) => {
                let cursor = Cursor::decode(&text, sort, &filters).map_err(|error| fault(&text, &error.to_string()))?;
                Some((cursor.value, cursor.key))
            }
        };
        Ok(Page { path: path.into(), sort, filters, limit, after })
    }

    /// Cuts `rows`, one more than a page if there is a next one, and gives the `Link` header.
    pub(in crate::api) fn link<T>(&self, rows: &mut Vec<T>, position: impl Fn(&T) -> (String, String)) -> String {
        let more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let separator = if self.filters.is_empty() { "" } else { "&" };
        let base = format!("{}?{}{separator}pageSize={}", self.path, self.filters, self.limit);
        let mut link = format!("<{base}>; rel=\"first\"");
        if let (true, Some(last)) = (more, rows.last()) {
            let (value, key) = position(last);
            let cursor = Cursor { sort: self.sort.to_owned(), direction: Direction::After, value, key };
            link.push_str(&format!(", <{base}&cursor={}>; rel=\"next\"", cursor.encode(&self.filters)));
        }
        link
    }

    /// The id after which the page begins, of lists sorted by id.
    pub(in crate::api) fn after_id(&self) -> Result<Option<i64>, Problem> {
        let parse = |(_, key): &(String, String)| key.parse().map_err(|_| fault(key, "this position is not readable"));
        self.after.as_ref().map(parse).transpose()
    }

    /// The position is not one of this list.
    pub(super) fn unreadable(&self) -> Problem {
        fault("", "this cursor's position is not readable")
    }
}

/// Several values as a filter is spelled: repeated, so joined by the caller's name.
pub(super) fn each<'a>(name: &'a str, values: &[String]) -> Vec<(&'a str, Option<String>)> {
    values.iter().map(|value| (name, Some(value.clone()))).collect()
}

fn fault(text: &str, detail: &str) -> Problem {
    let allowed = "must be a cursor from the `Link` header of the same list";
    Problem::new(&problem::INVALID_CURSOR, detail).parameter("cursor", text, allowed)
}
