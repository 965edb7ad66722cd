//! Bodies: how long they may take, and JSON read strictly: nothing unknown, nothing malformed, and every fault named at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, web};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::parameters::unknown;
use super::problem::{self, ParameterError, Problem, shorten};
use super::{Api, LAST_WORDS};
use crate::repair::request;

/// Without a service around it, as in tests.
const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

/// Reads a body of at most `limit` bytes that says it is JSON: a web page of somebody else cannot send that type without
/// asking first.
pub async fn read(request: &HttpRequest, payload: web::Payload, limit: usize) -> Result<web::Bytes, Problem> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let detail = format!("Content-Type is `{}`, it has to be `application/json`", shorten(essence));
        return Err(Problem::new(&problem::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let too_long = || Problem::new(&problem::BODY_TOO_LARGE, format!("The body has more than {limit} bytes"));
    whole(request, payload, limit).await?.ok_or_else(too_long)
}

/// All of a body; `None` if it has more than `limit` bytes. Whoever sends it has `http.send_timeout_ms` for that, and a moment once
/// the process stops: nothing else would ever end a request whose body does not come.
pub async fn whole(request: &HttpRequest, payload: web::Payload, limit: usize) -> Result<Option<web::Bytes>, Problem> {
    let api = request.app_data::<web::Data<Api>>();
    let patience = api.map_or(DEFAULT_PATIENCE, |api| Duration::from_millis(api.state.settings.send_timeout_ms));
    let why = tokio::select! {
        read = payload.to_bytes_limited(limit) => return match read {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(_)) => Err(Problem::new(&problem::BAD_REQUEST, "The body ended before all of it was there")),
            Err(_) => Ok(None),
        },
        () = tokio::time::sleep(patience) => format!("Not all of the body was there within {} ms", patience.as_millis()),
        () = last_words(api) => "Not all of the body was there when the service stopped".to_owned(),
    };
    Err(Problem::new(&problem::BODY_TOO_SLOW, why))
}

/// Returns when the process stops and everybody has had time to say the rest.
async fn last_words(api: Option<&web::Data<Api>>) {
    match api {
        Some(api) => {
            api.state.shutting_down.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        }
        None => std::future::pending().await,
    }
}

/// The fields of one JSON object, taken out one by one.
pub struct Body {
    fields: BTreeMap<String, Box<RawValue>>,
    /// What stands before a field's name in a fault: `filter.` within a filter.
    place: &'static str,
    errors: Vec<ParameterError>,
}

impl Body {
    /// Reads an object; only the names in `allowed` may occur.
    pub fn parse(bytes: &[u8], allowed: &[&str]) -> Result<Self, Problem> {
        let fields = serde_json::from_slice(bytes).map_err(|error| {
            let detail = format!("The body is not a JSON object: {error}");
            Problem::new(&problem::INVALID_BODY, detail)
        })?;
        Ok(Body::of(fields, "", allowed))
    }

    fn of(fields: BTreeMap<String, Box<RawValue>>, place: &'static str, allowed: &[&str]) -> Self {
        let mut body = Body { fields, place, errors: Vec::new() };
        let (known, strange): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut body.fields).into_iter().partition(|(name, _)| allowed.contains(&name.as_str()));
        body.fields = known.into_iter().filter(|(_, value)| value.get() != "null").collect();
        for (name, value) in strange {
            body.reject(&name, value.get(), &unknown(&name, allowed));
        }
        body
    }

    /// Adds a fault.
    pub fn reject(&mut self, field: &str, value: &str, detail: &str) {
        let parameter = format!("{}{}", self.place, shorten(field));
        self.errors.push(ParameterError { parameter, value: shorten(value), detail: detail.to_owned() });
    }

    /// A field as it is written; null counts as left out.
    pub fn raw(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.fields.remove(name)
    }

    /// The same, of a field that has to be there.
    pub fn required(&mut self, name: &str, form: &str) -> Option<Box<RawValue>> {
        let raw = self.raw(name);
        if raw.is_none() {
            self.reject(name, "", &format!("is missing; {form}"));
        }
        raw
    }

    /// A text of 1 to `most` characters without NUL.
    pub fn text(&mut self, name: &str, most: usize) -> Option<String> {
        let raw = self.raw(name)?;
        self.checked_text(name, &raw, most)
    }

    /// The same, of a field that has to be there.
    pub fn required_text(&mut self, name: &str, most: usize) -> Option<String> {
        let raw = self.required(name, &text_form(most))?;
        self.checked_text(name, &raw, most)
    }

    /// Whether a field is there and not null.
    pub fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// The same as [`Body::text`], where `form` says better what it has to be.
    pub fn text_of(&mut self, name: &str, most: usize, form: &str) -> Option<String> {
        let raw = self.raw(name)?;
        self.text_in(name, &raw, most, form)
    }

    /// Whatever `T` reads; `form` says what that is.
    pub fn value<T: DeserializeOwned>(&mut self, name: &str, is_required: bool, form: &str) -> Option<T> {
        let raw = if is_required { self.required(name, form) } else { self.raw(name) }?;
        match serde_json::from_str(raw.get()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.reject(name, raw.get(), &format!("{form}: {error}"));
                None
            }
        }
    }

    fn checked_text(&mut self, name: &str, raw: &RawValue, most: usize) -> Option<String> {
        self.text_in(name, raw, most, &text_form(most))
    }

    fn text_in(&mut self, name: &str, raw: &RawValue, most: usize, form: &str) -> Option<String> {
        let text = serde_json::from_str::<String>(raw.get()).ok();
        let fits = |text: &String| !text.trim().is_empty() && text.chars().nth(most).is_none() && !text.contains('\0');
        let text = text.filter(fits);
        if text.is_none() {
            self.reject(name, raw.get(), form);
        }
        text
    }

    /// A whole number in `range`.
    pub fn number(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let raw = self.raw(name)?;
        let number = raw.get().parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let detail = format!("must be a whole number from {} to {}", range.start(), range.end());
            self.reject(name, raw.get(), &detail);
        }
        number
    }

    /// `true` or `false`.
    pub fn switch(&mut self, name: &str) -> Option<bool> {
        let raw = self.raw(name)?;
        let switch = raw.get().parse().ok();
        if switch.is_none() {
            self.reject(name, raw.get(), "must be true or false");
        }
        switch
    }

    /// An age: seconds as a number or text, or an ISO 8601 duration.
    pub fn age(&mut self, name: &str) -> Option<i64> {
        let raw = self.raw(name)?;
        let text = serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned());
        let age = request::age(&text);
        if age.is_none() {
            self.reject(name, raw.get(), request::AGE_FORM);
        }
        age
    }

    /// Two ages: at least `older`, and less than `newer`.
    pub fn ages(&mut self, older: &str, newer: &str) -> (Option<i64>, Option<i64>) {
        let given = self.fields.get(older).map(|raw| raw.get().to_owned());
        let (least, most) = (self.age(older), self.age(newer));
        if let (Some(why), Some(given)) = (request::empty_window(least, most), given) {
            self.reject(older, &given, &format!("must not be {why} `{}{newer}`", self.place));
        }
        (least, most)
    }

    /// One word or several, out of `known`.
    pub fn words(&mut self, name: &str, known: &[&str]) -> Vec<String> {
        let Some(raw) = self.raw(name) else { return Vec::new() };
        let words = serde_json::from_str::<Vec<String>>(raw.get())
            .or_else(|_| serde_json::from_str::<String>(raw.get()).map(|word| vec![word]));
        match words {
            Ok(mut words) if words.iter().all(|word| known.contains(&word.as_str())) => {
                words.sort();
                words.dedup();
                words
            }
            _ => {
                self.reject(name, raw.get(), &format!("must be one or several of {}", known.join(", ")));
                Vec::new()
            }
        }
    }

    /// An object that has to be there; its faults are named with `place` before the field.
    pub fn object(&mut self, name: &str, place: &'static str, allowed: &[&str]) -> Option<Body> {
        let form = format!("must be an object with any of {}", allowed.join(", "));
        let raw = self.required(name, &form)?;
        match serde_json::from_str(raw.get()) {
            Ok(fields) => Some(Body::of(fields, place, allowed)),
            Err(_) => {
                self.reject(name, raw.get(), &form);
                None
            }
        }
    }

    /// Takes over the faults of an inner object.
    pub fn adopt(&mut self, inner: Body) {
        self.errors.extend(inner.errors);
    }

    /// Ends the reading: every fault found, in one problem.
    pub fn finish(self) -> Result<(), Problem> {
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::of_fields(self.errors)) }
    }
}

fn text_form(most: usize) -> String {
    format!("must be a text of 1 to {most} characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_named_at_once() {
        let text = br#"{"reasons": 1, "from": "2", "to": 1.5, "actor": "", "filter": {"olderthan": 1, "reason": "x"}}"#;
        let mut body = Body::parse(text, &["reason", "from", "to", "actor", "filter"]).unwrap();
        assert_eq!(body.required_text("reason", 500), None);
        assert_eq!((body.number("from", 1..=9), body.number("to", 1..=9)), (None, None));
        assert_eq!(body.text("actor", 9), None);
        let mut filter = body.object("filter", "filter.", &["reason", "olderThan"]).unwrap();
        assert!(filter.words("reason", &["gap"]).is_empty());
        body.adopt(filter);
        let problem = body.finish().unwrap_err();
        let named: Vec<&str> = problem.errors().iter().map(|error| error.parameter.as_str()).collect();
        assert_eq!(named, ["reasons", "reason", "from", "to", "actor", "filter.olderthan", "filter.reason"]);
        assert!(problem.errors()[0].detail.contains("did you mean `reason`?"));
        assert_eq!(problem.code(), "invalid_body");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "null", "{", "\"x\"", "{}x", "\u{feff}{}"] {
            assert!(Body::parse(text.as_bytes(), &[]).is_err(), "{text}");
        }
    }
}
