//! Fenced writes, and leases that change hands meanwhile.

use std::fs;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::{Fixture, MINUTE, files, lease_name, load, open};
use crate::clock::ManualClock;
use crate::model::checkpoints::CheckpointKey;
use crate::model::leases::{Claimant, Fence, Holder};
use crate::model::time::Timestamp;
use crate::store::embedded::durable::{Changes, DurableStore, PublishGuard, PublishHook, Tables};
use crate::store::embedded::fences::Leases;
use crate::store::{CheckpointStore, Fenced, LeaseStore};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_does_not_change_hands_in_the_middle_of_a_fenced_write() {
    let fixture = Arc::new(Fixture::new());
    let lease = fixture.lease("l", "me").await.expect("free");
    let fence = Fence { lease: lease_name("l"), token: lease.token };
    let (entered, has_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let writer = std::thread::spawn({
        let (fixture, fence) = (Arc::clone(&fixture), fence.clone());
        move || {
            let held = fixture.fences.with_fence(&fence, |holds| {
                entered.send(holds).expect("is awaited");
                may_leave.recv().expect("comes");
            });
            held.expect("the store is open");
        }
    });
    assert!(has_entered.recv().expect("enters"));
    fixture.clock.advance(2 * MINUTE);
    let takeover = tokio::spawn({
        let fixture = Arc::clone(&fixture);
        async move { fixture.lease("l", "other").await }
    });
    // The takeover is on disk, but not visible.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while fixture.clone_of_files_has_no_takeover().await {
        assert!(std::time::Instant::now() < deadline);
    }
    assert!(!takeover.is_finished());
    assert_eq!(fixture.read_lease("l").await, None);
    leave.send(()).expect("is awaited");
    writer.join().expect("ends");
    let taken = takeover.await.expect("ends").expect("free");
    assert!(taken.token > lease.token);
    assert_eq!(fixture.fences.with_fence(&fence, |holds| holds).ok(), Some(false));
}

#[tokio::test]
async fn other_leases_change_hands_in_the_middle_of_a_fenced_write() {
    let fixture = Fixture::new();
    let lease = fixture.lease("l", "me").await.expect("free");
    for n in 0..500 {
        fixture.lease(&format!("other {n}"), "me").await.expect("free");
    }
    let fence = Fence { lease: lease_name("l"), token: lease.token };
    let fixture = Arc::new(fixture);
    let writing = Arc::clone(&fixture);
    let (entered, has_entered) = oneshot::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let writer = std::thread::spawn(move || {
        let held = writing.fences.with_fence(&fence, |holds| {
            entered.send(holds).expect("is awaited");
            may_leave.recv().expect("comes");
        });
        held.expect("the store is open");
    });
    assert!(has_entered.await.expect("enters"));
    fixture.clock.advance(2 * MINUTE);
    let takeovers = async {
        for n in 0..500 {
            fixture.lease(&format!("other {n}"), "another").await.expect("free");
        }
    };
    tokio::time::timeout(MINUTE, takeovers).await.expect("no takeover waits");
    leave.send(()).expect("is awaited");
    writer.join().expect("ends");
}

impl Fixture {
    async fn clone_of_files_has_no_takeover(&self) -> bool {
        let folder = tempfile::tempdir().expect("tempdir");
        for (name, bytes) in files(self.folder.path()) {
            fs::write(folder.path().join(name), bytes).expect("copies");
        }
        let (store, _) = open(folder.path(), &self.clock).expect("recovers");
        LeaseStore::get(&*store, &lease_name("l")).await.expect("responds").is_none()
    }
}

/// Tells of each group, when its guard is dropped, whether it is visible.
struct Watching {
    store: OnceLock<Weak<DurableStore>>,
    visible: mpsc::Sender<bool>,
}

impl PublishHook for Watching {
    fn before_publish<'a>(
        &'a self,
        _: &Changes,
        _: &RwLock<Tables>,
    ) -> Option<Box<dyn PublishGuard + 'a>> {
        Some(Box::new(WatchingGuard(self)))
    }
}

struct WatchingGuard<'a>(&'a Watching);

impl PublishGuard for WatchingGuard<'_> {}

impl Drop for WatchingGuard<'_> {
    fn drop(&mut self) {
        let store = self.0.store.get().and_then(Weak::upgrade).expect("the store lives");
        let (tables, _) = store.read().expect("the store is open");
        let visible = tables.rows::<Leases>().get_unpurged(&lease_name("l")).is_some();
        self.0.visible.send(visible).expect("is awaited");
    }
}

#[tokio::test]
async fn latches_open_only_when_the_new_holder_is_visible() {
    let folder = tempfile::tempdir().expect("tempdir");
    let (visible, seen) = mpsc::channel();
    let hook = Arc::new(Watching { store: OnceLock::new(), visible });
    let clock = Arc::new(ManualClock::at(Timestamp::from_nanos(1_000_000_000)));
    let loaded = load(Some(folder.path())).expect("opens");
    let whole = loaded.make_whole().expect("commits");
    let store = whole.serve(clock, Arc::clone(&hook) as _).expect("a thread");
    hook.store.set(Arc::downgrade(&store)).expect("once");
    let claimant = Claimant::anonymous(Holder::parse("me").expect("valid"));
    let lease = lease_name("l");
    LeaseStore::acquire(&*store, &lease, &claimant, MINUTE).await.expect("responds");
    assert_eq!(seen.recv(), Ok(true));
}

#[tokio::test]
async fn a_fenced_write_is_refused_when_the_lease_has_expired_or_changed_hands() {
    let fixture = Fixture::new();
    let key = CheckpointKey::parse("org", "repo").expect("valid");
    let lease = fixture.lease("l", "me").await.expect("free");
    let set = |token| {
        let fence = Some(Fence { lease: lease_name("l"), token });
        CheckpointStore::set(&*fixture.store, key.clone(), Timestamp::MAX, false, fence)
    };
    assert!(matches!(set(lease.token).await, Ok(Fenced::Done(_))));
    let again = fixture.take_over("l", "me").await.expect("is its own");
    assert_eq!(set(lease.token).await.expect("responds"), Fenced::Refused);
    assert!(matches!(set(again.token).await, Ok(Fenced::Done(_))));
    fixture.clock.advance(2 * MINUTE);
    assert_eq!(set(again.token).await.expect("responds"), Fenced::Refused);
}
