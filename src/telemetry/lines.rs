//! Log lines as text: whatever stands in it, an entry is one line, and moves no terminal.
//!
//! `tracing-subscriber` quotes what is a text to it; all else (`%`, `?`, messages) it writes as it is, and part of that may be what
//! somebody has sent. What is too long is cut where it comes from.

use std::fmt;

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, FormatFields, Writer};

/// Messages and fields as by default, escaped. Their names are not styled on a terminal: by what moves it, that is done, too.
pub(super) struct OneLine;

impl<'writer> FormatFields<'writer> for OneLine {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut escaped = Escaped(&mut writer);
        DefaultFields::new().format_fields(Writer::new(&mut escaped), fields)
    }
}

struct Escaped<'w, 'writer>(&'w mut Writer<'writer>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !text.contains(breaks) {
            return self.0.write_str(text);
        }
        for letter in text.chars() {
            match breaks(letter) {
                true => write!(self.0, "{}", letter.escape_default())?,
                false => self.0.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// Whether a letter ends a line for whoever reads it, or commands a terminal.
fn breaks(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_somebody_sends_ends_no_line_wherever_it_stands() {
        let sent = "x\r\n2026-11-30T10:00:00Z  INFO forged\u{1b}[2J\u{85}\u{2028}größer";
        for is_terminal in [false, true] {
            let written = Written::default();
            let into = written.clone();
            let subscriber = tracing_subscriber::fmt()
                .fmt_fields(OneLine)
                .without_time()
                .with_level(false)
                .with_target(false)
                .with_ansi(is_terminal)
                .with_writer(move || into.clone());
            tracing::subscriber::with_default(subscriber.finish(), || {
                let _entered = tracing::info_span!("asked", path = %sent).entered();
                tracing::info!(shown = %sent, text = sent, number = 1, "told: {sent}");
            });
            let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            let (line, rest) = line.split_once('\n').unwrap();
            assert_eq!(rest, "", "one line: {line}");
            assert_eq!(line.matches("forged").count(), 4, "{line}");
            assert_eq!(line.matches("größer").count(), 4, "{line}");
            assert_eq!(line.matches(r"x\r\n2026").count(), 4, "{line}");
            // The name of the span may be bold.
            assert!(is_terminal || !line.contains(breaks), "{line:?}");
            assert!(!line.contains("\u{1b}[2J") && !line.contains(['\u{85}', '\u{2028}', '\r']), "{line:?}");
        }
    }
}
