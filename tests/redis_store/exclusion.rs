//! Many callers on two replicas want the same: exactly one gets it.

use std::time::Duration;

use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::store::AcquireOutcome;

use super::replica::{Place, Replica};

const CALLERS: usize = 50;

fn pair(place: &Place) -> [Replica; 2] {
    [place.replica(None), place.replica(None)]
}

async fn one_lease(place: Place) {
    let replicas = pair(&place);
    for round in 0..20 {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let replica = replicas[caller % 2].clone();
                let (lease, holder) = (format!("lease {round}"), format!("holder {caller}"));
                tokio::spawn(async move { replica.acquire(&lease, &holder).await })
            })
            .collect();
        let mut winners = Vec::new();
        let mut seen = Vec::new();
        for caller in callers {
            match caller.await.expect("does not panic").expect("the store works") {
                AcquireOutcome::Acquired(lease) => winners.push(lease),
                AcquireOutcome::Held(lease) => seen.push(lease),
            }
        }
        assert_eq!(winners.len(), 1);
        assert!(seen.iter().all(|lease| *lease == winners[0]), "they saw another holder");
    }
}

async fn one_lock(place: Place) {
    let replicas = pair(&place);
    let ttl = Duration::from_secs(30);
    let jobs: Vec<LockKey> = (0..30)
        .map(|job| LockKey::parse(LockKind::Job, format!("job {job}")).expect("valid"))
        .collect();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let replica = replicas[caller % 2].clone();
            // Some of them, in an order of its own, so that callers meet in the middle.
            let mut wanted = jobs.clone();
            wanted.rotate_left(caller * 7 % jobs.len());
            if caller % 3 == 0 {
                wanted.truncate(5);
            }
            tokio::spawn(async move {
                let outcomes =
                    replica.0.locks.acquire(wanted.clone(), ttl, ReleaseToken([0; 16])).await;
                let outcomes = outcomes.expect("the store works");
                wanted.into_iter().zip(outcomes).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut won = Vec::new();
    for caller in callers {
        for (job, outcome) in caller.await.expect("does not panic") {
            if outcome.acquired {
                won.push(job.key);
            }
        }
    }
    won.sort();
    let mut expected: Vec<String> = jobs.into_iter().map(|job| job.key).collect();
    expected.sort();
    assert_eq!(won, expected, "each job once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_callers_on_two_replicas_gets_a_lease() {
    one_lease(Place::single()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_callers_on_two_replicas_of_a_cluster_gets_a_lease() {
    one_lease(Place::cluster()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_callers_on_two_replicas_gets_a_lock() {
    one_lock(Place::single()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_callers_on_two_replicas_of_a_cluster_gets_a_lock() {
    one_lock(Place::cluster()).await;
}
