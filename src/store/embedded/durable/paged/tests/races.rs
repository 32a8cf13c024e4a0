//! Readers beside a writer whose changes are compacted as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{ALL, Fixture, compact, item, key, set};

const ROWS: i64 = 20;
const CHANGES: u64 = 1_500;

/// Each change sets all rows to one number, so a reader that sees two has seen two moments. A row that
/// is cached although it has changed meanwhile shows a lower number than was read before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_see_all_rows_of_one_moment_and_never_an_earlier_one() {
    // Room for some of the rows.
    let fixture = Arc::new(Fixture::new(2_000));
    let number = |fixture: &Fixture, to: u64| {
        let compacted = usize::try_from(to % 13).expect("is small");
        fixture.store.before_next_commit(Box::new(move |file| compact(file, 1 + 2 * compacted)));
    };
    fixture.put((0..ROWS).map(|n| (key(n), item("0"))).collect()).await;
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (fixture, done) = (Arc::clone(&fixture), Arc::clone(&done));
            tokio::spawn(async move {
                let keys: Vec<_> = (0..ROWS).map(key).collect();
                let (mut last, mut rounds) = (0, 0_u64);
                while !done.load(Ordering::Relaxed) || rounds == 0 {
                    let rows = match reader {
                        0 => fixture.read(&keys).await.expect("reads"),
                        1 => {
                            let all = fixture.read_all(ALL).await.expect("reads");
                            all.into_iter().map(|(_, row)| Some(row)).collect()
                        }
                        _ => fixture.read(&keys[reader..=reader]).await.expect("reads"),
                    };
                    let numbers: Vec<u64> = rows
                        .into_iter()
                        .map(|row| row.expect("is there").text.parse().expect("a number"))
                        .collect();
                    assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
                    assert!(numbers[0] >= last, "{} after {last}", numbers[0]);
                    (last, rounds) = (numbers[0], rounds + 1);
                }
                rounds
            })
        })
        .collect();
    for to in 1..=CHANGES {
        number(&fixture, to);
        fixture
            .run(move |txn| {
                (0..ROWS).try_for_each(|n| set(txn, &key(n), Some(item(to.to_string()))))
            })
            .await
            .expect("commits");
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.expect("holds");
    }
}
