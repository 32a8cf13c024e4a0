//! Any sequence of calls, restarts and kills returns what a plain model returns.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config;

use super::{DAY, Fixture, MINUTE, lease_name};
use crate::clock::Clock;
use crate::model::checkpoints::CheckpointKey;
use crate::model::leases::{Claimant, Fence, FencingToken, Holder, Lease};
use crate::model::locks::{LockKey, LockKind, ReleaseToken};
use crate::model::time::Timestamp;
use crate::store::{
    AcquireOutcome, CheckpointOutcome, CheckpointStore, Fenced, LeaseStore, LockOutcome, LockStore,
};

#[derive(Debug, Clone)]
enum Step {
    Lock { keys: Vec<u8>, ttl_ms: u16 },
    Acquire { name: u8, holder: u8, ttl_ms: u16 },
    Renew { name: u8, stale: bool, ttl_ms: Option<u16> },
    Release { name: u8, stale: bool },
    Set { repo: u8, to: i64, if_later: bool, fence: Option<(u8, bool)> },
    Delete { repo: u8 },
    Advance { ms: u16 },
    Purge,
    Compaction { rows: u8 },
    FailNext,
    Restart,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || 0..3_u8;
    let ttl = || 1..5000_u16;
    let step = prop_oneof![
        4 => (prop::collection::vec(0..6_u8, 1..4), ttl())
            .prop_map(|(keys, ttl_ms)| Step::Lock { keys, ttl_ms }),
        4 => (name(), 0..2_u8, ttl())
            .prop_map(|(name, holder, ttl_ms)| Step::Acquire { name, holder, ttl_ms }),
        2 => (name(), any::<bool>(), prop::option::of(ttl()))
            .prop_map(|(name, stale, ttl_ms)| Step::Renew { name, stale, ttl_ms }),
        2 => (name(), any::<bool>()).prop_map(|(name, stale)| Step::Release { name, stale }),
        3 => (name(), 0..5_i64, any::<bool>(), prop::option::of((name(), any::<bool>())))
            .prop_map(|(repo, to, if_later, fence)| Step::Set { repo, to, if_later, fence }),
        1 => name().prop_map(|repo| Step::Delete { repo }),
        4 => ttl().prop_map(|ms| Step::Advance { ms }),
        1 => Just(Step::Purge),
        2 => (1..4_u8).prop_map(|rows| Step::Compaction { rows }),
        1 => Just(Step::FailNext),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..60)
}

/// What is held, as simply as possible. Expired rows are dropped at each step.
#[derive(Default)]
struct Model {
    locks: BTreeMap<u8, Timestamp>,
    leases: BTreeMap<u8, Lease>,
    checkpoints: BTreeMap<u8, (Timestamp, Timestamp)>,
    last_token: i64,
}

const RETENTION: Duration = DAY;

impl Model {
    fn expire(&mut self, now: Timestamp) {
        self.locks.retain(|_, at| now < *at);
        self.leases.retain(|_, lease| now < lease.expires_at);
        self.checkpoints.retain(|_, (_, written)| now < written.saturating_add(RETENTION));
    }

    fn token(&self, name: u8, stale: bool) -> FencingToken {
        let token = self.leases.get(&name).map_or(FencingToken(0), |lease| lease.token);
        if stale { FencingToken(token.0 - 1) } else { token }
    }

    fn holds(&self, name: u8, token: FencingToken) -> bool {
        self.leases.get(&name).is_some_and(|lease| lease.token == token)
    }
}

fn millis(ms: u16) -> Duration {
    Duration::from_millis(ms.into())
}

/// The promise, in other words than the code: not before the ttl is over, and at the first
/// whole millisecond from there.
fn assert_ends(at: Timestamp, now: Timestamp, ttl: Duration) {
    assert!(at >= now.saturating_add(ttl));
    assert!(at.saturating_since(now.saturating_add(ttl)) < Duration::from_millis(1));
    assert_eq!(at, at.floor_to_millis());
}

async fn lease_step(fixture: &Fixture, model: &mut Model, step: &Step) {
    let now = fixture.clock.now();
    let store: &dyn LeaseStore = &*fixture.store;
    let named = |name: u8| lease_name(&format!("lease {name}"));
    match *step {
        Step::Acquire { name, holder, ttl_ms } => {
            let holder = Holder::parse(format!("holder {holder}")).expect("valid");
            let claimant = Claimant::anonymous(holder.clone());
            let own = model.leases.get(&name).is_some_and(|held| held.holder == holder);
            let taken = store.take_over(&named(name), &claimant, millis(ttl_ms)).await;
            let outcome = match taken.expect("responds") {
                Some(lease) => AcquireOutcome::Acquired(lease),
                None => {
                    let acquired = store.acquire(&named(name), &claimant, millis(ttl_ms)).await;
                    acquired.expect("responds")
                }
            };
            match outcome {
                AcquireOutcome::Acquired(lease) => {
                    assert!(own || !model.leases.contains_key(&name));
                    assert!(lease.token.0 > model.last_token, "tokens must grow for ever");
                    assert_eq!((&lease.holder, lease.ttl), (&holder, millis(ttl_ms)));
                    assert_ends(lease.expires_at, now, lease.ttl);
                    model.last_token = lease.token.0;
                    model.leases.insert(name, lease);
                }
                AcquireOutcome::Held(lease) => {
                    assert_eq!(Some(&lease), model.leases.get(&name));
                    assert_ne!(lease.holder, holder);
                }
            }
        }
        Step::Renew { name, stale, ttl_ms } => {
            let token = model.token(name, stale);
            let renewed = store.renew(&named(name), token, ttl_ms.map(millis)).await;
            let renewed = renewed.expect("responds");
            assert_eq!(renewed.is_some(), model.holds(name, token));
            if let Some(lease) = renewed {
                let held = &model.leases[&name];
                assert_eq!((&lease.holder, lease.token), (&held.holder, held.token));
                assert_eq!(lease.ttl, ttl_ms.map_or(held.ttl, millis));
                assert_ends(lease.expires_at, now, lease.ttl);
                model.leases.insert(name, lease);
            }
        }
        Step::Release { name, stale } => {
            let token = model.token(name, stale);
            let released = store.release(&named(name), token).await.expect("responds");
            assert_eq!(released, model.holds(name, token));
            if released {
                model.leases.remove(&name);
            }
        }
        _ => {}
    }
}

async fn checkpoint_step(fixture: &Fixture, model: &mut Model, step: &Step) {
    let now = fixture.clock.now();
    let store: &dyn CheckpointStore = &*fixture.store;
    let key = |repo: u8| CheckpointKey::parse("org", &format!("repo {repo}")).expect("valid");
    match *step {
        Step::Set { repo, to, if_later, fence } => {
            let to = Timestamp::from_nanos(to);
            let fence = fence.map(|(name, stale)| (name, model.token(name, stale)));
            let named =
                |(name, token)| Fence { lease: lease_name(&format!("lease {name}")), token };
            let outcome = store.set(key(repo), to, if_later, fence.map(named)).await;
            let held = model.checkpoints.get(&repo).map(|held| held.0);
            match outcome.expect("responds") {
                Fenced::Refused => {
                    let (name, token) = fence.expect("only a fence can refuse");
                    assert!(!model.holds(name, token));
                }
                Fenced::Done(CheckpointOutcome::NotLater(stands)) => {
                    assert!(if_later && held > Some(to) && held == Some(stands.checkpoint));
                }
                Fenced::Done(CheckpointOutcome::Stored(stored)) => {
                    assert!(fence.is_none_or(|(name, token)| model.holds(name, token)));
                    assert!(!(if_later && held > Some(to)));
                    assert_eq!(stored.checkpoint, to);
                    assert_eq!(stored.written_at, now.floor_to_millis());
                    model.checkpoints.insert(repo, (to, stored.written_at));
                }
            }
        }
        Step::Delete { repo } => {
            let deleted = store.delete(key(repo), None).await.expect("responds");
            assert_eq!(deleted, Fenced::Done(model.checkpoints.remove(&repo).is_some()));
        }
        _ => {}
    }
}

async fn lock_step(fixture: &Fixture, model: &mut Model, keys: &[u8], ttl: Duration) {
    let now = fixture.clock.now();
    let named = |key: &u8| LockKey::parse(LockKind::Job, format!("{key}")).expect("valid");
    let outcomes = LockStore::acquire(
        &*fixture.store,
        keys.iter().map(named).collect(),
        ttl,
        ReleaseToken([0; 16]),
    );
    for (key, LockOutcome { acquired, expires_at }) in
        keys.iter().zip(outcomes.await.expect("responds"))
    {
        match model.locks.get(key) {
            Some(ends) => assert_eq!((acquired, expires_at), (false, *ends)),
            None => {
                assert!(acquired);
                assert_ends(expires_at, now, ttl);
                model.locks.insert(*key, expires_at);
            }
        }
    }
}

async fn compare(fixture: &Fixture, model: &Model) {
    let counts = ["locks", "leases", "checkpoints"].map(|resource| fixture.entries(resource));
    let lengths = [model.locks.len(), model.leases.len(), model.checkpoints.len()];
    assert_eq!(counts, lengths.map(|length| length as u64));
    let leases = LeaseStore::list(&*fixture.store, None, 100).await.expect("responds");
    let leases: Vec<Lease> = leases.into_iter().map(|(_, lease)| lease).collect();
    assert_eq!(leases, model.leases.values().cloned().collect::<Vec<_>>());
    let list = CheckpointStore::list(&*fixture.store, Some("org"), None, 100).await;
    let list: Vec<_> =
        list.expect("responds").iter().map(|(_, c)| (c.checkpoint, c.written_at)).collect();
    assert_eq!(list, model.checkpoints.values().copied().collect::<Vec<_>>());
}

/// The next commit fails: nothing of it may be there, now or later.
async fn fail_next(fixture: &Fixture) {
    fixture.before_next_commit(|file| {
        let trigger = "CREATE TEMP TRIGGER fail AFTER INSERT ON journal BEGIN
            SELECT RAISE(ABORT, 'as the test wants'); END";
        file.connection().execute_batch(trigger).expect("creates");
    });
    fixture.lock("the key of no other step").await.expect_err("the commit fails");
    fixture.before_next_commit(|file| {
        file.connection().execute_batch("DROP TRIGGER IF EXISTS fail").expect("drops");
    });
    // A commit that finds the trigger gone; its row is removed again.
    let name = lease_name("the lease of no other step");
    let holder = Holder::parse("nobody").expect("valid");
    let store: &dyn LeaseStore = &*fixture.store;
    match store.acquire(&name, &Claimant::anonymous(holder), MINUTE).await.expect("works again") {
        AcquireOutcome::Acquired(lease) => {
            assert!(store.release(&name, lease.token).await.expect("responds"));
        }
        AcquireOutcome::Held(_) => panic!("nobody holds it"),
    }
}

async fn run(steps: Vec<Step>) {
    let mut fixture = Fixture::new();
    let mut model = Model::default();
    for step in steps {
        match &step {
            Step::Lock { keys, ttl_ms } => {
                lock_step(&fixture, &mut model, keys, millis(*ttl_ms)).await;
            }
            Step::Advance { ms } => fixture.clock.advance(millis(*ms)),
            Step::Purge => drop(fixture.store.purge().await.expect("purges")),
            Step::Compaction { rows } => {
                let rows = usize::from(*rows);
                fixture.before_next_commit(move |file| file.compact(rows).expect("compacts"));
            }
            Step::FailNext => fail_next(&fixture).await,
            Step::Restart => fixture = fixture.restart().await,
            Step::Kill => fixture = fixture.kill(),
            step => {
                lease_step(&fixture, &mut model, step).await;
                checkpoint_step(&fixture, &mut model, step).await;
            }
        }
        model.expire(fixture.clock.now());
        compare(&fixture, &model).await;
    }
}

proptest! {
    #![proptest_config(Config::with_cases(48))]

    #[test]
    fn any_sequence_returns_what_the_model_returns(steps in steps()) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(run(steps));
    }
}
