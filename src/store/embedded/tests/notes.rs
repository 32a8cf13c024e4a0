//! What the model of aggregates knows of the outboxes: for each update that was merged one note, in order, within the
//! bounds. One pipeline has a webhook alone, the other one a stream as well.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Fixture;
use super::aggregates::pipeline;
use crate::model::aggregates::Update;
use crate::model::hooks::{Hook, Webhook, WebhookUrl};
use crate::store::{After, NoteLimits, OutboxStore};

/// The most notes of a pipeline.
pub(super) const MAX_NOTES: usize = 9;
const ALL: NoteLimits = NoteLimits { notes: usize::MAX, bytes: usize::MAX };

pub(super) fn hook(stream: bool) -> Hook {
    let webhook = Webhook {
        url: WebhookUrl::parse("http://a").expect("valid"),
        secret: "0123456789abcdef".to_owned().into(),
        timeout: Duration::from_secs(1),
        batch: 1,
        propagate_errors: false,
    };
    Hook { webhook: Some(webhook), stream }
}

/// Returns a note that tells its update from others.
pub(super) fn note(entity: u8, bucket: i64, delta: i64) -> Arc<str> {
    json!({"entity": entity, "bucket": bucket, "delta": delta}).to_string().into()
}

/// Holds both outboxes to the model.
pub(super) async fn compare_outboxes(
    fixture: &Fixture,
    outboxes: &mut BTreeMap<bool, ModelOutbox>,
) {
    for windowed in [true, false] {
        outboxes.entry(windowed).or_default().compare(fixture, windowed).await;
    }
}

/// The outbox of one pipeline.
#[derive(Default)]
pub(super) struct ModelOutbox {
    /// Each with its sequence number, once it was seen, and whether it was delivered.
    notes: VecDeque<(Arc<str>, Option<u64>, bool)>,
    dropped: u64,
    /// The greatest number that was seen.
    seen: u64,
}

impl ModelOutbox {
    /// Notes updates that were merged.
    pub(super) fn add<'a>(&mut self, updates: impl Iterator<Item = &'a Update>) {
        for update in updates {
            let note = update.note.clone().expect("the pipeline has a hook");
            self.notes.push_back((note, None, false));
        }
        while self.notes.len() > MAX_NOTES {
            let dropped = self.notes.pop_front().is_some_and(|(_, _, delivered)| !delivered);
            self.dropped += u64::from(dropped);
        }
    }

    /// Lets the webhook have the next `count` notes.
    pub(super) async fn deliver(&mut self, fixture: &Fixture, windowed: bool, count: usize) {
        let pipeline = pipeline(windowed);
        let limits = NoteLimits { notes: count, ..ALL };
        let page = fixture.store.notes(&pipeline, After::Delivered, limits).await;
        let page = page.expect("responds").expect("there is no cursor");
        let undelivered = self.notes.iter_mut().filter(|(_, _, delivered)| !delivered);
        let expected: Vec<_> = undelivered.take(count).collect();
        let found: Vec<_> = page.notes.iter().map(|note| &note.text).collect();
        assert_eq!(found, expected.iter().map(|(text, _, _)| text).collect::<Vec<_>>());
        expected.into_iter().for_each(|(_, _, delivered)| *delivered = true);
        fixture.store.set_delivered(&pipeline, &page.next).await.expect("responds");
        if windowed {
            self.notes.retain(|(_, _, delivered)| !delivered);
        }
    }

    /// Holds the outbox to the model. A note keeps its number, and a new one is greater than all that were seen.
    async fn compare(&mut self, fixture: &Fixture, windowed: bool) {
        let pipeline = pipeline(windowed);
        let page = fixture.store.notes(&pipeline, After::Nothing, ALL).await;
        let page = page.expect("responds").expect("there is no cursor");
        let found: Vec<_> = page.notes.iter().map(|note| &note.text).collect();
        assert_eq!(found, self.notes.iter().map(|(text, _, _)| text).collect::<Vec<_>>());
        for ((_, known, _), note) in self.notes.iter_mut().zip(&page.notes) {
            match known {
                Some(known) => assert_eq!(*known, note.sequence),
                None => {
                    assert!(note.sequence > self.seen, "{} after {}", note.sequence, self.seen);
                    (*known, self.seen) = (Some(note.sequence), note.sequence);
                }
            }
        }
        let state = fixture.store.outbox_state(&pipeline).await.expect("responds");
        let undelivered = self.notes.iter().filter(|(_, _, delivered)| !delivered).count() as u64;
        assert_eq!(
            (state.notes, state.undelivered, state.dropped),
            (self.notes.len() as u64, undelivered, self.dropped)
        );
        let each = |(text, _, _): &(Arc<str>, _, _)| 256 + text.len() as u64;
        assert_eq!(state.bytes, self.notes.iter().map(each).sum::<u64>());
    }
}
