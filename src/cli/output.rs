//! What commands print. Standard output is often a pipe, and whoever reads it may have seen enough before the end.

use std::fmt::{Arguments, Display};
use std::io::{self, ErrorKind, Write as _};

use anyhow::{Context as _, Result};

/// Prints a line.
pub fn line(text: impl Display) -> Result<()> {
    print(format_args!("{text}\n"))
}

/// Prints a text as it is; of several lines it ends the last one itself.
pub fn text(text: impl Display) -> Result<()> {
    print(format_args!("{text}"))
}

/// Seen at once, whether a line is whole or not. Whoever has left (`| head`) is told nothing more, and that is no failure: what a
/// command has to do beside printing it does all the same, and ends with the code that this has.
fn print(text: Arguments<'_>) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
