//! Whether a changed text may take the place of the one that runs, with its place in its source and its state. The server judges it,
//! too, when it is asked to replace, and leaves the old text running if it says no; but then it is late to ask whether the state
//! may be lost. So this says yes only where the server is known to say it.
//!
//! | part of the statement | may differ |
//! |---|---|
//! | WHERE | yes |
//! | columns | more of them, behind the old ones |
//! | FROM, the source as it is declared | no |
//! | anything, where rows are joined, grouped, windowed, keyed anew or multiplied | no |

use super::statements::dialect;
use crate::catalog::Source;
use crate::engines::Select;
use crate::gate::lexer::{Token, lex};

/// Words of statements that have more to keep than a place in one source.
const KEEPS_MORE: [&str; 7] = ["JOIN", "WINDOW", "GROUP", "HAVING", "PARTITION", "EXPLODE", "CUBE_EXPLODE"];
/// Words that end the FROM.
const BEHIND_FROM: [&str; 3] = ["WHERE", "EMIT", "LIMIT"];

/// Whether `new` may go on where `old` is; else why not.
pub(super) fn keeps_state(old: &Select, new: &Select) -> Result<(), String> {
    same_source(&old.sources, &new.sources)?;
    let (Ok(old), Ok(new)) = (lex(&old.sql, dialect()), lex(&new.sql, dialect())) else {
        return Err("the texts cannot be compared".to_owned());
    };
    let (old, new) = (code(&old), code(&new));
    if folded(&old) == folded(&new) {
        return Ok(());
    }
    for (text, which) in [(&old, "old"), (&new, "new")] {
        if let Some(word) = KEEPS_MORE.iter().find(|word| text.iter().any(|token| token.is_word(word))) {
            return Err(format!("the {which} text has {word}, whose state ksqlDB cannot hand on to another text"));
        }
    }
    let ((old_columns, old_from), (new_columns, new_from)) = (parts(&old), parts(&new));
    if old_from != new_from {
        return Err("its FROM has changed".to_owned());
    }
    match new_columns.starts_with(&old_columns) {
        true => Ok(()),
        false => {
            Err("its columns have changed, and only more of them, behind the old ones, keep their place".to_owned())
        }
    }
}

fn same_source(old: &[Source], new: &[Source]) -> Result<(), String> {
    for source in old {
        let Some(now) = new.iter().find(|now| now.name == source.name) else {
            return Err(format!("it no longer reads `{}`", source.name));
        };
        if now != source {
            return Err(format!("`{}` is declared in another way now", source.name));
        }
    }
    match new.iter().find(|now| !old.iter().any(|source| source.name == now.name)) {
        Some(added) => Err(format!("it reads `{}`, too", added.name)),
        None => Ok(()),
    }
}

fn code<'t, 's>(tokens: &'t [Token<'s>]) -> Vec<&'t Token<'s>> {
    tokens.iter().filter(|token| token.is_code()).collect()
}

fn folded(tokens: &[&Token<'_>]) -> Vec<String> {
    tokens.iter().map(|token| dialect().folded(token)).collect()
}

/// The columns, each in its tokens, and the FROM.
fn parts(tokens: &[&Token<'_>]) -> (Vec<Vec<String>>, Vec<String>) {
    let mut depth = 0_i32;
    let (mut columns, mut from, mut is_behind) = (vec![Vec::new()], Vec::new(), false);
    for token in tokens.iter().skip(1) {
        depth += i32::from(["(", "["].iter().any(|open| token.is_symbol(open)));
        depth -= i32::from([")", "]"].iter().any(|close| token.is_symbol(close)));
        let is_outermost = depth == 0;
        if is_outermost && !from.is_empty() && BEHIND_FROM.iter().any(|word| token.is_word(word)) {
            is_behind = true;
        }
        match () {
            () if is_behind => {}
            () if !from.is_empty() || is_outermost && token.is_word("FROM") => from.push(dialect().folded(token)),
            () if is_outermost && token.is_symbol(",") => columns.push(Vec::new()),
            () => columns.last_mut().into_iter().for_each(|column| column.push(dialect().folded(token))),
        }
    }
    (columns, from)
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
        Select { sql: format!("{sql} EMIT CHANGES"), sources: vec![source] }
    }

    #[test]
    fn a_filter_and_more_columns_keep_the_place() {
        for (old, new) in [
            ("SELECT a FROM `o`", "select A  FROM `o`"),
            ("SELECT * FROM `o`", "SELECT * FROM `o` WHERE a > 1"),
            ("SELECT a FROM `o` WHERE a > 1", "SELECT a FROM `o` WHERE b IN (1, 2)"),
            ("SELECT a FROM `o`", "SELECT a, b * 2 AS c FROM `o`"),
            ("SELECT a, COALESCE(a, b) AS c FROM `o`", "SELECT a, COALESCE(a, b) AS c, b FROM `o` WHERE a > 1"),
            ("SELECT a, COUNT(*) AS n FROM `o` GROUP BY a", "SELECT a,  COUNT(*) AS n FROM `o` GROUP BY a"),
        ] {
            assert_eq!(keeps_state(&select(old), &select(new)), Ok(()), "{old} to {new}");
        }
    }

    #[test]
    fn whatever_ksqldb_cannot_hand_on_loses_it() {
        let group = |columns: &str| format!("SELECT a, {columns} FROM `o` GROUP BY a");
        for (old, new, why) in [
            ("SELECT a, b FROM `o`", "SELECT a FROM `o`", "columns"),
            ("SELECT a, b FROM `o`", "SELECT b, a FROM `o`", "columns"),
            ("SELECT a, COALESCE(a, b) AS c FROM `o`", "SELECT a, COALESCE(b, a) AS c FROM `o`", "columns"),
            ("SELECT * FROM `o`", "SELECT a, b FROM `o`", "columns"),
            ("SELECT a FROM `o` AS O", "SELECT a FROM `o` AS P", "FROM"),
            (group("COUNT(*) AS n").as_str(), group("SUM(b) AS n").as_str(), "GROUP"),
            ("SELECT a FROM `o`", group("COUNT(*) AS n").as_str(), "the new text has GROUP"),
            ("SELECT a FROM `o` PARTITION BY b", "SELECT a FROM `o`", "the old text has PARTITION"),
            ("SELECT a FROM `o`", "SELECT a, EXPLODE(b) AS c FROM `o`", "EXPLODE"),
            ("SELECT o.a FROM `o` JOIN `o` AS p WITHIN 1 HOURS ON o.a = p.a", "SELECT o.a FROM `o`", "JOIN"),
        ] {
            let refused = keeps_state(&select(old), &select(new)).unwrap_err();
            assert!(refused.contains(why), "{old} to {new}: {refused}");
        }
    }

    #[test]
    fn another_source_is_another_place() {
        let (old, mut new) = (select("SELECT a FROM `o`"), select("SELECT a FROM `o` WHERE a > 1"));
        new.sources[0].topic = "other".to_owned();
        assert!(keeps_state(&old, &new).unwrap_err().contains("`o` is declared in another way"));
        new.sources[0].name = "p".to_owned();
        assert!(keeps_state(&old, &new).unwrap_err().contains("no longer reads `o`"));
    }
}
