//! Who watches rows: an EventSource and a WebSocket of a few lines, which cost the machine less than full clients would.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer of Server-Sent Events.
pub struct Rows {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A row, as JSON.
    Row(&'a str),
    /// So many rows were not shown.
    Dropped(u64),
}

impl Rows {
    /// Asks for `target`; open once it is answered.
    pub async fn open(port: u16, target: &str) -> Result<Rows> {
        let mut stream = connect(port).await?;
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes()).await?;
        let mut buffer = Vec::with_capacity(64 * 1024);
        let head = head(&mut stream, &mut buffer).await?;
        ensure!(head.starts_with("HTTP/1.1 200"), "GET {target}: {head}");
        Ok(Rows { stream, buffer })
    }

    /// Reads what is there, or waits for something; `each` sees it.
    pub async fn next(&mut self, mut each: impl FnMut(Seen<'_>)) -> Result<()> {
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the service ended a stream of rows");
        // An event is never cut by the frames around it; its end may be yet to come.
        let Some(end) = self.buffer.windows(2).rposition(|bytes| bytes == b"\n\n") else { return Ok(()) };
        let text = std::str::from_utf8(&self.buffer[..end]).context("events are text")?;
        for event in text.split("\n\n") {
            let Some((head, data)) = event.split_once("\ndata: ") else { continue };
            if head.ends_with("event: row") {
                each(Seen::Row(data));
            } else if head.ends_with("event: dropped") {
                let dropped: serde_json::Value = serde_json::from_str(data)?;
                each(Seen::Dropped(dropped["rows"].as_u64().context("a number of rows")?));
            } else if head.ends_with("event: end") {
                anyhow::bail!("a stream of rows ended: {data}");
            }
        }
        self.buffer.drain(..end + 2);
        Ok(())
    }
}

/// A connection to the hub that has said what it speaks, and does nothing.
pub async fn idle_connection(port: u16) -> Result<TcpStream> {
    let mut stream = connect(port).await?;
    let ask = "GET /hub/stream HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
               Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(ask.as_bytes()).await?;
    let mut buffer = Vec::new();
    let head = head(&mut stream, &mut buffer).await?;
    ensure!(head.starts_with("HTTP/1.1 101"), "the hub: {head}");
    let hello = b"{\"protocol\":\"json\",\"version\":1}\x1e";
    // Masked by zeros, which is allowed.
    let frame = [&[0x81, 0x80 | hello.len() as u8, 0, 0, 0, 0], &hello[..]].concat();
    stream.write_all(&frame).await?;
    while !buffer.ends_with(b"{}\x1e") {
        ensure!(stream.read_buf(&mut buffer).await? > 0, "the hub closed a connection");
    }
    Ok(stream)
}

async fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.context("connecting to the service")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The head of an answer; what came behind it stays in the buffer.
async fn head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return String::from_utf8(head).context("the head is not text");
        }
        ensure!(stream.read_buf(buffer).await? > 0, "the service closed the connection");
    }
}
