//! Shards that know different things: one was wiped, one lost its last writes, one can't be told.

use std::time::{SystemTime, UNIX_EPOCH};

use holdall::store::AcquireOutcome;

use super::replica::{Place, SHARDS, TTL, name, orgs};
use crate::harness::redis::Redis;

/// A Redis of its own with two replicas that go by its time.
struct Own {
    redis: Redis,
    place: Place,
}

impl Own {
    fn start() -> Self {
        let redis = Redis::start(&[]);
        let place = Place::on(&[redis.url()]);
        Self { redis, place }
    }

    /// Runs a command on something in a shard.
    fn cli(&self, command: &str, shard: usize, key: &str, more: &[&str]) -> String {
        let key = self.place.key(shard, key);
        let mut words = vec![command, &key];
        words.extend(more);
        self.redis.cli(&words).trim_end().to_owned()
    }

    /// Returns the shard that a lease lies in.
    fn home(&self, lease: &str) -> usize {
        let has = |shard: &usize| self.cli("hexists", *shard, "leases", &[lease]) == "1";
        (0..SHARDS).find(has).expect("it is held")
    }

    /// Forgets all that a shard holds.
    fn wipe(&self, shard: usize) {
        let pattern = self.place.key(shard, "*");
        let keys = self.redis.cli(&["keys", &pattern]);
        for key in keys.lines() {
            self.redis.cli(&["del", key]);
        }
        assert_eq!(self.redis.cli(&["keys", &pattern]).trim(), "");
    }

    /// Returns the lowest token of a lease that a shard accepts.
    fn lowest(&self, shard: usize, lease: &str) -> Option<i64> {
        self.cli("zscore", shard, "fences", &[lease]).parse().ok()
    }
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_micros()).expect("fits")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shard_is_told_of_an_acquisition_and_of_a_release() {
    let own = Own::start();
    let replica = own.place.replica(None);
    // So many that every shard is the home of some of them.
    for lease in orgs() {
        let fence = replica.lead(&lease, "me").await;
        for shard in 0..SHARDS {
            assert_eq!(own.lowest(shard, &lease), Some(fence.token.0), "shard {shard}");
        }
        assert!(replica.release(&fence).await);
        for shard in 0..SHARDS {
            assert!(own.lowest(shard, &lease) > Some(fence.token.0), "shard {shard}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_lost_a_takeover_does_not_let_the_former_holder_write() {
    let own = Own::start();
    let (a, b) = (own.place.replica(None), own.place.replica(None));
    let old = a.lead("leader", "me").await;
    let home = own.home("leader");
    let record = own.cli("hget", home, "leases", &["leader"]);
    let new = b.lead("leader", "me").await;
    // The lease's shard stands as it was before the takeover, and so it gives a pass.
    own.cli("hset", home, "leases", &["leader", &record]);
    assert_eq!(a.lease("leader").await.expect("is held").token, old.token);
    for org in orgs() {
        assert!(!a.write(&org, 1, Some(&old)).await, "{org}");
        assert!(!b.write(&org, 1, Some(&new)).await, "{org}: it lost the lease");
    }
    let next = b.lead("leader", "me").await;
    assert!(next.token > new.token);
    for org in orgs() {
        assert!(a.write(&org, 2, Some(&next)).await, "{org}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_shard_of_a_lease_frees_it_and_its_tokens_go_on() {
    let own = Own::start();
    let (a, b) = (own.place.replica(None), own.place.replica(None));
    let old = a.lead("leader", "me").await;
    let home = own.home("leader");
    own.wipe(home);
    for org in orgs() {
        assert!(!b.write(&org, 1, Some(&old)).await, "{org}: nobody holds it");
    }
    let new = b.lead("leader", "another").await;
    assert!(new.token > old.token);
    for org in orgs() {
        assert!(!a.write(&org, 1, Some(&old)).await, "{org}");
        assert!(b.write(&org, 2, Some(&new)).await, "{org}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_shard_learns_fences_again_from_the_writes_that_it_sees() {
    let own = Own::start();
    let replica = own.place.replica(None);
    let fence = replica.lead("leader", "me").await;
    let wiped = (own.home("leader") + 1) % SHARDS;
    own.wipe(wiped);
    for org in orgs() {
        assert!(replica.write(&org, 1, Some(&fence)).await, "{org}");
    }
    assert_eq!(own.lowest(wiped, "leader"), Some(fence.token.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_grow_when_a_shard_knows_one_that_is_ahead_of_the_clock() {
    let own = Own::start();
    let replica = own.place.replica(None);
    let fence = replica.lead("leader", "me").await;
    assert!(replica.release(&fence).await);
    // As if it was told before the clock went back, and the lease's own shard was wiped then.
    let ahead = now_us() + 600_000_000;
    let other = (0..SHARDS).find(|shard| own.cli("exists", *shard, "lease_ends", &[]) == "0");
    own.cli("zadd", other.expect("some shard"), "fences", &[&ahead.to_string(), "leader"]);
    let next = replica.lead("leader", "me").await;
    assert!(next.token.0 > ahead);
    for org in orgs() {
        assert!(replica.write(&org, 1, Some(&next)).await, "{org}");
    }
    for shard in 0..SHARDS {
        assert_eq!(own.lowest(shard, "leader"), Some(next.token.0), "shard {shard}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_grow_when_everything_was_wiped() {
    let own = Own::start();
    let (a, b) = (own.place.replica(None), own.place.replica(None));
    let mut last = 0;
    for round in 0..20 {
        let replica = if round % 2 == 0 { &a } else { &b };
        let token = replica.lead(&format!("lease {}", round % 3), "me").await.token.0;
        assert!(token > last);
        last = token;
        own.redis.cli(&["flushall"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_tell_a_shard_does_not_get_the_lease() {
    let own = Own::start();
    let (a, b) = (own.place.replica(None), own.place.replica(None));
    let old = a.lead("leader", "me").await;
    for shard in 0..SHARDS {
        // First nobody holds it, then its holder takes it again.
        for holds in [false, true] {
            let current = b.lease("leader").await.map(|lease| lease.token);
            if !holds && let Some(token) = current {
                b.0.leases.release(&name("leader"), token).await.expect("the store works");
            } else if holds && current.is_none() {
                b.lead("leader", "me").await;
            }
            let home = own.cli("hexists", shard, "leases", &["leader"]) == "1";
            own.cli("del", shard, "fences", &[]);
            own.cli("set", shard, "fences", &["of another type"]);
            a.acquire("leader", "me").await.expect_err("a shard was not told");
            let stands = b.lease("leader").await.map(|lease| lease.token);
            // Its own shard refuses before anything has happened.
            let expected = if home { current.filter(|_| holds) } else { None };
            assert_eq!(stands, expected, "shard {shard}, held: {holds}");
            own.cli("del", shard, "fences", &[]);
            let outcome = b.acquire("leader", "me").await.expect("the store works");
            let AcquireOutcome::Acquired(lease) = outcome else { panic!("held by {outcome:?}") };
            assert!(lease.token > old.token);
        }
    }
    for org in orgs() {
        assert!(!a.write(&org, 1, Some(&old)).await, "{org}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_the_lease_while_telling_does_not_take_it_back() {
    let own = Own::start();
    let (a, b) = (own.place.replica(None), own.place.replica(None));
    // Many incarnations of one holder at once: each is answered, one of them holds the lease.
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let replica = if n % 2 == 0 { a.clone() } else { b.clone() };
            tokio::spawn(async move { replica.lead("leader", "me").await })
        })
        .collect();
    let mut fences = Vec::new();
    for task in tasks {
        fences.push(task.await.expect("does not panic"));
    }
    fences.sort_by_key(|fence| fence.token);
    fences.dedup_by_key(|fence| fence.token);
    assert_eq!(fences.len(), 40, "no token twice");
    let held = a.lease("leader").await.expect("is held");
    let last = fences.pop().expect("some");
    assert_eq!(held.token, last.token);
    for org in orgs() {
        assert!(b.write(&org, 1, Some(&last)).await, "{org}");
        for fence in &fences {
            assert!(!b.write(&org, 2, Some(fence)).await, "{org}");
        }
    }
    assert!(held.ttl == TTL);
}
