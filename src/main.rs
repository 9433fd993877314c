//! The `talos` binary: see the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    talos::cli::run()
}
