//! Notices what nobody asks for: that a part of the server is gone, and that the system's clock was
//! set.
//!
//! Invariant: a part that is gone for good ends the server; trouble that may pass does not.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::background::Background;
use crate::clock::SharedClock;
use crate::exposition::OwnMetrics;

/// How often the system's clock is looked at.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
const FAR_OFF_SECONDS: f64 = 1.0;

/// Runs `work` to its end.
///
/// # Errors
/// Those of `work`; and at once, when the listener is gone though nobody said stop, or the store is.
pub(super) async fn while_whole(
    work: impl Future<Output = anyhow::Result<()>>,
    served: &CancellationToken,
    lost: impl Future<Output = String>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let deserted = async {
        served.cancelled().await;
        if stop.is_cancelled() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        worked = work => worked,
        () = deserted => Err(anyhow::anyhow!("the listener ended by itself")),
        why = lost => Err(anyhow::anyhow!("the store can't serve any more: {why}")),
    }
}

/// Shows how far the system's clock is off, and warns once when that is more than a second.
pub(super) fn watch_clock(
    background: &mut Background,
    clock: SharedClock,
    own: &Arc<OwnMetrics>,
    stop: &CancellationToken,
) {
    let own = Arc::clone(own);
    let mut was_far = false;
    background.every("clock", CLOCK_INTERVAL, stop.clone(), move || {
        let offset = clock.offset_seconds();
        own.clock_offset.set(offset);
        let far = offset.abs() > FAR_OFF_SECONDS;
        if far && !was_far {
            tracing::warn!(
                offset_seconds = offset,
                "the system's clock was set; this server's follows slowly"
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
        let error = while_whole(pending(), &served, lost, &stop).await.expect_err("it is lost");
        assert!(error.to_string().contains("no disk"), "{error}");
        served.cancel();
        let error =
            while_whole(pending(), &served, pending(), &stop).await.expect_err("it is gone");
        assert!(error.to_string().contains("listener"), "{error}");
    }

    #[tokio::test]
    async fn a_listener_that_ends_in_a_stop_does_not_cut_the_work_short() {
        let (served, stop) = (CancellationToken::new(), CancellationToken::new());
        stop.cancel();
        served.cancel();
        let work = async {
            tokio::task::yield_now().await;
            Ok(())
        };
        while_whole(work, &served, pending(), &stop).await.expect("the work ends well");
    }
}
