//! A disk without room: durable writes are refused whole, and all works again once there is room.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::harness::{Launch, Server, eventually};

const DISK: &str = "8m";
/// The batches that are written to a full disk: more than its slack.
const BATCHES: usize = 40;

/// A small disk of its own: a tmpfs in a mount namespace that this child keeps alive.
struct SmallDisk {
    keeper: Child,
    folder: PathBuf,
}

impl SmallDisk {
    fn mount(launch: &Launch) -> Self {
        let folder = launch.folder().join("disk");
        std::fs::create_dir(&folder).expect("the mount point is made");
        let script =
            format!("mount -t tmpfs -o size={DISK} none \"$0\" && echo mounted && exec cat");
        let mut keeper = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (of util-linux) starts");
        let mut word = String::new();
        let stdout = keeper.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut word).expect("the keeper speaks");
        assert_eq!(
            word.trim(),
            "mounted",
            "a tmpfs can't be mounted in a namespace: this test needs user and mount namespaces"
        );
        Self { keeper, folder }
    }

    /// Returns the folder as it is seen from outside of the namespace.
    fn seen_from_outside(&self) -> PathBuf {
        let inside = self.folder.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.keeper.id())).join(inside)
    }

    fn fill(&self) {
        let path = self.seen_from_outside().join("ballast");
        let ballast = std::fs::write(path, vec![1; 64 << 20]);
        assert!(ballast.is_err(), "the disk is larger than it should be");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.seen_from_outside().join("ballast")).expect("the ballast goes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn batch(number: usize) -> Vec<String> {
    (0..100).map(|i| format!("{number}-{i}-{}", "x".repeat(900))).collect()
}

async fn take(server: &Server, number: usize) -> crate::harness::Response {
    let body = json!({"keys": batch(number), "ttl": "1h"});
    server.post("/v1/locks/job", &body).await
}

/// Writes until nothing fits any more; returns the batches that were refused and those that were not.
async fn write_into_the_wall(server: &Server) -> (Vec<usize>, Vec<usize>) {
    let (mut refused, mut written) = (Vec::new(), Vec::new());
    for number in 0..BATCHES {
        let response = take(server, number).await;
        if response.status == 200 {
            assert_eq!(response.json()["acquired"], json!(batch(number)));
            written.push(number);
        } else {
            assert!(
                [503, 507].contains(&response.status),
                "{} {}",
                response.status,
                response.text()
            );
            response.expect_problem(response.status);
            refused.push(number);
        }
    }
    assert!(!refused.is_empty(), "everything fitted");
    (refused, written)
}

/// Checks what was written and that nothing is there of what was refused.
async fn assert_whole(server: &Server, refused: &[usize], written: &[usize]) {
    for number in written {
        assert_eq!(take(server, *number).await.expect(200)["acquired"], json!([]), "{number}");
    }
    for number in refused {
        for key in batch(*number) {
            let lock = server.get(&format!("/v1/locks/job/{key}")).await.expect(200);
            assert_eq!(lock["held"], Value::Bool(false), "a half write of {number}");
        }
    }
}

async fn works_again(server: &Server, number: usize) {
    eventually("writes work again", async || {
        (take(server, number).await.status == 200).then_some(())
    })
    .await;
    let flushed = server.post("/v1/admin/flush", &json!({})).await;
    assert!(flushed.status < 300, "{}", flushed.text());
}

/// Returns how to start a server whose store is on a small disk.
fn on_a_small_disk() -> (Launch, SmallDisk) {
    let launch = Launch::new();
    let disk = SmallDisk::mount(&launch);
    let store = disk.folder.join("store");
    let launch = launch
        .env("HOLDALL_STORE__PATH", store.to_str().expect("UTF-8"))
        .wrapper(&["nsenter", "--preserve-credentials", "--user", "--mount", "--target"])
        .wrapper(&[&disk.keeper.id().to_string()]);
    (launch, disk)
}

#[tokio::test]
async fn a_full_disk_refuses_strong_writes_whole() {
    let (launch, disk) = on_a_small_disk();
    let server = launch.start().await;
    for (name, value) in [("updated", 1.0), ("deleted", 1.0)] {
        server.try_push(name, value).await.expect("the server responds").expect(200);
    }
    server.post("/v1/admin/flush", &json!({})).await.expect(200);
    disk.fill();
    let (refused, written) = write_into_the_wall(&server).await;
    // Reads go on, and buffered writes stay in memory.
    assert_eq!(server.get("/v1/series").await.status, 200);
    for (name, value) in [("weak", 7.0), ("updated", 2.0)] {
        server.try_push(name, value).await.expect("the server responds").expect(200);
    }
    server.post("/v1/series/delete", &json!({"match": ["deleted"]})).await.expect(200);
    let flushed = server.post("/v1/admin/flush", &json!({})).await;
    assert!([503, 507].contains(&flushed.status), "{} {}", flushed.status, flushed.text());
    server.get("/readyz").await.expect_problem(503);
    assert_whole_reads(&server, &refused).await;
    disk.make_room();
    works_again(&server, BATCHES).await;
    let launch = server.kill();
    let server = launch.start().await;
    assert_whole(&server, &refused, &written).await;
    // The flush that failed lost nothing: the next one wrote it, and the server was killed after that.
    let series = server.get("/v1/series").await.expect(200);
    let points = series["points"].as_array().expect("a list");
    let found: Vec<_> =
        points.iter().map(|point| (point["name"].as_str(), point["value"].as_f64())).collect();
    assert_eq!(found, [(Some("updated"), Some(2.0)), (Some("weak"), Some(7.0))], "{series}");
}

async fn assert_whole_reads(server: &Server, refused: &[usize]) {
    for number in refused.iter().take(3) {
        let key = &batch(*number)[0];
        let lock = server.get(&format!("/v1/locks/job/{key}")).await.expect(200);
        assert_eq!(lock["held"], Value::Bool(false));
    }
}

#[tokio::test]
async fn a_server_whose_disk_is_full_is_not_ready_and_says_why() {
    let (launch, disk) = on_a_small_disk();
    let server = launch.start().await;
    server.try_push("shown", 7.0).await.expect("the server responds").expect(200);
    eventually("the series is shown", async || {
        server.get("/metrics").await.text().contains("\nshown 7\n").then_some(())
    })
    .await;
    disk.fill();
    let (refused, _) = write_into_the_wall(&server).await;
    eventually("the server is not ready", async || {
        take(&server, refused[0]).await;
        let readiness = server.get("/readyz").await;
        (readiness.status == 503).then(|| readiness.expect_problem(503))
    })
    .await;
    let page = server.get("/metrics").await;
    assert!(page.status == 200 && page.text().contains("\nshown 7\n"), "{}", page.text());
    let log = server.log();
    let why =
        log.lines().find(|line| line.contains("the store can't serve")).expect("it is logged");
    assert!(why.contains("fails: "), "{why}");
    // Without any further write.
    disk.make_room();
    server.until_ready().await;
}

/// Returns what the log says about commits: the cause when they fail, `None` when they succeed again.
fn logged_commits(server: &Server) -> Vec<Option<String>> {
    let log = server.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let events = lines.filter_map(|line| match line["fields"]["message"].as_str()? {
        "durable commits fail" => Some(line["fields"]["cause"].as_str().map(str::to_owned)),
        "durable commits succeed again" => Some(None),
        _ => None,
    });
    events.collect()
}

#[tokio::test]
async fn a_full_disk_is_logged_when_it_begins_and_when_it_ends_and_each_failure_is_counted() {
    let (launch, disk) = on_a_small_disk();
    let server = launch.start().await;
    disk.fill();
    let (refused, _) = write_into_the_wall(&server).await;
    let events = logged_commits(&server);
    assert!(events.first().is_some_and(Option::is_some), "{events:?}");
    let is_repeated = events.windows(2).any(|pair| pair[0] == pair[1]);
    assert!(!is_repeated && events.len() < refused.len(), "{events:?} for {refused:?}");
    let log = server.log();
    let of_requests = ["the store failed", "the store could not serve a request"];
    assert!(!of_requests.iter().any(|line| log.contains(line)), "{log}");
    eventually("the failures are counted", async || {
        let page = server.get("/metrics").await.text();
        let value = |line: &str| {
            line.strip_prefix("holdall_store_commit_failures_total ")?.parse::<usize>().ok()
        };
        (page.lines().find_map(value)? >= refused.len()).then_some(())
    })
    .await;
    disk.make_room();
    eventually("the end is logged", async || {
        server.post("/v1/generations/small/bump", &json!({})).await;
        logged_commits(&server).last()?.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_file_that_may_not_grow_refuses_strong_writes_whole() {
    // The limit is reported like an error of the disk, not as "full"; the signal that comes
    // with it would end the process, if the server did not catch it.
    let launch = Launch::new().shell("ulimit -S -f 2000");
    let server = launch.start().await;
    let (refused, written) = write_into_the_wall(&server).await;
    assert_whole_reads(&server, &refused).await;
    let unlimited = Rlimit { current: None, maximum: None };
    let id = Pid::from_raw(server.id()).expect("a process id");
    prlimit(Some(id), Resource::Fsize, unlimited).expect("the limit can be lifted");
    works_again(&server, BATCHES).await;
    let launch = server.kill().shell("true");
    let server = launch.start().await;
    assert_whole(&server, &refused, &written).await;
}
