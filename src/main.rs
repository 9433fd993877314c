//! The `talos` binary. All code is in the library.
#![forbid(unsafe_code)]

/// Fast for many small allocations from a few threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    talos::cli::run()
}
