//! The parts of a file's schema, each with a version of its own.
//!
//! The table `schema_versions` names every part that the file has, with the number of migrations
//! that were applied to it. So a resource brings its migrations with it, and no list of all of
//! them is needed. Invariant: the migrations of all parts and their new versions are one transaction.

use std::collections::HashMap;

use rusqlite::{Connection, params};

/// The version of the table `schema_versions` itself, in SQLite's `user_version`.
const FORMAT: i64 = 1;

/// The tables of one resource in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::embedded) struct SchemaPart {
    /// Names the part in the file; never given to another one.
    pub(in crate::store::embedded) name: &'static str,
    /// `migrations[n]` leads from version n to n + 1. Only ever appended to.
    pub(in crate::store::embedded) migrations: &'static [&'static str],
}

/// Brings every part to its newest version, where that is due, in a transaction that is left open: nothing of
/// it is in the file before [`commit`].
pub(super) fn migrate(conn: &Connection, parts: &[SchemaPart]) -> rusqlite::Result<()> {
    let is_new = format(conn)? == 0;
    let versions = if is_new { HashMap::new() } else { versions(conn)? };
    let version = |part: &SchemaPart| {
        versions.get(part.name).map_or(0, |at| usize::try_from(*at).unwrap_or(0))
    };
    if !is_new && parts.iter().all(|part| version(part) >= part.migrations.len()) {
        return Ok(());
    }
    // SQLite would write pages that find no room in its cache into the log before the end.
    conn.pragma_update(None, "cache_spill", false)?;
    conn.execute_batch("BEGIN IMMEDIATE")?;
    if is_new {
        conn.execute_batch(
            "CREATE TABLE schema_versions (name TEXT PRIMARY KEY, version INTEGER NOT NULL)
                STRICT, WITHOUT ROWID",
        )?;
        conn.pragma_update(None, "user_version", FORMAT)?;
    }
    for part in parts {
        let due = part.migrations.get(version(part)..).unwrap_or_default();
        due.iter().try_for_each(|sql| conn.execute_batch(sql))?;
        if !due.is_empty() {
            let newest = i64::try_from(part.migrations.len()).unwrap_or(i64::MAX);
            let replace = "REPLACE INTO schema_versions VALUES (?1, ?2)";
            conn.execute(replace, params![part.name, newest])?;
        }
    }
    Ok(())
}

/// Ends the transaction of [`migrate`], if it began one.
pub(super) fn commit(conn: &Connection) -> rusqlite::Result<()> {
    if conn.is_autocommit() {
        return Ok(());
    }
    conn.execute_batch("COMMIT")?;
    conn.pragma_update(None, "cache_spill", true)
}

/// Returns what in the file's schema is newer than `parts`; `None` when this version knows all.
pub(super) fn newer(conn: &Connection, parts: &[SchemaPart]) -> rusqlite::Result<Option<String>> {
    match format(conn)? {
        // The file was made, and then the server was killed before it wrote any table.
        0 => return Ok(None),
        FORMAT => {}
        found => return Ok(Some(format!("its format is {found}, this version knows {FORMAT}"))),
    }
    for (name, found) in versions(conn)? {
        let Some(part) = parts.iter().find(|part| part.name == name) else {
            return Ok(Some(format!("this version does not know its table {name}")));
        };
        let known = part.migrations.len();
        if usize::try_from(found).is_ok_and(|found| found > known) {
            return Ok(Some(format!(
                "its table {name} has version {found}, this version knows {known}"
            )));
        }
    }
    Ok(None)
}

fn format(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn versions(conn: &Connection) -> rusqlite::Result<HashMap<String, i64>> {
    conn.prepare("SELECT name, version FROM schema_versions")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
