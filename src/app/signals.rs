//! Signals: which of them stop the server, which one reloads, and which do nothing.
//!
//! Not what a stop or a reload does. Invariant: no signal that can be caught ends the process without its last flush,
//! except the second one that asks for the end.

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::logging::Log;

/// The exit code that shells use for a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Signals whose default is to end the process, and that ask for nothing. A write beyond the limit on file sizes
/// (SIGXFSZ) then fails with an error like any other.
const WITHOUT_EFFECT: [Number; 4] = [Number::USR1, Number::USR2, Number::PIPE, Number::XFSZ];

/// Signals that ask for an orderly end.
struct Ends(Signal, Signal, Signal);

/// Receives signals from now on. The first one that asks for the end cancels `stop`, a second one ends the process at
/// once; SIGHUP calls `reload`, which may block.
///
/// # Errors
/// When signals can't be received.
pub(super) fn receive(
    stop: CancellationToken,
    log: Log,
    reload: impl Fn() + Clone + Send + 'static,
) -> std::io::Result<()> {
    for number in WITHOUT_EFFECT {
        // Once received, a signal never has its default effect again.
        drop(signal(SignalKind::from_raw(number.as_raw()))?);
    }
    let mut hangup = signal(SignalKind::hangup())?;
    let mut ends = Ends(
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::quit())?,
    );
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // One after the other. A panic of it is logged by the hook, and nothing was reloaded.
            let _ = tokio::task::spawn_blocking(reload.clone()).await;
        }
    });
    tokio::spawn(async move {
        ends.next().await;
        tracing::info!("stopping");
        stop.cancel();
        ends.next().await;
        tracing::warn!("ending at once after a second signal");
        log.finish();
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

impl Ends {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
            _ = self.2.recv() => {}
        }
    }
}
