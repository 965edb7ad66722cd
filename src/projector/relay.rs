//! Publishes dead letters to the DLQ topic: an outbox, so nothing is lost while that topic is away, and nothing waits
//! for it. A crash between delivery and the mark publishes a letter twice, with the same `x-original-*` headers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::codec::dlq_headers::{Left, Unpublished, headers_of};
use crate::crash;
use crate::failure::Backoff;
use crate::platforms::kafka::producer::{Outgoing, PublishError, Publisher};
use crate::projector::context::ViewContext;
use crate::store::dead_letters;
use crate::store::sqlstate::describe_chain;
use crate::store::{Connection, pool};

/// Letters per transaction.
const PAGE: i64 = 100;
/// How often the outbox is looked at without being woken.
const IDLE: Duration = Duration::from_secs(5);

/// Publishes until `stop`; a last round is made then. The producer is open only while there is something to publish.
pub async fn run(context: Arc<ViewContext>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut client: Option<Connection> = None;
    let mut publisher: Option<Publisher> = None;
    loop {
        let last_round = stop.is_cancelled();
        let wait = match publish_all(&context, &mut publisher, &mut client).await {
            Ok(published) => {
                if !published {
                    publisher = None;
                }
                if backoff.failures() > 0 {
                    tracing::info!(view = context.source.view, topic = context.dlq_topic, "dead letters flow again");
                }
                context.status.dead_letters_wait(None);
                backoff = Backoff::default();
                IDLE
            }
            Err(error) => {
                client = None;
                publisher = publisher.filter(|publisher| !publisher.is_dead());
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

/// Whether there was anything to publish.
async fn publish_all(
    context: &ViewContext,
    publisher: &mut Option<Publisher>,
    client: &mut Option<Connection>,
) -> anyhow::Result<bool> {
    let mut published = false;
    loop {
        let client = match client {
            Some(client) if !client.is_closed() => client,
            _ => client.insert(pool::connect_writer(&context.database, "public").await?),
        };
        client.batch_execute("begin").await?;
        let letters = dead_letters::claim(client, context.source.view, PAGE).await?;
        crash::point("relay.claimed");
        let full = letters.len() as i64 == PAGE;
        let mut refused = None;
        if !letters.is_empty() {
            published = true;
            let publisher = match publisher {
                Some(publisher) => publisher,
                None => publisher.insert(Publisher::open(&context.kafka)?),
            };
            let sent = join_all(letters.iter().map(|letter| publish(context, publisher, letter))).await;
            crash::point("relay.published");
            // Those that were delivered are not published again because another one was not.
            let delivered = letters.iter().zip(&sent).filter(|(_, sent)| sent.is_ok());
            let ids: Vec<i64> = delivered.map(|(letter, _)| letter.id).collect();
            dead_letters::mark_published(client, &ids).await?;
            refused = sent.into_iter().find_map(Result::err);
        }
        client.batch_execute("commit").await?;
        crash::point("relay.marked");
        if let Some(error) = refused {
            return Err(error.into());
        }
        if !full {
            return Ok(published);
        }
    }
}

/// Publishes a letter whole; or without its value where the topic takes less; or as a mere pointer, where its key or its
/// own headers are what is too large. What is left out stays in the table.
async fn publish(context: &ViewContext, publisher: &Publisher, letter: &Unpublished) -> Result<(), PublishError> {
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
