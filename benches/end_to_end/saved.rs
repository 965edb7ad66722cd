//! The saved result: read, compared with, written.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::arguments::Arguments;
use crate::results::Results;
use crate::results::comparison::compare;

/// Prints what changed since the saved result and saves the new one if asked to. Gives whether the run has failed.
pub fn conclude(arguments: &Arguments, now: Results) -> Result<bool> {
    let file = &arguments.results;
    let before = read(file)?;
    let mut failed = false;
    match &before {
        None => println!("\nThere is no {} to compare with; --save writes it.", file.display()),
        Some(before) => {
            let comparison = compare(before, &now);
            print!("{comparison}");
            failed = arguments.fail_on_regression && comparison.has_regressions();
        }
    }
    if arguments.save {
        let saved = now.completed_by(before.unwrap_or_default());
        let text = serde_json::to_string_pretty(&saved)? + "\n";
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        println!("\nsaved in {}", file.display());
    }
    Ok(failed)
}

fn read(file: &Path) -> Result<Option<Results>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
    };
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is not a result", file.display()))
}
