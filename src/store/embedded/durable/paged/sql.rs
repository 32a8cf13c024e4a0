//! The rows of a paged table in the file: reading them, checked, and writing them.
//!
//! Not what is held in memory. Invariant: `row_counts` says how many rows each SQL table has, in the
//! transaction that changes them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::key::KeyText;
use super::table::PagedTable;
use crate::model::time::SteadyTime;
use crate::store::StoreResult;
use crate::store::embedded::durable::table::{TableForm, checksum};
use crate::store::embedded::sqlite::{SchemaPart, corrupt, failed_to};

/// The numbers of rows, so that a start need not count them. Only where there are paged tables.
pub(in crate::store::embedded::durable) const ROW_COUNTS: SchemaPart = SchemaPart {
    name: "row_counts",
    migrations: &["CREATE TABLE row_counts (key TEXT PRIMARY KEY, value TEXT NOT NULL, \
         crc INTEGER NOT NULL) STRICT, WITHOUT ROWID"],
};

/// Writes rows, in the caller's transaction. A key and a row are JSON; without a row, it is removed.
pub(in crate::store::embedded::durable) fn write_rows<'a>(
    conn: &Connection,
    form: &TableForm,
    rows: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> rusqlite::Result<()> {
    let TableForm { tag, name, end_of } = *form;
    let end_of = end_of.expect("only paged tables are written here");
    let mut exists = conn.prepare_cached(&format!("SELECT 1 FROM {name} WHERE key = ?1"))?;
    let mut put = conn.prepare_cached(&format!(
        "INSERT INTO {name} (key, value, crc, expires_at) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (key) DO UPDATE SET \
         value = excluded.value, crc = excluded.crc, expires_at = excluded.expires_at"
    ))?;
    let mut delete = conn.prepare_cached(&format!("DELETE FROM {name} WHERE key = ?1"))?;
    let mut more = 0;
    for (key, row) in rows {
        match row {
            Some(row) => {
                more += i64::from(!exists.exists([key])?);
                let end = end_of(row).map_err(unreadable)?;
                put.execute(params![key, row, checksum(tag, key, row), end])?;
            }
            None => more -= i64::try_from(delete.execute([key])?).unwrap_or(0),
        }
    }
    if more == 0 {
        return Ok(());
    }
    let count = (count(conn, tag, name)? + more).to_string();
    conn.prepare_cached("REPLACE INTO row_counts (key, value, crc) VALUES (?1, ?2, ?3)")?
        .execute(params![name, count, checksum(tag, name, &count)])?;
    Ok(())
}

/// Returns how many rows the SQL table has.
pub(super) fn read_count<T: PagedTable>(conn: &Connection) -> StoreResult<i64> {
    count(conn, T::TAG, T::NAME).map_err(failed_to("read the number of rows"))
}

fn count(conn: &Connection, tag: u8, name: &'static str) -> rusqlite::Result<i64> {
    let mut select = conn.prepare_cached("SELECT value, crc FROM row_counts WHERE key = ?1")?;
    let found: Option<(String, i64)> =
        select.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((value, crc)) = found else { return Ok(0) };
    match value.parse() {
        Ok(count) if crc == checksum(tag, name, &value) => Ok(count),
        _ => Err(unreadable(format!("the number of rows of {name} does not have its checksum"))),
    }
}

fn unreadable(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, why.into())
}

/// Reads a row, live or not.
pub(super) fn read_row<T: PagedTable>(conn: &Connection, key: &str) -> StoreResult<Option<T::Row>> {
    let failed = || failed_to("read a row");
    let mut select = conn
        .prepare_cached(&format!("SELECT {COLUMNS} FROM {} WHERE key = ?1", T::NAME))
        .map_err(failed())?;
    let mut rows = select.query([key]).map_err(failed())?;
    match rows.next().map_err(failed())? {
        Some(row) => Ok(Some(decode::<T>(row)?.1)),
        None => Ok(None),
    }
}

/// Reads rows in the order of their keys, from the first key that is not below `from`, until `each`
/// returns `false`.
pub(super) fn scan<T: PagedTable>(
    conn: &Connection,
    from: &str,
    each: impl FnMut(KeyText, T::Row) -> bool,
) -> StoreResult<()> {
    let sql = format!("SELECT {COLUMNS} FROM {} WHERE key >= ?1 ORDER BY key", T::NAME);
    scan_with::<T>(conn, &sql, params![from], each)
}

/// Reads the rows from the key `first` to `last`, in the order of their keys, until `each` returns `false`.
pub(super) fn scan_within<T: PagedTable>(
    conn: &Connection,
    first: &str,
    last: &str,
    each: impl FnMut(KeyText, T::Row) -> bool,
) -> StoreResult<()> {
    let sql =
        format!("SELECT {COLUMNS} FROM {} WHERE key >= ?1 AND key <= ?2 ORDER BY key", T::NAME);
    scan_with::<T>(conn, &sql, params![first, last], each)
}

/// Reads the first `limit` keys from `first` to `last`, of rows that are live or not.
pub(super) fn keys_within<T: PagedTable>(
    conn: &Connection,
    first: &str,
    last: &str,
    limit: usize,
) -> StoreResult<Vec<KeyText>> {
    let sql =
        format!("SELECT key FROM {} WHERE key >= ?1 AND key <= ?2 ORDER BY key LIMIT ?3", T::NAME);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    conn.prepare_cached(&sql)
        .and_then(|mut select| {
            let keys =
                select.query_map(params![first, last, limit], |row| row.get::<_, KeyText>(0));
            keys.and_then(Iterator::collect)
        })
        .map_err(failed_to("read keys"))
}

/// Reads the rows that have expired at `now`, in the order of their ends and keys, from the end and
/// key `from` on, until `each` returns `false`.
pub(super) fn scan_expired<T: PagedTable>(
    conn: &Connection,
    from: (i64, &str),
    now: SteadyTime,
    each: impl FnMut(KeyText, T::Row) -> bool,
) -> StoreResult<()> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {} WHERE expires_at <= ?1 AND (expires_at, key) >= (?2, ?3) \
         ORDER BY expires_at, key",
        T::NAME
    );
    scan_with::<T>(conn, &sql, params![now.as_nanos(), from.0, from.1], each)
}

fn scan_with<T: PagedTable>(
    conn: &Connection,
    sql: &str,
    params: &[&dyn rusqlite::ToSql],
    mut each: impl FnMut(KeyText, T::Row) -> bool,
) -> StoreResult<()> {
    let failed = || failed_to("read rows");
    let mut select = conn.prepare_cached(sql).map_err(failed())?;
    let mut rows = select.query(params).map_err(failed())?;
    while let Some(row) = rows.next().map_err(failed())? {
        let (key, row) = decode::<T>(row)?;
        if !each(key, row) {
            break;
        }
    }
    Ok(())
}

const COLUMNS: &str = "key, value, crc, expires_at";

/// Reads one row of a result, and holds it to its checksum and to its end.
fn decode<T: PagedTable>(row: &Row<'_>) -> StoreResult<(KeyText, T::Row)> {
    let failed = || failed_to("read a row");
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let (key, value) = (text(0).map_err(failed())?, text(1).map_err(failed())?);
    if checksum(T::TAG, key, value) != row.get::<_, i64>(2).map_err(failed())? {
        return Err(corrupt(format!("a row of {} does not have its checksum", T::NAME)));
    }
    let decoded: T::Row = serde_json::from_str(value)
        .map_err(|error| corrupt(format!("a row of {} does not read: {error}", T::NAME)))?;
    let end = T::expires_at(&decoded).map(SteadyTime::as_nanos);
    if end != row.get(3).map_err(failed())? {
        return Err(corrupt(format!("a row of {} has another end beside it", T::NAME)));
    }
    Ok((key.into(), decoded))
}
