//! The `talos` binary: see the library.
#![forbid(unsafe_code)]

/// For many small answers from a few threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    talos::cli::run()
}
