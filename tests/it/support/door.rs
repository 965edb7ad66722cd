//! A door in front of a server: shut, nobody listens there and who was connected is cut off; open, the server answers at the
//! same address as before.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

pub struct Door {
    address: SocketAddr,
    server: String,
    /// Who passes them on, while it is open.
    passing: Mutex<Option<JoinHandle<()>>>,
}

impl Door {
    /// An open one in front of the server with this URL.
    pub async fn of(url: &str) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = url.strip_prefix("http://").unwrap().to_owned();
        let door = Door { address: listener.local_addr().unwrap(), server, passing: Mutex::default() };
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

    async fn listen(&self, listener: TcpListener) {
        let server = self.server.clone();
        let passing = tokio::spawn(async move {
            // With this task go the connections.
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                let server = server.clone();
                connections.spawn(async move {
                    let mut server = TcpStream::connect(server).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
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
