//! `streamview doctor`: what keeps the service from running, and what to do about it.

use std::io::IsTerminal as _;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use super::desk::print_json;
use super::{output, signals};
use crate::config::{Config, ConfigError};
use crate::doctor::{self, Report};

/// Look at all that the service stands on: settings, Postgres, Kafka, schema registry, port
///
/// Each line has a mark: ✓ as it should be, ✗ wrong, ! somebody should know, ? could not be asked. What is wrong comes with
/// what to do about it. Changes nothing, and may run beside the service. Exit code 1 if anything is wrong.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print JSON: ok, and checks with name, subject, status (ok, warning, failed, not_asked), message and fix
    #[arg(long)]
    json: bool,
}

/// Looks, prints, and gives the exit code.
pub fn run(arguments: &DoctorArgs, config: Result<Config, ConfigError>) -> Result<i32> {
    let report = match config {
        Ok(config) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let report = runtime.block_on(async {
                signals::end_at_first()?;
                Ok::<_, anyhow::Error>(doctor::examine(&Arc::new(config)).await)
            })?;
            // A blocking call to a dead broker must not hold up the exit.
            runtime.shutdown_background();
            report
        }
        Err(error) => doctor::unusable(&error),
    };
    print(arguments, &report)?;
    Ok(if report.ok { 0 } else { 1 })
}

fn print(arguments: &DoctorArgs, report: &Report) -> Result<()> {
    if arguments.json {
        return print_json(report);
    }
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    output::text(report.text(std::io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb))
}
