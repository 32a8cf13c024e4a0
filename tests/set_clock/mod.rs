//! The real server, while somebody sets the clock of its machine, by hours and by days, in both directions, while it runs
//! and while it is down. `shim.c` shows the server the time that is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use holdall::model::time::Timestamp;
use serde_json::{Value, json};

use crate::harness::client::{Client, push};
use crate::harness::{Launch, Server};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// How long everything lasts that is held here: much longer than this test, and than `MAX_FUTURE_SKEW`.
const TTL: &str = "2h";
const TTL_NANOS: i64 = 2 * HOUR * 1_000_000_000;
/// How much of that may pass during this test, at most.
const TEST_NANOS: i64 = HOUR * 1_000_000_000;

/// The clock that the server is shown.
struct SetClock(PathBuf);

impl SetClock {
    fn new(folder: &Path) -> Self {
        let clock = Self(folder.join("set_clock"));
        clock.set(0);
        clock
    }

    /// Sets the clock to be off by so many seconds. The file is mapped, so it is written in place.
    fn set(&self, seconds: i64) {
        let nanos = seconds * 1_000_000_000;
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.0);
        let written =
            file.and_then(|mut file| std::io::Write::write_all(&mut file, &nanos.to_ne_bytes()));
        written.expect("the file is written");
    }

    /// Returns the time that the server is shown, in nanoseconds.
    fn now(&self) -> i64 {
        let off = fs::read(&self.0).expect("reads").try_into().map(i64::from_ne_bytes);
        let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        i64::try_from(real.as_nanos()).expect("before 2262") + off.expect("8 bytes")
    }

    fn launch(&self, launch: Launch) -> Launch {
        let file = self.0.to_str().expect("UTF-8");
        launch.env("LD_PRELOAD", shim().to_str().expect("UTF-8")).env("SET_CLOCK_FILE", file)
    }
}

/// Compiles the shim, once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/set_clock/shim.c");
        let shim = Path::new(env!("CARGO_TARGET_TMPDIR")).join("set_clock.so");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Werror", "-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source);
        assert!(compiler.status().expect("cc runs").success(), "the shim compiles");
        shim
    })
}

async fn post(client: &Client, path: &str, body: Value) -> Value {
    client.post(path, &body).await.expect(200)
}

/// Takes a lock, a lease, a checkpoint and a cached value; returns the token of the lease.
async fn take_all(client: &Client) -> i64 {
    assert_eq!(post(client, "/v1/locks/job/a", json!({"ttl": TTL})).await["acquired"], true);
    let lease = json!({"holder": "me", "ttl": TTL});
    let lease = post(client, "/v1/leases/l/acquire", lease).await;
    let checkpoint = client.request(reqwest::Method::PUT, "/v1/checkpoints/o/r");
    let body = json!({"checkpoint": "2020-01-01T00:00:00Z"});
    client.send(checkpoint.json(&body)).await.expect(200);
    lease["fencing_token"].as_i64().expect("it is granted")
}

fn nanos(time: &Value) -> i64 {
    Timestamp::parse(time.as_str().expect("a time")).expect("valid").as_nanos()
}

/// Holds the server to it that nothing has ended, and that ends are shown by the clock as it is set now.
async fn assert_held(client: &Client, clock: &SetClock, token: i64) {
    let lock = post(client, "/v1/locks/job/a", json!({"ttl": TTL})).await;
    assert_eq!(lock["acquired"], false, "a lock was granted twice");
    let other = json!({"holder": "other", "ttl": TTL});
    let lease = post(client, "/v1/leases/l/acquire", other).await;
    assert_eq!(lease["acquired"], false, "a lease was granted twice");
    for end in [&lock["expires_at"], &lease["expires_at"]] {
        let left = nanos(end) - clock.now();
        assert!((TTL_NANOS - TEST_NANOS..=TTL_NANOS + 1_000_000_000).contains(&left), "{left}");
    }
    post(client, "/v1/leases/l/renew", json!({"fencing_token": token})).await;
    client.get("/v1/checkpoints/o/r").await.expect(200);
}

/// Holds the server to it that it takes the right points: with the time that is set now, and without a time.
async fn assert_takes_points(client: &Client, clock: &SetClock, value: &mut f64) {
    let stamp = Timestamp::from_nanos(clock.now()).to_string();
    for at in [Some(stamp), None] {
        *value += 1.0;
        let mut body = push("m", *value);
        if let Some(at) = at {
            body["points"][0]["updated_at"] = at.into();
        }
        let counts = post(client, "/v1/series", body).await;
        assert_eq!(counts["stale"], 0, "a right point was dropped");
        let held = client.get("/v1/series?match[]=m").await.expect(200);
        assert_eq!(held["points"][0]["value"], *value);
    }
}

async fn restart(server: Server, clean: bool) -> Server {
    let launch = if clean { server.terminate().await.1 } else { server.kill() };
    launch.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setting_the_clock_ends_nothing_early_and_refuses_no_right_point() {
    let launch = Launch::new();
    let clock = SetClock::new(launch.folder());
    let mut server = clock.launch(launch).start().await;
    let token = take_all(&server.client()).await;
    let mut value = 0.0;
    assert_takes_points(&server.client(), &clock, &mut value).await;
    for (number, set_to) in [HOUR, -HOUR, 5 * DAY, 0, -5 * DAY, 400 * DAY].into_iter().enumerate() {
        // While it runs, and the next time while it is down.
        clock.set(set_to / 2);
        assert_held(&server.client(), &clock, token).await;
        assert_takes_points(&server.client(), &clock, &mut value).await;
        let before = clock.now();
        clock.set(set_to);
        server = restart(server, number % 2 == 0).await;
        let shown = server.client().get("/v1/leases/l").await.expect(200);
        let shift = Duration::from_nanos(clock.now().abs_diff(before)).as_secs();
        assert!(nanos(&shown["expires_at"]) > clock.now(), "set by {shift} s");
        assert_held(&server.client(), &clock, token).await;
        assert_takes_points(&server.client(), &clock, &mut value).await;
    }
}
