//! A script: one atomic step on the keys of one shard.
//!
//! Each resource declares its scripts with [`scripts!`]: a name, the keys behind `info`, the files that
//! it is made of. Each script begins with `prelude.lua`: the deadline, the time, and the check that the shard is
//! initialized. Invariant: a script touches keys of one shard only, its `KEYS[1]` is the shard's `info`,
//! and its `ARGV[1]` is what the prelude reads: the caller's deadline, a test's time, what was seen of the shard.

use redis::Cmd;

/// What each script begins with.
const PRELUDE: &str = include_str!("lua/prelude.lua");

/// A script, and the SHA-1 that Redis knows it by.
#[derive(Debug)]
pub(crate) struct Script {
    /// For the log.
    pub(crate) name: &'static str,
    /// The keys behind `info`, without the prefix of the shard.
    pub(crate) keys: Vec<&'static str>,
    text: String,
    sha1: String,
}

impl Script {
    /// Makes a script of the prelude and `parts`.
    pub(crate) fn new(name: &'static str, keys: &[&'static str], parts: &[&str]) -> Self {
        let text = [&[PRELUDE], parts].concat().join("\n");
        Self::without_prelude(name, keys, text)
    }

    /// Makes a script that runs also where the shard is not initialized.
    pub(crate) fn without_prelude(name: &'static str, keys: &[&'static str], text: String) -> Self {
        let sha1 = redis::Script::new(&text).get_hash().to_owned();
        Self { name, keys: keys.to_vec(), text, sha1 }
    }

    /// Returns the command that runs the script by its SHA-1; the caller appends arguments.
    pub(crate) fn by_sha1(&self, keys: &[String], head: &str) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.sha1);
        Self::complete(command, keys, head)
    }

    /// Returns the command that runs the script by its text, after which Redis knows its SHA-1.
    pub(crate) fn by_text(&self, keys: &[String], head: &str) -> Cmd {
        let mut command = redis::cmd("EVAL");
        command.arg(&self.text);
        Self::complete(command, keys, head)
    }

    fn complete(mut command: Cmd, keys: &[String], head: &str) -> Cmd {
        command.arg(keys.len()).arg(keys).arg(head);
        command
    }
}

/// Declares the scripts of a module, one line each: `NAME(keys) = files`. Files are relative to the
/// module's own file. `ALL` lists them for the test that checks every script.
macro_rules! scripts {
    ($($name:ident($keys:expr) = $($file:literal),+;)+) => {
        $(
            pub(super) static $name: std::sync::LazyLock<$crate::store::redis::core::script::Script> =
                std::sync::LazyLock::new(|| {
                    $crate::store::redis::core::script::Script::new(
                        concat!(module_path!(), "::", stringify!($name)),
                        $keys,
                        &[$(include_str!($file)),+],
                    )
                });
        )+

        /// All scripts of this module.
        #[cfg(test)]
        pub(in crate::store::redis) static ALL: &[&std::sync::LazyLock<
            $crate::store::redis::core::script::Script,
        >] = &[$(&$name),+];
    };
}
pub(crate) use scripts;

#[cfg(test)]
impl Script {
    /// Returns what Redis runs.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the largest index of `KEYS` that the script names, and whether it takes the last one.
    pub(crate) fn keys_in_text(&self) -> (usize, bool) {
        let indexes = self.text.split("KEYS[").skip(1).filter_map(|rest| rest.split(']').next());
        let (mut largest, mut last) = (1, false);
        for index in indexes {
            match index.parse() {
                Ok(index) => largest = largest.max(index),
                Err(_) => last = true,
            }
        }
        (largest, last)
    }
}
