//! `streamview held`: what waits for a missing event, and skipping what it waits for. Talks to Postgres directly, so it
//! works while nothing runs.

use anyhow::Result;
use clap::{Args, Subcommand};

use super::desk::{self, BulkArgs, Common, WhyArgs, or_dash, parse_age, table};
use super::output;
use crate::api::ops::model::{HeldDetailBody, HeldKeyBody, HeldPageBody};
use crate::config::Config;
use crate::domain::held::HeldReason;
use crate::repair::Desk;
use crate::repair::request::{HeldFilter, Request, SkipHeld};

/// Look at held orders, and skip what they wait for
///
/// An order is held while its next event is missing or was refused. Decisions made here are followed within about a
/// second by a running projector, or by the next one that runs.
#[derive(Args, Debug)]
pub struct HeldArgs {
    #[command(subcommand)]
    action: HeldAction,
}

#[derive(Debug, Subcommand)]
enum HeldAction {
    /// List held keys, those that have waited longest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many at most
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Show what a key waits for, what waits behind it, and what can be done
    Show {
        /// The key: an order's id
        key: String,
        #[command(flatten)]
        common: Common,
    },
    /// Go on without the missing events
    Skip {
        /// The key: an order's id
        #[arg(value_name = "KEY")]
        one: Option<String>,
        /// First number to skip [default: the one it waits for]
        #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
        from: Option<i64>,
        /// Last number to skip [default: --from, or everything that is missing]
        #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
        to: Option<i64>,
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        bulk: BulkArgs,
        #[command(flatten)]
        why: WhyArgs,
        #[command(flatten)]
        common: Common,
    },
}

/// Which held keys.
#[derive(Args, Clone, Debug)]
struct FilterArgs {
    /// Only keys held for this reason; may be repeated
    #[arg(long, value_name = "REASON", value_parser = HeldReason::WORDS)]
    with_reason: Vec<String>,
    /// Only this key
    #[arg(long = "key", value_name = "KEY")]
    with_key: Option<String>,
    /// Only keys held for at least so long: seconds, or a duration such as PT15M or 2h
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    older_than: Option<i64>,
    /// Only keys held for less than so long
    #[arg(long, value_name = "AGE", value_parser = parse_age)]
    newer_than: Option<i64>,
    /// Only gaps that are proven: the missing event is not in the log
    #[arg(long)]
    proven: bool,
}

impl FilterArgs {
    fn filter(self) -> Result<HeldFilter> {
        let FilterArgs { with_reason, with_key, older_than, newer_than, proven } = self;
        desk::check_window(older_than, newer_than)?;
        Ok(HeldFilter {
            reasons: with_reason,
            key: with_key,
            older_than,
            newer_than,
            proven: proven.then_some(true),
            nothing_refused: false,
        })
    }
}

/// Does what is asked.
pub async fn run(arguments: HeldArgs, config: &Config) -> Result<()> {
    match arguments.action {
        HeldAction::List { filter, limit, common } => {
            let filter = filter.filter()?;
            let desk = desk::open(config, &common).await?;
            list(&desk, &filter, limit, common.json).await
        }
        HeldAction::Show { key, common } => {
            let desk = desk::open(config, &common).await?;
            let held = HeldDetailBody::from(desk.show_held(&key).await.map_err(desk::explain)?);
            if common.json {
                return desk::print_json(&held);
            }
            output::text(shown(&held))?;
            Ok(())
        }
        HeldAction::Skip { one, from, to, filter, bulk, why, common } => {
            let filter = filter.filter()?;
            let request = match desk::one_or_all(one, bulk.all, "a key", filter != HeldFilter::default())? {
                Some(key) => Request::SkipHeld(SkipHeld { key, from, to }),
                None => Request::SkipHeldByFilter(filter, bulk.bulk()?),
            };
            desk::decide(&desk::open(config, &common).await?, &request, &why, common.json).await
        }
    }
}

async fn list(desk: &Desk, filter: &HeldFilter, limit: u32, json: bool) -> Result<()> {
    let found = desk.list_held(filter, None, limit).await?;
    let mut items: Vec<HeldKeyBody> = found.into_iter().map(Into::into).collect();
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    if json {
        return desk::print_json(&HeldPageBody { items, page_size: limit });
    }
    let rows: Vec<Vec<String>> = items.iter().map(row).collect();
    output::text(table(&["KEY", "REASON", "WAITS FOR", "PARKED", "BYTES", "SINCE", "DECIDED", "PROVEN"], &rows))?;
    if more {
        output::line("… and more: narrow the filter, or raise --limit")?;
    }
    Ok(())
}

fn missing(held: &HeldKeyBody) -> String {
    match held.missing_to {
        Some(to) if to > held.missing_from => format!("{}-{to}", held.missing_from),
        _ => held.missing_from.to_string(),
    }
}

fn row(held: &HeldKeyBody) -> Vec<String> {
    vec![
        held.key.clone(),
        held.reason.to_owned(),
        missing(held),
        held.parked_count.to_string(),
        held.parked_bytes.to_string(),
        held.since.to_string(),
        if held.decided { "yes" } else { "no" }.to_owned(),
        or_dash(held.proven_at),
    ]
}

fn shown(detail: &HeldDetailBody) -> String {
    let held = &detail.held;
    let mut text =
        format!("{} has waited for number {} since {} ({})\n", held.key, missing(held), held.since, held.reason);
    if !detail.parked.is_empty() {
        let rows = detail.parked.iter().map(|event| {
            let position = format!("{}/{}/{}", event.topic, event.partition, event.offset);
            let event_type = or_dash(event.event_type.as_deref());
            vec![
                event.sequence.to_string(),
                event_type,
                event.event_id.clone(),
                position,
                event.payload.bytes.to_string(),
            ]
        });
        text.push_str(&format!("\nparked behind it: {} events, {} bytes\n", held.parked_count, held.parked_bytes));
        text.push_str(&table(&["NUMBER", "TYPE", "EVENT ID", "POSITION", "BYTES"], &rows.collect::<Vec<_>>()));
    }
    if !detail.dead_letters.is_empty() {
        let rows: Vec<Vec<String>> = detail.dead_letters.iter().map(super::dlq::row).collect();
        text.push_str("\ndead letters\n");
        text.push_str(&table(&super::dlq::COLUMNS, &rows));
    }
    if !detail.decisions.is_empty() {
        text.push_str("\ndecisions\n");
        text.push_str(&desk::decisions(&detail.decisions));
    }
    text.push_str("\nnext\n");
    text.push_str(&desk::steps(&detail.next));
    text
}
