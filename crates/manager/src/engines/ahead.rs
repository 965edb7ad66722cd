//! Rows that an engine gives before their reader takes them: bounded in number and in bytes. Beyond that the engine waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Item, Row};

/// Rows that wait for a slow reader.
const WAITING_ROWS: usize = 1024;
/// And so many bytes of them. One row always fits.
const WAITING_BYTES: usize = 4 << 20;
/// Largest row that is handed on, in the bytes that the engine sends of it.
pub(super) const MAX_ROW: usize = 1 << 20;

/// What is read ahead.
pub(super) fn ahead() -> (Ahead, Received) {
    let (items, receiver) = mpsc::channel(WAITING_ROWS);
    (Ahead { items, room: Arc::new(Semaphore::new(WAITING_BYTES)) }, Received(receiver))
}

/// An item that waits for its reader, and the room that it takes up until then.
type Waiting = (Item, Option<OwnedSemaphorePermit>);

/// The writer's end.
pub(super) struct Ahead {
    items: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// The reader is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Ahead {
    pub async fn send(&self, item: Item) -> Result<(), Gone> {
        self.items.send((item, None)).await.map_err(|_| Gone)
    }

    /// Waits until there is room for a row of so many bytes.
    pub async fn send_row(&self, row: Row, bytes: usize) -> Result<(), Gone> {
        let bytes = u32::try_from(bytes.min(WAITING_BYTES)).unwrap_or(u32::MAX);
        let permit = tokio::select! {
            // A reader that goes away gives no room back to a writer that waits.
            () = self.items.closed() => return Err(Gone),
            permit = Arc::clone(&self.room).acquire_many_owned(bytes) => permit.map_err(|_| Gone)?,
        };
        self.items.send((Item::Row(row), Some(permit))).await.map_err(|_| Gone)
    }

    /// Waits until the reader is gone.
    pub async fn closed(&self) {
        self.items.closed().await;
    }
}

/// The reader's end.
pub(super) struct Received(mpsc::Receiver<Waiting>);

impl Stream for Received {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        self.0.poll_recv(context).map(|waiting| waiting.map(|(item, _room)| item))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::engines::{End, RowKind};

    #[tokio::test]
    async fn what_is_read_ahead_is_bounded_in_bytes() {
        let (ahead, mut received) = ahead();
        let row = || Row { kind: RowKind::Insert, values: Vec::new() };
        for _ in 0..4 {
            ahead.send_row(row(), MAX_ROW).await.unwrap();
        }
        let mut fifth = Box::pin(ahead.send_row(row(), MAX_ROW));
        assert!((&mut fifth).now_or_never().is_none(), "there is no room for a fifth");
        assert!(received.next().await.is_some());
        fifth.await.unwrap();
        // An end waits for no room, and who waits for some hears that the reader is gone.
        ahead.send(Item::End(End::Limit)).await.unwrap();
        let sixth = ahead.send_row(row(), MAX_ROW);
        drop(received);
        assert!(sixth.await.is_err());
    }
}
