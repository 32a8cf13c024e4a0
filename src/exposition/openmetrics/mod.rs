//! The exposition in OpenMetrics 1.0.
//!
//! OpenMetrics forbids much that the text format allows and that writers push: a counter without
//! `_total`, a histogram without `+Inf`, a negative sum. A family that breaks a rule of its type is
//! shown as families of type `unknown`, one for each sample name, with the same samples: no sample is
//! ever omitted because of its type. The rules are in [`types`].
//!
//! What is cached of a family is known by the addresses of the family and of its pages, which the cache keeps alive:
//! numbers of a mirror that was dropped say nothing about the next one.
//! Invariant: a strict parser accepts the exposition, and it depends only on the families.

mod cached_family;
mod parts;
#[cfg(test)]
mod tests;
mod types;

use std::collections::HashMap;
use std::sync::Arc;

use self::cached_family::CachedFamily;
use self::types::OpenMetricsType;
use super::chunks::{ChunkCache, Exposition};
use super::family::Family;
use super::family::page::Scratch;

/// The last line of an exposition.
pub(super) const EOF_LINE: &[u8] = b"# EOF\n";

/// Renders expositions, and reuses what did not change since the last one.
#[derive(Debug, Default)]
pub(super) struct OpenMetrics {
    families: HashMap<Arc<str>, CachedFamily>,
    chunks: ChunkCache,
    scratch: Scratch,
}

impl OpenMetrics {
    /// Renders `families`, without the last line.
    pub(super) fn render(&mut self, families: &[Arc<Family>]) -> Exposition {
        // 1. Bring what is cached of each family up to date, and check the rules where it changed.
        let mut cached = std::mem::take(&mut self.families);
        for family in families {
            let entry = match cached.remove(&family.header.name) {
                Some(entry) => entry.updated(family),
                None => CachedFamily::new(family),
            };
            self.families.insert(Arc::clone(&family.header.name), entry);
        }
        // 2. Whether names conflict depends on all families, so that types are decided for all of them.
        let types = self.resolve_conflicts(families);
        // 3. Render pages that are new, or whose family has another type than before.
        let mut pages = Vec::new();
        for (family, metric_type) in families.iter().zip(types) {
            let Some(entry) = self.families.get_mut(&family.header.name) else { continue };
            pages.extend_from_slice(entry.render(metric_type, &mut self.scratch));
        }
        self.chunks.assemble(&pages).0
    }

    /// Returns the type of each family. A family that reserves a name which another one reserves as well
    /// becomes unknown: then it needs only the names of its samples, which no other family has.
    fn resolve_conflicts(&self, families: &[Arc<Family>]) -> Vec<OpenMetricsType> {
        let allowed = |family: &Arc<Family>| {
            let entry = self.families.get(&family.header.name);
            entry.map_or(OpenMetricsType::Unknown, CachedFamily::allowed)
        };
        let mut claims: HashMap<String, usize> = HashMap::new();
        for family in families {
            for name in allowed(family).reserved(family) {
                *claims.entry(name).or_default() += 1;
            }
        }
        let conflicts = |metric_type: OpenMetricsType, family: &Family| {
            let mut names = metric_type.reserved(family).into_iter();
            names.any(|name| claims.get(&name).is_some_and(|&n| n > 1))
        };
        families
            .iter()
            .map(|family| match allowed(family) {
                metric_type if metric_type.has_no_rules() => metric_type,
                metric_type if conflicts(metric_type, family) => OpenMetricsType::Unknown,
                metric_type => metric_type,
            })
            .collect()
    }
}
