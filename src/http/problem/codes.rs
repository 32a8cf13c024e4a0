//! Every problem code: its status and its meaning, in one table.
//!
//! Not which route sends which code: each row of `routes` lists its own. The OpenAPI document, the metrics and
//! the handlers all read this table. Invariant: one condition has one code, and a code never changes its meaning.

use axum::http::StatusCode;

/// Declares [`Code`] and its table: variant, status, the text that clients see, and what it means to them.
macro_rules! codes {
    ($($variant:ident, $status:ident, $text:literal, $meaning:literal;)+) => {
        /// Says by a stable word why a request failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// All codes, in the order of their statuses.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the status of responses with this code.
            pub(crate) const fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)+
                }
            }

            /// Returns the text that stands in `code`.
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// Returns what the code means, in a sentence without a full stop.
            pub(crate) const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning,)+
                }
            }
        }
    };
}

codes! {
    InvalidRequest, BAD_REQUEST, "invalid_request",
        "a part of the request is invalid; `errors` names the part, where possible";
    MalformedBody, BAD_REQUEST, "malformed_body",
        "the body is not in the format that its Content-Type names";
    Unauthorized, UNAUTHORIZED, "unauthorized",
        "the request carries no known bearer token";
    Forbidden, FORBIDDEN, "forbidden",
        "the token lacks the scope of this route, or the address is not allowed";
    HostRefused, FORBIDDEN, "host_refused",
        "there are no access tokens, and the request names the server by a host name that a stranger could own";
    OriginRefused, FORBIDDEN, "origin_refused",
        "there are no access tokens, and a web page of another origin made a browser send the request";
    GuardRefused, FORBIDDEN, "guard_refused",
        "the writer's role, or the role that the token is bound to, may not do this";
    SeriesOfAnotherRole, FORBIDDEN, "series_of_another_role",
        "series were written by roles whose series the token's role may not change; `errors` names them, and nothing \
         was changed";
    NotFound, NOT_FOUND, "not_found",
        "the path does not exist, or nothing is held under this key";
    CacheMiss, NOT_FOUND, "cache_miss",
        "there is no valid value; `miss` has the reason, and the fence for a put";
    MethodNotAllowed, METHOD_NOT_ALLOWED, "method_not_allowed",
        "the path exists, but not with this method";
    BodyTimeout, REQUEST_TIMEOUT, "body_timeout",
        "the body did not arrive in time";
    LockNotHeld, CONFLICT, "lock_not_held",
        "the lock is free, or held under another release token";
    LeaseNotHeld, CONFLICT, "lease_not_held",
        "the lease is not held under this fencing token; acquire it again";
    CheckpointNotLater, CONFLICT, "checkpoint_not_later",
        "`if_later` is set, and the checkpoint is not later than the one that is held";
    EventConflict, CONFLICT, "event_conflict",
        "an event id came before with another content; `errors` points at the update, and nothing was changed";
    SequenceGap, CONFLICT, "sequence_gap",
        "batches of this producer are missing before this one; `gap` has the number that was expected";
    CursorGone, GONE, "cursor_gone",
        "the changes after this cursor are no longer known; read a new snapshot";
    FenceRefused, PRECONDITION_FAILED, "fence_refused",
        "the lease that fences this write is not held under this fencing token; stop writing";
    GenerationMoved, PRECONDITION_FAILED, "generation_moved",
        "the generation was bumped after it was read; `moved` has the current one";
    BodyTooLarge, PAYLOAD_TOO_LARGE, "body_too_large",
        "the body, as sent or decompressed, is larger than the limit";
    TooManyPoints, PAYLOAD_TOO_LARGE, "too_many_points",
        "the push has more points than one push may have";
    TooManyUpdates, PAYLOAD_TOO_LARGE, "too_many_updates",
        "the merge has more updates than one merge may have";
    ValueTooLarge, PAYLOAD_TOO_LARGE, "value_too_large",
        "the value is larger than the limit";
    ResponseTooLarge, PAYLOAD_TOO_LARGE, "response_too_large",
        "the values together are larger than one response may be; ask for fewer";
    UnsupportedMediaType, UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type",
        "the Content-Type or Content-Encoding of the body is not supported";
    InvalidPoints, UNPROCESSABLE_ENTITY, "invalid_points",
        "points of the push are invalid; `errors` points at them, and nothing was changed";
    InvalidUpdates, UNPROCESSABLE_ENTITY, "invalid_updates",
        "updates of the merge are invalid; `errors` points at them, and nothing was changed";
    MergeRefused, UNPROCESSABLE_ENTITY, "merge_refused",
        "values can't be merged: the result would overflow, or be larger than its pipeline allows; nothing was changed";
    NoDeduplication, UNPROCESSABLE_ENTITY, "no_deduplication",
        "the pipeline has no `dedup`, so it remembers neither event ids nor producers; nothing was changed";
    SeriesBudgetExceeded, UNPROCESSABLE_ENTITY, "series_budget_exceeded",
        "the push has more new series than there is room for; nothing was changed";
    SeriesBytesExceeded, UNPROCESSABLE_ENTITY, "series_bytes_exceeded",
        "the push has more bytes of new names, labels and help texts than there is room for; nothing was changed";
    TooManyNamespaces, UNPROCESSABLE_ENTITY, "too_many_namespaces",
        "the value is in a new namespace, and the limit on namespaces is reached";
    FenceRequired, PRECONDITION_REQUIRED, "fence_required",
        "a write of this role must carry a fence: that of the leader lease, or where the role can't lead, that of any lease";
    GenerationRequired, PRECONDITION_REQUIRED, "generation_required",
        "a put must carry the fence, or the generation, that was read before the value was made";
    HeadTooLarge, REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large",
        "the first line and the headers of the request are larger than the limit";
    Internal, INTERNAL_SERVER_ERROR, "internal",
        "the server failed; its log says why";
    Unsupported, NOT_IMPLEMENTED, "unsupported",
        "the configured store does not support this";
    Overloaded, SERVICE_UNAVAILABLE, "overloaded",
        "the server is at one of its limits on concurrent requests, waiting requests or memory";
    RequestTimeout, SERVICE_UNAVAILABLE, "request_timeout",
        "the request took too long; it may have been carried out or not";
    Starting, SERVICE_UNAVAILABLE, "starting",
        "the server is starting: the store is still loading, or the first page of /metrics is not complete yet";
    Stopping, SERVICE_UNAVAILABLE, "stopping",
        "the server is shutting down";
    StoreUnavailable, SERVICE_UNAVAILABLE, "store_unavailable",
        "the store can't be reached, or can't serve now";
    StoreTimeout, SERVICE_UNAVAILABLE, "store_timeout",
        "the store did not respond in time; the request may have been carried out or not";
    StoreThrottled, SERVICE_UNAVAILABLE, "store_throttled",
        "the store is too busy";
    PartlyApplied, SERVICE_UNAVAILABLE, "partly_applied",
        "a part of the batch was applied, at least `applied` of its points, keys or series; send it again";
    TooManyLocks, INSUFFICIENT_STORAGE, "too_many_locks",
        "there is no room for more locks until some expire; nothing was changed";
    TooManyLeases, INSUFFICIENT_STORAGE, "too_many_leases",
        "there is no room for more leases until some end; nothing was changed";
    TooManyCheckpoints, INSUFFICIENT_STORAGE, "too_many_checkpoints",
        "there is no room for more checkpoints until some are deleted or expire; nothing was changed";
    TooManyGenerations, INSUFFICIENT_STORAGE, "too_many_generations",
        "there is no room for more keys with a generation until some are cleaned up";
    TooManyAggregates, INSUFFICIENT_STORAGE, "too_many_aggregates",
        "there is no room for more values until some are deleted or expire; nothing was changed";
    TooManyEventIds, INSUFFICIENT_STORAGE, "too_many_event_ids",
        "there is no room to remember more event ids until the deduplication period of some ends; nothing was changed";
    TooManyProducers, INSUFFICIENT_STORAGE, "too_many_producers",
        "there is no room to remember more producers until some send nothing for a deduplication period; nothing was \
         changed";
    StorageFull, INSUFFICIENT_STORAGE, "storage_full",
        "the store has no room left";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_words_in_the_order_of_their_statuses() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(Code::ALL.is_sorted_by_key(|code| code.status().as_u16()));
        for code in Code::ALL {
            let word = code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            assert!(word, "{code:?}");
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
            assert!(!code.meaning().ends_with('.'), "{code:?}");
        }
    }
}
