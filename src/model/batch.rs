//! A batch of points that was parsed and not applied yet.
//!
//! Parsers of every input format fill the same [`PointBatch`]. Its texts are in one buffer, so that a
//! push of a million points needs a handful of allocations.
//! Invariant: every name is a metric name, and all labels are canonical.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::series::{Metadata, MetricType, Sample};
use super::time::Timestamp;

/// Points that were parsed from one request, in their order.
#[derive(Debug, Default)]
pub struct PointBatch {
    text: String,
    items: Vec<Item>,
    metadata: Vec<Metadata>,
}

#[derive(Debug)]
struct Item {
    start: usize,
    name_bytes: u32,
    labels_bytes: u32,
    metadata: u32,
    value: f64,
    updated_at: Option<Timestamp>,
}

const NO_METADATA: u32 = u32::MAX;

/// The index of an entry in the metadata of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataIndex(u32);

/// One point of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchPoint<'a> {
    /// The metric name.
    pub name: &'a str,
    /// The canonical labels.
    pub labels: &'a str,
    /// The value.
    pub value: f64,
    /// When the value was taken; `None` means on arrival.
    pub updated_at: Option<Timestamp>,
    /// The metadata of its family, as an index into [`PointBatch::metadata`].
    pub metadata: Option<usize>,
}

impl BatchPoint<'_> {
    /// Returns the sample; its time is `now` if the writer gave none.
    pub fn sample(&self, now: Timestamp) -> Sample {
        Sample { value: self.value, updated_at: self.updated_at.unwrap_or(now) }
    }
}

impl PointBatch {
    /// Makes an empty batch with room for about `text_bytes` of names and labels.
    pub fn with_capacity(text_bytes: usize) -> Self {
        Self { text: String::with_capacity(text_bytes), ..Self::default() }
    }

    /// Adds the metadata of a family, once for all its points.
    pub fn add_metadata(&mut self, metadata: Metadata) -> MetadataIndex {
        let index = u32::try_from(self.metadata.len()).unwrap_or(NO_METADATA);
        self.metadata.push(metadata);
        MetadataIndex(index)
    }

    /// Sets the help text of metadata, for a format in which it may follow the family's points.
    pub fn set_help(&mut self, index: MetadataIndex, help: Arc<str>) {
        if let Some(metadata) = self.metadata.get_mut(index.0 as usize) {
            metadata.help = help;
        }
    }

    /// Sets the type of metadata that was added before.
    pub fn set_type(&mut self, index: MetadataIndex, metric_type: MetricType) {
        if let Some(metadata) = self.metadata.get_mut(index.0 as usize) {
            metadata.metric_type = metric_type;
        }
    }

    /// Adds a point whose labels are known to be canonical.
    pub fn push(
        &mut self,
        name: &str,
        canonical_labels: &str,
        value: f64,
        updated_at: Option<Timestamp>,
        metadata: Option<MetadataIndex>,
    ) {
        let start = self.text.len();
        self.text.push_str(name);
        self.text.push_str(canonical_labels);
        self.end_point(start..start + name.len(), value, updated_at, metadata);
    }

    /// Adds a point whose labels `write_labels` writes into the batch's buffer.
    ///
    /// # Errors
    /// The error of `write_labels`; the batch is then unchanged.
    pub fn push_with<E>(
        &mut self,
        name: &str,
        value: f64,
        updated_at: Option<Timestamp>,
        metadata: Option<MetadataIndex>,
        write_labels: impl FnOnce(&mut String) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.text.len();
        self.text.push_str(name);
        if let Err(error) = write_labels(&mut self.text) {
            self.text.truncate(start);
            return Err(error);
        }
        self.end_point(start..start + name.len(), value, updated_at, metadata);
        Ok(())
    }

    /// Adds the item of a point whose name and labels are at the end of the text.
    fn end_point(
        &mut self,
        name: Range<usize>,
        value: f64,
        updated_at: Option<Timestamp>,
        metadata: Option<MetadataIndex>,
    ) {
        let bytes = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.items.push(Item {
            start: name.start,
            name_bytes: bytes(name.len()),
            labels_bytes: bytes(self.text.len() - name.end),
            metadata: metadata.map_or(NO_METADATA, |m| m.0),
            value: if value.is_nan() { f64::NAN } else { value },
            updated_at,
        });
    }

    /// Returns the number of points.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether there is no point.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Iterates over the points in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = BatchPoint<'_>> {
        self.items.iter().map(|item| {
            let name_end = item.start + item.name_bytes as usize;
            BatchPoint {
                name: &self.text[item.start..name_end],
                labels: &self.text[name_end..name_end + item.labels_bytes as usize],
                value: item.value,
                updated_at: item.updated_at,
                metadata: (item.metadata != NO_METADATA).then_some(item.metadata as usize),
            }
        })
    }

    /// Returns the metadata that points refer to by index.
    pub fn metadata(&self) -> &[Metadata] {
        &self.metadata
    }
}

/// The position of a point in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The point with this index of a JSON array, from 0.
    Index(usize),
    /// The line with this number of a text body, from 1.
    Line(usize),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "/points/{index}"),
            Self::Line(line) => write!(f, "line {line}"),
        }
    }
}

/// One point that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointError {
    /// Its position.
    pub position: Position,
    /// The reason, for its writer.
    pub detail: String,
}

/// Every point of a batch that was refused.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PointErrors {
    /// The first errors, at most [`PointErrors::REPORTED`].
    pub reported: Vec<PointError>,
    /// The number of all errors.
    pub total: usize,
}

impl PointErrors {
    /// The most errors that are reported one by one.
    pub const REPORTED: usize = 100;

    /// Adds an error.
    pub fn add(&mut self, position: Position, detail: impl Into<String>) {
        self.total += 1;
        if self.reported.len() < Self::REPORTED {
            self.reported.push(PointError { position, detail: detail.into() });
        }
    }

    /// Returns whether no point was refused.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}
