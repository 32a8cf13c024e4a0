//! Signals: each either stops in order, reloads, or does nothing; none loses what was pushed.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Launch, Server, eventually};

const FIRST: &str = "first-token-1234567890";
const SECOND: &str = "second-token-123456789";

fn send(server: &Server, signal: Signal) {
    let process = Pid::from_raw(server.id()).expect("a process id is not 0");
    kill_process(process, signal).expect("the process can be signalled");
}

/// A server that flushes only when it stops.
fn unflushed() -> Launch {
    Launch::new().env("HOLDALL_FLUSH__INTERVAL", "1h")
}

#[tokio::test]
async fn signals_that_ask_for_an_end_lose_nothing() {
    let mut launch = unflushed();
    let ends = [Signal::TERM, Signal::INT, Signal::QUIT, Signal::POWER, Signal::XCPU];
    for (number, signal) in ends.into_iter().enumerate() {
        let mut server = launch.start().await;
        let name = format!("pushed_before_{number}");
        server.try_push(&name, 1.0).await.expect("a response").expect(200);
        send(&server, signal);
        let exit = server.wait_for_exit().await;
        assert_eq!(exit.code, Some(0), "{signal:?}: {}", exit.log);
        launch = server.kill();
        let server = launch.start().await;
        let found = server.get(&format!("/v1/series?match[]={name}")).await.expect(200);
        assert_eq!(found["points"][0]["value"], 1.0, "{signal:?}: {found}");
        launch = server.terminate().await.1;
    }
}

#[tokio::test]
async fn signals_that_ask_for_nothing_end_nothing() {
    let server = unflushed().start().await;
    server.try_push("kept", 1.0).await.expect("a response").expect(200);
    // All that end a process by default, but for KILL, those that report a fault in it, and those that stop in order.
    let named = [
        Signal::HUP,
        Signal::USR1,
        Signal::USR2,
        Signal::PIPE,
        Signal::ALARM,
        Signal::STKFLT,
        Signal::XFSZ,
        Signal::VTALARM,
        Signal::PROF,
        Signal::IO,
    ];
    for number in named.map(Signal::as_raw).into_iter().chain(34..=64) {
        // Real-time signals have no names here.
        let script = format!("kill -{number} {}", server.id());
        let sent = Command::new("sh").args(["-c", &script]).status().expect("a shell");
        assert!(sent.success(), "{number}");
        server.post("/v1/locks/job/x", &json!({"ttl": "1h"})).await.expect(200);
    }
    let (exit, launch) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    let server = launch.start().await;
    assert_eq!(server.get("/v1/series").await.expect(200)["points"][0]["name"], "kept");
}

#[tokio::test]
async fn a_warning_that_comes_again_does_not_end_a_stop() {
    let mut server = unflushed().env("HOLDALL_TIMEOUTS__SHUTDOWN", "1h").start().await;
    server.try_push("kept", 1.0).await.expect("a response").expect(200);
    // The stop waits for the end of this body.
    let mut body = TcpStream::connect(server.address()).await.expect("the server listens");
    let head = "POST /v1/locks/job/x HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                expect: 100-continue\r\ncontent-length: 12\r\n\r\n";
    body.write_all(head.as_bytes()).await.expect("the head is sent");
    body.read_exact(&mut [0; 12]).await.expect("the body is asked for");
    for _ in 0..3 {
        send(&server, Signal::XCPU);
        eventually("the stop begins", async || server.log().contains("stopping").then_some(()))
            .await;
    }
    body.write_all(b"{\"ttl\":\"1h\"}").await.expect("the body is sent");
    let exit = server.wait_for_exit().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);
    let server = server.kill().start().await;
    assert_eq!(server.get("/v1/series").await.expect(200)["points"][0]["name"], "kept");
}

#[tokio::test]
async fn a_hangup_reloads_the_tokens_and_the_level_of_the_log() {
    let launch = Launch::new();
    let file = launch.folder().join("secret");
    std::fs::write(&file, FIRST).expect("the file is written");
    let settings = |level: &str| {
        format!(
            "[log]\nlevel = \"{level}\"\n[[access.tokens]]\nname = \"reader\"\n\
             token_file = \"{}\"\nscopes = [\"read\"]\n",
            file.display()
        )
    };
    let launch = launch.config(&settings("info"));
    let server = launch.start().await;
    let (first, second) = (server.with_token(FIRST), server.with_token(SECOND));
    first.get("/v1/series").await.expect(200);
    second.get("/v1/series").await.expect_problem(401);

    std::fs::write(&file, SECOND).expect("the file is written");
    let _same_folder = launch.clone().config(&settings("debug"));
    send(&server, Signal::HUP);
    eventually("the token is replaced", async || {
        (second.get("/v1/series").await.status == 200).then_some(())
    })
    .await;
    first.get("/v1/series").await.expect_problem(401);
    eventually("details are logged", async || server.log().contains("DEBUG").then_some(())).await;

    // What is not valid changes nothing.
    std::fs::write(&file, "short").expect("the file is written");
    send(&server, Signal::HUP);
    eventually("it is refused", async || {
        server.log().contains("nothing was reloaded").then_some(())
    })
    .await;
    second.get("/v1/series").await.expect(200);
}
