//! The streams that one client has open. Who is cancelled is dropped at once, whether or not anything is taken of the others.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::service::Items;

/// What a stream tells.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// An item of the call of this id.
    Item(Arc<str>, String),
    /// The call's end: `None` that all was told, else why not.
    End(Arc<str>, Option<String>),
}

struct Open {
    id: Arc<str>,
    items: Items,
}

/// Open streams, each in its turn.
#[derive(Default)]
pub struct Streams {
    open: Vec<Open>,
    /// Whose turn it is: who has much to tell keeps nobody else from telling something.
    turn: usize,
}

impl Streams {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Opens one. The id is not in use.
    pub fn open(&mut self, id: &str, items: Items) {
        self.open.push(Open { id: id.into(), items });
    }

    /// Whether the id is in use.
    pub fn has(&self, id: &str) -> bool {
        self.open.iter().any(|open| *open.id == *id)
    }

    /// Drops one; whether it was there.
    pub fn close(&mut self, id: &str) -> bool {
        let before = self.open.len();
        self.open.retain(|open| *open.id != *id);
        self.open.len() < before
    }

    /// Drops all.
    pub fn close_all(&mut self) {
        self.open.clear();
    }

    /// What is told next; never ready while there are none. A stream that has ended is gone.
    pub async fn next(&mut self) -> Told {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Told> {
        for _ in 0..self.open.len() {
            self.turn = (self.turn + 1) % self.open.len();
            let open = &mut self.open[self.turn];
            let end = match open.items.as_mut().poll_next(context) {
                Poll::Pending => continue,
                Poll::Ready(Some(Ok(item))) => return Poll::Ready(Told::Item(Arc::clone(&open.id), item)),
                Poll::Ready(Some(Err(why))) => Some(why),
                Poll::Ready(None) => None,
            };
            let open = self.open.swap_remove(self.turn);
            return Poll::Ready(Told::End(open.id, end));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream::{self, StreamExt};
    use futures_util::{FutureExt, pin_mut};

    use super::*;

    fn items(texts: &[&str]) -> Items {
        stream::iter(texts.iter().map(|text| Ok((*text).to_owned())).collect::<Vec<_>>()).boxed()
    }

    #[tokio::test]
    async fn each_stream_has_its_turn_and_one_end() {
        let mut streams = Streams::default();
        streams.open("endless", stream::repeat_with(|| Ok("x".to_owned())).boxed());
        streams.open("short", items(&["a", "b"]));
        streams.open("wrong", stream::iter([Err("no".to_owned()), Ok("never".to_owned())]).boxed());
        let mut told = Vec::new();
        while streams.len() > 1 {
            match streams.next().await {
                Told::Item(id, item) if &*id != "endless" => told.push(format!("{id}: {item}")),
                Told::Item(..) => {}
                Told::End(id, why) => told.push(format!("{id} ends: {why:?}")),
            }
            assert!(told.len() < 10);
        }
        told.sort();
        assert_eq!(told, ["short ends: None", "short: a", "short: b", "wrong ends: Some(\"no\")"]);
        assert!(streams.close("endless") && !streams.close("endless"));
        let next = streams.next();
        pin_mut!(next);
        assert!(next.now_or_never().is_none(), "of no streams nothing is told");
    }
}
