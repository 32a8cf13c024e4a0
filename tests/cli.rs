//! The command line.

use crate::harness::process::holdall;
use crate::harness::{Launch, Server};

#[test]
fn the_version_and_the_commands_are_printed() {
    let version = holdall(&["--version"], &[]);
    assert!(version.status.success());
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    assert_eq!(text.trim(), concat!("holdall ", env!("CARGO_PKG_VERSION")));
    let help = holdall(&["--help"], &[]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in ["serve", "openapi", "check-config", "healthcheck", "--config"] {
        assert!(text.contains(command), "{text}");
    }
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    for args in [&["fly"][..], &["openapi", "--version", "2.0"], &["--colour"]] {
        let output = holdall(args, &[]);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn the_openapi_document_is_printed_in_both_versions() {
    for (version, prefix) in [("3.1", "3.1."), ("3.0", "3.0.")] {
        let output = holdall(&["openapi", "--version", version], &[]);
        assert!(output.status.success());
        let document: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("the document is JSON");
        let found = document["openapi"].as_str().expect("a version");
        assert!(found.starts_with(prefix), "{found}");
        assert!(document["paths"]["/v1/series"].is_object());
    }
    let default = holdall(&["openapi"], &[]);
    assert_eq!(default.stdout, holdall(&["openapi", "--version", "3.1"], &[]).stdout);
}

#[tokio::test]
async fn the_healthcheck_tells_whether_the_server_is_ready() {
    let server = Server::start().await;
    let address = server.address().to_string();
    let ready = holdall(&["healthcheck"], &[("HOLDALL_SERVER__LISTEN", &address)]);
    assert_eq!(ready.status.code(), Some(0), "{ready:?}");
    let url = format!("http://{address}/livez");
    assert_eq!(holdall(&["healthcheck", "--url", &url], &[]).status.code(), Some(0));
    let nothing = format!("http://{address}/nothing");
    assert_eq!(holdall(&["healthcheck", "--url", &nothing], &[]).status.code(), Some(1));
    drop(server);
    let away = holdall(&["healthcheck"], &[("HOLDALL_SERVER__LISTEN", &address)]);
    assert_eq!(away.status.code(), Some(1), "{away:?}");
    assert!(String::from_utf8_lossy(&away.stderr).contains("does not respond"), "{away:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_start() {
    let server = Server::start().await;
    let address = server.address().to_string();
    let exit = Launch::new().env("HOLDALL_SERVER__LISTEN", &address).expect_exit().await;
    assert_eq!(exit.code, Some(1), "{}", exit.log);
    assert!(exit.log.contains(&address), "{}", exit.log);
}

#[tokio::test]
async fn the_log_is_json_from_the_first_line_to_the_last_and_tells_the_life_of_the_server() {
    let launch = Launch::new();
    let (exit, _) = launch.start().await.terminate().await;
    assert_eq!(exit.code, Some(0));
    for line in exit.log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    let place = |word: &str| exit.log.find(&format!("\"{word}\"")).expect("it is in the log");
    let order = ["listening", "ready", "stopping", "stopped"].map(place);
    assert!(order.is_sorted(), "{}", exit.log);
}

/// Returns what `/proc` says of the process, such as its `environ`: words that end in zeros.
fn words_of(server: &Server, what: &str) -> Vec<String> {
    let path = format!("/proc/{}/{what}", server.id());
    let text = std::fs::read_to_string(path).expect("the process runs");
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[tokio::test]
async fn the_server_gives_memory_back_at_once_unless_told_otherwise() {
    const OPTION: &str = "MIMALLOC_PURGE_DELAY";
    let set = |server: &Server| {
        let environment = words_of(server, "environ");
        environment.iter().filter(|word| word.starts_with(OPTION)).cloned().collect::<Vec<_>>()
    };
    let launch = Launch::new().config("");
    let server = launch.start().await;
    assert_eq!(set(&server), [format!("{OPTION}=0")]);
    // It is the process that was started, with the words it was started with.
    let words = words_of(&server, "cmdline");
    let file = launch.folder().join("holdall.toml");
    assert_eq!(words[1..], ["--config", file.to_str().expect("UTF-8")]);
    let (exit, _) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);

    let server = Launch::new().env(OPTION, "7").start().await;
    assert_eq!(set(&server), [format!("{OPTION}=7")]);
}
