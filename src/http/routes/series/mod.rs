//! Series: pushed, read, followed, deleted.

mod changes;
mod delete;
mod parts;
mod points;
mod push;
mod read;
mod stream;

use utoipa_axum::routes;

use crate::http::admission::RequestClass;
use crate::http::problem::{Code, Problem, ProblemPart};
use crate::http::route::{Resource, read, write};
use crate::model::series::SeriesId;

/// Returns the rows of series. Their ids are hexadecimal, so that no id is spelled like another path.
pub(super) fn resource() -> Resource {
    Resource::new("series", "The newest sample of every series, and the changes")
        .route(
            write(routes!(push::push_series))
                .body()
                .class(RequestClass::Upload)
                .fenced()
                .fails(push::CODES),
        )
        .route(read(routes!(read::list_series)).compressed())
        .route(read(routes!(changes::get_series_cursor)))
        .route(
            read(routes!(changes::get_series_delta))
                .class(RequestClass::Wait)
                .compressed()
                .fails(&[Code::CursorGone]),
        )
        .route(read(routes!(read::get_series)).fails(&[Code::NotFound]))
        .route(write(routes!(delete::delete_series)).fenced().fails(delete::CODES))
        .route(
            write(routes!(delete::delete_matching_series))
                .body()
                .fenced()
                .fails(delete::MATCHING_CODES),
        )
}

/// Returns the rows of streams, which have a tag of their own: generated clients can't read them.
pub(super) fn streams() -> Resource {
    Resource::new("streams", "Changes of series, as server-sent events").route(
        read(routes!(stream::stream_series)).class(RequestClass::Wait).fails(&[Code::CursorGone]),
    )
}

/// The problem of a request that would change series of other roles, which are `total`.
fn others_series(parts: Vec<ProblemPart>, total: usize) -> Problem {
    Problem::new(Code::SeriesOfAnotherRole)
        .detail(format!("{total} series are of roles that this token may not change"))
        .parts(parts, total)
}

fn parse_id(id: &str) -> Result<SeriesId, Problem> {
    SeriesId::parse(id).map_err(|why| Problem::invalid_at("id", &why))
}
