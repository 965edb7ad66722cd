//! One connection: what its client asks is called, what that gives is gathered into frames, and each call with an id gets one
//! Completion. It waits for nobody: a client that takes nothing is only not asked for more, and in the end closed.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use futures_channel::mpsc;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, SinkExt, StreamExt, TryFutureExt, TryStreamExt};
use serde_json::Value;
use tokio::sync::{Mutex as Turns, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{Client, ConnectionId, PushText, Pushes};
use super::frame::{self, Frame};
use super::protocol::{self, Garbled, Invoked, Message, Splitter};
use super::service::{Call, Caller, HubService, Method};
use super::settings::HubTimes;
use super::streams::{Streams, Told};

/// Streams that one connection may have open.
const MOST_STREAMS: usize = 32;
/// Plain calls of one connection that may wait for the one before.
const MOST_CALLS: usize = 64;
/// What is gathered at once without looking at anything else.
const AT_ONCE: usize = 256;

/// What a transport brings.
#[derive(Debug)]
pub enum Incoming {
    /// Bytes of messages.
    Piece(Vec<u8>),
    /// More bytes than it takes at once.
    TooLong,
}

/// How a transport brings something. Clones are of the same connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// One piece waits to be read; whoever has the next one waits for its turn.
    inbox: Arc<Turns<mpsc::Sender<Incoming>>>,
    gone: CancellationToken,
    dismissal: Arc<Dismissal>,
    polls: Arc<Polls>,
    /// Whether the client has streams open.
    has_streams: watch::Receiver<bool>,
}

/// That the client is sent away, and why.
#[derive(Debug, Default)]
struct Dismissal {
    why: OnceLock<String>,
    is_said: CancellationToken,
}

/// The polls of a client. They are not brought like messages: a poll makes the room that messages wait for.
#[derive(Debug, Default)]
struct Polls {
    begun: AtomicUsize,
    held: AtomicUsize,
    last_end: Mutex<Option<Instant>>,
}

/// A poll that is held; it ends when it is dropped.
#[derive(Debug)]
pub struct HeldPoll(Arc<Polls>);

impl Drop for HeldPoll {
    fn drop(&mut self) {
        *self.0.last_end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.held.fetch_sub(1, Ordering::Release);
    }
}

impl Polls {
    /// When the client was there last by its polls.
    fn last_heard(&self) -> Option<Instant> {
        match self.held.load(Ordering::Acquire) {
            0 => *self.last_end.lock().unwrap_or_else(PoisonError::into_inner),
            _ => Some(Instant::now()),
        }
    }
}

impl Link {
    /// Brings something, once there is room; whether the connection is still there.
    pub async fn bring(&self, incoming: Incoming) -> bool {
        self.bring_from(&mut Some(incoming)).await
    }

    /// Brings what is in `slot` and empties it, once there is room; whether the connection is still there. Can be dropped and
    /// called again.
    pub async fn bring_from(&self, slot: &mut Option<Incoming>) -> bool {
        let mut inbox = self.inbox.lock().await;
        if poll_fn(|context| inbox.poll_ready(context)).await.is_err() {
            return false;
        }
        match slot.take() {
            Some(incoming) => inbox.start_send(incoming).is_ok(),
            None => true,
        }
    }

    /// A poll begins: as long as it is held the client is there.
    pub fn poll(&self) -> HeldPoll {
        self.polls.held.fetch_add(1, Ordering::AcqRel);
        self.polls.begun.fetch_add(1, Ordering::AcqRel);
        HeldPoll(Arc::clone(&self.polls))
    }

    /// How many polls have begun: if it stays the same, the client does not come back.
    pub fn polls_begun(&self) -> usize {
        self.polls.begun.load(Ordering::Acquire)
    }

    /// The client is gone: all that it has open ends now.
    pub fn lost(&self) {
        self.gone.cancel();
    }

    /// Sends the client away: all that it has open ends, and it is told why. It may come back. Only the first reason counts.
    pub fn dismiss(&self, why: &str) {
        self.dismissal.why.get_or_init(|| why.to_owned());
        self.dismissal.is_said.cancel();
    }

    /// Whether a poll is held.
    pub fn is_polled(&self) -> bool {
        self.polls.held.load(Ordering::Acquire) > 0
    }

    /// Returns with `true` once the client has a stream open, or none any more; with `false` once the connection has ended.
    pub async fn until_streams(&self, are_open: bool) -> bool {
        self.has_streams.clone().wait_for(|has| *has == are_open).await.is_ok()
    }

    /// Whether both are of the same connection.
    pub fn is_same(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.polls, &other.polls)
    }

    /// Returns once somebody has said that the client is gone.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

/// The frames for a client, to be taken one by one.
#[derive(Debug)]
pub struct Outgoing(mpsc::Receiver<String>);

impl Outgoing {
    /// The next one; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<String> {
        self.0.next().await
    }

    /// The same for who is polled.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<String>> {
        self.0.poll_next_unpin(context)
    }

    /// The next one, if it is there.
    pub fn now(&mut self) -> Option<String> {
        self.0.try_recv().ok()
    }
}

/// What a connection is opened with.
pub struct Opening {
    /// Its public id.
    pub id: ConnectionId,
    /// Who has opened it.
    pub caller: Arc<Caller>,
    /// What it can call.
    pub service: Arc<dyn HubService>,
    /// How long things may take.
    pub times: HubTimes,
    /// Cancelled when the process begins to stop.
    pub stop: CancellationToken,
    /// Whether the client polls: then polls are its signs of life, and it is sent none.
    pub polls: bool,
}

/// How a connection has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The client has said that it leaves.
    Left,
    /// The transport has lost it.
    Lost,
    /// The process stops.
    Stopping,
    /// It was sent away, with this reason.
    Dismissed(String),
    /// Nothing was heard of it for too long.
    Silent,
    /// It takes nothing of what is there for it.
    TakesNothing,
    /// Its first message was none, or none that is taken.
    Refused(String),
    /// What it sent is not a message.
    Garbled(Garbled),
    /// It gave a call the id of another one.
    IdInUse,
}

impl Ending {
    /// What the client is told, and whether it may come back by itself; `None` if there is nobody to tell.
    fn farewell(&self) -> Option<(String, bool)> {
        match self {
            Ending::Lost | Ending::Left | Ending::TakesNothing => None,
            Ending::Stopping => Some(("The server stops. Connect again.".to_owned(), true)),
            Ending::Dismissed(why) => Some((why.clone(), true)),
            Ending::Silent => Some(("Nothing was heard of this client for too long.".to_owned(), true)),
            Ending::Refused(why) => Some((why.clone(), false)),
            Ending::Garbled(why) => Some((why.to_string(), false)),
            Ending::IdInUse => Some(("Two calls have the same id.".to_owned(), false)),
        }
    }
}

/// A connection with its two ends. Whoever opens it runs the session.
pub fn connect(opening: Opening) -> (Link, Outgoing, Box<Session>) {
    // Each with room for one, as a channel has for each of its senders: one frame waits and one grows, and who takes none makes
    // us hold no more.
    let (inbox_in, inbox) = mpsc::channel(0);
    let (outbox, outgoing) = mpsc::channel(0);
    let gone = CancellationToken::new();
    let (client, pushes) = Client::new(opening.id.clone());
    let now = Instant::now();
    let (polls, dismissal) = (Arc::<Polls>::default(), Arc::<Dismissal>::default());
    let (streaming, has_streams) = watch::channel(false);
    // In a box, as a future has room for each place through which what it holds has come.
    let session = Box::new(Session {
        polls: Arc::clone(&polls),
        dismissal: Arc::clone(&dismissal),
        frame: Frame::new(opening.times.window, now),
        opening,
        inbox,
        outbox,
        gone: gone.clone(),
        client,
        pushes,
        splitter: Splitter::default(),
        present: None,
        streams: Streams::default(),
        streaming,
        calling: None,
        calls: VecDeque::new(),
        opened: now,
        last_heard: now,
        waits_since: None,
    });
    let inbox = Arc::new(Turns::new(inbox_in));
    (Link { inbox, gone, dismissal, polls, has_streams }, Outgoing(outgoing), session)
}

/// Tells the service when a client that had come is gone, however that came about.
struct Present {
    service: Arc<dyn HubService>,
    client: Client,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.service.left(&self.client);
    }
}

/// A plain call that is made, and the id of its answer.
struct Calling {
    id: Option<String>,
    outcome: BoxFuture<'static, Result<Value, String>>,
}

/// A connection at work.
pub struct Session {
    opening: Opening,
    inbox: mpsc::Receiver<Incoming>,
    outbox: mpsc::Sender<String>,
    gone: CancellationToken,
    client: Client,
    pushes: Pushes,
    splitter: Splitter,
    /// Set from the handshake on.
    present: Option<Present>,
    streams: Streams,
    streaming: watch::Sender<bool>,
    calling: Option<Calling>,
    calls: VecDeque<(Option<String>, Call)>,
    frame: Frame,
    polls: Arc<Polls>,
    dismissal: Arc<Dismissal>,
    opened: Instant,
    last_heard: Instant,
    /// Since when a frame is due that is not taken.
    waits_since: Option<Instant>,
}

impl Session {
    /// Runs until the connection ends. All that it had open has ended before the client is told why.
    pub async fn run(mut self: Box<Self>) -> Ending {
        let ending = self.converse().await;
        self.streams.close_all();
        self.calling = None;
        self.calls.clear();
        let had_come = self.present.take().is_some();
        let (connection, who) = (&self.client.id().0, &self.opening.caller.counted_as);
        match &ending {
            Ending::TakesNothing => tracing::warn!(%connection, who, "a client of the hub takes nothing and is closed"),
            Ending::Left | Ending::Lost | Ending::Stopping => tracing::debug!(%connection, who, ?ending, "hub"),
            ending => tracing::info!(%connection, who, ?ending, "a client of the hub is closed"),
        }
        if let Some((why, may_reconnect)) = ending.farewell() {
            match had_come {
                true => self.frame.add(|text| protocol::close(text, Some(&why), may_reconnect)),
                false => self.frame.add(|text| text.push_str(&protocol::handshake_answer(Some(&why)))),
            }
            self.send_rest().await;
        }
        ending
    }

    async fn send_rest(&mut self) {
        let rest = self.frame.take(Instant::now());
        let sent = tokio::select! {
            () = self.gone.cancelled() => true,
            sent = timeout(self.opening.times.send_timeout, self.outbox.send(rest)) => sent.is_ok(),
        };
        if !sent {
            tracing::debug!(connection = %self.client.id().0, "a client takes no farewell");
        }
    }

    async fn converse(&mut self) -> Ending {
        let mut timer = std::pin::pin!(sleep_until(self.opened));
        loop {
            let now = Instant::now();
            let is_due = self.frame.due().is_some_and(|due| due <= now);
            self.waits_since = is_due.then(|| self.waits_since.unwrap_or(now));
            let has_streams = self.streams.len() > 0;
            self.streaming.send_if_modified(|had| std::mem::replace(had, has_streams) != has_streams);
            if let Some(ending) = self.overdue(now) {
                return ending;
            }
            let next_look = self.next_look();
            if timer.deadline() != next_look {
                timer.as_mut().reset(next_look);
            }
            let has_room = match self.opening.times.window.is_zero() {
                true => self.frame.bytes() == 0,
                false => self.frame.bytes() < frame::MOST_BYTES,
            };
            tokio::select! {
                () = self.gone.cancelled() => return Ending::Lost,
                () = self.opening.stop.cancelled() => return Ending::Stopping,
                () = self.dismissal.is_said.cancelled() => {
                    return Ending::Dismissed(self.dismissal.why.get().cloned().unwrap_or_default());
                }
                is_there = has_room_in(&mut self.outbox), if is_due => {
                    let frame = self.frame.take(Instant::now());
                    // Nobody else sends by it, so the room is still there.
                    if !is_there || self.outbox.start_send(frame).is_err() {
                        return Ending::Lost;
                    }
                    self.waits_since = None;
                }
                // Answers to what is read need room, too.
                incoming = self.inbox.next(), if self.frame.bytes() < 2 * frame::MOST_BYTES => {
                    let Some(incoming) = incoming else { return Ending::Lost };
                    if let Err(ending) = self.hear(incoming) {
                        return ending;
                    }
                }
                outcome = answered(&mut self.calling), if self.calling.is_some() => self.complete_call(outcome),
                told = self.streams.next(), if has_room => self.gather(told),
                Some(push) = self.pushes.next(), if has_room && self.present.is_some() => self.gather_pushes(&push),
                () = &mut timer => {}
            }
        }
    }

    /// What has taken too long; a sign of life is sent on the way.
    fn overdue(&mut self, now: Instant) -> Option<Ending> {
        let times = &self.opening.times;
        let is_over = |since: Instant, time| now.saturating_duration_since(since) >= time;
        if self.waits_since.is_some_and(|since| is_over(since, times.send_timeout)) {
            return Some(Ending::TakesNothing);
        }
        if self.present.is_none() && is_over(self.opened, times.handshake) {
            return Some(Ending::Refused("No handshake came in time.".to_owned()));
        }
        self.last_heard = self.last_heard.max(self.polls.last_heard().unwrap_or(self.last_heard));
        if is_over(self.last_heard, times.silence) {
            return Some(Ending::Silent);
        }
        if self.pings() && is_over(self.frame.last_sent(), times.keep_alive) {
            self.frame.add_urgent(protocol::ping);
        }
        None
    }

    /// Whether a sign of life is to be sent in time.
    fn pings(&self) -> bool {
        !self.opening.polls && self.present.is_some() && self.frame.bytes() == 0
    }

    fn next_look(&self) -> Instant {
        let times = &self.opening.times;
        let looks = [
            Some(self.last_heard + times.silence),
            self.present.is_none().then(|| self.opened + times.handshake),
            self.pings().then(|| self.frame.last_sent() + times.keep_alive),
            match self.waits_since {
                Some(since) => Some(since + times.send_timeout),
                None => self.frame.due(),
            },
        ];
        looks.into_iter().flatten().min().unwrap_or(self.last_heard)
    }

    fn hear(&mut self, incoming: Incoming) -> Result<(), Ending> {
        self.last_heard = Instant::now();
        let piece = match incoming {
            Incoming::Piece(piece) => piece,
            Incoming::TooLong => return Err(Ending::Garbled(Garbled::TooLong)),
        };
        for message in self.splitter.take(&piece).map_err(Ending::Garbled)? {
            if self.present.is_none() {
                protocol::decode_handshake(&message).map_err(Ending::Refused)?;
                let (service, client) = (Arc::clone(&self.opening.service), self.client.clone());
                self.present = Some(Present { service, client });
                self.frame.add_urgent(|text| text.push_str(&protocol::handshake_answer(None)));
                continue;
            }
            match protocol::decode(&message).map_err(Ending::Garbled)? {
                Message::Invocation { id, call } => self.invoke(id, call)?,
                Message::StreamInvocation { id, call } => self.stream(&id, call)?,
                // Of a plain call an answer comes in any case; of a stream the client drops what was under way to it.
                Message::Cancel { id } if self.streams.close(&id) => self.complete(&id, Ok(None)),
                Message::Cancel { .. } | Message::Ping | Message::Ignored => {}
                Message::Close => return Err(Ending::Left),
            }
        }
        Ok(())
    }

    fn complete(&mut self, id: &str, outcome: Result<Option<&Value>, &str>) {
        self.frame.add_urgent(|text| protocol::completion(text, id, outcome));
    }

    fn check_id(&self, id: &str) -> Result<(), Ending> {
        let is_called = self.calling.as_ref().is_some_and(|calling| calling.id.as_deref() == Some(id));
        let waits = self.calls.iter().any(|(waiting, _)| waiting.as_deref() == Some(id));
        if is_called || waits || self.streams.has(id) { Err(Ending::IdInUse) } else { Ok(()) }
    }

    fn call(&self, call: Invoked) -> Call {
        let (client, caller) = (self.client.clone(), Arc::clone(&self.opening.caller));
        Call { client, caller, target: call.target, arguments: call.arguments }
    }

    /// Why a call is not made.
    fn refusal(&self, call: &Invoked, as_stream: bool) -> Option<String> {
        let name: String = call.target.chars().take(64).collect();
        if call.sends_streams {
            return Some(format!("'{name}' takes no streams."));
        }
        match (self.opening.service.method(&call.target), as_stream) {
            (None, _) => Some(format!("There is no method '{name}' here.")),
            (Some(Method::Streaming), false) => {
                Some(format!("'{name}' gives a stream: ask for it with stream, not with invoke or send."))
            }
            (Some(Method::Plain), true) => {
                Some(format!("'{name}' gives one answer: ask for it with invoke, not with stream."))
            }
            (Some(Method::Plain), false) if self.calls.len() >= MOST_CALLS => {
                Some(format!("{MOST_CALLS} calls of this connection wait already, which is as many as may."))
            }
            (Some(Method::Streaming), true) if self.streams.len() >= MOST_STREAMS => Some(format!(
                "This connection has {MOST_STREAMS} streams open, which is as many as it may have: end one."
            )),
            (Some(_), _) => None,
        }
    }

    fn invoke(&mut self, id: Option<String>, call: Invoked) -> Result<(), Ending> {
        if let Some(id) = &id {
            self.check_id(id)?;
        }
        match (self.refusal(&call, false), id) {
            (Some(why), Some(id)) => self.complete(&id, Err(&why)),
            // Who wants no answer gets none.
            (Some(_), None) => {}
            (None, id) => {
                let call = self.call(call);
                self.calls.push_back((id, call));
                self.call_next();
            }
        }
        Ok(())
    }

    /// One after the other: who leaves a group right after joining it has left.
    fn call_next(&mut self) {
        if self.calling.is_some() {
            return;
        }
        self.calling = self.calls.pop_front().map(|(id, call)| {
            let service = Arc::clone(&self.opening.service);
            Calling { id, outcome: async move { service.invoke(call).await }.boxed() }
        });
    }

    fn complete_call(&mut self, outcome: Result<Value, String>) {
        if let Some(id) = self.calling.take().and_then(|calling| calling.id) {
            let outcome = outcome.as_ref().map(|value| Some(value).filter(|value| !value.is_null()));
            self.complete(&id, outcome.map_err(String::as_str));
        }
        self.call_next();
    }

    fn stream(&mut self, id: &str, call: Invoked) -> Result<(), Ending> {
        self.check_id(id)?;
        match self.refusal(&call, true) {
            Some(why) => self.complete(id, Err(&why)),
            None => {
                let (service, call) = (Arc::clone(&self.opening.service), self.call(call));
                let items = async move { service.stream(call).await }.try_flatten_stream().into_stream().boxed();
                self.streams.open(id, items);
            }
        }
        Ok(())
    }

    /// Adds what is told, and what else is there already: looking at everything for each item would cost more than the item.
    fn gather(&mut self, told: Told) {
        self.add(told);
        for _ in 0..AT_ONCE {
            if self.frame.bytes() >= frame::MOST_BYTES || self.opening.times.window.is_zero() {
                return;
            }
            let Some(told) = self.streams.next().now_or_never() else { return };
            self.add(told);
        }
    }

    fn add(&mut self, told: Told) {
        match told {
            Told::Item(id, item) => self.frame.add(|text| protocol::item(text, &id, &item)),
            Told::End(id, why) => self.complete(&id, why.as_deref().map_or(Ok(None), Err)),
        }
    }

    fn gather_pushes(&mut self, push: &PushText) {
        self.frame.add(|text| text.push_str(push.as_str()));
        for _ in 0..AT_ONCE {
            if self.frame.bytes() >= frame::MOST_BYTES {
                return;
            }
            let Some(push) = self.pushes.now() else { return };
            self.frame.add(|text| text.push_str(push.as_str()));
        }
    }
}

/// Waits until a frame is taken, or nobody will take one any more.
async fn has_room_in(outbox: &mut mpsc::Sender<String>) -> bool {
    poll_fn(|context| outbox.poll_ready(context)).await.is_ok()
}

async fn answered(calling: &mut Option<Calling>) -> Result<Value, String> {
    match calling {
        Some(calling) => (&mut calling.outcome).await,
        None => std::future::pending().await,
    }
}
