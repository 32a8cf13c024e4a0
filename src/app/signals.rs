//! Signals: which of them stop the server, which one reloads, and which do nothing.
//!
//! Not what a stop or a reload does. Invariant: no signal ends the process without its last flush, except the second one
//! that asks for the end, those that can't be caught, and those that report a fault in the program.

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::logging::Log;

/// The exit code that shells use for a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Signals whose default is to end the process, and that ask for nothing. A write beyond the limit on file sizes
/// (SIGXFSZ) then fails with an error like any other.
const WITHOUT_EFFECT: [Number; 8] = [
    Number::USR1,
    Number::USR2,
    Number::PIPE,
    Number::XFSZ,
    Number::ALARM,
    Number::VTALARM,
    Number::PROF,
    Number::IO,
];

/// Further ones of Linux: SIGSTKFLT, which nothing sends, and the real-time signals that the C library leaves to
/// programs.
#[cfg(target_os = "linux")]
fn without_effect() -> impl Iterator<Item = i32> {
    const FIRST_REAL_TIME: i32 = if cfg!(target_env = "musl") { 35 } else { 34 };
    const LAST_REAL_TIME: i32 = 64;
    let named = WITHOUT_EFFECT.into_iter().chain([Number::STKFLT]).map(Number::as_raw);
    named.chain(FIRST_REAL_TIME..=LAST_REAL_TIME)
}

#[cfg(not(target_os = "linux"))]
fn without_effect() -> impl Iterator<Item = i32> {
    WITHOUT_EFFECT.into_iter().map(Number::as_raw)
}

/// Signals that say that the process will be ended soon: the power fails, or the limit on its processor time is
/// reached. They may come again and again, and are not the second signal that ends the process at once.
#[cfg(target_os = "linux")]
const WARNINGS: &[Number] = &[Number::XCPU, Number::POWER];
#[cfg(not(target_os = "linux"))]
const WARNINGS: &[Number] = &[Number::XCPU];

/// Signals that ask for an orderly end.
struct Ends(Signal, Signal, Signal);

/// Receives signals from now on. The first one that asks for the end or warns of it cancels `stop`. A second one that
/// asks for it ends the process at once. SIGHUP calls `reload`, which may block.
///
/// # Errors
/// When signals can't be received.
pub(super) fn receive(
    stop: CancellationToken,
    log: Log,
    reload: impl Fn() + Clone + Send + 'static,
) -> std::io::Result<()> {
    for number in without_effect() {
        // Once received, a signal never has its default effect again.
        drop(signal(SignalKind::from_raw(number))?);
    }
    for number in WARNINGS {
        let mut warning = signal(SignalKind::from_raw(number.as_raw()))?;
        let stop = stop.clone();
        tokio::spawn(async move {
            warning.recv().await;
            tracing::warn!(
                signal = number.as_raw(),
                "stopping after a warning that the process will be ended"
            );
            stop.cancel();
        });
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
