//! The updates of a merge, in JSON or NDJSON: read, checked against their pipeline, and counted in bytes.
//!
//! Not how they are merged. Invariant: each update becomes what the store takes as soon as it is read, so a body with
//! many updates takes no more memory than the updates that are allowed; every invalid one is counted.

mod builder;
mod json;
mod ndjson;
mod wire;

use self::builder::Builder;
use crate::engine::aggregates::UpdateReader;
use crate::http::body::{Share, WholeBody};
use crate::http::extract::is_json;
use crate::http::problem::Problem;
use crate::model::aggregates::{ProducerSequence, Update};

/// The format of the updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpdateFormat {
    /// An object with a list of updates.
    Json,
    /// An update in each line.
    Ndjson,
}

impl UpdateFormat {
    /// Returns the format of a body from its media type.
    ///
    /// # Errors
    /// 415 for any other media type, and for none.
    pub(super) fn of(media: Option<&str>) -> Result<Self, Problem> {
        match media.unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Ndjson),
            media if is_json(media) => Ok(Self::Json),
            _ => Err(Problem::unsupported_media(
                "updates come as application/json or application/x-ndjson",
            )),
        }
    }
}

/// The number of a batch, as a query or a body has it.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    pub(super) producer: Option<String>,
    pub(super) seq: Option<i64>,
}

/// Updates that are ready for the store.
pub(super) struct ParsedUpdates {
    pub(super) updates: Vec<Update>,
    pub(super) sequence: Option<ProducerSequence>,
    pub(super) source: UpdateSource,
    /// To be kept for as long as the updates are in memory.
    pub(super) share: Share,
}

/// The body that updates came from, to point at one of them.
pub(super) struct UpdateSource {
    format: UpdateFormat,
    bytes: bytes::Bytes,
    /// The line of each update of NDJSON.
    lines: Vec<u32>,
}

impl UpdateSource {
    /// Points at an update, or at a field of it.
    pub(super) fn pointer(&self, index: usize, field: &str) -> String {
        match self.format {
            UpdateFormat::Json => format!("/updates/{index}/{field}"),
            UpdateFormat::Ndjson => format!("line {}", self.lines.get(index).unwrap_or(&0)),
        }
    }

    /// Reads the event id of an update once more: only its hash was kept.
    pub(super) fn event_id(&self, index: usize) -> Option<String> {
        match self.format {
            UpdateFormat::Json => json::event_id(&self.bytes, index),
            UpdateFormat::Ndjson => ndjson::event_id(&self.bytes, *self.lines.get(index)?),
        }
    }
}

/// Reads the updates of a body.
///
/// # Errors
/// 400 for a body that is not in its format, 413 for too many updates, 422 for updates that are not valid, 503 when
/// there are too many bytes in memory.
pub(super) fn parse_updates(
    format: UpdateFormat,
    body: WholeBody,
    query: Numbered,
    reader: &UpdateReader,
    max_updates: usize,
) -> Result<ParsedUpdates, Problem> {
    let WholeBody { bytes, share } = body;
    let mut builder = Builder::new(reader, max_updates, share, bytes.len());
    let in_body = match format {
        UpdateFormat::Json => json::parse(&bytes, &mut builder)?,
        UpdateFormat::Ndjson => {
            ndjson::parse(&bytes, &mut builder)?;
            Numbered::default()
        }
    };
    let numbered = agreed(in_body, query)?;
    builder.finish(format, bytes, numbered)
}

/// Returns what the body or the query says.
///
/// # Errors
/// 400 when both say something.
fn agreed(body: Numbered, query: Numbered) -> Result<Numbered, Problem> {
    let one = |what: &str, both: bool| match both {
        true => Err(Problem::invalid(format!("{what} is in the body and in the query"))),
        false => Ok(()),
    };
    one("producer", body.producer.is_some() && query.producer.is_some())?;
    one("seq", body.seq.is_some() && query.seq.is_some())?;
    Ok(Numbered { producer: body.producer.or(query.producer), seq: body.seq.or(query.seq) })
}
