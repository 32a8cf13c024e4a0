//! Watches the parts that no request watches: the listener, the store, the system's clock, the log.
//!
//! Invariant: a part that has failed for good ends the server; a transient failure does not.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::tasks::{Task, seconds};
use crate::clock::SharedClock;
use crate::exposition::OwnMetrics;

/// How often the system's clock is compared with the steady one.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// A smaller change of the system's clock is not logged.
const STEP_SECONDS: f64 = 1.0;
/// How often the dropped lines of the log are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Runs `work` to its end.
///
/// # Errors
/// Those of `work`; and at once, when the listener has ended before `stop` was cancelled, or the store has
/// failed for good.
pub(super) async fn while_healthy(
    work: impl Future<Output = anyhow::Result<()>>,
    served: &CancellationToken,
    lost: impl Future<Output = String>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let listener_ended = async {
        served.cancelled().await;
        // In a stop the listener ends first, and the work goes on to its own end.
        if stop.is_cancelled() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        worked = work => worked,
        () = listener_ended => Err(anyhow::anyhow!("the listener ended by itself")),
        why = lost => Err(anyhow::anyhow!("the store has failed for good: {why}")),
    }
}

/// Reports in the own metrics how far the system's clock was set since the start, and logs each step of more than a
/// second.
pub(super) fn watch_clock(clock: SharedClock, own: &Arc<OwnMetrics>) -> Task {
    let own = Arc::clone(own);
    let start = clock.read().offset_nanos();
    let mut last = 0.0;
    Task::new("clock", CLOCK_INTERVAL, move || {
        let offset = seconds(clock.read().offset_nanos().saturating_sub(start));
        own.clock_offset.set(offset);
        let step_seconds = offset - last;
        if step_seconds.abs() > STEP_SECONDS {
            tracing::warn!(step_seconds, "the system's clock was set");
        }
        last = offset;
        std::future::ready(Ok(()))
    })
}

/// Counts the lines that the log has dropped in the own metrics.
pub(super) fn watch_log(
    dropped_lines: impl Fn() -> u64 + Send + 'static,
    own: &Arc<OwnMetrics>,
) -> Task {
    let own = Arc::clone(own);
    Task::new("log", LOG_INTERVAL, move || {
        let new = dropped_lines().saturating_sub(own.log_dropped_lines.get());
        own.log_dropped_lines.inc_by(new);
        std::future::ready(Ok(()))
    })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_server_without_its_listener_or_its_store_ends() {
        let (served, stop) = (CancellationToken::new(), CancellationToken::new());
        let lost = ready("no disk".to_owned());
        let error = while_healthy(pending(), &served, lost, &stop).await.expect_err("it is lost");
        assert!(error.to_string().contains("no disk"), "{error}");
        served.cancel();
        let error =
            while_healthy(pending(), &served, pending(), &stop).await.expect_err("it is gone");
        assert!(error.to_string().contains("listener"), "{error}");
    }

    #[tokio::test]
    async fn a_listener_that_ends_during_a_stop_does_not_end_the_work() {
        let (served, stop) = (CancellationToken::new(), CancellationToken::new());
        stop.cancel();
        served.cancel();
        let work = async {
            tokio::task::yield_now().await;
            Ok(())
        };
        while_healthy(work, &served, pending(), &stop).await.expect("the work ends well");
    }
}
