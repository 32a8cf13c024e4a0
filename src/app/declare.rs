//! Declares the pipelines at start.
//!
//! Invariant: nothing is merged before the declarations were compared with what is stored.

use std::time::Duration;

use crate::engine::{Engine, EngineError, EngineResult};
use crate::store::ErrorKind;

/// How long after a failure the store is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Compares the declared pipelines with what is stored. While the store is away, asks it again and again: the server
/// listens meanwhile, and is not ready.
pub(super) async fn declare_pipelines(engine: &Engine) -> EngineResult<()> {
    let mut waits = false;
    loop {
        match engine.aggregates.declare().await {
            Err(EngineError::Store(error))
                if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Timeout) =>
            {
                if !std::mem::replace(&mut waits, true) {
                    let cause = error.with_causes();
                    tracing::warn!(cause, "the pipelines can't be compared; trying again");
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            declared => return declared,
        }
    }
}
