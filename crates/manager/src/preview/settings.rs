//! What a preview may cost.

/// Bounds of all previews of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewLimits {
    /// Topics that are read at once, each counted once for all that watch its newest rows and once for each that does not.
    pub readers: usize,
    /// Who watches at once.
    pub watchers: usize,
    /// Rows that one of them is shown in a second; what is more is dropped and counted.
    pub rows_per_second: u32,
    /// Bytes of these rows.
    pub bytes_per_second: u32,
    /// Rows that are kept of a topic for those who are about to take them.
    pub kept_rows: usize,
    /// Bytes of these rows.
    pub kept_bytes: usize,
    /// The largest value that is shown, in bytes.
    pub value_bytes: usize,
}

impl Default for PreviewLimits {
    fn default() -> Self {
        PreviewLimits {
            readers: 24,
            watchers: 1_000,
            rows_per_second: 2_000,
            bytes_per_second: 4 * 1024 * 1024,
            kept_rows: 8_192,
            kept_bytes: 4 * 1024 * 1024,
            value_bytes: 256 * 1024,
        }
    }
}
