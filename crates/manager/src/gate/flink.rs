//! Flink 2.0: queries with subqueries, common table expressions, set operations, windows as functions over tables.
//!
//! Its lexer is Calcite's: `//` begins a comment, `/***/` does not end one, `/*+` is code, `E'…'` has backslashes, and what
//! stands in `"…"` is read as code. Comments are never sent, the rest is refused.

use super::dialect::{Dialect, TypeWords};
use super::lexer::TokenKind;
use super::parser::{Inside, Parse, Parser};
use super::{Clause, Kind};

pub(super) static FLINK: Dialect = Dialect {
    name: "Flink",
    double_quotes: false,
    backticks: true,
    marks: "",
    folds_names: false,
    counts_utf16: true,
    query_words: &["SELECT", "WITH"],
    statement_words: &[
        "ALTER", "ANALYZE", "CALL", "CREATE", "DELETE", "DESCRIBE", "DROP", "EXECUTE", "EXPLAIN", "GRANT", "INSERT",
        "INTO", "MERGE", "RESET", "REVOKE", "SET", "SHOW", "TRUNCATE", "UPDATE", "UPSERT", "VALUES",
    ],
    clause_words: &[
        "CROSS",
        "EXCEPT",
        "FETCH",
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
        "MATCH_RECOGNIZE",
        "NATURAL",
        "OFFSET",
        "ORDER",
        "PARTITION",
        "PIVOT",
        "QUALIFY",
        "RIGHT",
        "SELECT",
        "TABLE",
        "TABLESAMPLE",
        "UNION",
        "UNNEST",
        "UNPIVOT",
        "WHERE",
        "WINDOW",
        "WITH",
    ],
    bracket_clauses: &["GROUP", "ORDER", "PARTITION", "WHERE", "WITH"],
    bracket_words: &[
        "ALL",
        "AND",
        "ANY",
        "ARRAY",
        "AS",
        "BETWEEN",
        "BIGINT",
        "BINARY",
        "BY",
        "BYTES",
        "CASE",
        "CAST",
        "CHAR",
        "CUBE",
        "DECIMAL",
        "DEFINE",
        "DISTINCT",
        "ELSE",
        "END",
        "EXISTS",
        "FILTER",
        "GROUP",
        "IN",
        "IS",
        "KEY",
        "LIKE",
        "MAP",
        "MEASURES",
        "MULTISET",
        "NOT",
        "NULL",
        "NUMERIC",
        "ON",
        "OR",
        "OVER",
        "PATTERN",
        "ROLLUP",
        "ROW",
        "SETS",
        "SIMILAR",
        "SOME",
        "SYMMETRIC",
        "THEN",
        "TIME",
        "TIMESTAMP",
        "TIMESTAMP_LTZ",
        "TO",
        "USING",
        "VALUE",
        "VARBINARY",
        "VARCHAR",
        "WHEN",
    ],
    functions: include_str!("functions/flink.txt"),
    from_calls: &["EXTRACT", "OVERLAY", "SUBSTRING", "TRIM"],
    window_calls: &["CUMULATE", "HOP", "SESSION", "TUMBLE"],
    repeats_windows: false,
    subquery: Some(full_query),
    instead_of_subquery: "",
    foreign: &[
        (&["EMIT", "CHANGES"], "emit_changes", "EMIT CHANGES is ksqlDB's: leave it out for Flink"),
        (
            &["EMIT", "FINAL"],
            "emit_changes",
            "EMIT FINAL is ksqlDB's: leave it out for Flink, windows write once they are closed",
        ),
        (
            &["WINDOW", "TUMBLING"],
            "other_dialect",
            "`WINDOW TUMBLING (…)` is ksqlDB's: in Flink write `FROM TABLE(TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '5' MINUTES))` and `GROUP BY window_start, window_end`",
        ),
        (
            &["WINDOW", "HOPPING"],
            "other_dialect",
            "`WINDOW HOPPING (…)` is ksqlDB's: in Flink write `FROM TABLE(HOP(TABLE orders, DESCRIPTOR(ts), INTERVAL '5' MINUTES, INTERVAL '10' MINUTES))` and `GROUP BY window_start, window_end`",
        ),
        (
            &["WINDOW", "SESSION", "("],
            "other_dialect",
            "`WINDOW SESSION (…)` is ksqlDB's: in Flink write `FROM TABLE(SESSION(TABLE orders PARTITION BY id, DESCRIPTOR(ts), INTERVAL '5' MINUTES))` and `GROUP BY window_start, window_end`",
        ),
        (&["->"], "other_dialect", "`->` is ksqlDB's: in Flink write a dot between a row and its field"),
        (&["!="], "other_dialect", "`!=` is not Flink's: write `<>`"),
        (&[":="], "other_dialect", "`:=` is ksqlDB's: in Flink write ROW(…) or MAP[…]"),
    ],
    query,
    types: TypeWords { int: "INT", string: "STRING", timestamp: "TIMESTAMP", has_digits: true, row: "ROW" },
};

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
const JOINS: &[&str] = &["JOIN", "INNER", "LEFT", "RIGHT", "FULL", "CROSS", "NATURAL"];

fn query(parser: &mut Parser<'_>, kind: Kind) -> Parse<()> {
    if kind == (Kind::AdHoc { pull: true }) {
        return Err(parser.fault("pull_query", "Flink has no pull queries: run it as an ad-hoc query of changes"));
    }
    full_query(parser)
}

/// `[WITH …] SELECT … [UNION …] [ORDER BY] [LIMIT] [OFFSET] [FETCH]`.
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
    while parser.is_any_word(0, &["UNION", "INTERSECT", "EXCEPT"]) {
        parser.at += 1;
        if !parser.take_word("ALL") {
            parser.take_word("DISTINCT");
        }
        parser.nesting += 1;
        term(parser)?;
        parser.nesting -= 1;
    }
    ending(parser)?;
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
    parser.subquery()?;
    let written = parser.text(name);
    parser.ctes.push(written);
    parser.found.ctes.push(name);
    Ok(())
}

fn term(parser: &mut Parser<'_>) -> Parse<()> {
    if parser.take_symbol("(") { parser.subquery() } else { select(parser) }
}

/// `ORDER BY … LIMIT … OFFSET … FETCH …`, each or none.
fn ending(parser: &mut Parser<'_>) -> Parse<()> {
    if parser.take_word("ORDER") {
        parser.expect_word("BY")?;
        parser.expression(&[CLAUSES])?;
    }
    if parser.take_word("LIMIT") && !parser.take_word("ALL") {
        parser.expect_count()?;
    }
    if parser.take_word("OFFSET") {
        parser.expect_count()?;
        if !parser.take_word("ROWS") {
            parser.take_word("ROW");
        }
    }
    if parser.take_word("FETCH") {
        if !parser.take_word("FIRST") {
            parser.expect_word("NEXT")?;
        }
        parser.expect_count()?;
        if !parser.take_word("ROWS") {
            parser.expect_word("ROW")?;
        }
        parser.expect_word("ONLY")?;
    }
    Ok(())
}

fn select(parser: &mut Parser<'_>) -> Parse<()> {
    let start = parser.at;
    parser.expect_word("SELECT")?;
    parser.expression(&[&["FROM"]])?;
    parser.note(Clause::Select, start);
    let start = parser.at;
    parser.expect_word("FROM")?;
    relation(parser)?;
    while parser.is_symbol(0, ",") {
        parser.count_join(parser.at)?;
        parser.at += 1;
        relation(parser)?;
    }
    parser.note(Clause::From, start);
    for (clause, words) in [
        (Clause::Where, &["WHERE"][..]),
        (Clause::GroupBy, &["GROUP", "BY"]),
        (Clause::Having, &["HAVING"]),
        (Clause::Window, &["WINDOW"]),
        (Clause::Rest, &["QUALIFY"]),
    ] {
        let start = parser.at;
        if parser.is_word(0, words[0]) {
            for word in words {
                parser.expect_word(word)?;
            }
            parser.expression(&[CLAUSES])?;
            parser.note(clause, start);
        }
    }
    if parser.is_word(0, "PARTITION") && parser.is_clause_word(0) {
        let message =
            "PARTITION BY behind FROM is ksqlDB's: leave it out for Flink, the key is chosen with the output topic";
        return Err(parser.fault("other_dialect", message));
    }
    Ok(())
}

/// A source with what is joined to it.
fn relation(parser: &mut Parser<'_>) -> Parse<()> {
    primary(parser)?;
    while parser.is_any_word(0, JOINS) {
        let start = parser.at;
        parser.take_word("NATURAL");
        if parser.is_any_word(0, &["LEFT", "RIGHT", "FULL"]) {
            parser.at += 1;
            parser.take_word("OUTER");
        } else if !parser.take_word("CROSS") {
            parser.take_word("INNER");
        }
        parser.expect_word("JOIN")?;
        parser.count_join(start)?;
        primary(parser)?;
        if parser.is_word(0, "WITHIN") {
            let message = "JOIN … WITHIN is ksqlDB's: in Flink compare the times in ON, `a.ts BETWEEN b.ts - INTERVAL '1' HOUR AND b.ts`";
            return Err(parser.fault("other_dialect", message));
        }
        if parser.take_word("ON") {
            parser.expression(&[CLAUSES, JOINS, &[","]])?;
        } else if parser.take_word("USING") {
            column_list(parser)?;
        }
    }
    Ok(())
}

/// One source: a name, a query or joins in brackets, a window over a table, an array's elements.
fn primary(parser: &mut Parser<'_>) -> Parse<()> {
    parser.take_word("LATERAL");
    if parser.is_symbol(0, "(") {
        let opened = (1..).take_while(|along| parser.is_symbol(*along, "(")).count() + 1;
        parser.at += 1;
        if parser.is_any_word(opened - 1, &["SELECT", "WITH"]) {
            parser.subquery()?;
        } else {
            relation(parser)?;
            parser.expect_symbol(")")?;
        }
        alias(parser)?;
    } else if parser.is_word(0, "TABLE") && parser.is_symbol(1, "(") {
        parser.at += 2;
        table_call(parser)?;
        parser.expect_symbol(")")?;
        alias(parser)?;
    } else if parser.is_word(0, "UNNEST") && parser.is_symbol(1, "(") {
        parser.at += 1;
        parser.bracket(Inside::Plain)?;
        if parser.take_word("WITH") {
            parser.expect_word("ORDINALITY")?;
        }
        alias(parser)?;
    } else if parser.is_symbol(1, "(") {
        table_call(parser)?;
        alias(parser)?;
    } else {
        named(parser)?;
    }
    Ok(())
}

/// A function over tables: a window, or one that an administrator allows.
fn table_call(parser: &mut Parser<'_>) -> Parse<()> {
    let Some(token) = parser.peek(0).filter(|token| token.kind == TokenKind::Word && parser.is_symbol(1, "(")) else {
        return Err(parser.missing("a window (TUMBLE, HOP, CUMULATE, SESSION)"));
    };
    let is_window = parser.dialect.window_calls.iter().any(|name| token.is_word(name));
    if !is_window && parser.dialect.has_function(&token.text.to_ascii_uppercase()) {
        return Err(
            parser.fault("unknown_function", format!("`{}` makes no table: call it among the columns", token.text))
        );
    }
    parser.call(token)?;
    parser.at += 1;
    parser.bracket(if is_window { Inside::TableCall } else { Inside::Plain })
}

/// `name [FOR SYSTEM_TIME AS OF time] [MATCH_RECOGNIZE (…)] [alias]`.
fn named(parser: &mut Parser<'_>) -> Parse<()> {
    let name = parser.source_name()?;
    let mut is_aliased = false;
    if parser.take_word("FOR") {
        for word in ["SYSTEM_TIME", "AS", "OF"] {
            parser.expect_word(word)?;
        }
        let start = parser.at;
        parser.expression(&[&["AS", "ON", "USING"], CLAUSES, JOINS, &[","]])?;
        is_aliased = parser.at > start + 1 && ends_with_alias(parser);
    }
    let end = parser.at - 1;
    if parser.take_word("MATCH_RECOGNIZE") {
        if !parser.is_symbol(0, "(") {
            return Err(parser.missing("`(`"));
        }
        parser.bracket(Inside::Plain)?;
        alias(parser)?;
        is_aliased = true;
    } else if !is_aliased {
        is_aliased = alias(parser)?;
    }
    parser.use_source(name, (!is_aliased).then_some(end));
    Ok(())
}

/// Whether what was just read is a name that nothing joins to what stands before it: `o.ts r`.
fn ends_with_alias(parser: &mut Parser<'_>) -> bool {
    let is_name = |token: &super::lexer::Token| matches!(token.kind, TokenKind::Word | TokenKind::Quoted);
    let at = parser.at;
    parser.at -= 2;
    let joined = parser.peek(0).is_some_and(|before| is_name(before) || before.is_symbol(")"));
    let ends = joined && parser.peek(1).is_some_and(is_name);
    parser.at = at;
    ends
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
