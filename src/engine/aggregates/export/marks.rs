//! Which entities of an exported pipeline have changed since the export was last brought up to date.
//!
//! Invariant: a change that is visible is marked, or has been read since. What was taken comes back unless it was used.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::model::aggregates::Entity;

/// The marks of one pipeline.
#[derive(Debug)]
pub(super) struct Marks {
    marked: Mutex<Marked>,
    /// Beyond so many entities it is cheaper to read all that are exported.
    most: usize,
}

/// What is marked.
#[derive(Debug, Default)]
pub(super) struct Marked {
    pub(super) entities: HashSet<Entity>,
    /// Whether any entity may have changed.
    pub(super) all: bool,
}

impl Marks {
    /// Makes marks of `most` entities at most. All entities are marked at first.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let marked = Marked { all: true, ..Marked::default() };
        Arc::new(Self { marked: Mutex::new(marked), most })
    }

    /// Marks entities.
    pub(super) fn add(&self, entities: impl IntoIterator<Item = Entity>) {
        let mut marked = self.marked.lock();
        if marked.all {
            return;
        }
        marked.entities.extend(entities);
        if marked.entities.len() > self.most {
            *marked = Marked { all: true, ..Marked::default() };
        }
    }

    /// Marks all entities.
    pub(super) fn add_all(&self) {
        *self.marked.lock() = Marked { all: true, ..Marked::default() };
    }

    /// Takes the marks. They come back when what is returned is dropped without [`Taken::used`].
    pub(super) fn take(&self) -> Taken<'_> {
        Taken { marks: self, marked: std::mem::take(&mut *self.marked.lock()) }
    }
}

/// Marks that were taken.
pub(super) struct Taken<'a> {
    marks: &'a Marks,
    pub(super) marked: Marked,
}

impl Taken<'_> {
    /// Says that all that was marked has been read.
    pub(super) fn used(mut self) {
        self.marked = Marked::default();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let Marked { entities, all } = std::mem::take(&mut self.marked);
        match all {
            true => self.marks.add_all(),
            false => self.marks.add(entities),
        }
    }
}
