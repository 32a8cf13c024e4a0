//! Work of every kind at once, and a ledger of what the server has acknowledged.
//!
//! Not a benchmark. Invariant: the ledger holds a promise only when its response was read whole,
//! and knows which requests were under way when the server ended: those may have happened or not.

mod generations;
mod leases;
mod ledger;
mod verify;

use std::pin::Pin;
use std::sync::Arc;

use holdall::model::time::Timestamp;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::ledger::Ledger;
pub(crate) use self::verify::{verify_series_whole, verify_strong, verify_weak};
use crate::harness::client::push;
use crate::harness::rng::Rng;
use crate::harness::{Client, Server};

const LOCK_WRITERS: u64 = 3;
const LEASES: u64 = 4;
const CHECKPOINTS: u64 = 3;
const GENERATIONS: u64 = 2;
const SERIES: u64 = 2;
/// Makes some keys as long as those that people choose, and longer.
const PADDING: &str =
    "a/long/key/with/many/parts/that/says/what/it/is/for/and/for/whom/and/why/and/since/when";

/// A load that runs until the server is gone, or it is stopped.
pub(crate) struct Load(JoinSet<()>, CancellationToken);

impl Load {
    /// Starts every kind of work.
    pub(crate) fn start(server: &Server, ledger: &Arc<Ledger>, rng: &mut Rng) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut run = |task: Pin<Box<dyn Future<Output = ()> + Send>>| {
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(task).await.unwrap_or_default() });
        };
        for number in 0..LOCK_WRITERS {
            run(Box::pin(take_locks(server.client(), Arc::clone(ledger), number)));
        }
        for number in 0..LEASES {
            let name = format!("lease/{number}");
            let work = leases::hold(server.client(), Arc::clone(ledger), name, rng.split());
            run(Box::pin(work));
        }
        for number in 0..CHECKPOINTS {
            run(Box::pin(move_checkpoint(server.client(), Arc::clone(ledger), number)));
        }
        for number in 0..GENERATIONS {
            run(Box::pin(generations::bump(server.client(), Arc::clone(ledger), number)));
        }
        for number in 0..SERIES {
            run(Box::pin(push_series(server.client(), Arc::clone(ledger), number)));
        }
        run(Box::pin(flush(server.client(), Arc::clone(ledger))));
        Self(tasks, stop)
    }

    /// Lets every task end. What was under way then may or may not happen.
    pub(crate) fn stop(&self) {
        self.1.cancel();
    }

    /// Waits until every task has ended.
    pub(crate) async fn ended(mut self) {
        while let Some(outcome) = self.0.join_next().await {
            outcome.expect("a task of the load found no fault");
        }
    }
}

async fn take_locks(client: Client, ledger: Arc<Ledger>, writer: u64) {
    loop {
        let number = ledger.next_number();
        let ttl = "1h";
        if number.is_multiple_of(4) {
            let keys: Vec<_> =
                (0..5).map(|i| format!("many/{writer}/{number}/{i}/{PADDING}")).collect();
            let body = json!({"keys": keys, "ttl": ttl});
            let Some(response) = client.try_post("/v1/locks/job", &body).await else { return };
            if response.status == 503 {
                return;
            }
            assert_eq!(
                response.expect(200)["acquired"],
                json!(keys),
                "no other client asks for them"
            );
            ledger.locked(keys);
        } else {
            let key = format!("one-{writer}-{number}");
            let path = format!("/v1/locks/job/{key}");
            let Some(response) = client.try_post(&path, &json!({"ttl": ttl})).await else { return };
            if response.status == 503 {
                return;
            }
            let response = response.expect(200);
            assert_eq!(response["acquired"], true, "no other client asks for {key}");
            ledger.locked_until(key, response["expires_at"].as_str().expect("a time").to_owned());
        }
    }
}

/// Returns the path of a checkpoint.
fn checkpoint_path(number: u64) -> String {
    format!("/v1/checkpoints/org%2F{number}/repo")
}

/// Returns the time that stands for a number.
fn time_of(number: u64) -> String {
    let seconds = i64::try_from(number).expect("a small number");
    Timestamp::from_nanos(seconds * 1_000_000_000).to_string()
}

async fn move_checkpoint(client: Client, ledger: Arc<Ledger>, number: u64) {
    let path = checkpoint_path(number);
    loop {
        let value = ledger.send_checkpoint(&path);
        let body = json!({"checkpoint": time_of(value), "if_later": true});
        let Some(response) = client.try_put(&path, &body).await else { return };
        if response.status == 503 {
            return;
        }
        assert!((200..300).contains(&response.status), "{} {}", response.status, response.text());
        ledger.checkpoint_stands(&path, value);
    }
}

/// Returns the name of a series.
fn series_name(number: u64) -> String {
    format!("load_progress_{number}")
}

async fn push_series(client: Client, ledger: Arc<Ledger>, number: u64) {
    let name = series_name(number);
    loop {
        let value = ledger.send_series(&name);
        let body = push(&name, f64::from(u32::try_from(value).expect("a small number")));
        let Some(response) = client.try_post("/v1/series", &body).await else { return };
        if response.status == 503 {
            return;
        }
        let response = response.expect(200);
        assert_eq!(response["stale"], 0, "the server's clock does not go back");
        ledger.series_stands(&name, value);
    }
}

async fn flush(client: Client, ledger: Arc<Ledger>) {
    loop {
        let before = ledger.acknowledged_series();
        let Some(response) = client.try_post("/v1/admin/flush", &json!({})).await else { return };
        if response.status == 503 {
            return;
        }
        assert!((200..300).contains(&response.status), "{} {}", response.status, response.text());
        ledger.series_durable(before);
    }
}
