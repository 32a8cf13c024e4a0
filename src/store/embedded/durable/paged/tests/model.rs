//! Any sequence of changes, compactions and restarts returns what the table in memory returns.

use std::ops::Bound;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config;

use super::{Fixture, Item, Items, ItemsInMemory, Key, PageLimits, compact, row_keys, set};
use crate::clock::Clock;
use crate::model::time::SteadyTime;
use crate::store::StoreError;

/// A text and a ttl in milliseconds, or no row.
type To = Option<(u8, Option<u8>)>;

#[derive(Debug, Clone)]
enum Step {
    /// Sets rows, with a ttl, or removes them, in one command.
    Change(Vec<(u8, To)>),
    /// The same, but the commit fails.
    FailedChange(Vec<u8>),
    Read(Vec<u8>),
    Page {
        from: u8,
        rows: u8,
        bytes: u16,
    },
    Advance {
        ms: u8,
    },
    Purge,
    Compaction {
        rows: u8,
    },
    Restart,
    Kill,
}

const KEYS: u8 = 24;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ttl = prop::option::of(1..100_u8);
    let change = (0..KEYS, prop::option::of((any::<u8>(), ttl)));
    let keys = || prop::collection::vec(0..KEYS, 1..8);
    let step = prop_oneof![
        6 => prop::collection::vec(change, 1..8).prop_map(Step::Change),
        1 => keys().prop_map(Step::FailedChange),
        4 => keys().prop_map(Step::Read),
        2 => (0..KEYS, 1..9_u8, 1..2000_u16)
            .prop_map(|(from, rows, bytes)| Step::Page { from, rows, bytes }),
        2 => (1..60_u8).prop_map(|ms| Step::Advance { ms }),
        1 => Just(Step::Purge),
        5 => (1..30_u8).prop_map(|rows| Step::Compaction { rows }),
        1 => Just(Step::Restart),
        2 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..40)
}

fn key(number: u8) -> Key {
    let texts = ["", "a", "a\"", "a#", "b\\", "é"];
    (texts[usize::from(number) % texts.len()].to_owned(), i64::from(number / 6) - 2)
}

fn all(fixture: &Fixture, now: SteadyTime) -> Vec<(Key, Item)> {
    let (tables, _) = fixture.store.read().expect("is open");
    let rows = tables.rows::<ItemsInMemory>().range(Bound::Unbounded, now);
    rows.filter_map(|(key, row)| Some((key.clone(), row?.clone()))).collect()
}

async fn compare(fixture: &Fixture, limits: PageLimits) {
    let now = fixture.clock.read().steady;
    assert_eq!(fixture.read_all(limits).await.expect("reads"), all(fixture, now));
    // Also those that have expired.
    let count = all(fixture, SteadyTime::from_nanos(0)).len();
    assert_eq!(fixture.status().entries, count as u64);
}

async fn change(fixture: &Fixture, changes: &[(u8, To)]) {
    let now = fixture.clock.read().steady;
    let row = |(text, ttl): (u8, Option<u8>)| Item {
        text: format!("{text}").repeat(usize::from(text)),
        expires_at: ttl.map(|ms| now.saturating_add(Duration::from_millis(ms.into()))),
    };
    let changes: Vec<_> = changes.iter().map(|(number, to)| (key(*number), to.map(row))).collect();
    let seen = fixture.run(move |txn| {
        let keys: Vec<_> = changes.iter().map(|(key, _)| key.clone()).collect();
        let together = txn.read_many(&row_keys(&keys))?;
        for (key, row) in keys.iter().zip(together) {
            assert_eq!(row.as_deref(), txn.get::<ItemsInMemory>(key));
        }
        for (key, row) in changes {
            let row_key = row_keys(std::slice::from_ref(&key));
            let before = txn.read_many(&row_key)?.remove(0);
            assert_eq!(before.as_deref(), txn.get::<ItemsInMemory>(&key));
            set(txn, &key, row.clone())?;
            assert_eq!(txn.read_many(&row_key)?.remove(0).as_deref(), row.as_ref());
        }
        Ok::<_, StoreError>(())
    });
    seen.await.expect("commits");
}

async fn fail_change(fixture: &Fixture, keys: &[u8]) {
    fixture.store.before_next_commit(Box::new(|file| {
        let trigger = "CREATE TEMP TRIGGER fail AFTER INSERT ON journal BEGIN
            SELECT RAISE(ABORT, 'as the test wants'); END";
        file.connection().execute_batch(trigger).expect("creates");
    }));
    let keys: Vec<_> = keys.iter().copied().map(key).collect();
    let outcome = fixture.run(move |txn| {
        keys.iter().enumerate().try_for_each(|(at, key)| {
            let row = Item { text: "never seen".to_owned(), expires_at: None };
            set(txn, key, (at % 2 == 0).then_some(row))
        })
    });
    outcome.await.expect_err("the commit fails");
    fixture.store.before_next_commit(Box::new(|file| {
        file.connection().execute_batch("DROP TRIGGER IF EXISTS fail").expect("drops");
    }));
    fixture.touch().await;
}

async fn run(steps: Vec<Step>, cache_bytes: u64) {
    let mut fixture = Fixture::new(cache_bytes);
    for step in steps {
        let mut limits = PageLimits { rows: 3, bytes: usize::MAX };
        match step {
            Step::Change(changes) => change(&fixture, &changes).await,
            Step::FailedChange(keys) => fail_change(&fixture, &keys).await,
            Step::Read(keys) => {
                let keys: Vec<_> = keys.into_iter().map(key).collect();
                let read = fixture.read(&keys).await.expect("reads");
                let (tables, now) = fixture.store.read().expect("is open");
                let rows = tables.rows::<ItemsInMemory>();
                let expected: Vec<_> =
                    keys.iter().map(|key| rows.get(key, now.steady).cloned()).collect();
                assert_eq!(read, expected);
            }
            Step::Page { from, rows, bytes } => {
                limits = PageLimits { rows: rows.into(), bytes: bytes.into() };
                let from = key(from);
                let page = fixture.store.read_page::<Items>(Bound::Included(&from), limits).await;
                let first = page.expect("reads").rows.into_iter().next();
                let first = first.map(|(key, row)| (key, (*row).clone()));
                let expected = all(&fixture, fixture.clock.read().steady);
                assert_eq!(first, expected.into_iter().find(|(key, _)| *key >= from));
            }
            Step::Advance { ms } => fixture.clock.advance(Duration::from_millis(ms.into())),
            Step::Purge => drop(fixture.store.purge().await.expect("purges")),
            Step::Compaction { rows } => {
                fixture.store.before_next_commit(Box::new(move |file| compact(file, rows.into())));
                fixture.touch().await;
            }
            Step::Restart => fixture = fixture.restart().await,
            Step::Kill => fixture = fixture.kill(),
        }
        compare(&fixture, limits).await;
    }
}

proptest! {
    #![proptest_config(Config::with_cases(64))]

    #[test]
    fn any_sequence_returns_what_the_table_in_memory_returns(
        steps in steps(),
        cache_bytes in prop_oneof![Just(0), Just(2_000), Just(100_000)],
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(run(steps, cache_bytes));
    }
}
