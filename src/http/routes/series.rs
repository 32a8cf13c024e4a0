//! Series: pushed, read page by page, deleted.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{DeletedResponse, FenceParams, HandlerResult};
use crate::engine::series::Writer;
use crate::http::body::read_whole;
use crate::http::extract::{FenceHeader, Json, Path, Query, Role, json_response, media_type};
use crate::http::points::{SeriesPoint, points_body, write_point};
use crate::http::problem::Problem;
use crate::http::push::{PushFormat, parse_push};
use crate::http::state::AppState;
use crate::http::wire::{Count, from_hex, given, to_hex};
use crate::ingest::ParsedBatch;
use crate::model::Invalid;
use crate::model::cursor::Cursor;
use crate::model::selector::{Selector, SelectorText};
use crate::model::series::{SeriesId, SeriesKey};

/// Points to write.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the JSON format reads")]
pub(crate) struct SeriesPush {
    /// Who writes.
    #[schema(example = "leader")]
    role: String,
    /// On which path.
    #[schema(example = "leader_scrape")]
    source: String,
    /// The points; all of them are applied, or none.
    points: Vec<PushedPoint>,
}

/// A point to write.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the JSON format reads")]
pub(crate) struct PushedPoint {
    /// The metric name.
    #[schema(example = "jobs_done_total")]
    name: String,
    /// The labels by name; an empty value is an absent label.
    #[schema(required = false)]
    labels: std::collections::BTreeMap<String, String>,
    /// The value; null where `special` says what it is.
    value: Option<f64>,
    /// The value where it is not a finite number.
    #[schema(required = false, nullable = false, example = "NaN")]
    special: Option<String>,
    /// When the value was taken; on arrival when absent.
    #[schema(required = false, nullable = false, format = DateTime)]
    updated_at: Option<String>,
    /// The metric's type, such as `counter`.
    #[schema(required = false, nullable = false, rename = "type", example = "counter")]
    metric_type: Option<String>,
    /// The family's help text.
    #[schema(required = false, nullable = false)]
    help: Option<String>,
    /// The family's unit.
    #[schema(required = false, nullable = false)]
    unit: Option<String>,
}

/// Who writes, for bodies that can't say it themselves.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WriterParams {
    /// Who writes; for bodies that are not JSON.
    #[param(required = false, nullable = false)]
    role: Option<String>,
    /// On which path; for bodies that are not JSON.
    #[param(required = false, nullable = false)]
    source: Option<String>,
}

/// What became of the points of a push.
#[derive(Serialize, ToSchema)]
pub(crate) struct PushResponse {
    /// Points that made a new series.
    #[schema(value_type = i64)]
    created: usize,
    /// Points that replaced an older or equally old sample.
    #[schema(value_type = i64)]
    updated: usize,
    /// Points that were dropped, as older than what is held or past the retention.
    #[schema(value_type = i64)]
    stale: usize,
}

/// Writes points, all or nothing. Beside JSON the body may be NDJSON, the Prometheus text
/// format or OpenMetrics, by its Content-Type, with `role` and `source` in the query. Where the
/// status says `atomic_batches: false`, readers may see a part of it, and an answer of 5xx may
/// leave a part applied: sending it again completes it.
#[utoipa::path(post, path = "/v1/series", tag = "series", params(WriterParams, FenceParams),
    request_body(description = "The points", content((SeriesPush = "application/json"),
        (String = "application/x-ndjson"), (String = "text/plain"),
        (String = "application/openmetrics-text"))),
    responses((status = 200, description = "What became of the points", body = PushResponse)))]
pub(crate) async fn push_series(
    State(state): State<AppState>,
    Query(params): Query<WriterParams>,
    FenceHeader(fence): FenceHeader,
    Role(bound): Role,
    request: Request<Body>,
) -> HandlerResult<PushResponse> {
    let format = PushFormat::of(media_type(request.headers()))?;
    // Asked for before the body is read, so that nobody uploads for nothing.
    let engine = state.engine()?;
    let patience = state.settings.timeouts.body;
    let limit = state.series_body_limit();
    let whole = read_whole(request, limit, &state.budget, patience).await?;
    let pushed = parse_push(format, whole, &state.settings).await?;
    let missing = |what| Problem::invalid(format!("{what} is missing: name it in the request"));
    let role = pushed.role.or(params.role).ok_or_else(|| missing("role"))?;
    let source = pushed.source.or(params.source).ok_or_else(|| missing("source"))?;
    let engine = Arc::clone(engine);
    let (ParsedBatch { batch, positions }, share) = (pushed.parsed, pushed.share);
    // In a task of its own: when the client hangs up, the store goes on, and the points still
    // take the memory that the share stands for.
    let applied = tokio::spawn(async move {
        let bound_role = bound.as_ref().map(|bound| &*bound.0);
        let writer = Writer { role: &role, source: &source, bound_role };
        let position_of = |index| positions.position(index);
        let counts = engine.series.upsert(batch, position_of, &writer, fence).await;
        drop(share);
        counts
    });
    let counts = applied.await.map_err(|error| {
        tracing::error!(cause = %error, "applying a push failed");
        Problem::internal()
    })??;
    Ok(Json(PushResponse { created: counts.created, updated: counts.updated, stale: counts.stale }))
}

/// Which series to read.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesQuery {
    /// Prometheus selectors; a series is read when any of them matches, all when there is none.
    #[serde(rename = "match[]", default)]
    #[param(required = false)]
    matches: Vec<String>,
    /// The most series of the answer.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// `next_page` of the page before.
    #[param(required = false, nullable = false)]
    page: Option<String>,
}

/// A page of a snapshot.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `points_body` writes")]
pub(crate) struct SeriesPage {
    /// The series, sorted by name and labels.
    points: Vec<SeriesPoint>,
    /// The cursor of the moment at which the first page was read: the changes after it bring
    /// all pages to one moment.
    cursor: String,
    /// What to ask with for more; absent on the last page.
    #[schema(required = false, nullable = false)]
    next_page: Option<String>,
}

/// Reads the live series, page by page.
#[utoipa::path(get, path = "/v1/series", tag = "series", params(SeriesQuery),
    responses((status = 200, description = "A page of the snapshot", body = SeriesPage)))]
pub(crate) async fn list_series(
    State(state): State<AppState>,
    Query(query): Query<SeriesQuery>,
) -> Result<Response, Problem> {
    let limit = state.page_items(query.limit)?;
    let selectors = parse_selectors(&query.matches, "match[]", &state).await?;
    let page = query.page.as_deref().map(Page::parse).transpose()?;
    let after = page.as_ref().map(|page| &page.after);
    let snapshot = state.engine()?.series.snapshot(&selectors, after, limit).await?;
    let more = snapshot.more;
    let last = snapshot.points.last().filter(|_| more).map(|point| point.key.clone());
    let cursor = page.map_or(snapshot.cursor, |page| page.cursor);
    let mut tail = format!(",\"cursor\":\"{cursor}\"");
    if let Some(after) = last {
        let next_page = Page { cursor, after }.print();
        tail.push_str(&format!(",\"next_page\":\"{next_page}\""));
    }
    Ok(json_response(points_body(snapshot.points, tail)))
}

/// Where the next page begins, and the cursor of the first.
struct Page {
    cursor: Cursor,
    after: SeriesKey,
}

impl Page {
    fn print(&self) -> String {
        let Self { cursor, after } = self;
        // Neither cursors nor metric names hold a line feed; labels come last.
        to_hex(format!("{cursor}\n{}\n{}", after.name, after.labels).as_bytes())
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let parse = || {
            let text = String::from_utf8(from_hex(text)?).ok()?;
            let mut parts = text.splitn(3, '\n');
            let cursor = Cursor::parse(parts.next()?).ok()?;
            let after = SeriesKey { name: parts.next()?.into(), labels: parts.next()?.into() };
            Some(Self { cursor, after })
        };
        parse().ok_or_else(|| Problem::invalid("page is not a next_page that this server gave"))
    }
}

/// Reads the selectors of a request. Expressions are compiled off the async threads.
async fn parse_selectors(
    texts: &[String],
    pointer: &'static str,
    state: &AppState,
) -> Result<Vec<Selector>, Problem> {
    let (most, most_regexes) =
        (state.settings.limits.selectors, state.settings.limits.selector_regexes);
    if texts.len() > most {
        return Err(Problem::invalid(format!("a request has at most {most} selectors")));
    }
    let wrong = move |i: usize, why: &Invalid| Problem::invalid_at(&format!("{pointer}/{i}"), why);
    let read =
        |(i, text): (usize, &String)| SelectorText::parse(text).map_err(|why| wrong(i, &why));
    let read: Vec<_> = texts.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let regexes: usize = read.iter().map(SelectorText::regexes).sum();
    if regexes > most_regexes {
        return Err(Problem::invalid(format!(
            "a request has at most {most_regexes} regular expressions in all its selectors"
        )));
    }
    let compile = move || {
        let compile =
            |(i, text): (usize, SelectorText)| text.compile().map_err(|why| wrong(i, &why));
        read.into_iter().enumerate().map(compile).collect()
    };
    if regexes == 0 {
        return compile();
    }
    tokio::task::spawn_blocking(compile).await.map_err(|error| {
        tracing::error!(cause = %error, "compiling selectors failed");
        Problem::internal()
    })?
}

fn parse_id(id: &str) -> Result<SeriesId, Problem> {
    SeriesId::parse(id).map_err(|why| Problem::invalid_at("id", &why))
}

/// Reads one series.
#[utoipa::path(get, path = "/v1/series/{id}", tag = "series",
    params(("id" = String, Path, description = "The series' id")),
    responses((status = 200, description = "The series", body = SeriesPoint)))]
pub(crate) async fn get_series(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let point = state.engine()?.series.get(parse_id(&id)?).await?;
    let mut out = Vec::new();
    write_point(&point, &mut out);
    Ok(json_response(out))
}

/// Deletes one series. A token that is bound to a role other than the leader's may not; one that
/// is bound to the leader's role must carry the fence of the leader lease, where one is configured.
/// A fence that is sent is always checked.
#[utoipa::path(delete, path = "/v1/series/{id}", tag = "series",
    params(("id" = String, Path, description = "The series' id"), FenceParams),
    responses((status = 200, description = "It is gone", body = DeletedResponse)))]
pub(crate) async fn delete_series(
    State(state): State<AppState>,
    Path(id): Path<String>,
    FenceHeader(fence): FenceHeader,
    Role(bound): Role,
) -> HandlerResult<DeletedResponse> {
    let bound_role = bound.as_ref().map(|bound| &*bound.0);
    state.engine()?.series.delete(parse_id(&id)?, bound_role, fence).await?;
    Ok(Json(DeletedResponse { deleted: true }))
}

/// Which series to delete.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeriesDeletion {
    /// Prometheus selectors; a series is deleted when any of them matches. At least one.
    #[serde(rename = "match")]
    #[schema(example = json!(["{job=\"old\"}"]))]
    matches: Vec<String>,
    /// Only count what would be deleted; false when absent.
    #[schema(nullable = false)]
    dry_run: Option<bool>,
}

/// What a deletion did.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeletionResponse {
    /// How many series matched.
    #[schema(value_type = i64)]
    matched: usize,
    /// How many of them were deleted: none in a dry run.
    #[schema(value_type = i64)]
    deleted: usize,
}

/// Deletes every series that a selector matches, in one step. Who may is as for deleting one, also
/// in a dry run. Where the status says `atomic_batches: false`, readers may see a part of it, and
/// an answer of 5xx may leave a part deleted: sending it again completes it.
#[utoipa::path(post, path = "/v1/series/delete", tag = "series", params(FenceParams),
    responses((status = 200, description = "What was deleted", body = DeletionResponse)))]
pub(crate) async fn delete_matching_series(
    State(state): State<AppState>,
    FenceHeader(fence): FenceHeader,
    Role(bound): Role,
    Json(body): Json<SeriesDeletion>,
) -> HandlerResult<DeletionResponse> {
    let selectors = parse_selectors(&body.matches, "/match", &state).await?;
    let dry_run = body.dry_run.unwrap_or(false);
    let series = &state.engine()?.series;
    let bound_role = bound.as_ref().map(|bound| &*bound.0);
    let matched = series.delete_matching(&selectors, dry_run, bound_role, fence).await?;
    Ok(Json(DeletionResponse { matched, deleted: if dry_run { 0 } else { matched } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_read_back_whatever_the_labels_hold() {
        let cursor = Cursor::single(3, 9);
        let after = SeriesKey { name: "up".into(), labels: "a=\"x\ny\u{1}é\"".into() };
        let page = Page { cursor: cursor.clone(), after: after.clone() };
        let Ok(read) = Page::parse(&page.print()) else { panic!("the page reads back") };
        assert_eq!((read.cursor, read.after), (cursor, after));
        for text in ["", "zz", "00", "0a0a"] {
            assert!(Page::parse(text).is_err(), "{text}");
        }
    }
}
