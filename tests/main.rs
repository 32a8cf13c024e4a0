//! All integration tests, in one test program: it links once.

mod harness;

mod access;
mod aggregates_crash;
mod background;
mod bad_input;
mod bad_start;
mod cache_model;
mod cli;
mod config;
mod conformance;
mod crash;
mod crowds;
mod fair_shares;
mod full_disk;
mod house_rules;
mod load;
mod loading;
mod logging;
mod missing_files;
mod pipelines;
mod power_cut;
mod redis_access;
mod redis_faults;
mod redis_histories;
mod redis_replicas;
mod redis_series;
mod redis_store;
mod roles;
mod series_on_disk;
mod series_readers;
mod set_clock;
mod shutdown;
mod signals;
mod sketches;
mod waiting;
