//! The pages as scrapes see them.
//!
//! A scrape sends the exposition of the mirrored series as it is, and renders only the own metrics, which
//! are few and must be up to date: the age of the pages is right even when the refresher hangs. A
//! scrape never waits for a refresh. OpenMetrics is rendered when it is first requested, and then
//! by each refresh for as long as it was requested within [`OPENMETRICS_FOR`].
//! Invariant: a response has the state of one refresh; a refresh in between does not mix two.

mod body;
mod filter;
mod negotiate;
#[cfg(test)]
mod tests;
mod text;

pub use self::body::ScrapeBody;
pub use self::filter::{FILTERING_BYTES, FilteredScrape};
pub use self::negotiate::{Format, negotiate};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use self::text::Text;
use super::chunks::Exposition;
use super::chunks::gzip::{Checksum, Compressor, HEADER};
use super::family::Family;
use super::mirror::MirroredPages;
use super::openmetrics::OpenMetrics;
use super::own::{OwnMetrics, export};
use crate::clock::SharedClock;
use crate::model::selector::Selector;
use crate::model::time::SteadyTime;

/// How long refreshes render OpenMetrics after the last request for it.
const OPENMETRICS_FOR: Duration = Duration::from_secs(600);

/// An exposition could not be rendered: a defect of ours.
#[derive(Debug, Error)]
#[error("an exposition could not be rendered")]
pub struct RenderFailed(#[source] tokio::task::JoinError);

/// The pages that the refresher publishes and scrapes take.
pub struct Pages {
    own: Arc<OwnMetrics>,
    clock: SharedClock,
    pub(super) state: RwLock<State>,
    /// Whether there was a complete page.
    complete: watch::Sender<bool>,
    openmetrics: Mutex<OpenMetrics>,
    /// The last request for OpenMetrics.
    openmetrics_requested: Mutex<Option<SteadyTime>>,
    /// Steps of filtered scrapes may run on half of the processors.
    filter_turns: Arc<Semaphore>,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

pub(super) struct State {
    text: Exposition,
    pub(super) openmetrics: Option<Exposition>,
    families: Arc<[Arc<Family>]>,
    refreshed_at: SteadyTime,
}

impl Pages {
    /// Makes empty pages.
    pub fn new(own: Arc<OwnMetrics>, clock: SharedClock) -> Self {
        let state = State {
            text: Exposition::default(),
            openmetrics: None,
            families: Arc::default(),
            refreshed_at: clock.steady(),
        };
        Self {
            own,
            clock,
            state: RwLock::new(state),
            complete: watch::Sender::new(false),
            openmetrics: Mutex::default(),
            openmetrics_requested: Mutex::new(None),
            filter_turns: Arc::new(Semaphore::new(half_of_processors())),
        }
    }

    /// Returns the own metrics.
    pub fn own(&self) -> &Arc<OwnMetrics> {
        &self.own
    }

    /// Returns whether the pages have shown all series and all metrics of the store at least once since the
    /// start. A page before that would tell Prometheus that the missing series have ended.
    pub fn is_complete(&self) -> bool {
        *self.complete.borrow()
    }

    /// Waits until [`Self::is_complete`].
    pub async fn until_complete(&self) {
        // Can't fail: the sender lives as long as `self`.
        let _ = self.complete.subscribe().wait_for(|complete| *complete).await;
    }

    /// Records that the pages are complete, for good.
    pub(crate) fn set_complete(&self) {
        self.complete.send_if_modified(|complete| !std::mem::replace(complete, true));
    }

    /// Returns the time since the last successful refresh; before the first one, the time since the start.
    pub fn age(&self) -> Duration {
        self.clock.steady().saturating_since(self.state.read().refreshed_at)
    }

    /// Returns the body of the response to a scrape, compressed if `gzip`.
    ///
    /// # Errors
    /// When OpenMetrics could not be rendered for the first time.
    pub async fn scrape(
        self: &Arc<Self>,
        format: Format,
        gzip: bool,
    ) -> Result<ScrapeBody, RenderFailed> {
        let exposition = self.exposition(format).await?;
        let own = self.render_own(format);
        let tail = format.last_line();
        Ok(if gzip {
            gzip_body(&own, &exposition, tail)
        } else {
            text_body(own, &exposition, tail)
        })
    }

    /// Returns the response to a scrape of the samples that any of `selectors` matches, the own metrics among them. As
    /// in the whole page, bounds and quantiles are canonical in OpenMetrics (`1.0`), and as pushed in text.
    ///
    /// # Errors
    /// When OpenMetrics could not be rendered for the first time.
    pub async fn filtered(
        self: &Arc<Self>,
        format: Format,
        gzip: bool,
        selectors: Vec<Selector>,
    ) -> Result<FilteredScrape, RenderFailed> {
        let exposition = self.exposition(format).await?;
        let text = Text::new(self.render_own(format), exposition.text);
        let turns = Arc::clone(&self.filter_turns);
        Ok(FilteredScrape::new(turns, selectors, text, format, gzip))
    }

    async fn exposition(self: &Arc<Self>, format: Format) -> Result<Exposition, RenderFailed> {
        match format {
            Format::Text => Ok(self.state.read().text.clone()),
            Format::OpenMetrics => self.openmetrics().await,
        }
    }

    fn render_own(&self, format: Format) -> Bytes {
        self.own.page_age.set(self.age().as_secs_f64());
        render_own(&self.own, format)
    }

    async fn openmetrics(self: &Arc<Self>) -> Result<Exposition, RenderFailed> {
        *self.openmetrics_requested.lock() = Some(self.clock.steady());
        let rendered = self.state.read().openmetrics.clone();
        if let Some(exposition) = rendered {
            return Ok(exposition);
        }
        let pages = Arc::clone(self);
        tokio::task::spawn_blocking(move || pages.render_openmetrics()).await.map_err(RenderFailed)
    }

    /// Renders the newest families. The families are read under the lock of the renderer, so that the last of
    /// several concurrent calls stores the newest ones.
    fn render_openmetrics(&self) -> Exposition {
        let mut openmetrics = self.openmetrics.lock();
        let families = Arc::clone(&self.state.read().families);
        let exposition = openmetrics.render(&families);
        let former = self.state.write().openmetrics.replace(exposition.clone());
        // Freed outside the lock, which scrapes wait for.
        drop(former);
        exposition
    }

    /// Replaces the pages. Not for async threads: it may render OpenMetrics.
    pub(super) fn publish(&self, mirrored: MirroredPages) {
        self.own.mirrored_series.set(i64::try_from(mirrored.series).unwrap_or(i64::MAX));
        let families = mirrored.families.into();
        let former = {
            let mut state = self.state.write();
            (
                std::mem::replace(&mut state.text, mirrored.exposition),
                std::mem::replace(&mut state.families, families),
            )
        };
        // Freed outside the lock: this may be the last reference to a million lines.
        drop(former);
        let requested = self
            .openmetrics_requested
            .lock()
            .is_some_and(|at| self.clock.steady().saturating_since(at) < OPENMETRICS_FOR);
        if requested {
            self.render_openmetrics();
        } else {
            // The text has moved on: an old exposition in OpenMetrics must not be sent any more.
            let former = self.state.write().openmetrics.take();
            if former.is_some() {
                *self.openmetrics.lock() = OpenMetrics::default();
            }
        }
    }

    /// Records that the pages show the store as it was at `moment`.
    pub(super) fn set_refreshed(&self, moment: SteadyTime) {
        self.state.write().refreshed_at = moment;
    }

    /// Returns the steady time.
    pub(super) fn now(&self) -> SteadyTime {
        self.clock.steady()
    }
}

fn half_of_processors() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

fn render_own(own: &OwnMetrics, format: Format) -> Bytes {
    let families = export::gather(own.registry());
    let mut out = Vec::new();
    match format {
        Format::Text => {
            for family in &families {
                out.extend_from_slice(&family.header_text);
                family.pages.iter().for_each(|page| out.extend_from_slice(&page.text));
            }
        }
        Format::OpenMetrics => {
            let exposition = OpenMetrics::default().render(&families);
            exposition.text.iter().for_each(|text| out.extend_from_slice(text));
        }
    }
    Bytes::from(out)
}

fn text_body(own: Bytes, exposition: &Exposition, tail: &'static [u8]) -> ScrapeBody {
    let text = Arc::clone(&exposition.text);
    ScrapeBody::new(own, text, exposition.text_bytes, Bytes::from_static(tail))
}

/// Joins fragments into one gzip member: only the own metrics and the tail are compressed here.
fn gzip_body(own: &[u8], exposition: &Exposition, tail: &[u8]) -> ScrapeBody {
    let mut compressor = Compressor::default();
    let own = compressor.compress(own);
    let tail = compressor.compress(tail);
    let mut checksum = Checksum::default();
    checksum.add(&own);
    checksum.append(&exposition.checksum);
    checksum.add(&tail);
    let plain_bytes = own.plain_bytes + exposition.text_bytes + tail.plain_bytes;
    ScrapeBody::new(
        [&HEADER[..], &own.bytes].concat().into(),
        Arc::clone(&exposition.gzip),
        exposition.gzip_bytes,
        [&tail.bytes[..], &checksum.trailer(plain_bytes)].concat().into(),
    )
}
