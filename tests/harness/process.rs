//! The server's process: its settings, its log, its end.

use std::io::BufReader;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Client, DEADLINE, eventually};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_holdall");

/// Runs a command of the binary to its end, with only `env` of settings in the environment.
pub(crate) fn holdall(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    without_settings(&mut command);
    command.args(args).envs(env.iter().copied()).output().expect("the binary starts")
}

fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOLDALL_") {
            command.env_remove(name);
        }
    }
}

/// How to start a server: again and again on the same folder.
#[derive(Clone)]
pub(crate) struct Launch {
    folder: Arc<TempDir>,
    env: Vec<(String, String)>,
    args: Vec<String>,
    shell: Option<String>,
    wrapper: Vec<String>,
}

impl Launch {
    /// A server in a folder of its own, on any free port.
    pub(crate) fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder for the server"));
        let store = folder.path().join("store");
        Self { folder, env: Vec::new(), args: Vec::new(), shell: None, wrapper: Vec::new() }
            .env("HOLDALL_STORE__PATH", store.to_str().expect("a path in UTF-8"))
            .env("HOLDALL_SERVER__LISTEN", "127.0.0.1:0")
            .env("HOLDALL_LOG__FORMAT", "json")
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the server a file of settings.
    pub(crate) fn config(mut self, text: &str) -> Self {
        let path = self.folder.path().join("holdall.toml");
        std::fs::write(&path, text).expect("the file of settings is written");
        self.args = vec!["--config".to_owned(), path.to_str().expect("UTF-8").to_owned()];
        self
    }

    /// Runs `script` in the shell that then becomes the server, such as `ulimit -f 100`.
    pub(crate) fn shell(mut self, script: &str) -> Self {
        self.shell = Some(script.to_owned());
        self
    }

    /// Adds words in front of the server's command; the last program of them must become it.
    pub(crate) fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    /// Returns the folder that all servers of this launch share.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the folder of the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.folder().join("store")
    }

    /// Starts the server and waits until it is ready.
    pub(crate) async fn start(&self) -> Server {
        let server = self.listening().await;
        server.until_ready().await;
        server
    }

    /// Starts the server and waits until it listens.
    pub(crate) async fn listening(&self) -> Server {
        let mut process = self.spawn();
        let address = process.wait_for_address();
        let client = Client::new(address);
        Server { process, client, launch: self.clone() }
    }

    /// Starts a server that is expected to give up.
    pub(crate) async fn expect_exit(&self) -> Exit {
        self.spawn().wait_for_exit().await
    }

    fn spawn(&self) -> Process {
        let mut words = self.wrapper.clone();
        if let Some(script) = &self.shell {
            let script = format!("{script} && exec \"$0\" \"$@\"");
            words.extend(["sh".to_owned(), "-c".to_owned(), script]);
        }
        words.push(BINARY.to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        without_settings(&mut command);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || log.read(BufReader::new(stderr))
        });
        Process { child, log }
    }
}

/// A server that runs. It is killed when it is dropped.
pub(crate) struct Server {
    process: Process,
    client: Client,
    launch: Launch,
}

/// Requests go through the client.
impl std::ops::Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Server {
    /// Starts a server with nothing but defaults.
    pub(crate) async fn start() -> Self {
        Launch::new().start().await
    }

    /// Returns a client for tasks of their own.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits until the server responds that it is ready.
    pub(crate) async fn until_ready(&self) {
        eventually("the server is ready", async || {
            let response = self.client.try_get("/readyz").await?;
            (response.status == 200).then_some(())
        })
        .await;
    }

    /// Ends the process at once, as `kill -9` does.
    pub(crate) fn kill(mut self) -> Launch {
        self.process.kill();
        self.launch.clone()
    }

    /// Asks the process to stop, and waits until it is gone.
    pub(crate) async fn terminate(mut self) -> (Exit, Launch) {
        self.signal_stop();
        let exit = self.process.wait_for_exit().await;
        (exit, self.launch.clone())
    }

    /// Asks the process to stop; see also [`Self::wait_for_exit`].
    pub(crate) fn signal_stop(&self) {
        kill_process(self.process.id(), Signal::TERM).expect("the process can be signalled");
    }

    /// Waits until the process is gone.
    pub(crate) async fn wait_for_exit(&mut self) -> Exit {
        self.process.wait_for_exit().await
    }

    /// Returns how much memory the process holds now, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.status_kib("VmRSS:") * 1024
    }

    /// Returns how much memory the process has held at most, in bytes.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        self.status_kib("VmHWM:") * 1024
    }

    fn status_kib(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id().as_raw_nonzero());
        let status = std::fs::read_to_string(path).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Returns how many files and connections the process has open.
    pub(crate) fn open_files(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.id()));
        files.expect("the process runs").count()
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> i32 {
        self.process.id().as_raw_nonzero().get()
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.process.log.text()
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Exit {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote on standard error.
    pub(crate) log: String,
}

struct Process {
    child: Child,
    log: Arc<Log>,
}

impl Process {
    fn id(&self) -> Pid {
        let id = i32::try_from(self.child.id()).expect("a process id");
        Pid::from_raw(id).expect("a process id is not 0")
    }

    fn kill(&mut self) {
        // Fails only where the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn wait_for_address(&mut self) -> SocketAddr {
        match self.log.wait_for_address(DEADLINE) {
            Some(address) => address,
            None => {
                let code = self.child.try_wait();
                panic!("the server does not listen ({code:?}):\n{}", self.log.text());
            }
        }
    }

    async fn wait_for_exit(&mut self) -> Exit {
        let status = eventually("the server ends", async || {
            self.child.try_wait().expect("a process of ours")
        })
        .await;
        let log = Arc::clone(&self.log);
        eventually("the log is read", async || log.ended().then_some(())).await;
        Exit { code: status.code(), log: self.log.text() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log.text());
        }
    }
}

/// What the server writes on standard error.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    more: Condvar,
    ended: AtomicBool,
}

impl Log {
    fn read(&self, source: impl std::io::BufRead) {
        for line in source.lines().map_while(Result::ok) {
            self.lines.lock().push(line);
            self.more.notify_all();
        }
        self.ended.store(true, Ordering::Release);
        drop(self.lines.lock());
        self.more.notify_all();
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn text(&self) -> String {
        self.lines.lock().join("\n")
    }

    fn wait_for_address(&self, within: Duration) -> Option<SocketAddr> {
        let deadline = Instant::now() + within;
        let mut lines = self.lines.lock();
        loop {
            if let Some(address) = lines.iter().find_map(|line| address_in(line)) {
                return Some(address);
            }
            if self.ended() || self.more.wait_until(&mut lines, deadline).timed_out() {
                return None;
            }
        }
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = &line["fields"];
    (fields["message"] == "listening").then(|| fields["addr"].as_str()?.parse().ok())?
}
