//! The cache: values that are valid until their generation is bumped.

mod batch;
mod lookup;
mod request;
mod tags;
mod write;

use utoipa_axum::routes;

use self::lookup::CacheMiss;
use crate::http::admission::RequestClass;
use crate::http::problem::Code;
use crate::http::route::{Resource, read, write};
use crate::http::wire::GenerationState;

/// Returns the rows of the cache. Batches have paths outside the key space, so that a key can have any name.
pub(super) fn resource() -> Resource {
    Resource::new("cache", "Values that are valid until their generation is bumped")
        .problem_member::<CacheMiss>("miss", "With `cache_miss`: the reason, and what a put needs.")
        .problem_member::<GenerationState>(
            "moved",
            "With `generation_moved`: the current generation.",
        )
        .route(
            read(routes!(lookup::get_cached_value))
                .class(RequestClass::Wait)
                // A fill claim is a write of the store.
                .fails(&[Code::CacheMiss, Code::StorageFull, Code::Stopping]),
        )
        .route(write(routes!(write::put_cached_value)).body().fails(write::CODES))
        .route(write(routes!(write::delete_cached_value)).fails(&[Code::NotFound]))
        .route(read(routes!(batch::get_cached_values)).body().fails(&[Code::ResponseTooLarge]))
        .route(write(routes!(batch::put_cached_values)).body().fails(&[Code::GenerationRequired]))
}
