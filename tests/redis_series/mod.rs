//! What only series on Redis can get wrong: several replicas on one namespace, a budget that is divided
//! among shards, lost data and scripts, batches that are cut off half-way.

mod lost_data;

use std::sync::Arc;
use std::time::Duration;

use holdall::clock::{Clock, ManualClock, SharedClock};
use holdall::model::batch::PointBatch;
use holdall::model::leases::{Claimant, Fence, Holder, LeaseName};
use holdall::model::selector::Selector;
use holdall::model::series::SeriesId;
use holdall::model::time::Timestamp;
use holdall::store::redis::{RedisSettings, open_with};
use holdall::store::{
    AcquireOutcome, Change, Delta, ErrorKind, Fenced, SeriesSettings, SeriesWriter, StoreResult,
    StoreSettings, Stores, UpsertCounts, UpsertOutcome,
};

use crate::conformance::fixture::did_delete;
use crate::harness::eventually;
use crate::harness::proxy::{Line, Proxy};
use crate::harness::redis::{self, Redis};
use crate::harness::rng::Rng;

const MAX_SERIES: usize = 100;
const SHARDS: usize = 4;
const RETENTION: Duration = Duration::from_secs(3600);
/// The most series of each shard.
const QUOTA: usize = MAX_SERIES / SHARDS;

fn replica(url: &str, namespace: &str, clock: &Arc<ManualClock>) -> Stores {
    let settings = RedisSettings {
        index_shards: SHARDS,
        timeout: Duration::from_secs(10),
        ..RedisSettings::for_tests(&[url.to_owned()], namespace)
    };
    let store = StoreSettings {
        series: SeriesSettings {
            retention: RETENTION,
            max_future_skew: Duration::from_secs(600),
            max_series: MAX_SERIES,
            max_bytes: 1 << 30,
            max_tombstones: 1000,
        },
        ..StoreSettings::for_tests()
    };
    let clock = Arc::clone(clock) as SharedClock;
    open_with(&settings, &store, Some(clock)).expect("the store opens")
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(Timestamp::parse("2026-11-21T10:00:00Z").expect("valid")))
}

fn batch<'a>(names: impl IntoIterator<Item = &'a str>) -> PointBatch {
    let mut batch = PointBatch::default();
    for name in names {
        batch.push(name, "", 1.0, None, None);
    }
    batch
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}_{n}")).collect()
}

async fn try_push(stores: &Stores, names: &[String]) -> StoreResult<UpsertOutcome> {
    let batch = batch(names.iter().map(String::as_str));
    stores.series.upsert(batch, SeriesWriter::anybody()).await.map(|done| match done {
        Fenced::Done(outcome) => outcome,
        Fenced::Refused => panic!("there was no fence"),
    })
}

async fn push(stores: &Stores, names: &[String]) -> UpsertCounts {
    match try_push(stores, names).await.expect("the store works") {
        UpsertOutcome::Applied(counts) => counts,
        refused => panic!("{refused:?}"),
    }
}

async fn live(stores: &Stores) -> usize {
    let snapshot = stores.series.snapshot(&[], None, usize::MAX >> 1).await;
    snapshot.expect("the store works").points.len()
}

fn shard_of(name: &str) -> usize {
    let tail = SeriesId::of(name, "").to_bytes()[8..].try_into().expect("8 bytes");
    usize::try_from(u64::from_be_bytes(tail) % SHARDS as u64).expect("small")
}

/// Returns names whose series all lie in one shard.
fn of_shard(shard: usize, prefix: &str, count: usize) -> Vec<String> {
    let all = (0..).map(|n| format!("{prefix}_{n}"));
    all.filter(|name| shard_of(name) == shard).take(count).collect()
}

/// Returns names whose series are spread evenly over all shards, the first ones by their number.
fn spread(prefix: &str, count: usize) -> Vec<String> {
    let all = (0..SHARDS).flat_map(|shard| {
        let part = count / SHARDS + usize::from(shard < count % SHARDS);
        of_shard(shard, prefix, part)
    });
    all.collect()
}

/// Fills all shards, one series at a time; returns how many series that took.
async fn fill(stores: &Stores, prefix: &str) -> usize {
    let mut created = 0;
    for shard in 0..SHARDS {
        for name in of_shard(shard, prefix, QUOTA + 1) {
            match try_push(stores, &[name]).await.expect("the store works") {
                UpsertOutcome::Applied(counts) => created += counts.created,
                refused => {
                    assert_eq!(refused, UpsertOutcome::OverBudget { new: 1, room: 0 });
                    break;
                }
            }
        }
    }
    created
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_writes_all_read_and_are_notified_of() {
    let clock = clock();
    let [one, two] = [0; 2].map(|_| replica(redis::shared(), "told", &clock));
    let start = two.series.cursor().await.expect("the store works");
    let mut signal = two.series.changes();
    for round in 0..3 {
        signal.mark_unchanged();
        let name = format!("m_{round}");
        push(&one, std::slice::from_ref(&name)).await;
        eventually("the other replica is told", async || {
            signal.has_changed().expect("the store lives").then_some(())
        })
        .await;
        assert_eq!(live(&two).await, round + 1);
        assert!(two.series.get(SeriesId::of(&name, "")).await.expect("works").is_some());
    }
    let delta = two.series.delta(&start, None, 10).await.expect("the store works");
    let Delta::Changes { changes, more: false, .. } = delta else { panic!("{delta:?}") };
    assert_eq!(changes.len(), 3);
    signal.mark_unchanged();
    let gone = one
        .series
        .delete(SeriesId::of("m_0", ""), SeriesWriter::anybody())
        .await
        .expect("the store works");
    assert_eq!(gone, did_delete(1));
    eventually("the other replica is told", async || {
        signal.has_changed().expect("the store lives").then_some(())
    })
    .await;
    assert_eq!(live(&two).await, 2);
    let delta = two.series.delta(&start, None, 10).await.expect("the store works");
    let Delta::Changes { changes, .. } = delta else { panic!("{delta:?}") };
    assert!(changes.iter().any(|change| matches!(change, Change::Deleted(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn racing_writers_on_two_replicas_never_exceed_the_budget() {
    let clock = clock();
    let replicas = [0; 2].map(|_| replica(redis::shared(), "racing", &clock));
    let mut rng = Rng::from_environment();
    let mut writers = Vec::new();
    for writer in 0..8 {
        let stores = replicas[writer % 2].clone();
        let mut rng = rng.split();
        writers.push(tokio::spawn(async move {
            let (mut created, mut partial) = (0, 0);
            for round in 0..25 {
                let count = usize::try_from(rng.below(12)).expect("small") + 1;
                let names = names(&format!("m_{writer}_{round}"), count);
                match try_push(&stores, &names).await {
                    Ok(UpsertOutcome::Applied(counts)) => created += counts.created,
                    Ok(UpsertOutcome::OverBudget { new, room }) => assert!(new > room),
                    Ok(refused) => panic!("{refused:?}"),
                    // Another writer used up a shard between the check and the write.
                    Err(error) => {
                        let is_partial = matches!(error.kind, ErrorKind::PartlyApplied { .. });
                        assert!(is_partial, "{error}");
                        partial += count - 1;
                    }
                }
                assert!(live(&stores).await <= MAX_SERIES);
            }
            (created, partial)
        }));
    }
    let (mut created, mut partial) = (0, 0);
    for writer in writers {
        let (more_created, more_partial) = writer.await.expect("no writer panics");
        created += more_created;
        partial += more_partial;
    }
    let before = live(&replicas[0]).await;
    assert!(created <= before && before <= created + partial, "{created} {before} {partial}");
    assert_eq!(before + fill(&replicas[1], "last").await, MAX_SERIES, "some room was lost");
    assert_eq!(live(&replicas[0]).await, MAX_SERIES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_a_full_shard_is_refused_and_changes_nothing_in_any_shard() {
    let clock = clock();
    let [one, two] = [0; 2].map(|_| replica(redis::shared(), "full_shard", &clock));
    let full = of_shard(1, "full", QUOTA);
    assert_eq!(push(&one, &full).await.created, QUOTA);
    let before = two.series.cursor().await.expect("the store works");
    let single = of_shard(1, "new", 1);
    let outcome = try_push(&two, &single).await.expect("the store works");
    assert_eq!(outcome, UpsertOutcome::OverBudget { new: 1, room: 0 });
    // The other shards have room for their parts, and apply none of them.
    let outcome = try_push(&two, &spread("new", 8)).await.expect("the store works");
    assert_eq!(outcome, UpsertOutcome::OverBudget { new: 2, room: 0 });
    assert_eq!(two.series.cursor().await.expect("the store works"), before);
    assert_eq!(push(&two, &full).await.updated, QUOTA, "known series always fit");
    let others: Vec<String> =
        [0, 2, 3].into_iter().flat_map(|shard| of_shard(shard, "other", QUOTA)).collect();
    assert_eq!(push(&two, &others).await.created, MAX_SERIES - QUOTA);
    for name in &full[..3] {
        one.series
            .delete(SeriesId::of(name, ""), SeriesWriter::anybody())
            .await
            .expect("the store works");
    }
    let outcome = try_push(&one, &of_shard(1, "new", 4)).await.expect("the store works");
    assert_eq!(outcome, UpsertOutcome::OverBudget { new: 4, room: 3 });
    assert_eq!(push(&one, &of_shard(1, "new", 3)).await.created, 3);
    clock.advance(RETENTION);
    assert_eq!(push(&two, &spread("later", MAX_SERIES)).await.created, MAX_SERIES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_counts_only_its_new_series_and_no_stale_points() {
    let clock = clock();
    let stores = replica(redis::shared(), "counted", &clock);
    push(&stores, &spread("old", MAX_SERIES - SHARDS)).await;
    // As many known series as there are, one new series for each shard, and stale ones beyond.
    let mut batch = batch(spread("old", MAX_SERIES - SHARDS).iter().map(String::as_str));
    for name in spread("new", SHARDS) {
        batch.push(&name, "", 1.0, None, None);
    }
    let past = clock.now().saturating_sub(RETENTION);
    for name in spread("stale", MAX_SERIES) {
        batch.push(&name, "", 1.0, Some(past), None);
    }
    let outcome =
        stores.series.upsert(batch, SeriesWriter::anybody()).await.expect("the store works");
    let counts = UpsertCounts { created: SHARDS, updated: MAX_SERIES - SHARDS, stale: MAX_SERIES };
    assert_eq!(outcome, Fenced::Done(UpsertOutcome::Applied(counts)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_redis_makes_cursors_gone_and_takes_writes() {
    let (server, clock) = (Redis::start(&[]), clock());
    let [one, two] = [0; 2].map(|_| replica(&server.url(), "wiped", &clock));
    push(&one, &spread("old", MAX_SERIES)).await;
    assert_eq!(live(&two).await, MAX_SERIES);
    let old = one.series.cursor().await.expect("the store works");
    server.cli(&["flushall"]);
    assert_eq!(live(&two).await, 0);
    assert_eq!(two.series.delta(&old, None, 10).await.expect("the store works"), Delta::Gone);
    assert_eq!(push(&one, &spread("new", MAX_SERIES)).await.created, MAX_SERIES);
    assert_eq!(one.series.delta(&old, None, 10).await.expect("the store works"), Delta::Gone);
    assert_eq!(live(&two).await, MAX_SERIES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_shard_neither_loses_nor_adds_room() {
    let (server, clock) = (Redis::start(&[]), clock());
    for shard in 0..SHARDS {
        let namespace = format!("part{shard}");
        let stores = replica(&server.url(), &namespace, &clock);
        push(&stores, &spread("old", 60)).await;
        let cursor = stores.series.cursor().await.expect("the store works");
        let keys = server.cli(&["keys", &format!("{{{namespace}:{shard}}}:*")]);
        keys.lines().for_each(|key| assert_eq!(server.cli(&["del", key]).trim(), "1"));
        assert_eq!(stores.series.delta(&cursor, None, 10).await.expect("works"), Delta::Gone);
        let left = live(&stores).await;
        assert!(left < 60);
        assert_eq!(left + fill(&stores, "new").await, MAX_SERIES);
        assert_eq!(live(&stores).await, MAX_SERIES);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_fails_in_one_shard_may_be_sent_again_and_holds_no_room() {
    let (server, clock) = (Redis::start(&[]), clock());
    let stores = replica(&server.url(), "cut", &clock);
    // A damaged record: the script that checks does not read it, the one that applies does.
    push(&stores, &of_shard(0, "half", 1)).await;
    let spoil = "redis.call('HSET', KEYS[1], redis.call('HKEYS', KEYS[1])[1], '')";
    server.cli(&["eval", spoil, "1", "{cut:0}:series"]);
    let half = spread("half", MAX_SERIES / 2);
    for _ in 0..3 {
        assert!(try_push(&stores, &half).await.is_err());
    }
    server.cli(&["del", "{cut:0}:series"]);
    let applied = live(&stores).await;
    assert!(applied > 0 && applied < half.len(), "{applied}");
    let again = push(&stores, &half).await;
    assert_eq!((again.created, again.updated), (half.len() - applied, applied));
    assert_eq!(fill(&stores, "rest").await, MAX_SERIES - half.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_are_cut_off_half_way_never_exceed_the_budget_and_hold_no_room() {
    let (server, clock) = (Redis::start(&[]), clock());
    let proxy = Proxy::to(server.port()).await;
    let (cut, good) =
        (replica(&proxy.url(), "cut_off", &clock), replica(&server.url(), "cut_off", &clock));
    push(&cut, &spread("before", 10)).await;
    for round in 0..6 {
        let batch = spread(&format!("batch_{round}"), 40);
        let mode = [Line::CutInAnswer, Line::LostAnswers, Line::Cut][round % 3];
        proxy.set(mode);
        // At different steps: when it is checked, while it is applied, when it is acknowledged.
        let writer = {
            let (cut, batch) = (cut.clone(), batch.clone());
            tokio::spawn(async move { try_push(&cut, &batch).await })
        };
        if mode == Line::LostAnswers {
            eventually("the cut connection is noticed", async || {
                proxy.set(Line::Cut);
                writer.is_finished().then_some(())
            })
            .await;
        }
        if let Err(error) = writer.await.expect("does not panic") {
            assert!(error.is_transient(), "{error}");
        }
        assert!(live(&good).await <= MAX_SERIES);
        proxy.set(Line::Good);
        eventually("the batch is complete, or over the budget", async || {
            try_push(&cut, &batch).await.ok()
        })
        .await;
        assert!(live(&good).await <= MAX_SERIES);
    }
    let before = live(&good).await;
    assert!(before >= 50, "the first batch is complete: {before}");
    assert_eq!(before + fill(&good, "rest").await, MAX_SERIES, "some room was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_leader_changes_nothing_in_any_shard() {
    let clock = clock();
    let [one, two] = [0; 2].map(|_| replica(redis::shared(), "fenced", &clock));
    let lead = async |stores: &Stores, holder: &str| {
        let lease = LeaseName::parse("leader").expect("valid");
        let holder = Holder::parse(holder).expect("valid");
        let ttl = Duration::from_secs(30);
        match stores
            .leases
            .acquire(&lease, &Claimant::anonymous(holder), ttl)
            .await
            .expect("the store works")
        {
            AcquireOutcome::Acquired(held) => Fence { lease, token: held.token },
            AcquireOutcome::Held(held) => panic!("held by {}", held.holder.as_str()),
        }
    };
    let some = names("m", 20);
    let write = async |stores: &Stores, fence: &Fence, count: usize| {
        let batch = batch(some[..count].iter().map(String::as_str));
        stores
            .series
            .upsert(batch, SeriesWriter::fenced(fence.clone()))
            .await
            .expect("the store works")
    };
    let first = lead(&one, "one").await;
    for count in [1, 20] {
        let written = write(&one, &first, count).await;
        assert!(matches!(written, Fenced::Done(UpsertOutcome::Applied(_))), "{written:?}");
    }
    clock.advance(Duration::from_secs(31));
    let second = lead(&two, "two").await;
    let before = two.series.cursor().await.expect("the store works");
    for count in [1, 20] {
        assert_eq!(write(&one, &first, count).await, Fenced::Refused);
    }
    let id = SeriesId::of("m_0", "");
    let deleted =
        one.series.delete(id, SeriesWriter::fenced(first.clone())).await.expect("the store works");
    assert_eq!(deleted, Fenced::Refused);
    let all = [Selector::parse("{__name__=~\"m.*\"}").expect("valid")];
    for dry_run in [true, false] {
        let deleted =
            one.series.delete_matching(&all, dry_run, SeriesWriter::fenced(first.clone())).await;
        assert_eq!(deleted.expect("the store works"), Fenced::Refused);
    }
    assert_eq!(two.series.cursor().await.expect("the store works"), before);
    assert!(matches!(write(&two, &second, 20).await, Fenced::Done(_)));
    let deleted = two.series.delete_matching(&all, false, SeriesWriter::fenced(second)).await;
    assert_eq!(deleted.expect("the store works"), did_delete(20));
}
