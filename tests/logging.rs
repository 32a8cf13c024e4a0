//! A log that can't be written: the server serves on, stops in order, and counts what was lost.

use std::process::{Child, Command, Stdio};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::process::BINARY;
use crate::harness::{Client, eventually};

/// A server whose log nobody reads. It is killed when it is dropped.
struct Silent {
    child: Child,
    client: Client,
    folder: TempDir,
}

impl Silent {
    /// Starts a server that logs as much as it can to `stderr`.
    async fn start(stderr: Stdio) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), stderr).await
    }

    async fn start_in(folder: TempDir, stderr: Stdio) -> Self {
        // Freed before the server takes it: its log, which would say the port, is not read.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let child = Command::new(BINARY)
            .env("HOLDALL_STORE__PATH", folder.path().join("store"))
            .env("HOLDALL_SERVER__LISTEN", address.to_string())
            .env("HOLDALL_FLUSH__INTERVAL", "1h")
            .env("HOLDALL_LOG__LEVEL", "trace")
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let server = Self { child, client: Client::new(address), folder };
        eventually("it is ready", async || {
            (server.client.try_get("/readyz").await?.status == 200).then_some(())
        })
        .await;
        server
    }

    /// Sends requests until the own metrics say that lines of the log were dropped.
    async fn until_lines_are_dropped(&self) {
        eventually("lines are dropped", async || {
            // A connection that ends early is a line.
            for _ in 0..200 {
                let mut stream = TcpStream::connect(self.client.address()).await.ok()?;
                stream.write_all(b"\0\r\n\r\n").await.ok()?;
            }
            self.client.post("/v1/locks/job/x", &json!({"ttl": "1h"})).await.expect(200);
            let page = self.client.get("/metrics").await.text();
            let line = "holdall_log_dropped_lines_total ";
            let count = page.lines().find_map(|text| text.strip_prefix(line)).expect("the metric");
            (count != "0").then_some(())
        })
        .await;
    }

    /// Pushes a point, stops the server with SIGTERM, and looks for the point.
    async fn stop_and_look(mut self) {
        self.client.try_push("kept", 1.0).await.expect("a response").expect(200);
        let id = i32::try_from(self.child.id()).expect("a process id");
        let process = Pid::from_raw(id).expect("a process id is not 0");
        kill_process(process, Signal::TERM).expect("the process can be signalled");
        let ended = async || self.child.try_wait().expect("a process of ours");
        let status = eventually("the server ends", ended).await;
        assert_eq!(status.code(), Some(0));
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"));
        let again = Self::start_in(folder, Stdio::null()).await;
        let request = again.client.request(Method::GET, "/v1/series?match[]=kept");
        let found = again.client.send(request).await.expect(200);
        assert_eq!(found["points"][0]["value"], 1.0, "{found}");
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Fails only where the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_nothing_up() {
    // The pipe stays open, and is full soon.
    let server = Silent::start(Stdio::piped()).await;
    server.until_lines_are_dropped().await;
    server.stop_and_look().await;
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_ends_nothing() {
    let mut server = Silent::start(Stdio::piped()).await;
    drop(server.child.stderr.take());
    server.until_lines_are_dropped().await;
    server.stop_and_look().await;
}

#[tokio::test]
async fn a_log_on_a_full_disk_ends_nothing() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let server = Silent::start(full.into()).await;
    server.until_lines_are_dropped().await;
    server.stop_and_look().await;
}
