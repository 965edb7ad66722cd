//! A connected client, as the methods of a hub know it: it can be sent something without having asked.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures_channel::mpsc;
use futures_util::StreamExt;
use serde_json::json;

use super::protocol::SEPARATOR;

/// Pushes that may wait for one client.
const MOST_WAITING: usize = 4_096;
/// Bytes of pushes that may wait for one client. Texts are shared between clients.
const MOST_WAITING_BYTES: usize = 512 * 1024;

/// The public id of a connection. It opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub Arc<str>);

/// Something to send to any number of clients, written once.
#[derive(Debug, Clone)]
pub struct PushText(Arc<str>);

impl PushText {
    /// A call of the client's method `target` with one text, as `ReceiveMessage` takes it.
    pub fn new(target: &str, argument: &str) -> PushText {
        let mut text = json!({ "type": 1, "target": target, "arguments": [argument] }).to_string();
        text.push(SEPARATOR);
        PushText(text.into())
    }

    /// The message with its separator.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits to be sent.
    Waits,
    /// Too much waits already: it is lost for this client.
    Lost,
    /// The client has left.
    Gone,
}

/// A connected client. Clones are the same one.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    id: ConnectionId,
    /// Bounded by what is counted here.
    pushes: mpsc::UnboundedSender<PushText>,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The other end of a client: what waits to be sent to it.
pub struct Pushes {
    client: Client,
    pushes: mpsc::UnboundedReceiver<PushText>,
}

impl Client {
    /// A client, and what takes the pushes for it.
    pub fn new(id: ConnectionId) -> (Client, Pushes) {
        let (sender, receiver) = mpsc::unbounded();
        let (waiting, waiting_bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let shared = Shared { id, pushes: sender, waiting, waiting_bytes, lost: AtomicU64::new(0) };
        let client = Client(Arc::new(shared));
        (client.clone(), Pushes { client, pushes: receiver })
    }

    /// Which one.
    pub fn id(&self) -> &ConnectionId {
        &self.0.id
    }

    /// Sends it something, without waiting: who takes little loses something and holds nobody up.
    pub fn push(&self, text: &PushText) -> Pushed {
        let shared = &self.0;
        let bytes = text.0.len();
        // Several that push at once may all come in: a text more of each than there is room for, then.
        let (waiting, waiting_bytes) = (&shared.waiting, &shared.waiting_bytes);
        if waiting.load(Ordering::Relaxed) >= MOST_WAITING || waiting_bytes.load(Ordering::Relaxed) > MOST_WAITING_BYTES
        {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            return Pushed::Lost;
        }
        waiting.fetch_add(1, Ordering::Relaxed);
        waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        match shared.pushes.unbounded_send(text.clone()) {
            Ok(()) => Pushed::Waits,
            // Nobody takes anything any more, so nobody counts.
            Err(_) => Pushed::Gone,
        }
    }

    /// How many pushes it has lost.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Debug for Client {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.0.id.0).finish()
    }
}

impl Pushes {
    /// The next one. Never ends, as it holds a client itself.
    pub async fn next(&mut self) -> Option<PushText> {
        let text = self.pushes.next().await?;
        self.taken(&text);
        Some(text)
    }

    /// The next one, if it is there.
    pub fn now(&mut self) -> Option<PushText> {
        let text = self.pushes.try_recv().ok()?;
        self.taken(&text);
        Some(text)
    }

    fn taken(&self, text: &PushText) {
        self.client.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.client.0.waiting_bytes.fetch_sub(text.0.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_is_a_call_without_an_id_whose_text_is_escaped() {
        let text = PushText::new("ReceiveMessage", "{\"a\":\"\n\u{1e}\"}");
        let expected =
            "{\"arguments\":[\"{\\\"a\\\":\\\"\\n\\u001e\\\"}\"],\"target\":\"ReceiveMessage\",\"type\":1}\u{1e}";
        assert_eq!(text.as_str(), expected, "no bare separator stands inside");
    }

    #[tokio::test]
    async fn who_takes_nothing_loses_pushes_and_gets_them_again_after_taking_some() {
        let (client, mut pushes) = Client::new(ConnectionId("a".into()));
        let text = PushText::new("ReceiveMessage", &"x".repeat(1_000));
        let sent = (0..10_000).filter(|_| client.push(&text) == Pushed::Waits).count();
        assert!(sent * text.as_str().len() <= MOST_WAITING_BYTES + text.as_str().len(), "{sent} wait");
        assert_eq!(client.lost(), 10_000 - sent as u64);
        for _ in 0..sent {
            assert!(pushes.next().await.is_some());
        }
        assert!(pushes.now().is_none());
        assert_eq!(client.push(&text), Pushed::Waits);
        let small = PushText::new("a", "");
        let sent = (0..10_000).filter(|_| client.push(&small) == Pushed::Waits).count();
        assert_eq!(sent, MOST_WAITING - 1);
        for _ in 0..MOST_WAITING {
            assert!(pushes.now().is_some());
        }
        drop(pushes);
        assert_eq!(client.push(&small), Pushed::Gone);
    }
}
