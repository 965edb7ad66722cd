//! Publishes dead letters to the DLQ topic: an outbox, so nothing is lost while that topic is away, and nothing waits
//! for it.
//!
//! Each letter stands once on the topic. One relay at a time works for a view, by a lock of its transaction, and before it
//! publishes a page it reads what the topic holds beyond the confirmed positions: letters that were delivered although
//! nobody lived or waited long enough to mark them are marked then. A producer of which anything is unknown is closed
//! before that. What is left: a request that a broker carries out after its sender is gone and the topic was read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::codec::dlq_headers::{self, Left, Unpublished, headers_of};
use crate::crash;
use crate::failure::Backoff;
use crate::platforms::kafka::bounded::{Positions, ReadError, TopicReader};
use crate::platforms::kafka::producer::{Delivered, Outgoing, PublishError, Publisher};
use crate::projector::context::ViewContext;
use crate::store::dead_letters::{self, Seen};
use crate::store::sqlstate::describe_chain;
use crate::store::{Connection, pool};

/// Letters per transaction.
const PAGE: i64 = 100;
/// And bytes of them, the last one not counted: they are held, and once more by the client that sends them.
const PAGE_BYTES: i64 = 8 << 20;
/// How often the outbox is looked at without being woken.
const IDLE: Duration = Duration::from_secs(5);
/// How long the topic is read in one transaction.
const READ_FOR: Duration = Duration::from_secs(5);

/// What a transaction came to.
enum Page {
    /// There is nothing to publish, or another relay is at it.
    Nothing,
    /// There may be more.
    More,
}

/// Clients of the DLQ topic. They are open only while there is something to publish, and until anything fails.
struct Wire {
    publisher: Publisher,
    reader: Arc<TopicReader>,
}

/// The relay of one view.
struct Relay {
    context: Arc<ViewContext>,
    client: Option<Connection>,
    wire: Option<Wire>,
}

/// Publishes until `stop`; a last round is made then.
pub async fn run(context: Arc<ViewContext>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut relay = Relay { context: Arc::clone(&context), client: None, wire: None };
    loop {
        let last_round = stop.is_cancelled();
        let wait = match relay.publish_all().await {
            Ok(()) => {
                if backoff.failures() > 0 {
                    tracing::info!(view = context.source.view, topic = context.dlq_topic, "dead letters flow again");
                }
                context.status.dead_letters_wait(None);
                backoff = Backoff::default();
                IDLE
            }
            Err(error) => {
                let why = describe_chain(error.chain());
                if backoff.failures() == 0 {
                    let topic = &context.dlq_topic;
                    tracing::warn!(view = context.source.view, topic, error = why, "dead letters wait in their table");
                }
                context.status.dead_letters_wait(Some(why));
                backoff.next_wait()
            }
        };
        if last_round {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = context.new_dead_letters.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Relay {
    async fn publish_all(&mut self) -> anyhow::Result<()> {
        let mut is_idle = true;
        loop {
            let client = match self.client.take() {
                Some(client) if !client.is_closed() => client,
                _ => pool::connect_writer(&self.context.database, "public").await?,
            };
            match self.page(&client).await {
                Ok(page) => {
                    self.client = Some(client);
                    match page {
                        Page::More => is_idle = false,
                        Page::Nothing if is_idle => return self.close().await,
                        Page::Nothing => return Ok(()),
                    }
                }
                Err(error) => {
                    // Before the session ends, and the lock with it: who comes next must find nothing on its way.
                    self.close().await?;
                    return Err(error);
                }
            }
        }
    }

    /// One transaction: reads the topic on, or publishes a page.
    async fn page(&mut self, client: &Connection) -> anyhow::Result<Page> {
        let (view, topic) = (self.context.source.view, self.context.dlq_topic.clone());
        client.batch_execute(include_str!("../store/sql/begin_relay.sql")).await?;
        let has_lock = dead_letters::lock_relay(client, view).await?;
        let letters = if has_lock { dead_letters::claim(client, view, PAGE, PAGE_BYTES).await? } else { Vec::new() };
        if letters.is_empty() {
            client.batch_execute("commit").await?;
            return Ok(Page::Nothing);
        }
        let confirmed = dead_letters::confirmed(client, view, &topic).await?;
        let read = self.read_on(&confirmed).await?;
        dead_letters::confirm(client, view, &topic, &read.reached).await?;
        let found = dead_letters::mark_seen(client, view, &read.seen).await?;
        if found > 0 || !read.is_whole {
            client.batch_execute("commit").await?;
            if found > 0 {
                tracing::info!(view, topic, found, "dead letters were on their topic already");
            }
            return Ok(Page::More);
        }
        crash::point("relay.claimed");
        let refused = self.publish_page(client, &letters, read.reached).await?;
        client.batch_execute("commit").await?;
        crash::point("relay.marked");
        match refused {
            Some(error) => Err(error.into()),
            None => Ok(Page::More),
        }
    }

    /// Publishes letters and marks those that were delivered; gives why another one was not.
    async fn publish_page(
        &mut self,
        client: &Connection,
        letters: &[Unpublished],
        mut positions: Positions,
    ) -> anyhow::Result<Option<PublishError>> {
        let context = Arc::clone(&self.context);
        let publisher = &self.wire()?.publisher;
        let sent = join_all(letters.iter().map(|letter| publish(&context, publisher, letter))).await;
        crash::point("relay.published");
        let (mut ids, mut refused) = (Vec::new(), None);
        for (letter, sent) in letters.iter().zip(sent) {
            match sent {
                Ok(Delivered { partition, offset }) => {
                    ids.push(letter.id);
                    let position = positions.entry(partition).or_default();
                    *position = (*position).max(offset + 1);
                }
                Err(error) => refused = Some(error),
            }
        }
        // Those that were delivered are not published again because another one was not. Whether that one arrives after all,
        // nobody knows: its producer goes, before the lock does, and the topic is read again from where it was.
        if refused.is_some() {
            self.close().await?;
        } else {
            dead_letters::confirm(client, self.context.source.view, &self.context.dlq_topic, &positions).await?;
        }
        dead_letters::mark_published(client, &ids).await?;
        Ok(refused)
    }

    /// What the topic holds behind `from`.
    async fn read_on(&mut self, from: &Positions) -> anyhow::Result<Read> {
        let (reader, view, from) = (Arc::clone(&self.wire()?.reader), self.context.source.view, from.clone());
        spawn_blocking(move || read_back(&reader, view, &from)).await?
    }

    fn wire(&mut self) -> anyhow::Result<&Wire> {
        match &mut self.wire {
            Some(wire) => Ok(wire),
            none => {
                let publisher = Publisher::open(&self.context.kafka)?;
                let reader = Arc::new(TopicReader::open_all(&self.context.kafka, &self.context.dlq_topic)?);
                Ok(none.insert(Wire { publisher, reader }))
            }
        }
    }

    /// Closes the clients. Nothing of them is sent any more when this is done.
    async fn close(&mut self) -> anyhow::Result<()> {
        match self.wire.take() {
            Some(wire) => Ok(spawn_blocking(move || drop(wire)).await?),
            None => Ok(()),
        }
    }
}

/// What was read of the topic.
struct Read {
    seen: Vec<Seen>,
    reached: Positions,
    /// Whether that was all.
    is_whole: bool,
}

fn read_back(reader: &TopicReader, view: &str, from: &Positions) -> anyhow::Result<Read> {
    let mut seen = Vec::new();
    let read = reader.read_on(from, READ_FOR, |record| {
        let letter = dlq_headers::read(&record).filter(|letter| letter.view.as_deref() == Some(view));
        seen.extend(letter.and_then(|letter| Seen::new(letter.topic, letter.partition, letter.offset, letter.at?)));
    });
    match read {
        Ok((reached, is_whole)) => Ok(Read { seen, reached, is_whole }),
        // Whoever publishes to it says why that does not work, or makes it.
        Err(ReadError::Missing(_)) if from.is_empty() => Ok(Read { seen, reached: BTreeMap::new(), is_whole: true }),
        Err(error) => Err(error.into()),
    }
}

/// Publishes a letter whole; or without its value where the topic takes less; or as a mere pointer, where its key or its
/// own headers are what is too large. What is left out stays in the table.
async fn publish(
    context: &ViewContext,
    publisher: &Publisher,
    letter: &Unpublished,
) -> Result<Delivered, PublishError> {
    let view = context.source.view;
    let whole = Outgoing {
        key: letter.key.as_deref(),
        payload: letter.payload.as_deref(),
        headers: headers_of(view, letter, Left::Whole),
    };
    let without_value =
        Outgoing { payload: None, headers: headers_of(view, letter, Left::WithoutValue), ..whole.clone() };
    let pointer = Outgoing { key: None, payload: None, headers: headers_of(view, letter, Left::Pointer) };
    for outgoing in [whole, without_value, pointer] {
        match publisher.publish(&context.dlq_topic, &outgoing).await {
            Err(PublishError::TooLarge) => {}
            other => return other,
        }
    }
    Err(PublishError::TooLarge)
}
