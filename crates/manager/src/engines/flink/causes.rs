//! What went wrong, found in Java's stack traces: Flink says it nowhere else.

use crate::engines::Refusal;

/// Longest message that is handed on, in characters.
const MAX_MESSAGE: usize = 600;

/// The message of the last cause in a stack trace, on one line, without its class.
pub(super) fn last_cause(trace: &str) -> String {
    // An answer of the JobManager inside an answer of the gateway brings a stack trace of its own inside the message.
    let start = trace.rfind("Caused by: ").map(|at| at + "Caused by: ".len());
    let start =
        start.max(trace.rfind("<Exception on server side:\n").map(|at| at + "<Exception on server side:\n".len()));
    let cause = &trace[start.unwrap_or(0)..];
    let mut message = String::new();
    for line in cause.lines() {
        let line = line.trim();
        if line.starts_with("at ") || line.starts_with("... ") || line.starts_with("End of exception") {
            break;
        }
        if line.is_empty() {
            continue;
        }
        if !message.is_empty() {
            message.push(' ');
        }
        message.push_str(line);
        if message.chars().count() > MAX_MESSAGE {
            break;
        }
    }
    let message = without_class(&message).trim_end_matches(']');
    message.chars().take(MAX_MESSAGE).collect()
}

/// `org.apache.calcite.sql.validate.SqlValidatorException: Object 'x' not found` without the class, as often as there is one.
fn without_class(message: &str) -> &str {
    let mut rest = message;
    while let Some((class, after)) = rest.split_once(": ") {
        let is_class = class.contains('.')
            && class.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '$'));
        if !is_class {
            break;
        }
        rest = after;
    }
    rest
}

/// Where in the statement: the last `line L, column C` of the trace.
pub(super) fn position(trace: &str) -> Option<(u32, u32)> {
    let mut found = None;
    for lead in ["From line ", "from line ", "at line ", "At line "] {
        for (at, _) in trace.match_indices(lead) {
            let rest = &trace[at + lead.len()..];
            if let Some(position) = line_and_column(rest)
                && found.is_none_or(|(place, _)| at > place)
            {
                found = Some((at, position));
            }
        }
    }
    found.map(|(_, position)| position)
}

fn line_and_column(text: &str) -> Option<(u32, u32)> {
    let (line, rest) = text.split_once(", column ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((line.parse().ok()?, digits.parse().ok()?))
}

/// Whether the job id was known already: the job was submitted before.
pub(super) fn is_duplicate(trace: &str) -> bool {
    trace.contains("DuplicateJobSubmissionException")
}

/// Whether there was no room for a task.
pub(super) fn is_without_slot(trace: &str) -> bool {
    trace.contains("NoResourceAvailableException")
}

/// Whether the session is gone: closed, expired, or its gateway has been restarted.
pub(super) fn is_session_gone(trace: &str) -> bool {
    trace.contains("Session '") && trace.contains("' does not exist")
}

/// Whether the cluster, not the query, is why a query of somebody who looks has ended.
pub(super) fn is_cluster_gone(trace: &str) -> bool {
    is_session_gone(trace)
        || ["Could not find Flink job", "is no longer reachable", "Can not find the submitted operation", "timed out.)"]
            .iter()
            .any(|sign| trace.contains(sign))
}

/// A refusal of a statement, with the position as the engine says it.
pub(super) fn refusal(trace: &str) -> Refusal {
    let (line, column) = position(trace).unzip();
    let code = if trace.contains("SqlParserException") || trace.contains("SqlParseException") {
        "syntax"
    } else if trace.contains("not found") {
        "not_found"
    } else {
        "refused_by_engine"
    };
    Refusal { code: code.to_owned(), message: last_cause(trace), line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cause_is_told_without_its_class_and_with_its_position() {
        let trace = "Internal server error.\n<Exception on server side:\norg.apache.flink.table.gateway.Gone: Failed.\n\tat \
                     org.apache.Fetch(Fetch.java:91)\nCaused by: org.apache.flink.table.api.ValidationException: SQL validation \
                     failed. From line 2, column 8 to line 2, column 12: Column 'nocol' not found in any table\n\t... 8 more\n\
                     Caused by: org.apache.calcite.runtime.CalciteContextException: From line 2, column 8 to line 2, column 12: \
                     Column 'nocol' not found\n\tat x(y)\nCaused by: org.apache.calcite.sql.validate.SqlValidatorException: \
                     Column 'nocol' not found in any table\n\t... 7 more\n\nEnd of exception on server side>";
        let refusal = refusal(trace);
        assert_eq!(refusal.message, "Column 'nocol' not found in any table");
        assert_eq!((refusal.line, refusal.column), (Some(2), Some(8)));
    }

    #[test]
    fn messages_of_several_lines_become_one() {
        let trace = "x\nCaused by: org.apache.flink.table.api.ValidationException: Column types do not match.\nCause: Different \
                     number of columns.\n\nQuery schema: [a: INT]\nSink schema:  []\n\tat org.apache(x)";
        let expected =
            "Column types do not match. Cause: Different number of columns. Query schema: [a: INT] Sink schema:  []";
        assert_eq!(last_cause(trace).trim_end_matches(']'), expected.trim_end_matches(']'));
    }

    #[test]
    fn the_answer_of_another_server_is_looked_into() {
        let trace = "a\nCaused by: org.apache.flink.runtime.rest.util.RestClientException: [Internal server error., <Exception on \
                     server side:\norg.apache.flink.runtime.client.DuplicateJobSubmissionException: Job has already been \
                     submitted.\n\tat x\nEnd of exception on server side>]";
        assert_eq!(last_cause(trace), "Job has already been submitted.");
        assert!(is_duplicate(trace));
    }

    #[test]
    fn a_trace_without_causes_is_its_own() {
        assert_eq!(last_cause("java.lang.Exception: it broke\n\tat x"), "it broke");
        assert_eq!(last_cause("it broke: badly"), "it broke: badly");
        assert_eq!(position("no position"), None);
    }
}
