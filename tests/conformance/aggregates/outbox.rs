//! What every outbox must do: one note for each update that is merged, in order, and none for any other.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdall::model::aggregates::{Bucket, Update};
use holdall::model::cursor::Cursor;
use holdall::model::hooks::{Hook, Note, Webhook, WebhookUrl};
use holdall::model::pipelines::Pipeline;
use holdall::store::{After, MergeOutcome, NoteLimits, OutboxStore, StoreSettings};
use serde_json::json;

use super::{HOUR, add, hourly, merge, merged, numbered, once, pipeline, store, try_merge};
use crate::conformance::fixture::Fixture;

const MAX_NOTES: usize = 5;
const ALL: NoteLimits = NoteLimits { notes: usize::MAX, bytes: usize::MAX };

fn webhook() -> Webhook {
    Webhook {
        url: WebhookUrl::parse("http://receiver").expect("valid"),
        secret: "0123456789abcdef".to_owned().into(),
        timeout: Duration::from_secs(1),
        batch: 100,
        propagate_errors: false,
    }
}

fn hooked(name: &str, webhook: Option<Webhook>, stream: bool) -> Arc<Pipeline> {
    let hook = Some(Hook { webhook, stream });
    Arc::new(Pipeline { hook, ..pipeline(name, &json!({"kind": "sum"})) })
}

/// Opens the outboxes of these pipelines.
async fn open(fixture: &Fixture, pipelines: &[&Arc<Pipeline>]) -> Arc<dyn OutboxStore> {
    let outbox = fixture.stores.outbox.clone().expect("the backend has outboxes");
    let pipelines: Vec<_> = pipelines.iter().map(|of| Arc::clone(of)).collect();
    outbox.open_outboxes(&pipelines).await.expect("the store works");
    outbox
}

fn with_note(text: &str, update: Update) -> Update {
    Update { note: Some(format!("{{\"of\":\"{text}\"}}").into()), ..update }
}

async fn read(
    outbox: &Arc<dyn OutboxStore>,
    pipeline: &Arc<Pipeline>,
    after: After<'_>,
    limits: NoteLimits,
) -> Option<(Vec<Note>, Cursor)> {
    let page = outbox.notes(pipeline, after, limits).await.expect("the store works")?;
    Some((page.notes, page.next))
}

/// Reads the texts after a cursor, without their frames; `None` when the cursor is gone.
async fn texts(
    outbox: &Arc<dyn OutboxStore>,
    pipeline: &Arc<Pipeline>,
    after: After<'_>,
) -> Option<String> {
    let (notes, _) = read(outbox, pipeline, after, ALL).await?;
    let text = |note: &Note| note.text[7..note.text.len() - 2].to_owned();
    Some(notes.iter().map(text).collect::<Vec<_>>().join(" "))
}

pub(in crate::conformance) async fn each_merged_update_has_a_note_and_no_other_has(
    fixture: Fixture,
) {
    let store = store(&fixture);
    let (sums, other) = (hooked("sums", None, true), hooked("sumsa", None, true));
    let window = hourly("hours").window;
    let hours = Arc::new(Pipeline { window, ..(*hooked("hours", None, true)).clone() });
    let outbox = open(&fixture, &[&sums, &other, &hours]).await;
    let event = |text, delta, id| with_note(text, once(&sums, "e", delta, id));
    let first = vec![event("a", 1, "1"), event("b", 2, "2"), event("c", 1, "1")];
    assert_eq!(merge(&store, &sums, first).await, merged(2, 1, 0));
    let conflict = vec![with_note("d", add(&sums, "e", 1)), event("e", 5, "1")];
    assert_eq!(merge(&store, &sums, conflict).await, MergeOutcome::Conflict { index: 1 });
    let refused =
        vec![with_note("f", add(&sums, "f", 1)), with_note("g", add(&sums, "e", i64::MAX))];
    let refused = merge(&store, &sums, refused).await;
    assert!(matches!(refused, MergeOutcome::Refused { index: 1, .. }), "{refused:?}");
    for _ in 0..2 {
        let mut batch = numbered(&sums, "producer", 1, 3);
        batch.updates = batch.updates.into_iter().map(|update| with_note("h", update)).collect();
        try_merge(&store, batch).await.expect("the store works");
    }
    merge(&store, &other, vec![with_note("x", add(&other, "e", 1))]).await;
    let present = Bucket::of(fixture.clock.now(), HOUR);
    let at = |text, bucket| Update { bucket, ..with_note(text, add(&hours, "e", 1)) };
    let updates = vec![at("y", present), at("z", present.back(1_000))];
    assert_eq!(merge(&store, &hours, updates).await, merged(1, 0, 1));
    for (pipeline, expected) in [(&sums, "a b h"), (&other, "x"), (&hours, "y")] {
        assert_eq!(texts(&outbox, pipeline, After::Nothing).await.as_deref(), Some(expected));
    }
}

pub(in crate::conformance) async fn a_reader_of_notes_goes_on_behind_its_cursor(fixture: Fixture) {
    let (store, sums) = (store(&fixture), hooked("sums", None, true));
    let outbox = open(&fixture, &[&sums]).await;
    let mut signal = outbox.note_changes();
    signal.mark_unchanged();
    let (none, mut cursor) = read(&outbox, &sums, After::Nothing, ALL).await.expect("begins");
    assert!(none.is_empty());
    for text in ["a", "b", "c", "d"] {
        merge(&store, &sums, vec![with_note(text, add(&sums, "e", 1))]).await;
    }
    assert!(signal.has_changed().expect("the store is there"));
    let mut numbers = Vec::new();
    for (limits, expected) in [
        (NoteLimits { notes: 1, ..ALL }, 1),
        (NoteLimits { bytes: 24, ..ALL }, 2),
        (NoteLimits { bytes: 1, ..ALL }, 1),
        (ALL, 0),
    ] {
        let (notes, next) =
            read(&outbox, &sums, After::Cursor(&cursor), limits).await.expect("is known");
        assert_eq!(notes.len(), expected);
        numbers.extend(notes.iter().map(|note| note.sequence));
        cursor = next;
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    // Cursors of other outboxes, and of notes that this one does not know.
    let ahead = Cursor::single(cursor.epoch, cursor.seqs[0] + 1);
    for wrong in [ahead, Cursor::single(cursor.epoch + 1, cursor.seqs[0]), Cursor::single(1, 0)] {
        assert_eq!(texts(&outbox, &sums, After::Cursor(&wrong)).await, None);
    }
}

pub(in crate::conformance) async fn delivered_notes_leave_unless_there_is_a_stream(
    fixture: Fixture,
) {
    let store = store(&fixture);
    let alone = hooked("alone", Some(webhook()), false);
    let both = hooked("both", Some(webhook()), true);
    let outbox = open(&fixture, &[&alone, &both]).await;
    for (pipeline, left) in [(&alone, "c"), (&both, "a b c")] {
        let note = |text| with_note(text, add(pipeline, "e", 1));
        merge(&store, pipeline, vec![note("a"), note("b"), note("c")]).await;
        let limits = NoteLimits { notes: 2, ..ALL };
        let (_, next) = read(&outbox, pipeline, After::Delivered, limits).await.expect("no cursor");
        fixture.pass(Duration::from_secs(7)).await;
        for _ in 0..2 {
            outbox.set_delivered(pipeline, &next).await.expect("the store works");
            assert_eq!(texts(&outbox, pipeline, After::Delivered).await.as_deref(), Some("c"));
            assert_eq!(texts(&outbox, pipeline, After::Nothing).await.as_deref(), Some(left));
        }
        let state = outbox.outbox_state(pipeline).await.expect("the store works");
        assert_eq!((state.undelivered, state.dropped, &state.delivered), (1, 0, &next));
        assert!(state.oldest_undelivered >= Duration::from_secs(7), "{state:?}");
        // What is earlier, or was never there, changes nothing.
        let earlier = Cursor::single(next.epoch, next.seqs[0] - 1);
        let ahead = Cursor::single(next.epoch, state.newest.seqs[0] + 1);
        for wrong in [earlier, ahead, Cursor::single(1, state.newest.seqs[0])] {
            outbox.set_delivered(pipeline, &wrong).await.expect("the store works");
            assert_eq!(outbox.outbox_state(pipeline).await.expect("works").delivered, next);
        }
    }
}

fn few(settings: &mut StoreSettings) {
    settings.aggregates.max_outbox_notes = MAX_NOTES;
}

pub(in crate::conformance) async fn the_oldest_notes_leave_at_the_bound_and_no_merge_is_refused(
    fixture: Fixture,
) {
    let fixture = fixture.wipe_with(few).await;
    let store = store(&fixture);
    let sums = hooked("sums", Some(webhook()), true);
    let outbox = open(&fixture, &[&sums]).await;
    let (_, begin) = read(&outbox, &sums, After::Nothing, ALL).await.expect("begins");
    let note = |text| with_note(text, add(&sums, "e", 1));
    merge(&store, &sums, vec![note("a"), note("b"), note("c"), note("d")]).await;
    let one = NoteLimits { notes: 1, ..ALL };
    let (_, first) = read(&outbox, &sums, After::Nothing, one).await.expect("no cursor");
    outbox.set_delivered(&sums, &first).await.expect("the store works");
    // The first of them was delivered, so it is not counted when it leaves.
    merge(&store, &sums, vec![note("e"), note("f"), note("g"), note("h")]).await;
    assert_eq!(texts(&outbox, &sums, After::Nothing).await.as_deref(), Some("d e f g h"));
    assert_eq!(texts(&outbox, &sums, After::Delivered).await.as_deref(), Some("d e f g h"));
    assert_eq!(texts(&outbox, &sums, After::Cursor(&begin)).await, None);
    assert_eq!(texts(&outbox, &sums, After::Cursor(&first)).await, None);
    let state = outbox.outbox_state(&sums).await.expect("the store works");
    assert_eq!((state.notes, state.undelivered, state.dropped), (5, 5, 2));
    // Also those of one batch alone; and a note that is too large stays until there is another one.
    merge(&store, &sums, "ijklmnop".split("").skip(1).take(8).map(note).collect()).await;
    assert_eq!(texts(&outbox, &sums, After::Nothing).await.as_deref(), Some("l m n o p"));
    let fixture = fixture.wipe_with(|settings| settings.aggregates.max_outbox_bytes = 1).await;
    let (store, outbox) = (super::store(&fixture), open(&fixture, &[&sums]).await);
    merge(&store, &sums, vec![note("a"), note("b")]).await;
    assert_eq!(texts(&outbox, &sums, After::Nothing).await.as_deref(), Some("b"));
    assert_eq!(outbox.outbox_state(&sums).await.expect("the store works").dropped, 1);
}

pub(in crate::conformance) async fn concurrent_merges_have_each_a_note(fixture: Fixture) {
    let (store, sums) = (store(&fixture), hooked("sums", None, true));
    let outbox = open(&fixture, &[&sums]).await;
    let callers = (0..16).map(|caller| {
        let (store, sums) = (Arc::clone(&store), Arc::clone(&sums));
        tokio::spawn(async move {
            for n in 0..20 {
                let text = format!("{}", caller * 100 + n);
                merge(&store, &sums, vec![with_note(&text, add(&sums, "e", 1))]).await;
            }
        })
    });
    join_all(callers).await.into_iter().for_each(|ended| ended.expect("no panic"));
    let found = texts(&outbox, &sums, After::Nothing).await.expect("no cursor");
    let mut found: Vec<u32> = found.split(' ').map(|of| of.parse().expect("a number")).collect();
    // Those of one caller are in the order in which it sent them.
    for caller in 0..16 {
        assert!(found.iter().filter(|of| *of / 100 == caller).is_sorted());
    }
    found.sort_unstable();
    let expected = (0..16).flat_map(|caller| (0..20).map(move |n| caller * 100 + n));
    assert_eq!(found, expected.collect::<Vec<_>>());
}

pub(in crate::conformance) async fn notes_survive_a_restart_and_leave_with_their_hook(
    fixture: Fixture,
) {
    let store = store(&fixture);
    let sums = hooked("sums", Some(webhook()), true);
    let outbox = open(&fixture, &[&sums]).await;
    let note = |text| with_note(text, add(&sums, "e", 1));
    merge(&store, &sums, vec![note("a"), note("b")]).await;
    let one = NoteLimits { notes: 1, ..ALL };
    let (first, cursor) = read(&outbox, &sums, After::Nothing, one).await.expect("no cursor");
    outbox.set_delivered(&sums, &cursor).await.expect("the store works");
    let Some(fixture) = fixture.restart(Duration::from_secs(3)).await else { return };
    let (store, outbox) = (super::store(&fixture), open(&fixture, &[&sums]).await);
    merge(&store, &sums, vec![note("c")]).await;
    assert_eq!(texts(&outbox, &sums, After::Cursor(&cursor)).await.as_deref(), Some("b c"));
    assert_eq!(texts(&outbox, &sums, After::Delivered).await.as_deref(), Some("b c"));
    let (again, _) = read(&outbox, &sums, After::Nothing, one).await.expect("no cursor");
    assert_eq!(again[0].sequence, first[0].sequence);
    // Without its hook, the pipeline has no notes; with it again, other ones.
    let other = hooked("other", None, true);
    open(&fixture, &[&other]).await;
    let outbox = open(&fixture, &[&sums]).await;
    assert_eq!(texts(&outbox, &sums, After::Cursor(&cursor)).await, None);
    assert_eq!(texts(&outbox, &sums, After::Nothing).await.as_deref(), Some(""));
}
