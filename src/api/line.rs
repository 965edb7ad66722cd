//! What is kept of a connection: whose certificate it began with, and, of HTTP/2, which answers are under way on it.
//!
//! By HTTP/2 one connection carries any number of requests, and a client can leave answers lying while it goes on answering
//! for the connection. So both are bounded here: how many there are, and how long one of them may lie. And as nothing tells
//! such clients to go when the process stops, a connection without requests ends then.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use actix_web::web;
use socket2::{SockRef, Socket};
use tokio_util::sync::CancellationToken;

use super::wire::Wire;
use crate::auth::{Principal, Refusal};
use crate::certificates::{Certificates, Shown};
use crate::login::Gate;

/// What may wait in the kernel to be sent for the first time on one connection: whoever takes little costs no more than that
/// beyond what is under way to it.
const UNSENT_BYTES: u32 = 128 * 1024;
/// Requests of one connection that may have no whole answer yet: as many as may wait or follow by default.
const MOST_ANSWERS: usize = 1_000;
/// Between two looks whether a connection has become idle, once the process stops.
const IDLE_LOOK: Duration = Duration::from_millis(100);

/// What connections are opened with.
#[derive(Clone)]
pub struct Lines {
    /// What clients' certificates are judged by; `None` without TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// How long a client may take nothing.
    pub send_timeout: Duration,
    /// Cancelled when the process begins to stop.
    pub shutting_down: CancellationToken,
    /// Whether something may run for a client as long as it is there.
    pub are_watched: bool,
}

impl Lines {
    /// Bounds a new connection, and keeps of it what its requests need.
    pub fn open(&self, connection: &dyn Any, kept: &mut Extensions) {
        if self.are_watched {
            self.keep_wire(connection, kept);
        }
        if let Some(connection) = connection.downcast_ref::<TcpStream>() {
            self.bound(connection);
        } else if let Some(connection) = connection.downcast_ref::<TlsStream<TcpStream>>() {
            let (connection, tls) = connection.get_ref();
            self.bound(connection);
            let client = self.certificates.as_ref().and_then(|certificates| {
                let shown = certificates.shown(tls.peer_certificates())?;
                Some(Client { certificates: Arc::clone(certificates), shown, principal: OnceCell::new() })
            });
            let answers = (tls.alpn_protocol() == Some(b"h2")).then(|| self.watched(connection)).flatten();
            kept.insert(Line { client, answers });
        }
    }

    fn keep_wire(&self, connection: &dyn Any, kept: &mut Extensions) {
        let plain = connection.downcast_ref::<TcpStream>();
        let below = || connection.downcast_ref::<TlsStream<TcpStream>>().map(|connection| connection.get_ref().0);
        if let Some(wire) = plain.or_else(below).and_then(Wire::of) {
            kept.insert(wire);
        }
    }

    /// A client that takes nothing of what it is sent holds its connection no longer than `send_timeout`, and no more of our
    /// memory than its buffers. Nothing else would end it: an answer without end is not even asked for more while the
    /// connection takes none.
    fn bound(&self, connection: &TcpStream) {
        let socket = SockRef::from(connection);
        let bounded = socket.set_tcp_user_timeout(Some(self.send_timeout));
        if let Err(error) = bounded.and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES)) {
            tracing::debug!(%error, "a connection has no bounds");
        }
    }

    fn watched(&self, connection: &TcpStream) -> Option<Rc<Answers>> {
        let socket = match SockRef::from(connection).try_clone() {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%error, "the answers of a connection are not watched");
                return None;
            }
        };
        let answers = Rc::new(Answers { socket, next: Cell::default(), under_way: RefCell::default() });
        actix_web::rt::spawn(watch(Rc::downgrade(&answers), self.send_timeout, self.shutting_down.clone()));
        Some(answers)
    }
}

/// Ends the connection when an answer lies for too long, or when the process stops and none is under way any more.
async fn watch(answers: Weak<Answers>, send_timeout: Duration, shutting_down: CancellationToken) {
    let look = (send_timeout / 4).max(IDLE_LOOK);
    let mut was_idle = false;
    loop {
        let is_stopping = shutting_down.is_cancelled();
        tokio::select! {
            () = shutting_down.cancelled(), if !is_stopping => {}
            () = tokio::time::sleep(if is_stopping { IDLE_LOOK } else { look }) => {}
        }
        let Some(answers) = answers.upgrade() else { return };
        let is_idle = is_stopping && answers.under_way.borrow().is_empty();
        if answers.is_left_lying(send_timeout) || is_idle && was_idle {
            answers.end();
            return;
        }
        was_idle = is_idle;
    }
}

/// What is kept of a connection with TLS.
pub struct Line {
    client: Option<Client>,
    answers: Option<Rc<Answers>>,
}

impl Line {
    /// Who has opened it, by the certificate that was shown; `None` if none was.
    pub fn principal(&self, gate: &Gate) -> Result<Option<Arc<Principal>>, Refusal> {
        let Some(client) = &self.client else { return Ok(None) };
        let subject = client.certificates.subject(&client.shown)?;
        Ok(Some(Arc::clone(client.principal.get_or_init(|| gate.certified(subject)))))
    }

    /// A place for one more answer.
    pub fn place(&self) -> Result<Option<Place>, TooManyAnswers> {
        match &self.answers {
            None => Ok(None),
            Some(answers) if answers.under_way.borrow().len() >= MOST_ANSWERS => Err(TooManyAnswers),
            Some(answers) => Ok(Some(Place::new(answers))),
        }
    }
}

struct Client {
    certificates: Arc<Certificates>,
    shown: Shown,
    principal: OnceCell<Arc<Principal>>,
}

/// The connection has as many requests under way as it may.
#[derive(Debug, thiserror::Error)]
#[error("{MOST_ANSWERS} requests of this connection have no whole answer yet, which is as many as may be")]
pub struct TooManyAnswers;

/// Answers under way on one connection, each with the moment since which a piece of it waits to be sent.
struct Answers {
    socket: Socket,
    next: Cell<u64>,
    under_way: RefCell<HashMap<u64, Option<Instant>>>,
}

impl Answers {
    fn is_left_lying(&self, send_timeout: Duration) -> bool {
        self.under_way.borrow().values().flatten().any(|since| since.elapsed() >= send_timeout)
    }

    fn end(&self) {
        if let Err(error) = self.socket.shutdown(std::net::Shutdown::Both) {
            tracing::debug!(%error, "a connection has ended already");
        }
    }
}

/// One answer's place on its connection, until it is sent.
pub struct Place {
    number: u64,
    answers: Rc<Answers>,
}

impl Place {
    fn new(answers: &Rc<Answers>) -> Place {
        let number = answers.next.get();
        answers.next.set(number + 1);
        answers.under_way.borrow_mut().insert(number, None);
        Place { number, answers: Rc::clone(answers) }
    }

    /// The body, which keeps the place.
    pub fn keep(self, body: BoxBody) -> BoxBody {
        BoxBody::new(Sent { place: self, body })
    }

    fn waits(&self, since: Option<Instant>) {
        self.answers.under_way.borrow_mut().insert(self.number, since);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.answers.under_way.borrow_mut().remove(&self.number);
    }
}

/// A body that is asked for its next piece only when the one before is sent.
struct Sent {
    place: Place,
    body: BoxBody,
}

impl MessageBody for Sent {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<web::Bytes, Self::Error>>> {
        let next = Pin::new(&mut self.body).poll_next(context);
        self.place.waits(matches!(next, Poll::Ready(Some(_))).then(Instant::now));
        next
    }
}
