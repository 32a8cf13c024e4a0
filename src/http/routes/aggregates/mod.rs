//! Aggregates: values that many writers merge into, under the keys of declared pipelines.

mod batch;
mod events;
mod keys;
mod merge;
mod pipelines;
mod read;
mod stream;
mod updates;
mod writer;

use utoipa_axum::routes;

use self::merge::SequenceGap;
use crate::http::admission::RequestClass;
use crate::http::problem::Code;
use crate::http::route::{Resource, read, write};

/// Returns the rows of aggregates. Batches have paths outside the key space, apart from merges: so an entity that is
/// called `merge` has rows of its own.
pub(super) fn resource() -> Resource {
    Resource::new("aggregates", "Values that many writers merge into: totals, sketches, top lists")
        .problem_member::<SequenceGap>("gap", "With `sequence_gap`: the number that was expected.")
        .route(read(routes!(pipelines::list_pipelines)).compressed())
        .route(write(routes!(merge::merge_aggregates)).body().fenced().fails(merge::CODES))
        .route(read(routes!(read::get_aggregate)).fails(read::CODES))
        .route(write(routes!(read::delete_aggregate)).fenced().fails(read::DELETION_CODES))
        .route(read(routes!(read::get_aggregate_named_merge)).fails(read::CODES))
        .route(
            write(routes!(read::delete_aggregate_named_merge)).fenced().fails(read::DELETION_CODES),
        )
        .route(read(routes!(read::list_aggregates)).fails(batch::CODES).compressed())
        .route(read(routes!(batch::get_aggregates)).body().fails(batch::CODES).compressed())
        .route(
            read(routes!(batch::get_aggregate_windows))
                .body()
                .fails(batch::WINDOW_CODES)
                .compressed(),
        )
        .route(read(routes!(batch::get_aggregate_range)).body().fails(batch::CODES).compressed())
        .route(write(routes!(events::mark_events_seen)).body().fails(&[
            Code::Unsupported,
            Code::TooManyEventIds,
            Code::PartlyApplied,
        ]))
}

/// Returns the rows of streams, which have a tag of their own: generated clients can't read them.
pub(super) fn streams() -> Resource {
    let streams = "Notes of what was merged into pipelines with a hook, as server-sent events";
    Resource::new("note-streams", streams)
        .route(read(routes!(stream::stream_notes)).class(RequestClass::Wait).fails(stream::CODES))
}
