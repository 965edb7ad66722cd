//! `streamview doctor`: looks at what the service stands on (not at stream engines, nor at an identity provider), and says of each thing whether it is as it should be
//! and what to do if not. Asks by the probes that the service itself asks by, and says it in the same words. Changes nothing.
//!
//! Each look is bounded in time, and those that do not need each other go side by side: a host that is dead costs five seconds.

mod check;
mod database;
mod history;
mod http;
mod kafka;
mod registry;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

pub use self::check::{Check, Report, Status};
use crate::app::{self, Served};
use crate::config::{Config, ConfigError};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long all answers of one server may take, once it answers.
const LONG_PATIENCE: Duration = Duration::from_secs(15);

/// Looks at everything.
pub async fn examine(config: &Arc<Config>) -> Report {
    let mut checks = settings::check(config);
    let views: Vec<Served> = match app::configured_views(config) {
        Ok(views) => views,
        Err(error) => {
            checks.push(Check::failed("settings", "", format!("{error:#}"), "set the topics of that view"));
            Vec::new()
        }
    };
    let (database, kafka, registry, http) = tokio::join!(
        database::examine(config, &views),
        kafka::examine(&config.kafka, &views),
        registry::examine(&config.schema_registry),
        http::examine(&config.http),
    );
    let histories = join_all(views.iter().map(|view| history::examine(config, view, &database, &kafka))).await;
    let of_views = histories.into_iter().flatten();
    checks.extend(database.checks.into_iter().chain(kafka.checks).chain(of_views).chain(registry));
    checks.push(Check::not_asked("clock.kafka", "", "Kafka tells nobody what time it has"));
    // Clocks stand together, whoever told of them.
    let is_clock = |check: &Check| check.name.starts_with("clock.");
    let (clocks, rest): (Vec<Check>, Vec<Check>) = checks.into_iter().partition(is_clock);
    Report::new(rest.into_iter().chain(clocks).chain(http).collect())
}

/// The report where not even the settings can be read.
pub fn unusable(error: &ConfigError) -> Report {
    Report::new(vec![settings::unusable(error)])
}

/// A name in SQL.
fn sql_name(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// How far somebody's clock is ahead of ours, judged. `error`: by how much that may be wrong.
fn clock(name: &'static str, subject: &str, ahead: i64, error: i64) -> Check {
    /// Milliseconds that disturb nobody.
    const TOLERANCE: i64 = 1_000;
    let seconds = ahead.abs() as f64 / 1000.0;
    if ahead.abs() <= TOLERANCE + error {
        return Check::ok(
            name,
            subject,
            format!("agrees with ours within {:.1} s", (ahead.abs() + error) as f64 / 1000.0),
        );
    }
    let direction = if ahead > 0 { "ahead of" } else { "behind" };
    let message = format!(
        "{seconds:.1} s {direction} ours: lag in seconds, and how long keys and tokens are valid, are wrong by that"
    );
    Check::warning(name, subject, message, "have both machines set their clock by NTP: `timedatectl set-ntp true`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_may_differ_by_a_second_and_by_what_cannot_be_told() {
        for (ahead, error, status) in [
            (0, 1, Status::Ok),
            (-1_000, 0, Status::Ok),
            (1_900, 1_000, Status::Ok),
            (2_001, 1_000, Status::Warning),
            (-5_000, 10, Status::Warning),
        ] {
            let check = clock("clock.database", "", ahead, error);
            assert_eq!(check.status, status, "{check:?}");
        }
        assert!(clock("clock.database", "", -5_000, 1).message.starts_with("5.0 s behind ours"));
    }

    #[test]
    fn names_are_quoted_where_sql_needs_it() {
        assert_eq!(["orders_1", "Shop", "a\"b", "1a"].map(sql_name), ["orders_1", "\"Shop\"", "\"a\"\"b\"", "\"1a\""]);
    }
}
