//! From the user's tokens to what is sent: sources get their names of the catalogue, comments become spaces, EMIT CHANGES is put
//! in, and each piece remembers where it stood.

use std::ops::Range;

use super::functions::nearest;
use super::lexer::{Token, TokenKind, lex};
use super::parser::{Query, SourceUse};
use super::positions::Positions;
use super::{Catalogue, Dialect, Fault, Gated};
use crate::catalog::Source;
use crate::engines::Select;
use crate::engines::views::{VIEW_SOURCE, only_embedded};

/// What is put in the place of a token, or behind it.
#[derive(Default)]
struct Edit {
    before: Option<&'static str>,
    instead: Option<String>,
    behind: Option<String>,
}

/// Looks the sources up and writes the statement.
pub(super) fn resolve(
    tokens: &[Token],
    code: &[Token],
    query: &Query,
    dialect: &'static Dialect,
    catalogue: &dyn Catalogue,
) -> Result<Gated, Vec<Fault>> {
    let mut faults: Vec<Fault> = query.ctes.iter().filter_map(|at| shadows(&code[*at], catalogue)).collect();
    let mut edits: Vec<Edit> = code.iter().map(|_| Edit::default()).collect();
    let mut sources: Vec<Source> = Vec::new();
    for each in &query.sources {
        match edit_source(code, each, dialect, catalogue, &mut edits) {
            Ok(source) if sources.iter().any(|known| known.name == source.name) => {}
            Ok(source) => sources.push(source.clone()),
            Err(fault) => faults.push(fault),
        }
    }
    if !faults.is_empty() {
        faults.sort_by_key(|fault| (fault.line, fault.column));
        return Err(faults);
    }
    let emit = query.emit_before;
    match emit.map(|at| (at, edits.get_mut(at))) {
        Some((_, Some(edit))) => edit.before = Some("EMIT CHANGES "),
        Some((_, None)) => {
            if let Some(last) = edits.last_mut() {
                last.behind = Some(format!("{} EMIT CHANGES", last.behind.take().unwrap_or_default()));
            }
        }
        None => {}
    }
    let (sql, positions) = write(tokens, code.len(), &edits);
    let clauses =
        query.clauses.iter().map(|(clause, range)| (*clause, clause_text((code, &edits), range, dialect))).collect();
    let Some(normalized) = on_one_line(&sql, dialect).filter(|_| reads_as_meant(&sql, code, &edits, dialect)) else {
        let message =
            "the statement would be read differently once its sources have their names: put spaces between its words";
        return Err(vec![Fault::at(&code[0], "read_differently", message)]);
    };
    Ok(Gated { select: Select { sql, sources }, normalized, clauses, counts_utf16: dialect.counts_utf16, positions })
}

/// A common table expression that takes a source's name would be read in its place by some and not by others.
fn shadows(name: &Token, catalogue: &dyn Catalogue) -> Option<Fault> {
    let source = catalogue.names().into_iter().find(|source| source.eq_ignore_ascii_case(&name.name()))?;
    Some(Fault::at(
        name,
        "cte_shadows_source",
        format!("the common table expression `{}` has the name of the source `{source}`: give it another", name.name()),
    ))
}

fn edit_source<'c>(
    code: &[Token],
    each: &SourceUse,
    dialect: &Dialect,
    catalogue: &'c dyn Catalogue,
    edits: &mut [Edit],
) -> Result<&'c Source, Fault> {
    let token = &code[each.name];
    let written = dialect.folded(token);
    let source = catalogue.source(&written).ok_or_else(|| unknown(token, catalogue))?;
    let quoted = dialect.quote(&source.name).map_err(|error| Fault::at(token, "unknown_source", error.to_string()))?;
    edits[each.name].instead = Some(quoted);
    // Columns that name the source by the user's spelling must still find it.
    if let Some(at) = each.alias_after.filter(|_| written != source.name) {
        let alias = dialect.quote(&written).map_err(|error| Fault::at(token, "unknown_source", error.to_string()))?;
        edits[at].behind = Some(format!(" AS {alias}"));
    }
    Ok(source)
}

fn unknown(token: &Token, catalogue: &dyn Catalogue) -> Fault {
    let name = token.name();
    if catalogue.is_view_elsewhere(&name) {
        return Fault::at(token, VIEW_SOURCE, only_embedded(&name));
    }
    let meant = nearest(&name, catalogue.names().into_iter())
        .map_or_else(String::new, |near| format!(" (was `{near}` meant?)"));
    let short: String = name.chars().take(64).collect();
    Fault::at(
        token,
        "unknown_source",
        format!("`{short}` is no source of the catalogue{meant}: name one of GET /api/catalog"),
    )
}

/// The statement, as long as its code goes, each line where it was.
fn write(tokens: &[Token], code_length: usize, edits: &[Edit]) -> (String, Positions) {
    let mut writer = Writer::default();
    let mut number = 0;
    for token in tokens {
        if !token.is_code() {
            writer.blank(token.text);
            continue;
        }
        if number == code_length {
            break; // the `;` at the end
        }
        let edit = &edits[number];
        let place = (token.line, token.column);
        if let Some(before) = edit.before {
            writer.put_in(before, place);
        }
        match &edit.instead {
            Some(instead) => writer.put_in(instead, place),
            None => writer.keep(token.text, place),
        }
        if let Some(behind) = &edit.behind {
            writer.put_in(behind, place);
        }
        number += 1;
        if number == code_length {
            break; // comments and spaces behind the last token
        }
    }
    (writer.text, writer.positions)
}

struct Writer {
    text: String,
    positions: Positions,
    line: u32,
    column: u32,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { text: String::new(), positions: Positions::default(), line: 1, column: 1 }
    }
}

impl Writer {
    /// Spaces and comments: as many spaces, and the same line ends.
    fn blank(&mut self, text: &str) {
        for letter in text.chars().filter(|letter| *letter != '\r') {
            if letter == '\n' {
                self.text.truncate(self.text.trim_end_matches(' ').len());
                self.text.push('\n');
                self.line += 1;
                self.column = 1;
            } else {
                self.text.push(' ');
                self.column += 1;
            }
        }
    }

    fn keep(&mut self, text: &str, user: (u32, u32)) {
        let length = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        self.push(text, user, length.saturating_sub(1));
    }

    fn put_in(&mut self, text: &str, user: (u32, u32)) {
        self.push(text, user, 0);
    }

    fn push(&mut self, text: &str, user: (u32, u32), kept: u32) {
        // `orders` may become a quoted name, which would run into a quoted alias right behind it.
        let (last, next) = (self.text.chars().next_back(), text.chars().next());
        if last == next && last.is_some_and(|quote| matches!(quote, '`' | '"' | '\'')) {
            self.text.push(' ');
            self.column += 1;
        }
        self.positions.add((self.line, self.column), user, kept);
        self.text.push_str(text);
        self.column += u32::try_from(text.chars().count()).unwrap_or_default();
    }
}

/// Whether what was written is read again as the tokens that it was written from.
fn reads_as_meant(sql: &str, code: &[Token], edits: &[Edit], dialect: &Dialect) -> bool {
    let mut meant = String::new();
    for (token, edit) in code.iter().zip(edits) {
        let token = edit.instead.as_deref().unwrap_or(token.text);
        for piece in [edit.before, Some(token), edit.behind.as_deref()].into_iter().flatten() {
            meant.push_str(piece);
            meant.push(' ');
        }
    }
    let words = |text: &str| -> Option<Vec<(TokenKind, String)>> {
        let tokens = lex(text, dialect).ok()?;
        Some(
            tokens
                .iter()
                .filter(|token| token.kind != TokenKind::Space)
                .map(|token| (token.kind, token.text.to_owned()))
                .collect(),
        )
    };
    words(sql).is_some_and(|read| words(&meant) == Some(read))
}

/// Tokens with one space where there was any.
fn on_one_line(sql: &str, dialect: &Dialect) -> Option<String> {
    let mut line = String::new();
    for token in lex(sql, dialect).ok()? {
        match token.kind {
            TokenKind::Space if line.is_empty() || line.ends_with(' ') => {}
            TokenKind::Space => line.push(' '),
            _ => line.push_str(token.text),
        }
    }
    Some(line)
}

fn clause_text((code, edits): (&[Token], &[Edit]), range: &Range<usize>, dialect: &Dialect) -> String {
    let words: Vec<String> =
        range.clone().map(|at| edits[at].instead.clone().unwrap_or_else(|| dialect.folded(&code[at]))).collect();
    words.join(" ")
}
