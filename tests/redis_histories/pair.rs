//! Connections are held up, cut and slow, and Redis is stopped. In the second run a replica of Redis that lags behind takes
//! over, again and again, and the old master comes back as its replica.

use std::time::Duration;

use super::{REPLICAS, Run, below, history, ms};
use crate::harness::proxy::{Line, Proxy};
use crate::harness::redis::{Redis, until_replicated};
use crate::harness::rng::Rng;

/// The second server, which lags behind, takes over from the first one, which then follows it.
async fn fail_over(rng: &mut Rng, run: &Run, proxies: &[Proxy], servers: &mut [Redis]) {
    let [old, new] = &*servers else { return };
    run.may_lose();
    until_replicated(old.port());
    new.cli(&["replicaof", "no", "one"]);
    tokio::time::sleep(ms(rng, 0, 300)).await;
    // It replies to nobody while connections to it may still be open.
    old.pause(true);
    proxies.iter().for_each(|proxy| proxy.lead_to(new.port()));
    run.may_lose();
    tokio::time::sleep(ms(rng, 0, 300)).await;
    old.pause(false);
    old.cli(&["replicaof", "127.0.0.1", &new.port().to_string()]);
    servers.swap(0, 1);
}

async fn faults(rng: &mut Rng, run: &Run, proxies: &[Proxy], servers: &mut [Redis]) {
    let proxy = &proxies[below(rng, proxies.len())];
    let fault = below(rng, if servers.len() > 1 { 9 } else { 6 });
    if fault > 5 {
        return fail_over(rng, run, proxies, servers).await;
    }
    let redis = &servers[0];
    match fault {
        0 => redis.pause(true),
        1 => proxy.set(Line::Cut),
        2 => proxy.set(Line::LostAnswers),
        3 => proxy.set(Line::Slow(Duration::from_millis(30))),
        _ => proxy.set(Line::Held),
    }
    tokio::time::sleep(ms(rng, 50, 900)).await;
    if fault == 0 {
        redis.pause(false);
    }
    proxy.set(Line::Good);
    tokio::time::sleep(ms(rng, 20, 400)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_under_faults_have_no_violation() {
    histories(vec![Redis::start(&[])]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_with_failovers_lose_only_what_a_lagging_replica_had_not_seen() {
    let servers = vec![Redis::start(&[]), Redis::start(&[])];
    servers[1].cli(&["replicaof", "127.0.0.1", &servers[0].port().to_string()]);
    histories(servers).await;
}

async fn histories(mut servers: Vec<Redis>) {
    let mut proxies = Vec::new();
    for _ in 0..REPLICAS {
        proxies.push(Proxy::to(servers[0].port()).await);
    }
    let urls: Vec<_> = proxies.iter().map(|proxy| vec![proxy.url()]).collect();
    let losses = history(&urls, false, async |rng, run| {
        faults(rng, run, &proxies, &mut servers).await;
    })
    .await;
    let late = |redis: &Redis| redis.cli(&["info", "errorstats"]).contains("errorstat_LATE");
    assert!(servers.iter().any(late), "no command came late: the faults did nothing");
    assert_eq!(losses > 0, servers.len() > 1, "the run has shown nothing");
}
