//! Server-Sent Events as text (source: the HTML standard, "Server-sent events").

use std::fmt::Write;

/// Milliseconds after which a client comes back when its connection ends.
const RETRY_MS: u32 = 1_000;
/// When we end it ourselves, everybody's ends at once: they come back one after the other within so many milliseconds.
const FAREWELL_MS: std::ops::RangeInclusive<u32> = 500..=2_500;

/// Text of a stream that is yet to be sent.
#[derive(Debug, Default)]
pub struct EventText(String);

impl EventText {
    /// The beginning of a stream. A client that is cut off before its first event comes back with `id`.
    pub fn opening(&mut self, id: Option<&str>) {
        self.come_back(RETRY_MS, id);
    }

    /// The end of a stream on our side. The client comes back with `id`.
    pub fn farewell(&mut self, id: &str) {
        self.come_back(fastrand::u32(FAREWELL_MS), Some(id));
    }

    fn come_back(&mut self, after_ms: u32, id: Option<&str>) {
        self.line(format_args!("retry: {after_ms}"));
        self.silence(id);
    }

    /// One event. `data` is JSON on one line.
    pub fn event(&mut self, name: &str, id: Option<&str>, data: &str) {
        self.line(format_args!("event: {name}"));
        if let Some(id) = id {
            self.line(format_args!("id: {id}"));
        }
        self.line(format_args!("data: {data}\n"));
    }

    /// No event, but a sign of life; an id without data moves the client's `Last-Event-ID` on.
    pub fn silence(&mut self, id: Option<&str>) {
        match id {
            Some(id) => self.line(format_args!(":\nid: {id}\n")),
            None => self.line(format_args!(":\n")),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(format_args!("{line}\n")).expect("a string takes what is written");
    }

    /// How many bytes have gathered.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// What has gathered.
    pub fn take(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_ends_with_an_empty_line() {
        let mut text = EventText::default();
        text.opening(Some("a"));
        text.event("order", Some("b"), "{}");
        text.event("overrun", None, "[]");
        text.silence(Some("c"));
        text.silence(None);
        let expected = "retry: 1000\n:\nid: a\n\nevent: order\nid: b\ndata: {}\n\nevent: overrun\ndata: []\n\n\
                        :\nid: c\n\n:\n\n";
        assert_eq!(text.take(), expected);
    }

    #[test]
    fn whom_we_send_away_at_once_does_not_come_back_at_once() {
        let waits: std::collections::BTreeSet<u32> = (0..100)
            .map(|_| {
                let mut text = EventText::default();
                text.farewell("a");
                let text = text.take();
                let wait = text.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix("\n:\nid: a\n\n"));
                wait.and_then(|wait| wait.parse().ok()).expect("a wait and an id, and no data")
            })
            .collect();
        assert!(waits.len() > 50 && waits.iter().all(|wait| FAREWELL_MS.contains(wait)), "{waits:?}");
    }
}
