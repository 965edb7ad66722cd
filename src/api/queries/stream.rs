//! Rows as Server-Sent Events. Whatever they come from is dropped with the connection, and ends with it.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{Stream, StreamExt, stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::sse::EventText;
use crate::manager::preview::{Frame, Told, Watcher};
use crate::manager::queries::{Line, QueryRows};

/// So often a silent stream shows that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Most lines that travel together.
const TOGETHER: usize = 256;

/// Lines of a query: `header`, `row`, and `end` with how it ended.
pub(super) fn of_query(request: &HttpRequest, rows: QueryRows, stop: CancellationToken) -> HttpResponse {
    let texts = rows.ready_chunks(TOGETHER).map(|lines| {
        let mut text = EventText::default();
        for line in &lines {
            let name = match line {
                Line::Header { .. } => "header",
                Line::Row(_) => "row",
                Line::End { .. } => "end",
            };
            text.event(name, None, line.text());
        }
        text
    });
    answer(request, texts, stop)
}

/// Rows of a topic: `row`, `dropped` with how many were not shown, and `end` with why nothing more comes.
pub(super) fn of_topic(request: &HttpRequest, watcher: Watcher, stop: CancellationToken) -> HttpResponse {
    let texts = stream::unfold(Some(watcher), |watcher| async {
        let mut watcher = watcher?;
        let told = watcher.next().await;
        let mut text = EventText::default();
        match told {
            Told::Frame(frame) => {
                write_frame(&mut text, &frame, watcher.dropped());
                Some((text, Some(watcher)))
            }
            Told::End(why) => {
                text.event("end", None, &json!({ "reason": why }).to_string());
                Some((text, None))
            }
        }
    });
    answer(request, texts, stop)
}

fn write_frame(text: &mut EventText, frame: &Frame, in_all: u64) {
    if frame.dropped > 0 {
        text.event("dropped", None, &json!({ "rows": frame.dropped, "inAll": in_all }).to_string());
    }
    frame.rows.iter().for_each(|row| text.event("row", None, row.json()));
}

fn answer(
    request: &HttpRequest,
    texts: impl Stream<Item = EventText> + 'static,
    stop: CancellationToken,
) -> HttpResponse {
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
    let mut opening = EventText::default();
    opening.opening(None);
    let texts = Box::pin(texts);
    let rest = stream::unfold((texts, stop), |(mut texts, stop)| async {
        // What was not finished in this round is polled again in the next one: nothing is lost with a heartbeat.
        let text = tokio::select! {
            () = stop.cancelled() => return None,
            text = texts.next() => text?,
            () = tokio::time::sleep(HEARTBEAT) => {
                let mut text = EventText::default();
                text.silence(None);
                text
            }
        };
        Some((text, (texts, stop)))
    });
    let texts = stream::iter([opening]).chain(rest);
    response.streaming(Box::pin(texts.map(|text| Ok::<_, Infallible>(web::Bytes::from(text.take())))))
}
