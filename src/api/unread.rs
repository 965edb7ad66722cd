//! Bodies that nobody has read to their end. A connection of HTTP/1 whose answer is sent before all of a chunked body is there would
//! wait for the rest of it for ever, unless whoever answers still holds the body: then it ends with the answer.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::HttpMessage;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest};
use actix_web::error::PayloadError;
use actix_web::web::Bytes;
use futures_util::Stream;

/// A request's body, held until the answer is sent.
#[derive(Clone)]
pub struct Unread(Rc<RefCell<Payload>>);

impl Unread {
    /// Holds the body of a request, which reads it as before; `None` where there is none. What is upgraded to another protocol
    /// has no body, its connection is read instead.
    pub fn of(request: &mut ServiceRequest) -> Option<Unread> {
        if request.head().upgrade() {
            return None;
        }
        match request.take_payload() {
            Payload::None => None,
            payload => {
                let unread = Unread(Rc::new(RefCell::new(payload)));
                request.set_payload(Payload::Stream { payload: Box::pin(unread.clone()) });
                Some(unread)
            }
        }
    }

    /// The answer's body, which holds that of the request.
    pub fn held_by(self, body: BoxBody) -> BoxBody {
        BoxBody::new(Holding { _unread: self, body })
    }
}

impl Stream for Unread {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(context)
    }
}

struct Holding {
    _unread: Unread,
    body: BoxBody,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}
