//! The limit on open files, each connection being one.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that a server has open beside its connections.
const OTHER_FILES: u64 = 64;

/// Raises the soft limit to the hard one: the soft one is low only for the sake of programs
/// that use `select`. Warns when `connections` still don't fit.
pub(super) fn raise(connections: usize) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(cause = %error, "the limit on open files can't be raised");
            limit = getrlimit(Resource::Nofile);
        }
    }
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    if let Some(allowed) = limit.current.filter(|allowed| *allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than limits.connections needs; connections will wait"
        );
    }
}
