//! A fenced write has two steps: the lease's shard is asked, then another shard writes. Whatever
//! happens in between, a former holder never writes after its successor was answered.

use std::sync::Arc;
use std::time::Duration;

use holdall::clock::{ManualClock, SharedClock};
use holdall::model::leases::{Claimant, Fence, Holder};
use holdall::model::time::Timestamp;

use super::replica::{Pausing, Place, Replica, TTL, above, name, orgs};

/// Two replicas, of which the first one sleeps when it is told to.
struct Two {
    sleeper: Replica,
    other: Replica,
    pauses: Arc<Pausing>,
    clock: Arc<ManualClock>,
}

impl Two {
    async fn open(place: &Place) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1_800_000_000_000_000_000)));
        let pauses = Pausing::new(&clock);
        let sleeper = place.replica(Some(Arc::clone(&pauses) as SharedClock));
        let other = place.replica(Some(Arc::clone(&clock) as SharedClock));
        // So that every shard was born and every script is known: a call has exactly its steps then.
        let fence = sleeper.lead("warm", "me").await;
        for org in orgs() {
            assert!(sleeper.write(&org, 0, Some(&fence)).await);
        }
        Self { sleeper, other, pauses, clock }
    }

    /// Lets the sleeper write under `fence` and sleep between the two steps, while `event` happens.
    async fn write_around(
        &self,
        org: &str,
        fence: &Fence,
        event: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        self.pauses.after_the_first_step(event);
        let (sleeper, org, fence) = (self.sleeper.clone(), org.to_owned(), fence.clone());
        let write = tokio::spawn(async move { sleeper.write(&org, 1, Some(&fence)).await });
        let written = write.await.expect("does not panic");
        assert!(self.pauses.happened(), "the write had one step only");
        written
    }
}

async fn refused_after_a_takeover(place: Place) {
    let two = Two::open(&place).await;
    for org in orgs() {
        let old = two.sleeper.lead("leader", "me").await;
        let (other, at) = (two.other.clone(), org.clone());
        // The same holder, so that no time has to pass.
        let takeover = async move { drop(other.lead("leader", "me").await) };
        assert!(!two.write_around(&org, &old, takeover).await, "{org}");
        assert_eq!(two.other.read(&org).await, Some(0));
        let old = two.sleeper.lead("leader", "me").await;
        let other = two.other.clone();
        let takeover_and_write = async move {
            let new = other.lead("leader", "me").await;
            assert!(other.write(&at, 2, Some(&new)).await);
        };
        assert!(!two.write_around(&org, &old, takeover_and_write).await, "{org}");
        assert_eq!(two.other.read(&org).await, Some(2));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_slept_through_a_takeover_is_refused_in_every_shard() {
    refused_after_a_takeover(Place::single()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_slept_through_a_takeover_is_refused_in_every_shard_of_a_cluster() {
    refused_after_a_takeover(Place::cluster()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_slept_through_a_release_is_refused_in_every_shard() {
    let two = Two::open(&Place::single()).await;
    for org in orgs() {
        let old = two.sleeper.lead("leader", "me").await;
        let (other, fence) = (two.other.clone(), old.clone());
        let release = async move { assert!(other.release(&fence).await) };
        assert!(!two.write_around(&org, &old, release).await, "{org}");
        assert_eq!(two.other.read(&org).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_slept_past_the_leases_end_is_refused() {
    let two = Two::open(&Place::single()).await;
    for org in orgs() {
        let old = two.sleeper.lead("leader", "me").await;
        let clock = Arc::clone(&two.clock);
        let over = async move { clock.advance(TTL) };
        assert!(!two.write_around(&org, &old, over).await, "{org}");
        let lives = two.sleeper.lead("leader", "me").await;
        let clock = Arc::clone(&two.clock);
        let nearly = async move { clock.advance(TTL - Duration::from_millis(1)) };
        assert!(two.write_around(&org, &lives, nearly).await, "{org}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_slept_longer_than_shards_should_have_to_remember_is_refused() {
    let two = Two::open(&Place::single()).await;
    let me = Holder::parse("me").expect("valid");
    let day = Duration::from_secs(24 * 3600);
    two.sleeper
        .0
        .leases
        .acquire(&name("leader"), &Claimant::anonymous(me), 100 * day)
        .await
        .expect("the store works");
    let held = two.sleeper.lease("leader").await.expect("is held");
    let fence = Fence { lease: name("leader"), token: held.token };
    for (slept, written) in [(59, true), (60, false)] {
        let clock = Arc::clone(&two.clock);
        let sleep = async move { clock.advance(Duration::from_secs(slept)) };
        assert_eq!(two.write_around("org", &fence, sleep).await, written, "{slept} s");
    }
    assert!(two.sleeper.write("org", 3, Some(&fence)).await, "it still holds the lease");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_grow_over_the_leases_of_all_shards_while_the_clock_stands() {
    let two = Two::open(&Place::single()).await;
    let mut last = 0;
    for n in 0..32 {
        let replica = if n % 2 == 0 { &two.sleeper } else { &two.other };
        let fence = replica.lead(&format!("lease {n}"), "me").await;
        assert!(fence.token.0 > last);
        last = fence.token.0;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletions_are_fenced_as_writes_are() {
    let two = Two::open(&Place::single()).await;
    for org in orgs() {
        let old = two.sleeper.lead("leader", "me").await;
        let other = two.other.clone();
        two.pauses.after_the_first_step(async move {
            other.lead("leader", "me").await;
        });
        let (sleeper, at) = (two.sleeper.clone(), org.clone());
        let deletion = tokio::spawn(async move { sleeper.delete(&at, Some(&old)).await });
        assert_eq!(deletion.await.expect("does not panic"), None, "refused");
        assert!(two.pauses.happened());
        assert_eq!(two.other.read(&org).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_one_replica_fences_on_the_other() {
    let two = Two::open(&Place::single()).await;
    let old = two.sleeper.lead("leader", "me").await;
    for org in orgs() {
        assert!(two.other.write(&org, 1, Some(&old)).await, "{org}");
    }
    let new = two.sleeper.lead("leader", "me").await;
    for org in orgs() {
        assert!(!two.other.write(&org, 2, Some(&old)).await, "{org}");
        assert!(!two.other.write(&org, 2, Some(&above(&new))).await, "{org}");
        assert!(two.other.write(&org, 3, Some(&new)).await, "{org}");
    }
    assert!(!two.other.release(&old).await, "it is not theirs any more");
    assert!(two.other.release(&new).await);
    for org in orgs() {
        assert!(!two.sleeper.write(&org, 4, Some(&new)).await, "{org}");
        assert_eq!(two.sleeper.read(&org).await, Some(3));
    }
}

/// Ten leaders, one after the other, on two replicas; each writes on both until it is refused.
async fn never_overwritten(place: Place) {
    let replicas = [place.replica(None), place.replica(None)];
    let orgs = orgs();
    let mut leaders = Vec::new();
    for leader in 1..=10 {
        // The same holder, so that the lease changes hands at once.
        let fence = replicas[leader % 2].lead("leader", "me").await;
        let leader = i64::try_from(leader).expect("small");
        for org in &orgs {
            assert!(replicas[0].write(org, leader, Some(&fence)).await);
        }
        for replica in &replicas {
            let (replica, orgs, fence) = (replica.clone(), orgs.clone(), fence.clone());
            leaders.push(tokio::spawn(async move {
                while replica.write(&orgs[0], leader, Some(&fence)).await {
                    for org in &orgs[1..] {
                        replica.write(org, leader, Some(&fence)).await;
                    }
                }
            }));
        }
        for org in &orgs {
            assert_eq!(replicas[1].read(org).await, Some(leader), "{org}: an earlier one wrote");
        }
    }
    assert!(
        replicas[0]
            .release(&Fence {
                lease: name("leader"),
                token: replicas[1].lease("leader").await.expect("is held").token,
            })
            .await
    );
    for leader in leaders {
        leader.await.expect("does not panic");
    }
    for org in &orgs {
        assert_eq!(replicas[0].read(org).await, Some(10), "{org}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_is_never_overwritten_by_the_former_holder_on_any_replica() {
    never_overwritten(Place::single()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_is_never_overwritten_by_the_former_holder_on_a_cluster() {
    never_overwritten(Place::cluster()).await;
}
