//! A family as it was checked and rendered last: what a refresh reuses of it.
//!
//! Not the rules, and not the rendering of a page. Invariant: what is reused was made from the very same page, as the
//! same type.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::created::Joined;
use super::parts::{Part, header_text, render_page, split_by_name};
use super::types::{CheckState, OpenMetricsType, check_page, wanted_type};
use crate::exposition::chunks::{Content, RenderedPage, is_chunk_boundary};
use crate::exposition::family::page::{Page, Scratch};

/// A family, and what was made of it.
#[derive(Debug)]
pub(super) struct CachedFamily {
    family: Joined,
    /// The type that the family has if its samples satisfy the rules.
    wanted: OpenMetricsType,
    /// The type that its samples allow.
    allowed: OpenMetricsType,
    pages: Vec<CachedPage>,
    /// The header of each of the families that it is shown as.
    headers: Vec<Content>,
    /// The type that `rendered` has; `None` when it must be put together again. It differs from `allowed` as long as
    /// another family reserves the same names.
    rendered_as: Option<OpenMetricsType>,
    rendered: Vec<RenderedPage>,
}

/// A page, and what was made of it.
#[derive(Debug)]
struct CachedPage {
    page: Page,
    /// The states before and behind the page when it was checked; the latter is `None` when a line breaks a rule.
    checked: Option<(CheckState, Option<CheckState>)>,
    /// What is shown, and as which type.
    parts: Option<(OpenMetricsType, Vec<Part>)>,
}

impl CachedPage {
    fn new(page: &Page) -> Self {
        Self { page: page.clone(), checked: None, parts: None }
    }
}

impl CachedFamily {
    /// Checks a family that was not shown before.
    pub(super) fn new(joined: &Joined) -> Self {
        let mut new = Self {
            family: joined.clone(),
            wanted: wanted_type(&joined.family.header),
            allowed: OpenMetricsType::Unknown,
            pages: joined.family.pages.iter().map(CachedPage::new).collect(),
            headers: Vec::new(),
            rendered_as: None,
            rendered: Vec::new(),
        };
        new.check();
        new
    }

    /// Takes over what `joined`, which has the same name, has in common with the one before.
    pub(super) fn updated(self, joined: &Joined) -> Self {
        if Arc::ptr_eq(&self.family.family, &joined.family) && self.family.created == joined.created
        {
            return self;
        }
        let (wanted, headers) = (wanted_type(&joined.family.header), self.headers);
        // Other rules apply to another type, and pages are split in another way without created samples.
        let same_type =
            self.wanted == wanted && self.family.created.is_some() == joined.created.is_some();
        let old = self.pages.into_iter().filter(|_| same_type);
        let mut old: HashMap<usize, CachedPage> =
            old.map(|cached| (cached.page.address(), cached)).collect();
        let take = |page: &Page| match old.remove(&page.address()) {
            // The text may have moved into a chunk that it shares.
            Some(cached) => CachedPage { page: page.clone(), ..cached },
            None => CachedPage::new(page),
        };
        let pages = joined.family.pages.iter().map(take).collect();
        let mut updated = Self {
            family: joined.clone(),
            wanted,
            pages,
            headers,
            allowed: OpenMetricsType::Unknown,
            rendered_as: None,
            rendered: Vec::new(),
        };
        updated.check();
        updated
    }

    /// Returns the type that the samples allow.
    pub(super) fn allowed(&self) -> OpenMetricsType {
        self.allowed
    }

    /// Returns every name that the family reserves under this type.
    pub(super) fn reserved(&self, metric_type: OpenMetricsType) -> Vec<String> {
        let mut names = metric_type.reserved(&self.family.family);
        let created = self.family.created.iter().map(|created| created.name.to_string());
        names.extend(created.filter(|_| metric_type == OpenMetricsType::Unknown));
        names
    }

    /// Returns what was rendered last.
    #[cfg(test)]
    pub(super) fn rendered_pages(&self) -> &[RenderedPage] {
        &self.rendered
    }

    /// Checks the pages that are new, and those before which something else stands now.
    fn check(&mut self) {
        if self.wanted.has_no_rules() {
            self.allowed = self.wanted;
            return;
        }
        let mut state = CheckState::default();
        for cached in &mut self.pages {
            if cached.checked.as_ref().is_none_or(|(before, _)| *before != state) {
                let after = check_page(&self.family.family, self.wanted, &cached.page, &state);
                cached.checked = Some((state, after));
            }
            let after = cached.checked.as_ref().and_then(|(_, after)| after.as_ref());
            let Some(after) = after else {
                self.allowed = OpenMetricsType::Unknown;
                return;
            };
            state = after.clone();
        }
        let satisfied = state.may_end(self.wanted);
        self.allowed = if satisfied { self.wanted } else { OpenMetricsType::Unknown };
    }

    /// Returns the pages of the family as this type.
    pub(super) fn render(
        &mut self,
        metric_type: OpenMetricsType,
        scratch: &mut Scratch,
    ) -> &[RenderedPage] {
        if self.rendered_as != Some(metric_type) {
            for cached in &mut self.pages {
                if cached.parts.as_ref().is_none_or(|(kind, _)| *kind != metric_type) {
                    let parts = render_page(&self.family, &cached.page, metric_type, scratch);
                    cached.parts = Some((metric_type, parts));
                }
            }
            self.rendered = self.assemble(metric_type, scratch);
            self.rendered_as = Some(metric_type);
        }
        &self.rendered
    }

    /// Puts headers and parts together, one family after the other.
    fn assemble(
        &mut self,
        metric_type: OpenMetricsType,
        scratch: &mut Scratch,
    ) -> Vec<RenderedPage> {
        let parts = || {
            self.pages.iter().flat_map(|cached| cached.parts.iter()).flat_map(|(_, parts)| parts)
        };
        let names = if split_by_name(&self.family, metric_type) {
            let mut names: Vec<&str> = Vec::new();
            for part in parts() {
                if !names.contains(&&*part.name) {
                    names.push(&part.name);
                }
            }
            names
        } else {
            vec![metric_type.family_name(self.family.family.name())]
        };
        let (mut pages, mut headers) = (Vec::new(), Vec::new());
        for name in names {
            let header = self.header(self.header_of(name, metric_type), scratch);
            let mut header_of_first = Some(header.clone());
            let texts = parts().filter(|part| part.name.is_empty() || &*part.name == name);
            pages.extend(texts.map(|part| RenderedPage {
                header: header_of_first.take(),
                text: part.text.clone(),
                boundary: false,
            }));
            if let Some(last) = pages.last_mut() {
                last.boundary = is_chunk_boundary(self.family.family.name());
            }
            headers.push(header);
        }
        self.headers = headers;
        pages
    }

    /// Returns the header of the family, or of one of those that it is split into. Created samples that are not
    /// shown with their family are what their own writers said.
    fn header_of(&self, name: &str, metric_type: OpenMetricsType) -> Bytes {
        match self.family.created.as_ref().filter(|created| *created.name == *name) {
            Some(created) => header_text(created, name, wanted_type(created)),
            None => header_text(&self.family.family.header, name, metric_type),
        }
    }

    /// Returns a header under the id that it had before, if it had one.
    fn header(&self, text: Bytes, scratch: &mut Scratch) -> Content {
        match self.headers.iter().find(|header| header.bytes == text) {
            Some(header) => header.clone(),
            None => Content { id: scratch.next_id(), bytes: text },
        }
    }
}
