//! Arguments in, command run, exit code out.

use std::process::ExitCode;

// Long-lived connections come in thousands and go in thousands; jemalloc gives back what they
// leave behind (measured in bench/README.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    steadfast::cli::main()
}
