//! Access to Redis: TLS with a private certificate authority, passwords, users, databases; and that no
//! secret is shown, right or wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::process::holdall;
use crate::harness::redis::Redis;
use crate::harness::{Launch, eventually};

const SECRET: &str = "s3cret=%&";
/// The same in a URL.
const ENCODED: &str = "s3cret%3D%25%26";

fn launch(settings: &[(&str, &str)]) -> Launch {
    let launch = Launch::new()
        .env("HOLDALL_STORE__BACKEND", "redis")
        .env("HOLDALL_STORE__REDIS__CONNECT_TIMEOUT", "500ms");
    settings.iter().fold(launch, |launch, (name, value)| launch.env(name, value))
}

/// The server works with these settings, and tells nobody the secret.
async fn works(settings: &[(&str, &str)]) {
    let server = launch(settings).start().await;
    assert_eq!(server.try_push("known", 1.0).await.expect("an answer").status, 200);
    let page = server.get("/metrics").await.text();
    assert!(!page.contains(SECRET) && !page.contains(ENCODED));
    keeps_secrets(&server.log(), settings);
}

/// The server listens, is not ready, and says in its log why.
async fn says(why: &str, settings: &[(&str, &str)]) {
    let server = launch(settings).listening().await;
    eventually("the log says why", async || server.log().contains(why).then_some(())).await;
    eventually("the server has started, and refuses", async || {
        let code = server.try_push("unknown", 1.0).await?.expect_problem(503);
        assert!(["starting", "store_unavailable"].contains(&&*code), "{code}");
        (code == "store_unavailable").then_some(())
    })
    .await;
    // Before that, on a busy machine, it says that it is starting.
    let ready = server.get("/readyz").await;
    assert_eq!(ready.expect_problem(503), "store_unavailable");
    assert!(!ready.text().contains(SECRET) && !ready.text().contains(why));
    keeps_secrets(&server.log(), settings);
}

fn keeps_secrets(log: &str, settings: &[(&str, &str)]) {
    let mut env = vec![("HOLDALL_STORE__BACKEND", "redis")];
    env.extend(settings);
    let shown = holdall(&["check-config"], &env);
    assert!(shown.status.success());
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for secret in [SECRET, ENCODED, "wr0ng"] {
        assert!(!log.contains(secret), "{log}");
        assert!(!shown.contains(secret), "{shown}");
    }
}

const URL: &str = "HOLDALL_STORE__REDIS__URL";
const PASSWORD: &str = "HOLDALL_STORE__REDIS__PASSWORD";
const CA_FILE: &str = "HOLDALL_STORE__REDIS__CA_FILE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_given_in_the_url_beside_it_or_in_a_file() {
    let redis = Redis::start(&[]);
    redis.cli(&["config", "set", "requirepass", SECRET]);
    let port = redis.port();
    let (bare, full) = (redis.url(), format!("redis://:{ENCODED}@127.0.0.1:{port}"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{SECRET}\n")).expect("the file is written");
    let file = file.to_str().expect("UTF-8");
    works(&[(URL, &full)]).await;
    works(&[(URL, &bare), (PASSWORD, SECRET)]).await;
    works(&[(URL, &bare), ("HOLDALL_STORE__REDIS__PASSWORD_FILE", file)]).await;
    says("WRONGPASS", &[(URL, &bare), (PASSWORD, "wr0ng")]).await;
    says("WRONGPASS", &[(URL, &full), (PASSWORD, "wr0ng")]).await;
    says("NOAUTH", &[(URL, &bare)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_few_rights_and_a_database_is_kept_apart() {
    let redis = Redis::start(&[]);
    let rights = ["+@read", "+@write", "+@scripting", "+@connection", "+info", "+time"];
    let password = format!(">{SECRET}");
    let user = ["acl", "setuser", "few", "on", &password, "~{holdall:*", "-@all"];
    assert_eq!(redis.cli(&[&user[..], &rights].concat()).trim(), "OK");
    let port = redis.port();
    works(&[(URL, &format!("redis://few:{ENCODED}@127.0.0.1:{port}"))]).await;
    let named = [("HOLDALL_STORE__REDIS__USERNAME", "few"), (PASSWORD, SECRET)];
    works(&[[(URL, redis.url().as_str())].as_slice(), &named].concat()).await;
    let elsewhere = [("HOLDALL_STORE__REDIS__NAMESPACE", "other")];
    says("NoPerm", &[[(URL, redis.url().as_str())].as_slice(), &named, &elsewhere].concat()).await;
    says("WRONGPASS", &[(URL, &format!("redis://none:{ENCODED}@127.0.0.1:{port}"))]).await;

    assert_eq!(redis.cli(&["-n", "3", "dbsize"]).trim(), "0");
    works(&[(URL, &redis.url()), ("HOLDALL_STORE__REDIS__DATABASE", "3")]).await;
    assert_ne!(redis.cli(&["-n", "3", "dbsize"]).trim(), "0");
    works(&[(URL, &format!("{}/4", redis.url()))]).await;
    assert_ne!(redis.cli(&["-n", "4", "dbsize"]).trim(), "0");
    says("out of range", &[(URL, &redis.url()), ("HOLDALL_STORE__REDIS__DATABASE", "99")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_trusts_the_authority_that_it_is_told_of_and_no_other() {
    let certificates = Certificates::make();
    let path = |name: &str| certificates.path(name).display().to_string();
    let redis = Redis::start(&[]);
    for (setting, file) in [
        ("tls-ca-cert-file", "ca.pem"),
        ("tls-cert-file", "server.pem"),
        ("tls-key-file", "server.key"),
    ] {
        redis.cli(&["config", "set", setting, &path(file)]);
    }
    redis.cli(&["config", "set", "tls-auth-clients", "no"]);
    let port = crate::harness::redis::free_port();
    assert_eq!(redis.cli(&["config", "set", "tls-port", &port.to_string()]).trim(), "OK");
    let (ours, other) = (path("ca.pem"), path("other.pem"));
    for host in ["localhost", "127.0.0.1"] {
        works(&[(URL, &format!("rediss://{host}:{port}")), (CA_FILE, &ours)]).await;
    }
    let url = format!("rediss://127.0.0.1:{port}");
    says("UnknownIssuer", &[(URL, &url)]).await;
    says("invalid peer certificate", &[(URL, &url), (CA_FILE, &other)]).await;
}

/// An authority, a server's certificate of it, and another authority of the same name.
struct Certificates(TempDir);

impl Certificates {
    fn make() -> Self {
        let this = Self(tempfile::tempdir().expect("a folder"));
        std::fs::write(this.path("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1")
            .expect("the file is written");
        for authority in ["ca", "other"] {
            let (key, certificate) = (format!("{authority}.key"), format!("{authority}.pem"));
            let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=authority"];
            this.openssl(
                &[&new[..], &["-days", "2", "-keyout", &key, "-out", &certificate]].concat(),
            );
        }
        this.openssl(&[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=redis",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
        ]);
        this.openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            "names",
            "-out",
            "server.pem",
        ]);
        this
    }

    fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl").args(args).current_dir(self.0.path()).output();
        let output = output.expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.0.path()).join(name)
    }
}

/// The rights that the client itself needs; all others are those of scripts.
const RIGHTS_OF_THE_CLIENT: [&str; 6] =
    ["+hello", "+ping", "+select", "+client", "+eval", "+evalsha"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_are_enough_and_each_is_needed() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(source.join("docs/redis.md")).expect("the documentation");
    let block = text.split("```").find(|block| block.trim().starts_with("ACL SETUSER"));
    let words: Vec<String> = block
        .expect("it names the rights")
        .split_whitespace()
        .map(|word| word.replace(">SECRET", &format!(">{SECRET}")))
        .collect();
    // Also those that are needed only where something was lost.
    let mut called = BTreeSet::new();
    for script in scripts(&source.join("src/store/redis")) {
        // Of `call('A'`, `pcall('A'`, `in_chunks('A'`, and a command that is chosen: `and 'A' or 'B'`.
        for word in script.split(['(', ' ', '\n']).filter_map(|word| word.strip_prefix('\'')) {
            // A text with spaces is no command.
            let Some((command, _)) = word.split_once('\'') else { continue };
            let upper = command.bytes().all(|b| b.is_ascii_uppercase());
            if upper && command.len() > 2 && !["LIMIT", "WITHSCORES", "REFUSED"].contains(&command)
            {
                called.insert(format!("+{}", command.to_lowercase()));
            }
        }
    }
    for right in &called {
        assert!(words.contains(right), "{right} is not in the documentation");
    }
    for word in words.iter().filter(|word| word.starts_with('+')) {
        let known = called.contains(word) || RIGHTS_OF_THE_CLIENT.contains(&word.as_str());
        assert!(known, "{word} is in the documentation, and no script needs it");
    }
    let redis = Redis::start(&[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(redis.cli(&words).trim(), "OK");
    let user = [("HOLDALL_STORE__REDIS__USERNAME", "holdall"), (PASSWORD, SECRET)];
    works(&[[(URL, redis.url().as_str())].as_slice(), &user].concat()).await;
}

/// Reads all scripts in a folder and those below it.
fn scripts(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the scripts") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            texts.extend(scripts(&path));
        } else if path.extension().is_some_and(|extension| extension == "lua") {
            texts.push(std::fs::read_to_string(path).expect("a script"));
        }
    }
    texts
}
