//! Stopping in order: what runs is finished, nothing is lost, the exit code is 0.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::harness::rng::Rng;
use crate::harness::{Client, DEADLINE, Launch, Server, eventually};
use crate::load::{Ledger, Load, verify_series_whole, verify_strong};

const STOPS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_loses_nothing_at_all() {
    let mut rng = Rng::from_environment();
    let ledger = Arc::new(Ledger::default());
    // No flush of its own during the test: what is found was written by the last one.
    let mut launch = Launch::new().env("HOLDALL_FLUSH__INTERVAL", "1h");
    let mut locks_before = 0;
    for _ in 0..STOPS {
        let server = launch.start().await;
        verify_strong(&server, &ledger, locks_before, &mut rng).await;
        verify_series_whole(&server, &ledger).await;
        locks_before = ledger.lock_count();
        let load = Load::start(&server, &ledger, &mut rng);
        ledger.until_more(50 + rng.below(300)).await;
        let (exit, again) = server.terminate().await;
        assert_eq!(exit.code, Some(0), "{}", exit.log);
        load.ended().await;
        launch = again;
    }
    let server = launch.start().await;
    verify_strong(&server, &ledger, locks_before, &mut rng).await;
    verify_series_whole(&server, &ledger).await;
}

#[tokio::test]
async fn requests_that_wait_end_when_the_server_stops() {
    let server = Server::start().await;
    let cursor = server.get("/v1/series/cursor").await.expect(200)["cursor"].clone();
    let cursor = cursor.as_str().expect("a cursor");
    let taken = json!({"holder": "first", "ttl": "1h"});
    server.post("/v1/leases/one/acquire", &taken).await.expect(200);
    let (client, path) = (server.client(), format!("/v1/series/delta?cursor={cursor}&wait=50s"));
    let poll = tokio::spawn(async move { client.get(&path).await });
    let client = server.client();
    let second = json!({"holder": "second", "ttl": "1h", "wait": "50s"});
    let waiter = tokio::spawn(async move { client.post("/v1/leases/one/acquire", &second).await });
    eventually("both requests wait", async || (server.others_in_flight().await >= 2).then_some(()))
        .await;
    let started = Instant::now();
    let (exit, launch) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    assert!(started.elapsed() < Duration::from_secs(9), "the stop waited for those that wait");
    let poll = poll.await.expect("the request ends");
    assert!([200, 503].contains(&poll.status), "{}", poll.status);
    let waiter = waiter.await.expect("the request ends");
    assert!([200, 503].contains(&waiter.status), "{}", waiter.status);
    if waiter.status == 200 {
        assert_eq!(waiter.json()["acquired"], false);
    }
    let server = launch.start().await;
    let lease = server.get("/v1/leases/one").await.expect(200);
    assert_eq!(lease["holder"], "first", "a waiter that was sent away holds the lease");
}

/// Opens a request whose body never comes, and waits until the server works on it.
async fn unfinished_request(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).await.expect("the server listens");
    let head = "POST /v1/locks/job/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                expect: 100-continue\r\ncontent-length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("the head is sent");
    let mut response = [0; 12];
    let read = stream.read_exact(&mut response);
    tokio::time::timeout(DEADLINE, read).await.expect("in time").expect("the body is asked for");
    assert_eq!(&response, b"HTTP/1.1 100");
    stream
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_it_was_told() {
    let server = Launch::new().env("HOLDALL_TIMEOUTS__SHUTDOWN", "200ms").start().await;
    let stuck = unfinished_request(&server).await;
    let (exit, _) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    drop(stuck);
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once() {
    let mut server = Launch::new()
        .env("HOLDALL_TIMEOUTS__SHUTDOWN", "1h")
        .env("HOLDALL_TIMEOUTS__BODY", "1h")
        .env("HOLDALL_TIMEOUTS__REQUEST", "1h")
        .env("HOLDALL_TIMEOUTS__UPLOAD", "1h")
        .start()
        .await;
    let stuck = unfinished_request(&server).await;
    server.signal_stop();
    eventually("the stop begins", async || server.log().contains("stopping").then_some(())).await;
    server.signal_stop();
    let exit = server.wait_for_exit().await;
    assert_ne!(exit.code, Some(0), "{}", exit.log);
    drop(stuck);
}

#[tokio::test]
async fn a_server_can_be_run_inside_another_program() {
    let loaded = holdall::config::load(
        None,
        [("HOLDALL_STORE__BACKEND".into(), "memory".into())].into_iter(),
    );
    let config = loaded.expect("the settings are valid").config;
    let any_port = "127.0.0.1:0".parse().expect("an address");
    let listener = holdall::app::bind(any_port).await.expect("a free port");
    let client = Client::new(listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let server = tokio::spawn(async move { holdall::app::run(&config, listener, stopped).await });
    eventually("it is ready", async || {
        (client.try_get("/readyz").await?.status == 200).then_some(())
    })
    .await;
    stop.cancel();
    let ended = tokio::time::timeout(DEADLINE, server).await.expect("in time");
    ended.expect("no panic").expect("an orderly end");
}
