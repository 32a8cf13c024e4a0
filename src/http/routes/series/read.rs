//! Reading series: a snapshot page by page, or one series.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::parse_id;
use super::parts::{PART_SERIES, Parts, Source, respond};
use super::points::{SeriesPoint, write_point};
use crate::engine::Engine;
use crate::http::body::BodyBudget;
use crate::http::extract::{Json, Path, Query};
use crate::http::problem::Problem;
use crate::http::routes::shared::unknown_page;
use crate::http::selectors::parse_selectors;
use crate::http::state::AppState;
use crate::http::wire::{Count, given};
use crate::model::cursor::Cursor;
use crate::model::hex;
use crate::model::selector::Selector;
use crate::model::series::{Point, SeriesKey};

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
#[expect(dead_code, reason = "describes what `PageSource` writes")]
pub(crate) struct SeriesPageResponse {
    /// The series, sorted by name and labels.
    points: Vec<SeriesPoint<'static>>,
    /// The cursor of the moment when the first series were read. Series further back may be newer. A client that
    /// applies the changes after the cursor to all pages has a consistent state.
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
    budget: BodyBudget,
    Query(query): Query<SeriesQuery>,
) -> Result<Response, Problem> {
    let limit = state.page_items(query.limit)?;
    let selectors = parse_selectors(&query.matches, "match[]", &state).await?;
    let page = query.page.as_deref().map(Page::parse).transpose()?;
    let (cursor, after) = page.map(|page| (page.cursor, page.after)).unzip();
    let engine = Arc::clone(state.engine()?);
    let source = PageSource { engine, selectors, cursor, after, left: limit, more: true };
    let parts = Parts::new(source, Vec::new(), "{\"points\":[");
    respond(parts, &budget).await
}

/// The series of one page.
struct PageSource {
    engine: Arc<Engine>,
    selectors: Vec<Selector>,
    /// The cursor of the first page; `None` before its first series are read.
    cursor: Option<Cursor>,
    /// The last series that was read.
    after: Option<SeriesKey>,
    /// How many more the page may have.
    left: usize,
    more: bool,
}

impl Source for PageSource {
    type Item = Point;

    async fn read(&mut self) -> Result<Vec<Point>, Problem> {
        let limit = self.left.min(PART_SERIES);
        let read = self.engine.series.snapshot(&self.selectors, self.after.as_ref(), limit);
        let snapshot = read.await?;
        self.cursor.get_or_insert(snapshot.cursor);
        self.left = self.left.saturating_sub(snapshot.points.len());
        self.more = snapshot.more;
        if let Some(last) = snapshot.points.last() {
            self.after = Some(last.key.clone());
        }
        Ok(snapshot.points)
    }

    fn at_end(&self) -> bool {
        self.left == 0 || !self.more
    }

    fn write(point: &Point, out: &mut Vec<u8>) {
        write_point(point, out);
    }

    fn tail(&self) -> String {
        let Some(cursor) = &self.cursor else { return "]}".to_owned() };
        match self.after.as_ref().filter(|_| self.more) {
            Some(after) => {
                let next_page = Page { cursor: cursor.clone(), after: after.clone() }.print();
                format!("],\"cursor\":\"{cursor}\",\"next_page\":\"{next_page}\"}}")
            }
            None => format!("],\"cursor\":\"{cursor}\"}}"),
        }
    }
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
