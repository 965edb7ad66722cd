//! Long polling: each poll is held until there is a frame. 200 with nothing: poll again; 204: it is over.

use std::sync::Arc;

use actix_web::HttpResponse;
use tokio::time::timeout;

use super::door::{Door, Poll};
use crate::api::problem::{self, Problem};
use crate::auth::Principal;
use crate::manager::hub::Link;

/// Bytes of frames that a poll takes away at once.
const MOST_BYTES: usize = 256 * 1024;

/// Ends what the client had open when its poll is dropped without an answer: the client is gone.
struct Held<'a> {
    link: &'a Link,
    is_answered: bool,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.link.lost();
        }
    }
}

pub(super) async fn answer(
    door: &Arc<Door>,
    token: &str,
    principal: Option<&Principal>,
) -> Result<HttpResponse, Problem> {
    let Poll { link, frames, opens } = door.poll(token, principal)?;
    if opens {
        // Clients begin to speak once the first poll is answered.
        return Ok(answered(String::new()));
    }
    let Ok(mut frames) = frames.try_lock() else {
        let detail = "Another poll of this connection is held; its answer brings what there is";
        return Err(Problem::new(&problem::HUB_CONNECTION_IN_USE, detail));
    };
    let mut held = Held { link: &link, is_answered: false };
    let _poll = link.poll();
    let first = timeout(door.settings.poll, frames.next()).await;
    held.is_answered = true;
    let text = match first {
        Err(_) => String::new(),
        Ok(None) => {
            link.lost();
            return Ok(HttpResponse::NoContent().finish());
        }
        Ok(Some(mut text)) => {
            while text.len() < MOST_BYTES
                && let Some(more) = frames.now()
            {
                text.push_str(&more);
            }
            text
        }
    };
    Ok(answered(text))
}

fn answered(text: String) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text)
}
