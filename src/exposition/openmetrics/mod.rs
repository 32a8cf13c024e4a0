//! The exposition in OpenMetrics 1.0.
//!
//! OpenMetrics forbids much that the text format allows and that writers push: a counter without
//! `_total`, a histogram without `+Inf`, a negative sum. A family that breaks a rule of its type is
//! shown as families of type `unknown`, one for each sample name, with the same samples: no sample is
//! ever omitted because of its type. The rules are in [`types`].
//!
//! The created samples of a family, which are a family of their own in the text format, are joined to it first, see
//! [`created`].
//!
//! What is cached of a family is known by the addresses of the family and of its pages, which the cache keeps alive:
//! numbers of a mirror that was dropped say nothing about the next one.
//! Invariant: a strict parser accepts the exposition, and it depends only on the families.

mod cached_family;
mod created;
mod parts;
#[cfg(test)]
mod tests;
mod types;

use std::collections::HashMap;
use std::sync::Arc;

use self::cached_family::CachedFamily;
use self::created::{CreatedSamples, Joined};
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
    created: CreatedSamples,
    chunks: ChunkCache,
    scratch: Scratch,
}

impl OpenMetrics {
    /// Renders `families`, without the last line.
    pub(super) fn render(&mut self, families: &[Arc<Family>]) -> Exposition {
        // 1. Join families with their created samples, which are families of their own in the text format.
        let families = &self.created.join(families, &mut self.scratch);
        // 2. Bring what is cached of each family up to date, and check the rules where it changed.
        let mut cached = std::mem::take(&mut self.families);
        for family in families {
            let entry = match cached.remove(family.name()) {
                Some(entry) => entry.updated(family),
                None => CachedFamily::new(family),
            };
            self.families.insert(Arc::clone(family.name()), entry);
        }
        // 3. Whether names conflict depends on all families, so that types are decided for all of them.
        let types = self.resolve_conflicts(families);
        // 4. Render pages that are new, or whose family has another type than before.
        let mut pages = Vec::new();
        for (family, metric_type) in families.iter().zip(types) {
            let Some(entry) = self.families.get_mut(family.name()) else { continue };
            pages.extend_from_slice(entry.render(metric_type, &mut self.scratch));
        }
        self.chunks.assemble(&pages).0
    }

    /// Returns the type of each family. A family that reserves a name which another one reserves as well
    /// becomes unknown: then it needs only the names of its samples, which no other family has.
    fn resolve_conflicts(&self, families: &[Joined]) -> Vec<OpenMetricsType> {
        let cached = || families.iter().filter_map(|family| self.families.get(family.name()));
        let mut claims: HashMap<String, usize> = HashMap::new();
        for family in cached() {
            for name in family.reserved(family.allowed()) {
                *claims.entry(name).or_default() += 1;
            }
        }
        let conflicts = |family: &CachedFamily| {
            let mut names = family.reserved(family.allowed()).into_iter();
            names.any(|name| claims.get(&name).is_some_and(|&n| n > 1))
        };
        let resolved = |family: &CachedFamily| match family.allowed() {
            metric_type if metric_type.has_no_rules() => metric_type,
            _ if conflicts(family) => OpenMetricsType::Unknown,
            metric_type => metric_type,
        };
        cached().map(resolved).collect()
    }
}
