//! Tests against the real binary, in one test program: it links once.

mod harness;

mod config;
mod house_rules;
