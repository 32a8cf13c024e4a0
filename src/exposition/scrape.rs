//! The pages as scrapes see them.
//!
//! A scrape takes the mirrored pages as they are, and renders only holdall's own metrics, which are
//! few and must be of now: the page's age is right even when the refresher hangs. It never waits
//! for a refresh. OpenMetrics pages are made when somebody asks for them, and kept fresh for
//! [`WANTED_FOR`].
//! Invariant: what a scrape sends is one page; no refresh in between mixes two.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use super::blocks::Rendered;
use super::body::PageBody;
use super::family::Family;
use super::gzip::{Compressor, HEADER};
use super::mirror::Published;
use super::negotiate::Format;
use super::openmetrics::{EOF_LINE, OpenMetrics};
use super::own::OwnMetrics;
use super::own_page;
use crate::clock::SharedClock;
use crate::model::time::Timestamp;

/// How long pages are kept fresh in a format that nobody asks for any more.
const WANTED_FOR: Duration = Duration::from_secs(600);

/// The page could not be made: a defect of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the page could not be rendered")]
pub struct RenderFailed;

/// The pages, as the refresher leaves them and scrapes take them.
pub struct Pages {
    own: Arc<OwnMetrics>,
    clock: SharedClock,
    pub(super) state: RwLock<State>,
    openmetrics: Mutex<OpenMetrics>,
    openmetrics_asked: Mutex<Option<Timestamp>>,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

pub(super) struct State {
    text: Arc<Ready>,
    pub(super) openmetrics: Option<Arc<Ready>>,
    families: Arc<[Arc<Family>]>,
    refreshed_at: Timestamp,
    complete: bool,
}

/// A page of the mirrored series in one format.
pub(super) struct Ready {
    text: Arc<[Bytes]>,
    gzip: Arc<[Bytes]>,
    rendered: Rendered,
}

impl From<Rendered> for Ready {
    fn from(mut rendered: Rendered) -> Self {
        Self {
            text: std::mem::take(&mut rendered.text).into(),
            gzip: std::mem::take(&mut rendered.gzip).into(),
            rendered,
        }
    }
}

impl Pages {
    /// Makes the pages of no series yet.
    pub fn new(own: Arc<OwnMetrics>, clock: SharedClock) -> Self {
        let state = State {
            text: Arc::new(Ready::from(Rendered::default())),
            openmetrics: None,
            families: Arc::default(),
            refreshed_at: clock.now(),
            complete: false,
        };
        Self {
            own,
            clock,
            state: RwLock::new(state),
            openmetrics: Mutex::default(),
            openmetrics_asked: Mutex::new(None),
        }
    }

    /// Returns holdall's own metrics.
    pub fn own(&self) -> &Arc<OwnMetrics> {
        &self.own
    }

    /// Returns whether the series were mirrored at least once since the start; before that a page
    /// holds only holdall's own metrics.
    pub fn is_complete(&self) -> bool {
        self.state.read().complete
    }

    /// Returns how long ago the mirrored series were brought up to date; before the first time, how
    /// long ago the server was started.
    pub fn age(&self) -> Duration {
        self.clock.now().saturating_since(self.state.read().refreshed_at)
    }

    /// Makes the answer to a scrape; `gzip` compresses it.
    ///
    /// # Errors
    /// When the first page of OpenMetrics could not be made.
    pub async fn scrape(
        self: &Arc<Self>,
        format: Format,
        gzip: bool,
    ) -> Result<PageBody, RenderFailed> {
        let page = match format {
            Format::Text => Arc::clone(&self.state.read().text),
            Format::OpenMetrics => self.openmetrics_page().await?,
        };
        self.own.page_age.set(self.age().as_secs_f64());
        let own = render_own(&self.own, format);
        let tail = match format {
            Format::Text => &b""[..],
            Format::OpenMetrics => EOF_LINE,
        };
        Ok(if gzip { gzip_body(&own, &page, tail) } else { text_body(own, &page, tail) })
    }

    async fn openmetrics_page(self: &Arc<Self>) -> Result<Arc<Ready>, RenderFailed> {
        *self.openmetrics_asked.lock() = Some(self.clock.now());
        let ready = self.state.read().openmetrics.clone();
        if let Some(ready) = ready {
            return Ok(ready);
        }
        let pages = Arc::clone(self);
        tokio::task::spawn_blocking(move || pages.render_openmetrics())
            .await
            .map_err(|_| RenderFailed)
    }

    /// Renders the newest families. Whoever gets the lock last renders the newest.
    fn render_openmetrics(&self) -> Arc<Ready> {
        let mut openmetrics = self.openmetrics.lock();
        let families = Arc::clone(&self.state.read().families);
        let ready = Arc::new(Ready::from(openmetrics.render(&families)));
        let former = self.state.write().openmetrics.replace(Arc::clone(&ready));
        // Outside the lock, which scrapes wait for.
        drop(former);
        ready
    }

    /// Puts a new page in place of the last one. Not for async threads: it may render.
    pub(super) fn publish(&self, page: Published) {
        self.own.mirrored_series.set(i64::try_from(page.series).unwrap_or(i64::MAX));
        let ready = Arc::new(Ready::from(page.rendered));
        let families = page.families.into();
        let former = {
            let mut state = self.state.write();
            state.complete = true;
            (
                std::mem::replace(&mut state.text, ready),
                std::mem::replace(&mut state.families, families),
            )
        };
        // Outside the lock: it may be the last hand on a million series.
        drop(former);
        let wanted = self
            .openmetrics_asked
            .lock()
            .is_some_and(|asked| self.clock.now().saturating_since(asked) < WANTED_FOR);
        if wanted {
            self.render_openmetrics();
        } else {
            let former = self.state.write().openmetrics.take();
            if former.is_some() {
                *self.openmetrics.lock() = OpenMetrics::default();
            }
        }
    }

    /// Notes that the pages show the store as it was at `moment`.
    pub(super) fn refreshed(&self, moment: Timestamp) {
        self.state.write().refreshed_at = moment;
    }

    /// Returns the time.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn render_own(own: &OwnMetrics, format: Format) -> Bytes {
    let families = own_page::gather(own.registry());
    let mut out = Vec::new();
    match format {
        Format::Text => {
            for family in &families {
                out.extend_from_slice(&family.header);
                family.pages.iter().for_each(|page| out.extend_from_slice(&page.text));
            }
        }
        Format::OpenMetrics => {
            let rendered = OpenMetrics::default().render(&families);
            rendered.text.iter().for_each(|text| out.extend_from_slice(text));
        }
    }
    Bytes::from(out)
}

fn text_body(own: Bytes, page: &Ready, tail: &'static [u8]) -> PageBody {
    let bytes = page.rendered.text_bytes;
    PageBody::new(own, Arc::clone(&page.text), bytes, Bytes::from_static(tail))
}

fn gzip_body(own: &[u8], page: &Ready, tail: &[u8]) -> PageBody {
    let mut compressor = Compressor::default();
    let own = compressor.compress(own);
    let tail = compressor.compress(tail);
    let mut checksum = super::gzip::Checksum::default();
    checksum.add(&own);
    checksum.append(&page.rendered.checksum);
    checksum.add(&tail);
    let plain_bytes = own.plain_bytes + page.rendered.text_bytes + tail.plain_bytes;
    PageBody::new(
        [&HEADER[..], &own.bytes].concat().into(),
        Arc::clone(&page.gzip),
        page.rendered.gzip_bytes,
        [&tail.bytes[..], &checksum.trailer(plain_bytes)].concat().into(),
    )
}
