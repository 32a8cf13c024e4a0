//! A script: one atomic step on the keys of one shard.
//!
//! Every script begins with `prelude.lua`: the time, and the check that the shard was ever used.
//! Invariant: a script touches keys of one shard only, its `KEYS[1]` is the shard's `info`, and
//! its `ARGV[1]` is the time in microseconds where a test gives one, else empty.

use redis::Cmd;

/// What every script begins with.
const PRELUDE: &str = include_str!("lua/prelude.lua");

/// A script and its name in Redis.
#[derive(Debug)]
pub(super) struct Script {
    text: String,
    sha1: String,
}

impl Script {
    /// Makes a script from what stands behind the prelude.
    pub(super) fn new(body: &str) -> Self {
        Self::bare(&format!("{PRELUDE}\n{body}"))
    }

    /// Makes a script without the prelude.
    pub(super) fn bare(text: &str) -> Self {
        let sha1 = redis::Script::new(text).get_hash().to_owned();
        Self { text: text.to_owned(), sha1 }
    }

    /// Returns the command that runs it by its name, with room for keys and arguments.
    pub(super) fn by_name(&self, keys: &[String], now: &str) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha1);
        Self::complete(command, keys, now)
    }

    /// Returns the command that runs it by its text, after which Redis knows its name.
    pub(super) fn by_text(&self, keys: &[String], now: &str) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(&self.text);
        Self::complete(command, keys, now)
    }

    fn complete(mut command: Cmd, keys: &[String], now: &str) -> Cmd {
        command.arg(keys.len()).arg(keys).arg(now);
        command
    }
}
