//! `kill -9` at random moments under merges, each of which is sent again until it is acknowledged: every update counts
//! exactly once, whether it carries an event id or its batch carries a number.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::rng::Rng;
use crate::harness::{Client, DEADLINE, Launch, Server};

const KILLS: u64 = 40;
/// The server is killed after so many acknowledgements at most ...
const SHORT_RUN: u64 = 150;
/// ... but some run long enough for the journal to be compacted.
const LONG_RUN: u64 = 3_000;
const RUNS_FOR_A_LONG_ONE: u64 = 8;
const WRITERS: u64 = 6;

/// What one writer knows.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The batch that is sent next, or again.
    batch: u64,
    /// It was sent before, and its response was not read.
    in_doubt: bool,
    /// The updates of all batches before.
    counted: u64,
}

/// What all writers know, over all runs of the server.
struct Writers {
    progress: Vec<Mutex<Progress>>,
    acknowledgements: watch::Sender<u64>,
}

/// Returns how many updates a batch has for each of its two entities.
fn updates_of(batch: u64) -> u64 {
    1 + batch % 40
}

fn own_entity(writer: u64) -> String {
    format!("writer {writer}")
}

/// Returns a batch; the same one each time.
fn body(writer: u64, batch: u64) -> Value {
    let has_ids = writer.is_multiple_of(2);
    let update = |entity: &str, number: u64| {
        let mut update = json!({"entity": entity, "delta": 1});
        if has_ids {
            update["event_id"] = json!(format!("{writer}/{batch}/{entity}/{number}"));
        }
        update
    };
    let of_entity = |entity: String| {
        (0..updates_of(batch)).map(move |number| update(&entity, number)).collect::<Vec<_>>()
    };
    let updates = [of_entity(own_entity(writer)), of_entity("hot".to_owned())].concat();
    if has_ids {
        json!({"updates": updates})
    } else {
        json!({"updates": updates, "producer": own_entity(writer), "seq": batch})
    }
}

/// Merges until the server is gone; or, with `only_doubts`, what is in doubt.
async fn write(client: Client, writers: Arc<Writers>, writer: u64, only_doubts: bool) {
    let of = usize::try_from(writer).expect("few");
    loop {
        let Progress { batch, in_doubt, .. } = *writers.progress[of].lock();
        if only_doubts && !in_doubt {
            return;
        }
        writers.progress[of].lock().in_doubt = true;
        let body = body(writer, batch);
        let Some(response) = client.try_post("/v1/aggregates/totals/merge", &body).await else {
            return;
        };
        let response = response.expect(200);
        // All of it was counted before, or nothing.
        let (all, counted) = (2 * updates_of(batch), response["applied"].as_u64());
        assert!(counted == Some(all) || in_doubt && counted == Some(0), "{counted:?} of {all}");
        assert_eq!(response["duplicates"].as_u64(), Some(all - counted.unwrap_or(0)));
        let mut progress = writers.progress[of].lock();
        let counted = progress.counted + updates_of(batch);
        *progress = Progress { batch: batch + 1, in_doubt: false, counted };
        drop(progress);
        writers.acknowledgements.send_modify(|count| *count += 1);
    }
}

async fn total(server: &Server, entity: &str) -> u64 {
    let path = format!("/v1/aggregates/totals/{}", entity.replace(' ', "%20"));
    let response = server.get(&path).await;
    if response.status == 404 { 0 } else { response.expect(200)["value"].as_u64().expect("a sum") }
}

/// Checks that all totals are what was acknowledged, with or without what is in doubt.
async fn verify(server: &Server, writers: &Writers) {
    let (mut least, mut most) = (0, 0);
    for (writer, progress) in (0..).zip(&writers.progress) {
        let Progress { batch, in_doubt, counted } = *progress.lock();
        let with_doubt = counted + if in_doubt { updates_of(batch) } else { 0 };
        let stands = total(server, &own_entity(writer)).await;
        assert!(stands == counted || stands == with_doubt, "{writer}: {stands} after {counted}");
        (least, most) = (least + counted, most + with_doubt);
    }
    let hot = total(server, "hot").await;
    assert!((least..=most).contains(&hot), "{hot} is not within {least} to {most}");
}

async fn until_more(writers: &Writers, more: u64) {
    let enough = *writers.acknowledgements.borrow() + more;
    let mut seen = writers.acknowledgements.subscribe();
    let reached = seen.wait_for(|count| *count >= enough);
    tokio::time::timeout(DEADLINE, reached).await.expect("the load goes on").expect("it exists");
}

fn start(server: &Server, writers: &Arc<Writers>, only_doubts: bool) -> JoinSet<()> {
    (0..WRITERS)
        .map(|writer| write(server.client(), Arc::clone(writers), writer, only_doubts))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_update_counts_once_whenever_the_server_is_killed() {
    let mut rng = Rng::from_environment();
    let writers = Arc::new(Writers {
        progress: (0..WRITERS).map(|_| Mutex::default()).collect(),
        acknowledgements: watch::Sender::new(0),
    });
    let folder = Launch::new()
        .env("HOLDALL_PIPELINES__TOTALS__KIND", "sum")
        .env("HOLDALL_PIPELINES__TOTALS__DEDUP", "24h")
        .env("HOLDALL_AGGREGATES__MEMORY", "1KiB");
    for kill in 0..KILLS {
        let server = folder.clone().start().await;
        verify(&server, &writers).await;
        let load = start(&server, &writers, false);
        let is_long = kill % RUNS_FOR_A_LONG_ONE == RUNS_FOR_A_LONG_ONE - 1;
        until_more(&writers, 1 + rng.below(if is_long { LONG_RUN } else { SHORT_RUN })).await;
        server.kill();
        load.join_all().await;
    }
    let server = folder.start().await;
    verify(&server, &writers).await;
    start(&server, &writers, true).join_all().await;
    let mut all = 0;
    for (writer, progress) in (0..).zip(&writers.progress) {
        let counted = progress.lock().counted;
        assert_eq!(total(&server, &own_entity(writer)).await, counted);
        all += counted;
    }
    assert_eq!(total(&server, "hot").await, all);
}
