//! What the doctor has found, and how it is shown. Pure.

use std::fmt::Write as _;

use serde::Serialize;

use crate::failure::Failure;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The service runs, and somebody should know.
    Warning,
    /// The service does not run, or not whole.
    Failed,
    /// Nobody could tell, because something else is in the way.
    NotAsked,
}

impl Status {
    const fn mark(self) -> char {
        match self {
            Status::Ok => '✓',
            Status::Warning => '!',
            Status::Failed => '✗',
            Status::NotAsked => '?',
        }
    }

    /// Of a terminal.
    const fn colour(self) -> &'static str {
        match self {
            Status::Ok => "\u{1b}[32m",
            Status::Warning => "\u{1b}[33m",
            Status::Failed => "\u{1b}[31m",
            Status::NotAsked => "\u{1b}[2m",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked for; a stable name.
    pub name: &'static str,
    /// Of what: an address, a topic, a view.
    pub subject: String,
    /// What came of it.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do: a command, a setting with its value, or SQL.
    pub fix: Option<String>,
}

impl Check {
    fn new(name: &'static str, subject: impl Into<String>, status: Status, message: impl Into<String>) -> Check {
        Check { name, subject: subject.into(), status, message: message.into(), fix: None }
    }

    /// As it should be.
    pub fn ok(name: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Check {
        Check::new(name, subject, Status::Ok, message)
    }

    /// Somebody should know.
    pub fn warning(
        name: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check { fix: Some(fix.into()), ..Check::new(name, subject, Status::Warning, message) }
    }

    /// As it must not be.
    pub fn failed(
        name: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Check {
        Check { fix: Some(fix.into()), ..Check::new(name, subject, Status::Failed, message) }
    }

    /// In the words by which a view waits or halts for it.
    pub fn failure(name: &'static str, subject: impl Into<String>, failure: Failure) -> Check {
        match failure.wait_or_halt() {
            Err(halt) => Check::failed(name, subject, halt.detail, halt.next_step),
            Ok((_, reason)) => Check::not_asked(name, subject, reason),
        }
    }

    /// Nobody could tell, because …
    pub fn not_asked(name: &'static str, subject: impl Into<String>, because: impl Into<String>) -> Check {
        Check::new(name, subject, Status::NotAsked, format!("not asked, because {}", because.into()))
    }

    /// Does this, too.
    #[must_use]
    pub fn or_do(mut self, fix: &str) -> Check {
        self.fix = Some(match self.fix.take() {
            Some(first) => format!("{first}\n{fix}"),
            None => fix.to_owned(),
        });
        self
    }
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing has failed.
    pub ok: bool,
    /// One for each thing that was looked at.
    pub checks: Vec<Check>,
}

impl Report {
    /// Sums up.
    pub fn new(checks: Vec<Check>) -> Report {
        Report { ok: checks.iter().all(|check| check.status != Status::Failed), checks }
    }

    /// For people; `colours` are those of a terminal.
    pub fn text(&self, colours: bool) -> String {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for Check { name, subject, status, message, fix } in &self.checks {
            let (on, off) = if colours { (status.colour(), "\u{1b}[0m") } else { ("", "") };
            let colon = if subject.is_empty() { "" } else { ": " };
            let mark = status.mark();
            let line = format!("{on}{mark}{off} {name:width$}  {subject}{colon}{message}");
            writeln!(text, "{line}").expect("text grows");
            for (number, line) in fix.iter().flat_map(|fix| fix.lines()).enumerate() {
                let word = if number == 0 { "fix:" } else { "" };
                writeln!(text, "  {:width$}  {word:4} {line}", "").expect("text grows");
            }
        }
        writeln!(text, "\n{}", self.summary()).expect("text grows");
        text
    }

    fn summary(&self) -> String {
        let count = |status| self.checks.iter().filter(|check| check.status == status).count();
        let parts = [
            (count(Status::Ok), "as it should be"),
            (count(Status::Failed), "failed"),
            (count(Status::Warning), "with a warning"),
            (count(Status::NotAsked), "not asked"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, words)| format!("{count} {words}")).collect();
        format!("{} checks: {}", self.checks.len(), parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report::new(vec![
            Check::ok("settings", "", "usable"),
            Check::failed("kafka.topic", "orders.events", "it is not there", "make it").or_do("or another one"),
            Check::warning("kafka.retention", "orders.events", "7 days", "keep it"),
            Check::not_asked("clock.kafka", "", "Kafka tells no time"),
        ])
    }

    #[test]
    fn every_check_is_a_line_with_its_mark_and_its_fix() {
        let text = "\
✓ settings         usable
✗ kafka.topic      orders.events: it is not there
                   fix: make it
                        or another one
! kafka.retention  orders.events: 7 days
                   fix: keep it
? clock.kafka      not asked, because Kafka tells no time

4 checks: 1 as it should be, 1 failed, 1 with a warning, 1 not asked
";
        assert_eq!(report().text(false), text);
        let coloured = report().text(true);
        assert!(coloured.starts_with("\u{1b}[32m✓\u{1b}[0m settings "), "{coloured:?}");
        let plain = ["\u{1b}[32m", "\u{1b}[31m", "\u{1b}[33m", "\u{1b}[2m", "\u{1b}[0m"];
        assert_eq!(plain.iter().fold(coloured, |text, code| text.replace(code, "")), text);
    }

    #[test]
    fn only_what_has_failed_makes_a_report_fail() {
        assert!(!report().ok);
        let rest = report().checks.into_iter().filter(|check| check.status != Status::Failed).collect();
        assert!(Report::new(rest).ok);
    }

    #[test]
    fn the_json_has_the_documented_members() {
        let json = serde_json::to_value(report()).unwrap();
        let checks = &json["checks"];
        assert_eq!(json["ok"], false);
        assert_eq!(
            checks[1],
            serde_json::json!({ "name": "kafka.topic", "subject": "orders.events", "status": "failed",
                "message": "it is not there", "fix": "make it\nor another one" })
        );
        let words: Vec<&str> = (0..4).map(|at| checks[at]["status"].as_str().unwrap()).collect();
        assert_eq!(words, ["ok", "failed", "warning", "not_asked"]);
        assert!(checks[0]["fix"].is_null());
    }
}
