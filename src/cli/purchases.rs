//! `streamview purchases`: publishes the rows of the stream manager's example.

use anyhow::{Context as _, ensure};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use streamview_lab::seed::{Purchases, create_topics, publish_records};

use super::output;
use super::seed::{parse_rate, until_interrupted};
use crate::app::Signals;
use crate::config::Config;
use crate::platforms::kafka::base_config;

/// Publish sample purchases to Kafka, for the stream manager's example
///
/// One row is one purchase: {"ORDER_ID": 1001, "CUSTOMER_ID": 573, "PRODUCT": "Webcam", "AMOUNT": 342.78,
/// "PURCHASE_DATE": "2026-11-28T20:50:06"}. The topic is created if it does not exist. Ctrl-C stops sending and waits for the
/// confirmations of what was sent.
///
/// Exit code 0 if the broker confirmed every record, 1 otherwise.
#[derive(Args, Clone, Debug)]
pub struct PurchasesArgs {
    /// Purchases in all [default: without end]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Rows per second
    ///
    /// Behind schedule it catches up, so the rate holds on average.
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate, default_value = "0.2")]
    rate: f64,

    /// Topic to publish to
    #[arg(long, default_value = "orders")]
    topic: String,

    /// Partitions of the topic, if it does not exist yet
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: i32,
}

/// Publishes until done or Ctrl-C; an error if the broker did not confirm everything.
pub async fn run(args: PurchasesArgs, config: &Config) -> anyhow::Result<()> {
    let kafka = base_config(&config.kafka);
    eprintln!("publishing purchases to {} at {}", args.topic, config.kafka.bootstrap_servers);
    let (signals, topics) = (Signals::listen()?, [(args.topic.as_str(), args.partitions)]);
    tokio::select! {
        () = signals.stop.cancelled() => return Ok(()),
        created = create_topics(&kafka, &topics) => created?,
    }
    let step = SignedDuration::try_from_secs_f64(1.0 / args.rate).context("--rate is too small")?;
    let purchases = Purchases::new(fastrand::u64(..), Timestamp::now(), step);
    let mut rows = purchases.take(args.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX)));
    let publishing = publish_records(&kafka, &args.topic, &mut rows, Some(args.rate), signals.stop.clone(), |_| {});
    let confirmed = until_interrupted(publishing, signals).await?;
    output::line(format_args!("{} purchases confirmed", confirmed.delivered))?;
    let reason = confirmed.first_error.as_deref().unwrap_or("no reason given");
    ensure!(confirmed.failed == 0, "the broker did not confirm {} records, first because: {reason}", confirmed.failed);
    Ok(())
}
