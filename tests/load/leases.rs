//! One holder of one lease: it acquires, renews and releases, under a new name each time.

use std::sync::Arc;

use holdall::model::time::Timestamp;
use serde_json::{Value, json};

use super::Ledger;
use super::ledger::Promise;
use crate::harness::Client;
use crate::harness::rng::Rng;

/// Returns the time now, as the server on the same machine sees it.
pub(super) fn now() -> Timestamp {
    let now = jiff::Timestamp::now().as_nanosecond();
    Timestamp::from_nanos(i64::try_from(now).expect("a time of this century"))
}

/// Reads what an acquisition or renewal promised.
pub(super) fn expires_at(response: &Value) -> Timestamp {
    Timestamp::parse(response["expires_at"].as_str().expect("a time")).expect("RFC 3339")
}

/// Returns the path of something that is done to a lease.
pub(super) fn path(name: &str, action: &str) -> String {
    format!("/v1/leases/{}/{action}", name.replace('/', "%2F"))
}

/// Works on the lease until the server is gone.
pub(super) async fn hold(client: Client, ledger: Arc<Ledger>, name: String, mut rng: Rng) {
    loop {
        let record = ledger.lease(&name);
        let went_on = match record.promise {
            None => acquire(&client, &ledger, &name, &mut rng).await,
            Some(promise) if rng.below(3) == 0 => release(&client, &ledger, &name, &promise).await,
            Some(promise) => renew(&client, &ledger, &name, &promise).await,
        };
        if went_on.is_none() {
            return;
        }
    }
}

async fn acquire(client: &Client, ledger: &Ledger, name: &str, rng: &mut Rng) -> Option<()> {
    let holder = format!("holder-{}", ledger.next_number());
    let ttl = format!("{}ms", 1000 + rng.below(4000));
    ledger.lease_in_doubt(name);
    let body = json!({"holder": holder, "ttl": ttl, "wait": "100ms"});
    let response = client.try_post(&path(name, "acquire"), &body).await?;
    if response.status == 503 {
        return None;
    }
    let response = response.expect(200);
    if response["acquired"] == true {
        let token = response["fencing_token"].as_i64().expect("a token");
        ledger.lease_granted(name, Promise { holder, token, expires_at: expires_at(&response) });
    }
    Some(())
}

async fn renew(client: &Client, ledger: &Ledger, name: &str, promise: &Promise) -> Option<()> {
    let body = json!({"fencing_token": promise.token});
    let response = client.try_post(&path(name, "renew"), &body).await?;
    match response.status {
        503 => None,
        409 => {
            assert!(now() >= promise.expires_at, "{name} was lost before its end: {promise:?}");
            ledger.lease_over(name);
            Some(())
        }
        _ => {
            ledger.lease_renewed(name, expires_at(&response.expect(200)));
            Some(())
        }
    }
}

async fn release(client: &Client, ledger: &Ledger, name: &str, promise: &Promise) -> Option<()> {
    ledger.lease_in_doubt(name);
    let body = json!({"fencing_token": promise.token});
    let response = client.try_post(&path(name, "release"), &body).await?;
    match response.status {
        503 => return None,
        409 => assert!(now() >= promise.expires_at, "{name} was lost before its end: {promise:?}"),
        status => assert!((200..300).contains(&status), "{status} {}", response.text()),
    }
    ledger.lease_over(name);
    Some(())
}
