//! A door in front of a server: shut, nobody listens there and who was connected is cut off; open, the server answers at the
//! same address as before. And between both: it hears what it is asked and does it, and its answer comes when nobody waits for it
//! any more.

use std::io::Result;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use streamview_lab::servers::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

pub struct Door {
    address: SocketAddr,
    server: String,
    /// Who passes them on, while it is open.
    passing: Mutex<Option<JoinHandle<()>>>,
    late: Arc<Late>,
}

/// Which answers come too late.
#[derive(Default)]
struct Late {
    is_so: AtomicBool,
    /// To requests with one of these in them.
    requests: Vec<&'static str>,
    /// So many were.
    answers: AtomicUsize,
}

impl Late {
    fn is_one(&self, request: &[u8]) -> bool {
        let has = |words: &&str| request.windows(words.len()).any(|part| part == words.as_bytes());
        let is_one = self.is_so.load(Ordering::SeqCst) && self.requests.iter().any(has);
        self.answers.fetch_add(usize::from(is_one), Ordering::SeqCst);
        is_one
    }
}

impl Door {
    /// An open one in front of the server with this URL, which may be late to answer requests that have one of these words.
    pub async fn of(url: &str, requests: &[&'static str]) -> Door {
        // Nobody else is given it while the door is shut.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).await.unwrap();
        let server = url.strip_prefix("http://").unwrap().to_owned();
        let late = Arc::new(Late { requests: requests.to_vec(), ..Late::default() });
        let door = Door { address: listener.local_addr().unwrap(), server, passing: Mutex::default(), late };
        door.listen(listener).await;
        door
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub async fn open(&self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.listen(listener).await;
    }

    pub async fn shut(&self) {
        let passing = self.passing.lock().await.take().unwrap();
        passing.abort();
        assert!(passing.await.unwrap_err().is_cancelled());
    }

    /// From now on those answers come once whoever asked has given up: what it asked for is done all the same.
    pub fn answer_late(&self, is_so: bool) {
        self.late.is_so.store(is_so, Ordering::SeqCst);
    }

    /// How many came so late.
    pub fn late_answers(&self) -> usize {
        self.late.answers.load(Ordering::SeqCst)
    }

    async fn listen(&self, listener: TcpListener) {
        let (server, late) = (self.server.clone(), Arc::clone(&self.late));
        let passing = tokio::spawn(async move {
            // With this task go the connections.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, late) = (server.clone(), Arc::clone(&late));
                connections.spawn(async move { pass(client, TcpStream::connect(server).await?, &late).await });
            }
        });
        *self.passing.lock().await = Some(passing);
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(passing) = self.passing.get_mut().take() {
            passing.abort();
        }
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, late: &Late) -> Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    // A connection with a late answer has no other: nobody asks anything more over it.
    let is_held = AtomicBool::new(false);
    let requests = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = from_client.read(&mut bytes).await?;
            if count == 0 {
                return to_server.shutdown().await;
            }
            if late.is_one(&bytes[..count]) {
                is_held.store(true, Ordering::SeqCst);
            }
            to_server.write_all(&bytes[..count]).await?;
        }
    };
    let answers = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let count = from_server.read(&mut bytes).await?;
            if count == 0 {
                return to_client.shutdown().await;
            }
            if !is_held.load(Ordering::SeqCst) {
                to_client.write_all(&bytes[..count]).await?;
            }
        }
    };
    tokio::try_join!(requests, answers).map(|_| ())
}
