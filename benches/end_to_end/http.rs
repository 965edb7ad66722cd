//! A keep-alive HTTP/1.1 client of a few lines: answers with a Content-Length, one request at a time. It costs the
//! machine less than a full client would, and the machine is what is measured.

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One keep-alive connection to 127.0.0.1.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Header lines of every request.
    headers: String,
}

/// An answer.
#[derive(Debug)]
pub struct Answer<'a> {
    /// Status code.
    pub status: u16,
    /// Target of the `Link` to the next page, if there is one.
    pub next: Option<String>,
    /// Its body.
    pub body: &'a [u8],
}

impl Connection {
    /// Connects.
    pub async fn open(port: u16) -> Result<Connection> {
        Connection::open_as(port, "").await
    }

    /// Connects, for requests with these header lines.
    pub async fn open_as(port: u16, headers: &str) -> Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.context("connecting to the service")?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: Vec::with_capacity(32 * 1024), headers: headers.to_owned() })
    }

    /// `GET target`, read to the end of its body.
    pub async fn get(&mut self, target: &str) -> Result<Answer<'_>> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: bench\r\n{}\r\n", self.headers)).await
    }

    /// `POST target` with a JSON body, read to the end of the answer's body.
    pub async fn post(&mut self, target: &str, json: &str) -> Result<Answer<'_>> {
        self.call("POST", target, json).await
    }

    /// Likewise, by another method.
    pub async fn call(&mut self, method: &str, target: &str, json: &str) -> Result<Answer<'_>> {
        let (kind, length) = ("application/json", json.len());
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: bench\r\nContent-Type: {kind}\r\nContent-Length: {length}");
        self.send(format!("{head}\r\n{}\r\n{json}", self.headers)).await
    }

    async fn send(&mut self, request: String) -> Result<Answer<'_>> {
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let head_end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            self.read_more().await?;
        };
        let head = std::str::from_utf8(&self.buffer[..head_end]).context("the head is not text")?;
        let status = head.get(9..12).context("no status line")?.parse()?;
        let length: usize = header(head, "content-length").context("an answer without a length")?.parse()?;
        let next = header(head, "link").and_then(next_page).map(str::to_owned);
        while self.buffer.len() < head_end + length {
            self.read_more().await?;
        }
        Ok(Answer { status, next, body: &self.buffer[head_end..] })
    }

    async fn read_more(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the service closed the connection");
        }
        Ok(())
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn next_page(link: &str) -> Option<&str> {
    let part = link.split(", ").find(|part| part.ends_with("rel=\"next\""))?;
    part.strip_prefix('<')?.split_once('>').map(|(target, _)| target)
}
