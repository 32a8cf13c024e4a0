//! The list of the tasks that run in the background, beside the refresher of the pages.
//!
//! Not how they are repeated: that is in [`super::tasks`]. Invariant: every task has a name of its own, under which its
//! runs are logged and counted.

use std::sync::Arc;
use std::time::Duration;

use super::tasks::Task;
use super::watch::watch_clock;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::engine::Engine;
use crate::exposition::OwnMetrics;
use crate::store::Operation;

/// How often the backend is checked for what others may have done to it.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Returns all tasks that the settings do not switch off.
pub(super) fn all(
    config: &Config,
    engine: &Arc<Engine>,
    clock: &SharedClock,
    own: &Arc<OwnMetrics>,
) -> Vec<Task> {
    let operation = &engine.operation;
    let mut tasks = vec![
        flush(config, operation),
        collect_garbage(config, operation),
        check_backend(operation),
        watch_clock(Arc::clone(clock), own),
    ];
    tasks.extend(clean_up_generations(config, engine));
    tasks
}

/// Writes buffered writes to disk.
fn flush(config: &Config, operation: &Arc<dyn Operation>) -> Task {
    let (waited_on, flushed) = (Arc::clone(operation), Arc::clone(operation));
    let flush = Task::new("flush", config.store.flush.interval, move || {
        let operation = Arc::clone(&flushed);
        async move {
            operation.flush().await?;
            Ok(())
        }
    });
    flush.or_when(move || {
        let operation = Arc::clone(&waited_on);
        async move { operation.flush_wanted().await }
    })
}

/// Purges what has expired.
fn collect_garbage(config: &Config, operation: &Arc<dyn Operation>) -> Task {
    let operation = Arc::clone(operation);
    Task::new("gc", config.store.gc.interval, move || {
        let operation = Arc::clone(&operation);
        async move {
            let removed = operation.collect_garbage().await?;
            tracing::debug!(removed, "purged expired entries");
            Ok(())
        }
    })
}

fn check_backend(operation: &Arc<dyn Operation>) -> Task {
    let (waited_on, checked) = (Arc::clone(operation), Arc::clone(operation));
    let check = Task::new("watch", WATCH_INTERVAL, move || {
        let operation = Arc::clone(&checked);
        async move {
            operation.check_backend().await?;
            Ok(())
        }
    });
    check.or_when(move || {
        let operation = Arc::clone(&waited_on);
        async move { operation.check_wanted().await }
    })
}

/// Deletes the generations that are no longer bumped; `None` when the cleanup is switched off.
fn clean_up_generations(config: &Config, engine: &Arc<Engine>) -> Option<Task> {
    let settings = &config.engine.generations;
    let (interval, retention) = (settings.cleanup_interval?, settings.retention?);
    let engine = Arc::clone(engine);
    Some(Task::new("cleanup", interval, move || {
        let engine = Arc::clone(&engine);
        async move {
            let removed = engine.generations.cleanup(retention).await?;
            tracing::debug!(removed, "deleted generations that were no longer bumped");
            Ok(())
        }
    }))
}
