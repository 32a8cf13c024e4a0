//! A slot of a cluster that moves from one node to another, step by step, as `redis-cli --cluster reshard` moves it.
//!
//! Invariant: at each step a node serves the slot.

use super::redis::{Cluster, cli};

/// The slot of a key, the node that has it, and another node.
pub(crate) struct Slot {
    pub(crate) key: String,
    number: String,
    pub(crate) from: u16,
    pub(crate) to: u16,
}

impl Slot {
    /// Returns the slot of a key; some key of the slot exists.
    pub(crate) fn of(cluster: &Cluster, key: String) -> Self {
        let masters = cluster.masters();
        let number = cli(masters[0], &["cluster", "keyslot", &key]).trim().to_owned();
        let has = |port: &&u16| {
            cli(**port, &["cluster", "countkeysinslot", &number]).trim().parse() != Ok(0)
        };
        let from = *masters.iter().find(has).expect("some node has it");
        let to = *masters.iter().find(|port| **port != from).expect("there are three");
        Self { key, number, from, to }
    }

    /// Returns the command `cluster setslot`.
    fn set(&self, port: u16, how: &[&str]) {
        let mut command = vec!["cluster", "setslot", &self.number];
        command.extend(how);
        assert_eq!(cli(port, &command).trim(), "OK", "{how:?}");
    }

    /// Lets the slot move: from now on one node has some of its keys, and the other one the rest.
    pub(crate) fn open(&self) {
        let id = |port| cli(port, &["cluster", "myid"]).trim().to_owned();
        self.set(self.to, &["importing", &id(self.from)]);
        self.set(self.from, &["migrating", &id(self.to)]);
    }

    /// Lets it stay where it is.
    pub(crate) fn close(&self) {
        self.set(self.to, &["stable"]);
        self.set(self.from, &["stable"]);
    }

    /// Returns its keys that are still on the node that has it.
    pub(crate) fn keys(&self) -> Vec<String> {
        let keys = cli(self.from, &["cluster", "getkeysinslot", &self.number, "100"]);
        keys.lines().filter(|key| !key.is_empty()).map(str::to_owned).collect()
    }

    /// Moves some of its keys.
    pub(crate) fn migrate(&self, keys: &[String]) {
        let to = self.to.to_string();
        let mut command = vec!["migrate", "127.0.0.1", &to, "", "0", "10000", "keys"];
        command.extend(keys.iter().map(String::as_str));
        // A writer may have deleted all of them since they were listed.
        let reply = cli(self.from, &command);
        assert!(["OK", "NOKEY"].contains(&reply.trim()), "{reply}");
    }

    /// Tells all masters that the slot has moved.
    pub(crate) fn assign(&self, cluster: &Cluster) {
        let id = cli(self.to, &["cluster", "myid"]).trim().to_owned();
        // The node that has it first, as redis-cli does, so that it is never without one.
        self.set(self.to, &["node", &id]);
        cluster.masters().into_iter().for_each(|port| self.set(port, &["node", &id]));
    }
}
