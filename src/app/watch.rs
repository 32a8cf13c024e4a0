//! Watches the parts that no request watches: the listener, the store, and the system's clock.
//!
//! Invariant: a part that has failed for good ends the server; a transient failure does not.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::tasks::Tasks;
use crate::clock::SharedClock;
use crate::exposition::OwnMetrics;

/// How often the system's clock is compared with this server's.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
const WARN_OFFSET_SECONDS: f64 = 1.0;

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

/// Reports how far the system's clock is off in the own metrics, and warns once when it is more than a second.
pub(super) fn watch_clock(
    tasks: &mut Tasks,
    clock: SharedClock,
    own: &Arc<OwnMetrics>,
    stop: &CancellationToken,
) {
    let own = Arc::clone(own);
    let mut was_far = false;
    tasks.every("clock", CLOCK_INTERVAL, stop.clone(), move || {
        let offset = clock.offset_seconds();
        own.clock_offset.set(offset);
        let far = offset.abs() > WARN_OFFSET_SECONDS;
        if far && !was_far {
            tracing::warn!(
                offset_seconds = offset,
                "the system's clock was changed; this server's clock follows it slowly"
            );
        }
        was_far = far;
        std::future::ready(Ok(()))
    });
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
