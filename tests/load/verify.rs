//! Checks that a server that was started again keeps what its earlier runs promised.

use serde_json::json;

use super::ledger::Promise;
use super::{Ledger, generations, leases, time_of};
use crate::harness::Server;
use crate::harness::rng::Rng;

/// How many locks of earlier runs are checked each time.
const OLD_LOCKS: u64 = 200;
/// How many locks are asked for in one request.
const KEYS_AT_ONCE: usize = 1000;
/// How many locks are asked for their end.
const TIMED_LOCKS: usize = 10;

/// Checks everything that was acknowledged as durable.
pub(crate) async fn verify_strong(server: &Server, ledger: &Ledger, since: usize, rng: &mut Rng) {
    verify_locks(server, ledger, since, rng).await;
    verify_leases(server, ledger).await;
    generations::verify(server, ledger).await;
    for (path, progress) in ledger.checkpoints() {
        if progress.acknowledged == 0 {
            continue;
        }
        let response = server.get(&path).await.expect(200);
        let stands = response["checkpoint"].as_str().expect("a time").to_owned();
        let possible: Vec<_> = (progress.acknowledged..=progress.sent).map(time_of).collect();
        assert!(possible.contains(&stands), "{path}: {stands} stands after {progress:?}");
    }
}

async fn verify_locks(server: &Server, ledger: &Ledger, since: usize, rng: &mut Rng) {
    let locks = ledger.locks();
    let mut keys: Vec<_> = locks[since..].iter().map(|(key, _)| key.as_str()).collect();
    if let Ok(old @ 1..) = u64::try_from(since) {
        let pick = |_| usize::try_from(rng.below(old)).map_or("", |index| locks[index].0.as_str());
        keys.extend((0..OLD_LOCKS).map(pick));
    }
    for keys in keys.chunks(KEYS_AT_ONCE) {
        let response = server.post("/v1/locks/job", &json!({"keys": keys, "ttl": "1h"})).await;
        assert_eq!(response.expect(200)["acquired"], json!([]), "locks that were taken are free");
    }
    let timed = locks[since..].iter().filter_map(|(key, end)| end.as_ref().map(|end| (key, end)));
    for (key, end) in timed.take(TIMED_LOCKS) {
        let lock = server.get(&format!("/v1/locks/job/{key}")).await.expect(200);
        assert_eq!(lock["expires_at"].as_str(), Some(end.as_str()), "{key} ends at another time");
    }
}

/// Lets a stranger ask for every lease that was promised to somebody.
async fn verify_leases(server: &Server, ledger: &Ledger) {
    for (name, record) in ledger.leases() {
        let Some(promise) = record.promise.filter(|_| !record.in_doubt) else {
            // What was under way may or may not have happened; nothing is promised.
            ledger.lease_over(&name);
            continue;
        };
        let holder = format!("stranger-{}", ledger.next_number());
        let body = json!({"holder": holder, "ttl": "1s"});
        let response = server.post(&leases::path(&name, "acquire"), &body).await.expect(200);
        let still_promised = leases::now() < promise.expires_at;
        if response["acquired"] == true {
            assert!(!still_promised, "{name} ended before {promise:?}");
            let token = response["fencing_token"].as_i64().expect("a token");
            let expires_at = leases::expires_at(&response);
            ledger.lease_granted(&name, Promise { holder, token, expires_at });
        } else if still_promised {
            assert_eq!(response["holder"], json!(promise.holder), "{name} has another holder");
            let expires_at = leases::expires_at(&response);
            assert!(expires_at >= promise.expires_at, "{name} ends at {expires_at}: {promise:?}");
        }
    }
}

async fn series_value(server: &Server, name: &str) -> Option<u64> {
    let response = server.get(&format!("/v1/series?match[]={name}")).await.expect(200);
    let value = response["points"].as_array().expect("points").first()?["value"].as_f64()?;
    (0..=1 << 20).find(|&number: &u32| f64::from(number) == value).map(u64::from)
}

/// Checks that series hold what was flushed, or something newer that was sent.
pub(crate) async fn verify_weak(server: &Server, ledger: &Ledger) {
    for (name, progress) in ledger.series() {
        let value = series_value(server, &name).await.unwrap_or(0);
        let possible = progress.durable..=progress.sent;
        assert!(possible.contains(&value), "{name}: {value} stands after {progress:?}");
        // What was newer is lost, as it may be: a flush from here on promises nothing about it.
        ledger.series_fell_back(&name, value);
    }
}

/// Checks that series hold all that was acknowledged: after an orderly stop.
pub(crate) async fn verify_series_whole(server: &Server, ledger: &Ledger) {
    for (name, progress) in ledger.series() {
        let value = series_value(server, &name).await.unwrap_or(0);
        let possible = progress.acknowledged..=progress.sent;
        assert!(possible.contains(&value), "{name}: {value} stands after {progress:?}");
    }
}

impl Ledger {
    /// Counts the locks that were taken so far.
    pub(crate) fn lock_count(&self) -> usize {
        self.locks().len()
    }
}
