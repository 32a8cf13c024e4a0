//! The limit on the size of files (`ulimit -f`).

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

/// Lets a write beyond the limit fail, as on a full disk: without a handler, the signal that comes with it
/// ends the process, and what is not flushed is lost.
pub(super) fn survive() -> io::Result<()> {
    // The handler stays for as long as the process lives.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}
