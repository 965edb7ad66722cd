//! A client of WebSockets that does only what it is told (RFC 6455), and takes nothing unless it is asked to.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct WebSocket {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What a handshake got.
pub struct Answer {
    pub status: u16,
    /// Head and as much of the body as came with it.
    pub text: String,
}

impl WebSocket {
    /// Asks for one at `target`; `Err` is the refusal.
    pub async fn open(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Result<WebSocket, Answer> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut request = format!(
            "GET {target} HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
        let mut received = Vec::new();
        let end = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(stream.read_buf(&mut received).await.unwrap() > 0, "an answer has a head");
        };
        let status = std::str::from_utf8(&received[9..12]).unwrap().parse().unwrap();
        if status == 101 {
            received.drain(..end);
            return Ok(WebSocket { stream, received });
        }
        let length = String::from_utf8_lossy(&received).to_lowercase();
        let length = length.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let whole = end + length.unwrap_or(0_usize);
        while received.len() < whole && stream.read_buf(&mut received).await.unwrap() > 0 {}
        Err(Answer { status, text: String::from_utf8_lossy(&received).into_owned() })
    }

    /// Sends a message of the hub's protocol.
    pub async fn say(&mut self, message: &str) {
        let payload = format!("{message}\u{1e}").into_bytes();
        // Masked by zeros, which is allowed.
        let mut frame = vec![0x81, 0x80 | if payload.len() < 126 { payload.len() as u8 } else { 126 }];
        if payload.len() >= 126 {
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next text frame; `None` once the other side closes.
    pub async fn frame(&mut self) -> Option<String> {
        loop {
            if let Some((kind, payload, whole)) = self.parse() {
                self.received.drain(..whole);
                match kind {
                    1 => return Some(String::from_utf8(payload).unwrap()),
                    8 => return None,
                    _ => continue,
                }
            }
            if self.stream.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    fn parse(&self) -> Option<(u8, Vec<u8>, usize)> {
        let [first, second, rest @ ..] = &self.received[..] else { return None };
        let (length, head) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(rest.get(..8)?.try_into().ok()?)).ok()?, 10),
            length => (usize::from(length), 2),
        };
        let payload = self.received.get(head..head + length)?.to_vec();
        Some((first & 0x0f, payload, head + length))
    }
}
