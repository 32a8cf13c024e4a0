//! The stream of notes, as server-sent events.
//!
//! Invariant: the id of each event is the cursor to go on with, so that a client that connects again misses nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::engine::Engine;
use crate::engine::aggregates::DeclaredPipeline;
use crate::http::admission::{RunningPermit, WaitFor};
use crate::http::body::BodyBudget;
use crate::http::event_stream::{self, EventSource, last_cursor};
use crate::http::extract::{Path, Query};
use crate::http::problem::{Code, Problem};
use crate::http::state::AppState;
use crate::http::wire::{Count, given};
use crate::model::cursor::Cursor;
use crate::store::{After, NoteLimits, NotePage};

/// The codes of a stream.
pub(super) const CODES: &[Code] = &[Code::NotFound, Code::CursorGone, Code::Unsupported];

/// About how many bytes of notes an event has at most. It always has one note.
const EVENT_BYTES: usize = 256 << 10;

/// Where to begin.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct NoteStreamQuery {
    /// The cursor to start after; without one, the stream starts with the oldest note. The header `Last-Event-ID` takes
    /// precedence.
    #[param(required = false, nullable = false)]
    cursor: Option<String>,
    /// The maximum number of notes in one event; the server may send fewer.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
}

/// Streams the notes of a pipeline as server-sent events: what each update has changed, in the order in which they were
/// merged. Each event `notes` has an object with a list `notes`, and its id is the cursor to continue with. A note has
/// `sequence`, `entity`, `bucket` (with a window), `at`, `delta` and `event_id` (where the update had one). It can come
/// more than once, with the same number. An event `error` contains a problem, and is the last event. 410 `cursor_gone`
/// says that notes behind the cursor were dropped, as is done with the oldest ones at `aggregates.max_outbox_notes` and
/// `aggregates.max_outbox_bytes`; a stream without a cursor then starts with the oldest that is left. 404 says that the
/// pipeline has no `hook` with `stream = true`.
#[utoipa::path(get, path = "/v1/pipelines/{pipeline}/stream",
    params(("pipeline" = String, Path, description = "The pipeline"), NoteStreamQuery),
    responses((status = 200, description = "A stream of notes", body = String,
        content_type = "text/event-stream")))]
pub(crate) async fn stream_notes(
    State(state): State<AppState>,
    headers: HeaderMap,
    Path(pipeline): Path<String>,
    Query(query): Query<NoteStreamQuery>,
    budget: BodyBudget,
    permit: RunningPermit,
) -> Result<Response, Problem> {
    let engine = Arc::clone(state.engine()?);
    let declared = Arc::clone(engine.aggregates.pipeline(&pipeline)?);
    let limit = state.page_items(query.limit)?;
    let cursor = last_cursor(&headers, query.cursor.as_deref())?.map(Cursor::parse).transpose();
    let cursor = cursor.map_err(|why| Problem::invalid_at("cursor", &why))?;
    permit.wait_for(WaitFor::Changes)?;
    // The first read happens before the stream begins, so that a cursor that is gone is a status.
    let mut feed = Feed { state, engine, declared, budget, cursor, limit };
    let page = feed.read(Duration::ZERO).await?;
    let first = feed.event(page)?;
    Ok(event_stream::respond(first, feed))
}

struct Feed {
    state: AppState,
    engine: Arc<Engine>,
    declared: Arc<DeclaredPipeline>,
    budget: BodyBudget,
    cursor: Option<Cursor>,
    limit: usize,
}

impl EventSource for Feed {
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let stop = self.state.stop.clone();
        let heartbeat = self.state.settings.timeouts.heartbeat;
        let page = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            page = self.read(heartbeat) => page?,
        };
        self.event(page).map(Some)
    }
}

impl Feed {
    /// Reads the notes behind the cursor.
    ///
    /// # Errors
    /// 410 when some of them have left.
    async fn read(&self, wait: Duration) -> Result<NotePage, Problem> {
        let after = self.cursor.as_ref().map_or(After::Nothing, After::Cursor);
        let limits = NoteLimits { notes: self.limit, bytes: EVENT_BYTES };
        let page = self.engine.aggregates.notes(&self.declared, after, limits, wait).await?;
        page.ok_or_else(|| {
            Problem::new(Code::CursorGone)
                .detail("notes after this cursor were dropped: start without a cursor")
        })
    }

    /// Makes an event of notes, or a heartbeat.
    ///
    /// # Errors
    /// 503 when the budget of bytes is spent.
    fn event(&mut self, page: NotePage) -> Result<Bytes, Problem> {
        let NotePage { notes, next } = page;
        // Also of a heartbeat: a client that has seen no note yet then goes on from here, too.
        let mut text = if notes.is_empty() {
            format!(": heartbeat\nid: {next}").into_bytes()
        } else {
            format!("event: notes\nid: {next}\ndata: {{\"notes\":[").into_bytes()
        };
        self.cursor = Some(next);
        // The texts are the store's own, so only what is sent counts.
        let bytes: usize = notes.iter().map(|note| note.text.len() + 64).sum();
        let share = self.budget.cover_response(text.len() + bytes)?;
        for (index, note) in notes.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            note.write_json(&mut text);
        }
        // JSON text contains no line feed.
        text.extend_from_slice(if notes.is_empty() { b"\n\n" } else { b"]}\n\n" });
        share.hold(text)
    }
}
