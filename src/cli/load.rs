//! `streamview load`: the first filling of a view, faster than applying the topic batch by batch.

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::output;
use crate::app;
use crate::builds::load::LoadControl;
use crate::config::Config;
use crate::projector::runtime::Parts;
use crate::steward;
use crate::store::{migrate, pool};
use crate::telemetry::metrics::Metrics;

/// Fill the empty tables of a view from a whole topic, in bulk
///
/// For a topic that already holds many records: reads it from its beginning to its end as it is now, folds every key in
/// memory, writes into tables without indexes and builds these at the end. What comes out is what `serve` would have
/// made, and `serve` goes on from there. Until it is done the view is not to be read, and instances of `serve` wait.
///
/// A load that was cut short, by SIGTERM or Ctrl-C too, is run again, and begins anew. The role of database.url has to own
/// the tables, as for `migrate`; the consumer group is kafka.group_id with `.load` behind it.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// View to load
    #[arg(long, default_value = "orders")]
    view: String,
    /// Memory for keys, in MiB: when they need more, the load ends early and `serve` applies the rest. An order of a few
    /// events needs about 700 bytes
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    memory: u32,
    /// Empty the tables that a load has left behind, and load nothing
    #[arg(long)]
    discard: bool,
}

/// Runs the command. A load that is told to `stop` leaves its group, so that nobody waits for a dead member.
pub async fn run(arguments: LoadArgs, config: &Arc<Config>, stop: CancellationToken) -> Result<()> {
    let views = app::configured_views(config)?;
    let known: Vec<&str> = views.iter().map(|(view, _)| view.name).collect();
    let known = format!("there is no view {}; known: {}", arguments.view, known.join(", "));
    let served = views.into_iter().find(|(view, _)| view.name == arguments.view).context(known)?;
    let found = steward::look_at_active(&migrate::open(&config.database).await?, config, &served).await?;
    let ((view, settings), build) = (served, found.build);
    let parts = Parts {
        settings,
        metrics: Arc::new(Metrics::new()),
        pool: pool::read_pool(&config.database)?,
        build,
        meaning: found.meaning,
        stands: found.stands,
        group: steward::group_of(config, view.name, build),
        config: Arc::clone(config),
    };
    if arguments.discard {
        view.discard_load(parts).await?;
        output::line(format_args!("view {}: the tables of build {build} are empty again", view.name))?;
        return Ok(());
    }
    let control = LoadControl { stop, ..LoadControl::new(arguments.memory as usize * 1024 * 1024) };
    let loaded = view.load(parts, control).await?;
    let seconds = (loaded.reading + loaded.finishing).as_secs_f64();
    output::line(format_args!(
        "view {}: {} records, {} keys in {seconds:.1} s ({:.0} records/s); {:.1} s of it for rows and indexes",
        view.name,
        loaded.records,
        loaded.keys,
        loaded.records as f64 / seconds,
        loaded.finishing.as_secs_f64()
    ))?;
    if loaded.left > 0 {
        output::line(format_args!(
            "the keys needed more than --memory {}: {} records are left for `streamview serve`",
            arguments.memory, loaded.left
        ))?;
    }
    Ok(())
}
