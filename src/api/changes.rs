//! Streams of changes: how a request says where it begins, and how a follower becomes an answer without end.

use std::convert::Infallible;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt;
use futures_util::stream::{self, LocalBoxStream};
use serde_json::json;

use super::parameters::Parameters;
use super::problem::{self, Problem};
use super::sse::EventText;
use crate::domain::page::CursorError;
use crate::feed::changes::{Change, TooManyFollowers};
use crate::feed::following::{Follower, Refused, Told};
use crate::feed::reader::FeedError;
use crate::store::changes::Shown;
use crate::store::read::ReadError;

/// A cursor as sent, and by which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    name: &'static str,
    text: String,
}

/// Takes where a stream is to begin: `Last-Event-ID` before `after`, since a client that comes back by itself repeats its
/// first URL.
pub fn begins(request: &HttpRequest, parameters: &mut Parameters) -> Option<Sent> {
    let after = parameters.one("after").map(|text| Sent { name: "after", text });
    let last = request.headers().get("last-event-id").filter(|value| !value.is_empty());
    let last = last.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    last.map(|text| Sent { name: "Last-Event-ID", text }).or(after)
}

impl Sent {
    /// The cursor that it stands for.
    pub fn read<T>(&self, decode: impl FnOnce(&str) -> Result<T, CursorError>) -> Result<T, Problem> {
        decode(&self.text).map_err(|error| {
            let detail = match error {
                CursorError::Checksum => "this cursor was damaged or belongs to another stream".to_owned(),
                other => other.to_string(),
            };
            let allowed = "must be the `id` of an event of the same stream";
            Problem::new(&problem::INVALID_CURSOR, detail).parameter(self.name, &self.text, allowed)
        })
    }
}

/// Why a stream does not begin; `restart` is where it begins anew.
pub fn refused(refused: Refused, restart: &str) -> Problem {
    match refused {
        Refused::TooMany(refused) => refused.into(),
        Refused::Feed(FeedError::Expired(why)) => Problem::new(&problem::CURSOR_EXPIRED, why).with("restart", restart),
        Refused::Feed(FeedError::Read(error)) => error.into(),
        Refused::NoBuild => Problem::new(&problem::VIEW_NOT_FOUND, "No build of the view is active"),
    }
}

impl From<TooManyFollowers> for Problem {
    fn from(error: TooManyFollowers) -> Self {
        Problem::new(&problem::TOO_MANY_FOLLOWERS, error.to_string()).retry_after(5)
    }
}

/// What there is now, in pages.
pub type Present = LocalBoxStream<'static, Result<Vec<Shown>, ReadError>>;

/// The answer: `present` if it is asked for, then what `follower` is told, each row as an event called `name`.
pub fn answer(request: &HttpRequest, name: &'static str, follower: Follower, present: Option<Present>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/event-stream")
        // Whoever compressed it on the way would keep events back, too.
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        // nginx would keep events back until it has a buffer full of them.
        .insert_header(("x-accel-buffering", "no"));
    if request.method() == Method::HEAD {
        return response.finish();
    }
    let stage = match present {
        Some(present) => Stage::Present { present, rows: 0, has_begun: false },
        None => Stage::Opening,
    };
    let states = stream::unfold((stage, follower), move |(stage, mut follower)| async move {
        let (text, stage) = stage.next(name, &mut follower).await?;
        Some((Ok::<_, Infallible>(web::Bytes::from(text.take())), (stage, follower)))
    });
    response.streaming(Box::pin(states))
}

enum Stage {
    /// Sends what there is. It has no ids until all of it is sent: who is cut off before begins anew.
    Present {
        present: Present,
        rows: u64,
        has_begun: bool,
    },
    Opening,
    Following,
    Ended,
}

impl Stage {
    /// What is sent next; nothing more once it has ended.
    async fn next(self, name: &str, follower: &mut Follower) -> Option<(EventText, Stage)> {
        let mut text = EventText::default();
        let stage = match self {
            // Nothing was told that could not be told again.
            Stage::Opening | Stage::Present { .. } if follower.is_stopping() => return None,
            Stage::Opening => {
                text.opening(Some(&follower.cursor()));
                Stage::Following
            }
            Stage::Present { mut present, mut rows, has_begun } => {
                if !has_begun {
                    text.opening(None);
                }
                match present.next().await {
                    Some(Ok(page)) => {
                        rows += page.len() as u64;
                        page.iter().for_each(|row| text.event(name, None, &data(row, None)));
                        Stage::Present { present, rows, has_begun: true }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(error = %error, "what there is could not be read to its end");
                        Stage::Ended
                    }
                    None => {
                        text.event("snapshot", Some(&follower.cursor()), &json!({ "sent": rows }).to_string());
                        Stage::Following
                    }
                }
            }
            Stage::Following => match follower.next().await {
                Told::Changes(changes) => {
                    for (change, id) in &changes {
                        text.event(name, Some(id), &data(&change.shown, Some(change)));
                    }
                    Stage::Following
                }
                Told::Heartbeat(id) => {
                    text.silence(Some(&id));
                    Stage::Following
                }
                Told::Overrun => {
                    let why =
                        "more changes waited for this client than it may keep waiting; come back with the last id";
                    text.event("overrun", None, &json!({ "code": "overrun", "detail": why }).to_string());
                    Stage::Ended
                }
                Told::End => {
                    text.farewell(&follower.cursor());
                    Stage::Ended
                }
            },
            Stage::Ended => return None,
        };
        Some((text, stage))
    }
}

/// The row with what has changed it, as JSON.
fn data(row: &Shown, change: Option<&Change>) -> String {
    let changed_by = change.map(|change| {
        json!({
            "eventId": change.event_id,
            "eventType": change.event_type,
            "sequence": change.sequence.0,
            "effect": change.effect,
        })
    });
    let object = row.json.strip_suffix('}').unwrap_or(&row.json);
    format!("{object},\"changedBy\":{}}}", changed_by.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_client_that_comes_back_goes_on_from_its_last_event() {
        let begins = |header: Option<&str>| {
            let mut request = TestRequest::default();
            if let Some(header) = header {
                request = request.insert_header(("Last-Event-ID", header));
            }
            let mut parameters = Parameters::parse("after=a", &["after"]);
            begins(&request.to_http_request(), &mut parameters).map(|sent| sent.text)
        };
        assert_eq!(begins(None).as_deref(), Some("a"));
        assert_eq!(begins(Some("")).as_deref(), Some("a"));
        assert_eq!(begins(Some("b")).as_deref(), Some("b"));
    }
}
