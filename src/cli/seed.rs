//! `streamview seed`: publishes realistic order events.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use tokio::time::Instant;

use super::output;
use crate::app::Signals;
use crate::codec::json::is_a_second;
use crate::config::Config;
use crate::platforms::kafka::base_config;
use crate::platforms::kafka::log::LogReader;
use streamview_lab::seed::{SeedFormat, SeedPlan, Summary, create_topics, publish};

/// Publish realistic order events to Kafka
///
/// Orders live believable lives (created, extended, paid, packed, shipped, delivered or cancelled), many
/// at once and interleaved. On request some events arrive twice, late, behind a gap or broken, so that
/// every rule of the projector can be watched at work. The topic is created if it does not exist.
///
/// Brokers and topic come from the configuration (kafka.bootstrap_servers, views.orders.topic). Progress
/// goes to stderr, the closing summary to stdout. Ctrl-C stops sending, waits for the confirmations of
/// what was sent and prints the summary.
///
/// Exit code 0 if the broker confirmed every record, 1 otherwise.
#[derive(Args, Clone, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct SeedArgs {
    /// Orders in all [default: 1000, or without end if --count is given]
    ///
    /// An order has 5 events on average.
    #[arg(long, value_name = "ORDERS", value_parser = clap::value_parser!(u64).range(1..))]
    pub orders: Option<u64>,

    /// Records in all, repetitions and broken ones included [default: until every order's life is over]
    ///
    /// The last order's life is cut short to end there; no gap is left open.
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Never end: new orders as long as the command runs
    #[arg(long, conflicts_with_all = ["orders", "count"])]
    pub endless: bool,

    /// Records per second [default: as fast as the broker takes them]
    ///
    /// Behind schedule it catches up, so the rate holds on average.
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    pub rate: Option<f64>,

    /// Topic to publish to [default: views.orders.topic of the configuration]
    #[arg(long)]
    pub topic: Option<String>,

    /// Partitions of the topic, if it does not exist yet
    ///
    /// A topic that exists keeps its own. Keys are spread as by the Java client.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: i32,

    /// How payloads are written
    #[arg(long, value_enum, default_value_t = SeedFormat::Json)]
    pub format: SeedFormat,

    /// Share of events sent twice, before the order's next event: duplicates
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub duplicates: f64,

    /// Share of events sent again after a later event of their order: late copies
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub late: f64,

    /// Share of events that arrive after their successor: gaps, which all heal
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub gaps: f64,

    /// Share of events that are broken: bad bytes, a wrong type, no sequence, no key, a missing field
    ///
    /// Nothing replaces a broken event, so its order stays held there, as it would in real life, and
    /// the order's later events stay parked.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub poison: f64,

    /// Start of the random numbers, 0 to 999999 [default: another one each time, printed]
    ///
    /// Together with --start-time the same seed gives the same bytes. Each seed has its own range of
    /// order numbers, so runs with different seeds do not touch each other's orders, and a run with the
    /// same seed repeats them: all its events are duplicates or late.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(..SEEDS))]
    pub seed: Option<u64>,

    /// occurredAt of the first event, RFC 3339
    /// [default: now if --rate is given, else so that the last event is about now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub start_time: Option<Timestamp>,
}

/// As everywhere: second 60 only where there was one.
fn time(text: &str) -> Result<Timestamp, String> {
    let time = text.parse::<Timestamp>().map_err(|error| error.to_string())?;
    if is_a_second(text, time) { Ok(time) } else { Err("there was no leap second then".to_owned()) }
}

const EXAMPLES: &str = "\
Examples:
  streamview seed                                   1000 orders, in perfect order
  streamview seed --endless --rate 20 --gaps 0.01   a live trickle with a gap now and then
  streamview seed --count 100000 --duplicates 0.05 --late 0.02 --gaps 0.02 --poison 0.001
  STREAMVIEW_KAFKA__BOOTSTRAP_SERVERS=broker:9092 streamview seed --orders 10 --seed 42";

const SEEDS: u64 = 1_000_000;
/// Order numbers of one seed.
const ORDERS_PER_SEED: u64 = 100_000_000;
const DEFAULT_ORDERS: u64 = 1000;
/// Events of an average order, for an estimate of when the first one was placed.
const EVENTS_PER_ORDER: u64 = 5;
/// Between two events in the shop, where no rate says otherwise.
const UNPACED_STEP: Duration = Duration::from_millis(250);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Publishes until done or Ctrl-C; an error if the broker did not confirm everything.
pub async fn run(args: SeedArgs, config: &Config) -> anyhow::Result<()> {
    let bootstrap = &config.kafka.bootstrap_servers;
    let topic = match &args.topic {
        Some(topic) => topic,
        None => &config.views.get("orders").context("the configuration has no view named orders")?.topic,
    };
    let plan = args.plan(Timestamp::now(), || fastrand::u64(..SEEDS));
    let (kafka, signals) = (base_config(&config.kafka), Signals::listen()?);
    let prepare = async {
        // Who is not let in is told why by the client that asks first.
        let (settings, first) = (config.kafka.clone(), topic.clone());
        let asked = tokio::task::spawn_blocking(move || LogReader::open(&settings, &first)?.partitions());
        asked.await?.map_err(|error| anyhow::anyhow!("{}", error.at(bootstrap)))?;
        create_topics(&kafka, &[(topic, args.partitions)]).await
    };
    tokio::select! {
        () = signals.stop.cancelled() => return Ok(()),
        prepared = prepare => prepared?,
    }
    eprintln!("publishing to {topic} at {bootstrap}, seed {}, from order-{}", plan.seed, plan.start_order);

    let mut report = Report::start();
    let publishing = publish(&kafka, topic, &plan, args.rate, signals.stop.clone(), |sent| report.update(sent));
    let summary = until_interrupted(publishing, signals).await?;
    output::line(describe(&summary))?;
    if summary.failed > 0 {
        let reason = summary.first_error.as_deref().unwrap_or("no reason given");
        anyhow::bail!("the broker did not confirm {} records, first because: {reason}", summary.failed);
    }
    Ok(())
}

impl SeedArgs {
    fn plan(&self, now: Timestamp, new_seed: impl Fn() -> u64) -> SeedPlan {
        let seed = self.seed.unwrap_or_else(new_seed);
        let orders = match self.orders {
            Some(orders) => orders,
            None if self.endless || self.count.is_some() => u64::MAX,
            None => DEFAULT_ORDERS,
        };
        let time_step = match self.rate {
            Some(rate) => Duration::from_secs_f64(1.0 / rate),
            None => UNPACED_STEP,
        };
        SeedPlan {
            orders,
            count: self.count,
            duplicates: self.duplicates,
            late: self.late,
            gaps: self.gaps,
            poison: self.poison,
            seed,
            start_order: seed * ORDERS_PER_SEED + 1,
            start_time: self.start_time.unwrap_or_else(|| self.default_start(now, orders, time_step)),
            time_step,
            format: self.format,
        }
    }

    /// A paced run happens as we watch; all others have happened by now, as far as their end is known.
    fn default_start(&self, now: Timestamp, orders: u64, time_step: Duration) -> Timestamp {
        if self.rate.is_some() || self.endless {
            return now;
        }
        let records = self.count.unwrap_or(u64::MAX).min(orders.saturating_mul(EVENTS_PER_ORDER));
        let past = time_step.checked_mul(u32::try_from(records).unwrap_or(u32::MAX));
        past.and_then(|past| now.checked_sub(past).ok()).unwrap_or(now)
    }
}

/// The first signal ends the work gently: it stops sending and still waits for the confirmations.
pub(super) async fn until_interrupted<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    signals: Signals,
) -> anyhow::Result<T> {
    let stop = signals.stop.clone();
    let mut work = std::pin::pin!(work);
    let telling = async {
        tokio::select! {
            done = &mut work => return done,
            () = stop.cancelled() => eprintln!("interrupted, waiting for confirmations"),
        }
        work.await
    };
    signals.with(telling).await
}

/// A line on stderr now and then.
struct Report {
    start: Instant,
    last: Instant,
}

impl Report {
    fn start() -> Report {
        let now = Instant::now();
        Report { start: now, last: now }
    }

    fn update(&mut self, sent: u64) {
        if self.last.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.last = Instant::now();
        let seconds = self.start.elapsed().as_secs_f64();
        eprintln!("{sent} records sent in {seconds:.0} s, {:.0} per second", sent as f64 / seconds);
    }
}

fn describe(summary: &Summary) -> String {
    let Summary { generated, delivered, .. } = summary;
    format!(
        "{delivered} of {} records confirmed, {} orders: {} events to apply ({} behind a gap that heals), \
         {} parked behind poison, {} duplicates, {} late, {} poison",
        generated.records,
        generated.orders,
        generated.applied,
        generated.delayed,
        generated.parked,
        generated.duplicates,
        generated.late,
        generated.poison
    )
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0 to 1, such as 0.05 for 5 %".to_owned()),
    }
}

pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=10_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("expected records per second from 0.001 to 10000000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        seed: SeedArgs,
    }

    fn plan(arguments: &[&str]) -> SeedPlan {
        let cli = Cli::try_parse_from([&["seed"], arguments].concat()).unwrap();
        cli.seed.plan(now(), || 77)
    }

    fn now() -> Timestamp {
        "2026-03-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_arguments_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn orders_and_count_decide_the_end() {
        assert_eq!((plan(&[]).orders, plan(&[]).count), (1000, None));
        assert_eq!(plan(&["--count", "5"]).orders, u64::MAX);
        assert_eq!(plan(&["--count", "5", "--orders", "2"]).orders, 2);
        assert_eq!(plan(&["--endless"]).orders, u64::MAX);
        assert!(Cli::try_parse_from(["seed", "--endless", "--count", "5"]).is_err());
    }

    #[test]
    fn seeds_do_not_share_orders() {
        assert_eq!(plan(&[]).seed, 77);
        assert_eq!(plan(&["--seed", "0"]).start_order, 1);
        assert_eq!(plan(&["--seed", "2"]).start_order, 2 * ORDERS_PER_SEED + 1);
        assert!(Cli::try_parse_from(["seed", "--seed", "1000000"]).is_err());
    }

    #[test]
    fn events_do_not_lie_in_the_future() {
        let unpaced = plan(&["--count", "4000"]);
        assert_eq!(unpaced.start_time + unpaced.time_step * 4000, now());
        let paced = plan(&["--count", "4000", "--rate", "10"]);
        assert_eq!((paced.start_time, paced.time_step), (now(), Duration::from_millis(100)));
        let fixed = plan(&["--start-time", "2020-01-01T00:00:00Z"]);
        assert_eq!(fixed.start_time.to_string(), "2020-01-01T00:00:00Z");
    }

    #[test]
    fn shares_and_rates_are_checked() {
        assert_eq!(plan(&["--gaps", "1", "--poison", "0.5"]).gaps, 1.0);
        for bad in [["--gaps", "1.1"], ["--late", "-0.1"], ["--poison", "NaN"], ["--rate", "0"], ["--rate", "inf"]] {
            assert!(Cli::try_parse_from([&["seed"], &bad[..]].concat()).is_err(), "{bad:?}");
        }
    }
}
