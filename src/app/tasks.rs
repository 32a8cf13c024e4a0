//! Periodic work: one plain tick, and the loop around it.
//!
//! Invariant: a tick that fails is logged and tried again after its interval; a tick that panics ends the
//! server, since otherwise the work would stop unnoticed.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// A tick that takes longer is taken to hang, and is cancelled.
const TICK_TIMEOUT: Duration = Duration::from_secs(120);

/// The tasks of a server.
#[derive(Default)]
pub(super) struct Tasks(JoinSet<()>);

impl Tasks {
    /// Ticks at once and then every `interval`, until `stop` is cancelled.
    pub(super) fn every<T>(
        &mut self,
        name: &'static str,
        interval: Duration,
        stop: CancellationToken,
        tick: impl FnMut() -> T + Send + 'static,
    ) where
        T: Future<Output = anyhow::Result<()>> + Send,
    {
        self.every_or_when(name, interval, std::future::pending, stop, tick);
    }

    /// Ticks at once and then every `interval`, or as soon as `wanted()` completes. After a tick that failed,
    /// only the interval counts, so that a failing disk is not hammered.
    pub(super) fn every_or_when<W, T>(
        &mut self,
        name: &'static str,
        interval: Duration,
        wanted: impl Fn() -> W + Send + 'static,
        stop: CancellationToken,
        mut tick: impl FnMut() -> T + Send + 'static,
    ) where
        W: Future<Output = ()> + Send,
        T: Future<Output = anyhow::Result<()>> + Send,
    {
        self.0.spawn(async move {
            let mut times = tokio::time::interval(interval);
            times.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut succeeded = true;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = times.tick() => {}
                    () = wanted(), if succeeded => times.reset(),
                }
                succeeded = succeeds(name, tick()).await;
            }
        });
    }

    /// Adds a task that runs until it is told to stop.
    pub(super) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(task);
    }

    /// Waits until all tasks have ended.
    ///
    /// # Errors
    /// As soon as one of them has panicked, or has ended before `stop` was cancelled.
    pub(super) async fn until_stopped(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        while let Some(ended) = self.0.join_next().await {
            ended.map_err(|error| anyhow::anyhow!("a background task panicked: {error}"))?;
            anyhow::ensure!(stop.is_cancelled(), "a background task ended by itself");
        }
        Ok(())
    }
}

async fn succeeds(name: &str, tick: impl Future<Output = anyhow::Result<()>>) -> bool {
    match tokio::time::timeout(TICK_TIMEOUT, tick).await {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => {
            tracing::warn!(task = name, cause = %format!("{error:#}"), "a tick failed");
        }
        Err(_) => tracing::warn!(task = name, "a tick took too long"),
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn a_tick_that_fails_is_tried_again() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::default();
        let (mut count, done) = (0, stop.clone());
        tasks.every("test", INTERVAL, stop.clone(), move || {
            count += 1;
            if count == 3 {
                done.cancel();
            }
            async { Err(anyhow::anyhow!("no luck")) }
        });
        assert!(tasks.until_stopped(&stop).await.is_ok());
    }

    #[tokio::test]
    async fn a_wanted_tick_does_not_wait_for_its_interval() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::default();
        let (mut count, done) = (0, stop.clone());
        let wanted = || std::future::ready(());
        tasks.every_or_when("test", INTERVAL * 3_600_000, wanted, stop.clone(), move || {
            count += 1;
            if count == 3 {
                done.cancel();
            }
            async { Ok(()) }
        });
        let stopped = tasks.until_stopped(&stop);
        let stopped = tokio::time::timeout(Duration::from_secs(60), stopped).await;
        assert!(stopped.expect("in time").is_ok());
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_server() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::default();
        tasks.every("test", INTERVAL, stop.clone(), || async { panic!("a defect") });
        tasks.every("other", INTERVAL, stop.clone(), || async { Ok(()) });
        let error = tasks.until_stopped(&stop).await.expect_err("it panicked");
        assert!(error.to_string().contains("a defect"), "{error}");
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_server() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::default();
        tasks.run(async {});
        assert!(tasks.until_stopped(&stop).await.is_err());
    }
}
