//! The engine in this process: SQL as PostgreSQL writes it, as far as DataFusion 55 reads it.
//!
//! It is read by `sqlparser`'s generic dialect, which has names in `"…"` and in backticks, comments that nest, `E'…'`, `U&'…'` and
//! `$$…$$` texts, `::` casts and `|>` pipes. Comments are never sent; what PostgreSQL does not have (backticks, pipes) and texts
//! whose end is found otherwise are refused. So it does not matter which of both dialects reads it. What a plan may hold is judged once more by the
//! engine, which knows no other sources than those that were found here; where both judge, they say the same code.

use super::dialect::{Dialect, TypeWords};
use super::lexer::TokenKind;
use super::parser::{Parse, Parser};
use super::{Clause, Kind};

pub(super) static EMBEDDED: Dialect = Dialect {
    name: "the embedded engine",
    double_quotes: true,
    backticks: false,
    marks: "~!",
    folds_names: false,
    counts_utf16: false,
    query_words: &["SELECT", "WITH"],
    statement_words: &[
        "ALTER",
        "ANALYZE",
        "CALL",
        "COPY",
        "CREATE",
        "DEALLOCATE",
        "DELETE",
        "DESCRIBE",
        "DROP",
        "EXECUTE",
        "EXPLAIN",
        "GRANT",
        "INSERT",
        "INTO",
        "MERGE",
        "PREPARE",
        "RESET",
        "REVOKE",
        "SET",
        "SHOW",
        "TRUNCATE",
        "UPDATE",
        "VALUES",
    ],
    clause_words: &[
        "CLUSTER",
        "CONNECT",
        "CROSS",
        "DISTRIBUTE",
        "EXCEPT",
        "FETCH",
        "FOR",
        "FROM",
        "FULL",
        "GROUP",
        "HAVING",
        "INNER",
        "INTERSECT",
        "JOIN",
        "LATERAL",
        "LEFT",
        "LIMIT",
        "MINUS",
        "NATURAL",
        "OFFSET",
        "ORDER",
        "PARTITION",
        "PIVOT",
        "QUALIFY",
        "RIGHT",
        "SELECT",
        "SORT",
        "TABLE",
        "TABLESAMPLE",
        "UNION",
        "UNNEST",
        "UNPIVOT",
        "WHERE",
        "WINDOW",
        "WITH",
    ],
    bracket_clauses: &["FOR", "GROUP", "ORDER", "WHERE"],
    bracket_words: &[
        "ALL",
        "AND",
        "ANY",
        "ARRAY",
        "AS",
        "BETWEEN",
        "BIGINT",
        "BY",
        "CASE",
        "CAST",
        "CHAR",
        "DECIMAL",
        "DISTINCT",
        "ELSE",
        "END",
        "EXCLUDE",
        "EXISTS",
        "EXTRACT",
        "FILTER",
        "FLOAT",
        "GROUP",
        "ILIKE",
        "IN",
        "IS",
        "LIKE",
        "NOT",
        "NULL",
        "NUMERIC",
        "ON",
        "OR",
        "PLACING",
        "SIMILAR",
        "SOME",
        "SYMMETRIC",
        "THEN",
        "TIME",
        "TIMESTAMP",
        "TO",
        "TRY_CAST",
        "VARCHAR",
        "WHEN",
    ],
    functions: include_str!("functions/embedded.txt"),
    from_calls: &["EXTRACT", "OVERLAY", "SUBSTRING", "TRIM"],
    window_calls: &["HOP", "TUMBLE"],
    repeats_windows: true,
    subquery: None,
    instead_of_subquery: "join the source that it reads, as a table, or deploy it as a stream of its own",
    foreign: FOREIGN,
    query,
    types: TypeWords { int: "INT", string: "VARCHAR", timestamp: "TIMESTAMP", has_digits: true, row: "STRUCT" },
};

type Foreign = (&'static [&'static str], &'static str, &'static str);

/// What the other dialects write, and what SQL has that no endless input can answer here.
const FOREIGN: &[Foreign] = &[
    (
        &["EMIT", "CHANGES"],
        "emit_changes",
        "EMIT CHANGES is ksqlDB's: leave it out, every query here is one of changes",
    ),
    (
        &["EMIT", "FINAL"],
        "emit_changes",
        "EMIT FINAL is ksqlDB's: leave it out, a window here is written once, when it is closed",
    ),
    (
        &["WINDOW", "TUMBLING"],
        "other_dialect",
        "`WINDOW TUMBLING (…)` is ksqlDB's: write `GROUP BY tumble(ts, INTERVAL '5 minutes')` here",
    ),
    (
        &["WINDOW", "HOPPING"],
        "other_dialect",
        "`WINDOW HOPPING (…)` is ksqlDB's: write `GROUP BY hop(ts, INTERVAL '1 minute', INTERVAL '5 minutes')` here",
    ),
    (&["WINDOW", "SESSION"], "unsupported_window", SESSION),
    (&["SESSION", "("], "unsupported_window", SESSION),
    (
        &["CUMULATE", "("],
        "unsupported_window",
        "there are no cumulating windows here: use `tumble(ts, …)` or `hop(ts, …)`, or deploy it on Flink",
    ),
    (&["MATCH_RECOGNIZE"], "unsupported_window", "there is no MATCH_RECOGNIZE here: deploy it on Flink"),
    (&[")", "OVER"], "unsupported_window", OVER),
    (&["OVER", "("], "unsupported_window", OVER),
    (&["TABLE", "(", "TUMBLE"], "other_dialect", TUMBLE),
    (&["TUMBLE", "(", "TABLE"], "other_dialect", TUMBLE),
    (&["TABLE", "(", "HOP"], "other_dialect", HOP),
    (&["HOP", "(", "TABLE"], "other_dialect", HOP),
    (&["DESCRIPTOR", "("], "other_dialect", TUMBLE),
    (
        &["WINDOWSTART"],
        "other_dialect",
        "WINDOWSTART is ksqlDB's: select `tumble(ts, …)` as it is grouped by, which is the window's start",
    ),
    (
        &["WINDOWEND"],
        "other_dialect",
        "WINDOWEND is ksqlDB's: select `tumble(ts, …) + INTERVAL '5 minutes'`, the window's start and its size",
    ),
    (&["ROWTIME"], "other_dialect", "ROWTIME is ksqlDB's: a record's time is the column `_timestamp` here"),
    (&["PROCTIME", "("], "other_dialect", "PROCTIME() is Flink's: windows go by a column or by `_timestamp` here"),
    (
        &["FOR", "SYSTEM_TIME"],
        "other_dialect",
        "`FOR SYSTEM_TIME AS OF` is Flink's: a table is joined here as it was when it was read last",
    ),
    (
        &["PARTITION", "BY"],
        "other_dialect",
        "PARTITION BY is ksqlDB's here: leave it out, the key of the output is what is grouped by",
    ),
    (&["->"], "other_dialect", "`->` is ksqlDB's: write `address['city']` or `orders.address.city` here"),
    (&[":="], "other_dialect", "`:=` is ksqlDB's: write `named_struct('name', value)` here"),
    (
        &["SIMILAR", "TO"],
        "unsupported",
        "SIMILAR TO is not read as SQL has it here: write a regular expression, `name ~ '^a'`",
    ),
    (&["|", ">"], "unexpected_word", "`|>` begins a pipe, which is not read here: write clauses in their order"),
    (
        &["SELECT", "DISTINCT"],
        "unbounded_state",
        "SELECT DISTINCT would have to remember every row: group by a window and these columns, or use Flink",
    ),
    (&["WITH", "RECURSIVE"], "unsupported", "a query that reads itself has no end here: leave RECURSIVE out"),
    (&["UNION", "DISTINCT"], "unbounded_state", UNION),
    (&["UNION", "SELECT"], "unbounded_state", UNION),
    (&["UNION", "("], "unbounded_state", UNION),
    (&["INTERSECT", "SELECT"], "unbounded_state", SETS),
    (&["INTERSECT", "ALL"], "unbounded_state", SETS),
    (&["EXCEPT", "SELECT"], "unbounded_state", SETS),
    (&["EXCEPT", "ALL"], "unbounded_state", SETS),
    (&["MINUS", "SELECT"], "unbounded_state", SETS),
    (&["CROSS", "JOIN"], "join_keys", "there is no CROSS JOIN here: join a table ON its key"),
    (&["FULL", "JOIN"], "outer_stream", OUTER),
    (&["FULL", "OUTER"], "outer_stream", OUTER),
    (&["RIGHT", "JOIN"], "outer_stream", OUTER),
    (&["RIGHT", "OUTER"], "outer_stream", OUTER),
    (&["NATURAL"], "join_keys", "there is no NATURAL JOIN here: write the columns in ON"),
    (&["LATERAL"], "unsupported", TABLE_FUNCTION),
    (&["UNNEST", "("], "unsupported", TABLE_FUNCTION),
    (&["OFFSET"], "unsupported", "OFFSET skips rows of what has no order: leave it out"),
    (&["GROUPING", "SETS"], "unsupported", GROUPINGS),
    (&["ROLLUP", "("], "unsupported", GROUPINGS),
    (&["CUBE", "("], "unsupported", GROUPINGS),
];

const TUMBLE: &str =
    "`TABLE(TUMBLE(TABLE …))` is Flink's: write `FROM orders … GROUP BY tumble(ts, INTERVAL '5 minutes')` here";
const HOP: &str = "`TABLE(HOP(TABLE …))` is Flink's: write `FROM orders … GROUP BY hop(ts, INTERVAL '1 minute', INTERVAL '5 minutes')` here";
const SESSION: &str =
    "there are no session windows here: use `tumble(ts, …)` or `hop(ts, …)`, or deploy it on Flink or ksqlDB";
const OVER: &str = "OVER would need the rows of a key for ever: group by a window, or deploy it on Flink";
const UNION: &str = "UNION would have to remember every row: write UNION ALL, or use Flink";
const SETS: &str = "INTERSECT and EXCEPT would have to remember every row: join a table, or use Flink";
const OUTER: &str = "what has found no partner on an endless input is never known: put the stream on the left and write JOIN or LEFT JOIN";
const TABLE_FUNCTION: &str = "functions that make tables are not read here: name a source behind FROM, and take an array's element by `items[1]`";
const GROUPINGS: &str = "one list of keys is grouped by at a time: deploy a stream for each";

const CLAUSES: &[&str] = &[
    "WHERE",
    "GROUP",
    "HAVING",
    "WINDOW",
    "QUALIFY",
    "ORDER",
    "LIMIT",
    "OFFSET",
    "FETCH",
    "UNION",
    "INTERSECT",
    "EXCEPT",
];
const JOINS: &[&str] = &["JOIN", "INNER", "LEFT"];

fn query(parser: &mut Parser<'_>, kind: Kind) -> Parse<()> {
    if kind == (Kind::AdHoc { pull: true }) {
        let message = "the embedded engine has no pull queries: run it as an ad-hoc query of changes";
        return Err(parser.fault("pull_query", message));
    }
    full_query(parser)
}

/// `[WITH …] SELECT … [UNION ALL …] [ORDER BY] [LIMIT]`.
fn full_query(parser: &mut Parser<'_>) -> Parse<()> {
    let in_sight = parser.ctes.len();
    let start = parser.at;
    if parser.take_word("WITH") {
        common_table_expression(parser)?;
        while parser.take_symbol(",") {
            common_table_expression(parser)?;
        }
        parser.note(Clause::With, start);
    }
    term(parser)?;
    let start = parser.at;
    while parser.take_word("UNION") {
        if !parser.take_word("ALL") {
            return Err(parser.fault("unbounded_state", UNION));
        }
        parser.nesting += 1;
        term(parser)?;
        parser.nesting -= 1;
    }
    if parser.take_word("ORDER") {
        parser.expect_word("BY")?;
        parser.expression(&[CLAUSES])?;
    }
    if parser.take_word("LIMIT") {
        parser.expect_count()?;
    }
    parser.note(Clause::Rest, start);
    parser.ctes.truncate(in_sight);
    Ok(())
}

/// `name [(columns)] AS (query)`; the name is in sight behind it.
fn common_table_expression(parser: &mut Parser<'_>) -> Parse<()> {
    let name = parser.name("the name of a common table expression")?;
    column_list(parser)?;
    parser.expect_word("AS")?;
    parser.expect_symbol("(")?;
    inner(parser)?;
    let written = parser.text(name);
    parser.ctes.push(written);
    parser.found.ctes.push(name);
    Ok(())
}

/// A query in brackets whose opening is passed already. It stands behind FROM, in WITH or beside UNION: in an expression there
/// is none.
fn inner(parser: &mut Parser<'_>) -> Parse<()> {
    parser.nesting += 1;
    full_query(parser)?;
    parser.nesting -= 1;
    parser.expect_symbol(")")
}

fn term(parser: &mut Parser<'_>) -> Parse<()> {
    if parser.take_symbol("(") { inner(parser) } else { select(parser) }
}

fn select(parser: &mut Parser<'_>) -> Parse<()> {
    let start = parser.at;
    parser.expect_word("SELECT")?;
    parser.expression(&[&["FROM"]])?;
    parser.note(Clause::Select, start);
    let start = parser.at;
    parser.expect_word("FROM")?;
    relation(parser)?;
    if parser.is_symbol(0, ",") {
        let message = "sources are not joined by commas here: write JOIN … ON";
        return Err(parser.fault("join_keys", message));
    }
    parser.note(Clause::From, start);
    for (clause, words) in
        [(Clause::Where, &["WHERE"][..]), (Clause::GroupBy, &["GROUP", "BY"]), (Clause::Having, &["HAVING"])]
    {
        let start = parser.at;
        if parser.is_word(0, words[0]) {
            for word in words {
                parser.expect_word(word)?;
            }
            parser.expression(&[CLAUSES])?;
            parser.note(clause, start);
        }
    }
    Ok(())
}

/// A source with what is joined to it.
fn relation(parser: &mut Parser<'_>) -> Parse<()> {
    primary(parser)?;
    while parser.is_any_word(0, JOINS) {
        let start = parser.at;
        if parser.take_word("LEFT") {
            parser.take_word("OUTER");
        } else {
            parser.take_word("INNER");
        }
        parser.expect_word("JOIN")?;
        parser.count_join(start)?;
        primary(parser)?;
        if parser.is_word(0, "WITHIN") {
            let message =
                "two streams are not joined on one process: use ksqlDB (WITHIN), or Flink (compare the times in ON)";
            return Err(parser.fault("stream_join", message));
        }
        if parser.take_word("USING") {
            column_list(parser)?;
        } else {
            parser.expect_word("ON")?;
            parser.expression(&[CLAUSES, JOINS, &[","]])?;
        }
    }
    Ok(())
}

/// One source: a name, or a query in brackets.
fn primary(parser: &mut Parser<'_>) -> Parse<()> {
    if parser.take_symbol("(") {
        if !parser.is_any_word(0, &["SELECT", "WITH"]) && !parser.is_symbol(0, "(") {
            return Err(parser.missing("a SELECT"));
        }
        inner(parser)?;
        return alias(parser).map(drop);
    }
    let is_call = parser.is_symbol(1, "(") && parser.peek(0).is_some_and(|token| token.kind == TokenKind::Word);
    if is_call {
        return Err(parser.fault("unsupported", TABLE_FUNCTION));
    }
    let name = parser.source_name()?;
    let is_aliased = alias(parser)?;
    parser.use_source(name, (!is_aliased).then_some(name));
    Ok(())
}

/// `[AS] name [(columns)]`; whether there is one.
fn alias(parser: &mut Parser<'_>) -> Parse<bool> {
    if parser.take_word("AS") {
        parser.name("an alias")?;
    } else if parser.is_bare_alias() {
        parser.at += 1;
    } else {
        return Ok(false);
    }
    column_list(parser)?;
    Ok(true)
}

/// `(a, b)`, if it is there.
fn column_list(parser: &mut Parser<'_>) -> Parse<()> {
    if !parser.take_symbol("(") {
        return Ok(());
    }
    parser.name("a column")?;
    while parser.take_symbol(",") {
        parser.name("a column")?;
    }
    parser.expect_symbol(")")
}
