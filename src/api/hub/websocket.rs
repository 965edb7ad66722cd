//! WebSockets: frames both ways.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::{AggregatedMessage, CloseCode, ProtocolError};
use futures_util::StreamExt;
use tokio::sync::Notify;

use super::MOST_BYTES;
use super::door::Opened;
use crate::api::problem::Problem;
use crate::manager::hub::{Incoming, Link, Outgoing};

/// What has been given to the connection and not been asked for yet: nothing more is given meanwhile, so that a client that
/// takes nothing costs one frame here, however much there is for it.
#[derive(Default)]
struct Lying {
    is_lying: Cell<bool>,
    taken: Notify,
}

/// The answer's body, which tells when something is taken.
struct Told {
    body: BoxBody,
    lying: Rc<Lying>,
}

impl MessageBody for Told {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<web::Bytes, Self::Error>>> {
        let next = Pin::new(&mut self.body).poll_next(context);
        if next.is_ready() {
            self.lying.is_lying.set(false);
            self.lying.taken.notify_one();
        }
        next
    }
}

/// Ends what the client had open when its connection is dropped.
struct Lost(Link);

impl Drop for Lost {
    fn drop(&mut self) {
        self.0.lost();
    }
}

pub(super) fn answer(request: &HttpRequest, payload: web::Payload, opened: Opened) -> Result<HttpResponse, Problem> {
    let Opened { link, outgoing } = opened;
    let lost = Lost(link);
    let (response, sender, messages) = actix_ws::handle(request, payload)
        .map_err(|error| Problem::of_status(StatusCode::BAD_REQUEST, error.to_string()))?;
    let lying = Rc::new(Lying::default());
    let messages = messages.max_frame_size(MOST_BYTES).aggregate_continuations().max_continuation_size(MOST_BYTES);
    actix_web::rt::spawn(carry(lost, outgoing, (sender, messages), Rc::clone(&lying)));
    Ok(response.map_body(|_, body| BoxBody::new(Told { body, lying })))
}

/// Carries frames both ways until one side ends.
async fn carry(
    lost: Lost,
    mut outgoing: Outgoing,
    (mut sender, mut messages): (actix_ws::Session, actix_ws::AggregatedMessageStream),
    lying: Rc<Lying>,
) {
    // One message waits to be read while frames go on: the session may wait for these before it reads.
    let mut message = None;
    let mut is_deaf = false;
    loop {
        let is_lying = lying.is_lying.get();
        let heard = tokio::select! {
            () = lying.taken.notified(), if is_lying => continue,
            is_there = lost.0.bring_from(&mut message), if message.is_some() => {
                is_deaf |= !is_there;
                message = None;
                continue;
            }
            frame = outgoing.next(), if !is_lying => {
                let Some(frame) = frame else { break };
                lying.is_lying.set(true);
                match sender.text(frame).await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
            heard = messages.next(), if message.is_none() && !is_deaf => heard,
        };
        match heard {
            Some(Ok(AggregatedMessage::Text(text))) => message = Some(Incoming::Piece(text.as_bytes().to_vec())),
            Some(Ok(AggregatedMessage::Binary(bytes))) => message = Some(Incoming::Piece(bytes.to_vec())),
            Some(Ok(AggregatedMessage::Pong(_))) => {}
            Some(Ok(AggregatedMessage::Ping(bytes))) if sender.pong(&bytes).await.is_ok() => {}
            Some(Err(ProtocolError::Overflow)) => {
                // What comes after it cannot be told from what is left of it.
                is_deaf = true;
                message = Some(Incoming::TooLong);
            }
            Some(Ok(AggregatedMessage::Ping(_) | AggregatedMessage::Close(_)) | Err(_)) | None => break,
        }
    }
    if sender.close(Some(CloseCode::Normal.into())).await.is_err() {
        tracing::debug!("a client of the hub had gone before it was closed");
    }
}
