//! The rows of aggregates: values, event ids, producers, declared pipelines.
//!
//! Invariant: a value is stored in the form of its kind, with which alone it can be read.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::aggregates::{Bucket, Entity, Producer};
use crate::model::merge::State;
use crate::model::pipelines::{Pipeline, PipelineName};
use crate::model::time::SteadyTime;
use crate::store::embedded::durable::{ClaimTable, DurableTable, PagedTable, RowKey};
use crate::store::embedded::sqlite::corrupt;
use crate::store::{Limited, StoreResult};

/// The table of the values.
#[derive(Debug)]
pub(in crate::store::embedded) struct Aggregates;

/// Pipeline, entity and bucket. Sorts in this order.
pub(super) type AggregateKey = ((String, String), i64);

/// Returns the key of a value.
pub(super) fn row_key(pipeline: &Pipeline, entity: &Entity, bucket: Bucket) -> RowKey<Aggregates> {
    RowKey::of(&((pipeline.name.as_str(), entity.as_str()), bucket.0))
}

/// A value.
#[derive(Debug)]
pub(in crate::store::embedded) struct AggregateRow {
    value: Value,
    pub(super) expires_at: Option<SteadyTime>,
}

/// A value as it was read from the disk, or as it was merged. A value that is merged often is neither encoded nor
/// decoded in between, but once for each commit.
#[derive(Debug)]
enum Value {
    Stored(Box<[u8]>),
    Merged(Arc<Pipeline>, State),
}

impl AggregateRow {
    /// Makes a row of a value of the pipeline's kind.
    pub(super) fn new(
        pipeline: &Arc<Pipeline>,
        state: State,
        expires_at: Option<SteadyTime>,
    ) -> Self {
        Self { value: Value::Merged(Arc::clone(pipeline), state), expires_at }
    }

    /// Returns the value.
    ///
    /// # Errors
    /// When what is stored is not a value of the pipeline's kind.
    pub(super) fn state(&self, pipeline: &Pipeline) -> StoreResult<Cow<'_, State>> {
        match &self.value {
            Value::Merged(_, state) => Ok(Cow::Borrowed(state)),
            Value::Stored(bytes) => match pipeline.kind.decode(bytes) {
                Ok(state) => Ok(Cow::Owned(state)),
                Err(error) => Err(corrupt(format!("a value of {}: {error}", pipeline.name))),
            },
        }
    }
}

/// As JSON: the stored form in base64, and the end in nanoseconds of the steady time.
impl Serialize for AggregateRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded;
        let bytes = match &self.value {
            Value::Stored(bytes) => bytes,
            Value::Merged(pipeline, state) => {
                encoded = pipeline.kind.encode(state).map_err(S::Error::custom)?;
                &*encoded
            }
        };
        let text = AsText(Base64Display::new(bytes, &BASE64));
        (text, self.expires_at.map(SteadyTime::as_nanos)).serialize(serializer)
    }
}

struct AsText<T>(T);

impl<T: std::fmt::Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AggregateRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (text, end) = <(&str, Option<i64>)>::deserialize(deserializer)?;
        let bytes = BASE64.decode(text).map_err(serde::de::Error::custom)?;
        let expires_at = end.map(SteadyTime::from_nanos);
        Ok(Self { value: Value::Stored(bytes.into()), expires_at })
    }
}

impl PagedTable for Aggregates {
    type Key = AggregateKey;
    type Row = AggregateRow;
    const NAME: &'static str = "aggregates";
    const TAG: u8 = 6;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE aggregates (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL,
            expires_at INTEGER) STRICT, WITHOUT ROWID;
        CREATE INDEX aggregates_expiry ON aggregates (expires_at) WHERE expires_at IS NOT NULL",
    ];

    fn expires_at(row: &AggregateRow) -> Option<SteadyTime> {
        row.expires_at
    }

    fn bytes(row: &AggregateRow) -> usize {
        let value = match &row.value {
            Value::Stored(bytes) => bytes.len(),
            Value::Merged(pipeline, state) => pipeline.kind.bytes(state),
        };
        size_of::<AggregateRow>() + value
    }

    /// Reads the end alone, and not the value.
    fn end_of(row: &str) -> serde_json::Result<Option<SteadyTime>> {
        let (_, end) = serde_json::from_str::<(serde::de::IgnoredAny, Option<i64>)>(row)?;
        Ok(end.map(SteadyTime::from_nanos))
    }
}

/// The table of the event ids.
#[derive(Debug)]
pub(in crate::store::embedded) struct EventIds;

impl ClaimTable for EventIds {
    const NAME: &'static str = "event_ids";
    const TAG: u8 = 7;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE event_ids (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL,
            expires_at INTEGER) STRICT, WITHOUT ROWID;
        CREATE INDEX event_ids_expiry ON event_ids (expires_at) WHERE expires_at IS NOT NULL",
    ];
    const LIMITED: Limited = Limited::EventIds;
}

/// The table of the producers.
#[derive(Debug)]
pub(in crate::store::embedded) struct Producers {
    /// The most live producers.
    pub(in crate::store::embedded) max: usize,
}

/// The pipeline and the producer.
pub(super) type ProducerKey = (String, Producer);

/// A producer's last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::store::embedded) struct ProducerRow {
    pub(super) seq: u64,
    pub(super) expires_at: SteadyTime,
}

impl DurableTable for Producers {
    type Key = ProducerKey;
    type Row = ProducerRow;
    const NAME: &'static str = "producers";
    const TAG: u8 = 8;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE producers (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID",
    ];

    fn limit(&self) -> Option<(u64, Limited)> {
        Some((self.max as u64, Limited::Producers))
    }

    fn expires_at(&self, row: &ProducerRow) -> Option<SteadyTime> {
        Some(row.expires_at)
    }
}

/// The table of the pipelines that were declared.
#[derive(Debug)]
pub(in crate::store::embedded) struct Pipelines;

impl DurableTable for Pipelines {
    type Key = String;
    /// The signature.
    type Row = String;
    const NAME: &'static str = "pipelines";
    const TAG: u8 = 9;
    const MIGRATIONS: &'static [&'static str] = &[
        "CREATE TABLE pipelines (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)
            STRICT, WITHOUT ROWID",
    ];

    fn expires_at(&self, _: &String) -> Option<SteadyTime> {
        None
    }
}

/// Returns the key of a pipeline's signature.
pub(super) fn pipeline_key(name: &PipelineName) -> String {
    name.as_str().to_owned()
}
