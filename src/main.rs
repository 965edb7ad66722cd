//! The `streamview` binary.

fn main() {
    std::process::exit(streamview::cli::main());
}
