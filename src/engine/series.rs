//! The rules of series: who may write what, how far ahead of the clock, and waiting for changes.
//!
//! Invariant: a batch reaches the store only when its writer, its fence and all its points
//! passed; the fence is then checked once more by the store, in the step that writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{EngineError, EngineResult, unfence};
use crate::clock::SharedClock;
use crate::model::batch::{PointBatch, PointErrors, Position};
use crate::model::cursor::Cursor;
use crate::model::leases::{Fence, LeaseName};
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesId, SeriesKey};
use crate::store::{Change, Delta, SeriesStore, Snapshot, UpsertCounts, UpsertOutcome};

/// Who may write series, and how.
#[derive(Debug, Clone)]
pub struct SeriesRules {
    /// For each role the sources that it may write.
    pub guards: BTreeMap<String, Vec<String>>,
    /// The role whose writes must carry the fencing token of `leader_lease`.
    pub leader_role: String,
    /// The lease that makes a leader; `None` lets leaders write unfenced.
    pub leader_lease: Option<String>,
    /// How far ahead of the server's clock a point may lie.
    pub max_future_skew: Duration,
    /// How many requests may wait for changes at a time.
    pub max_waiting: usize,
}

impl Default for SeriesRules {
    fn default() -> Self {
        let guard = |role: &str, source: &str| (role.to_owned(), vec![source.to_owned()]);
        Self {
            guards: [guard("leader", "leader_scrape"), guard("follower", "worker_backfill")].into(),
            leader_role: "leader".to_owned(),
            leader_lease: None,
            max_future_skew: Duration::from_secs(600),
            max_waiting: 20_000,
        }
    }
}

/// Who claims to write.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    /// The role that the request names.
    pub role: &'a str,
    /// The source that the request names.
    pub source: &'a str,
    /// The role that the request's access token is bound to.
    pub bound_role: Option<&'a str>,
}

/// What changed after a cursor, as [`Delta::Changes`].
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// Each series at most once, at its newest state.
    pub changes: Vec<Change>,
    /// What to ask with next.
    pub next: Cursor,
    /// More changes are there already.
    pub more: bool,
}

/// Series.
pub struct SeriesEngine {
    store: Arc<dyn SeriesStore>,
    rules: SeriesRules,
    clock: SharedClock,
    waiting: Semaphore,
}

impl SeriesEngine {
    pub(super) fn new(store: Arc<dyn SeriesStore>, rules: SeriesRules, clock: SharedClock) -> Self {
        let waiting = Semaphore::new(rules.max_waiting);
        Self { store, rules, clock, waiting }
    }

    /// Returns the store, for readers that need no rules: the refresher.
    pub fn store(&self) -> Arc<dyn SeriesStore> {
        Arc::clone(&self.store)
    }

    /// Checks whether `writer` may write, with the fence that it brings.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`] or [`EngineError::FenceRequired`].
    pub fn check_writer(&self, writer: &Writer<'_>, fence: Option<&Fence>) -> EngineResult<()> {
        let Writer { role, source, bound_role } = *writer;
        let refuse = |why: String| Err(EngineError::GuardRefused(why));
        if let Some(bound) = bound_role.filter(|bound| *bound != role) {
            return refuse(format!("this token writes as {bound:?} only"));
        }
        let Some(sources) = self.rules.guards.get(role) else {
            return refuse("the role is not known".to_owned());
        };
        if !self.rules.guards.values().flatten().any(|known| known == source) {
            return refuse("the source is not known".to_owned());
        }
        if !sources.iter().any(|allowed| allowed == source) {
            return refuse(format!("the role {role:?} may not write this source"));
        }
        if role == self.rules.leader_role { self.check_leader_fence(fence) } else { Ok(()) }
    }

    /// Checks whether a caller whose access token is bound to `bound_role` may delete series, with
    /// the fence that it brings. A token that is bound to no role is an operator's.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`] or [`EngineError::FenceRequired`].
    pub fn check_deleter(
        &self,
        bound_role: Option<&str>,
        fence: Option<&Fence>,
    ) -> EngineResult<()> {
        let Some(role) = bound_role else { return Ok(()) };
        if role != self.rules.leader_role {
            return Err(EngineError::GuardRefused(format!("the role {role:?} deletes no series")));
        }
        self.check_leader_fence(fence)
    }

    /// Checks whether a token that is bound to a role may take `lease`: the leader lease is the
    /// leader's alone, or a follower could fence the leader off.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`].
    pub fn check_candidate(&self, bound_role: Option<&str>, lease: &LeaseName) -> EngineResult<()> {
        let leads = self.rules.leader_lease.as_deref() == Some(lease.as_str());
        match bound_role {
            Some(role) if leads && role != self.rules.leader_role => {
                Err(EngineError::GuardRefused(format!("the role {role:?} may not lead")))
            }
            _ => Ok(()),
        }
    }

    fn check_leader_fence(&self, fence: Option<&Fence>) -> EngineResult<()> {
        let Some(lease) = &self.rules.leader_lease else { return Ok(()) };
        match fence {
            Some(fence) if fence.lease.as_str() == lease => Ok(()),
            _ => Err(EngineError::FenceRequired { lease: lease.clone() }),
        }
    }

    /// Applies a batch, all or nothing. `position_of` tells where in the request a point stood.
    ///
    /// # Errors
    /// As [`Self::check_writer`]; [`EngineError::InvalidPoints`] for points too far in the
    /// future; [`EngineError::FenceRefused`], [`EngineError::OverBudget`], failures of the store.
    pub async fn upsert(
        &self,
        batch: PointBatch,
        position_of: impl Fn(usize) -> Position,
        writer: &Writer<'_>,
        fence: Option<Fence>,
    ) -> EngineResult<UpsertCounts> {
        self.check_writer(writer, fence.as_ref())?;
        self.check_skew(&batch, position_of)?;
        match unfence(self.store.upsert(batch, fence).await?)? {
            UpsertOutcome::Applied(counts) => Ok(counts),
            UpsertOutcome::OverBudget { new, room } => Err(EngineError::OverBudget { new, room }),
        }
    }

    fn check_skew(
        &self,
        batch: &PointBatch,
        position_of: impl Fn(usize) -> Position,
    ) -> EngineResult<()> {
        let latest = self.clock.now().saturating_add(self.rules.max_future_skew);
        let mut errors = PointErrors::default();
        for (index, point) in batch.iter().enumerate() {
            if point.updated_at.is_some_and(|at| at > latest) {
                errors.add(position_of(index), "updated_at is too far in the future");
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(EngineError::InvalidPoints(errors)) }
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

    /// Reads what changed after `after`; when that is nothing, waits for up to `wait`.
    ///
    /// # Errors
    /// [`EngineError::CursorGone`], [`EngineError::TooManyWaiting`], failures of the store.
    pub async fn delta(
        &self,
        after: &Cursor,
        limit: usize,
        wait: Duration,
    ) -> EngineResult<Changes> {
        // Subscribed before the first look, so that no change falls in between.
        let mut signal = self.store.changes();
        let changes = self.delta_now(after, limit).await?;
        if !changes.changes.is_empty() || wait.is_zero() {
            return Ok(changes);
        }
        let _permit = self.waiting.try_acquire().map_err(|_| EngineError::TooManyWaiting)?;
        let deadline = Instant::now() + wait;
        loop {
            match tokio::time::timeout_at(deadline, signal.changed()).await {
                Ok(Ok(())) => {
                    let changes = self.delta_now(after, limit).await?;
                    if !changes.changes.is_empty() {
                        return Ok(changes);
                    }
                }
                Ok(Err(_)) | Err(_) => return self.delta_now(after, limit).await,
            }
        }
    }

    async fn delta_now(&self, after: &Cursor, limit: usize) -> EngineResult<Changes> {
        match self.store.delta(after, limit).await? {
            Delta::Changes { changes, next, more } => Ok(Changes { changes, next, more }),
            Delta::Gone => Err(EngineError::CursorGone),
        }
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
    /// As [`Self::check_deleter`]; [`EngineError::NotFound`], [`EngineError::FenceRefused`], and
    /// failures of the store.
    pub async fn delete(
        &self,
        id: SeriesId,
        bound_role: Option<&str>,
        fence: Option<Fence>,
    ) -> EngineResult<()> {
        self.check_deleter(bound_role, fence.as_ref())?;
        if unfence(self.store.delete(id, fence).await?)? {
            Ok(())
        } else {
            Err(EngineError::NotFound("series"))
        }
    }

    /// Deletes what any of `selectors` matches, or with `dry_run` only counts it.
    ///
    /// # Errors
    /// As [`Self::check_deleter`], also in a dry run;
    /// [`EngineError::Invalid`] when there is no selector: "everything" has to be said;
    /// [`EngineError::FenceRefused`], and failures of the store.
    pub async fn delete_matching(
        &self,
        selectors: &[Selector],
        dry_run: bool,
        bound_role: Option<&str>,
        fence: Option<Fence>,
    ) -> EngineResult<usize> {
        self.check_deleter(bound_role, fence.as_ref())?;
        if selectors.is_empty() {
            return Err(crate::model::Invalid::new("match must hold at least one selector").into());
        }
        unfence(self.store.delete_matching(selectors, dry_run, fence).await?)
    }
}
