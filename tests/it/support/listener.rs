//! A client of Server-Sent Events that can be cut off and comes back with its last id; and a way to the service that can be
//! cut and led elsewhere.

use std::sync::{Arc, Mutex, OnceLock};

use reqwest::{Client, Response};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::PATIENCE;

/// One event as a browser would dispatch it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub name: String,
    pub id: String,
    pub data: Value,
}

impl Event {
    pub fn order_id(&self) -> &str {
        self.data["orderId"].as_str().unwrap()
    }

    /// The number of the event that has changed the order.
    pub fn sequence(&self) -> i64 {
        self.data["changedBy"]["sequence"].as_i64().unwrap()
    }
}

/// One client for all streams and questions, each with a connection of its own: making one takes longer than coming back.
pub fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        streamview::schemas::client::install_tls();
        Client::builder().pool_max_idle_per_host(0).build().unwrap()
    })
}

/// An open stream.
pub struct Listener {
    response: Response,
    received: Vec<u8>,
    /// The last id that was seen, as `EventSource` keeps it.
    pub last_id: String,
}

impl Listener {
    /// Opens a stream that must be there; an empty id is none.
    pub async fn open(url: &str, last_id: &str) -> Listener {
        let response = Listener::ask(url, last_id).await.unwrap();
        assert_eq!(response.status().as_u16(), 200, "{url}: {}", response.text().await.unwrap());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Listener { response, received: Vec::new(), last_id: last_id.to_owned() }
    }

    /// Opens a stream if the service answers.
    pub async fn try_open(url: &str, last_id: &str) -> Option<Listener> {
        let response = Listener::ask(url, last_id).await.ok().filter(|response| response.status().as_u16() == 200)?;
        Some(Listener { response, received: Vec::new(), last_id: last_id.to_owned() })
    }

    async fn ask(url: &str, last_id: &str) -> reqwest::Result<Response> {
        client().get(url).header("Last-Event-ID", last_id).send().await
    }

    /// The next event; `None` at the end of the stream. Signs of life are none.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.next_event()).await.expect("the stream tells something")
    }

    async fn next_event(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(data) = field("data: ") {
                let name = field("event: ").unwrap_or_default();
                return Some(Event { name, id: self.last_id.clone(), data: serde_json::from_str(&data).unwrap() });
            }
        }
    }

    /// The next block of lines, whether it is an event or not.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|bytes| bytes == b"\n\n") {
                let block: Vec<u8> = self.received.drain(..end + 2).collect();
                let block = String::from_utf8(block).unwrap();
                if let Some(id) = block.lines().find_map(|line| line.strip_prefix("id: ")) {
                    self.last_id = id.to_owned();
                }
                return Some(block);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("the stream says something");
            self.received.extend_from_slice(&chunk.ok()??);
        }
    }

    /// The next events, as many as that.
    pub async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("the stream goes on"));
        }
        events
    }
}

/// Takes connections to wherever it leads at that moment.
pub struct Road {
    pub address: String,
    target: Arc<Mutex<String>>,
    under_way: Arc<Mutex<JoinSet<()>>>,
    accepting: JoinHandle<()>,
}

impl Road {
    pub async fn to(target: &str) -> Road {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (target, under_way) = (Arc::new(Mutex::new(target.to_owned())), Arc::new(Mutex::new(JoinSet::new())));
        let (leads_to, connections) = (Arc::clone(&target), Arc::clone(&under_way));
        let accepting = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = leads_to.lock().unwrap().clone();
                connections.lock().unwrap().spawn(async move {
                    if let Ok(mut service) = TcpStream::connect(target).await {
                        tokio::io::copy_bidirectional(&mut client, &mut service).await.ok();
                    }
                });
            }
        });
        Road { address, target, under_way, accepting }
    }

    /// Leads elsewhere from now on.
    pub fn lead_to(&self, target: &str) {
        target.clone_into(&mut self.target.lock().unwrap());
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.under_way.lock().unwrap().abort_all();
    }
}

impl Drop for Road {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
