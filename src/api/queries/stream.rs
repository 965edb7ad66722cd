//! Rows as Server-Sent Events. Whatever they come from is dropped with the connection, and ends with it.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::{Method, header};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::{FutureExt, Stream, StreamExt, stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::api::sse::EventText;
use crate::api::wire::end_when_silent;
use crate::manager::preview::{Frame, Told, Watcher};
use crate::manager::queries::{Line, QueryRows};

/// So often a silent stream shows that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Most lines that travel together, and most bytes after which no other line joins them: one line may have a mebibyte.
const TOGETHER: (usize, usize) = (256, 64 * 1024);

/// Lines of a query: `header`, `row`, and `end` with how it ended.
pub(super) fn of_query(request: &HttpRequest, rows: QueryRows, stop: CancellationToken) -> HttpResponse {
    answer(request, texts_of(rows), stop)
}

/// The lines that are there, together as far as they may be.
fn texts_of(lines: impl Stream<Item = Line> + Unpin) -> impl Stream<Item = EventText> {
    stream::unfold(lines, |mut lines| async {
        let (mut text, mut next, mut count) = (EventText::default(), Some(lines.next().await?), 0);
        while let Some(line) = next {
            let name = match line {
                Line::Header { .. } => "header",
                Line::Row(_) => "row",
                Line::End { .. } => "end",
            };
            text.event(name, None, line.text());
            count += 1;
            let has_room = count < TOGETHER.0 && text.bytes() < TOGETHER.1;
            next = if has_room { lines.next().now_or_never().flatten() } else { None };
        }
        Some((text, lines))
    })
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
    let watching = end_when_silent(request);
    let rest = stream::unfold((texts, stop, watching), |(mut texts, stop, watching)| async {
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
        Some((text, (texts, stop, watching)))
    });
    let texts = stream::iter([opening]).chain(rest);
    response.streaming(Box::pin(texts.map(|text| Ok::<_, Infallible>(web::Bytes::from(text.take())))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_travel_together_up_to_so_many_bytes() {
        let row = |bytes: usize| Line::Row("x".repeat(bytes));
        let large = vec![row(1024 * 1024); 10];
        let texts: Vec<usize> = texts_of(stream::iter(large)).map(|text| text.bytes()).collect().await;
        assert_eq!(texts.len(), 10, "each large one alone: {texts:?}");
        let small = stream::iter(vec![row(10); 1_000]);
        let texts: Vec<usize> = texts_of(small).map(|text| text.bytes()).collect().await;
        assert_eq!(texts.len(), 4, "256 at once: {texts:?}");
        let middle = stream::iter(vec![row(16 * 1024); 100]);
        let texts: Vec<usize> = texts_of(middle).map(|text| text.bytes()).collect().await;
        assert!(texts.iter().all(|bytes| *bytes < TOGETHER.1 + 20 * 1024) && texts.len() >= 25, "{texts:?}");
    }
}
