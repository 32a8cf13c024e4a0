//! Real Redis servers: one, or a cluster of three masters and three replicas, on free ports.
//!
//! Servers that cases share run as long as the test program: a shell holds them, and ends them
//! when the pipe from the test program breaks, however that ended. `REDIS_SERVER` and `REDIS_CLI`
//! name other programs than those of Redis, for Valkey.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use tempfile::TempDir;

use super::DEADLINE;

/// Cluster nodes talk on a port this far above their own, unless told otherwise.
const NODES: usize = 6;

/// The options of a node of a cluster.
pub(crate) const CLUSTER: [&str; 4] =
    ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];

/// One server of its own, that a test may stop, kill and start again on the same port and folder.
pub(crate) struct Redis {
    child: Option<Child>,
    port: u16,
    folder: TempDir,
    options: Vec<String>,
}

impl Redis {
    /// Starts a server; `options` as on its command line, such as `--appendonly yes`.
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut redis = Self { child: None, port: free_port(), folder, options };
        redis.run();
        redis
    }

    /// Returns the URL.
    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    /// Returns the port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it ends");
        }
    }

    /// Starts the server again after [`Self::kill`].
    pub(crate) fn run(&mut self) {
        let mut command = Command::new(server());
        command.args(arguments(self.port, self.folder.path())).args(&self.options);
        let child = command.stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server is installed"));
        wait_for_pong(self.port);
        let ended = self.child.as_mut().map(Child::try_wait);
        assert!(matches!(ended, Some(Ok(None))), "port {} is somebody else's", self.port);
    }

    /// Stops the process (SIGSTOP), or lets it go on.
    pub(crate) fn pause(&self, pause: bool) {
        let signal =
            if pause { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        if let Some(child) = &self.child {
            let pid = rustix::process::Pid::from_child(child);
            rustix::process::kill_process(pid, signal).expect("it is ours");
        }
    }

    /// Runs a command of `redis-cli`; returns what it prints.
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }

    /// Returns the command that [`Self::cli`] runs.
    pub(crate) fn cli_command(&self, args: &[&str]) -> Command {
        cli_command(self.port, args)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns the URL of a server that all cases of this test program share.
pub(crate) fn shared() -> &'static str {
    static SHARED: OnceLock<(Held, String)> = OnceLock::new();
    let (_, url) = SHARED.get_or_init(|| {
        let held = Held::start(&[free_port()], &[]);
        let url = url(held.ports[0]);
        (held, url)
    });
    url
}

/// Returns the URLs of a cluster that all cases of this test program share.
pub(crate) fn shared_cluster() -> &'static [String] {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(Cluster::start).urls()
}

/// Makes servers, which were started with [`CLUSTER`], the masters of a cluster without replicas.
pub(crate) fn join(masters: &[Redis]) {
    let nodes: Vec<String> =
        masters.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut command = Command::new(client());
    command.args(["--cluster", "create"]).args(&nodes).arg("--cluster-yes");
    let output = command.output().expect("redis-cli is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    masters.iter().for_each(|node| wait_until_whole(node.port));
}

/// Waits until the node at `port` sees its whole cluster.
pub(crate) fn wait_until_whole(port: u16) {
    wait_until("the cluster is whole", || {
        cli(port, &["cluster", "info"]).contains("cluster_state:ok")
    });
}

/// A cluster: three masters with a replica each.
pub(crate) struct Cluster {
    held: Held,
    urls: Vec<String>,
}

impl Cluster {
    /// Starts one.
    pub(crate) fn start() -> Self {
        let ports: Vec<u16> = (0..NODES).map(|_| free_port()).collect();
        let held = Held::start(&ports, &CLUSTER);
        let nodes: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let mut command = Command::new(client());
        command.args(["--cluster", "create"]).args(&nodes);
        command.args(["--cluster-replicas", "1", "--cluster-yes"]);
        let output = command.output().expect("redis-cli is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let urls = ports.iter().map(|port| url(*port)).collect();
        let cluster = Self { held, urls };
        cluster.wait_until_settled();
        cluster
    }

    /// Waits until each node sees the whole cluster, and half of them follow the others.
    pub(crate) fn wait_until_settled(&self) {
        let ports = &self.held.ports;
        ports.iter().for_each(|port| wait_until_whole(*port));
        let follows = |port: &&u16| cli(**port, &["role"]).lines().any(|line| line == "connected");
        wait_until("the replicas follow", || {
            ports.iter().filter(follows).count() == NODES / 2 && self.masters().len() == NODES / 2
        });
    }

    /// Returns the ports of all nodes.
    pub(crate) fn nodes(&self) -> &[u16] {
        &self.held.ports
    }

    /// Returns the URLs of its nodes.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Returns the port of one of the masters.
    pub(crate) fn a_master(&self) -> u16 {
        let master = self.held.ports.iter().find(|port| is_master(**port));
        *master.expect("a cluster has masters")
    }

    /// Waits until, of each master, the replica has seen all that it wrote.
    pub(crate) fn until_replicated(&self) {
        self.masters().into_iter().for_each(until_replicated);
    }

    /// Returns the ports of the masters.
    pub(crate) fn masters(&self) -> Vec<u16> {
        self.held.ports.iter().copied().filter(|port| is_master(*port)).collect()
    }

    /// Ends the node at `port` at once, as a crash does.
    pub(crate) fn kill(&self, port: u16) {
        self.signal(port, rustix::process::Signal::KILL);
    }

    /// Stops the node at `port` (SIGSTOP), or lets it go on.
    pub(crate) fn pause(&self, port: u16, pause: bool) {
        use rustix::process::Signal;
        self.signal(port, if pause { Signal::STOP } else { Signal::CONT });
    }

    fn signal(&self, port: u16, signal: rustix::process::Signal) {
        let index = self.held.ports.iter().position(|p| *p == port).expect("one of ours");
        let pid = rustix::process::Pid::from_raw(self.held.pids[index]).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it is ours");
    }
}

/// Servers that end with this, or with the test program.
struct Held {
    /// The shell; when its input ends, so do the servers.
    shell: Child,
    ports: Vec<u16>,
    pids: Vec<i32>,
    _folder: TempDir,
}

impl Held {
    fn start(ports: &[u16], options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut script = String::new();
        for port in ports {
            let node = folder.path().join(port.to_string());
            std::fs::create_dir(&node).expect("a folder of ours");
            let mut words = arguments(*port, &node);
            words.extend(options.iter().map(|&option| option.to_owned()));
            let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            let line =
                format!("'{}' {} </dev/null >/dev/null & echo $!\n", server(), words.join(" "));
            script.push_str(&line.replace("& echo $!", "& pids=\"$pids $!\"; echo $!"));
        }
        let path = folder.path().display();
        script.push_str(&format!("cat >/dev/null; kill -9 $pids; rm -rf '{path}'\n"));
        let mut shell = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let lines = BufReader::new(shell.stdout.take().expect("a pipe")).lines();
        let pids = lines
            .take(ports.len())
            .map(|line| line.expect("the shell speaks").trim().parse().expect("a process id"));
        let pids = pids.collect();
        for port in ports {
            wait_for_pong(*port);
        }
        Self { shell, ports: ports.to_vec(), pids, _folder: folder }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().expect("the shell ends");
    }
}

fn arguments(port: u16, folder: &Path) -> Vec<String> {
    let mut words: Vec<String> =
        ["--port", "--bind", "--save", "--dir"].map(str::to_owned).to_vec();
    words.insert(1, port.to_string());
    words.insert(3, "127.0.0.1".to_owned());
    words.insert(5, String::new());
    words.push(folder.display().to_string());
    words
}

/// The server's program; `REDIS_SERVER=valkey-server` tries Valkey.
fn server() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// The client's program, of the same kind: `REDIS_CLI=valkey-cli`.
fn client() -> String {
    std::env::var("REDIS_CLI").unwrap_or_else(|_| "redis-cli".to_owned())
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

/// A port, never the same twice, whose neighbour for the cluster's own talk (10,000 above) is free
/// as well. Both lie below the range from which the system takes ports to outgoing connections.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 10_000;
    const OWN_TALK: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time begin at places that lie far apart.
    let start = std::process::id().wrapping_mul(617) % u32::from(PORTS);
    let start = u16::try_from(start).unwrap_or(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(step < PORTS, "no free port on the loopback");
        let port = FIRST + (start + step) % PORTS;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + OWN_TALK) {
            return port;
        }
    }
}

/// Waits until the replica of the master at `port` has seen all that it wrote until now.
pub(crate) fn until_replicated(port: u16) {
    let field = |name: &str| {
        let info = cli(port, &["info", "replication"]);
        info.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let number = |text: String| text.parse::<u64>().expect("a number");
    let written = field("master_repl_offset:").map(number).expect("a master tells it");
    wait_until("the replica has seen all", || {
        let replica = field("slave0:").filter(|replica| replica.contains("state=online"));
        let seen = replica.and_then(|replica| {
            Some(number(replica.split(",offset=").nth(1)?.split(',').next()?.to_owned()))
        });
        seen.is_some_and(|seen| seen >= written)
    });
}

/// Runs a command of `redis-cli` on the server at `port`; returns what it prints.
pub(crate) fn cli(port: u16, args: &[&str]) -> String {
    let output = cli_command(port, args).output().expect("redis-cli is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn cli_command(port: u16, args: &[&str]) -> Command {
    let mut command = Command::new(client());
    command.args(["-p", &port.to_string()]).args(args);
    command
}

/// Returns whether the server at `port` takes itself for a master.
pub(crate) fn is_master(port: u16) -> bool {
    cli(port, &["role"]).starts_with("master")
}

fn wait_for_pong(port: u16) {
    wait_until("redis-server listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok() && cli(port, &["ping"]).trim() == "PONG"
    });
}

/// Waits until a condition holds, on a thread that may block.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Removes all keys of a namespace from the server at `url`, if it is a master.
pub(crate) fn wipe(url: &str, namespace: &str) {
    let port: u16 = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    for key in cli(port, &["--scan", "--pattern", &format!("{{{namespace}:*")]).lines() {
        cli(port, &["del", key]);
    }
}
