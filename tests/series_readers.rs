//! Readers of every kind while deletions are forgotten faster than they read: pages, long polls, and streams that
//! connect again. Whatever a reader missed would stay different, on every backend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::redis::Redis;
use crate::harness::{Client, Launch, eventually};

/// So few deletions are remembered that a reader which pauses for a moment has missed some for ever.
const MAX_TOMBSTONES: usize = 20;
/// How many series a round of the writer creates, and then deletes.
const ROUND_SERIES: usize = 10;
const ROUNDS: usize = 150;

/// What the writer has done.
#[derive(Default)]
struct Progress {
    deleted: AtomicUsize,
    done: CancellationToken,
}

impl Progress {
    /// Waits until many more deletions were made than are remembered, or the writer is done.
    async fn fall_behind(&self) {
        let enough = self.deleted.load(Ordering::Acquire) + 10 * MAX_TOMBSTONES;
        eventually("the writer goes on", async || {
            let deleted = self.deleted.load(Ordering::Acquire);
            (deleted >= enough || self.done.is_cancelled()).then_some(())
        })
        .await;
    }
}

/// A reader's picture of the series, by their ids, and how far it has read.
struct Picture {
    client: Client,
    values: BTreeMap<String, Value>,
    cursor: String,
    /// How often the reader had to begin anew.
    restarts: usize,
}

impl Picture {
    async fn take(client: Client) -> Self {
        let mut picture =
            Self { client, values: BTreeMap::new(), cursor: String::new(), restarts: 0 };
        picture.read_pages().await;
        picture
    }

    /// Reads all pages of a snapshot. The cursor is that of the first.
    async fn read_pages(&mut self) {
        self.values.clear();
        let mut path = "/v1/series?limit=7".to_owned();
        let mut cursor = None;
        loop {
            let page = self.client.get(&path).await.expect(200);
            for point in page["points"].as_array().expect("points") {
                self.values.insert(text(&point["id"]), point["value"].clone());
            }
            cursor.get_or_insert(text(&page["cursor"]));
            let Some(next) = page["next_page"].as_str() else { break };
            path = format!("/v1/series?limit=7&page={next}");
        }
        self.cursor = cursor.expect("a page");
    }

    async fn begin_anew(&mut self) {
        self.restarts += 1;
        self.read_pages().await;
    }

    /// Applies a delta; returns whether it had anything.
    fn apply(&mut self, delta: &Value) -> bool {
        let events = delta["events"].as_array().expect("events");
        for event in events {
            let id = text(&event["id"]);
            if event["deleted"] == true {
                self.values.remove(&id);
            } else {
                self.values.insert(id, event["point"]["value"].clone());
            }
        }
        self.cursor = text(&delta["next_cursor"]);
        !events.is_empty() || delta["more"] == true
    }

    /// Reads one delta, which may wait; returns whether it had anything.
    async fn poll(&mut self, wait: &str) -> bool {
        let path = format!("/v1/series/delta?cursor={}&limit=9&wait={wait}", self.cursor);
        let response = self.client.get(&path).await;
        if response.status == 410 {
            self.begin_anew().await;
            return true;
        }
        self.apply(&response.expect(200))
    }

    /// Reads to the end, after the last write.
    async fn finish(mut self) -> (BTreeMap<String, Value>, usize) {
        while self.poll("0s").await {}
        (self.values, self.restarts)
    }

    /// Follows a stream for some events, and continues where an earlier one ended.
    async fn stream(&mut self, events: usize, done: &CancellationToken) {
        let request = self.client.request(Method::GET, "/v1/series/stream?limit=9&cursor=outdated");
        let request = request.header("last-event-id", &self.cursor);
        let mut response = request.send().await.expect("the server responds");
        if response.status() == 410 {
            return self.begin_anew().await;
        }
        assert_eq!(response.status(), 200);
        let (mut text, mut seen) = (String::new(), 0);
        while seen < events {
            let chunk = tokio::select! {
                chunk = response.chunk() => chunk.expect("a stream"),
                () = done.cancelled() => return,
            };
            let Some(chunk) = chunk else { return };
            text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
            while let Some((event, rest)) = text.split_once("\n\n") {
                let lines: BTreeMap<&str, &str> =
                    event.lines().filter_map(|line| line.split_once(": ")).collect();
                match lines.get("event") {
                    Some(&"change") => {
                        let delta = serde_json::from_str(lines["data"]).expect("JSON");
                        self.apply(&delta);
                        assert_eq!(
                            lines["id"], self.cursor,
                            "the id is the cursor to continue with"
                        );
                    }
                    Some(&"error") => {
                        assert!(lines["data"].contains("cursor_gone"), "{event}");
                        return self.begin_anew().await;
                    }
                    _ => {}
                }
                seen += 1;
                text = rest.to_owned();
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// Creates and deletes series of new names as fast as the server takes them, and updates some that stay.
async fn write(client: Client, progress: Arc<Progress>) {
    for round in 0..ROUNDS {
        let short = (0..ROUND_SERIES).map(|i| json!({"name": format!("m{round}_{i}"), "value": 1}));
        let kept =
            json!({"name": "kept", "labels": {"i": (round % 30).to_string()}, "value": round});
        let points: Vec<Value> = short.chain([kept]).collect();
        let push = json!({"role": "leader", "source": "leader_scrape", "points": points});
        client.post("/v1/series", &push).await.expect(200);
        let selector = format!("{{__name__=~\"m{round}_.*\"}}");
        let deleted = client.post("/v1/series/delete", &json!({"match": [selector]})).await;
        assert_eq!(deleted.expect(200)["deleted"], ROUND_SERIES);
        progress.deleted.fetch_add(ROUND_SERIES, Ordering::AcqRel);
    }
    progress.done.cancel();
}

async fn all_readers_agree(launch: Launch) {
    let server =
        launch.env("HOLDALL_SERIES__MAX_TOMBSTONES", &MAX_TOMBSTONES.to_string()).start().await;
    let client = Client::new(server.address());
    let progress = Arc::new(Progress::default());
    let writer = write(client.clone(), Arc::clone(&progress));
    let pages = async {
        let mut picture = Picture::take(client.clone()).await;
        while !progress.done.is_cancelled() {
            progress.fall_behind().await;
            picture.poll("0s").await;
        }
        picture.finish().await
    };
    let polls = async {
        let mut picture = Picture::take(client.clone()).await;
        let mut rounds = 0;
        while !progress.done.is_cancelled() {
            rounds += 1;
            if rounds % 20 == 0 {
                progress.fall_behind().await;
            }
            picture.poll("1s").await;
        }
        picture.finish().await
    };
    let streams = async {
        let mut picture = Picture::take(client.clone()).await;
        while !progress.done.is_cancelled() {
            picture.stream(7, &progress.done).await;
            progress.fall_behind().await;
        }
        picture.finish().await
    };
    let ((), pages, polls, streams) = tokio::join!(writer, pages, polls, streams);
    let fresh = Picture::take(client).await.values;
    assert_eq!(fresh.len(), 30);
    for (kind, (values, restarts)) in [("pages", pages), ("polls", polls), ("streams", streams)] {
        assert_eq!(values, fresh, "{kind}");
        assert!(restarts > 0, "{kind} never met a deletion that was forgotten");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_every_kind_agree_on_the_embedded_store() {
    all_readers_agree(Launch::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_every_kind_agree_in_memory() {
    all_readers_agree(Launch::new().env("HOLDALL_STORE__BACKEND", "memory")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_every_kind_agree_on_redis() {
    let redis = Redis::start(&[]);
    let launch = Launch::new()
        .env("HOLDALL_STORE__BACKEND", "redis")
        .env("HOLDALL_STORE__REDIS__URL", &redis.url())
        .env("HOLDALL_STORE__REDIS__INDEX_SHARDS", "4");
    all_readers_agree(launch).await;
}
