//! The messages of the JSON protocol. Pure: texts in, texts out.

/// Ends each message.
pub const SEPARATOR: char = '\u{1e}';
