//! Histories of three replicas on a Redis with faults: what was acknowledged is compared with what may have happened.
//!
//! Where Redis loses nothing, no weakness of `Capabilities` is an excuse. Where another master takes over, what was
//! acknowledged since the last moment at which it had everything may be lost, and nothing else. Tokens grow whatever is
//! lost. An operation that failed may have been carried out until its deadline, and never later.
//! `TEST_HISTORY_SECONDS` sets how long the faults last, `TEST_SEED` repeats their order.

mod cluster;
mod pair;

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
use crate::harness::rng::Rng;

const REPLICAS: usize = 3;
/// Where their data is.
const NAMESPACE: &str = "history";
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
    /// Whether, while that may be lost, a master that was cut off may be read.
    cut_off: bool,
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

    /// As [`Self::lasts`], of bumps and cached reads: those that were lost end all values of before, unless a master that
    /// was cut off still served.
    fn counts(&self, losses: u64) -> bool {
        !self.cut_off || self.lasts(losses)
    }

    /// From now on, until this is called again, what is acknowledged may be lost.
    fn may_lose(&self) {
        self.losses.fetch_add(1, Ordering::AcqRel);
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
            let losses = run.losses();
            let bumped = stores.generations.bump(vec![generation_key.clone()]).await;
            if bumped.is_ok() && run.counts(losses) {
                ended.fetch_max(version, Ordering::AcqRel);
            }
            continue;
        }
        let losses = run.losses();
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
                let may_be_stale = !run.counts(losses);
                assert!(found >= least || may_be_stale, "{found} after the bump of {least}");
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

/// Runs writers and readers on replicas that reach Redis at `urls`, until the faults have lasted long enough. Each call
/// of `faults` causes one, and mends it. Returns how often what was acknowledged may have been lost.
async fn history(
    urls: &[Vec<String>],
    cut_off: bool,
    mut faults: impl AsyncFnMut(&mut Rng, &Run),
) -> u64 {
    let seconds = std::env::var("TEST_HISTORY_SECONDS").ok().and_then(|text| text.parse().ok());
    let seconds = Duration::from_secs(seconds.unwrap_or(20));
    let mut rng = Rng::from_environment();
    let replicas = urls.iter().map(|urls| {
        let settings =
            RedisSettings { timeout: TIMEOUT, ..RedisSettings::for_tests(urls, NAMESPACE) };
        open(&settings, &StoreSettings::for_tests()).expect("the store opens")
    });
    let run = Arc::new(Run {
        replicas: replicas.collect(),
        over: AtomicBool::new(false),
        losses: AtomicU64::new(0),
        cut_off,
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
        faults(&mut rng, &run).await;
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
    run.losses()
}
