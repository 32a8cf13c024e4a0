//! Work in progress.

pub mod input;
