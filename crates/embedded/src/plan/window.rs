//! The one window of a query: by which expression of its `GROUP BY`, how long, and by which time of each topic.

use datafusion::arrow::datatypes::{DataType as Arrow, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, TableScan};

use super::functions::{HOP, TUMBLE, interval_ms};
use super::slot::Input;
use super::trace::{bare, to_scans};
use super::{Group, Limits, Window, input_of};
use crate::check::Fault;

/// A window, and where its times are.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) window: Window,
    /// Which expression of the `GROUP BY`.
    pub(crate) group: usize,
    /// The column of its aggregate.
    pub(crate) column: Group,
    /// The time of each topic that goes in, over the topic's columns.
    pub(crate) times: Vec<(usize, Expr)>,
}

const NEEDS: &str = "on an endless stream the result would change for ever: group by a window, such as \
                     tumble(time, INTERVAL '1 minute'), or use Flink or ksqlDB for a table that is kept up to date";

/// The window of an aggregate over a stream.
pub(crate) fn of(aggregate: &Aggregate, limits: &Limits) -> Result<std::result::Result<Found, Fault>> {
    let mut found: Option<Found> = None;
    for (group, expr) in aggregate.group_expr.iter().enumerate() {
        if matches!(bare(expr), Expr::GroupingSet(_)) {
            return Ok(Err(Fault::at_word(
                "unsupported",
                "GROUPING SETS, CUBE and ROLLUP are not offered here",
                &["GROUPING", "CUBE", "ROLLUP"],
            )));
        }
        let mut all: Vec<(Window, usize, Expr)> = Vec::new();
        let scans = to_scans(bare(expr), &aggregate.input)?;
        for (expr, scan) in &scans {
            match of_expr(expr, scan, limits)? {
                Ok(Some(window)) => all.push(window),
                Ok(None) => {}
                Err(fault) => return Ok(Err(fault)),
            }
        }
        let Some((window, ..)) = all.first() else { continue };
        let window = *window;
        if all.len() != scans.len() || all.iter().any(|(other, ..)| *other != window) {
            return Ok(Err(Fault::at_word(
                "nested_window",
                "all parts of a UNION ALL have to be grouped by the same window",
                &["UNION"],
            )));
        }
        if found.is_some() {
            return Ok(Err(Fault::at_word(
                "nested_window",
                "one window per query: chain two deployed queries through a topic, or use Flink",
                &["GROUP"],
            )));
        }
        let name = aggregate.schema.field(group).name().clone();
        let before = (0..group).filter(|at| *aggregate.schema.field(*at).name() == name).count();
        let column = Group { name, before };
        let mut times: Vec<(usize, Expr)> = Vec::new();
        for (_, source, time) in all {
            match times.iter().find(|(other, _)| *other == source) {
                Some((_, other)) if *other != time => {
                    return Ok(Err(Fault::at_word(
                        "nested_window",
                        "a topic that is read twice has to be grouped by the same time",
                        &["UNION"],
                    )));
                }
                Some(_) => {}
                None => times.push((source, time)),
            }
        }
        found = Some(Found { window, group, column, times });
    }
    Ok(found.ok_or_else(|| {
        let words: &[&str] = if aggregate.group_expr.is_empty() { &["SELECT"] } else { &["GROUP"] };
        Fault::at_word("needs_window", NEEDS, words)
    }))
}

type OfExpr = std::result::Result<Option<(Window, usize, Expr)>, Fault>;

/// The window that an expression over a topic is, if it is one.
fn of_expr(expr: &Expr, scan: &TableScan, limits: &Limits) -> Result<OfExpr> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else { return Ok(Ok(None)) };
    let name = func.name();
    if !matches!(name, TUMBLE | HOP | "date_bin" | "date_trunc") {
        return Ok(Ok(None));
    }
    let Some(Input::Stream(source)) = input_of(scan) else { return Ok(Ok(None)) };
    let (time, window) = match (name, args.as_slice()) {
        (TUMBLE, [time, size]) => (time, constant(size).and_then(interval_ms).map(Window::tumbling)),
        (HOP, [time, slide, size]) => {
            let both = constant(slide).and_then(interval_ms).zip(constant(size).and_then(interval_ms));
            (time, both.map(|(slide_ms, size_ms)| Window { size_ms, slide_ms }))
        }
        ("date_bin", [size, time]) => (time, constant(size).and_then(interval_ms).map(Window::tumbling)),
        ("date_trunc", [unit, time]) => (time, constant(unit).and_then(of_unit).map(Window::tumbling)),
        _ => {
            let text = format!(
                "{name}() is a window here only without an origin: windows begin at whole multiples since 1970"
            );
            return Ok(Err(Fault::at_word("unsupported_window", text, &[name])));
        }
    };
    let Some(window) = window else {
        let text = match name {
            "date_trunc" => "date_trunc() is a window here by 'second', 'minute', 'hour' and 'day'".to_owned(),
            _ => format!("the intervals of {name}() have to be written out, in days or less, and longer than nothing"),
        };
        return Ok(Err(Fault::at_word("window_size", text, &[name])));
    };
    if let Err(text) = is_fit(window, limits) {
        return Ok(Err(Fault::at_word("window_size", text, &[name])));
    }
    let of_type = time.get_type(&scan.projected_schema)?;
    match of_type {
        Arrow::Timestamp(_, Some(_)) => {
            // date_trunc() of such a time goes by the zone's days and hours, and what a partition holds by UTC.
            let text = "a window goes by a time without a zone, in UTC: leave AT TIME ZONE out, and convert the window's start";
            return Ok(Err(Fault::at_word("window_time", text, &[name])));
        }
        Arrow::Timestamp(TimeUnit::Second, None) if window.slide_ms % 1_000 != 0 => {
            let text = format!(
                "a window of whole seconds goes by a time of whole seconds, and this one begins each {} ms",
                window.slide_ms
            );
            return Ok(Err(Fault::at_word("window_size", text, &[name])));
        }
        Arrow::Timestamp(..) => {}
        other => {
            let text = format!("a window goes by a timestamp, and this is {}", crate::schema::of_arrow(&other));
            return Ok(Err(Fault::at_word("window_time", text, &[name])));
        }
    }
    if time.column_refs().is_empty() {
        return Ok(Err(Fault::at_word(
            "window_time",
            "a window goes by a time of its rows, not by a constant",
            &[name],
        )));
    }
    Ok(Ok(Some((window, source, time.clone()))))
}

fn is_fit(window: Window, limits: &Limits) -> std::result::Result<(), String> {
    let Window { size_ms, slide_ms } = window;
    if size_ms % slide_ms != 0 {
        return Err(format!("a window of {size_ms} ms is no multiple of its slide of {slide_ms} ms"));
    }
    if size_ms > limits.max_window_ms {
        let most = limits.max_window_ms;
        return Err(format!(
            "a window of {size_ms} ms is longer than {most} ms, the longest here (`embedded.max_window_ms`): after a restart all \
             rows of open windows are read again; use Flink"
        ));
    }
    if size_ms / slide_ms > Limits::MAX_PANES {
        let most = Limits::MAX_PANES;
        return Err(format!("each row would be in {} windows; {most} are the most", size_ms / slide_ms));
    }
    Ok(())
}

fn constant(expr: &Expr) -> Option<&ScalarValue> {
    match bare(expr) {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    }
}

fn of_unit(unit: &ScalarValue) -> Option<i64> {
    let unit = unit.try_as_str().flatten()?;
    Some(match unit.to_ascii_lowercase().as_str() {
        "second" => 1_000,
        "minute" => 60_000,
        "hour" => 3_600_000,
        "day" => 86_400_000,
        _ => return None,
    })
}
