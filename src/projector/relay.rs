//! Publishes dead letters to the DLQ topic: an outbox, so nothing is lost while that topic is away, and nothing waits
//! for it. A crash between delivery and the mark publishes a letter twice, with the same `x-original-*` headers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::failure::Backoff;
use crate::platforms::kafka::producer::{Outgoing, PublishError, Publisher};
use crate::projector::context::ViewContext;
use crate::projector::dlq_headers::{headers_of, text};
use crate::store::dead_letters::{self, Unpublished};
use crate::store::{Connection, pool};

/// Letters per transaction.
const PAGE: i64 = 100;
/// How often the outbox is looked at without being woken.
const IDLE: Duration = Duration::from_secs(5);

/// Publishes until `stop`; a last round is made then.
pub async fn run(context: Arc<ViewContext>, publisher: Publisher, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut client: Option<Connection> = None;
    loop {
        let last_round = stop.is_cancelled();
        let wait = match publish_all(&context, &publisher, &mut client).await {
            Ok(()) => {
                if backoff.failures() > 0 {
                    tracing::info!(view = context.source.view, topic = context.dlq_topic, "dead letters flow again");
                }
                context.status.dead_letters_wait(None);
                backoff = Backoff::default();
                IDLE
            }
            Err(error) => {
                client = None;
                context.status.dead_letters_wait(Some(error.to_string()));
                if backoff.failures() == 0 {
                    let topic = &context.dlq_topic;
                    tracing::warn!(view = context.source.view, topic, error = %error, "dead letters wait in their table");
                }
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

async fn publish_all(
    context: &ViewContext,
    publisher: &Publisher,
    client: &mut Option<Connection>,
) -> anyhow::Result<()> {
    loop {
        let client = match client {
            Some(client) if !client.is_closed() => client,
            _ => client.insert(pool::connect_writer(&context.database, "public").await?),
        };
        client.batch_execute("begin").await?;
        let letters = dead_letters::claim(client, context.source.view, PAGE).await?;
        crash::point("relay.claimed");
        let full = letters.len() as i64 == PAGE;
        if !letters.is_empty() {
            let sent = try_join_all(letters.iter().map(|letter| publish(context, publisher, letter))).await;
            if let Err(error) = sent {
                client.batch_execute("rollback").await?;
                return Err(error.into());
            }
            crash::point("relay.published");
            let ids: Vec<i64> = letters.iter().map(|letter| letter.id).collect();
            dead_letters::mark_published(client, &ids).await?;
        }
        client.batch_execute("commit").await?;
        crash::point("relay.marked");
        if !full {
            return Ok(());
        }
    }
}

async fn publish(context: &ViewContext, publisher: &Publisher, letter: &Unpublished) -> Result<(), PublishError> {
    let mut outgoing = Outgoing {
        key: letter.key.as_deref(),
        payload: letter.payload.as_deref(),
        headers: headers_of(context.source.view, letter),
    };
    match publisher.publish(&context.dlq_topic, &outgoing).await {
        Err(PublishError::TooLarge) => {
            // The record is larger than the DLQ topic takes: its place and checksum go there, its bytes stay here.
            let payload = letter.payload.as_deref().unwrap_or_default();
            outgoing.payload = None;
            outgoing.headers.push(text(
                "x-dlq-payload",
                &format!(
                    "omitted; {} bytes, crc32 {:08x}; see dead_letters.id {}",
                    payload.len(),
                    crc32fast::hash(payload),
                    letter.id
                ),
            ));
            publisher.publish(&context.dlq_topic, &outgoing).await
        }
        other => other,
    }
}
