//! Declared pipelines on the real binary: how they are read, what stops a start, what may be changed, and what /metrics shows.

use reqwest::Method;
use serde_json::{Value, json};

use crate::config::{check_with, file};
use crate::harness::redis::Redis;
use crate::harness::{Exit, Launch, Server, eventually};

const VIEWS: &str =
    "[pipelines.views]\nkind = \"sum\"\nwindow = \"1h\"\nretention = \"7days\"\ndedup = \"1h\"\n";

async fn merge(server: &Server, updates: Value) -> Value {
    let body = json!({ "updates": updates });
    server.post("/v1/aggregates/views/merge", &body).await.expect(200)
}

async fn value(server: &Server) -> Value {
    server.get("/v1/aggregates/views/a").await.expect(200)["value"].clone()
}

#[test]
fn pipelines_are_declared_in_the_file_and_in_the_environment() {
    let (_folder, path) = file(
        "[pipelines.page_views]\nkind = \"sum\"\nwindow = \"1h\"\nretention = \"7days\"\n\
         [pipelines.peak]\nkind = \"max\"\nnumber = \"integer\"\n",
    );
    let env = [
        ("HOLDALL_PIPELINES__PAGE_VIEWS__RETENTION", "30days"),
        ("HOLDALL_PIPELINES__PEAK__NUMBER", "float"),
        ("HOLDALL_PIPELINES__LOGINS__KIND", "count"),
    ];
    let (code, shown, log) = check_with(&["check-config", "--config", &path], &env);
    assert_eq!(code, Some(0), "{log}");
    for line in [
        format!("pipelines.page_views.window = \"1h\"  # from {path}\n"),
        format!(
            "pipelines.page_views.retention = \"30days\"  # from the environment variable {}\n",
            env[0].0
        ),
        format!(
            "pipelines.peak.number = \"float\"  # from the environment variable {}\n",
            env[1].0
        ),
        format!(
            "pipelines.logins.kind = \"count\"  # from the environment variable {}\n",
            env[2].0
        ),
    ] {
        assert!(shown.contains(&line), "{line} is not in:\n{shown}");
    }
}

#[test]
fn every_error_of_every_pipeline_is_reported_with_its_origin() {
    let (_folder, path) = file(
        "[pipelines.a]\nkind = \"sun\"\nwindow = \"soon\"\n\
         [pipelines.empty]\n\
         [pipelines.c]\nkind = \"sum\"\nhook = {}\n\
         [pipelines.d]\nkind = \"sum\"\ndedup = \"1h\"\n",
    );
    let env = [
        ("HOLDALL_PIPELINES__A__LG_K", "12"),
        ("HOLDALL_PIPELINES__D__DEDUP__FOR", "1h"),
        ("HOLDALL_PIPELINES__E", "sum"),
        ("HOLDALL_PIPELINES", "sum"),
    ];
    let (code, shown, log) = check_with(&["check-config", "--config", &path], &env);
    assert_eq!((code, shown.as_str()), (Some(2), ""), "{log}");
    let from_file = format!("(from {path})");
    for (setting, what, origin) in [
        ("pipelines.a", "kind must be one of", ""),
        ("pipelines.a.window", "not a duration", from_file.as_str()),
        ("pipelines.a.retention", "is missing", ""),
        ("pipelines.empty", "kind must be one of", &from_file),
        ("pipelines.c.hook", "needs url, or stream", ""),
        ("pipelines.d.dedup.for", "has a value of its own", "HOLDALL_PIPELINES__D__DEDUP__FOR)"),
        ("pipelines.e", "is not a table", "HOLDALL_PIPELINES__E)"),
        ("pipelines", "is a section", "HOLDALL_PIPELINES)"),
    ] {
        let named = log.lines().any(|line| {
            line.trim_start().starts_with(&format!("{setting}: "))
                && line.contains(what)
                && line.ends_with(origin)
        });
        assert!(named, "{setting} is not named with {what:?} and {origin:?}:\n{log}");
    }
}

#[tokio::test]
async fn a_pipeline_whose_values_would_mean_something_else_stops_the_start() {
    let server = Launch::new().config(VIEWS).start().await;
    let merged = merge(&server, json!([{"entity": "a", "delta": 7, "event_id": "e"}])).await;
    assert_eq!(merged["applied"], 1);
    let (exit, launch) = server.terminate().await;
    assert_eq!(exit.code, Some(0), "{}", exit.log);

    let mut launch = launch;
    for (from, to, declared) in [
        ("\"sum\"", "\"max\"", "max(integer); window=1h"),
        ("window = \"1h\"", "window = \"2h\"", "sum(integer); window=2h"),
    ] {
        launch = launch.config(&VIEWS.replace(from, to));
        let Exit { code, log } = launch.expect_exit().await;
        assert_eq!(code, Some(1), "{log}");
        for word in ["views", "sum(integer); window=1h", declared] {
            assert!(log.contains(word), "no {word:?} in {log}");
        }
        assert_eq!(log.matches("has stored values of").count(), 1, "it is said once: {log}");
    }

    // What does not change the meaning of the values may change, and they are still there.
    let changed = VIEWS.replace("7days", "8days").replace("dedup = \"1h\"", "dedup = \"2h\"");
    let server = launch.config(&changed).start().await;
    assert_eq!(value(&server).await, 7);
    let again = merge(&server, json!([{"entity": "a", "delta": 7, "event_id": "e"}])).await;
    assert_eq!(again["duplicates"], 1);
}

#[tokio::test]
async fn a_pipeline_on_redis_keeps_its_values_and_its_meaning() {
    let redis = Redis::start(&[]);
    let launch = Launch::new()
        .env("HOLDALL_STORE__BACKEND", "redis")
        .env("HOLDALL_STORE__REDIS__URL", &redis.url());
    let server = launch.config(VIEWS).start().await;
    let seen = server.post("/v1/events/seen", &json!({"event_ids": ["a", "a"]})).await;
    assert_eq!(seen.expect(200), json!({"first_seen": [true, false]}));
    let update = || json!([{"entity": "a", "delta": 7, "event_id": "e"}]);
    assert_eq!(merge(&server, update()).await["applied"], 1);
    let (_, launch) = server.terminate().await;
    let launch = launch.config(&VIEWS.replace("\"sum\"", "\"max\""));
    let Exit { code, log } = launch.expect_exit().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("max(integer); window=1h"), "{log}");
    let server = launch.config(VIEWS).start().await;
    assert_eq!(merge(&server, update()).await["duplicates"], 1);
    assert_eq!(value(&server).await, 7);
}

#[tokio::test]
async fn metrics_show_what_became_of_updates_and_how_long_operations_take() {
    let server = Launch::new().config(VIEWS).start().await;
    let update = |delta| json!([{"entity": "a", "delta": delta, "event_id": "e"}]);
    merge(&server, update(1)).await;
    merge(&server, update(1)).await;
    merge(&server, json!([{"entity": "a", "delta": 1, "at": "2000-01-01T00:00:00Z"}])).await;
    let body = json!({"updates": update(2)});
    let conflict = server.post("/v1/aggregates/views/merge", &body).await;
    assert_eq!(conflict.expect_problem(409), "event_conflict");
    assert_eq!(value(&server).await, 1);
    let page = server.get("/metrics").await.text();
    for outcome in ["applied", "conflict", "duplicate", "expired"] {
        let line = format!(
            "holdall_aggregate_updates_total{{outcome=\"{outcome}\",pipeline=\"views\"}} 1\n"
        );
        assert!(page.contains(&line), "{line} is not in {page}");
    }
    for (operation, count) in
        [("store_merge", 4), ("store_merge_update", 4), ("store_get", 1), ("store_window", 0)]
    {
        let name = "holdall_aggregate_operation_duration_seconds_count";
        let line = format!("{name}{{operation=\"views:{operation}\"}} {count}\n");
        assert!(page.contains(&line), "{line} is not in {page}");
    }
}

async fn until_shown(server: &Server, what: &str, is_shown: impl Fn(&str) -> bool) -> String {
    eventually(what, async || {
        let page = server.get("/metrics").await.text();
        is_shown(&page).then_some(page)
    })
    .await
}

#[tokio::test]
async fn values_are_series_on_metrics_whoever_counts_and_whatever_is_pushed() {
    let config = "refresh.interval = \"50ms\"\n[pipelines.requests]\nkind = \"count\"\n\
        [pipelines.requests.export]\nname = \"requests_total\"\nlabel = \"path\"\nhelp = \"Requests.\"\n";
    let server = Launch::new().config(config).start().await;
    let update = json!({"updates": [{"entity": "/a\"b", "delta": 2}]});
    for _ in 0..3 {
        server.post("/v1/aggregates/requests/merge", &update).await.expect(200);
    }
    for name in ["requests_total", "other"] {
        server.try_push(name, 1.0).await.expect("the server responds").expect(200);
    }
    let series = "# HELP requests_total Requests.\n# TYPE requests_total counter\n\
        requests_total{path=\"/a\\\"b\"} 6\n";
    let page = until_shown(&server, "the push", |page| page.contains("other 1\n")).await;
    assert!(page.contains(series), "{page}");
    assert!(page.contains("holdall_exported_entities{pipeline=\"requests\"} 1\n"), "{page}");
    assert!(!page.contains("requests_total 1"), "{page}");
    assert!(page.contains("holdall_mirror_clashes_total 1\n"), "{page}");
    let (_, launch) = server.terminate().await;
    let server = launch.start().await;
    // A server is ready only when its page has the exported series.
    assert!(server.get("/metrics").await.text().contains(series));
    let deletion = server.request(Method::DELETE, "/v1/aggregates/requests/%2Fa%22b");
    server.send(deletion).await.expect(200);
    until_shown(&server, "the deletion", |page| !page.contains("\nrequests_total{")).await;
}

#[test]
fn no_two_pipelines_export_the_same_series() {
    let (_folder, path) = file(
        "[pipelines.a]\nkind = \"quantiles\"\nexport = { name = \"x\" }\n\
         [pipelines.b]\nkind = \"sum\"\nexport = { name = \"x_sum\" }\n\
         [pipelines.c]\nkind = \"sum\"\nwindow = \"1h\"\nretention = \"1h\"\nexport = { name = \"c\" }\n\
         [pipelines.d]\nkind = \"topk\"\nexport = { name = \"holdall_d\", label = \"__x\", max_entities = 1000000 }\n",
    );
    let (code, _, log) = check_with(&["check-config", "--config", &path], &[]);
    assert_eq!(code, Some(2), "{log}");
    for part in [
        "pipelines.a.export, pipelines.b.export: would both have the series x_sum on /metrics",
        "pipelines.c.export: is for pipelines without window",
        "pipelines.d.export.type: values of topk",
        "pipelines.d.export.name: must not begin with holdall_",
        "pipelines.d.export.label: is not the name of a label",
        "pipelines.d.export.max_entities: must be at most 100000",
    ] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}
