//! The updates of a request: their times, deltas and event ids, checked against their pipeline.
//!
//! Not how they are merged, and not the format in which they came. Invariant: an update that was read says the same
//! whenever it is sent again, unless it leaves its time to the server.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::DeclaredPipeline;
use super::bucket::{When, bucket_of};
use super::content::content_of;
use crate::model::Invalid;
use crate::model::aggregates::{
    Bucket, Entity, Event, EventId, Producer, ProducerSequence, Update,
};
use crate::model::time::Timestamp;

/// An update as a request has it.
#[derive(Debug)]
pub struct NewUpdate<'a> {
    /// The entity.
    pub entity: Cow<'a, str>,
    /// The delta, in the JSON form of the pipeline's kind.
    pub delta: Value,
    /// When it happened.
    pub when: When,
    /// What identifies it.
    pub event_id: Option<Cow<'a, str>>,
    /// How long the value lives from now on.
    pub ttl: Option<Duration>,
}

/// Why an update, or the number of a batch, was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateError {
    /// A field is not valid.
    Invalid {
        /// The name of the field.
        field: &'static str,
        /// Why.
        why: Invalid,
    },
    /// It has an event id, or the batch a producer, but the pipeline remembers none.
    NoDeduplication,
}

/// Reads the updates of one request, which all have the same present.
#[derive(Clone)]
pub struct UpdateReader {
    pub(super) declared: Arc<DeclaredPipeline>,
    pub(super) now: Timestamp,
    /// The latest time that is not too far in the future.
    pub(super) latest: Timestamp,
}

impl UpdateReader {
    /// Checks an update, and reads its delta.
    ///
    /// # Errors
    /// The first field that is not valid, or [`UpdateError::NoDeduplication`].
    pub fn read(&self, new: NewUpdate<'_>) -> Result<Update, UpdateError> {
        let pipeline = self.declared.pipeline();
        let (bucket, at) = self.place(new.when)?;
        let state = pipeline.kind.delta(&new.delta, at).map_err(invalid("delta"))?;
        let event = match (&new.event_id, pipeline.dedup) {
            (None, _) => None,
            (Some(_), None) => return Err(UpdateError::NoDeduplication),
            (Some(id), Some(_)) => {
                let id = EventId::parse(pipeline.name.as_str(), id).map_err(invalid("event_id"))?;
                let content = content_of(&new.entity, new.when, new.ttl, &new.delta);
                Some(Event { id, content })
            }
        };
        let note =
            pipeline.hook.is_some().then(|| note_of(&new, bucket, pipeline.window.is_some(), at));
        let entity = Entity::parse(new.entity).map_err(invalid("entity"))?;
        Ok(Update { entity, bucket, delta: state, event, ttl: new.ttl, note })
    }

    /// Returns the bytes that an update's delta and its note take in memory.
    pub fn state_bytes(&self, update: &Update) -> usize {
        let note = update.note.as_ref().map_or(0, |note| note.len());
        self.declared.pipeline().kind.bytes(&update.delta) + note
    }

    /// Checks the number of a batch.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn sequence(&self, producer: &str, seq: i64) -> Result<ProducerSequence, UpdateError> {
        let producer = Producer::parse(producer).map_err(invalid("producer"))?;
        let seq = u64::try_from(seq)
            .map_err(|_| Invalid::new("must not be negative"))
            .map_err(invalid("seq"))?;
        match self.declared.pipeline().dedup {
            Some(_) => Ok(ProducerSequence { producer, seq }),
            None => Err(UpdateError::NoDeduplication),
        }
    }

    /// Returns the bucket of an update, and the time at which it happened. Where only its bucket is known, that is the
    /// bucket's start, so that the update means the same whenever it arrives.
    fn place(&self, when: When) -> Result<(Bucket, Timestamp), UpdateError> {
        let field = if matches!(when, When::Bucket(_)) { "bucket" } else { "at" };
        let window = self.declared.pipeline().window;
        let bucket = bucket_of(window, when, self.now).map_err(invalid(field))?;
        let at = match (when, window) {
            (When::At(at), _) => at,
            (When::Bucket(_), Some(window)) => bucket.start(window.granularity),
            (When::Now | When::Bucket(_), _) => self.now,
        };
        if at > self.latest {
            return Err(invalid(field)(Invalid::new("is too far in the future")));
        }
        Ok((bucket, at))
    }
}

/// What receivers of notes are told about an update.
#[derive(Serialize)]
struct NoteText<'a> {
    entity: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<i64>,
    at: Timestamp,
    delta: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
}

fn note_of(new: &NewUpdate<'_>, bucket: Bucket, windowed: bool, at: Timestamp) -> Arc<str> {
    let note = NoteText {
        entity: &new.entity,
        bucket: windowed.then_some(bucket.0),
        at,
        delta: &new.delta,
        event_id: new.event_id.as_deref(),
    };
    serde_json::to_string(&note).expect("texts and JSON can be written as JSON").into()
}

fn invalid(field: &'static str) -> impl Fn(Invalid) -> UpdateError {
    move |why| UpdateError::Invalid { field, why }
}
