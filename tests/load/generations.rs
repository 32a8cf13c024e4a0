//! Generations under load: each key has one writer, so that its number is known.

use std::sync::Arc;

use serde_json::json;

use super::Ledger;
use crate::harness::{Client, Server};

/// Returns the path of a generation.
pub(super) fn path(number: u64) -> String {
    format!("/v1/generations/source%2F{number}")
}

/// Bumps one key until the server is gone.
pub(super) async fn bump(client: Client, ledger: Arc<Ledger>, number: u64) {
    let path = path(number);
    loop {
        ledger.send_bump(&path);
        let Some(response) = client.try_post(&format!("{path}/bump"), &json!({})).await else {
            return;
        };
        if response.status == 503 {
            return;
        }
        let response = response.expect(200);
        let generation = response["generation"].as_u64().expect("a number");
        ledger.bumped(&path, generation, response["fence"].as_str().expect("a text"));
    }
}

/// Checks that no bump was lost that was acknowledged, and none came of nothing.
pub(super) async fn verify(server: &Server, ledger: &Ledger) {
    for (path, progress) in ledger.bumps() {
        let response = server.get(&path).await.expect(200);
        let stands = response["generation"].as_u64().expect("a number");
        let possible = progress.acknowledged..=progress.sent;
        assert!(possible.contains(&stands), "{path}: {stands} stands after {progress:?}");
    }
}
