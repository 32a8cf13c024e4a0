//! How a resource defines a table of claims.
//!
//! Invariant: as for all durable tables, a name or a tag that was used once is never given to another one.

use crate::store::Limited;

/// Defines a table of claims.
pub(in crate::store::embedded) trait ClaimTable:
    Send + Sync + 'static
{
    /// The name of the SQL table, and of the resource in reports.
    const NAME: &'static str;
    /// Names the table in journal entries.
    const TAG: u8;
    /// Makes the SQL table, whose columns are those of a paged table.
    const MIGRATIONS: &'static [&'static str];
    /// How a command fails that would make more live claims than there may be.
    const LIMITED: Limited;
}

/// The id of a claim: bits that nothing is known of.
pub(super) type Id = [u8; 16];
