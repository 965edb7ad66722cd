//! WebSockets: frames both ways. The answer's body is asked for the next frame only when the connection has room for it, so a
//! client that takes nothing costs one frame here, however much there is for it.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_http::ws::{self, CloseCode, Codec, Frame, Item, ProtocolError};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio_util::codec::{Decoder, Encoder};

use super::MOST_BYTES;
use super::door::Opened;
use crate::api::problem::{self, Problem};
use crate::manager::hub::{Incoming, Link, Outgoing};

pub(super) fn answer(request: &HttpRequest, payload: web::Payload, opened: Opened) -> Result<HttpResponse, Problem> {
    let Opened { link, outgoing } = opened;
    let pong = Rc::<Pong>::default();
    // Made first, so that a request that is refused now loses the connection.
    let frames = Frames { link: link.clone(), outgoing, pong: Rc::clone(&pong), is_over: false };
    let mut response =
        ws::handshake(request.head()).map_err(|error| Problem::new(&problem::BAD_REQUEST, error.to_string()))?;
    let response = response.message_body(BoxBody::new(frames)).map_err(|error| {
        tracing::error!(%error, "could not answer a WebSocket");
        Problem::new(&problem::INTERNAL_ERROR, "The answer could not be written")
    })?;
    actix_web::rt::spawn(read(payload, link, pong));
    Ok(response.into())
}

/// The answer to the last ping that came.
#[derive(Default)]
struct Pong(RefCell<(Option<web::Bytes>, Option<Waker>)>);

impl Pong {
    fn put(&self, bytes: web::Bytes) {
        let mut pong = self.0.borrow_mut();
        pong.0 = Some(bytes);
        if let Some(waker) = pong.1.take() {
            waker.wake();
        }
    }

    fn take(&self, context: &Context<'_>) -> Option<web::Bytes> {
        let mut pong = self.0.borrow_mut();
        pong.1 = Some(context.waker().clone());
        pong.0.take()
    }
}

/// Frames for the client. Whatever it had open ends when it is dropped.
struct Frames {
    link: Link,
    outgoing: Outgoing,
    pong: Rc<Pong>,
    is_over: bool,
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.link.lost();
    }
}

impl MessageBody for Frames {
    type Error = ProtocolError;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<web::Bytes, ProtocolError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let message = match self.pong.take(context) {
            Some(pong) => ws::Message::Pong(pong),
            None => match self.outgoing.poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(frame)) => ws::Message::Text(frame.into()),
                Poll::Ready(None) => {
                    self.is_over = true;
                    ws::Message::Close(Some(CloseCode::Normal.into()))
                }
            },
        };
        let mut bytes = BytesMut::new();
        Poll::Ready(Some(Codec::new().encode(message, &mut bytes).map(|()| bytes.freeze())))
    }
}

/// Brings what the client sends until it leaves.
async fn read(mut payload: web::Payload, link: Link, pong: Rc<Pong>) {
    let (mut codec, mut received) = (Codec::new().max_size(MOST_BYTES), BytesMut::new());
    loop {
        let piece = match codec.decode(&mut received) {
            Ok(Some(Frame::Text(piece) | Frame::Binary(piece))) => piece,
            // Pieces of a message are as good as messages: these have an end of their own.
            Ok(Some(Frame::Continuation(
                Item::FirstText(piece) | Item::FirstBinary(piece) | Item::Continue(piece) | Item::Last(piece),
            ))) => piece,
            Ok(Some(Frame::Ping(bytes))) => {
                pong.put(bytes);
                continue;
            }
            Ok(Some(Frame::Pong(_))) => continue,
            Ok(None) => match payload.next().await {
                Some(Ok(bytes)) => {
                    received.extend_from_slice(&bytes);
                    continue;
                }
                Some(Err(_)) | None => break,
            },
            Err(ProtocolError::Overflow) => {
                // What comes after it cannot be told from what is left of it.
                link.bring(Incoming::TooLong).await;
                return drain(payload).await;
            }
            Ok(Some(Frame::Close(_))) | Err(_) => break,
        };
        if received.is_empty() {
            // An idle connection keeps no room for what it sent once.
            received = BytesMut::new();
        }
        if !link.bring(Incoming::Piece(piece.to_vec())).await {
            return drain(payload).await;
        }
    }
    link.lost();
}

/// Takes what a client goes on sending that is yet to read why it is sent away: a connection whose other half is not read any
/// more would end before.
async fn drain(mut payload: web::Payload) {
    while let Some(Ok(_)) = payload.next().await {}
}
