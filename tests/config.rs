//! Settings: their sources, their errors, and how they are shown.

use crate::harness::process::holdall;
use crate::harness::{Exit, Launch};

const SECRET: &str = "a-secret-of-some-length==";

fn check(env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    check_with(&["check-config"], env)
}

pub(crate) fn check_with(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = holdall(args, env);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

pub(crate) fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("holdall.toml");
    std::fs::write(&path, text).expect("the file is written");
    let path = path.to_str().expect("UTF-8").to_owned();
    (folder, path)
}

#[test]
fn the_defaults_are_valid_and_shown_with_their_origin() {
    let (code, shown, log) = check(&[]);
    assert_eq!(code, Some(0), "{log}");
    assert!(shown.contains("series.retention = \"24h\"  # from the defaults\n"), "{shown}");
    assert!(shown.contains("store.backend = \"embedded\""), "{shown}");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let (_folder, path) =
        file("[series]\nretention = \"1h\"\nmax_series = 7\n[flush]\nthreshold = 9\n");
    let (code, shown, log) =
        check_with(&["check-config", "--config", &path], &[("HOLDALL_SERIES__MAX_SERIES", "8")]);
    assert_eq!(code, Some(0), "{log}");
    assert!(shown.contains(&format!("series.retention = \"1h\"  # from {path}\n")), "{shown}");
    assert!(
        shown.contains(
            "series.max_series = \"8\"  # from the environment variable HOLDALL_SERIES__MAX_SERIES"
        ),
        "{shown}"
    );
    assert!(shown.contains("flush.threshold = 9  #"), "{shown}");
}

#[test]
fn the_file_can_be_named_in_the_environment() {
    let (_folder, path) = file("[series]\nretention = \"2h\"\n");
    let (code, shown, log) = check(&[("HOLDALL_CONFIG", &path)]);
    assert_eq!(code, Some(0), "{log}");
    assert!(shown.contains("series.retention = \"2h\""), "{shown}");
}

#[test]
fn every_error_is_reported_at_once_with_its_origin() {
    let (_folder, path) = file(
        "colour = 1\n\
         [series]\nretention = \"soon\"\nmax_series = 0\nguards = {}\n\
         [sries]\nretention = \"1h\"\n\
         [store]\nbackend = \"paper\"\n\
         [limits]\nbody_bytes = \"1 apple\"\npage_items = 200000\n\
         [timeouts]\nupload = \"10s\"\n\
         [access]\nmetrics_allow = [\"10.0.0.0/8\", \"nowhere\"]\n",
    );
    let (code, shown, log) = check_with(
        &["check-config", "--config", &path],
        &[
            ("HOLDALL_SERVER__LISTEN", "everywhere"),
            ("HOLDALL_REFRESH__INTERVAL", "0s"),
            ("HOLDALL_STORE_PATH", "/nowhere"),
            ("HOLDALL_LOG__LEVEL", "holdall=loud"),
            ("HOLDALL_FLUSH", "1s"),
        ],
    );
    assert_eq!(code, Some(2), "{shown}");
    assert_eq!(shown, "");
    let from_file = format!("(from {path})");
    for (setting, what, origin) in [
        ("colour", "is not a setting", from_file.as_str()),
        ("series.retention", "not a duration", &from_file),
        ("series.max_series", "at least 1", &from_file),
        ("series.guards", "names no role", &from_file),
        ("sries", "is not a setting", &from_file),
        ("store.backend", "must be one of embedded, memory", &from_file),
        ("limits.body_bytes", "not a size", &from_file),
        ("limits.page_items", "must not be larger than limits.max_page_items", &from_file),
        ("timeouts.upload", "must not be shorter than timeouts.request", &from_file),
        ("access.metrics_allow", "\"nowhere\" is not an address range", &from_file),
        ("server.listen", "", "HOLDALL_SERVER__LISTEN)"),
        ("refresh.interval", "longer than zero", "HOLDALL_REFRESH__INTERVAL)"),
        ("store_path", "store.path is HOLDALL_STORE__PATH", "HOLDALL_STORE_PATH)"),
        ("log.level", "neither a level nor a filter", "HOLDALL_LOG__LEVEL)"),
        ("flush", "is a section", "HOLDALL_FLUSH)"),
    ] {
        let named = log.lines().any(|line| {
            line.trim_start().starts_with(&format!("{setting}: "))
                && line.contains(what)
                && line.ends_with(origin)
        });
        assert!(named, "{setting} is not named with {what:?} and {origin:?}:\n{log}");
    }
    assert!(log.contains("has 15 errors"), "{log}");
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_reported() {
    let (code, _, log) = check_with(&["check-config", "--config", "/nowhere/holdall.toml"], &[]);
    assert_eq!(code, Some(2));
    assert!(log.contains("/nowhere/holdall.toml: can't be read"), "{log}");
    let (_folder, path) = file(&format!("[access\ntoken = \"{SECRET}\"\n"));
    let (code, _, log) = check_with(&["check-config", "--config", &path], &[]);
    assert_eq!(code, Some(2));
    assert!(log.contains(&path) && log.contains("line 1"), "{log}");
    assert!(!log.contains(SECRET), "{log}");
}

#[test]
fn variables_of_the_platform_are_not_settings() {
    let (code, _, log) = check(&[
        ("HOLDALL_SERVICE_HOST", "10.0.0.1"),
        ("HOLDALL_PORT", "tcp://10.0.0.1:8720"),
        ("HOLDALL_PORT_8720_TCP_PORT", "8720"),
        ("HOLDALL_REDIS_SERVICE_HOST", "10.0.0.2"),
        ("HOLDALL_REDIS_PORT", "tcp://10.0.0.2:6379"),
        ("HOLDALL_CONFIG", ""),
    ]);
    assert_eq!(code, Some(0), "{log}");
    // What only looks like them is a typing error.
    for typing_error in [("HOLDALL_PORT", "8720"), ("HOLDALL_REDIS_URL", "redis://one:6379")] {
        assert_eq!(check(&[typing_error]).0, Some(2), "{typing_error:?}");
    }
}

#[test]
fn nothing_that_was_given_is_dropped_or_converted_in_silence() {
    let tokens =
        format!("[{{name = \"a\", token = \"{SECRET}\", scopes = [\"read\", \"write\"]}}]");
    let (_folder, path) = file(&format!("[access]\ntokens = {tokens}\n"));
    for empty in ["", " ", "[]", ","] {
        let given = [("HOLDALL_CONFIG", &*path), ("HOLDALL_ACCESS__TOKENS", empty)];
        let (code, _, log) = check(&given);
        assert_eq!(code, Some(2), "{empty:?}");
        assert!(log.contains("access.tokens: is empty, and would discard the list of"), "{log}");
    }
    assert_eq!(check(&[("HOLDALL_ACCESS__TOKENS", "")]).0, Some(0), "there is nothing to discard");
    let twice = [("HOLDALL_SERIES__RETENTION", "1h"), ("HOLDALL_series__RETENTION", "2h")];
    let (code, _, log) = check(&twice);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("series.retention: is also given by HOLDALL_SERIES__RETENTION"), "{log}");
    for (section, setting) in [
        ("flush", "threshold = 1.7"),
        ("flush", "threshold = true"),
        ("store.redis", "database = true"),
        ("store.redis", "database = 0.6"),
        ("access", "open_to_the_network_without_tokens = 1"),
        ("series", "retention = \"1M\""),
    ] {
        let (_folder, path) = file(&format!("[{section}]\n{setting}\n"));
        let (code, _, log) = check(&[("HOLDALL_CONFIG", &path)]);
        assert_eq!(code, Some(2), "{setting}: {log}");
        let name = setting.split(' ').next().expect("a name");
        assert!(log.contains(&format!("{section}.{name}: ")), "{setting}: {log}");
    }
}

#[test]
fn secrets_are_shown_to_nobody() {
    let tokens =
        format!("[{{name = \"a\", token = \"{SECRET}\", scopes = [\"read\", \"write\"]}}]");
    let (_folder, path) = file(&format!("[access]\ntokens = {tokens}\n"));
    let (code, shown, log) = check_with(&["check-config", "--config", &path], &[]);
    assert_eq!(code, Some(0), "{log}");
    assert!(shown.contains("name = \"a\"") && shown.contains("[redacted]"), "{shown}");
    assert!(!shown.contains(SECRET), "{shown}");
    let (code, shown, log) = check(&[("HOLDALL_ACCESS__TOKENS", &tokens)]);
    assert_eq!(code, Some(0), "{log}");
    assert!(!shown.contains(SECRET), "{shown}");
    for broken in [
        SECRET.to_owned(),
        format!("[{SECRET}"),
        format!("[\"{SECRET}\"]"),
        format!("[{{name = \"a\", scopes = \"{SECRET}\"}}]"),
        format!("[{{name = \"a\", token = [\"{SECRET}\"], scopes = [\"read\"]}}]"),
    ] {
        let (code, _, log) = check(&[("HOLDALL_ACCESS__TOKENS", &broken)]);
        assert_eq!(code, Some(2), "{broken}");
        assert!(log.contains("access.tokens") && !log.contains(SECRET), "{log}");
    }
}

#[test]
fn every_error_in_a_token_is_reported() {
    let (code, _, log) = check(&[(
        "HOLDALL_ACCESS__TOKENS",
        r#"[{name = "a", token = "short", scopes = []},
            {name = "a", scopes = ["read"], role = "king"},
            {name = "b", token_sha256 = "12", scopes = ["read"]},
            {name = "c", token_file = "/nowhere/token", scopes = ["read"]}]"#,
    )]);
    assert_eq!(code, Some(2));
    for what in [
        "number 1 (\"a\") is shorter than",
        "number 1 (\"a\") has no scopes",
        "number 2 (\"a\") needs a name of its own",
        "number 2 (\"a\") needs exactly one of",
        "number 2 (\"a\"): \"king\" is not a role",
        "number 3 (\"b\"): token_sha256 has 64",
        "number 4 (\"c\"): /nowhere/token can't be read",
    ] {
        assert!(log.contains(what), "{what}:\n{log}");
    }
}

#[test]
fn without_tokens_only_loopback_is_listened_on() {
    let everywhere = ("HOLDALL_SERVER__LISTEN", "0.0.0.0:0");
    let (code, _, log) = check(&[everywhere]);
    assert_eq!(code, Some(2));
    assert!(log.contains("server.listen: 0.0.0.0:0 is not a loopback address"), "{log}");
    let open = ("HOLDALL_ACCESS__OPEN_TO_THE_NETWORK_WITHOUT_TOKENS", "true");
    assert_eq!(check(&[everywhere, open]).0, Some(0));
    let tokens =
        format!("[{{name = \"a\", token = \"{SECRET}\", scopes = [\"read\", \"write\"]}}]");
    assert_eq!(check(&[everywhere, ("HOLDALL_ACCESS__TOKENS", &tokens)]).0, Some(0));
    assert_eq!(check(&[("HOLDALL_SERVER__LISTEN", "[::1]:0")]).0, Some(0));
}

#[tokio::test]
async fn serving_refuses_what_check_config_refuses() {
    let launch = Launch::new().env("HOLDALL_SERVER__LISTEN", "0.0.0.0:0");
    let Exit { code, log } = launch.expect_exit().await;
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("is not a loopback address"), "{log}");
    assert!(!launch.store().exists(), "nothing was made before the settings were checked");
}

#[test]
fn lists_and_tables_come_from_the_environment_as_well() {
    let (code, shown, log) = check(&[
        ("HOLDALL_ACCESS__METRICS_ALLOW", "10.0.0.0/8, 192.0.2.7"),
        ("HOLDALL_SERIES__GUARDS", r#"{ Leader = ["leader_scrape", "x"] }"#),
    ]);
    assert_eq!(code, Some(0), "{log}");
    assert!(shown.contains(r#"series.guards = { Leader = ["leader_scrape", "x"] }"#), "{shown}");
    assert!(shown.contains("access.metrics_allow = \"10.0.0.0/8, 192.0.2.7\""), "{shown}");
}

#[test]
fn a_leader_lease_needs_a_leader() {
    let (code, _, log) = check(&[
        ("HOLDALL_SERIES__LEADER_LEASE", "leader"),
        ("HOLDALL_SERIES__LEADER_ROLE", "king"),
    ]);
    assert_eq!(code, Some(2));
    assert!(log.contains("series.leader_role: \"king\" is not a role of series.guards"), "{log}");
}

#[test]
fn a_level_with_a_typing_error_does_not_silence_the_log() {
    for (level, code) in [("inof", 2), ("WARN", 0), ("info,holdall::http=debug", 0)] {
        let (found, _, log) = check_with(&["check-config"], &[("HOLDALL_LOG__LEVEL", level)]);
        assert_eq!(found, Some(code), "{level:?}: {log}");
    }
}

#[test]
fn the_bounds_of_the_cache_fit_into_each_other() {
    for (setting, value, error) in [
        (
            "NAMESPACE_MAX_BYTES",
            "300MiB",
            "cache.namespace_max_bytes: must not be larger than cache.max_bytes",
        ),
        (
            "NAMESPACE_MAX_BYTES",
            "1MiB",
            "cache.max_value_bytes: must be at most 980352: cache.namespace_max_bytes holds",
        ),
        ("MAX_VALUE_BYTES", "128MiB", "a sixteenth of it is kept for new values"),
        ("MAX_NAMESPACES", "0", "cache.max_namespaces: must be at least 1"),
        ("MAX_BYTES", "0", "cache.max_bytes: not a size"),
        ("TTL", "0s", "cache.ttl: must be longer than zero"),
        ("FILL_TTL", "0s", "cache.fill_ttl: must be longer than zero"),
        ("FILL_TTL", "6m", "cache.fill_ttl: must not be longer than cache.max_fill_ttl"),
        ("MAX_FILL_TTL", "9s", "cache.fill_ttl: must not be longer than cache.max_fill_ttl"),
        ("MAX_FILL_TTL", "0s", "cache.max_fill_ttl: must be longer than zero"),
    ] {
        let (code, _, log) = check(&[(&format!("HOLDALL_CACHE__{setting}"), value)]);
        assert_eq!(code, Some(2), "{setting}={value}");
        assert!(log.contains(error), "{setting}={value}: {log}");
    }
    let (code, _, log) = check(&[
        ("HOLDALL_CACHE__MAX_VALUE_BYTES", "8MiB"),
        ("HOLDALL_LIMITS__BUFFERED_BODY_BYTES", "4MiB"),
    ]);
    assert_eq!(code, Some(2));
    let error = "cache.max_value_bytes: a compressed body, as sent and as decoded, and 8 MiB for its decoder";
    assert!(log.contains(error), "{log}");
    let (code, _, log) = check(&[("HOLDALL_LIMITS__BUFFERED_BODY_BYTES", "300MiB")]);
    assert_eq!(code, Some(2));
    let error = "limits.series_body_bytes: a compressed body, as sent and as decoded, and 8 MiB for its decoder";
    assert!(log.contains(error), "{log}");
    let small = [
        ("HOLDALL_CACHE__MAX_BYTES", "4KiB"),
        ("HOLDALL_CACHE__NAMESPACE_MAX_BYTES", "4KiB"),
        ("HOLDALL_CACHE__MAX_VALUE_BYTES", "1KiB"),
    ];
    assert_eq!(check(&small).0, Some(0));
}

#[test]
fn the_cleanup_of_generations_can_be_switched_off() {
    for (text, code) in [("0s", 0), ("-1s", 0), ("36h", 0), ("soon", 2), ("", 2), ("-", 2)] {
        for setting in ["HOLDALL_GENERATIONS__RETENTION", "HOLDALL_GENERATIONS__CLEANUP_INTERVAL"] {
            let (found, _, log) = check(&[(setting, text)]);
            assert_eq!(found, Some(code), "{setting}={text:?}: {log}");
        }
    }
}

#[test]
fn settings_of_redis_must_fit_together_and_keep_their_secrets() {
    let on_redis = [("HOLDALL_STORE__BACKEND", "redis")];
    let check = |more: &[(&str, &str)]| {
        let env: Vec<_> = on_redis.iter().chain(more).copied().collect();
        let output = holdall(&["check-config"], &env);
        let text = [&output.stdout[..], &output.stderr].concat();
        (output.status.success(), String::from_utf8(text).expect("UTF-8"))
    };
    let url = ("HOLDALL_STORE__REDIS__URL", "rediss://user:hunter2hunter2@redis.example:6380/1");
    let (valid, shown) = check(&[url, ("HOLDALL_STORE__REDIS__PASSWORD", "correct horse")]);
    assert!(valid && !shown.contains("hunter2") && !shown.contains("correct horse"), "{shown}");
    let (_folder, path) = file(
        "[store.redis]\ncluster = [\"redis://:hunter2@one:1\", \"redis://:hunter2@two:2\"]\n\
         password = 31337\n",
    );
    let (valid, shown) = check(&[("HOLDALL_CONFIG", &path)]);
    assert!(valid && !shown.contains("hunter2") && !shown.contains("31337"), "{shown}");
    for (setting, value, why) in [
        ("URL", "http://redis.example", "redis://"),
        ("CLUSTER", "redis://one:1,two:2", "redis://"),
        ("NAMESPACE", "", "empty"),
        ("NAMESPACE", "a{b}", "braces"),
        ("INDEX_SHARDS", "0", "at least 1"),
        ("INDEX_SHARDS", "2000", "at most"),
        ("INDEX_SHARDS", "200", "cache.max_value_bytes"),
        ("PASSWORD_FILE", "no/such/file", "can't be read"),
        ("TIMEOUT", "0s", "longer than zero"),
        ("SHARDS", "1", "not a setting"),
    ] {
        let (valid, shown) = check(&[(&format!("HOLDALL_STORE__REDIS__{setting}"), value)]);
        assert!(!valid && shown.contains(why), "{setting}={value}: {shown}");
    }
    let (valid, shown) = check(&[("HOLDALL_SERIES__MAX_SERIES", "15")]);
    assert!(!valid && shown.contains("at least store.redis.index_shards"), "{shown}");
    assert!(check(&[("HOLDALL_SERIES__MAX_SERIES", "16")]).0);
    let nested = "[store.redis]\ncluster = [[\"redis://:hunter2@one:1\"], [31337]]\n";
    let (_folder, path) = file(nested);
    let (valid, shown) = check(&[("HOLDALL_CONFIG", &path)]);
    assert!(!valid && !shown.contains("hunter2") && !shown.contains("31337"), "{shown}");
    let (valid, shown) = check(&[
        ("HOLDALL_STORE__REDIS__CLUSTER", "redis://one:1,redis://two:2"),
        ("HOLDALL_STORE__REDIS__DATABASE", "1"),
    ]);
    assert!(!valid && shown.contains("a cluster has no other"), "{shown}");
}
