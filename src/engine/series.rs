//! The rules of series: how far ahead of the clock a point may be, and waiting for changes.
//!
//! Invariant: a batch reaches the store only when its writer and all its points have passed; the store then checks
//! the fence in the step that writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio::time::Instant;

use super::error::{EngineError, EngineResult, unfence};
use super::roles::Roles;
pub use super::roles::Writer;
use crate::clock::SharedClock;
use crate::model::batch::{PointBatch, PointError, PointErrors, Position};
use crate::model::cursor::Cursor;
use crate::model::leases::{Fence, LeaseName};
use crate::model::roles::RoleName;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::model::settings::{self, List, Settings, Violations};
use crate::store::{
    Change, DeleteOutcome, Delta, OthersSeries, SeriesStore, Snapshot, UpsertCounts, UpsertOutcome,
};

/// The most roles: a byte says which role a series has, also while the series of earlier settings live.
const MAX_ROLES: usize = 100;

/// `[series]`, as far as the rules need it: who may write series, and how.
#[derive(Debug, Clone, Deserialize)]
pub struct SeriesRules {
    /// For each role the sources that it may write.
    #[serde(deserialize_with = "guards")]
    pub guards: BTreeMap<String, Vec<String>>,
    /// The role whose writes must carry the fencing token of `leader_lease`.
    pub leader_role: String,
    /// The lease that makes a leader; `None` lets leaders write unfenced.
    #[serde(deserialize_with = "settings::optional")]
    pub leader_lease: Option<String>,
    /// How far ahead of the server's clock a point may lie.
    #[serde(deserialize_with = "settings::duration")]
    pub max_future_skew: Duration,
}

fn guards<'de, D>(deserializer: D) -> Result<BTreeMap<String, Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    let guards = BTreeMap::<String, List<String>>::deserialize(deserializer)?;
    Ok(guards.into_iter().map(|(role, sources)| (role, sources.0)).collect())
}

impl Settings for SeriesRules {
    fn check(&mut self, violations: &mut Violations) {
        violations.require(!self.guards.is_empty(), &["series.guards"], || {
            "names no role, so all writes would be refused".to_owned()
        });
        violations.require(
            self.guards.len() <= MAX_ROLES
                && self.guards.keys().all(|role| RoleName::parse(role).is_ok()),
            &["series.guards"],
            || {
                let most = RoleName::MAX_BYTES;
                format!(
                    "has more than {MAX_ROLES} roles, or one whose name has not 1 to {most} bytes"
                )
            },
        );
        let Some(lease) = &self.leader_lease else { return };
        violations.require(LeaseName::parse(lease).is_ok(), &["series.leader_lease"], || {
            "is too long for a lease's name".to_owned()
        });
        let role = self.leader_role.as_str();
        violations.require(
            self.guards.contains_key(role),
            &["series.leader_role", "series.guards"],
            || format!("{role:?} is not a role of series.guards"),
        );
    }
}

impl Default for SeriesRules {
    fn default() -> Self {
        let guard = |role: &str, source: &str| (role.to_owned(), vec![source.to_owned()]);
        Self {
            guards: [guard("leader", "leader_scrape"), guard("follower", "worker_backfill")].into(),
            leader_role: "leader".to_owned(),
            leader_lease: None,
            max_future_skew: Duration::from_secs(600),
        }
    }
}

/// The outcome of a push.
#[derive(Debug)]
pub enum PushOutcome {
    /// Every point was applied, or dropped as stale.
    Applied(UpsertCounts),
    /// Points are too far in the future; nothing was changed.
    InvalidPoints(PointErrors),
    /// Points are of series of roles whose series the writer may not change; nothing was changed.
    OthersSeries(PointErrors),
    /// The batch would create more series than there is room for; nothing was changed.
    OverBudget {
        /// How many of the batch's series are new.
        new: usize,
        /// How many more series there was room for.
        room: usize,
    },
    /// The batch would make the series larger than there is room for; nothing was changed.
    OverBytes {
        /// By how many bytes the series would grow, at most.
        more: usize,
        /// By how many bytes they may grow.
        room: usize,
    },
}

/// What changed after a cursor, as [`Delta::Changes`].
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// Each series at most once, at its newest state.
    pub changes: Vec<Change>,
    /// The cursor to go on with.
    pub next: Cursor,
    /// The newest change when they were read.
    pub head: Cursor,
    /// Whether more changes are there already.
    pub more: bool,
}

/// Series.
pub struct SeriesEngine {
    store: Arc<dyn SeriesStore>,
    roles: Arc<Roles>,
    max_future_skew: Duration,
    clock: SharedClock,
}

impl SeriesEngine {
    pub(super) fn new(
        store: Arc<dyn SeriesStore>,
        roles: Arc<Roles>,
        rules: &SeriesRules,
        clock: SharedClock,
    ) -> Self {
        Self { store, roles, max_future_skew: rules.max_future_skew, clock }
    }

    /// Returns the store, for the refresher, which needs no rules.
    pub fn store(&self) -> Arc<dyn SeriesStore> {
        Arc::clone(&self.store)
    }

    /// Applies a batch, all or nothing. `position_of` returns the position of a point in the request.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`], [`EngineError::FenceRequired`], [`EngineError::FenceRefused`], and failures of
    /// the store.
    pub async fn push(
        &self,
        batch: PointBatch,
        position_of: impl Fn(usize) -> Position,
        writer: &Writer<'_>,
        fence: Option<Fence>,
    ) -> EngineResult<PushOutcome> {
        let writer = self.roles.check_write(writer, fence)?;
        let early = self.points_too_far_ahead(&batch, &position_of);
        if !early.is_empty() {
            return Ok(PushOutcome::InvalidPoints(early));
        }
        Ok(match unfence(self.store.upsert(batch, writer).await?)? {
            UpsertOutcome::Applied(counts) => PushOutcome::Applied(counts),
            UpsertOutcome::OthersSeries(others) => {
                PushOutcome::OthersSeries(point_errors(&others, position_of))
            }
            UpsertOutcome::OverBudget { new, room } => PushOutcome::OverBudget { new, room },
            UpsertOutcome::OverBytes { more, room } => PushOutcome::OverBytes { more, room },
        })
    }

    fn points_too_far_ahead(
        &self,
        batch: &PointBatch,
        position_of: impl Fn(usize) -> Position,
    ) -> PointErrors {
        let latest = self.clock.now().saturating_add(self.max_future_skew);
        let mut errors = PointErrors::default();
        for (index, point) in batch.iter().enumerate() {
            if point.updated_at.is_some_and(|at| at > latest) {
                errors.add(position_of(index), "updated_at is too far in the future");
            }
        }
        errors
    }

    /// Reads live series, see [`SeriesStore::snapshot`].
    ///
    /// # Errors
    /// When the store fails; it never returns fewer series instead.
    pub async fn snapshot(
        &self,
        selectors: &[Selector],
        after: Option<&SeriesKey>,
        limit: usize,
    ) -> EngineResult<Snapshot> {
        Ok(self.store.snapshot(selectors, after, limit).await?)
    }

    /// Returns the cursor of now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cursor(&self) -> EngineResult<Cursor> {
        Ok(self.store.cursor().await?)
    }

    /// Reads what changed after `after`; when that is nothing, waits for up to `wait`. Returns `None` when the
    /// changes after this cursor are no longer known.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delta(
        &self,
        after: &Cursor,
        limit: usize,
        wait: Duration,
    ) -> EngineResult<Option<Changes>> {
        // Subscribed before the first read, so that no change is missed between the read and the wait.
        let mut signal = self.store.changes();
        let found = self.delta_now(after, limit).await?;
        if has_news(found.as_ref()) || wait.is_zero() {
            return Ok(found);
        }
        let deadline = Instant::now() + wait;
        loop {
            match tokio::time::timeout_at(deadline, signal.changed()).await {
                Ok(Ok(())) => {
                    let found = self.delta_now(after, limit).await?;
                    if has_news(found.as_ref()) {
                        return Ok(found);
                    }
                }
                // The store is closing, or the time is over.
                Ok(Err(_)) | Err(_) => return self.delta_now(after, limit).await,
            }
        }
    }

    async fn delta_now(&self, after: &Cursor, limit: usize) -> EngineResult<Option<Changes>> {
        self.rest_of_delta(after, None, limit).await
    }

    /// Reads what changed after `after`, without waiting, and not what changed after `up_to`: the `head` of the
    /// first part of a delta, so that the parts have no series twice. Returns `None` as [`Self::delta`].
    ///
    /// # Errors
    /// When the store fails.
    pub async fn rest_of_delta(
        &self,
        after: &Cursor,
        up_to: Option<&Cursor>,
        limit: usize,
    ) -> EngineResult<Option<Changes>> {
        Ok(match self.store.delta(after, up_to, limit).await? {
            Delta::Changes { changes, next, head, more } => {
                Some(Changes { changes, next, head, more })
            }
            Delta::Gone => None,
        })
    }

    /// Reads one series.
    ///
    /// # Errors
    /// [`EngineError::NotFound`], and failures of the store.
    pub async fn get(&self, id: SeriesId) -> EngineResult<Point> {
        self.store.get(id).await?.ok_or(EngineError::NotFound("series"))
    }

    /// Deletes one series.
    ///
    /// # Errors
    /// [`EngineError::FenceRequired`], [`EngineError::NotFound`], [`EngineError::FenceRefused`], and failures of the
    /// store.
    pub async fn delete(
        &self,
        id: SeriesId,
        bound_role: Option<&str>,
        fence: Option<Fence>,
    ) -> EngineResult<DeleteOutcome> {
        let writer = self.roles.check_delete(bound_role, fence)?;
        match unfence(self.store.delete(id, writer).await?)? {
            DeleteOutcome::Deleted(0) => Err(EngineError::NotFound("series")),
            outcome => Ok(outcome),
        }
    }

    /// Deletes what any of `selectors` matches, or with `dry_run` only counts it.
    ///
    /// # Errors
    /// [`EngineError::FenceRequired`], also in a dry run;
    /// [`EngineError::Invalid`] when there is no selector, since deleting everything must be explicit;
    /// [`EngineError::FenceRefused`], and failures of the store.
    pub async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        bound_role: Option<&str>,
        fence: Option<Fence>,
    ) -> EngineResult<DeleteOutcome> {
        let writer = self.roles.check_delete(bound_role, fence)?;
        if selectors.is_empty() {
            return Err(crate::model::Invalid::new("match must hold at least one selector").into());
        }
        unfence(self.store.delete_matching(selectors, dry_run, writer).await?)
    }
}

/// Points at the points of others' series.
fn point_errors(
    others: &OthersSeries<usize>,
    position_of: impl Fn(usize) -> Position,
) -> PointErrors {
    let error = |(index, role): &(usize, RoleName)| PointError {
        position: position_of(*index),
        detail: format!("the series was written by the role {role}"),
    };
    PointErrors { reported: others.first.iter().map(error).collect(), total: others.total }
}

/// Returns whether there is something that a waiting request must be told.
fn has_news(found: Option<&Changes>) -> bool {
    found.is_none_or(|found| !found.changes.is_empty())
}

#[cfg(test)]
mod tests;
