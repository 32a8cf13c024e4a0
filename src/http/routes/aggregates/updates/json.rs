//! The JSON format of a merge: an object with a list of updates.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::Numbered;
use super::builder::Builder;
use super::wire::{Text, WireMerge, WireUpdate};
use crate::http::extract::explain_json;
use crate::http::problem::Problem;
use crate::http::wire::{Integer, Object};

/// Reads all updates into `builder`, and returns the number of the batch.
///
/// # Errors
/// 400 for a body of another form, and what stopped the builder.
pub(super) fn parse(bytes: &[u8], builder: &mut Builder<'_>) -> Result<Numbered, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = MergeSeed(builder).deserialize(&mut json);
    match read.and_then(|numbered| json.end().map(|()| numbered)) {
        Ok(numbered) => Ok(numbered),
        Err(_) => Err(builder.stopped.take().unwrap_or_else(|| {
            // Only a body that is refused is read again, with its path.
            explain_json::<WireMerge<'_>>(bytes)
        })),
    }
}

/// Reads the event id of an update of a body that was read before.
pub(super) fn event_id(bytes: &[u8], index: usize) -> Option<String> {
    let merge: WireMerge<'_> = serde_json::from_slice(bytes).ok()?;
    merge.updates.into_iter().nth(index)?.event_id.map(|id| id.0.into_owned())
}

/// Reads the object of the JSON format.
struct MergeSeed<'b, 'r>(&'b mut Builder<'r>);

impl<'de> DeserializeSeed<'de> for MergeSeed<'_, '_> {
    type Value = Numbered;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Numbered, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MergeSeed<'_, '_> {
    type Value = Numbered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with updates")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Numbered, A::Error> {
        let mut numbered = Numbered::default();
        let (mut updates, mut producer, mut seq) = (false, false, false);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let seen = match &*key.0 {
                "updates" => &mut updates,
                "producer" => &mut producer,
                "seq" => &mut seq,
                _ => return Err(A::Error::custom("unknown field")),
            };
            if std::mem::replace(seen, true) {
                return Err(A::Error::custom("duplicate field"));
            }
            match &*key.0 {
                "updates" => map.next_value_seed(UpdatesSeed(self.0))?,
                "producer" => numbered.producer = map.next_value()?,
                _ => numbered.seq = map.next_value::<Option<Integer>>()?.map(|seq| seq.0),
            }
        }
        if updates { Ok(numbered) } else { Err(A::Error::missing_field("updates")) }
    }
}

/// Reads the list of updates.
struct UpdatesSeed<'b, 'r>(&'b mut Builder<'r>);

impl<'de> DeserializeSeed<'de> for UpdatesSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for UpdatesSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of updates")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(update) = items.next_element::<Object<WireUpdate<'de>>>()? {
            if let Err(problem) = self.0.add(update.0, None) {
                self.0.stopped = Some(problem);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
