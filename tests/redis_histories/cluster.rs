//! A cluster of three masters and three replicas: nodes hang, masters change with and without a loss, slots move, and
//! connections break.
//!
//! A master that hung long enough for its replica to take over serves once more when it goes on, until it notices. So what
//! is acknowledged from then on may be lost, and what it returns out of date, until all nodes agree.

use super::{NAMESPACE, REPLICAS, Run, below, history, ms};
use crate::harness::redis::{Cluster, cli, is_master, wait_until};
use crate::harness::rng::Rng;
use crate::harness::slot::Slot;

/// As many as [`settings`](holdall::store::redis::RedisSettings::for_tests) of tests have.
const SHARDS: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Fault {
    Hang,
    Failover,
    PlannedFailover,
    MoveSlot,
    BreakConnections,
}

const FAULTS: [Fault; 5] = [
    Fault::Hang,
    Fault::Failover,
    Fault::PlannedFailover,
    Fault::MoveSlot,
    Fault::BreakConnections,
];

/// Returns one of the masters.
fn master(cluster: &Cluster, rng: &mut Rng) -> u16 {
    let masters = cluster.masters();
    masters[below(rng, masters.len())]
}

/// A master hangs, and nobody takes over: nothing is lost.
async fn hang(cluster: &Cluster, rng: &mut Rng) {
    let no_failover = |no: &str| {
        for node in cluster.nodes() {
            cli(*node, &["config", "set", "cluster-replica-no-failover", no]);
        }
    };
    no_failover("yes");
    let hung = master(cluster, rng);
    cluster.pause(hung, true);
    tokio::time::sleep(ms(rng, 400, 900)).await;
    cluster.pause(hung, false);
    cluster.wait_until_settled();
    no_failover("no");
}

/// A master hangs until its replica has taken over, and goes on as the replica of that.
async fn fail_over(cluster: &Cluster, rng: &mut Rng, run: &Run) {
    run.may_lose();
    cluster.until_replicated();
    tokio::time::sleep(ms(rng, 0, 200)).await;
    let masters = cluster.masters();
    let hung = masters[below(rng, masters.len())];
    cluster.pause(hung, true);
    let others = || cluster.nodes().iter().filter(|node| **node != hung && is_master(**node));
    wait_until("its replica takes over", || others().count() == masters.len());
    tokio::time::sleep(ms(rng, 0, 500)).await;
    cluster.pause(hung, false);
    cluster.wait_until_settled();
    assert!(!is_master(hung));
    run.may_lose();
}

/// A replica takes over from its master once it has everything: nothing is lost.
fn fail_over_as_planned(cluster: &Cluster, rng: &mut Rng) {
    let replicas: Vec<u16> =
        cluster.nodes().iter().copied().filter(|node| !is_master(*node)).collect();
    let next = replicas[below(rng, replicas.len())];
    let mut looks = 0;
    wait_until("it takes over", || {
        // Each attempt ends after five seconds; a new one would end it earlier. There are fifty looks a second at most.
        if looks % 300 == 0 {
            cli(next, &["cluster", "failover"]);
        }
        looks += 1;
        is_master(next)
    });
    cluster.wait_until_settled();
}

/// A shard moves to another node, key by key.
async fn move_slot(cluster: &Cluster, rng: &mut Rng) {
    let slot = Slot::of(cluster, format!("{{{NAMESPACE}:{}}}:info", below(rng, SHARDS)));
    slot.open();
    loop {
        let keys = slot.keys();
        let Some(key) = keys.first() else { break };
        slot.migrate(std::slice::from_ref(key));
        tokio::time::sleep(ms(rng, 0, 30)).await;
    }
    slot.assign(cluster);
    cluster.wait_until_settled();
}

async fn faults(cluster: &Cluster, fault: Fault, rng: &mut Rng, run: &Run) {
    match fault {
        Fault::Hang => hang(cluster, rng).await,
        Fault::Failover => fail_over(cluster, rng, run).await,
        Fault::PlannedFailover => fail_over_as_planned(cluster, rng),
        Fault::MoveSlot => move_slot(cluster, rng).await,
        Fault::BreakConnections => {
            cli(master(cluster, rng), &["client", "kill", "type", "normal"]);
        }
    }
    tokio::time::sleep(ms(rng, 100, 600)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_on_a_cluster_lose_only_what_a_failover_can_lose() {
    let cluster = Cluster::start();
    let urls = vec![cluster.urls().to_vec(); REPLICAS];
    let mut rest: Vec<Fault> = Vec::new();
    let losses = history(&urls, true, async |rng, run| {
        // All faults in a random order, again and again.
        if rest.is_empty() {
            rest = FAULTS.to_vec();
        }
        let fault = rest.swap_remove(below(rng, rest.len()));
        faults(&cluster, fault, rng, run).await;
    })
    .await;
    let late = |node: &u16| cli(*node, &["info", "errorstats"]).contains("errorstat_LATE");
    assert!(cluster.nodes().iter().any(late), "no command came late: the faults did nothing");
    assert!(losses > 0, "no master has changed");
}
