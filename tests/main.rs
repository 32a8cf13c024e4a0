//! All integration tests, in one test program: it links once.

mod conformance;
mod series_on_disk;
