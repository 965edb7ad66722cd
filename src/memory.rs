//! Gives memory back to the operating system once a burst of work is over.
//!
//! The allocator of glibc keeps what large batches needed, in pieces that small ones never use up.

#![allow(unsafe_code, reason = "the allocator is asked directly")]

/// Gives back what is free. Takes some milliseconds: for quiet moments.
pub fn give_back() {
    // SAFETY: `malloc_trim` takes no pointer, touches free memory only, and may be called from any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}
