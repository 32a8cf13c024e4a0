//! Starts the measurements beside the peers: `make bench`.
//!
//! The work is done by the Python driver in `benches/peers`, which starts every server, the
//! measured one and its peers, on the loopback and compares them in one run. This file only gives
//! it the binary that cargo has just built with the profile of a release, so that the figures can
//! never belong to an older build.

use std::path::Path;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/run.py");
    // cargo adds `--bench` for harnesses of its own; the driver has no use for it.
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let status = Command::new("python3")
        .arg(driver)
        .args(["--holdall", env!("CARGO_BIN_EXE_holdall")])
        .args(arguments)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("python3 can't be started: {error}");
            ExitCode::FAILURE
        }
    }
}
