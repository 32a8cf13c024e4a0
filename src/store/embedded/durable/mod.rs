//! The durable data of the embedded backend: on disk before the response.
//!
//! All of it is in memory, in typed tables; every change goes through one writer thread
//! that commits groups of commands to a journal in `durable.db` before it responds. Resources
//! register their tables; nothing here knows any of them. Invariant: what a reader sees is on
//! disk, and stays.
//!
//! Not a database: there are no transactions over several calls, and no queries but by key.

mod any_rows;
mod changes;
mod claims;
mod compaction;
mod counters;
mod file;
mod journal;
mod last_commit;
mod load;
mod memory_rows;
mod paged;
mod queue;
mod reader;
mod shared;
mod store;
mod table;
mod tables;
mod transaction;
mod writer;

pub(super) use self::changes::Changes;
pub(super) use self::claims::ClaimTable;
#[cfg(test)]
pub(super) use self::file::DurableFile;
pub(super) use self::paged::{KeyRange, PageLimits, PagedTable, RowKey};
pub(super) use self::reader::TablesReader;
pub(super) use self::shared::{PublishGuard, PublishHook};
pub(super) use self::store::{DurableStore, Loaded};
pub(super) use self::table::{Counter, DurableTable};
pub(super) use self::tables::Tables;
pub(super) use self::transaction::Txn;
#[cfg(test)]
pub(super) use self::writer::MAX_GROUP_ROWS;
