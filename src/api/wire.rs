//! Whether somebody is still at the other end of a connection while something runs for them. Where a network goes silent without
//! a word nothing else tells: the kernel would go on for a minute. What is asked is the other kernel, so a client that takes
//! little, or has been stopped, is there.
#![allow(unsafe_code)] // TCP_INFO is not in the safe wrapper

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::rt::net::TcpStream;
use socket2::{SockRef, Socket, TcpKeepalive};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Silence after which the other kernel is asked; no less can be set.
const ASK: Duration = Duration::from_secs(1);
/// Silence after which nobody is there: it was asked several times meanwhile, or was sent something again and again.
const SILENCE: Duration = Duration::from_millis(1_600);
/// So many looks in a row have to see it: a machine that slept finds its questions unanswered when it wakes.
const IN_A_ROW: u32 = 2;

/// A connection, kept with it for its requests.
pub struct Wire {
    socket: Socket,
    /// How many are watching.
    watched: Cell<usize>,
}

/// Watches as long as it is held.
pub struct Watching(AbortHandle);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Wire {
    /// Of a new connection.
    pub fn of(connection: &TcpStream) -> Option<Rc<Wire>> {
        let socket = SockRef::from(connection).try_clone();
        let socket = socket.inspect_err(|error| tracing::debug!(%error, "a connection cannot be watched"));
        Some(Rc::new(Wire { socket: socket.ok()?, watched: Cell::new(0) }))
    }

    /// That by which a request has come.
    pub fn by(request: &HttpRequest) -> Weak<Wire> {
        request.conn_data::<Rc<Wire>>().map(Rc::downgrade).unwrap_or_default()
    }

    /// Ends it, with all that was under way on it.
    pub fn end(&self) {
        if let Err(error) = self.socket.shutdown(std::net::Shutdown::Both) {
            tracing::debug!(%error, "a connection has ended already");
        }
    }

    /// Has the kernel ask the other one after each second of silence; said again, it asks at once.
    fn ask(&self) {
        if let Err(error) = self.socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ASK).with_interval(ASK)) {
            tracing::debug!(%error, "nobody can be asked at the other end of a connection");
        }
    }

    fn look(&self) -> Option<Look> {
        // The fields are the kernel's contract (linux/tcp.h): each is where it was when it was added.
        let mut words = [0_u32; 40];
        let mut length = libc::socklen_t::try_from(size_of_val(&words)).ok()?;
        // SAFETY: the buffer is writable for as many bytes as `length` says, and the socket is open as long as `self` is.
        let outcome = unsafe {
            let (fd, into) = (self.socket.as_raw_fd(), words.as_mut_ptr().cast());
            libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, into, &raw mut length)
        };
        (outcome == 0 && length >= 148).then(|| Look::of(&words))
    }
}

/// Ends a request's connection when nobody is at its other end any more.
pub fn end_when_silent(request: &HttpRequest) -> Watching {
    let wire = Wire::by(request);
    let watching = actix_web::rt::spawn(async move {
        if silent(&wire).await
            && let Some(wire) = wire.upgrade()
        {
            tracing::info!("nobody is at the other end of a connection any more: what runs for it ends");
            wire.end();
        }
    });
    Watching(watching.abort_handle())
}

/// Returns with `true` once nobody is at the other end any more; with `false` once the connection has ended.
pub async fn silent(wire: &Weak<Wire>) -> bool {
    let Some(_asked) = Asked::of(wire) else { return false };
    let (began, mut seen) = (Instant::now(), 0);
    while seen < IN_A_ROW {
        sleep(LOOK).await;
        let Some(wire) = wire.upgrade() else { return false };
        let Some(look) = wire.look() else { return false };
        // Nobody was asked before.
        let silence = look.silence.min(began.elapsed());
        seen = if look.is_silent(silence) { seen + 1 } else { 0 };
        if silence >= ASK {
            wire.ask();
        }
    }
    true
}

/// The kernel asks as long as one of these is held.
struct Asked(Weak<Wire>);

impl Asked {
    fn of(wire: &Weak<Wire>) -> Option<Asked> {
        let there = wire.upgrade()?;
        if there.watched.replace(there.watched.get() + 1) == 0 {
            there.ask();
        }
        Some(Asked(Weak::clone(wire)))
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(wire) = self.0.upgrade() else { return };
        let left = wire.watched.get().saturating_sub(1);
        wire.watched.set(left);
        if left == 0
            && let Err(error) = wire.socket.set_keepalive(false)
        {
            tracing::debug!(%error, "a connection is asked about although nobody wants to know");
        }
    }
}

/// What the kernel knows of a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// Since when nothing has come.
    silence: Duration,
    round_trip: Duration,
    /// Segments that are under way.
    unacknowledged: u32,
    /// How often in a row the first of them was sent again.
    resent: u8,
    /// Bytes that wait for the other end to make room.
    unsent: u32,
    /// Questions without an answer.
    asked: u8,
}

impl Look {
    fn of(words: &[u32; 40]) -> Look {
        let [_, _, resent, asked] = words[0].to_ne_bytes();
        let since = words[13].min(words[14]);
        Look {
            silence: Duration::from_millis(u64::from(since)),
            round_trip: Duration::from_micros(u64::from(words[17])),
            unacknowledged: words[6],
            resent,
            unsent: words[36],
            asked,
        }
    }

    /// | under way | waits for room | nobody is there if, after long enough |
    /// |---|---|---|
    /// | something | – | it was sent again |
    /// | nothing | something | never: the other end has said that it takes no more, and is asked ever more seldom |
    /// | nothing | nothing | it was asked and has not answered |
    fn is_silent(&self, silence: Duration) -> bool {
        let is_long = silence >= SILENCE.max(ASK + 2 * self.round_trip);
        let is_unheard = match (self.unacknowledged, self.unsent) {
            (1.., _) => self.resent > 0,
            (0, 1..) => false,
            (0, 0) => self.asked > 0,
        };
        is_long && is_unheard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_little_is_there_and_who_answers_nothing_is_not() {
        let long = Duration::from_secs(5);
        let look = |unacknowledged, resent, unsent, asked| Look {
            unacknowledged,
            resent,
            unsent,
            asked,
            round_trip: Duration::from_millis(20),
            silence: long,
        };
        for (look, expected) in [
            (look(3, 2, 1_000, 0), true),
            (look(0, 0, 0, 2), true),
            (look(3, 0, 0, 0), false),
            (look(0, 0, 50_000, 1), false),
            (look(0, 0, 0, 0), false),
        ] {
            assert_eq!(look.is_silent(look.silence), expected, "{look:?}");
            assert!(!look.is_silent(Duration::from_millis(1_500)), "{look:?}");
            let far = Look { round_trip: Duration::from_secs(3), ..look };
            assert!(!far.is_silent(far.silence), "an answer may be under way: {far:?}");
        }
    }

    #[actix_web::test]
    async fn a_look_says_what_the_kernel_knows() {
        let listener = actix_web::rt::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let wire = Wire::of(&server).unwrap();
        let look = wire.look().unwrap();
        assert_eq!((look.unacknowledged, look.unsent, look.resent, look.asked), (0, 0, 0, 0), "{look:?}");
        assert!(look.silence < Duration::from_secs(10) && look.round_trip < Duration::from_secs(1), "{look:?}");
        // Nobody takes anything: in the end something waits for room.
        let full = [0; 65_536];
        while server.try_write(&full).is_ok() {}
        let look = wire.look().unwrap();
        assert!(look.unsent > 0 || look.unacknowledged > 0, "{look:?}");
        drop(client);
        assert!(!silent(&Weak::new()).await, "there is no connection");
    }
}
