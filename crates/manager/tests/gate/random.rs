//! Texts made at random: whatever they are, the lexer loses nothing, nobody panics, and what is composed is one statement whose
//! skeleton is ours.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;
use streamview_manager::engines::Select;
use streamview_manager::gate::compose::{ComposeError, join, statement, string_literal};
use streamview_manager::gate::lexer::{Token, TokenKind, lex};
use streamview_manager::gate::{Dialect, Kind, check};
use streamview_manager::settings::Limits;

use crate::corpus::{Case, catalogue, dialect, passes, refused};

const LOOK: Kind = Kind::AdHoc { pull: false };
const NAMES: [&str; 3] = ["ksqldb", "flink", "embedded"];

/// Pieces of which attempts are made.
const PIECES: [&str; 75] = [
    "SELECT",
    " * ",
    "FROM",
    " ",
    "\n",
    "\t",
    "orders",
    "ORDERS",
    "secret",
    "`orders`",
    "`",
    "``",
    "'",
    "''",
    "'a'",
    "\"",
    "\"a\"",
    ";",
    ",",
    ".",
    "(",
    ")",
    "[",
    "]",
    "--",
    "-- x\n",
    "/*",
    "*/",
    "/* x */",
    "/*+",
    "//",
    "WHERE",
    "JOIN",
    "LEFT",
    "ON",
    "GROUP BY",
    "HAVING",
    "LIMIT",
    "5",
    "EMIT CHANGES",
    "EMIT",
    "WINDOW",
    "TUMBLING",
    "TABLE",
    "TUMBLE(",
    "DESCRIPTOR",
    "UNION",
    "ALL",
    "WITH",
    "x",
    "AS",
    "DROP",
    "INSERT INTO",
    "CASE",
    "WHEN",
    "END",
    "IS",
    "DISTINCT",
    "NOT",
    "EXTRACT(",
    "ABS(",
    "REFLECT(",
    "=",
    "<",
    ">",
    "-",
    "+",
    "1",
    "1e",
    "${x}",
    "\0",
    "\r",
    "ſ",
    "；",
    "E'\\'",
];

fn soup() -> impl Strategy<Value = String> {
    prop::collection::vec((select(&PIECES[..]), select(&["", " "][..])), 0..40)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, space)| format!("{piece}{space}")).collect())
}

fn anything() -> impl Strategy<Value = String> {
    prop_oneof![3 => soup().prop_map(|rest| format!("SELECT * FROM orders {rest}")), 2 => soup(), 1 => any::<String>()]
}

/// Whole tokens, nearly all of them harmless.
const PLAIN: [&str; 13] = ["a", "`x`", "'b'", "1", ",", "=", "(a)", "(", ")", ";", "-- x", "/* x */", "\n"];

fn plain() -> impl Strategy<Value = String> {
    prop::collection::vec(select(&PLAIN[..]), 0..4).prop_map(|pieces| pieces.join(" "))
}

/// A good statement of the corpus with pieces put in, taken out, doubled or exchanged.
fn mutant(name: &'static str) -> impl Strategy<Value = String> {
    let texts: Vec<String> = passes(name).into_iter().map(|case| case.text).filter(|text| text.len() < 400).collect();
    (select(texts), prop::collection::vec((any::<prop::sample::Index>(), select(&PIECES[..]), 0..3_u8), 1..4)).prop_map(
        |(text, changes)| {
            let mut letters: Vec<String> = text.chars().map(String::from).collect();
            for (at, piece, how) in changes {
                let at = at.index(letters.len() + 1);
                match how {
                    0 => letters.insert(at, piece.to_owned()),
                    1 if at < letters.len() => letters[at] = piece.to_owned(),
                    _ => letters.truncate(at.max(1)),
                }
            }
            letters.concat()
        },
    )
}

fn code<'a>(text: &'a str, dialect: &Dialect) -> Vec<Token<'a>> {
    lex(text, dialect).unwrap().into_iter().filter(Token::is_code).collect()
}

/// An independent look at what is sent, as the engine will read it: none of the words of other statements, no other source, no
/// comment, one statement.
fn assert_safe(name: &str, text: &str, kind: Kind) {
    let Ok(gated) = check(text, dialect(name), kind, &Limits::default(), &catalogue(name)) else { return };
    let made = join(dialect(name), "CREATE STREAM X AS", &gated.select, "").unwrap();
    let tokens = code(made.text(), dialect(name));
    assert!(made.text().starts_with("CREATE STREAM X AS\n"));
    assert!(lex(made.text(), dialect(name)).unwrap().iter().all(|token| token.kind != TokenKind::Comment));
    let bare: Vec<String> = tokens
        .iter()
        .filter(|token| token.kind == TokenKind::Word)
        .map(|token| token.text.to_ascii_uppercase())
        .collect();
    assert!(tokens.iter().all(|token| !token.is_symbol(";")), "{text}");
    for word in ["DROP", "INSERT", "INTO", "DELETE"] {
        assert!(!bare.contains(&word.to_owned()), "{word} in {text}");
    }
    let outside = tokens.iter().filter(|token| !matches!(token.kind, TokenKind::Text | TokenKind::Quoted));
    assert!(outside.clone().all(|token| token.text.is_ascii()), "{text}");
    assert!(!made.text().contains("${") && !made.text().contains(['\0', '\r']), "{text}");
    for pair in tokens.windows(2) {
        let names_a_source = ["FROM", "JOIN", "TABLE"].iter().any(|word| pair[0].is_word(word));
        if names_a_source && pair[1].kind == TokenKind::Word && pair[1].text.eq_ignore_ascii_case("secret") {
            // `a IS DISTINCT FROM secret` and `EXTRACT(YEAR FROM secret)` name columns.
            assert!(bare.contains(&"DISTINCT".to_owned()) || bare.contains(&"EXTRACT".to_owned()), "{text}");
        }
    }
    assert!(!gated.select.sources.is_empty() && gated.select.sources.iter().all(|source| source.name != "secret"));
    if name == "ksqldb" {
        let emits =
            |pair: &[Token]| pair[0].is_word("EMIT") && (pair[1].is_word("CHANGES") || pair[1].is_word("FINAL"));
        assert_eq!(bare.iter().filter(|word| *word == "SELECT").count(), 1, "{text}");
        assert_eq!(tokens.windows(2).filter(|pair| emits(pair)).count(), 1, "{text}");
    }
    // What was judged is judged the same again.
    let again = check(
        &gated.select.sql,
        dialect(name),
        kind,
        &Limits { query_characters: 100_000, ..Limits::default() },
        &catalogue(name),
    );
    let again = again.unwrap_or_else(|faults| panic!("{text}: {}: {}", gated.select.sql, faults[0]));
    assert_eq!(again.normalized, gated.normalized);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_lexer_loses_nothing(text in anything()) {
        for dialect in Dialect::ALL {
            if let Ok(tokens) = lex(&text, dialect) {
                let joined: String = tokens.iter().map(|token| token.text).collect();
                prop_assert_eq!(&joined, &text);
                for token in &tokens {
                    let line = text.split('\n').nth(token.line as usize - 1).unwrap();
                    let first = token.text.chars().next().unwrap();
                    let there = line.chars().nth(token.column as usize - 1).unwrap_or('\n');
                    prop_assert_eq!(first, there);
                }
            }
        }
    }

    #[test]
    fn what_is_composed_is_one_statement_of_ours(text in anything()) {
        for name in NAMES {
            assert_safe(name, &text, LOOK);
            assert_safe(name, &text, Kind::Persistent);
        }
    }

    #[test]
    fn good_statements_bent_are_refused_or_still_one(
        ksqldb in mutant("ksqldb"), flink in mutant("flink"), embedded in mutant("embedded"),
    ) {
        assert_safe("ksqldb", &ksqldb, LOOK);
        assert_safe("flink", &flink, LOOK);
        assert_safe("embedded", &embedded, LOOK);
        assert_safe("embedded", &flink, Kind::Persistent);
        assert_safe("embedded", &ksqldb, Kind::Persistent);
        assert_safe("ksqldb", &flink, Kind::Persistent);
        assert_safe("flink", &ksqldb, Kind::Persistent);
    }

    #[test]
    fn join_makes_one_statement_or_none(prefix in plain(), text in plain(), suffix in plain(), wild in anything()) {
        for (dialect, text) in Dialect::ALL.into_iter().flat_map(|dialect| [(dialect, format!("SELECT {text}")), (dialect, wild.clone())]) {
            let ours = format!("CREATE STREAM X AS {prefix}");
            match join(dialect, &ours, &Select { sql: text.clone(), sources: Vec::new() }, &suffix) {
                Ok(made) => {
                    let expected = [code(&ours, dialect), code(&text, dialect), code(&suffix, dialect)].concat();
                    let found = code(made.text(), dialect);
                    let words = |tokens: &[Token]| tokens.iter().map(|token| token.text.to_owned()).collect::<Vec<_>>();
                    prop_assert_eq!(words(&found), words(&expected));
                    prop_assert!(!found.iter().any(|token| token.is_symbol(";")));
                }
                Err(error) => prop_assert!(matches!(error, ComposeError::Skeleton(_))),
            }
        }
    }

    #[test]
    fn what_is_quoted_is_read_as_one_token_with_that_name(text in any::<String>()) {
        for dialect in Dialect::ALL {
            if let Ok(quoted) = dialect.quote(&text) {
                let tokens = lex(&quoted, dialect).unwrap();
                prop_assert_eq!(tokens.len(), 1);
                prop_assert_eq!(tokens[0].name(), text.clone());
            }
            if let Ok(quoted) = string_literal(&text) {
                let made = statement(dialect, &format!("SET 'x' = {quoted};")).unwrap();
                prop_assert_eq!(code(&made, dialect).len(), 5);
            }
        }
    }
}

/// Comments, spaces and the case of words at random, between the tokens of a statement.
fn dressed(text: &str, name: &str, dress: &[(u8, bool)]) -> Option<String> {
    let tokens = lex(text, dialect(name)).ok()?;
    let mut dress = dress.iter().cycle();
    let mut out = String::new();
    let mut before: Option<&Token> = None;
    for token in &tokens {
        let (what, upper) = dress.next()?;
        let touches = before.is_some_and(Token::is_code) && token.is_code();
        let splits = |one: &Token| matches!(one.kind, TokenKind::Symbol | TokenKind::Text | TokenKind::Quoted);
        if before.is_some_and(|one| one.is_symbol("/")) {
            out.push(' '); // `//` begins a comment for one engine
        }
        if !touches || before.is_some_and(splits) || splits(token) {
            out.push_str(
                ["", " ", "\n", "/**/", "/* ; DROP ' ` */", " -- x; '\n", "\t", "/***/"][usize::from(*what) % 8],
            );
        }
        match token.kind {
            // Flink tells names apart by their case; in the corpus keywords are what is written in capitals.
            TokenKind::Word if *upper && dialect(name).name == "ksqlDB" => {
                out.push_str(&token.text.to_ascii_uppercase())
            }
            TokenKind::Word if *upper && !token.text.contains(char::is_lowercase) => {
                out.push_str(&token.text.to_ascii_lowercase());
            }
            _ => out.push_str(token.text),
        }
        before = Some(token);
    }
    Some(out)
}

fn upper_tokens(text: &str, name: &str) -> Vec<String> {
    code(text, dialect(name)).iter().map(|token| token.text.to_ascii_uppercase()).collect()
}

fn same_verdict(name: &str, case: &Case, dress: &[(u8, bool)]) {
    let Some(text) = dressed(&case.text, name, dress) else { return };
    let limits = Limits { query_characters: 2_000_000, ..Limits::default() };
    for kind in &case.kinds {
        let plain = check(&case.text, dialect(name), *kind, &limits, &catalogue(name));
        let other = check(&text, dialect(name), *kind, &limits, &catalogue(name));
        match (plain, other) {
            (Ok(plain), Ok(other)) => {
                // An alias is put in where the spelling differs from the catalogue's.
                let (plain, other) = (upper_tokens(&plain.select.sql, name), upper_tokens(&other.select.sql, name));
                let without_alias = |words: &[String]| {
                    words
                        .iter()
                        .filter(|word| !word.starts_with(['`', '"']) && *word != "AS")
                        .cloned()
                        .collect::<Vec<_>>()
                };
                assert_eq!(without_alias(&plain), without_alias(&other), "{text}");
            }
            (Err(plain), Err(other)) => assert_eq!(plain[0].code, other[0].code, "{}: {text}", case.reason),
            (plain, other) => panic!("{}: {:?} but {:?}: {text}", case.reason, plain.err(), other.err()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn comments_spaces_and_case_change_no_verdict(dress in prop::collection::vec((any::<u8>(), any::<bool>()), 50..60)) {
        for name in NAMES {
            // What the text's own comments and line ends are about is left alone.
            for case in passes(name).iter().chain(&refused(name)).filter(|case| case.text.len() < 2_000) {
                same_verdict(name, case, &dress);
            }
        }
    }
}

/// Forty thousand characters take about a second here on a busy machine. A square would take minutes.
#[test]
fn time_grows_with_the_text_only() {
    let limits = Limits {
        query_characters: usize::MAX,
        depth: usize::MAX,
        joins: usize::MAX,
        windows: usize::MAX,
        ..Limits::default()
    };
    for piece in ["(", "'", "`", "/*", "/**/", "--\n", "- ", "NOT ", "CASE ", "a,", "ABS(", "; ", "(a) "] {
        for name in NAMES {
            let text = format!("SELECT * FROM orders WHERE {}", piece.repeat(40_000 / piece.len()));
            let started = Instant::now();
            let outcome = check(&text, dialect(name), LOOK, &limits, &catalogue(name));
            let took = started.elapsed();
            assert!(took < Duration::from_secs(20), "{piece:?} took {took:?}");
            drop(outcome);
        }
    }
}
