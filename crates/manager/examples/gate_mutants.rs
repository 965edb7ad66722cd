//! Texts that pass the gate in Flink's dialect, for Flink's own parser to judge (`scripts/gate-against-flink`). Statements of the
//! corpus, bent at random; those that the gate lets through go to standard output, a line each: the statement as it is sent and
//! its sources, both in hex.
#![allow(missing_docs, clippy::unwrap_used, dead_code, unused_imports)] // a tool of developers: it fails by panicking

#[path = "../tests/gate/corpus.rs"]
mod corpus;

use fastrand::Rng;
use streamview_manager::gate::{Kind, check};
use streamview_manager::settings::Limits;

/// What is put in: ways to name a source, and what could hide them.
const PIECES: [&str; 84] = [
    "SELECT",
    "*",
    "FROM",
    " ",
    "orders",
    "clicks",
    "secret",
    "`orders`",
    "`",
    "'",
    "''",
    "'a'",
    ";",
    ",",
    ".",
    "(",
    ")",
    "[",
    "]",
    "--",
    "\n",
    "/*",
    "*/",
    "/* x */",
    "/***/",
    "WHERE",
    "JOIN",
    "LEFT",
    "ON",
    "TRUE",
    "GROUP BY",
    "HAVING",
    "LIMIT",
    "5",
    "TABLE",
    "TABLE(",
    "TUMBLE(",
    "LATERAL",
    "UNNEST(",
    "UNION",
    "ALL",
    "WITH",
    "x",
    "AS",
    "CASE",
    "END",
    "IS",
    "DISTINCT",
    "NOT",
    "EXTRACT(YEAR FROM",
    "ABS(",
    "=",
    "<",
    ">",
    "-",
    "1",
    "FOR SYSTEM_TIME AS OF",
    "MATCH_RECOGNIZE (",
    "(SELECT * FROM orders)",
    "IN (SELECT id FROM clicks)",
    "secret.a",
    "FROM secret",
    ", secret",
    "(secret)",
    "JOIN secret",
    "TABLE secret",
    "DISTINCT FROM secret",
    "TRIM(a FROM secret)",
    "USING (secret)",
    "WITH secret AS (SELECT * FROM orders)",
    "NATURAL JOIN",
    "CROSS JOIN",
    "INTERSECT",
    "EXCEPT",
    "VALUES",
    "EXISTS (",
    "OVER (",
    "ROW(",
    "=>",
    "ARRAY",
    "MULTISET",
    "PARTITION BY",
    "QUALIFY",
    "FETCH FIRST",
];

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A statement with some letters out, a piece or a part of another statement in, a few times over.
fn bent(base: &str, others: &[String], rng: &mut Rng) -> String {
    let mut letters: Vec<char> = base.chars().collect();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=letters.len());
        match rng.u8(..4) {
            0 => {
                letters.drain(at..(at + rng.usize(1..7)).min(letters.len()).max(at));
            }
            1 => {
                letters.splice(at..at, PIECES[rng.usize(..PIECES.len())].chars());
            }
            2 => {
                // Between two words a piece is more often read as what it is.
                let at = letters[..at].iter().rposition(|letter| *letter == ' ').unwrap_or(at);
                let piece = format!(" {} ", PIECES[rng.usize(..PIECES.len())]);
                letters.splice(at..at, piece.chars());
            }
            _ => {
                let other: Vec<char> = others[rng.usize(..others.len())].chars().collect();
                let from = rng.usize(..other.len());
                let to = (from + rng.usize(..30)).min(other.len());
                letters.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    letters.into_iter().collect()
}

fn main() {
    let tries: usize = std::env::args().nth(1).and_then(|tries| tries.parse().ok()).unwrap_or(20_000);
    let good: Vec<String> =
        corpus::passes("flink").into_iter().map(|case| case.text).filter(|text| text.len() < 500).collect();
    let attempts: Vec<String> =
        corpus::refused("flink").into_iter().map(|case| case.text).filter(|text| text.len() < 300).collect();
    let (catalogue, mut rng) = (corpus::catalogue("flink"), Rng::new());
    let limits = Limits { joins: 20, windows: 20, ..Limits::default() };
    let mutants = (0..tries).map(|number| {
        let bases = if number % 5 == 0 { &attempts } else { &good };
        bent(&bases[rng.usize(..bases.len())], &good, &mut rng)
    });
    for text in good.iter().cloned().chain(mutants) {
        if let Ok(gated) = check(&text, corpus::dialect("flink"), Kind::Persistent, &limits, &catalogue) {
            let sources: Vec<&str> = gated.select.sources.iter().map(|source| source.name.as_str()).collect();
            println!("{}\t{}", hex(&gated.select.sql), hex(&sources.join(",")));
        }
    }
}
