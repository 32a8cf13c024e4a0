//! Reading series: a snapshot page by page, or one series.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::parse_id;
use super::points::{SeriesPoint, points_body};
use super::selectors::parse_selectors;
use crate::http::extract::{Json, Path, Query, json_response};
use crate::http::problem::Problem;
use crate::http::routes::shared::unknown_page;
use crate::http::state::AppState;
use crate::http::wire::{Count, given};
use crate::model::cursor::Cursor;
use crate::model::hex;
use crate::model::series::SeriesKey;

/// Which series to read.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesQuery {
    /// Prometheus selectors: a series is returned when any of them matches. Without selectors all series are returned.
    #[serde(rename = "match[]", default)]
    #[param(required = false)]
    matches: Vec<String>,
    /// The maximum number of series in the response.
    #[serde(default, deserialize_with = "given")]
    #[param(value_type = Option<i64>, required = false, nullable = false, minimum = 1)]
    limit: Option<Count>,
    /// The `next_page` of the previous page.
    #[param(required = false, nullable = false)]
    page: Option<String>,
}

/// A page of a snapshot.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what `points_body` writes")]
pub(crate) struct SeriesPageResponse {
    /// The series, sorted by name and labels.
    points: Vec<SeriesPoint<'static>>,
    /// The cursor of the moment when the first page was read. A client that applies the changes after it to all pages
    /// has a consistent state.
    cursor: String,
    /// The `page` of the next request; absent on the last page.
    #[schema(required = false, nullable = false)]
    next_page: Option<String>,
}

/// Reads a page of the live series. A client that reads all pages, and then applies the changes after the cursor of the
/// first page, has a consistent snapshot.
#[utoipa::path(get, path = "/v1/series", params(SeriesQuery),
    responses((status = 200, description = "A page of the snapshot", body = SeriesPageResponse)))]
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

/// Where the next page begins, and the cursor of the first page.
struct Page {
    cursor: Cursor,
    after: SeriesKey,
}

impl Page {
    fn print(&self) -> String {
        let Self { cursor, after } = self;
        // Neither cursors nor metric names contain a line feed; labels may, so they come last.
        hex::encode(format!("{cursor}\n{}\n{}", after.name, after.labels).as_bytes())
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let parse = || {
            let text = String::from_utf8(hex::decode(text)?).ok()?;
            let mut parts = text.splitn(3, '\n');
            let cursor = Cursor::parse(parts.next()?).ok()?;
            let after = SeriesKey { name: parts.next()?.into(), labels: parts.next()?.into() };
            Some(Self { cursor, after })
        };
        parse().ok_or_else(unknown_page)
    }
}

/// Reads one series.
#[utoipa::path(get, path = "/v1/series/{id}",
    params(("id" = String, Path, description = "The series' id")),
    responses((status = 200, description = "The series", body = SeriesPoint)))]
pub(crate) async fn get_series(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let point = state.engine()?.series.get(parse_id(&id)?).await?;
    Ok(Json(SeriesPoint::new(&point)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_read_back_whatever_the_labels_contain() {
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
