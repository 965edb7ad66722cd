//! Server-Sent Events: frames as events. JSON has no bare line breaks, so a frame is one line.

use std::convert::Infallible;

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use futures_util::stream;

use super::door::Opened;
use crate::manager::hub::{Link, Outgoing};

/// Ends what the client had open when its stream is dropped, which happens as soon as the client closes it.
struct Body {
    link: Link,
    outgoing: Outgoing,
    has_begun: bool,
}

impl Drop for Body {
    fn drop(&mut self) {
        self.link.lost();
    }
}

pub(super) fn answer(Opened { link, outgoing }: Opened) -> HttpResponse {
    let body = Body { link, outgoing, has_begun: false };
    let events = stream::unfold(body, |mut body| async move {
        let text = if body.has_begun {
            format!("data: {}\n\n", body.outgoing.next().await?)
        } else {
            // Clients wait for the first bytes, and proxies pass them on.
            body.has_begun = true;
            ":\n\n".to_owned()
        };
        Some((Ok::<_, Infallible>(web::Bytes::from(text)), body))
    });
    HttpResponse::Ok()
        .content_type("text/event-stream")
        // Whoever compressed it on the way would keep events back, too.
        .insert_header((header::CACHE_CONTROL, "no-store, no-transform"))
        // nginx would keep events back until it has a buffer full of them.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(Box::pin(events))
}
