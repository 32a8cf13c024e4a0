//! Periodic work: one plain tick, and the loop around it.
//!
//! Invariant: a tick that fails is logged and tried again after its interval; a tick that panics ends the
//! server, since otherwise the work would stop unnoticed. The time of the last tick that succeeded is a metric, so that
//! a task that was never started is noticed as well.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::exposition::OwnMetrics;
use crate::model::{FailureEvent, LastFailure};

/// A tick that takes longer is taken to hang, and is cancelled.
const TICK_TIMEOUT: Duration = Duration::from_secs(120);

/// Work that is done again and again.
pub(super) struct Task {
    name: &'static str,
    interval: Duration,
    tick: Box<dyn FnMut() -> BoxFuture<'static, anyhow::Result<()>> + Send>,
    /// Completes when the next tick should not wait for its interval.
    wanted: Box<dyn Fn() -> BoxFuture<'static, ()> + Send>,
}

impl Task {
    /// Makes a task that ticks at once and then every `interval`.
    pub(super) fn new<T>(
        name: &'static str,
        interval: Duration,
        mut tick: impl FnMut() -> T + Send + 'static,
    ) -> Self
    where
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let tick = Box::new(move || tick().boxed());
        Self { name, interval, tick, wanted: Box::new(|| std::future::pending().boxed()) }
    }

    /// Ticks also as soon as `wanted()` completes. After a tick that failed, only the interval counts, so that a
    /// failing disk is not hammered.
    pub(super) fn or_when<W>(self, wanted: impl Fn() -> W + Send + 'static) -> Self
    where
        W: Future<Output = ()> + Send + 'static,
    {
        Self { wanted: Box::new(move || wanted().boxed()), ..self }
    }
}

/// The tasks of a server.
pub(super) struct Tasks {
    running: JoinSet<()>,
    clock: SharedClock,
    own: Arc<OwnMetrics>,
}

impl Tasks {
    /// Makes a server's tasks, none so far. They report their runs in `own`.
    pub(super) fn new(clock: SharedClock, own: Arc<OwnMetrics>) -> Self {
        Self { running: JoinSet::new(), clock, own }
    }

    /// Repeats a task until `stop` is cancelled.
    pub(super) fn repeat(&mut self, mut task: Task, stop: CancellationToken) {
        let last_success = self.own.task_last_success.with_label_values(&[task.name]);
        let failures = self.own.task_failures.with_label_values(&[task.name]);
        let clock = Arc::clone(&self.clock);
        self.running.spawn(async move {
            let mut times = tokio::time::interval(task.interval);
            times.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut succeeded, mut last_failure) = (true, LastFailure::default());
            loop {
                tokio::select! {
                    // No tick begins after the stop, also where it is due.
                    biased;
                    () = stop.cancelled() => return,
                    _ = times.tick() => {}
                    () = (task.wanted)(), if succeeded => times.reset(),
                }
                let outcome = run((task.tick)()).await;
                log(task.name, &outcome, &mut last_failure);
                succeeded = outcome.is_ok();
                if succeeded {
                    last_success.set(seconds(clock.now().as_nanos()));
                } else {
                    failures.inc();
                }
            }
        });
    }

    /// Adds a task that runs until it is told to stop.
    pub(super) fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(task);
    }

    /// Waits until all tasks have ended.
    ///
    /// # Errors
    /// As soon as one of them has panicked, or has ended before `stop` was cancelled.
    pub(super) async fn until_stopped(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        while let Some(ended) = self.running.join_next().await {
            ended.map_err(|error| anyhow::anyhow!("a background task panicked: {error}"))?;
            anyhow::ensure!(stop.is_cancelled(), "a background task ended by itself");
        }
        Ok(())
    }
}

/// Runs one tick; the error is its cause in words.
async fn run(tick: impl Future<Output = anyhow::Result<()>>) -> Result<(), String> {
    match tokio::time::timeout(TICK_TIMEOUT, tick).await {
        Ok(outcome) => outcome.map_err(|error| format!("{error:#}")),
        Err(_) => Err("it took too long".to_owned()),
    }
}

/// Logs a failure when it begins, when its cause changes, and when it ends.
fn log(task: &str, outcome: &Result<(), String>, last_failure: &mut LastFailure) {
    let attempt = outcome.as_ref().map(drop).map_err(String::as_str);
    match last_failure.record(attempt) {
        Some(FailureEvent::Began) => tracing::warn!(task, cause = attempt.err(), "a tick failed"),
        Some(FailureEvent::Ended) => tracing::info!(task, "ticks succeed again"),
        None => {}
    }
}

/// Returns nanoseconds in the unit of metrics.
#[expect(clippy::cast_precision_loss, reason = "a metric needs microseconds at most")]
pub(super) fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::model::time::Timestamp;

    const INTERVAL: Duration = Duration::from_millis(1);

    fn no_tasks() -> Tasks {
        let own = OwnMetrics::register(&prometheus::Registry::new()).expect("no name twice");
        let clock = ManualClock::at(Timestamp::from_nanos(7_000_000_000));
        Tasks::new(Arc::new(clock), Arc::new(own))
    }

    #[tokio::test]
    async fn a_tick_that_fails_is_tried_again() {
        let stop = CancellationToken::new();
        let mut tasks = no_tasks();
        let own = Arc::clone(&tasks.own);
        let (mut count, done) = (0, stop.clone());
        let task = Task::new("test", INTERVAL, move || {
            count += 1;
            if count == 3 {
                done.cancel();
            }
            async { Err(anyhow::anyhow!("no luck")) }
        });
        tasks.repeat(task, stop.clone());
        assert!(tasks.until_stopped(&stop).await.is_ok());
        assert_eq!(own.task_failures.with_label_values(&["test"]).get(), 3);
        assert!(own.task_last_success.with_label_values(&["test"]).get().abs() < 1e-9);
    }

    #[tokio::test]
    async fn a_wanted_tick_does_not_wait_for_its_interval() {
        let stop = CancellationToken::new();
        let mut tasks = no_tasks();
        let own = Arc::clone(&tasks.own);
        let (mut count, done) = (0, stop.clone());
        let task = Task::new("test", INTERVAL * 3_600_000, move || {
            count += 1;
            if count == 3 {
                done.cancel();
            }
            async { Ok(()) }
        });
        tasks.repeat(task.or_when(|| std::future::ready(())), stop.clone());
        let stopped = tasks.until_stopped(&stop);
        let stopped = tokio::time::timeout(Duration::from_secs(60), stopped).await;
        assert!(stopped.expect("in time").is_ok());
        let last = own.task_last_success.with_label_values(&["test"]).get();
        assert!((last - 7.0).abs() < 1e-9, "{last}");
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_server() {
        let stop = CancellationToken::new();
        let mut tasks = no_tasks();
        tasks.repeat(Task::new("test", INTERVAL, || async { panic!("a defect") }), stop.clone());
        tasks.repeat(Task::new("other", INTERVAL, || async { Ok(()) }), stop.clone());
        let error = tasks.until_stopped(&stop).await.expect_err("it panicked");
        assert!(error.to_string().contains("a defect"), "{error}");
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_server() {
        let stop = CancellationToken::new();
        let mut tasks = no_tasks();
        tasks.run(async {});
        assert!(tasks.until_stopped(&stop).await.is_err());
    }
}
