//! What a preview may cost: `manager.preview.*`.

/// Bounds of all previews of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewLimits {
    /// Topics that are read at once, each counted once for all that watch its newest rows and once for each that does not.
    pub readers: usize,
    /// Those of them that one caller may have to itself.
    pub readers_per_caller: usize,
    /// Who watches at once.
    pub watchers: usize,
    /// As often one caller may watch at once.
    pub watchers_per_caller: usize,
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
            readers_per_caller: 8,
            watchers: 1_000,
            watchers_per_caller: 200,
            rows_per_second: 2_000,
            bytes_per_second: 4 * 1024 * 1024,
            kept_rows: 8_192,
            kept_bytes: 4 * 1024 * 1024,
            value_bytes: 256 * 1024,
        }
    }
}
