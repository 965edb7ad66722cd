//! Limits at their edges, what faults say, positions on the way back, and the composers.

use streamview_manager::catalog::DataType;
use streamview_manager::engines::{EngineKind, Refusal, Select};
use streamview_manager::gate::compose::{
    ComposeError, EngineName, join, quote_identifier, same_statement, statement, string_literal,
};
use streamview_manager::gate::{Clause, Dialect, Fault, Gated, Kind, check};
use streamview_manager::settings::Limits;

use crate::corpus::{catalogue, dialect};

const LOOK: Kind = Kind::AdHoc { pull: false };

fn run(name: &str, text: &str, kind: Kind, limits: &Limits) -> Result<Gated, Fault> {
    check(text, dialect(name), kind, limits, &catalogue(name)).map_err(|faults| faults[0].clone())
}

fn code(name: &str, text: &str, limits: &Limits) -> String {
    run(name, text, LOOK, limits).map_or_else(|fault| fault.code.to_owned(), |_| "passes".to_owned())
}

#[test]
fn characters_are_counted_to_the_last_one() {
    let text = |length: usize| format!("SELECT * FROM orders WHERE product = '{}'", "ü".repeat(length - 39));
    for name in ["ksqldb", "flink"] {
        let limits = Limits::default();
        assert_eq!(text(5_000).chars().count(), 5_000);
        assert_eq!(code(name, &text(5_000), &limits), "passes");
        let fault = run(name, &text(5_001), LOOK, &limits).unwrap_err();
        assert_eq!((fault.code, fault.line, fault.column), ("too_long", 1, 5_001));
        assert_eq!(fault.message, "the statement has 5001 characters, at most 5000 are taken: make it shorter");
        let less = Limits { query_characters: 20, ..Limits::default() };
        assert_eq!(code(name, "SELECT * FROM orders", &less), "passes");
        assert_eq!(code(name, "SELECT * FROM orders;", &less), "too_long");
    }
}

#[test]
fn joins_are_counted_to_the_last_one() {
    for name in ["ksqldb", "flink"] {
        for joins in 0..5 {
            let one = |number| format!(" JOIN customers c{number} ON o.id = c{number}.id");
            let text = format!("SELECT * FROM orders o{}", (0..joins).map(one).collect::<String>());
            for most in 0..5 {
                let limits = Limits { joins: most, ..Limits::default() };
                let expected = if joins <= most { "passes" } else { "too_many_joins" };
                assert_eq!(code(name, &text, &limits), expected, "{joins} joins, {most} allowed");
            }
        }
    }
    let text = "SELECT * FROM orders a, orders b, orders c, orders d";
    assert_eq!(code("flink", text, &Limits::default()), "passes");
    let fault = run("flink", &format!("{text}, orders e"), LOOK, &Limits::default()).unwrap_err();
    assert_eq!((fault.code, fault.column), ("too_many_joins", 53));
    assert_eq!(fault.message, "join 4 is one too many, at most 3 are taken: split the query");
}

#[test]
fn windows_are_counted_to_the_last_one() {
    let ksqldb = [
        "SELECT * FROM orders o JOIN customers c ON o.id = c.id",
        "SELECT * FROM orders o JOIN payments p WITHIN 1 HOUR ON o.id = p.id",
        "SELECT COUNT(*) FROM orders o JOIN payments p WITHIN 1 HOUR ON o.id = p.id WINDOW TUMBLING (SIZE 1 HOUR) GROUP BY o.id",
        "SELECT COUNT(*) FROM orders o JOIN payments p WITHIN 1 HOUR ON o.id = p.id JOIN clicks c WITHIN 1 HOUR ON o.id = c.id \
         WINDOW TUMBLING (SIZE 1 HOUR) GROUP BY o.id",
    ];
    let flink = [
        "SELECT * FROM orders",
        "SELECT * FROM orders GROUP BY TUMBLE(ts, INTERVAL '1' HOUR)",
        "SELECT * FROM TABLE(HOP(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '2' HOUR)) GROUP BY \
         TUMBLE(ts, INTERVAL '1' HOUR)",
        "SELECT * FROM TABLE(HOP(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '2' HOUR)) a JOIN \
         TUMBLE(TABLE orders, DESCRIPTOR(ts), INTERVAL '1' HOUR) b ON a.id = b.id GROUP BY SESSION(ts, INTERVAL '1' HOUR)",
    ];
    for (name, texts) in [("ksqldb", ksqldb), ("flink", flink)] {
        for (windows, text) in texts.into_iter().enumerate() {
            for most in 0..4 {
                let limits = Limits { windows: most, ..Limits::default() };
                let expected = if windows <= most { "passes" } else { "too_many_windows" };
                assert_eq!(code(name, text, &limits), expected, "{windows} windows, {most} allowed: {text}");
            }
        }
        assert_eq!(code(name, texts[2], &Limits::default()), "passes");
        let fault = run(name, texts[3], LOOK, &Limits::default()).unwrap_err();
        assert_eq!(fault.message, "window 3 is one too many, at most 2 are taken: split the query");
    }
}

#[test]
fn depth_is_counted_to_the_last_one() {
    for name in ["ksqldb", "flink"] {
        for depth in [0, 1, 5, 32, 33] {
            for (open, close) in [("(", ")"), ("a[", "]"), ("CASE WHEN a THEN ", " END"), ("NOT ", ""), ("- ", "")] {
                let text = format!("SELECT {}1{} FROM orders", open.repeat(depth), close.repeat(depth));
                for most in [0, 1, 4, 5, 32] {
                    let expected = if depth <= most { "passes" } else { "too_deep" };
                    let limits = Limits { depth: most, ..Limits::default() };
                    assert_eq!(code(name, &text, &limits), expected, "{text}, {most} allowed");
                }
            }
        }
        let text = format!("SELECT {}1{} FROM orders", "(".repeat(129), ")".repeat(129));
        let limits = Limits { depth: 100_000, ..Limits::default() };
        assert_eq!(code(name, &text, &limits), "too_deep", "the parser's own recursion has an end");
        assert_eq!(code(name, &text.replacen('(', "", 1).replacen(')', "", 1), &limits), "passes");
    }
}

#[test]
fn blocked_words_are_sequences_of_tokens_and_can_be_set() {
    let limits = Limits { blocked_words: ["DELETED", "ORDER BY", ""].map(str::to_owned).to_vec(), ..Limits::default() };
    for (text, expected) in [
        ("SELECT deleted FROM orders", "blocked_word"),
        ("SELECT `deleted` FROM orders", "passes"),
        ("SELECT 'deleted' FROM orders", "passes"),
        ("SELECT deleted_at FROM orders", "passes"),
        ("SELECT * FROM orders -- deleted", "passes"),
        ("SELECT * FROM orders ORDER /* x */\nBY ts", "blocked_word"),
        ("SELECT * FROM orders ORDER", "incomplete"),
        ("SELECT print FROM orders", "passes"),
    ] {
        assert_eq!(code("flink", text, &limits), expected, "{text}");
    }
}

#[test]
fn an_administrator_allows_functions_but_none_that_reach_out() {
    let limits = Limits { functions: vec!["MY_UDF".to_owned(), "REFLECT".to_owned()], ..Limits::default() };
    for name in ["ksqldb", "flink"] {
        assert_eq!(code(name, "SELECT my_udf(a) FROM orders", &Limits::default()), "unknown_function");
        assert_eq!(code(name, "SELECT my_udf(a) FROM orders", &limits), "passes");
        assert_eq!(code(name, "SELECT x.my_udf(a) FROM orders", &limits), "unknown_function");
        assert_eq!(code(name, "SELECT reflect(a) FROM orders", &limits), "forbidden_function");
    }
    assert_eq!(code("flink", "SELECT * FROM orders, LATERAL TABLE(my_udf(a)) AS t (x)", &limits), "passes");
    assert_eq!(code("flink", "SELECT * FROM my_udf(TABLE secret)", &limits), "unexpected_word");
}

#[test]
fn faults_name_the_token_its_place_and_the_fix() {
    for (name, text, expected) in [
        (
            "flink",
            "SELECT *\nFROM orders\n  EMIT CHANGES",
            "line 3, column 3: EMIT CHANGES is ksqlDB's: leave it out for Flink",
        ),
        (
            "ksqldb",
            "SELECT * FROM ordres",
            "line 1, column 15: `ordres` is no source of the catalogue (was `ORDERS` meant?): name one of GET /api/catalog",
        ),
        (
            "flink",
            "SELECT * FROM orders; DROP TABLE orders",
            "line 1, column 23: `DROP` stands behind the `;` that ends the statement: send one SELECT alone",
        ),
        (
            "flink",
            "SELECT COUNTS(*) FROM orders",
            "line 1, column 8: `COUNTS` is no function of Flink that may be called (was `COUNT` meant?): an administrator can \
             allow it",
        ),
        ("ksqldb", "SELECT '日本語' AS x, 'ab", "line 1, column 20: ' is not closed: close it"),
    ] {
        assert_eq!(run(name, text, LOOK, &Limits::default()).unwrap_err().to_string(), expected);
    }
}

#[test]
fn all_unknown_sources_are_told_at_once_and_in_order() {
    let text = "SELECT * FROM secret a JOIN orders b ON a.id = b.id\nJOIN `other` c ON a.id = c.id";
    let faults = check(text, dialect("flink"), LOOK, &Limits::default(), &catalogue("flink")).unwrap_err();
    let places: Vec<_> = faults.iter().map(|fault| (fault.code, fault.line, fault.column)).collect();
    assert_eq!(places, [("unknown_source", 1, 15), ("unknown_source", 2, 6)]);
    let refusal = Refusal::from(faults[1].clone());
    assert_eq!((refusal.code.as_str(), refusal.line, refusal.column), ("unknown_source", Some(2), Some(6)));
}

/// Every character that was kept is found again at its place, whatever was put in before it.
#[test]
fn positions_lead_back_to_the_users_text() {
    let text = "-- first\nSELECT p.id, /* ü */ 'ä🎉' AS x\nFROM payments p JOIN clicks ON p.id = clicks.id\n WHERE x > 1 LIMIT 5 -- end";
    for name in ["ksqldb", "flink"] {
        let gated = run(name, text, LOOK, &Limits::default()).unwrap();
        for word in ["SELECT", "id", "AS x", "JOIN", "ON", "= clicks", "WHERE", "> 1", "LIMIT"] {
            let place = |text: &str, utf16: bool| {
                let at = text.find(word).unwrap();
                let line = text[..at].matches('\n').count() + 1;
                let before = text[..at].rsplit('\n').next().unwrap();
                let column = if utf16 { before.encode_utf16().count() } else { before.chars().count() } + 1;
                (u32::try_from(line).unwrap(), u32::try_from(column).unwrap())
            };
            let sent = place(&gated.select.sql, name == "flink");
            assert_eq!(gated.map_position(sent.0, sent.1), place(text, false), "{word} in {}", gated.select.sql);
        }
    }
}

#[test]
fn what_was_put_in_leads_to_where_it_was_put() {
    let gated = run("flink", "SELECT *\nFROM payments", LOOK, &Limits::default()).unwrap();
    assert_eq!(gated.select.sql, "SELECT *\nFROM `Payments` AS `payments`");
    for column in 6..40 {
        assert_eq!(gated.map_position(2, column), (2, 6));
    }
    assert_eq!(gated.map_position(1, 8), (1, 8));
    assert_eq!(gated.map_position(9, 9), (2, 6), "behind the end");
    assert_eq!(gated.map_position(0, 0), (1, 1), "before the beginning");
}

#[test]
fn a_position_in_a_statement_is_one_in_the_select() {
    let gated = run("flink", "SELECT *\nFROM orders WHERE x", LOOK, &Limits::default()).unwrap();
    let made =
        join(dialect("flink"), "EXPLAIN INSERT INTO `a`\n-- x".split('\n').next().unwrap(), &gated.select, "").unwrap();
    assert_eq!(made.text(), "EXPLAIN INSERT INTO `a`\nSELECT *\nFROM `orders` WHERE x\n");
    assert_eq!(made.position_in_select(1, 5), None);
    assert_eq!(made.position_in_select(2, 5), Some((1, 5)));
    assert_eq!(made.position_in_select(3, 21), Some((2, 21)));
    assert_eq!(made.position_in_select(4, 1), None);
    assert_eq!(gated.map_position(2, 21), (2, 19));
    let bare = join(dialect("flink"), "", &gated.select, "LIMIT 5").unwrap();
    assert_eq!(bare.position_in_select(1, 3), Some((1, 3)));
}

#[test]
fn clauses_are_known_by_their_tokens() {
    let of = |text: &str| run("flink", text, LOOK, &Limits::default()).unwrap();
    let one = of("SELECT id, SUM(a) FROM orders /* x */ GROUP   BY id");
    let other = of("SELECT id FROM orders WHERE a > 1\nGROUP BY id");
    assert_eq!(one.clause(Clause::From), Some("FROM `orders`"));
    assert_eq!(one.clause(Clause::From), other.clause(Clause::From));
    assert_eq!(one.clause(Clause::GroupBy), other.clause(Clause::GroupBy));
    assert_eq!(other.clause(Clause::Where), Some("WHERE a > 1"));
    assert_eq!(one.clause(Clause::Where), None);
    assert_eq!(
        of("SELECT id FROM orders UNION SELECT id FROM clicks").clause(Clause::Rest),
        Some("UNION SELECT id FROM `clicks`")
    );
    let ksqldb =
        run("ksqldb", "select id from orders window tumbling (size 5 minutes) group by id", LOOK, &Limits::default());
    assert_eq!(ksqldb.unwrap().clause(Clause::Window), Some("WINDOW TUMBLING ( SIZE 5 MINUTES )"));
}

#[test]
fn sources_are_given_once_each() {
    let gated =
        run("flink", "SELECT * FROM orders a JOIN PAYMENTS b ON TRUE JOIN orders c ON TRUE", LOOK, &Limits::default());
    let gated = gated.unwrap();
    let names: Vec<&str> = gated.select.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["orders", "Payments"]);
}

#[test]
fn a_name_that_fits_two_sources_is_neither() {
    let mut sources = catalogue("flink");
    sources[1].name = "ORDERS".to_owned();
    let run =
        |text: &str| check(text, dialect("flink"), LOOK, &Limits::default(), &sources).map(|gated| gated.normalized);
    assert_eq!(run("SELECT * FROM orders"), Ok("SELECT * FROM `orders`".to_owned()));
    assert_eq!(run("SELECT * FROM ORDERS"), Ok("SELECT * FROM `ORDERS`".to_owned()));
    assert_eq!(run("SELECT * FROM Orders").unwrap_err()[0].code, "unknown_source");
}

fn select(sql: &str) -> Select {
    Select { sql: sql.to_owned(), sources: Vec::new() }
}

/// Even a SELECT that never saw the gate can't become two statements, or swallow our text.
#[test]
fn join_trusts_nobody() {
    for dialect in Dialect::ALL {
        for (prefix, sql, suffix) in [
            ("CREATE STREAM X AS", "SELECT * FROM a; DROP STREAM b", ""),
            ("CREATE STREAM X AS", "SELECT * FROM a;", ""),
            ("CREATE STREAM X AS", "SELECT * FROM a -- x", "EMIT CHANGES"),
            ("CREATE STREAM X AS", "SELECT * FROM a /* x", "*/ EMIT CHANGES"),
            ("CREATE STREAM X AS", "SELECT * FROM a /* x */", ""),
            ("CREATE STREAM X AS", "DROP STREAM a", ""),
            ("CREATE STREAM X AS", "", ""),
            ("CREATE STREAM X AS", "'SELECT' 1", ""),
            ("CREATE STREAM X AS", "SELECT 'a", "b'"),
            ("CREATE STREAM X AS", "SELECT (a FROM b", ")"),
            ("CREATE STREAM X AS (", "SELECT a) FROM b (", ")"),
            ("CREATE STREAM X AS '", "SELECT '", "'"),
            ("CREATE STREAM X AS /*", "SELECT 1", "*/"),
            ("CREATE STREAM X; --", "SELECT 1", ""),
            ("CREATE STREAM X AS", "SELECT ${x}", ""),
            ("CREATE STREAM X AS", "SELECT /*+ x */ 1", ""),
            ("CREATE STREAM X AS", "SELECT 1", "; DROP STREAM b"),
            ("CREATE STREAM X AS", "SELECT\u{a0}1", ""),
        ] {
            let made = join(dialect, prefix, &select(sql), suffix);
            assert!(matches!(made, Err(ComposeError::Skeleton(_))), "{}: {made:?}", dialect.name);
        }
        let made = join(dialect, "SELECT * FROM (", &select("SELECT 1 FROM a"), ") LIMIT 5").unwrap();
        assert_eq!(made.text(), "SELECT * FROM (\nSELECT 1 FROM a\n) LIMIT 5");
    }
}

#[test]
fn statements_of_ours_are_one_each() {
    for dialect in Dialect::ALL {
        let (x, a, b) = (dialect.quote("X").unwrap(), dialect.quote("a").unwrap(), dialect.quote("b").unwrap());
        for text in [
            "TERMINATE X_1;".to_owned(),
            format!("DROP STREAM IF EXISTS {x};\n"),
            format!("CREATE TABLE {a} ({b} INT) WITH ('c' = 'd')"),
        ] {
            assert_eq!(statement(dialect, &text), Ok(text.clone()));
        }
        for text in ["", ";", "A; B", "A;;", "A -- x", "A /* x */;", "A (", "A 'x", "A ${x}"] {
            assert!(statement(dialect, text).is_err(), "{text}");
        }
    }
}

#[test]
fn names_and_texts_are_quoted_or_refused() {
    assert_eq!(quote_identifier("a`b").as_deref(), Ok("`a``b`"));
    assert_eq!(quote_identifier("größe; --").as_deref(), Ok("`größe; --`"));
    assert_eq!(string_literal("it's").as_deref(), Ok("'it''s'"));
    assert_eq!(string_literal("").as_deref(), Ok("''"));
    assert_eq!(string_literal("\\' OR 1").as_deref(), Ok("'\\'' OR 1'"));
    for text in ["a\nb", "a\0", "${x}", "a\u{202e}b", "\r", "\u{85}"] {
        assert_eq!(quote_identifier(text), Err(ComposeError::Unquotable(text.to_owned())));
        assert_eq!(string_literal(text), Err(ComposeError::Unquotable(text.to_owned())));
    }
    quote_identifier("").unwrap_err();
    let longest = format!("A{}", "_".repeat(62));
    for name in ["A", "view_x_0123abcd", &longest] {
        assert_eq!(EngineName::parse(name).unwrap().to_string(), name);
    }
    for name in ["", "1a", "_a", "a-b", "a b", "ä", "a;b", "a`", "a.b", &format!("{longest}_")] {
        assert_eq!(EngineName::parse(name), Err(ComposeError::Name(name.to_owned())));
    }
}

#[test]
fn a_statement_is_known_when_the_engine_writes_it_its_own_way() {
    let same = |one: &str, other: &str| same_statement(Dialect::of(EngineKind::Ksqldb), one, other);
    assert!(same("select a from `ORDERS` emit changes;", "SELECT A\nFROM ORDERS\nEMIT CHANGES"));
    assert!(!same("SELECT a FROM `orders`", "SELECT a FROM orders"));
    assert!(!same("SELECT 'a' FROM o", "SELECT 'A' FROM o"));
    assert!(!same("SELECT 'a", "SELECT 'a"));
    assert!(!same_statement(Dialect::of(EngineKind::Flink), "SELECT a", "SELECT A"));
}

#[test]
fn types_are_written_in_each_dialects_words() {
    let fields = vec![("a`b".to_owned(), DataType::Int), ("c".to_owned(), DataType::Array(Box::new(DataType::String)))];
    let row = DataType::Map(Box::new(DataType::Row(fields)));
    let write = |name: &str, of: &DataType| dialect(name).data_type(of).unwrap();
    assert_eq!(write("ksqldb", &row), "MAP<VARCHAR, STRUCT<`a``b` INTEGER, `c` ARRAY<VARCHAR>>>");
    assert_eq!(write("flink", &row), "MAP<STRING, ROW<`a``b` INT, `c` ARRAY<STRING>>>");
    assert_eq!(write("flink", &DataType::Timestamp(6)), "TIMESTAMP(6)");
    assert_eq!(write("ksqldb", &DataType::Timestamp(6)), "TIMESTAMP");
    assert_eq!(write("ksqldb", &DataType::Decimal { precision: 10, scale: 2 }), "DECIMAL(10, 2)");
    let bad = DataType::Row(vec![("${x}".to_owned(), DataType::Int)]);
    assert!(dialect("flink").data_type(&bad).is_err() && dialect("ksqldb").data_type(&bad).is_err());
}
