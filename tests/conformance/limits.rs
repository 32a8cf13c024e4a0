//! What every store must do about the limits on the number of locks, leases, checkpoints and generations.

use std::time::Duration;

use futures_util::future::join_all;
use holdall::model::checkpoints::CheckpointKey;
use holdall::model::generations::GenerationKey;
use holdall::model::leases::{Claimant, Holder, LeaseName};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::time::Timestamp;
use holdall::store::{ErrorKind, Limited, StoreResult, StoreSettings, Stores};

use super::fixture::{CHECKPOINT_RETENTION, Fixture};

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            racing_callers_never_make_more_locks_than_there_may_be,
            racing_callers_never_make_more_leases_than_there_may_be,
            racing_callers_never_make_more_checkpoints_than_there_may_be,
            racing_callers_never_make_more_generations_than_there_may_be,
            a_batch_without_room_for_all_of_it_changes_nothing,
        }
    };
}
pub(super) use cases;

/// As many for each shard.
const LIMIT: usize = 12;
const CALLERS: usize = 60;
const TTL: Duration = Duration::from_secs(30);

fn limit(settings: &mut StoreSettings) {
    settings.locks.max_locks = LIMIT;
    settings.leases.max_leases = LIMIT;
    settings.checkpoints.max_checkpoints = LIMIT;
    settings.generations.max_generations = LIMIT;
}

/// Makes or renews the n-th entry of a resource.
async fn write(stores: &Stores, of: Limited, n: usize) -> StoreResult<()> {
    let name = n.to_string();
    match of {
        Limited::Locks => {
            let key = LockKey::parse(LockKind::Job, name).expect("valid");
            stores.locks.acquire(vec![key], TTL, ReleaseToken([0; 16])).await.map(drop)
        }
        Limited::Leases => {
            let holder = Holder::parse("holder").expect("valid");
            let name = LeaseName::parse(name).expect("valid");
            stores.leases.acquire(&name, &Claimant::anonymous(holder), TTL).await.map(drop)
        }
        Limited::Checkpoints => {
            let key = CheckpointKey::parse(&name, "repo").expect("valid");
            let at = Timestamp::from_nanos(1);
            stores.checkpoints.set(key, at, false, None).await.map(drop)
        }
        Limited::Generations => {
            let key = GenerationKey::parse(name).expect("valid");
            stores.generations.bump(vec![key]).await.map(drop)
        }
        Limited::Aggregates | Limited::EventIds | Limited::Producers => {
            unreachable!("the cases of aggregates are beside the others of aggregates")
        }
    }
}

/// Returns how many entries there are, and how many there may be.
async fn status(stores: &Stores, of: Limited) -> (usize, usize) {
    let status = stores.operation.status().await.expect("the store works");
    let found = status.resources.iter().find(|found| found.resource == of.as_str());
    let found = found.expect("is reported");
    let count = |number: u64| usize::try_from(number).expect("is small");
    (count(found.entries), count(found.limit.expect("has a limit")))
}

/// Makes many entries at the same time; returns those that were made.
async fn race(stores: &Stores, of: Limited) -> Vec<usize> {
    let writers = (0..CALLERS).map(|n| {
        let stores = stores.clone();
        tokio::spawn(async move { (n, write(&stores, of, n).await) })
    });
    let mut made = Vec::new();
    for outcome in join_all(writers).await {
        match outcome.expect("does not panic") {
            (n, Ok(())) => made.push(n),
            (_, Err(error)) => assert_eq!(error.kind, ErrorKind::LimitReached(of), "{error}"),
        }
    }
    made
}

async fn keeps_the_limit(fixture: Fixture, of: Limited) {
    let fixture = fixture.wipe_with(limit).await;
    let stores = &fixture.stores;
    let is_exact = stores.operation.capabilities().exact_budget;
    let made = race(stores, of).await;
    assert_eq!(status(stores, of).await, (made.len(), LIMIT));
    assert!(if is_exact { made.len() == LIMIT } else { made.len() <= LIMIT });
    // What is there can be written again, and takes no more room.
    for n in &made {
        write(stores, of, *n).await.expect("needs no room");
    }
    let one_more = write(stores, of, CALLERS).await;
    assert!(!is_exact || one_more.is_err());
    // What has expired does not count, also before it is purged.
    let before = status(stores, of).await.0;
    if of == Limited::Generations {
        let removed = stores.generations.cleanup(Duration::ZERO).await.expect("the store works");
        assert_eq!(usize::try_from(removed), Ok(before));
    } else {
        fixture.pass(2 * TTL.max(CHECKPOINT_RETENTION)).await;
    }
    assert_eq!(status(stores, of).await.0, 0);
    assert_eq!(race(stores, of).await.len(), before);
    assert_eq!(status(stores, of).await.0, before);
}

pub(super) async fn racing_callers_never_make_more_locks_than_there_may_be(fixture: Fixture) {
    keeps_the_limit(fixture, Limited::Locks).await;
}

pub(super) async fn racing_callers_never_make_more_leases_than_there_may_be(fixture: Fixture) {
    keeps_the_limit(fixture, Limited::Leases).await;
}

pub(super) async fn racing_callers_never_make_more_checkpoints_than_there_may_be(fixture: Fixture) {
    keeps_the_limit(fixture, Limited::Checkpoints).await;
}

pub(super) async fn racing_callers_never_make_more_generations_than_there_may_be(fixture: Fixture) {
    keeps_the_limit(fixture, Limited::Generations).await;
}

pub(super) async fn a_batch_without_room_for_all_of_it_changes_nothing(fixture: Fixture) {
    let fixture = fixture.wipe_with(limit).await;
    let stores = &fixture.stores;
    if !stores.operation.capabilities().atomic_batches {
        return;
    }
    let lock = |n: usize| LockKey::parse(LockKind::Job, n.to_string()).expect("valid");
    let key = |n: usize| GenerationKey::parse(n.to_string()).expect("valid");
    // Twice the same key takes room once.
    let fits: Vec<usize> = (0..LIMIT - 2).chain([0]).collect();
    let locks = fits.iter().copied().map(lock).collect();
    stores.locks.acquire(locks, TTL, ReleaseToken([0; 16])).await.expect("there is room");
    stores.generations.bump(fits.into_iter().map(key).collect()).await.expect("there is room");
    let too_many = 1..=LIMIT;
    let error = stores
        .locks
        .acquire(too_many.clone().map(lock).collect(), TTL, ReleaseToken([0; 16]))
        .await;
    assert_eq!(error.expect_err("fails").kind, ErrorKind::LimitReached(Limited::Locks));
    let error = stores.generations.bump(too_many.map(key).collect()).await;
    assert_eq!(error.expect_err("fails").kind, ErrorKind::LimitReached(Limited::Generations));
    for of in [Limited::Locks, Limited::Generations] {
        assert_eq!(status(stores, of).await.0, LIMIT - 2);
    }
    let numbers = stores.generations.snapshot(&[key(1)]).await.expect("the store works");
    assert_eq!(numbers[0].number, 1);
}
