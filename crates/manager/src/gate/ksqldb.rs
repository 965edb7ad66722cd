//! ksqlDB 7.6: its query rule in full (it is a page), and what its lexer and ours differ in.
//!
//! Comments: `--` and `/* */`, which do not nest; `--` directly before a line end takes the next line with it. Both are never
//! sent. Hints are comments to it; they are refused, so that a text means the same to both engines.

use super::dialect::{Dialect, TypeWords};
use super::parser::{Parse, Parser};
use super::{Clause, Kind};

pub(super) static KSQLDB: Dialect = Dialect {
    name: "ksqlDB",
    double_quotes: true,
    backticks: true,
    marks: "",
    folds_names: true,
    counts_utf16: false,
    query_words: &["SELECT"],
    statement_words: &[
        "CONNECTOR",
        "CREATE",
        "DELETE",
        "DESCRIBE",
        "DROP",
        "EXPORT",
        "INSERT",
        "INTO",
        "LIST",
        "LOAD",
        "PRINT",
        "RENAME",
        "RUN",
        "SCRIPT",
        "TERMINATE",
        "UNSET",
        "VALUES",
        "WITH",
    ],
    clause_words: &[
        "EMIT",
        "FROM",
        "FULL",
        "GROUP",
        "HAVING",
        "INNER",
        "JOIN",
        "LEFT",
        "LIMIT",
        "ON",
        "OUTER",
        "PARTITION",
        "RIGHT",
        "SELECT",
        "STREAM",
        "TABLE",
        "WHERE",
        "WINDOW",
        "WITHIN",
    ],
    bracket_clauses: &[],
    bracket_words: &[
        "AND", "ANY", "ARRAY", "AS", "BETWEEN", "BY", "BYTES", "CASE", "CAST", "DECIMAL", "DISTINCT", "ELSE", "END",
        "EXISTS", "IN", "IS", "LIKE", "MAP", "NOT", "NULL", "OR", "STRING", "STRUCT", "THEN", "VARCHAR", "WHEN",
    ],
    functions: include_str!("functions/ksqldb.txt"),
    from_calls: &[],
    window_calls: &[],
    repeats_windows: false,
    subquery: None,
    instead_of_subquery: "deploy the inner one as a stream of its own and read that",
    foreign: &[
        (
            &["^", "WITH"],
            "other_dialect",
            "ksqlDB has no common table expressions: deploy the inner SELECT as a stream of its own and read that",
        ),
        (&["TABLE", "("], "other_dialect", TUMBLE),
        (&["TUMBLE", "("], "other_dialect", TUMBLE),
        (
            &["HOP", "("],
            "other_dialect",
            "`HOP(…)` is Flink's: in ksqlDB write `WINDOW HOPPING (SIZE 10 MINUTES, ADVANCE BY 5 MINUTES)` before WHERE",
        ),
        (
            &["CUMULATE", "("],
            "other_dialect",
            "`CUMULATE(…)` is Flink's, and ksqlDB has no such window: use `WINDOW TUMBLING (SIZE …)`",
        ),
        (&["DESCRIPTOR", "("], "other_dialect", TUMBLE),
        (&["UNION", "ALL"], "other_dialect", UNION),
        (&["UNION", "SELECT"], "other_dialect", UNION),
        (&["INTERSECT", "SELECT"], "other_dialect", "ksqlDB has no INTERSECT: join the streams"),
        (&["EXCEPT", "SELECT"], "other_dialect", "ksqlDB has no EXCEPT: join the streams"),
        (&["ORDER", "BY"], "other_dialect", "ksqlDB has no ORDER BY, as its streams do not end: leave it out"),
        (&["OVER", "("], "other_dialect", "`OVER (…)` is Flink's: in ksqlDB group by a key and a window"),
        (&["CROSS", "JOIN"], "other_dialect", "ksqlDB has no CROSS JOIN: write JOIN … WITHIN … ON"),
        (&["LATERAL"], "other_dialect", "LATERAL is Flink's: in ksqlDB EXPLODE an array among the columns"),
        (&["UNNEST", "("], "other_dialect", "UNNEST is Flink's: in ksqlDB EXPLODE the array among the columns"),
        (
            &["FOR", "SYSTEM_TIME"],
            "other_dialect",
            "`FOR SYSTEM_TIME AS OF` is Flink's: in ksqlDB join a table, which is read as of then",
        ),
    ],
    query,
    // Its points in time have milliseconds only, and no word for more.
    types: TypeWords { int: "INTEGER", string: "VARCHAR", timestamp: "TIMESTAMP", has_digits: false, row: "STRUCT" },
};

const TUMBLE: &str = "`TUMBLE(…)` is Flink's: in ksqlDB write `WINDOW TUMBLING (SIZE 5 MINUTES)` before WHERE";
const UNION: &str = "ksqlDB has no UNION: deploy each SELECT as a stream of its own";

/// Where expressions end.
const CLAUSES: &[&str] = &["WINDOW", "WHERE", "GROUP", "PARTITION", "HAVING", "EMIT", "LIMIT"];
const JOINS: &[&str] = &["JOIN", "INNER", "LEFT", "RIGHT", "FULL"];

/// `SELECT … FROM … [WINDOW] [WHERE] [GROUP BY] [PARTITION BY] [HAVING] [EMIT] [LIMIT]`.
fn query(parser: &mut Parser<'_>, kind: Kind) -> Parse<()> {
    let start = parser.at;
    parser.expect_word("SELECT")?;
    parser.expression(&[&["FROM"]])?;
    parser.note(Clause::Select, start);
    let start = parser.at;
    parser.expect_word("FROM")?;
    relation(parser)?;
    while parser.is_any_word(0, JOINS) {
        join(parser)?;
    }
    if parser.is_symbol(0, ",") {
        return Err(parser.fault("other_dialect", "ksqlDB joins no sources by commas: write JOIN … WITHIN … ON"));
    }
    parser.note(Clause::From, start);
    window(parser)?;
    for (clause, words) in [
        (Clause::Where, &["WHERE"][..]),
        (Clause::GroupBy, &["GROUP", "BY"]),
        (Clause::PartitionBy, &["PARTITION", "BY"]),
        (Clause::Having, &["HAVING"]),
    ] {
        let start = parser.at;
        if parser.is_word(0, words[0]) && parser.is_clause_word(0) {
            for word in words {
                parser.expect_word(word)?;
            }
            parser.expression(&[CLAUSES])?;
            parser.note(clause, start);
        }
    }
    let start = parser.at;
    emit(parser, kind)?;
    limit(parser, kind)?;
    parser.note(Clause::Rest, start);
    Ok(())
}

/// `source [[AS] alias]`: there are no others.
fn relation(parser: &mut Parser<'_>) -> Parse<()> {
    if parser.is_symbol(0, "(") {
        let message = "ksqlDB reads sources by their names only: write the name of one, without brackets";
        return Err(parser.fault("subquery", message));
    }
    let name = parser.source_name()?;
    let is_aliased = if parser.take_word("AS") {
        parser.name("an alias")?;
        true
    } else if parser.is_bare_alias() {
        parser.at += 1;
        true
    } else {
        false
    };
    parser.use_source(name, (!is_aliased).then_some(name));
    Ok(())
}

fn join(parser: &mut Parser<'_>) -> Parse<()> {
    let start = parser.at;
    if parser.is_any_word(0, &["LEFT", "RIGHT", "FULL"]) {
        parser.at += 1;
        parser.take_word("OUTER");
    } else {
        parser.take_word("INNER");
    }
    parser.expect_word("JOIN")?;
    parser.count_join(start)?;
    relation(parser)?;
    let start = parser.at;
    if parser.take_word("WITHIN") {
        parser.count_window(start)?;
        parser.expression(&[&["ON"]])?;
    }
    parser.expect_word("ON")?;
    parser.expression(&[CLAUSES, JOINS])
}

/// `WINDOW [name] TUMBLING (…)`.
fn window(parser: &mut Parser<'_>) -> Parse<()> {
    let start = parser.at;
    if !parser.take_word("WINDOW") {
        return Ok(());
    }
    parser.count_window(start)?;
    if !parser.is_symbol(1, "(") {
        parser.name("the kind of a window")?;
    }
    if !parser.is_any_word(0, &["TUMBLING", "HOPPING", "SESSION"]) {
        return Err(parser.missing("TUMBLING, HOPPING or SESSION"));
    }
    parser.at += 1;
    if !parser.is_symbol(0, "(") {
        return Err(parser.missing("`(`"));
    }
    parser.bracket(super::parser::Inside::Plain)?;
    parser.note(Clause::Window, start);
    Ok(())
}

/// `EMIT CHANGES` is put in where it is left out, but in pull queries; its place is before LIMIT.
fn emit(parser: &mut Parser<'_>, kind: Kind) -> Parse<()> {
    let is_there = parser.is_word(0, "EMIT") && parser.is_clause_word(0);
    match (is_there, kind) {
        (true, Kind::AdHoc { pull: true }) => Err(parser.fault(
            "emit_in_pull",
            "EMIT asks for changes, a pull query for what is there now: leave it out, or run it as a push query",
        )),
        (true, _) => {
            parser.at += 2;
            Ok(())
        }
        (false, Kind::AdHoc { pull: true }) => Ok(()),
        (false, _) => {
            parser.found.emit_before = Some(parser.at);
            Ok(())
        }
    }
}

fn limit(parser: &mut Parser<'_>, kind: Kind) -> Parse<()> {
    if !parser.is_word(0, "LIMIT") {
        return Ok(());
    }
    if kind == Kind::Persistent {
        let message =
            "a stream of ksqlDB that runs on can't end after LIMIT rows: leave it out, or run it as an ad-hoc query";
        return Err(parser.fault("limit_in_persistent", message));
    }
    parser.at += 1;
    parser.expect_count()
}
