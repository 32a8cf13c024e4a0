//! What every store of series must do at its limits: the exact end of what a cursor may have missed, fences, and the
//! budget of bytes.

use std::sync::Arc;
use std::time::Duration;

use holdall::model::batch::PointBatch;
use holdall::model::cursor::Cursor;
use holdall::model::leases::{Claimant, Fence, Holder, LeaseName};
use holdall::model::selector::Selector;
use holdall::model::series::{Metadata, MetricType, SeriesId};
use holdall::store::{
    AcquireOutcome, Delta, ErrorKind, Fenced, SeriesStore, SeriesWriter, UpsertOutcome,
    series_bytes,
};

use super::{counts, one, snapshot, upsert, view_of};
use crate::conformance::fixture::{
    Fixture, MAX_SERIES, MAX_SERIES_BYTES, MAX_TOMBSTONES, did_delete,
};

/// Deletes series one by one, and holds every cursor of that time against the low watermark: the sequence number of
/// the newest deletion that each shard has forgotten.
pub(in crate::conformance) async fn a_cursor_is_gone_exactly_below_the_low_watermark(
    fixture: Fixture,
) {
    let store = &fixture.stores.series;
    let shards = fixture.stores.operation.capabilities().shards;
    // As many as the setting says together, but twice its part in each shard.
    let remembered = MAX_TOMBSTONES.min((2 * MAX_TOMBSTONES).div_ceil(shards));
    let mut cursors = vec![store.cursor().await.expect("the store works")];
    let mut deletions: Vec<Vec<u64>> = vec![Vec::new(); shards];
    for i in 0..2 * shards * remembered {
        let labels = format!("i=\"{i}\"");
        counts(store, one("m", &[("i", &i.to_string())], 1.0, None)).await;
        let before = store.cursor().await.expect("the store works");
        let deleted = store.delete(SeriesId::of("m", &labels), SeriesWriter::anybody()).await;
        assert_eq!(deleted.expect("the store works"), did_delete(1));
        let after = store.cursor().await.expect("the store works");
        for (shard, deletions) in deletions.iter_mut().enumerate() {
            if after.seqs[shard] != before.seqs[shard] {
                deletions.push(after.seqs[shard]);
            }
        }
        cursors.extend([before, after]);
    }
    let watermark = |shard: usize| match deletions[shard].len().checked_sub(remembered + 1) {
        Some(newest) => deletions[shard][newest],
        None => 0,
    };
    let is_gone = |cursor: &Cursor| (0..shards).any(|shard| cursor.seqs[shard] < watermark(shard));
    assert!(is_gone(&cursors[0]), "some deletions were forgotten");
    for cursor in &cursors {
        let delta = store.delta(cursor, None, 1000).await.expect("the store works");
        assert_eq!(delta == Delta::Gone, is_gone(cursor), "{cursor}");
    }
    let exact = (0..shards).map(watermark).collect();
    let exact = Cursor { seqs: exact, ..cursors[0].clone() };
    assert!(store.delta(&exact, None, 1000).await.expect("the store works") != Delta::Gone);
    for shard in 0..shards {
        let mut below = exact.clone();
        below.seqs[shard] -= 1;
        let delta = store.delta(&below, None, 1000).await.expect("the store works");
        assert_eq!(delta, Delta::Gone, "just below, in shard {shard}");
    }
}

pub(in crate::conformance) async fn the_parts_of_a_delta_have_each_series_once(fixture: Fixture) {
    let store = &fixture.stores.series;
    let start = store.cursor().await.expect("the store works");
    for i in 0..20 {
        counts(store, one("m", &[("i", &i.to_string())], 1.0, None)).await;
    }
    let mut read = Vec::new();
    let (mut after, mut head) = (start, None);
    for round in 0.. {
        let delta = store.delta(&after, head.as_ref(), 3).await.expect("the store works");
        let Delta::Changes { changes, next, head: newest, more } = delta else { panic!("gone") };
        if let Some(head) = &head {
            assert_eq!(head, &newest, "the parts end at the same change");
        }
        read.extend(changes.iter().map(super::change_key));
        head.get_or_insert(newest);
        after = next;
        if !more {
            break;
        }
        // One that was read, and one that was not, or was.
        counts(store, one("m", &[("i", &(round % 20).to_string())], 2.0, None)).await;
        counts(store, one("m", &[("i", "19")], f64::from(round), None)).await;
    }
    let all = read.len();
    read.sort();
    read.dedup();
    assert_eq!(read.len(), all, "a series is in two parts");
    // The rest is in the next delta.
    let mut view = super::View::new();
    assert!(super::follow(store, &mut view, &mut after, 100).await);
    assert!(view.contains_key(&("m".to_owned(), "i=\"19\"".to_owned())));
    let mut ahead = store.cursor().await.expect("the store works");
    ahead.seqs.iter_mut().for_each(|seq| *seq += 1);
    let now = store.cursor().await.expect("the store works");
    let beyond = store.delta(&now, Some(&ahead), 3).await.expect("the store works");
    assert_eq!(beyond, Delta::Gone, "an end that was never reached is of a lost past");
}

async fn lead(fixture: &Fixture, ttl: Duration) -> Fence {
    let lease = LeaseName::parse("leader").expect("valid");
    let claimant = Claimant::anonymous(Holder::parse("me").expect("valid"));
    match fixture.stores.leases.acquire(&lease, &claimant, ttl).await.expect("the store works") {
        AcquireOutcome::Acquired(held) => Fence { lease, token: held.token },
        AcquireOutcome::Held(held) => panic!("held by {}", held.holder.as_str()),
    }
}

pub(in crate::conformance) async fn writes_of_series_are_refused_under_a_lease_that_ended(
    fixture: Fixture,
) {
    let store = &fixture.stores.series;
    let ttl = Duration::from_secs(30);
    let fence = lead(&fixture, ttl).await;
    let all = [Selector::parse("m").expect("valid")];
    let id = SeriesId::of("m", "");
    let write = async |value: f64, fence: &Fence| {
        store
            .upsert(one("m", &[], value, None), SeriesWriter::fenced(fence.clone()))
            .await
            .expect("works")
    };
    assert!(matches!(write(1.0, &fence).await, Fenced::Done(UpsertOutcome::Applied(_))));
    let other = Fence { lease: LeaseName::parse("other").expect("valid"), ..fence.clone() };
    fixture.pass(ttl).await;
    for fence in [&fence, &other] {
        let before = snapshot(store).await;
        assert_eq!(write(2.0, fence).await, Fenced::Refused);
        let deleted =
            store.delete(id, SeriesWriter::fenced(fence.clone())).await.expect("the store works");
        assert_eq!(deleted, Fenced::Refused);
        for dry_run in [true, false] {
            let matching =
                store.delete_matching(&all, dry_run, SeriesWriter::fenced(fence.clone())).await;
            assert_eq!(matching.expect("the store works"), Fenced::Refused);
        }
        let after = snapshot(store).await;
        assert_eq!((view_of(before.points), before.cursor), (view_of(after.points), after.cursor));
    }
    let fence = lead(&fixture, ttl).await;
    assert!(matches!(write(3.0, &fence).await, Fenced::Done(UpsertOutcome::Applied(_))));
    let deleted = store.delete(id, SeriesWriter::fenced(fence)).await.expect("the store works");
    assert_eq!(deleted, did_delete(1));
}

/// A batch of one series with labels of about so many bytes, and a help text.
fn sized(name: &str, label_bytes: usize, help: &str) -> PointBatch {
    let mut batch = PointBatch::default();
    let metadata = Metadata { metric_type: MetricType::Gauge, help: help.into(), unit: "".into() };
    let index = batch.add_metadata(metadata);
    batch.push(name, &format!("a=\"{}\"", "x".repeat(label_bytes)), 1.0, None, Some(index));
    batch
}

async fn bytes(fixture: &Fixture) -> u64 {
    let status = fixture.stores.operation.status().await.expect("the store works");
    let series = status.resources.iter().find(|found| found.resource == "series").expect("series");
    assert_eq!(series.limit, Some(MAX_SERIES as u64));
    assert_eq!(series.bytes_limit, Some(MAX_SERIES_BYTES as u64));
    status.bytes("series")
}

/// Computes what the store should count.
async fn expected_bytes(store: &Arc<dyn SeriesStore>) -> u64 {
    let points = snapshot(store).await.points;
    let bytes = points.iter().map(|point| {
        series_bytes(&point.key.name, &point.key.labels, point.metadata.as_deref()) as u64
    });
    bytes.sum()
}

pub(in crate::conformance) async fn the_bytes_of_series_are_counted_exactly(fixture: Fixture) {
    let store = &fixture.stores.series;
    assert_eq!(bytes(&fixture).await, 0);
    let check = async |what: &str| {
        assert_eq!(bytes(&fixture).await, expected_bytes(store).await, "{what}");
    };
    counts(store, sized("a", 100, "help")).await;
    counts(store, sized("b", 100, "help")).await;
    check("created").await;
    counts(store, sized("a", 100, "a longer help")).await;
    check("a longer help text").await;
    counts(store, sized("a", 100, "")).await;
    check("a shorter help text").await;
    counts(store, one("a", &[("a", &"x".repeat(100))], 2.0, None)).await;
    check("no help text leaves the old one").await;
    let mut twice = sized("c", 10, "one");
    twice.push("c", "a=\"xxxxxxxxxx\"", 2.0, None, None);
    counts(store, twice).await;
    check("a series twice in a batch").await;
    let id = SeriesId::of("b", &format!("a=\"{}\"", "x".repeat(100)));
    assert_eq!(
        store.delete(id, SeriesWriter::anybody()).await.expect("the store works"),
        did_delete(1)
    );
    check("deleted").await;
    counts(store, sized("b", 100, "again")).await;
    check("created again").await;
    let all = [Selector::parse("{__name__=~\".+\"}").expect("valid")];
    store.delete_matching(&all, false, SeriesWriter::anybody()).await.expect("the store works");
    assert_eq!(bytes(&fixture).await, 0);
    counts(store, sized("d", 50, "help")).await;
    let before = bytes(&fixture).await;
    if let Some(fixture) = fixture.restart(Duration::from_secs(1)).await {
        assert_eq!(self::bytes(&fixture).await, before, "after a restart");
    }
}

pub(in crate::conformance) async fn the_bytes_of_series_never_exceed_their_budget(
    fixture: Fixture,
) {
    let store = &fixture.stores.series;
    let capabilities = fixture.stores.operation.capabilities();
    // So large that a shard has room for a few.
    let large = MAX_SERIES_BYTES / capabilities.shards / 4;
    let mut refused = 0;
    for i in 0..20 * capabilities.shards {
        match upsert(store, sized(&format!("m{i}"), large, "")).await {
            UpsertOutcome::Applied(_) => {}
            UpsertOutcome::OverBytes { more, room } => {
                assert!(more > room, "{more} {room}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
        assert!(bytes(&fixture).await <= MAX_SERIES_BYTES as u64);
    }
    assert!(refused > 0 && bytes(&fixture).await >= MAX_SERIES_BYTES as u64 / 2);
    let before = snapshot(store).await;
    // Known series, and more help for them than there is room for.
    let known = before.points[0].key.clone();
    let mut update = PointBatch::default();
    update.push(&known.name, &known.labels, 5.0, None, None);
    assert_eq!(counts(store, update).await.updated, 1, "what does not grow fits");
    let mut grown = PointBatch::default();
    let help = "h".repeat(MAX_SERIES_BYTES);
    let metadata = Metadata { metric_type: MetricType::Gauge, help: help.into(), unit: "".into() };
    let index = grown.add_metadata(metadata);
    grown.push(&known.name, &known.labels, 6.0, None, Some(index));
    let outcome = upsert(store, grown).await;
    assert!(matches!(outcome, UpsertOutcome::OverBytes { .. }), "{outcome:?}");
    // A batch for all shards is refused as a whole.
    let mut many = PointBatch::default();
    for i in 0..50 {
        many.push("many", &format!("i=\"{i}\",x=\"{}\"", "x".repeat(large)), 1.0, None, None);
    }
    let outcome = upsert(store, many).await;
    assert!(matches!(outcome, UpsertOutcome::OverBytes { .. }), "{outcome:?}");
    let after = snapshot(store).await.points;
    assert_eq!(after.len(), before.points.len());
    // The keys of deletions are bounded as well.
    for i in 0..20 * capabilities.shards {
        let labels = format!("a=\"{}\"", "x".repeat(large));
        store
            .delete(SeriesId::of(&format!("m{i}"), &labels), SeriesWriter::anybody())
            .await
            .expect("works");
        upsert(store, sized(&format!("n{i}"), large, "")).await;
    }
    let status = fixture.stores.operation.status().await.expect("the store works");
    let tombstones = status.bytes("series_tombstones");
    assert!(tombstones <= MAX_SERIES_BYTES as u64 / 4, "{tombstones}");
}

pub(in crate::conformance) async fn racing_writers_never_exceed_the_bytes(fixture: Fixture) {
    let store = &fixture.stores.series;
    let atomic = fixture.stores.operation.capabilities().atomic_batches;
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                for round in 0..25 {
                    let mut batch = PointBatch::default();
                    for i in 0..4 {
                        let labels =
                            format!("w=\"{writer}\",x=\"{}\"", "x".repeat(500 * i + round));
                        batch.push(&format!("m{i}"), &labels, 1.0, None, None);
                    }
                    match store.upsert(batch, SeriesWriter::anybody()).await {
                        Ok(Fenced::Done(_)) => {}
                        // Another writer used up the room while the batch was applied.
                        Err(error) if !atomic => assert_ne!(error.kind, ErrorKind::Internal),
                        other => panic!("{other:?}"),
                    }
                    if round % 5 == 4 {
                        let some =
                            Selector::parse(&format!("m1{{w=\"{writer}\"}}")).expect("valid");
                        store
                            .delete_matching(&[some], false, SeriesWriter::anybody())
                            .await
                            .expect("works");
                    }
                    let live = expected_bytes(&store).await;
                    assert!(live <= MAX_SERIES_BYTES as u64, "{live}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    assert_eq!(bytes(&fixture).await, expected_bytes(store).await);
}
