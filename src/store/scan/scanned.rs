//! What a scan reads: the series of a store in memory, which the scan's caller has locked.

use std::sync::Arc;

use super::created::CreatedLog;
use crate::model::series::SeriesKey;

/// The series of a store.
pub(in crate::store) trait Scanned {
    /// Where a series is.
    type Place: Copy;
    /// What the log of created series has of each.
    type Created;

    /// Returns the log of created series.
    fn created(&self) -> &CreatedLog<Self::Created>;

    /// As [`Self::created`].
    fn created_mut(&mut self) -> &mut CreatedLog<Self::Created>;

    /// Returns a created series that is live.
    fn find_created(&self, created: &Self::Created) -> Option<(SeriesKey, Self::Place)>;

    /// Returns the names in their order: those after a name, and that name as well where it is `included`.
    fn names_from(&self, from: Option<(&str, bool)>) -> impl Iterator<Item = &Arc<str>>;

    /// Reads series of a name in the order of their labels, after `after`; looks at no more than `limit`.
    fn read_series(
        &mut self,
        name: &str,
        after: Option<&str>,
        limit: usize,
    ) -> SeriesPiece<Self::Place>;

    /// Returns whether the series at `place` is live and has this key.
    fn is_live_as(&self, place: Self::Place, key: &SeriesKey) -> bool;
}

/// Series of one name.
#[derive(Debug)]
pub(in crate::store) struct SeriesPiece<P> {
    /// Those that are live.
    pub(in crate::store) live: Vec<(SeriesKey, P)>,
    /// How many were looked at; at least the limit where the piece is not whole for another reason.
    pub(in crate::store) looked_at: usize,
    /// The labels of the last one that was looked at.
    pub(in crate::store) last: Option<Arc<str>>,
    /// Whether others of the name follow.
    pub(in crate::store) more: bool,
}
