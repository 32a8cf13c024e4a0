//! The Redis store, on one server and on a cluster. All cases share these, each under its own namespace.

use std::sync::atomic::{AtomicUsize, Ordering};

use holdall::clock::SharedClock;
use holdall::store::redis::{RedisSettings, open_with};
use holdall::store::{StoreSettings, Stores};

use super::Backend;
use crate::harness::redis;

const SHARDS: usize = 4;

struct Redis {
    urls: Vec<String>,
    namespace: String,
    shards: usize,
}

/// Returns a store on one server.
pub(crate) fn single() -> Box<dyn Backend> {
    new_namespace(&[redis::shared().to_owned()], SHARDS)
}

/// Returns a store on one server, whose limits are exact.
pub(crate) fn one_shard() -> Box<dyn Backend> {
    new_namespace(&[redis::shared().to_owned()], 1)
}

/// Returns a store on a cluster.
pub(crate) fn cluster() -> Box<dyn Backend> {
    new_namespace(redis::shared_cluster(), SHARDS)
}

fn new_namespace(urls: &[String], shards: usize) -> Box<dyn Backend> {
    static CASES: AtomicUsize = AtomicUsize::new(0);
    let namespace = format!("case{}", CASES.fetch_add(1, Ordering::Relaxed));
    Box::new(Redis { urls: urls.to_vec(), namespace, shards })
}

impl Backend for Redis {
    fn open(&self, store: &StoreSettings, clock: SharedClock) -> Stores {
        let settings = RedisSettings {
            index_shards: self.shards,
            ..RedisSettings::for_tests(&self.urls, &self.namespace)
        };
        open_with(&settings, store, Some(clock)).expect("the store opens")
    }

    fn wipe(&mut self) {
        for url in &self.urls {
            redis::wipe(url, &self.namespace);
        }
    }
}
