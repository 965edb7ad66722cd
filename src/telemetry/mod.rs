//! Logs, metrics and traces. The metric catalogue is the only place where a metric is named.

mod lines;
pub mod metrics;
pub mod traces;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use self::lines::OneLine;
use crate::config::{LogFormat, LogSettings};

/// Sends logs to stderr, as text or as JSON lines.
pub fn init_logs(settings: &LogSettings) -> Result<()> {
    let filter = EnvFilter::try_new(&settings.level).context("log.level is not a filter")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Json => builder.json().flatten_event(true).init(),
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.fmt_fields(OneLine).with_target(false).with_ansi(is_terminal).init();
        }
    }
    Ok(())
}
