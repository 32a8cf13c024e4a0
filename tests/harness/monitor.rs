//! What scripts do in a Redis, as its `MONITOR` shows it: a measure of their work that holds on a busy machine too.
//!
//! Only scripts of other clients count, not what `redis-cli` sends. Invariant: what is counted happened between two marks.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use super::redis::Redis;

/// One run of a script.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// The commands that it ran.
    pub(crate) commands: Vec<String>,
    /// How many words all of them had, their names included.
    pub(crate) words: usize,
}

/// The monitor of one Redis.
pub(crate) struct Monitor<'a> {
    redis: &'a Redis,
    child: Child,
    lines: std::io::Split<BufReader<ChildStdout>>,
    marks: usize,
}

impl<'a> Monitor<'a> {
    /// Starts to listen.
    pub(crate) fn of(redis: &'a Redis) -> Self {
        let mut child = redis
            .cli_command(&["monitor"])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .expect("redis-cli is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).split(b'\n');
        let first = lines.next().expect("it replies").expect("it can be read");
        assert_eq!(first, b"OK");
        Self { redis, child, lines, marks: 0 }
    }

    /// Returns the scripts that have run since the last call, in their order.
    pub(crate) fn ran(&mut self) -> Vec<Ran> {
        self.marks += 1;
        let mark = format!("\"mark {}\"", self.marks);
        self.redis.cli(&["echo", mark.trim_matches('"')]);
        let mut ran: Vec<Ran> = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.expect("it can be read");
            let line = String::from_utf8_lossy(&line);
            if line.ends_with(&mark) {
                return ran;
            }
            let Some((source, words)) = line.split_once("] \"") else { continue };
            let mut words = words.split("\" \"");
            let name = words.next().unwrap_or_default().trim_end_matches('"').to_uppercase();
            if !source.ends_with("lua") {
                if name.starts_with("EVAL") {
                    ran.push(Ran::default());
                }
                continue;
            }
            let run = ran.last_mut().expect("a script runs");
            run.commands.push(name);
            run.words += 1 + words.count();
        }
        panic!("the monitor ended");
    }
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it ends");
    }
}
