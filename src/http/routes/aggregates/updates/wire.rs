//! An update on the wire, with the texts of the body that it came in.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::engine::aggregates::{NewUpdate, UpdateError};
use crate::http::routes::aggregates::keys::when;
use crate::http::wire::{Integer, objects};
use crate::model::time::{Timestamp, parse_ttl};

/// A text that need not be copied.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// An update, as `UpdateItem` describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireUpdate<'a> {
    #[serde(borrow)]
    entity: Text<'a>,
    delta: Value,
    #[serde(borrow)]
    at: Option<Text<'a>>,
    bucket: Option<Integer>,
    #[serde(borrow)]
    pub(super) event_id: Option<Text<'a>>,
    #[serde(borrow)]
    ttl: Option<Text<'a>>,
}

/// The JSON format as a whole. It is read like this only to say what is wrong with it, or to find an update again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireMerge<'a> {
    #[serde(borrow, deserialize_with = "objects")]
    pub(super) updates: Vec<WireUpdate<'a>>,
    #[serde(rename = "producer")]
    _producer: Option<String>,
    #[serde(rename = "seq")]
    _seq: Option<Integer>,
}

impl<'a> WireUpdate<'a> {
    /// Reads the times.
    ///
    /// # Errors
    /// The first field that is not valid.
    pub(super) fn parse(self) -> Result<NewUpdate<'a>, UpdateError> {
        let invalid = |field| move |why| UpdateError::Invalid { field, why };
        let at = self.at.map(|at| Timestamp::parse(&at.0)).transpose().map_err(invalid("at"))?;
        let ttl = self.ttl.map(|ttl| parse_ttl(&ttl.0)).transpose().map_err(invalid("ttl"))?;
        let when = when(at, self.bucket.map(|bucket| bucket.0)).map_err(invalid("bucket"))?;
        let event_id = self.event_id.map(|id| id.0);
        Ok(NewUpdate { entity: self.entity.0, delta: self.delta, when, event_id, ttl })
    }
}
