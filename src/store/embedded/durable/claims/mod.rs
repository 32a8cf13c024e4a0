//! Claims: ids that are taken for a period, each with the hash of what it was taken for. Many millions of them.
//!
//! All of them are in memory, packed. On disk many share a row. Nothing is read from the file but at the start, and to
//! find out which rows have expired.
//!
//! * `table.rs`: how a resource defines such a table.
//! * `end.rs`: when claims end: many at the same moment.
//! * `packed.rs`: the claims in memory.
//! * `chunk.rs`: the rows on disk, each with many claims.
//! * `pending.rs`: what a group of commands claims.
//! * `rows.rs`: all of it together, as the writer uses it.
//! * `commands.rs`: claims as commands use them.
//!
//! Invariant: a claim is on disk in the journal entry of the command that made it; and it is found until its end.

mod chunk;
mod commands;
mod end;
mod packed;
mod pending;
mod rows;
mod table;

pub(in crate::store::embedded) use self::table::ClaimTable;
