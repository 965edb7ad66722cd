//! Whether a query that runs is the one that was sent. The server writes what it runs in its own way: columns qualified,
//! operations in brackets, sources named twice, line ends. So texts are compared by the tokens that say something.

use crate::gate::lexer::{Token, TokenKind, lex};

use super::statements::dialect;

/// How two SELECTs compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sameness {
    /// They say the same.
    Same,
    /// They may say the same: brackets decide, and the server puts in its own.
    Perhaps,
    /// They say something else.
    Different,
}

/// The SELECT of a `CREATE … AS SELECT …;`, as it is written there.
pub(super) fn select_of(statement: &str) -> Option<String> {
    let tokens = lex(statement, dialect()).ok()?;
    let mut depth = 0_i32;
    let begin = tokens.iter().position(|token| {
        depth += i32::from(token.is_symbol("(")) - i32::from(token.is_symbol(")"));
        depth == 0 && token.is_word("SELECT")
    })?;
    let text: String = tokens[begin..].iter().filter(|token| !token.is_symbol(";")).map(|token| token.text).collect();
    Some(text.trim().to_owned())
}

/// Compares what was sent with the statement that runs.
pub(super) fn compare(sent: &str, running: &str) -> Sameness {
    let (Some(running), Some(ours)) = (select_of(running).and_then(|text| words(&text)), words(sent)) else {
        return Sameness::Different;
    };
    match (running == ours, could_be_grouped(sent)) {
        (false, _) => Sameness::Different,
        (true, false) => Sameness::Same,
        (true, true) => Sameness::Perhaps,
    }
}

/// The tokens that say something: no brackets, no `AS`, no qualifiers, a repeated name once.
fn words(text: &str) -> Option<Vec<String>> {
    let tokens = lex(text, dialect()).ok()?;
    let code: Vec<&Token<'_>> = tokens.iter().filter(|token| token.is_code()).collect();
    let mut words: Vec<String> = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let is_name = matches!(token.kind, TokenKind::Word | TokenKind::Quoted);
        let qualifies = is_name && code.get(at + 1).is_some_and(|next| next.is_symbol("."));
        let is_silent = ["(", ")", ";", "."].iter().any(|mark| token.is_symbol(mark))
            || ["AS", "INNER", "OUTER"].iter().any(|word| token.is_word(word));
        if qualifies || is_silent {
            continue;
        }
        let word = match token.kind {
            TokenKind::Word => token.text.to_uppercase(),
            TokenKind::Quoted => token.name(),
            _ if token.is_symbol("!=") => "<>".to_owned(),
            _ => token.text.to_owned(),
        };
        // The server's names for columns that have none, and a name that is given again.
        let is_given = word.starts_with("KSQL_COL_") || is_name && words.last() == Some(&word);
        if !is_given {
            words.push(word);
        }
    }
    Some(words)
}

/// Whether brackets could group it in more than one way. The server brackets everything, so that its own say nothing.
fn could_be_grouped(text: &str) -> bool {
    let Ok(tokens) = lex(text, dialect()) else { return true };
    let code: Vec<&Token<'_>> = tokens.iter().filter(|token| token.is_code()).collect();
    let clauses = ["SELECT", "WHERE", "AND", "OR", "NOT", "IN", "BY", "HAVING", "ON", "WHEN", "THEN", "ELSE"];
    let (mut ands, mut ors, mut operations) = (0, 0, 0);
    for (at, token) in code.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| code[before]);
        let is_call = before.is_some_and(|b| b.kind == TokenKind::Word && !clauses.iter().any(|word| b.is_word(word)));
        if token.is_symbol("(") && !is_call || token.is_word("NOT") {
            return true;
        }
        ands += i32::from(token.is_word("AND"));
        ors += i32::from(token.is_word("OR"));
        // `SELECT *` and `COUNT(*)` multiply nothing.
        let is_all = before.is_none_or(|before| before.is_word("SELECT") || before.is_symbol("("));
        operations += i32::from(["+", "-", "*", "/", "%", "||"].iter().any(|mark| token.is_symbol(mark)) && !is_all);
    }
    ands > 0 && ors > 0 || operations > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_way_of_writing_is_the_same_text() {
        for (sent, running) in [
            (
                "SELECT * FROM `ORDERS` WHERE amount > 100 EMIT CHANGES",
                "CREATE STREAM V WITH (KAFKA_TOPIC='as select', PARTITIONS=1) AS SELECT *\nFROM ORDERS ORDERS\nWHERE \
                 (ORDERS.AMOUNT > 100)\nEMIT CHANGES;",
            ),
            (
                "SELECT customer, SUM(amount) AS total, COUNT(*) FROM `orders` AS `ORDERS` GROUP BY customer EMIT CHANGES",
                "CREATE TABLE V WITH (X='y') AS SELECT\n  ORDERS.CUSTOMER CUSTOMER,\n  SUM(ORDERS.AMOUNT) TOTAL,\n  COUNT(*) \
                 KSQL_COL_0\nFROM `orders` ORDERS\nGROUP BY ORDERS.CUSTOMER\nEMIT CHANGES;",
            ),
        ] {
            assert_eq!(compare(sent, running), Sameness::Same, "{sent}");
        }
    }

    #[test]
    fn another_text_is_another_text() {
        let running = "CREATE STREAM V AS SELECT *\nFROM O O\nWHERE (O.A > 100)\nEMIT CHANGES;";
        for sent in [
            "SELECT * FROM O WHERE A > 250 EMIT CHANGES",
            "SELECT A FROM O WHERE A > 100 EMIT CHANGES",
            "SELECT * FROM P WHERE A > 100 EMIT CHANGES",
            "SELECT * FROM O WHERE A > '100' EMIT CHANGES",
            "SELECT * FROM O WHERE `a` > 100 EMIT CHANGES",
        ] {
            assert_eq!(compare(sent, running), Sameness::Different, "{sent}");
        }
    }

    #[test]
    fn where_brackets_decide_it_is_not_certain() {
        for (sent, running) in [
            ("(A > 1 OR B > 2) AND C > 3", "((O.A > 1) OR ((O.B > 2) AND (O.C > 3)))"),
            ("A > 1 OR B > 2 AND C > 3", "(((O.A > 1) OR (O.B > 2)) AND (O.C > 3))"),
            ("A - B - C > 1", "((O.A - (O.B - O.C)) > 1)"),
            ("NOT A > 1 AND B > 2", "(NOT ((O.A > 1) AND (O.B > 2)))"),
        ] {
            let sent = format!("SELECT * FROM O WHERE {sent} EMIT CHANGES");
            let running = format!("CREATE STREAM V AS SELECT * FROM O O WHERE {running} EMIT CHANGES;");
            assert_eq!(compare(&sent, &running), Sameness::Perhaps, "{sent}");
        }
        let running = "CREATE STREAM V AS SELECT * FROM O O WHERE ((O.A > 1) AND (O.B > 2)) EMIT CHANGES;";
        assert_eq!(compare("SELECT * FROM O WHERE A > 1 AND B > 2 EMIT CHANGES", running), Sameness::Same);
    }
}
