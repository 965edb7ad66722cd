//! Orders with equally many events each, an order's updates spaced 10 to 2000 order creations apart.

use super::event::Event;
use super::mix;

const NEAREST: u64 = 10;
const FARTHEST: u64 = 2000;
/// Slots of the wheel that holds future updates; more than [`FARTHEST`].
const WHEEL: usize = 2048;

/// Events of some orders, in the order they are published.
pub struct Spaced {
    next: u64,
    end: u64,
    each: u64,
    tick: u64,
    wheel: Vec<Vec<Event>>,
    due: Vec<Event>,
    waiting: u64,
}

impl Spaced {
    /// `each` events of each of `count` orders, the first of which has number `first`.
    pub fn new(first: u64, count: u64, each: u64) -> Spaced {
        let wheel = vec![Vec::new(); WHEEL];
        Spaced { next: first, end: first + count, each, tick: 0, wheel, due: Vec::new(), waiting: 0 }
    }

    fn schedule_after(&mut self, event: Event) {
        if event.sequence == self.each {
            return;
        }
        let next = numbered(event.order, event.sequence + 1);
        let distance = NEAREST + mix(next.order, next.sequence) % (FARTHEST - NEAREST + 1);
        self.wheel[(self.tick + distance) as usize % WHEEL].push(next);
        self.waiting += 1;
    }
}

impl Iterator for Spaced {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.due.pop() {
                self.waiting -= 1;
                self.schedule_after(event);
                return Some(event);
            }
            if self.next == self.end && self.waiting == 0 {
                return None;
            }
            self.tick += 1;
            std::mem::swap(&mut self.due, &mut self.wheel[self.tick as usize % WHEEL]);
            if self.next < self.end {
                let created = numbered(self.next, 1);
                self.next += 1;
                self.schedule_after(created);
                return Some(created);
            }
        }
    }
}

/// The events 2 to `last` of `count` orders from number `first` on, one of each order in turn: their first is missing.
pub fn headless(first: u64, count: u64, last: u64) -> impl Iterator<Item = Event> {
    (2..=last).flat_map(move |sequence| (first..first + count).map(move |order| numbered(order, sequence)))
}

/// An order is created each second; 700 seconds are about the time between two of its events.
fn numbered(order: u64, sequence: u64) -> Event {
    Event { order, sequence, second: order + 700 * sequence }
}
