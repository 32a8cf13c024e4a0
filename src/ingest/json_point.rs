//! One point as JSON: `{"name", "labels", "value", "special"?, "updated_at"?, "type"?, "help"?,
//! "unit"?}`, its members in any order.
//!
//! A member that is optional may also be null, as many generated clients write it.
//! Invariant: reading a point fails only for broken JSON; whatever else is wrong is noted, and
//! the reader stands behind the point.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess};

use super::json_shape::{Scalar, ScalarShape, Shape, Shaped};
use super::sink::Sink;
use crate::model::Invalid;
use crate::model::batch::{MetadataIndex, Position};
use crate::model::series::{Metadata, MetricType, PointLimits, canonicalize, check_metric_name};
use crate::model::time::Timestamp;

type MetadataText<'de> = (MetricType, Cow<'de, str>, Cow<'de, str>);

/// What is kept from point to point.
#[derive(Default)]
pub(super) struct Scratch<'de> {
    labels: Vec<(Cow<'de, str>, Cow<'de, str>)>,
    metadata: HashMap<MetadataText<'de>, MetadataIndex>,
}

/// Reads one point into the sink.
pub(super) struct PointSeed<'s, 'de> {
    pub(super) sink: &'s mut Sink,
    pub(super) scratch: &'s mut Scratch<'de>,
    pub(super) position: Position,
}

impl<'de> DeserializeSeed<'de> for PointSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Its text reaches nobody: the sink is asked for what is wrong.
        self.sink.admit().map_err(D::Error::custom)?;
        deserializer.deserialize_any(Shaped(self))
    }
}

impl<'de> Shape<'de> for PointSeed<'_, 'de> {
    type Out = ();

    fn scalar(self, scalar: Scalar<'de>) {
        self.sink.refuse(self.position, scalar.is_not("a point", "an object"));
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { sink, scratch, position } = self;
        let mut members = Members::default();
        let mut fault = None;
        scratch.labels.clear();
        while let Some(key) = map.next_key_seed(Shaped(ScalarShape))? {
            let Scalar::Text(key) = key else { return Err(A::Error::custom("a bad key")) };
            let labels = &mut scratch.labels;
            let member = Member::parse(&key);
            let taken = match member {
                Some(Member::Labels) => map.next_value_seed(Shaped(LabelsShape { labels }))?,
                _ => Ok(map.next_value_seed(Shaped(ScalarShape))?),
            };
            let noted = taken.and_then(|scalar| members.set(member, &key, scalar));
            fault = fault.or(noted.err());
        }
        let pushed = match fault {
            Some(fault) => Err(fault),
            None => push(members, sink, scratch),
        };
        if let Err(why) = pushed {
            sink.refuse(position, why);
        }
        Ok(())
    }
}

/// The members of a point, in the order that [`push`] takes them.
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

/// What stands under each member, at most once.
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
            Some(_) => Err(Invalid::new(format!("{name} stands twice"))),
        }
    }
}

/// Builds the point of its members and of the labels in `scratch`.
fn push<'de>(
    members: Members<'de>,
    sink: &mut Sink,
    scratch: &mut Scratch<'de>,
) -> Result<(), Invalid> {
    let [name, _, value, special, updated_at, metric_type, help, unit] = members.0;
    let name = text(name, "name")?.ok_or_else(|| Invalid::new("a point without a name"))?;
    check_metric_name(&name, &sink.limits.point)?;
    let value = value_of(value.unwrap_or(Scalar::Null), text(special, "special")?.as_deref())?;
    let updated_at = match text(updated_at, "updated_at")? {
        Some(time) => Some(Timestamp::parse(&time)?),
        None => None,
    };
    let described = described(metric_type, help, unit, &sink.limits.point)?;
    let batch = &mut sink.parsed.batch;
    let metadata = described.map(|described| {
        *scratch.metadata.entry(described).or_insert_with_key(|(metric_type, help, unit)| {
            let (help, unit) = (help.as_ref().into(), unit.as_ref().into());
            batch.add_metadata(Metadata { metric_type: *metric_type, help, unit })
        })
    });
    batch.push_with(&name, value, updated_at, metadata, |out| {
        canonicalize(&mut scratch.labels, &sink.limits.point, out)
    })
}

fn text<'de>(member: Option<Scalar<'de>>, what: &str) -> Result<Option<Cow<'de, str>>, Invalid> {
    match member {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Text(text)) => Ok(Some(text)),
        Some(other) => Err(other.is_not(what, "a string")),
    }
}

fn value_of(value: Scalar<'_>, special: Option<&str>) -> Result<f64, Invalid> {
    match (value, special) {
        (Scalar::Number(number), None) => Ok(number),
        (Scalar::Number(_), Some(_)) => {
            Err(Invalid::new("special stands beside a value that is a number"))
        }
        (Scalar::Null, Some("NaN")) => Ok(f64::NAN),
        (Scalar::Null, Some("+Inf")) => Ok(f64::INFINITY),
        (Scalar::Null, Some("-Inf")) => Ok(f64::NEG_INFINITY),
        (Scalar::Null, Some(_)) => Err(Invalid::new("special is one of NaN, +Inf, -Inf")),
        (Scalar::Null, None) => Err(Invalid::new("neither a value nor special")),
        (other, _) => Err(other.is_not("value", "a number or null")),
    }
}

/// Returns what the point says about its family, if it says anything.
fn described<'de>(
    metric_type: Option<Scalar<'de>>,
    help: Option<Scalar<'de>>,
    unit: Option<Scalar<'de>>,
    limits: &PointLimits,
) -> Result<Option<MetadataText<'de>>, Invalid> {
    let (word, help, unit) = (text(metric_type, "type")?, text(help, "help")?, text(unit, "unit")?);
    if word.is_none() && help.is_none() && unit.is_none() {
        return Ok(None);
    }
    let metric_type = match word {
        None => MetricType::Unknown,
        Some(word) => MetricType::parse(&word).ok_or_else(|| {
            let word: String = word.chars().take(64).collect();
            Invalid::new(format!("{word:?} is not a metric type"))
        })?,
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

/// Collects labels as they stand; their rules are checked when they are made canonical.
struct LabelsShape<'s, 'de> {
    labels: &'s mut Vec<(Cow<'de, str>, Cow<'de, str>)>,
}

impl<'de> Shape<'de> for LabelsShape<'_, 'de> {
    type Out = Result<Scalar<'de>, Invalid>;

    fn scalar(self, scalar: Scalar<'de>) -> Self::Out {
        match scalar {
            Scalar::Null => Ok(Scalar::Null),
            other => Err(other.is_not("labels", "an object")),
        }
    }

    fn object<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Out, A::Error> {
        let mut fault = Ok(Scalar::Null);
        while let Some((name, value)) =
            map.next_entry_seed(Shaped(ScalarShape), Shaped(ScalarShape))?
        {
            match (name, value) {
                (Scalar::Text(name), Scalar::Text(value)) => self.labels.push((name, value)),
                (_, value) => fault = Err(value.is_not("a label's value", "a string")),
            }
        }
        Ok(fault)
    }
}
