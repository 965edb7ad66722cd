//! Whether brackets close, and how deep they nest. Engines read them by recursion: too deep is a stack overflow there.

use super::Fault;
use super::lexer::Token;

/// Words behind which `<` opens a type.
const TYPES: [&str; 5] = ["ARRAY", "MAP", "MULTISET", "ROW", "STRUCT"];

/// Signs of which a run nests too: `- - - 1` is three expressions, one in the other.
const PREFIXES: [&str; 2] = ["-", "+"];

/// The deepest place and how deep it is; the first bracket that does not close, or closes nothing, is the fault.
pub(super) fn deepest<'t, 'a>(code: &'t [Token<'a>]) -> Result<(usize, Option<&'t Token<'a>>), Fault> {
    let mut open: Vec<&Token> = Vec::new();
    let mut run = 0;
    let mut deepest = (0, None);
    for (number, token) in code.iter().enumerate() {
        run = if token.is_word("NOT") || PREFIXES.iter().any(|sign| token.is_symbol(sign)) { run + 1 } else { 0 };
        let opens_type = token.is_symbol("<") && number > 0 && TYPES.iter().any(|word| code[number - 1].is_word(word));
        if opens_type || token.is_symbol("(") || token.is_symbol("[") || token.is_word("CASE") {
            open.push(token);
        } else if token.is_symbol(">") && open.last().is_some_and(|last| last.is_symbol("<")) {
            open.pop();
        } else if token.is_symbol(")") || token.is_symbol("]") || token.is_word("END") {
            close(&mut open, token)?;
        }
        if open.len() + run > deepest.0 {
            deepest = (open.len() + run, Some(token));
        }
    }
    match open.into_iter().find(|token| !token.is_symbol("<")) {
        Some(token) => Err(Fault::at(token, "unbalanced", format!("`{}` is not closed: close it", token.text))),
        None => Ok(deepest),
    }
}

fn close(open: &mut Vec<&Token>, token: &Token) -> Result<(), Fault> {
    // `row < 3` looks like a type and is none: nothing closes it.
    while open.last().is_some_and(|last| last.is_symbol("<")) {
        open.pop();
    }
    let opener = match token.text {
        ")" => "(",
        "]" => "[",
        _ => "CASE",
    };
    match open.pop() {
        Some(last) if last.text.eq_ignore_ascii_case(opener) => Ok(()),
        Some(last) => Err(Fault::at(
            token,
            "unbalanced",
            format!(
                "`{}` can't close `{}` of line {}, column {}: close that first",
                token.text, last.text, last.line, last.column
            ),
        )),
        None => Err(Fault::at(token, "unbalanced", format!("`{}` closes nothing: take it out", token.text))),
    }
}
