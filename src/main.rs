//! The binary: it reads the command line and hands over.

use std::process::ExitCode;

use clap::Parser as _;
use holdall::cli::{self, Cli};

/// Frees memory back to the system, and is faster under many threads than the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(&Cli::parse())
}
