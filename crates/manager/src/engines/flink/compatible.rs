//! Whether a changed text may go on with the state of the old one. Flink cannot be asked: a window of another size is restored
//! without a word, and counts wrongly.
//!
//! | part of the statement | may differ |
//! |---|---|
//! | WHERE, without a subquery | yes, see below |
//! | columns, where nothing is aggregated | yes, see below |
//! | columns, where something is; HAVING | no |
//! | FROM, windows, GROUP BY, DISTINCT, ORDER BY, LIMIT | no |
//! | anything, where rows themselves are kept: JOIN, OVER, UNION, WITH, subqueries, MATCH_RECOGNIZE | no |
//! | a source's topic, format, event time, or type of a column | no |
//!
//! Flink finds an operator's state by the operator's place in the job. A filter or a projection is a step of the job; where
//! every column is taken as it is, there is no such step. A change that makes the step come or go moves what stands behind
//! it: `SELECT * FROM orders` can't get its first WHERE and keep its state, `SELECT id FROM orders` can.

use super::ddl::RECORD_TIME;
use super::text::{Token, Tokens};
use crate::catalog::Source;
use crate::engines::Select;

/// Words of statements whose state holds rows, as many columns of them as the statement needs: any change may change those.
const KEEPS_ROWS: [&str; 9] =
    ["JOIN", "OVER", "UNION", "INTERSECT", "EXCEPT", "WITH", "MATCH_RECOGNIZE", "DISTINCT", "LATERAL"];
/// Words that begin a part behind the FROM, in their order.
const PARTS: [&str; 8] = ["FROM", "WHERE", "GROUP", "HAVING", "WINDOW", "ORDER", "LIMIT", "FETCH"];
/// Functions that keep state.
const AGGREGATES: [&str; 24] = [
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "STDDEV_POP",
    "STDDEV_SAMP",
    "STDDEV",
    "VAR_POP",
    "VAR_SAMP",
    "VARIANCE",
    "COLLECT",
    "LISTAGG",
    "ARRAY_AGG",
    "FIRST_VALUE",
    "LAST_VALUE",
    "ANY_VALUE",
    "SINGLE_VALUE",
    "JSON_OBJECTAGG",
    "JSON_ARRAYAGG",
    "APPROX_COUNT_DISTINCT",
    "PERCENTILE",
    "SUM0",
    "RANK",
];

/// Whether `new` may go on with the state of `old`; else why not.
pub fn keeps_state(old: &Select, new: &Select) -> Result<(), String> {
    same_sources(&old.sources, &new.sources)?;
    let sources = &old.sources;
    let (Ok(old), Ok(new)) = (Tokens::of(&old.sql), Tokens::of(&new.sql)) else {
        return Err("the texts cannot be compared".to_owned());
    };
    let (old, new) = (folded(&old), folded(&new));
    if old == new {
        return Ok(());
    }
    for (text, which) in [(&old, "old"), (&new, "new")] {
        if let Some(word) = KEEPS_ROWS.iter().find(|word| text.iter().any(|token| token.is_word(word))) {
            return Err(format!(
                "the {which} text has {word}, whose state holds whole rows: any change may change them"
            ));
        }
        if text.iter().filter(|token| token.is_word("SELECT")).count() > 1 {
            return Err(format!("the {which} text has a subquery: any change may change what is kept of it"));
        }
    }
    let (old, new) = (Parts::of(&old), Parts::of(&new));
    if (old.is_aggregated() || new.is_aggregated()) && old.part("SELECT") != new.part("SELECT") {
        return Err("its columns or aggregates, or their order, have changed".to_owned());
    }
    for part in PARTS.iter().filter(|part| **part != "WHERE") {
        if old.part(part) != new.part(part) {
            return Err(format!("its {} has changed", if *part == "GROUP" { "GROUP BY" } else { part }));
        }
    }
    if old.names(RECORD_TIME) != new.names(RECORD_TIME) {
        return Err(format!("only one of the texts names {RECORD_TIME}, which changes how the source is read"));
    }
    if old.has_step(sources) != new.has_step(sources) {
        return Err("only one of the texts filters or leaves out columns, which moves the steps behind".to_owned());
    }
    Ok(())
}

fn same_sources(old: &[Source], new: &[Source]) -> Result<(), String> {
    for source in old {
        let Some(now) = new.iter().find(|now| now.name.eq_ignore_ascii_case(&source.name)) else {
            return Err(format!("it no longer reads `{}`", source.name));
        };
        let facts =
            |source: &Source| (source.topic.clone(), source.format, source.event_time.clone(), source.table.clone());
        if facts(now) != facts(source) {
            return Err(format!("the topic, format, event time or key of `{}` has changed", source.name));
        }
        let types = |source: &Source| -> Vec<_> {
            source.columns.iter().map(|column| (column.name.clone(), column.data_type.clone())).collect()
        };
        if types(source) != types(now) {
            return Err(format!("the columns of `{}` have changed", source.name));
        }
    }
    match new.iter().find(|now| !old.iter().any(|source| source.name.eq_ignore_ascii_case(&now.name))) {
        Some(added) => Err(format!("it reads `{}`, too", added.name)),
        None => Ok(()),
    }
}

/// Keywords and function names without case. Other names keep theirs, as Flink tells them apart: at worst two texts that
/// mean the same are told apart, too.
fn folded(tokens: &Tokens) -> Vec<Token> {
    let known = |word: &str| KEEPS_ROWS.contains(&word) || PARTS.contains(&word) || AGGREGATES.contains(&word);
    let fold = |token: &Token| match token {
        Token::Word(word) => {
            let upper = word.to_ascii_uppercase();
            if known(&upper) || matches!(upper.as_str(), "SELECT" | "BY" | "AS" | "AND" | "OR") {
                Token::Word(upper)
            } else {
                token.clone()
            }
        }
        other => other.clone(),
    };
    tokens.0.iter().map(fold).collect()
}

/// A statement of one SELECT in its parts.
struct Parts {
    parts: Vec<(String, Vec<Token>)>,
}

impl Parts {
    fn of(tokens: &[Token]) -> Parts {
        let mut parts = vec![("SELECT".to_owned(), Vec::new())];
        let mut depth = 0_i32;
        for token in tokens {
            match token {
                Token::Mark('(' | '[') => depth += 1,
                Token::Mark(')' | ']') => depth -= 1,
                Token::Word(word) if depth == 0 && PARTS.contains(&word.as_str()) => {
                    parts.push((word.clone(), Vec::new()));
                }
                _ => {}
            }
            if let Some((_, part)) = parts.last_mut() {
                part.push(token.clone());
            }
        }
        Parts { parts }
    }

    fn part(&self, name: &str) -> &[Token] {
        self.parts.iter().find(|(word, _)| word == name).map_or(&[], |(_, part)| part)
    }

    fn is_aggregated(&self) -> bool {
        let columns = self.part("SELECT");
        let calls = columns.windows(2).any(|pair| match pair {
            [Token::Word(word), Token::Mark('(')] => AGGREGATES.contains(&word.as_str()),
            _ => false,
        });
        calls || !self.part("GROUP").is_empty()
    }

    fn names(&self, name: &str) -> bool {
        let is_name = |token: &Token| matches!(token, Token::Word(word) | Token::Name(word) if word == name);
        self.parts.iter().any(|(_, part)| part.iter().any(is_name))
    }

    /// Whether something is filtered, computed or left out before anything is kept. Where that is not to be seen, not.
    fn has_step(&self, sources: &[Source]) -> bool {
        if !self.part("WHERE").is_empty() {
            return true;
        }
        let columns: Vec<&str> =
            sources.iter().flat_map(|source| &source.columns).map(|column| column.name.as_str()).collect();
        if self.is_aggregated() {
            return columns.iter().any(|column| !self.names(column));
        }
        let taken = &self.part("SELECT")[1..];
        if taken == [Token::Mark('*')] {
            return false;
        }
        let taken: Vec<&[Token]> = taken.split(|token| *token == Token::Mark(',')).collect();
        let is_as_it_is = |(item, column): (&&[Token], &&str)| {
            let name = item.iter().rev().find_map(|token| match token {
                Token::Word(name) | Token::Name(name) => Some(name.as_str()),
                _ => None,
            });
            // `o.id`, `id`; an alias may be more, and is looked at no closer.
            item.len() > 3 || item.iter().any(|token| token.is_word("AS")) || name == Some(*column)
        };
        taken.len() != columns.len() || !taken.iter().zip(&columns).all(is_as_it_is)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::catalog::{Column, Format};

    fn select(sql: &str) -> Select {
        let column = |name: &str| Column { name: name.to_owned(), data_type: "int".parse().unwrap(), nullable: true };
        let source = Source {
            name: "o".to_owned(),
            topic: "orders".to_owned(),
            format: Format::Json,
            columns: vec![column("a"), column("b")],
            event_time: None,
            table: None,
        };
        Select { sql: sql.to_owned(), sources: vec![source] }
    }

    #[test]
    fn filters_and_plain_columns_may_change() {
        for (old, new) in [
            ("SELECT a FROM o WHERE a > 1", "select a from o -- other\nwhere a > 2"),
            ("SELECT a FROM o WHERE a > 1", "SELECT b FROM o"),
            ("SELECT a, COUNT(*) AS n FROM o GROUP BY a", "SELECT a, COUNT(*) AS n FROM o WHERE b = 'x' GROUP BY a"),
            ("SELECT a, b FROM o", "SELECT o.a, `b` FROM o"),
            ("SELECT b, a FROM o", "SELECT a FROM o WHERE b > 1"),
        ] {
            assert_eq!(keeps_state(&select(old), &select(new)), Ok(()), "{old} to {new}");
        }
    }

    #[test]
    fn whatever_is_kept_in_the_state_may_not() {
        let window = |size: &str, columns: &str| {
            format!(
                "SELECT window_start, {columns} FROM TABLE(TUMBLE(TABLE o, DESCRIPTOR(ts), INTERVAL '{size}' SECOND)) GROUP BY window_start, window_end"
            )
        };
        let (ten, twenty) = (window("10", "COUNT(*)"), window("20", "COUNT(*)"));
        let sum = window("10", "COUNT(*), SUM(a)");
        for (old, new, why) in [
            (ten.as_str(), twenty.as_str(), "FROM"),
            (ten.as_str(), sum.as_str(), "aggregates"),
            ("SELECT a, COUNT(*) FROM o GROUP BY a", "SELECT a, COUNT(*) FROM o GROUP BY a, b", "GROUP BY"),
            ("SELECT COUNT(*), SUM(a) FROM o", "SELECT SUM(a), COUNT(*) FROM o", "aggregates"),
            ("SELECT COUNT(*) FROM o", "SELECT COUNT(*) FILTER (WHERE a > 1) FROM o", "aggregates"),
            ("SELECT a, SUM(b) FROM o GROUP BY a", "SELECT a, SUM(b) FROM o GROUP BY a HAVING SUM(b) > 1", "HAVING"),
            ("SELECT o.a FROM o JOIN o AS p ON o.a = p.a", "SELECT o.b FROM o JOIN o AS p ON o.a = p.a", "JOIN"),
            ("SELECT a FROM o WHERE a IN (SELECT b FROM o)", "SELECT a FROM o", "subquery"),
            ("SELECT a FROM o", "SELECT DISTINCT a FROM o", "DISTINCT"),
            ("SELECT a FROM o", "SELECT a FROM o LIMIT 3", "LIMIT"),
            ("SELECT a, b FROM o", "SELECT a, b FROM o WHERE a > 1", "filters"),
            ("SELECT * FROM o", "SELECT b, a FROM o", "leaves out"),
            ("SELECT a, SUM(b) FROM o GROUP BY a", "SELECT a, SUM(b) FROM o WHERE a > 1 GROUP BY a", "filters"),
            ("SELECT a FROM o", "SELECT a, record_time FROM o", "record_time"),
        ] {
            let refused = keeps_state(&select(old), &select(new)).unwrap_err();
            assert!(refused.contains(why), "{old} to {new}: {refused}");
        }
    }

    #[test]
    fn sources_must_be_the_same() {
        let old = select("SELECT a FROM o WHERE a > 2");
        let mut new = select("SELECT a FROM o WHERE a > 1");
        assert_eq!(keeps_state(&old, &new), Ok(()));
        new.sources[0].columns[0].data_type = "bigint".parse().unwrap();
        assert!(keeps_state(&old, &new).unwrap_err().contains("columns of `o`"));
        new.sources[0] = old.sources[0].clone();
        new.sources[0].topic = "other".to_owned();
        assert!(keeps_state(&old, &new).unwrap_err().contains("topic"));
    }
}
