//! Whether a query that runs is the one that was sent. The server writes what it runs in its own way: columns qualified,
//! operations in brackets, sources named twice, line ends. So texts are compared by the tokens that say something.

use crate::gate::lexer::{Token, TokenKind, lex};

use super::statements::dialect;

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

/// Whether what was sent is certainly what runs. Where brackets or qualifiers decide that it says no: the server puts in its
/// own.
pub(super) fn is_same(sent: &str, running: &str) -> bool {
    let Some(running) = select_of(running) else { return false };
    // With more than one source a name means what its qualifier says.
    let qualified = !reads_one_source(sent) || !reads_one_source(&running);
    let (ours, theirs) = (words(sent, qualified), words(&running, qualified));
    ours.is_some() && ours == theirs && !could_be_grouped(sent)
}

fn reads_one_source(text: &str) -> bool {
    lex(text, dialect()).is_ok_and(|tokens| !tokens.iter().any(|token| token.is_word("JOIN")))
}

/// Whether a bracket is a call's, and not one that groups: it stands behind a name.
fn is_call(before: Option<&Token<'_>>) -> bool {
    const CLAUSES: [&str; 18] = [
        "SELECT", "WHERE", "AND", "OR", "NOT", "IN", "BY", "HAVING", "ON", "WHEN", "THEN", "ELSE", "CASE", "LIKE",
        "BETWEEN", "FROM", "ESCAPE", "IS",
    ];
    before.is_some_and(|b| b.kind == TokenKind::Word && !CLAUSES.iter().any(|word| b.is_word(word)))
}

/// The tokens that say something: no brackets but those of calls, no `AS`, a repeated name once; qualifiers if they are
/// asked for.
fn words(text: &str, qualified: bool) -> Option<Vec<String>> {
    let tokens = lex(text, dialect()).ok()?;
    let code: Vec<&Token<'_>> = tokens.iter().filter(|token| token.is_code()).collect();
    let (mut words, mut calls): (Vec<String>, Vec<bool>) = (Vec::new(), Vec::new());
    for (at, token) in code.iter().enumerate() {
        let is_name = matches!(token.kind, TokenKind::Word | TokenKind::Quoted);
        let qualifies = !qualified && is_name && code.get(at + 1).is_some_and(|next| next.is_symbol("."));
        let of_call = match token.text {
            "(" => {
                calls.push(is_call(at.checked_sub(1).map(|before| code[before])));
                calls.last().copied()
            }
            ")" => Some(calls.pop()?),
            _ => None,
        };
        let is_silent = of_call == Some(false)
            || token.is_symbol(";")
            || token.is_symbol(".") && !qualified
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
    let (mut ands, mut ors, mut operations) = (0, 0, 0);
    for (at, token) in code.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| code[before]);
        // A name as the server gives them says nothing of the column that it stands for.
        let is_given = token.name().to_uppercase().starts_with("KSQL_COL_");
        if token.is_symbol("(") && !is_call(before) || token.is_word("NOT") || is_given {
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
            assert!(is_same(sent, running), "{sent}");
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
            assert!(!is_same(sent, running), "{sent}");
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
            assert!(!is_same(&sent, &running), "{sent}");
        }
        let running = "CREATE STREAM V AS SELECT * FROM O O WHERE ((O.A > 1) AND (O.B > 2)) EMIT CHANGES;";
        assert!(is_same("SELECT * FROM O WHERE A > 1 AND B > 2 EMIT CHANGES", running));
    }

    #[test]
    fn brackets_of_calls_and_qualifiers_of_joins_say_something() {
        let of = |columns: &str| format!("CREATE STREAM V AS SELECT {columns} FROM O O EMIT CHANGES;");
        let running = of("(ROUND(O.PRICE) * O.QTY) N");
        assert!(is_same("SELECT ROUND(price) * qty AS n FROM O EMIT CHANGES", &running));
        assert!(!is_same("SELECT ROUND(price * qty) AS n FROM O EMIT CHANGES", &running));

        let text = |filter: &str| {
            format!(
                "SELECT o.id AS id FROM O AS O JOIN C AS C WITHIN 1 HOURS ON o.id = c.id WHERE {filter} EMIT CHANGES"
            )
        };
        let running = "CREATE STREAM V AS SELECT O.ID ID FROM O O INNER JOIN C C WITHIN 1 HOURS ON ((O.ID = C.ID)) WHERE \
                       (C.AMOUNT > 100) EMIT CHANGES;";
        assert!(is_same(&text("c.amount > 100"), running));
        assert!(!is_same(&text("o.amount > 100"), running));
    }
}
