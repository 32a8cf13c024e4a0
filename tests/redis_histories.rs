//! Histories of three replicas on one Redis while connections are held up, cut and slow and Redis is stopped: what was
//! acknowledged is compared with what may have happened.
//!
//! In the first run Redis loses nothing, so that no weakness of `Capabilities` is an excuse. In the second one a replica
//! of Redis that lags behind takes over, again and again, and the old master comes back as its replica: what was
//! acknowledged since the replica lagged may be lost, and nothing else. Tokens grow and no value of before a bump is read
//! whatever is lost. An operation that failed may have been carried out until its deadline, and never later. `TEST_HISTORY_SECONDS` sets how long the faults last, `TEST_SEED`
//! repeats their order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdall::model::cache::{CacheKey, ContentType, Namespace};
use holdall::model::checkpoints::CheckpointKey;
use holdall::model::generations::{GenerationKey, Seen};
use holdall::model::leases::{Claimant, Fence, Holder, LeaseName};
use holdall::model::locks::{LockKey, LockKind, ReleaseToken};
use holdall::model::time::Timestamp;
use holdall::store::redis::{RedisSettings, open};
use holdall::store::{AcquireOutcome, CacheAddress, CachePut, Fenced, StoreSettings, Stores};

use crate::harness::eventually;
use crate::harness::proxy::{Line, Proxy};
use crate::harness::redis::{Redis, until_replicated};
use crate::harness::rng::Rng;

const REPLICAS: usize = 3;
/// How soon a replica gives a step up.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Longer than any run: nothing expires.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Writers of each kind.
const WRITERS: usize = 4;
/// Operations of each kind that must have been acknowledged, so that a run has shown something.
const ENOUGH: u64 = 20;

/// What the tasks of a run share.
struct Run {
    replicas: Vec<Stores>,
    over: AtomicBool,
    /// Odd while what is acknowledged may be lost.
    losses: AtomicU64,
    /// Acknowledged locks, grants, fenced writes, checkpoints, cached reads.
    acknowledged: [AtomicU64; 5],
}

impl Run {
    fn any(&self, rng: &mut Rng) -> &Stores {
        &self.replicas[below(rng, REPLICAS)]
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Acquire)
    }

    fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Returns whether what is acknowledged now lasts, of an operation that began at `losses`.
    fn lasts(&self, losses: u64) -> bool {
        losses.is_multiple_of(2) && self.losses() == losses
    }

    fn count(&self, kind: usize) {
        self.acknowledged[kind].fetch_add(1, Ordering::Relaxed);
    }

    fn has_enough(&self) -> bool {
        self.acknowledged.iter().all(|count| count.load(Ordering::Relaxed) >= ENOUGH)
    }
}

fn below(rng: &mut Rng, limit: usize) -> usize {
    usize::try_from(rng.below(limit as u64)).expect("small")
}

/// Several callers want each lock: it is acquired once.
async fn locks(
    run: Arc<Run>,
    mut rng: Rng,
    round_of: Arc<AtomicU64>,
    won: Arc<parking_lot::Mutex<Vec<u64>>>,
) {
    while run.goes_on() {
        // Mostly the same lock as others just now.
        let round = round_of.fetch_add(1, Ordering::Relaxed) / 6;
        let key = LockKey::parse(LockKind::Dedup, round.to_string()).expect("valid");
        let losses = run.losses();
        if let Ok(outcomes) =
            run.any(&mut rng).locks.acquire(vec![key], TTL, ReleaseToken([0; 16])).await
        {
            run.count(0);
            if outcomes[0].acquired && run.lasts(losses) {
                won.lock().push(round);
            }
        }
    }
}

/// One writer of one checkpoint, through any replica: what a failed write of before wanted never replaces what a later
/// one was acknowledged for.
async fn checkpoints(run: Arc<Run>, mut rng: Rng, writer: usize) {
    let key = CheckpointKey::parse("org", &format!("repo {writer}")).expect("valid");
    let (mut attempted, mut acknowledged) = (0, 0);
    while run.goes_on() {
        attempted += 1;
        let at = Timestamp::from_nanos(attempted);
        let losses = run.losses();
        match run.any(&mut rng).checkpoints.set(key.clone(), at, false, None).await {
            Ok(_) if run.lasts(losses) => acknowledged = attempted,
            Ok(_) => {}
            // The connection broke, perhaps, and what was sent may be carried out until its deadline.
            Err(_) => tokio::time::sleep(TIMEOUT).await,
        }
        if let Ok(found) = run.any(&mut rng).checkpoints.get(&key).await {
            run.count(3);
            let found = found.map_or(0, |found| found.checkpoint.as_nanos());
            assert!(
                (acknowledged..=attempted).contains(&found),
                "read {found} after {acknowledged} was acknowledged, {attempted} was tried"
            );
        }
    }
}

/// One holder after the other has a lease and writes under it: tokens grow, and none writes once the next one has it.
async fn leases(run: Arc<Run>, mut rng: Rng, writer: usize) {
    let mut last_token = 0;
    let mut former: Option<Fence> = None;
    let mut n = 0;
    while run.goes_on() {
        n += 1;
        let name = LeaseName::parse(format!("lease {writer} {n}")).expect("valid");
        let me = Claimant::anonymous(Holder::parse(format!("holder {n}")).expect("valid"));
        let losses = run.losses();
        let acquired = run.any(&mut rng).leases.acquire(&name, &me, TTL).await;
        let Ok(AcquireOutcome::Acquired(lease)) = acquired else { continue };
        let granted = run.lasts(losses);
        run.count(1);
        assert!(lease.token.0 > last_token, "{} after {last_token}", lease.token.0);
        last_token = lease.token.0;
        let key = CheckpointKey::parse("fenced", &format!("repo {writer}")).expect("valid");
        let fence = Fence { lease: name.clone(), token: lease.token };
        let at = Timestamp::from_nanos(n);
        let set = run.any(&mut rng).checkpoints.set(key.clone(), at, false, Some(fence.clone()));
        if let Ok(outcome) = set.await {
            run.count(2);
            let done = matches!(outcome, Fenced::Done(_));
            assert!(done || !granted, "a holder was refused: {outcome:?}");
        }
        if let Some(former) = former.take() {
            let old = Timestamp::from_nanos(-1);
            let set =
                run.any(&mut rng).checkpoints.set(key, old, false, Some(former.clone())).await;
            assert!(!matches!(set, Ok(Fenced::Done(_))), "it wrote under {former:?}");
        }
        // A release that was acknowledged ends the fence in every shard.
        let losses = run.losses();
        let released = run.any(&mut rng).leases.release(&name, lease.token).await;
        if released.is_ok_and(|released| released) && run.lasts(losses) {
            former = Some(fence);
        }
    }
}

/// A truth whose cached copies are ended by a bump after each change.
async fn cached(run: Arc<Run>, mut rng: Rng, writer: usize, truth: Arc<[AtomicI64; 2]>) {
    let [written, ended] = &*truth;
    let namespace = Namespace::parse("history").expect("valid");
    let generation_key = GenerationKey::parse("truth").expect("valid");
    let key = CacheKey::parse(namespace, "truth").expect("valid");
    let address = CacheAddress { key, generation_key: generation_key.clone() };
    while run.goes_on() {
        let stores = run.any(&mut rng);
        if writer == 0 && below(&mut rng, 4) == 0 {
            let version = written.fetch_add(1, Ordering::AcqRel) + 1;
            if stores.generations.bump(vec![generation_key.clone()]).await.is_ok() {
                ended.fetch_max(version, Ordering::AcqRel);
            }
            continue;
        }
        let least = ended.load(Ordering::Acquire);
        let Ok(reads) = stores.cache.get(std::slice::from_ref(&address)).await else { continue };
        let read = reads.into_iter().next().expect("one outcome");
        match read.value {
            Ok(value) => {
                run.count(4);
                let found: i64 = std::str::from_utf8(&value.bytes)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .expect("a version");
                assert!(found >= least, "version {found} after the bump of {least}");
            }
            Err(_) => {
                let version = written.load(Ordering::Acquire);
                let put = CachePut {
                    address: address.clone(),
                    seen: Seen::Fence(read.generation.fence),
                    bytes: version.to_string().into(),
                    content_type: ContentType::default(),
                    ttl: TTL,
                    fill: None,
                };
                drop(run.any(&mut rng).cache.put(put).await);
            }
        }
    }
}

fn ms(rng: &mut Rng, least: usize, most: usize) -> Duration {
    Duration::from_millis((least + below(rng, most - least)) as u64)
}

/// The second server, which lags behind, takes over from the first one, which then follows it.
async fn fail_over(rng: &mut Rng, run: &Run, proxies: &[Proxy], servers: &mut [Redis]) {
    let [old, new] = &*servers else { return };
    run.losses.fetch_add(1, Ordering::AcqRel);
    until_replicated(old.port());
    new.cli(&["replicaof", "no", "one"]);
    tokio::time::sleep(ms(rng, 0, 300)).await;
    // It replies to nobody while connections to it may still be open.
    old.pause(true);
    proxies.iter().for_each(|proxy| proxy.lead_to(new.port()));
    run.losses.fetch_add(1, Ordering::AcqRel);
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
    let seconds = std::env::var("TEST_HISTORY_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(20));
    let mut rng = Rng::from_environment();
    let (mut proxies, mut replicas) = (Vec::new(), Vec::new());
    for _ in 0..REPLICAS {
        let proxy = Proxy::to(servers[0].port()).await;
        let settings = RedisSettings {
            timeout: TIMEOUT,
            ..RedisSettings::for_tests(&[proxy.url()], "history")
        };
        replicas.push(open(&settings, &StoreSettings::for_tests()).expect("the store opens"));
        proxies.push(proxy);
    }
    let run = Arc::new(Run {
        replicas,
        over: AtomicBool::new(false),
        losses: AtomicU64::new(0),
        acknowledged: Default::default(),
    });
    let (round, won) = (Arc::new(AtomicU64::new(0)), Arc::default());
    let truth = Arc::new([AtomicI64::new(0), AtomicI64::new(0)]);
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (round, won) = (Arc::clone(&round), Arc::clone(&won));
        tasks.push(tokio::spawn(locks(Arc::clone(&run), rng.split(), round, won)));
        tasks.push(tokio::spawn(checkpoints(Arc::clone(&run), rng.split(), writer)));
        tasks.push(tokio::spawn(leases(Arc::clone(&run), rng.split(), writer)));
        let truth = Arc::clone(&truth);
        tasks.push(tokio::spawn(cached(Arc::clone(&run), rng.split(), writer, truth)));
    }
    let started = Instant::now();
    while started.elapsed() < seconds {
        faults(&mut rng, &run, &proxies, &mut servers).await;
    }
    eventually("each kind of operation was acknowledged often enough", async || {
        run.has_enough().then_some(())
    })
    .await;
    run.over.store(true, Ordering::Release);
    for task in tasks {
        task.await.expect("no violation");
    }
    let mut won = won.lock().clone();
    let all = won.len();
    won.sort_unstable();
    won.dedup();
    assert_eq!(won.len(), all, "a lock was acquired twice");
    let late = |redis: &Redis| redis.cli(&["info", "errorstats"]).contains("errorstat_LATE");
    assert!(servers.iter().any(late), "no command came late: the faults did nothing");
    let failed_over = run.losses() > 0;
    assert_eq!(failed_over, servers.len() > 1, "the run has shown nothing");
}
