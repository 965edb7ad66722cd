//! First looks at a text and its tokens, before its shape is read: length, one statement, words, brackets.

use super::lexer::{Token, TokenKind};
use super::{Dialect, Fault, brackets};
use crate::settings::Limits;

/// Deeper than this is never read, whatever the settings say: the parser here is recursive too.
const DEEPEST: usize = 128;

/// Characters, before anything else is done with the text.
pub(super) fn length(text: &str, limits: &Limits) -> Result<(), Fault> {
    let most = limits.query_characters;
    if text.chars().nth(most).is_none() {
        return Ok(());
    }
    let kept: String = text.chars().take(most).collect();
    let line = 1 + kept.matches('\n').count();
    let column = 1 + kept.rsplit('\n').next().unwrap_or_default().chars().count();
    let number = |of: usize| u32::try_from(of).unwrap_or(u32::MAX);
    Err(Fault {
        code: "too_long",
        message: format!(
            "the statement has {} characters, at most {most} are taken: make it shorter",
            text.chars().count()
        ),
        line: number(line),
        column: number(column),
    })
}

/// The code of the one statement, without a `;` at its end. It begins as a query does.
pub(super) fn one_statement<'t, 'a>(code: &'t [Token<'a>], dialect: &Dialect) -> Result<&'t [Token<'a>], Fault> {
    let Some(first) = code.first() else {
        return Err(Fault {
            code: "empty",
            message: "there is no statement: write one SELECT".to_owned(),
            line: 1,
            column: 1,
        });
    };
    if !dialect.query_words.iter().any(|word| first.is_word(word)) {
        if let Some(fault) = foreign(code, 0, dialect) {
            return Err(fault);
        }
        return Err(Fault::at(
            first,
            "not_a_select",
            format!(
                "the statement begins with `{}`: only a {} can be run here",
                shown(first),
                dialect.query_words.join(" or ")
            ),
        ));
    }
    let Some(end) = code.iter().position(|token| token.is_symbol(";")) else { return Ok(code) };
    match code.get(end + 1) {
        None => Ok(&code[..end]),
        Some(next) => Err(Fault::at(
            next,
            "several_statements",
            format!("`{}` stands behind the `;` that ends the statement: send one SELECT alone", shown(next)),
        )),
    }
}

/// Blocked words, words of other statements and of other dialects, and brackets.
pub(super) fn words_and_depth(code: &[Token], dialect: &Dialect, limits: &Limits) -> Result<(), Vec<Fault>> {
    let mut faults = Vec::new();
    for at in 0..code.len() {
        faults.extend(
            blocked(code, at, limits).or_else(|| foreign(code, at, dialect)).or_else(|| statement(code, at, dialect)),
        );
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let most = limits.depth.min(DEEPEST);
    let (depth, place) = brackets::deepest(code).map_err(|fault| vec![fault])?;
    match place {
        Some(token) if depth > most => Err(vec![Fault::at(
            token,
            "too_deep",
            format!("the expression nests {depth} deep, at most {most} is taken: take it apart"),
        )]),
        _ => Ok(()),
    }
}

fn blocked(code: &[Token], at: usize, limits: &Limits) -> Option<Fault> {
    let words = limits.blocked_words.iter().find(|words| {
        let mut wanted = words.split_whitespace().peekable();
        wanted.peek().is_some()
            && wanted.enumerate().all(|(along, word)| code.get(at + along).is_some_and(|t| t.is_word(word)))
    })?;
    Some(Fault::at(
        &code[at],
        "blocked_word",
        format!("`{words}` is blocked here: take it out, or quote it if it is a column's name"),
    ))
}

fn foreign(code: &[Token], at: usize, dialect: &Dialect) -> Option<Fault> {
    let is = |token: &Token, text: &str| {
        matches!(token.kind, TokenKind::Word | TokenKind::Symbol) && token.text.eq_ignore_ascii_case(text)
    };
    let (_, code_word, message) = dialect.foreign.iter().find(|(sequence, ..)| {
        let sequence = match sequence {
            ["^", rest @ ..] if at == 0 => rest,
            _ => sequence,
        };
        sequence.iter().enumerate().all(|(along, text)| code.get(at + along).is_some_and(|token| is(token, text)))
    })?;
    Some(Fault::at(&code[at], code_word, *message))
}

fn statement(code: &[Token], at: usize, dialect: &Dialect) -> Option<Fault> {
    let token = &code[at];
    let is_call = code.get(at + 1).is_some_and(|next| next.is_symbol("("));
    let is_function =
        is_call && token.kind == TokenKind::Word && dialect.has_function(&token.text.to_ascii_uppercase());
    let is_statement = !is_function && dialect.statement_words.iter().any(|word| token.is_word(word));
    is_statement.then(|| {
        Fault::at(
            token,
            "statement_word",
            format!(
                "`{}` belongs to other statements than a SELECT: take it out, or quote it if it is a column's name",
                token.text
            ),
        )
    })
}

/// A token as messages show it: not longer than people read.
pub(super) fn shown(token: &Token) -> String {
    let short: String = token.text.chars().take(40).collect();
    if short.len() < token.text.len() { format!("{short}…") } else { short }
}
