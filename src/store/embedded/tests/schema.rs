//! Schemas of later versions: refused, and left as they are.

use std::fs;

use super::{Fixture, open, sql};
use crate::store::embedded::sqlite::OpenError;

#[tokio::test]
async fn a_newer_or_unknown_table_stops_the_start_and_leaves_the_file_unchanged() {
    for newer in [
        "UPDATE schema_versions SET version = 2 WHERE name = 'locks'",
        "UPDATE schema_versions SET version = 2 WHERE name = 'journal'",
        "INSERT INTO schema_versions VALUES ('records', 1)",
    ] {
        let fixture = Fixture::new();
        fixture.lock("a").await.expect("responds");
        fixture.store.close().await.expect("closes");
        let path = fixture.folder.path().join("durable.db");
        sql(fixture.folder.path(), newer);
        let before = fs::read(&path).expect("reads");
        let error = open(fixture.folder.path(), &fixture.clock).err().expect("must be refused");
        assert!(matches!(error, OpenError::Newer { .. }), "{newer}: {error}");
        assert!(before == fs::read(&path).expect("reads"), "{newer}");
    }
}
