//! Tables whose rows need not all fit into memory.
//!
//! The rows are in the file. In memory are those that the file does not have yet, and a cache of
//! bounded size. Commands and readers see what they would see of a table in memory; but a read can
//! fail, and then it is an error, never absence.
//!
//! * `key.rs`: keys as text that sorts as they do.
//! * `table.rs`: how a resource defines such a table.
//! * `held.rs`: what is in memory.
//! * `readers.rs`, `sql.rs`: what is in the file.
//! * `pending.rs`: what a group of commands reads and changes.
//! * `rows.rs`: both together, as the writer uses them.
//! * `commands.rs`: reads and writes of commands. `calls.rs`: reads of everybody else; `ranges.rs`: of neighbours.
//!
//! Invariant: at every moment the changes that are held, over the rows in the file, are the
//! committed state.

mod calls;
mod commands;
mod held;
mod key;
mod pending;
mod ranges;
mod readers;
mod rows;
mod sql;
mod table;
#[cfg(test)]
mod tests;

pub(in crate::store::embedded) use self::calls::PageLimits;
pub(super) use self::readers::Readers;
pub(super) use self::sql::{ROW_COUNTS, write_rows};
pub(in crate::store::embedded) use self::table::{KeyRange, PagedTable, RowKey};
