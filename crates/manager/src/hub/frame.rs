//! What is gathered for one frame, and when it is due. No clock of its own.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes at which a frame is sent whatever the time, and nothing more is taken of streams until it is. It can be longer by one
/// item.
pub const MOST_BYTES: usize = 32 * 1024;

/// A frame that grows. What comes first after a pause is due at once; what comes within `window` after a frame waits for the
/// window to end, so that it travels in one frame.
#[derive(Debug)]
pub struct Frame {
    text: String,
    is_urgent: bool,
    window: Duration,
    last_sent: Instant,
}

impl Frame {
    /// An empty one.
    pub fn new(window: Duration, now: Instant) -> Frame {
        // Nothing was sent yet that the first one would have to wait for.
        let last_sent = now.checked_sub(window).unwrap_or(now);
        Frame { text: String::new(), is_urgent: false, window, last_sent }
    }

    /// Adds what may wait for others.
    pub fn add(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
    }

    /// Adds what does not wait; what was added before goes with it, in order.
    pub fn add_urgent(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.text);
        self.is_urgent = true;
    }

    /// When it is to be sent; `None` if there is nothing.
    pub fn due(&self) -> Option<Instant> {
        match self.text.len() {
            0 => None,
            bytes if self.is_urgent || bytes >= MOST_BYTES => Some(self.last_sent),
            _ => Some(self.last_sent + self.window),
        }
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// When a frame was taken last.
    pub fn last_sent(&self) -> Instant {
        self.last_sent
    }

    /// Takes it.
    pub fn take(&mut self, now: Instant) -> String {
        self.is_urgent = false;
        self.last_sent = now;
        std::mem::take(&mut self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_goes_at_once_and_the_next_go_together() {
        let (window, start) = (Duration::from_millis(20), Instant::now());
        let mut frame = Frame::new(window, start);
        assert_eq!(frame.due(), None);
        frame.add(|text| text.push('a'));
        assert!(frame.due().unwrap() <= start, "nothing was sent before");
        assert_eq!(frame.take(start), "a");
        frame.add(|text| text.push('b'));
        frame.add(|text| text.push('c'));
        assert_eq!(frame.due(), Some(start + window));
        frame.add_urgent(|text| text.push('d'));
        assert!(frame.due().unwrap() <= start, "who waits for an answer gets it now");
        assert_eq!(frame.take(start + window), "bcd");
        frame.add(|text| text.push('e'));
        assert_eq!(frame.due(), Some(start + window * 2), "it is urgent no more");
        frame.add(|text| text.push_str(&"x".repeat(MOST_BYTES)));
        assert_eq!(frame.due(), Some(start + window), "a full one waits for nothing");
    }
}
