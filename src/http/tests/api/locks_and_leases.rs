//! Tests of locks and leases.

use serde_json::json;

use super::{api, api_with, ask, code, metrics_say, send};
use crate::engine::series::SeriesRules;
use crate::http::settings::for_tests;
use crate::http::tests::{ends, listen_with};
use crate::http::{Scope, TokenSettings};
use crate::store::StoreSettings;

#[tokio::test]
async fn a_lock_goes_to_one_caller_and_its_key_may_be_any_text() {
    let api = api();
    let ttl = json!({"ttl": "60s"});
    for key in ["plain", "a%2Fb%20c%3F", "%E2%82%AC"] {
        let path = format!("/v1/locks/job/{key}");
        assert_eq!(api.get(&path).await.json, json!({"held": false}));
        let first = api.send("POST", &path, &ttl).await.json;
        let second = api.send("POST", &path, &ttl).await;
        assert_eq!((second.status, &second.json["acquired"]), (200, &json!(false)));
        assert_eq!(first["acquired"], true);
        assert!(first["release_token"].is_string() && second.json.get("release_token").is_none());
        assert_eq!(first["expires_at"], second.json["expires_at"]);
        assert_eq!(api.get(&path).await.json["held"], true);
    }
    let body = json!({"keys": ["a/b c?", "new", "new"], "ttl": "60s"});
    let many = api.send("POST", "/v1/locks/job", &body).await;
    assert_eq!(many.json["acquired"], json!(["new"]));
    assert!(many.json["release_token"].is_string());
    let none = api.send("POST", "/v1/locks/job", &body).await;
    assert_eq!(none.json, json!({"acquired": []}));
    let other = api.send("POST", "/v1/locks/dedup/new", &ttl).await;
    assert_eq!(other.json["acquired"], true);
    assert_eq!(code(&api.send("POST", "/v1/locks/other/x", &ttl).await), (404, "not_found"));
    for ttl in ["0s", "-1s", "soon"] {
        let seen = api.send("POST", "/v1/locks/job/x", &json!({"ttl": ttl})).await;
        assert_eq!(code(&seen), (400, "invalid_request"), "{ttl}");
    }
    let too_many: Vec<_> = (0..101).map(|i| i.to_string()).collect();
    let seen = api.send("POST", "/v1/locks/job", &json!({"keys": too_many, "ttl": "1s"})).await;
    assert_eq!(code(&seen), (400, "invalid_request"));
}

#[tokio::test]
async fn a_lock_is_released_with_the_token_of_its_acquisition() {
    let api = api();
    let ttl = json!({"ttl": "60s"});
    let release = async |path: &str, token: &str| {
        let request = send("DELETE", path, &[("holdall-release-token", token)], "");
        ask(&api.router, request).await
    };
    let token_of = |seen: &serde_json::Value| {
        seen["release_token"].as_str().expect("a token of who acquired it").to_owned()
    };
    let (path, other_path) = ("/v1/locks/job/a%2Fb", "/v1/locks/job/other");
    let first = token_of(&api.send("POST", path, &ttl).await.json);
    let other = token_of(&api.send("POST", other_path, &ttl).await.json);
    assert_eq!(code(&release(path, &other).await), (409, "lock_not_held"));
    for token in ["", "0", "guess", &first[1..]] {
        assert_eq!(code(&release(path, token).await), (400, "invalid_request"), "{token}");
    }
    let bare = ask(&api.router, send("DELETE", path, &[], "")).await;
    assert_eq!(code(&bare), (403, "forbidden"));
    assert_eq!(api.get(path).await.json["held"], true);
    let released = release(path, &first).await;
    assert_eq!((released.status, &released.json), (200, &json!({"released": true})));
    assert_eq!(code(&release(path, &first).await), (409, "lock_not_held"));
    let second = token_of(&api.send("POST", path, &ttl).await.json);
    assert_ne!(first, second);
    assert_eq!(code(&release(path, &first).await), (409, "lock_not_held"));
    assert_eq!(release(path, &second).await.status, 200);

    let batch = json!({"keys": ["a/b", "other", "c"], "ttl": "60s"});
    let batch = api.send("POST", "/v1/locks/job", &batch).await.json;
    assert_eq!(batch["acquired"], json!(["a/b", "c"]));
    let token = token_of(&batch);
    assert_eq!(code(&release(other_path, &token).await), (409, "lock_not_held"));
    assert_eq!(release(path, &token).await.status, 200);
    assert_eq!(release("/v1/locks/job/c", &token).await.status, 200);
    assert_eq!(code(&release("/v1/locks/other/c", &token).await), (404, "not_found"));
}

#[tokio::test]
async fn only_an_admin_token_releases_a_lock_without_its_release_token() {
    let mut settings = for_tests();
    let write = [Scope::Read, Scope::Write];
    let admin = [Scope::Write, Scope::Admin];
    settings.access.tokens = vec![
        TokenSettings::for_tests("writer", &write, None),
        TokenSettings::for_tests("admin", &admin, None),
        TokenSettings::for_tests("reader", &[Scope::Read, Scope::Admin], None),
    ];
    let api = api_with(settings, SeriesRules::default(), &StoreSettings::for_tests());
    let path = "/v1/locks/job/x";
    let as_token = async |token: &str, method: &str, more: &[(&str, &str)], body: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let headers = [&headers[..], more].concat();
        ask(&api.router, send(method, path, &headers, body.to_owned())).await
    };
    let acquired = as_token("writer", "POST", &[], r#"{"ttl": "60s"}"#).await;
    let token = acquired.json["release_token"].as_str().expect("a token").to_owned();
    assert_eq!(code(&as_token("writer", "DELETE", &[], "").await), (403, "forbidden"));
    assert_eq!(code(&as_token("reader", "DELETE", &[], "").await), (403, "forbidden"));
    assert_eq!(as_token("admin", "DELETE", &[], "").await.status, 200);
    assert_eq!(code(&as_token("admin", "DELETE", &[], "").await), (409, "lock_not_held"));
    let late = [("holdall-release-token", token.as_str())];
    assert_eq!(as_token("writer", "POST", &[], r#"{"ttl": "60s"}"#).await.status, 200);
    // A release token that is given is always compared.
    for who in ["writer", "admin"] {
        assert_eq!(
            code(&as_token(who, "DELETE", &late, "").await),
            (409, "lock_not_held"),
            "{who}"
        );
    }
}

#[tokio::test]
async fn a_lease_has_one_holder_and_only_it_gets_the_token() {
    let api = api();
    let ask = |holder: &str| json!({"holder": holder, "ttl": "60s"});
    let path = "/v1/leases/a%2Fb";
    let first = api.send("POST", &format!("{path}/acquire"), &ask("one")).await.json;
    assert_eq!((&first["acquired"], &first["ttl"]), (&json!(true), &json!("1m")));
    let token = first["fencing_token"].as_i64().expect("a token");
    let second = api.send("POST", &format!("{path}/acquire"), &ask("two")).await.json;
    assert_eq!((&second["acquired"], &second["holder"]), (&json!(false), &json!("one")));
    assert!(second.get("fencing_token").is_none() && second["expires_at"].is_string());
    let again = api.send("POST", &format!("{path}/acquire"), &ask("one")).await.json;
    assert_eq!((&again["acquired"], &again["holder"]), (&json!(false), &json!("one")));
    let over = json!({"holder": "one", "ttl": "60s", "takeover": true});
    let over = api.send("POST", &format!("{path}/acquire"), &over).await.json;
    assert_eq!(over["acquired"], true);
    assert!(over["fencing_token"].as_i64().is_some_and(|next| next > token));
    let late = api.send("POST", &format!("{path}/renew"), &json!({"fencing_token": token})).await;
    assert_eq!(code(&late), (409, "lease_not_held"));
    let token = over["fencing_token"].as_i64().expect("a token");
    let inspected = api.get(path).await.json;
    assert_eq!(inspected["name"], "a/b");
    assert!(inspected.get("fencing_token").is_none());
    let listed = api.get("/v1/leases?limit=5").await.json;
    assert_eq!(listed["leases"][0], inspected);
    let renew = json!({"fencing_token": token, "ttl": "120s"});
    let renewed = api.send("POST", &format!("{path}/renew"), &renew).await.json;
    assert_eq!((&renewed["ttl"], &renewed["fencing_token"]), (&json!("2m"), &json!(token)));
    let wrong = json!({"fencing_token": token + 1});
    let seen = api.send("POST", &format!("{path}/release"), &wrong).await;
    assert_eq!(code(&seen), (409, "lease_not_held"));
    let waits = json!({"holder": "two", "ttl": "60s", "wait": "30s"});
    let (waiting_path, release_path) = (format!("{path}/acquire"), format!("{path}/release"));
    let waiting = api.send("POST", &waiting_path, &waits);
    let own = json!({"fencing_token": token});
    let release = api.send("POST", &release_path, &own);
    let (granted, released) = tokio::join!(waiting, release);
    assert_eq!(released.status, 200);
    assert_eq!(granted.json["holder"], "two");
    assert!(granted.json["fencing_token"].as_i64().is_some_and(|next| next > token));
    assert_eq!(code(&api.get("/v1/leases/none").await), (404, "not_found"));
}

#[tokio::test]
async fn waiting_for_a_lease_ends_when_the_server_stops() {
    let api = api();
    let path = "/v1/leases/x/acquire";
    api.send("POST", path, &json!({"holder": "one", "ttl": "60s"})).await;
    let waits = json!({"holder": "two", "ttl": "60s", "wait": "30s"});
    let (seen, ()) = tokio::join!(api.send("POST", path, &waits), async { api.stop.cancel() });
    assert_eq!(code(&seen), (503, "stopping"));
}

#[tokio::test]
async fn tokens_bind_roles_and_leader_writes_need_the_lease() {
    let mut settings = for_tests();
    let scopes = [Scope::Read, Scope::Write];
    settings.access.tokens = vec![TokenSettings::for_tests("secret", &scopes, Some("follower"))];
    let bound = api_with(settings, SeriesRules::default(), &StoreSettings::for_tests());
    let push = |role: &str, source: &str| {
        let body = json!({"role": role, "source": source, "points": [{"name": "a", "value": 1}]});
        let headers = [("authorization", "Bearer secret"), ("content-type", "application/json")];
        send("POST", "/v1/series", &headers, body.to_string())
    };
    let seen = ask(&bound.router, push("leader", "leader_scrape")).await;
    assert_eq!(code(&seen), (403, "guard_refused"));
    let seen = ask(&bound.router, push("follower", "worker_backfill")).await;
    assert_eq!(seen.status, 200, "{}", seen.json);

    let rules = SeriesRules { leader_lease: Some("lead".to_owned()), ..SeriesRules::default() };
    let led = api_with(for_tests(), rules, &StoreSettings::for_tests());
    let points = json!([{"name": "a", "value": 1}]);
    assert_eq!(code(&led.push(points.clone()).await), (428, "fence_required"));
    let lease = json!({"holder": "one", "ttl": "60s"});
    let lease = led.send("POST", "/v1/leases/lead/acquire", &lease).await.json;
    let token = lease["fencing_token"].as_i64().expect("a token");
    let body = json!({"role": "leader", "source": "leader_scrape", "points": points});
    let stale = led.fenced("POST", "/v1/series", "lead", token + 5, &body).await;
    assert_eq!(code(&stale), (412, "fence_refused"));
    assert_eq!(led.fenced("POST", "/v1/series", "lead", token, &body).await.status, 200);
}

#[tokio::test]
async fn a_waiter_that_disconnects_is_never_granted() {
    use tokio::io::AsyncWriteExt;
    let api = api();
    let path = "/v1/leases/x/acquire";
    let first = api.send("POST", path, &json!({"holder": "one", "ttl": "60s"})).await.json;
    let running = listen_with(api.router.clone(), for_tests()).await;
    let mut waiter = tokio::net::TcpStream::connect(running.address).await.expect("connects");
    let body = json!({"holder": "two", "ttl": "60s", "wait": "30s"}).to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    waiter.write_all(format!("{head}{body}").as_bytes()).await.expect("sends");
    // The scrape itself is the other request.
    metrics_say(&api.router, |text| text.contains("requests_in_flight 2")).await;
    drop(waiter);
    metrics_say(&api.router, |text| text.contains("requests_in_flight 1")).await;
    let release = json!({"fencing_token": first["fencing_token"]});
    assert_eq!(api.send("POST", "/v1/leases/x/release", &release).await.status, 200);
    assert_eq!(code(&api.get("/v1/leases/x").await), (404, "not_found"));
    ends(running).await;
}
