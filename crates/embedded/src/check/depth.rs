//! How deep the tree of a statement gets, by its tokens alone: before anything makes that tree, for all that walks it takes of the
//! stack at each level, its end too. Brackets are counted by the manager's gate and the parser; here it is what stands in a row,
//! `a + b + c`, of which each operator holds all that stands before it.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::Fault;

/// Most operators around one place of a statement. Each takes up to 40 KiB of the stack in a debug build: [`STACK`].
const MOST: usize = 256;
/// The stack of whoever judges a statement or runs it: only what is used is taken.
pub(crate) const STACK: usize = 32 << 20;

/// Words that are operators: their expression holds what stands before.
const OPERATORS: [&str; 16] = [
    "AND", "OR", "XOR", "NOT", "IS", "IN", "LIKE", "ILIKE", "SIMILAR", "RLIKE", "REGEXP", "BETWEEN", "COLLATE", "AT",
    "DIV", "OVERLAPS",
];
/// Likewise, of whole queries.
const OF_QUERIES: [&str; 5] = ["UNION", "EXCEPT", "INTERSECT", "MINUS", "JOIN"];
/// Words behind which another expression begins.
const BEGINS: [&str; 12] =
    ["SELECT", "FROM", "WHERE", "HAVING", "GROUP", "ORDER", "ON", "QUALIFY", "WHEN", "THEN", "ELSE", "LIMIT"];

/// Operators of one pair of brackets.
#[derive(Default)]
struct Level {
    of_expression: usize,
    of_queries: usize,
}

/// Refuses what would be too deep.
pub(super) fn check(sql: &str) -> Result<(), Fault> {
    // What is no text of tokens is the parser's to refuse.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location() else { return Ok(()) };
    let mut levels = vec![Level::default()];
    let mut depth = 0;
    for token in &tokens {
        let Some(level) = levels.last_mut() else { return Ok(()) };
        let (of_expression, of_queries) = (level.of_expression, level.of_queries);
        let word = match &token.token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            _ => String::new(),
        };
        let is_one_of = |words: &[&str]| words.contains(&word.as_str());
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(Level::default()),
            Token::RParen | Token::RBracket | Token::RBrace => {
                close(&mut levels, &mut depth);
                // `a[1][2]`: the second holds the first.
                if let Some(level) = levels.last_mut().filter(|_| token.token == Token::RBracket) {
                    level.of_expression += 1;
                    depth += 1;
                }
            }
            Token::Comma => (level.of_expression, depth) = (0, depth - of_expression),
            Token::Word(_) if word == "CASE" => levels.push(Level::default()),
            Token::Word(_) if word == "END" => close(&mut levels, &mut depth),
            Token::Word(_) if is_one_of(&BEGINS) => (level.of_expression, depth) = (0, depth - of_expression),
            Token::Word(_) if is_one_of(&OPERATORS) => (level.of_expression, depth) = (of_expression + 1, depth + 1),
            Token::Word(_) if is_one_of(&OF_QUERIES) => (level.of_queries, depth) = (of_queries + 1, depth + 1),
            Token::Word(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Whitespace(_)
            | Token::SemiColon
            | Token::EOF => {}
            // Every sign is counted, be it an operator or not.
            _ => (level.of_expression, depth) = (of_expression + 1, depth + 1),
        }
        if depth > MOST {
            let place = |of: u64| u32::try_from(of).unwrap_or(u32::MAX);
            let text = format!(
                "the expression has more than {MOST} operators up to here, each of which holds those before it: take it apart by \
                 brackets, write IN (…) for many ORs, or use several columns"
            );
            let start = token.span.start;
            return Err(Fault::at("limit_exceeded", text, place(start.line), place(start.column)));
        }
    }
    Ok(())
}

fn close(levels: &mut Vec<Level>, depth: &mut usize) {
    if levels.len() > 1
        && let Some(level) = levels.pop()
    {
        *depth -= level.of_expression + level.of_queries;
    }
}

/// Has something done with room for the deepest statement that passes; `None` where there is no thread for it. A panic goes on here.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("judge".to_owned()).stack_size(STACK).spawn_scoped(scope, work);
        Some(thread.ok()?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}
