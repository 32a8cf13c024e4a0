//! Quantiles with a relative accuracy: DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019).
//!
//! Not the library of that name, whose bins collapse silently and depending on the order of values. Here the values that
//! were collapsed are counted. Invariant: a sketch is a function of the values that it has seen, whatever their order, so
//! merges are exactly a monoid; also the sum of the values is exact.

mod bins;
mod summary;

use serde_json::{Map, Value, json};

pub(super) use self::bins::Scale;

use self::summary::Summary;
use super::codec::Reader;
use super::{
    DecodeError, Invalid, MergeError, MetricSample, MetricType, Monoid, OtherKind, Timestamp,
    number, sketch, tag,
};

/// The version of an exported sketch; its first byte.
const EXPORT_VERSION: u8 = 1;

/// Quantiles of floats.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantiles {
    pub(super) scale: Scale,
    /// Which quantiles a value shows, from 0 to 1.
    pub(super) shown: Vec<f64>,
}

impl Quantiles {
    fn add(summary: &mut Summary, scale: &Scale, json: &Value) -> Result<(), Invalid> {
        let value = number::float(json)?;
        if !value.is_finite() {
            return Err(Invalid::new("a value must be finite, or there is no rank for it"));
        }
        summary
            .add(scale, value)
            .map_err(|_| Invalid::new("the sum of the values does not fit into a 64-bit float"))
    }

    /// What an exported sketch begins with: the values behind it mean nothing with other parameters.
    fn export_header(&self) -> Vec<u8> {
        let mut header = vec![EXPORT_VERSION];
        self.write_header(&mut header);
        header
    }
}

impl Monoid for Quantiles {
    type State = Box<Summary>;

    fn write_header(&self, out: &mut Vec<u8>) {
        out.push(tag::QUANTILES);
        out.extend(self.scale.accuracy().to_le_bytes());
        out.extend(self.scale.max_bins().to_le_bytes());
    }

    fn signature(&self) -> String {
        let (accuracy, bins) = (self.scale.accuracy(), self.scale.max_bins());
        format!("quantiles(relative_accuracy={accuracy},max_bins={bins})")
    }

    fn empty(&self) -> Box<Summary> {
        Box::default()
    }

    fn delta(&self, json: &Value, _at: Timestamp) -> Result<Box<Summary>, Invalid> {
        if let Some(bytes) = sketch::in_delta(json)? {
            return self.import(&bytes);
        }
        let mut summary = Summary::default();
        match json {
            Value::Array(values) => {
                values.iter().try_for_each(|value| Self::add(&mut summary, &self.scale, value))?;
            }
            value => Self::add(&mut summary, &self.scale, value)?,
        }
        Ok(Box::new(summary))
    }

    fn merge(&self, into: &mut Box<Summary>, other: &Box<Summary>) -> Result<(), MergeError> {
        into.merge(&self.scale, other)
    }

    fn encode(&self, state: &Box<Summary>, out: &mut Vec<u8>) -> Result<(), OtherKind> {
        state.encode(out);
        Ok(())
    }

    fn decode(&self, input: &mut Reader<'_>) -> Result<Box<Summary>, DecodeError> {
        Summary::decode(&self.scale, input).map(Box::new)
    }

    fn value(&self, state: &Box<Summary>, _now: Timestamp) -> Result<Value, OtherKind> {
        let shown = self.shown.iter().map(|q| {
            let value = state.quantile(&self.scale, *q);
            (q.to_string(), value.map_or(Value::Null, Value::from))
        });
        Ok(json!({
            "count": state.count(),
            "sum": number::float_json(state.sum()),
            "min": state.quantile(&self.scale, 0.0),
            "max": state.quantile(&self.scale, 1.0),
            "quantiles": shown.collect::<Map<_, _>>(),
            "relative_accuracy": self.scale.accuracy(),
            "collapsed": state.collapsed(&self.scale),
            "fill": state.fill(&self.scale),
        }))
    }

    fn metric_type(&self) -> Option<MetricType> {
        Some(MetricType::Summary)
    }

    fn samples(&self, state: &Box<Summary>, _now: Timestamp) -> Vec<MetricSample> {
        #[expect(clippy::cast_precision_loss, reason = "samples are floats")]
        let count = state.count() as f64;
        let of_quantile = |q: &f64| {
            let value = state.quantile(&self.scale, *q)?;
            Some(MetricSample { suffix: "", quantile: Some(*q), value })
        };
        let total = |suffix, value| MetricSample { suffix, quantile: None, value };
        let quantiles = self.shown.iter().filter_map(of_quantile);
        quantiles.chain([total("_sum", state.sum()), total("_count", count)]).collect()
    }

    fn export(&self, state: &Box<Summary>) -> Option<Vec<u8>> {
        let mut out = self.export_header();
        state.encode(&mut out);
        Some(out)
    }

    fn import(&self, bytes: &[u8]) -> Result<Box<Summary>, Invalid> {
        let body = bytes.strip_prefix(&*self.export_header()).ok_or_else(|| {
            Invalid::new(format!("not an exported sketch of {}", self.signature()))
        })?;
        let mut input = Reader::new(body);
        let read = Summary::decode(&self.scale, &mut input)
            .and_then(|summary| input.finish().map(|()| Box::new(summary)));
        read.map_err(|error| sketch::not_readable("an exported sketch", &error))
    }

    fn heap_bytes(&self, state: &Box<Summary>) -> usize {
        state.heap_bytes()
    }

    fn max_bytes(&self) -> usize {
        Summary::max_bytes(&self.scale)
    }
}

#[cfg(test)]
mod tests;
