//! The tables of the durable data, together: as committed, as a group changes them, as a
//! command sees them.
//!
//! A further resource is one more line in `tables!` (and its SQL table in `disk`). Invariant:
//! a tag or a name that stood here once is never given to something else.

use super::journal::{Effect, Entry};
use super::table::{Pending, Resource, Table, View};
use crate::model::time::Timestamp;
use crate::store::embedded::checkpoints::Checkpoints;
use crate::store::embedded::durable::counters::Counters;
use crate::store::embedded::generations::Generations;
use crate::store::embedded::leases::Leases;
use crate::store::embedded::locks::Locks;

macro_rules! tables {
    ($($field:ident: $resource:ty),+ $(,)?) => {
        /// The committed rows of every table.
        #[derive(Debug)]
        pub(in crate::store::embedded) struct Tables {
            $(pub(in crate::store::embedded) $field: Table<$resource>,)+
        }

        /// What a group changes in every table.
        #[derive(Debug, Default)]
        pub(super) struct Changes {
            $(pub(super) $field: Pending<$resource>,)+
        }

        /// What a command works on.
        pub(in crate::store::embedded) struct Txn<'a> {
            /// The time of the group.
            pub(in crate::store::embedded) now: Timestamp,
            $(pub(in crate::store::embedded) $field: View<'a, $resource>,)+
        }

        impl<'a> Txn<'a> {
            pub(super) fn new(tables: &'a Tables, changes: &'a mut Changes, now: Timestamp) -> Self {
                Self {
                    now,
                    $($field: View {
                        table: &tables.$field,
                        pending: &mut changes.$field,
                        now,
                        changed: false,
                    },)+
                }
            }

            /// Returns whether the command changed anything.
            pub(super) fn changed(&self) -> bool {
                false $(|| self.$field.changed)+
            }

            /// Removes at most `limit` rows of each table that are over; gives how many.
            pub(super) fn delete_expired(&mut self, limit: usize) -> usize {
                0 $(+ self.$field.delete_expired(limit))+
            }
        }

        impl Changes {
            /// Counts the rows that are changed.
            pub(super) fn len(&self) -> usize {
                0 $(+ self.$field.rows.len())+
            }

            /// Writes the changes down for the journal.
            pub(super) fn encode(&self, entry: &mut Entry) -> serde_json::Result<()> {
                $(for (key, row) in &self.$field.rows {
                    entry.push(<$resource>::TAG, key, row.as_ref())?;
                })+
                Ok(())
            }
        }

        impl Tables {
            /// Makes the changes of a group visible.
            pub(super) fn promote(&mut self, changes: Changes) {
                $(for (key, row) in changes.$field.rows {
                    self.$field.apply(key, row);
                })+
            }

            /// Applies a change that was read from the disk.
            pub(super) fn replay(&mut self, effect: &Effect<'_>) -> Result<(), String> {
                match effect.tag {
                    $(<$resource>::TAG => {
                        let (key, row) = effect.decode().map_err(|error| error.to_string())?;
                        self.$field.apply(key, row);
                    })+
                    tag => return Err(format!("a change of the unknown table {tag}")),
                }
                Ok(())
            }
        }

        /// The tag and the SQL table of every table.
        pub(super) const TABLES: &[(u8, &str)] = &[$((<$resource>::TAG, <$resource>::NAME),)+];
    };
}

tables! {
    counters: Counters,
    locks: Locks,
    leases: Leases,
    checkpoints: Checkpoints,
    generations: Generations,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_do_not_share_tags_or_names() {
        for (n, (tag, name)) in TABLES.iter().enumerate() {
            assert!(TABLES[n + 1..].iter().all(|(t, other)| t != tag && other != name));
        }
    }
}
