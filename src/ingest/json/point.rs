//! One point as JSON: `{"name", "labels", "value", "special"?, "updated_at"?, "type"?, "help"?,
//! "unit"?}`, its members in any order.
//!
//! A member that is optional may also be null, as many generated clients write it.
//! Invariant: parsing a point fails only for invalid JSON. Any other error is recorded, and the
//! parser has consumed the whole point.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess};

use super::value::{AnyValue, ReadAny, ReadScalar, Scalar, special_of, use_special};
use crate::ingest::batch_builder::BatchBuilder;
use crate::model::Invalid;
use crate::model::batch::{MetadataIndex, Position};
use crate::model::number::parse_special;
use crate::model::series::{Metadata, MetricType, PointLimits, canonicalize, check_metric_name};
use crate::model::time::Timestamp;

type MetadataText<'de> = (MetricType, Cow<'de, str>, Cow<'de, str>);

/// Memory that is reused from point to point.
#[derive(Default)]
pub(super) struct Scratch<'de> {
    labels: Vec<(Cow<'de, str>, Cow<'de, str>)>,
    metadata: HashMap<MetadataText<'de>, MetadataIndex>,
}

/// Reads one point into the batch.
pub(super) struct PointSeed<'s, 'de> {
    pub(super) builder: &'s mut BatchBuilder,
    pub(super) scratch: &'s mut Scratch<'de>,
    pub(super) position: Position,
}

impl<'de> DeserializeSeed<'de> for PointSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // The text of this error is not shown: the caller asks the builder for the count.
        self.builder.count_point().map_err(D::Error::custom)?;
        deserializer.deserialize_any(ReadAny(self))
    }
}

impl<'de> AnyValue<'de> for PointSeed<'_, 'de> {
    type Out = ();

    fn scalar(self, scalar: Scalar<'de>) {
        self.builder.add_error(self.position, scalar.expected("a point", "an object"));
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { builder, scratch, position } = self;
        let mut members = Members::default();
        // The first error counts. The members behind it are read all the same: the parser has to get to
        // the end of the object.
        let mut first_error = None;
        scratch.labels.clear();
        while let Some(key) = map.next_key_seed(ReadAny(ReadScalar))? {
            let Scalar::Text(key) = key else { return Err(A::Error::custom("a bad key")) };
            let labels = &mut scratch.labels;
            let member = Member::parse(&key);
            let value = match member {
                Some(Member::Labels) => map.next_value_seed(ReadAny(ReadLabels { labels }))?,
                _ => Ok(map.next_value_seed(ReadAny(ReadScalar))?),
            };
            let result = value.and_then(|scalar| members.set(member, &key, scalar));
            first_error = first_error.or(result.err());
        }
        let result = match first_error {
            Some(error) => Err(error),
            None => push_point(members, builder, scratch),
        };
        if let Err(why) = result {
            builder.add_error(position, why);
        }
        Ok(())
    }
}

/// The members of a point, in the order in which [`push_point`] takes them.
#[derive(Clone, Copy)]
enum Member {
    Name,
    Labels,
    Value,
    Special,
    UpdatedAt,
    Type,
    Help,
    Unit,
}

impl Member {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "name" => Self::Name,
            "labels" => Self::Labels,
            "value" => Self::Value,
            "special" => Self::Special,
            "updated_at" => Self::UpdatedAt,
            "type" => Self::Type,
            "help" => Self::Help,
            "unit" => Self::Unit,
            _ => return None,
        })
    }
}

/// The value of each member; none occurs twice.
#[derive(Default)]
struct Members<'de>([Option<Scalar<'de>>; 8]);

impl<'de> Members<'de> {
    fn set(
        &mut self,
        member: Option<Member>,
        name: &str,
        scalar: Scalar<'de>,
    ) -> Result<(), Invalid> {
        let Some(member) = member else {
            let name: String = name.chars().take(64).collect();
            return Err(Invalid::new(format!("{name:?} is not a member of a point")));
        };
        match self.0[member as usize].replace(scalar) {
            None => Ok(()),
            Some(_) => Err(Invalid::new(format!("{name} occurs twice"))),
        }
    }
}

/// Adds the point with these members, and with the labels in `scratch`, to the batch.
fn push_point<'de>(
    members: Members<'de>,
    builder: &mut BatchBuilder,
    scratch: &mut Scratch<'de>,
) -> Result<(), Invalid> {
    let [name, _, value, special, updated_at, metric_type, help, unit] = members.0;
    let name = string(name, "name")?.ok_or_else(|| Invalid::new("a point without a name"))?;
    check_metric_name(&name, &builder.limits.point)?;
    let value = value_of(value.unwrap_or(Scalar::Null), string(special, "special")?.as_deref())?;
    let updated_at = match string(updated_at, "updated_at")? {
        Some(time) => Some(Timestamp::parse(&time)?),
        None => None,
    };
    let metadata = metadata_of(metric_type, help, unit, &builder.limits.point)?;
    let limits = &builder.limits.point;
    let batch = &mut builder.parsed.batch;
    // Equal metadata is added to the batch once.
    let metadata = metadata.map(|metadata| {
        *scratch.metadata.entry(metadata).or_insert_with_key(|(metric_type, help, unit)| {
            let (help, unit) = (help.as_ref().into(), unit.as_ref().into());
            batch.add_metadata(Metadata { metric_type: *metric_type, help, unit })
        })
    });
    batch.push_with(&name, value, updated_at, metadata, |out| {
        canonicalize(&mut scratch.labels, limits, out)
    })
}

fn string<'de>(member: Option<Scalar<'de>>, what: &str) -> Result<Option<Cow<'de, str>>, Invalid> {
    match member {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Text(text)) => Ok(Some(text)),
        Some(other) => Err(other.expected(what, "a string")),
    }
}

fn value_of(value: Scalar<'_>, special: Option<&str>) -> Result<f64, Invalid> {
    match (value, special) {
        (Scalar::Number(number), None) => Ok(number),
        (Scalar::Number(_), Some(_)) => {
            Err(Invalid::new("special is only allowed where value is null"))
        }
        (Scalar::Null, Some(special)) => {
            parse_special(special).ok_or_else(|| Invalid::new("special is one of NaN, +Inf, -Inf"))
        }
        (Scalar::Null, None) => Err(Invalid::new("a point has either a value or special")),
        (Scalar::Text(ref text), None) if let Some((word, special)) = special_of(text) => {
            Err(Invalid::new(format!("value is not {word}; {}", use_special(special))))
        }
        (other, _) => Err(other.expected("value", "a number or null")),
    }
}

/// Returns the metadata of the point's family, if the point has any.
fn metadata_of<'de>(
    metric_type: Option<Scalar<'de>>,
    help: Option<Scalar<'de>>,
    unit: Option<Scalar<'de>>,
    limits: &PointLimits,
) -> Result<Option<MetadataText<'de>>, Invalid> {
    let (word, help, unit) =
        (string(metric_type, "type")?, string(help, "help")?, string(unit, "unit")?);
    if word.is_none() && help.is_none() && unit.is_none() {
        return Ok(None);
    }
    let metric_type = match word {
        None => MetricType::Unknown,
        Some(word) => MetricType::parse(&word)?,
    };
    let (help, unit) = (help.unwrap_or_default(), unit.unwrap_or_default());
    if help.len() > limits.help_bytes {
        return Err(Invalid::new(format!("a help text of more than {} bytes", limits.help_bytes)));
    }
    if unit.len() > limits.name_bytes {
        return Err(Invalid::new(format!("a unit of more than {} bytes", limits.name_bytes)));
    }
    Ok(Some((metric_type, help, unit)))
}

/// Collects labels unchecked; [`canonicalize`] checks them.
struct ReadLabels<'s, 'de> {
    labels: &'s mut Vec<(Cow<'de, str>, Cow<'de, str>)>,
}

impl<'de> AnyValue<'de> for ReadLabels<'_, 'de> {
    type Out = Result<Scalar<'de>, Invalid>;

    fn scalar(self, scalar: Scalar<'de>) -> Self::Out {
        match scalar {
            Scalar::Null => Ok(Scalar::Null),
            other => Err(other.expected("labels", "an object")),
        }
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Out, A::Error> {
        let mut result = Ok(Scalar::Null);
        while let Some((name, value)) =
            map.next_entry_seed(ReadAny(ReadScalar), ReadAny(ReadScalar))?
        {
            match (name, value) {
                (Scalar::Text(name), Scalar::Text(value)) => self.labels.push((name, value)),
                (_, value) => result = Err(value.expected("a label's value", "a string")),
            }
        }
        Ok(result)
    }
}
