//! That a cached value is never older than the last bump, whatever happens to the store.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use holdall::model::generations::{Generation, GenerationFence, Seen};
use holdall::model::time::Timestamp;
use holdall::store::{CacheAddress, PutOutcome};

use super::cache::{address, put, read};
use super::fixture::{Backup, Fixture, Random};
use super::generations::{bump, key, snapshot};

/// Passes the cases of this file to a macro, with its other arguments.
macro_rules! cases {
    ($run:ident, $($arguments:tt)*) => {
        $run! { $($arguments)*:
            no_order_of_steps_makes_a_stale_value_valid,
            lookups_that_race_with_bumps_never_find_a_stale_value,
        }
    };
}
pub(super) use cases;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const RETENTION: Duration = Duration::from_millis(100);

/// What a key's generation should be: its number, and the time of its last bump.
type Numbers = BTreeMap<&'static str, (i64, Timestamp)>;

/// A fence and what it stands for: how often its key had been bumped, over all runs.
#[derive(Clone, Copy)]
struct Given {
    fence: GenerationFence,
    bumps: u64,
    /// It should hold until the next bump: nothing happened that may end it.
    must_hold: bool,
}

/// A plain model of generations and what depends on them.
#[derive(Default)]
struct Model {
    numbers: Numbers,
    /// How often each key was bumped, over all runs.
    bumps: BTreeMap<&'static str, u64>,
    given: BTreeMap<&'static str, Vec<Given>>,
    /// The keys whose value must be found.
    held: HashSet<&'static str>,
    /// The fences that bumps gave.
    unique: HashSet<(&'static str, GenerationFence)>,
}

impl Model {
    fn bumps(&self, name: &str) -> u64 {
        self.bumps.get(name).copied().unwrap_or(0)
    }

    fn give(&mut self, name: &'static str, fence: GenerationFence) {
        let given = Given { fence, bumps: self.bumps(name), must_hold: true };
        self.given.entry(name).or_default().push(given);
    }

    fn bumped(&mut self, name: &'static str, generation: Generation, at: Timestamp) {
        let (number, bumped_at) = self.numbers.entry(name).or_insert((0, at));
        (*number, *bumped_at) = (*number + 1, at);
        assert_eq!(generation.number, *number, "{name}");
        assert!(self.unique.insert((name, generation.fence)), "{name}: a fence came twice");
        *self.bumps.entry(name).or_default() += 1;
        self.held.remove(name);
        self.give(name, generation.fence);
    }

    /// The store forgot what it need not remember.
    fn nothing_must_hold(&mut self) {
        self.held.clear();
        for given in self.given.values_mut().flatten() {
            given.must_hold = false;
        }
    }

    fn check(&self, name: &str, generation: Generation) {
        let number = self.numbers.get(name).map_or(0, |(number, _)| *number);
        assert_eq!(generation.number, number, "{name}");
    }
}

struct Run {
    fixture: Fixture,
    random: Random,
    model: Model,
    backups: Vec<(Backup, Numbers)>,
    accepted: usize,
    refused: usize,
    hits: usize,
}

impl Run {
    fn new(fixture: Fixture, seed: u64) -> Self {
        let (model, random) = (Model::default(), Random::from(seed));
        Self { fixture, random, model, backups: Vec::new(), accepted: 0, refused: 0, hits: 0 }
    }

    async fn step(mut self) -> Self {
        let name = KEYS[self.random.below(KEYS.len())];
        match self.random.below(200) {
            0..40 => self.bump(name).await,
            40..70 => self.snapshot(name).await,
            70..120 => self.put_by_fence(name).await,
            120..135 => self.put_by_number(name).await,
            135..180 => self.get(name).await,
            180..188 => self.fixture.pass(RETENTION / 4).await,
            188..194 => self.clean_up().await,
            _ => return self.next_life().await,
        }
        self
    }

    async fn bump(&mut self, name: &'static str) {
        let both = self.random.below(4) == 0;
        let names = if both { vec![name, KEYS[0], name] } else { vec![name] };
        let keys = names.iter().map(|name| key(name)).collect();
        let at = self.fixture.clock.now();
        let bumped = self.fixture.stores.generations.bump(keys).await.expect("the store works");
        let mut done = HashSet::new();
        for (name, generation) in names.into_iter().zip(bumped) {
            if done.insert(name) {
                self.model.bumped(name, generation, at);
            }
        }
    }

    async fn snapshot(&mut self, name: &'static str) {
        let generation = snapshot(&self.fixture.stores.generations, name).await;
        self.model.check(name, generation);
        self.model.give(name, generation.fence);
    }

    /// A value is the count of bumps that it has seen.
    async fn put(&mut self, name: &'static str, seen: Seen, bumps: u64) -> PutOutcome {
        let bytes = bumps.to_le_bytes().to_vec();
        put(&self.fixture.stores.cache, &value_at(name), seen, bytes).await
    }

    async fn put_by_fence(&mut self, name: &'static str) {
        let Some(given) = self.model.given.get(name) else { return };
        // Mostly one of the last: all others are refused for the same reason.
        let among = if self.random.below(3) == 0 { given.len() } else { 2 };
        let back = self.random.below(among);
        let given = given[given.len().saturating_sub(1 + back)];
        let stands = self.model.bumps(name);
        match self.put(name, Seen::Fence(given.fence), given.bumps).await {
            PutOutcome::Stored(_) => {
                assert_eq!(given.bumps, stands, "{name}: a fence from before a bump held");
                self.model.held.insert(name);
                self.accepted += 1;
            }
            PutOutcome::Moved(now) => {
                self.model.check(name, now);
                let must_hold = given.must_hold && given.bumps == stands;
                assert!(!must_hold, "{name}: {} was refused without a bump", given.fence);
                self.refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }

    async fn put_by_number(&mut self, name: &'static str) {
        let stands = self.model.numbers.get(name).map_or(0, |(number, _)| *number);
        let seen = stands - i64::try_from(self.random.below(3)).expect("small");
        let bumps = self.model.bumps(name);
        let outcome = self.put(name, Seen::Number(seen), bumps).await;
        assert_eq!(matches!(outcome, PutOutcome::Stored(_)), seen == stands, "{outcome:?}");
        if seen == stands {
            self.model.held.insert(name);
        }
    }

    async fn get(&mut self, name: &'static str) {
        let read = read(&self.fixture.stores.cache, &value_at(name)).await;
        self.model.check(name, read.generation);
        self.model.give(name, read.generation.fence);
        match read.value {
            Ok(value) => {
                let bumps = u64::from_le_bytes(value.bytes[..].try_into().expect("a number"));
                assert_eq!(bumps, self.model.bumps(name), "{name}: a value outlived a bump");
                self.hits += 1;
            }
            Err(reason) => assert!(!self.model.held.contains(name), "{name}: {reason:?}"),
        }
    }

    async fn clean_up(&mut self) {
        let cutoff = self.fixture.clock.now().saturating_sub(RETENTION);
        let forgotten = self.fixture.stores.generations.cleanup(RETENTION).await;
        let before = self.model.numbers.len();
        self.model.numbers.retain(|_, (_, bumped_at)| *bumped_at > cutoff);
        let gone = before - self.model.numbers.len();
        assert_eq!(forgotten.expect("the store works"), gone as u64);
        if gone > 0 {
            self.model.nothing_must_hold();
        }
    }

    async fn next_life(mut self) -> Self {
        self.model.nothing_must_hold();
        match self.random.below(6) {
            0 | 1 if self.fixture.survives_restart() => {
                let fixture = self.fixture.restart(Duration::ZERO).await;
                self.fixture = fixture.expect("it survives");
            }
            2 | 3 if !self.backups.is_empty() => {
                let one = self.random.below(self.backups.len());
                let (backup, numbers) = &self.backups[one];
                self.model.numbers = numbers.clone();
                self.fixture = self.fixture.restore(backup).await;
            }
            4 | 5 => {
                let (fixture, backup) = self.fixture.back_up().await;
                self.fixture = fixture;
                self.backups.extend(backup.map(|backup| (backup, self.model.numbers.clone())));
            }
            _ => {
                self.model.numbers.clear();
                self.fixture = self.fixture.wipe().await;
            }
        }
        self
    }
}

fn value_at(name: &str) -> CacheAddress {
    address("values", name)
}

pub(super) async fn no_order_of_steps_makes_a_stale_value_valid(fixture: Fixture) {
    let mut run = Run::new(fixture, 7);
    for _ in 0..6_000 {
        run = run.step().await;
    }
    let Run { accepted, refused, hits, .. } = run;
    assert!(accepted > 300 && refused > 300 && hits > 100, "{accepted} {refused} {hits}");
}

/// Every lookup of many notes the bumps that were acknowledged before it: each of its values must be
/// at least as new, for itself.
pub(super) async fn lookups_that_race_with_bumps_never_find_a_stale_value(fixture: Fixture) {
    const BUMPS: usize = 400;
    let acknowledged: Arc<[AtomicU64; KEYS.len()]> = Arc::default();
    let writer = {
        let (stores, acknowledged) = (fixture.stores.clone(), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            let mut random = Random::from(3);
            for _ in 0..BUMPS {
                let one = random.below(KEYS.len());
                let version = acknowledged[one].load(Ordering::SeqCst) + 1;
                let generation = bump(&stores.generations, KEYS[one]).await;
                acknowledged[one].store(version, Ordering::SeqCst);
                let (at, seen) = (value_at(KEYS[one]), Seen::Fence(generation.fence));
                put(&stores.cache, &at, seen, version.to_le_bytes().to_vec()).await;
                tokio::task::yield_now().await;
            }
        })
    };
    let addresses = KEYS.map(value_at);
    let mut hits = 0;
    loop {
        let last = writer.is_finished();
        let before = [0, 1, 2, 3].map(|one: usize| acknowledged[one].load(Ordering::SeqCst));
        let reads = fixture.stores.cache.get(&addresses).await.expect("the store works");
        for (read, before) in reads.iter().zip(before) {
            assert!(read.generation.number >= i64::try_from(before).expect("small"));
            if let Ok(value) = &read.value {
                let version = u64::from_le_bytes(value.bytes[..].try_into().expect("a number"));
                assert!(version >= before, "version {version} after {before} was acknowledged");
                hits += 1;
            }
        }
        if last {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.expect("does not panic");
    assert!(hits > 0, "some were found");
}
