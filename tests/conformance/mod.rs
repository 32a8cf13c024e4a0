//! One suite for all backends: a case is an async function that is named as a sentence, and runs against each
//! of them. A backend is one row below; a resource is one word, and lists its cases itself.

mod aggregates;
pub(crate) mod backends;
mod cache;
mod checkpoints;
mod fills;
pub(crate) mod fixture;
mod generations;
mod leases;
mod limits;
mod locks;
mod outbox;
mod series;
mod validity;

use self::fixture::Fixture;

/// Makes a test of each case, in a module for its resource in a module for the backend.
macro_rules! conformance {
    (backends { $($name:ident: $backend:path,)+ } resources $resources:tt) => {
        $(mod $name {
            conformance! { @resources $backend, $resources }
        })+
    };
    (@resources $backend:path, { $($resource:ident,)+ }) => {
        $(mod $resource {
            use crate::conformance::{Fixture, backends, $resource as cases};
            cases::cases! { tests, $backend }
        })+
    };
}

/// Makes a test of each case that is listed, with a fresh store of the backend.
macro_rules! tests {
    ($backend:path: $($case:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                cases::$case(Fixture::open($backend())).await;
            }
        )+
    };
}

conformance! {
    backends {
        memory: backends::embedded::in_memory,
        embedded: backends::embedded::on_disk,
        redis: backends::redis::single,
        redis_cluster: backends::redis::cluster,
    }
    resources { series, locks, leases, checkpoints, generations, cache, fills, limits, validity, aggregates, }
}

/// What depends on how many shards there are more than other resources do.
mod sharded {
    conformance! {
        backends {
            redis_one_shard: backends::redis::one_shard,
        }
        resources { aggregates, }
    }
}

/// What only some backends have.
mod of_some {
    conformance! {
        backends {
            memory: backends::embedded::in_memory,
            embedded: backends::embedded::on_disk,
        }
        resources { outbox, }
    }
}
