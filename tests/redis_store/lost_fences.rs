//! A shard that loses the announcement of a fencing token, as a failover can: it is in a new epoch then, and takes no
//! pass from before it. The lease's shard is on another node, which knows the token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdall::clock::{ManualClock, SharedClock};
use holdall::model::batch::PointBatch;
use holdall::model::leases::Fence;
use holdall::model::time::Timestamp;
use holdall::store::{Fenced, SeriesWriter, UpsertOutcome};

use super::replica::{Pausing, Place, Replica, SHARDS, orgs};
use crate::harness::DEADLINE;
use crate::harness::redis::{CLUSTER, Redis, join, wait_until_whole};

/// A name of a lease, and an org and a series of a shard on another node.
struct Apart {
    node: usize,
    lease: String,
    org: String,
    series: usize,
}

/// A cluster of which a node can lose what it acknowledged, and two replicas, of which one sleeps when it is told to.
struct Stand {
    nodes: Vec<Redis>,
    sleeper: Replica,
    other: Replica,
    pauses: Arc<Pausing>,
    apart: Apart,
}

impl Stand {
    async fn start() -> Self {
        let nodes: Vec<Redis> = (0..3).map(|_| Redis::start(&CLUSTER)).collect();
        join(&nodes);
        let urls: Vec<String> = nodes.iter().map(Redis::url).collect();
        let place = Place::on(&urls);
        let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1_800_000_000_000_000_000)));
        let pauses = Pausing::new(&clock);
        let sleeper = place.replica(Some(Arc::clone(&pauses) as SharedClock));
        let other = place.replica(Some(clock as SharedClock));
        for org in orgs() {
            assert!(sleeper.write(&org, 0, None).await);
            sleeper.lead(&org, "me").await;
        }
        for replica in [&sleeper, &other] {
            replica.0.operation.ready().await.expect("the store works");
        }
        let apart = Apart::find(&place, &nodes, &sleeper).await;
        Self { nodes, sleeper, other, pauses, apart }
    }

    /// Lets the sleeper write under the fence; between the two steps the node of the data is killed, and starts with
    /// the file that it had at the time of the pass. Before that, another caller gets the lease, if `taken_over`.
    async fn write_around<T: Send + 'static>(
        &mut self,
        taken_over: bool,
        write: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let mut node = self.nodes.swap_remove(self.apart.node);
        let (sleeper, other) = (self.sleeper.clone(), self.other.clone());
        let (lease, node_back) = (self.apart.lease.clone(), tokio::sync::oneshot::channel());
        self.pauses.after_the_first_step(async move {
            assert_eq!(node.cli(&["save"]).trim(), "OK");
            if taken_over {
                other.lead(&lease, "me").await;
            }
            node.kill();
            node.run();
            wait_until_whole(node.port());
            works(&sleeper).await;
            works(&other).await;
            drop(node_back.0.send(node));
        });
        let written = tokio::spawn(write).await.expect("does not panic");
        assert!(self.pauses.happened(), "the write had one step only");
        self.nodes.push(node_back.1.await.expect("it is back"));
        written
    }

    async fn set(&mut self, taken_over: bool, fence: &Fence) -> bool {
        let (sleeper, org) = (self.sleeper.clone(), self.apart.org.clone());
        let fence = fence.clone();
        self.write_around(taken_over, async move { sleeper.write(&org, 1, Some(&fence)).await })
            .await
    }
}

impl Apart {
    async fn find(place: &Place, nodes: &[Redis], replica: &Replica) -> Self {
        let node_of = |shard: usize, name: &str| {
            let key = place.key(shard, name);
            nodes.iter().position(|node| node.cli(&["exists", &key]).trim() == "1")
        };
        let names = |shard: usize, name: &str| {
            let node = &nodes[node_of(shard, name).expect("each shard has some")];
            node.cli(&["zrange", &place.key(shard, name), "0", "0"]).trim().to_owned()
        };
        let node = node_of(0, "checkpoints").expect("each shard has some");
        let elsewhere = (1..SHARDS).find(|shard| node_of(*shard, "leases") != Some(node));
        let elsewhere = elsewhere.expect("the shards are on several nodes");
        // The key of a checkpoint is that of its org, a separator, and the repository.
        let org = names(0, "checkpoint_keys");
        let org = orgs().into_iter().find(|known| org.starts_with(&format!("{known}\0")));
        // Series are pushed until one is in the same shard as the checkpoint.
        let count = || nodes[node].cli(&["hlen", &place.key(0, "series")]);
        let (before, mut n) = (count(), 0);
        while count() == before {
            n += 1;
            let pushed = replica.0.series.upsert(series(n, 1.0), SeriesWriter::anybody()).await;
            pushed.expect("the store works");
        }
        let (lease, org) = (names(elsewhere, "lease_names"), org.expect("it is one of ours"));
        Self { node, lease, org, series: n }
    }
}

/// Waits until a replica reaches all nodes.
async fn works(replica: &Replica) {
    let started = Instant::now();
    while let Err(error) = replica.0.operation.ready().await {
        assert!(started.elapsed() < DEADLINE, "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns a push of one series.
fn series(n: usize, value: f64) -> PointBatch {
    let mut series = PointBatch::default();
    series.push("m", &format!("n=\"{n}\""), value, None, None);
    series
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_holder_does_not_write_in_a_shard_that_forgot_its_successor() {
    let mut stand = Stand::start().await;
    let former = stand.sleeper.lead(&stand.apart.lease, "me").await;
    assert!(!stand.set(true, &former).await, "it wrote after its successor had the lease");
    assert_eq!(stand.other.read(&stand.apart.org).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_holder_does_not_push_to_a_shard_that_forgot_its_successor() {
    let mut stand = Stand::start().await;
    let former = stand.sleeper.lead(&stand.apart.lease, "me").await;
    let (stores, batch) = (stand.sleeper.0.clone(), series(stand.apart.series, 2.0));
    let push = async move { stores.series.upsert(batch, SeriesWriter::fenced(former)).await };
    let pushed = stand.write_around(true, push).await.expect("the store works");
    assert_eq!(pushed, Fenced::Refused);
    let found = stand.other.0.series.snapshot(&[], None, 100).await.expect("the store works");
    assert!(found.points.iter().all(|point| point.sample.value == 1.0), "it was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_goes_on_writing_in_a_shard_of_a_new_epoch() {
    let mut stand = Stand::start().await;
    let holder = stand.sleeper.lead(&stand.apart.lease, "me").await;
    assert!(stand.set(false, &holder).await, "it still holds the lease");
    assert_eq!(stand.other.read(&stand.apart.org).await, Some(1));
    let (stores, batch) = (stand.sleeper.0.clone(), series(stand.apart.series, 2.0));
    stand.apart.node = stand.nodes.len() - 1;
    let fence = holder.clone();
    let push = async move { stores.series.upsert(batch, SeriesWriter::fenced(fence)).await };
    match stand.write_around(false, push).await.expect("the store works") {
        Fenced::Done(UpsertOutcome::Applied(counts)) => assert_eq!(counts.updated, 1),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_fenced_write_of_a_replica_learns_the_epoch() {
    let redis = Redis::start(&[]);
    let place = Place::on(&[redis.url()]);
    let (one, two) = (place.replica(None), place.replica(None));
    let fence = one.lead("leader", "me").await;
    for org in orgs() {
        assert!(two.write(&org, 1, Some(&fence)).await, "{org}");
    }
    let later = one.lead("leader", "me").await;
    let three = place.replica(None);
    for org in orgs() {
        assert!(!three.write(&org, 2, Some(&fence)).await, "{org}");
        assert!(three.write(&org, 3, Some(&later)).await, "{org}");
    }
}
