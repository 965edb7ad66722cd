//! The `streamview` binary.

/// Of all that allocates here, C libraries too.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas, since what is free in one is of no use to the others; what is free goes back to the system within a second, by a
/// thread of the allocator's own. `MALLOC_CONF` in the environment has the last word.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "jemalloc looks for its settings under this name")]
// SAFETY: nothing else has the name, and jemalloc reads what is here as a pointer to a C string.
#[unsafe(export_name = "malloc_conf")]
pub static SETTINGS: &[u8; 79] = b"narenas:4,dirty_decay_ms:500,muzzy_decay_ms:0,background_thread:true,thp:never\0";

fn main() {
    std::process::exit(streamview::cli::main());
}
