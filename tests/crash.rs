//! `kill -9` at random moments under load: no acknowledged durable write is lost, no lease ends
//! early, no fencing token and no fence of a generation comes twice.

use std::sync::Arc;

use crate::harness::Launch;
use crate::harness::rng::Rng;
use crate::load::{Ledger, Load, verify_strong, verify_weak};

const KILLS: u64 = 100;
/// The server is killed after so many acknowledgements at most ...
const SHORT_RUN: u64 = 300;
/// ... but some run long enough for the store's background work.
const LONG_RUN: u64 = 6000;
const LIVES_FOR_A_LONG_ONE: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_under_load_break_no_promise() {
    let mut rng = Rng::from_environment();
    let ledger = Arc::new(Ledger::default());
    let folder = Launch::new().env("HOLDALL_FLUSH__INTERVAL", "50ms");
    let mut locks_before = 0;
    for kill in 0..KILLS {
        // Both survive the end of the process; only a power cut tells them apart.
        let sync = if kill.is_multiple_of(2) { "normal" } else { "full" };
        let server = folder.clone().env("HOLDALL_STORE__SYNC", sync).start().await;
        verify_strong(&server, &ledger, locks_before, &mut rng).await;
        verify_weak(&server, &ledger).await;
        locks_before = ledger.lock_count();
        let load = Load::start(&server, &ledger, &mut rng);
        let is_long = kill % LIVES_FOR_A_LONG_ONE == LIVES_FOR_A_LONG_ONE - 1;
        let operations = if is_long { LONG_RUN } else { SHORT_RUN };
        ledger.until_more(1 + rng.below(operations)).await;
        server.kill();
        load.ended().await;
    }
    let server = folder.start().await;
    verify_strong(&server, &ledger, locks_before, &mut rng).await;
    verify_weak(&server, &ledger).await;
    eprintln!("{} acknowledgements over {KILLS} kills", ledger.acknowledgements());
}
