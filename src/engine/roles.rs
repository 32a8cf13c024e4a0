//! What a role may do: write, delete, or take the leader lease.
//!
//! Not who has which role: the access token says that, or the request where tokens are not bound to roles.
//! Invariant: every decision about a role is made here.

use std::collections::BTreeMap;

use super::error::{EngineError, EngineResult};
use crate::model::leases::{Fence, LeaseName};

/// The rules of roles.
pub(super) struct Roles {
    guards: BTreeMap<String, Vec<String>>,
    leader_role: String,
    leader_lease: Option<String>,
}

/// What a request says about its writer.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    /// The role that the request names.
    pub role: &'a str,
    /// The source that the request names.
    pub source: &'a str,
    /// The role that the request's access token is bound to.
    pub bound_role: Option<&'a str>,
}

impl Roles {
    /// `guards` are the sources that each role may write; writes of `leader_role` must be fenced by `leader_lease`,
    /// where there is one.
    pub(super) fn new(
        guards: BTreeMap<String, Vec<String>>,
        leader_role: String,
        leader_lease: Option<String>,
    ) -> Self {
        Self { guards, leader_role, leader_lease }
    }

    /// Checks that `writer` may write series, with the fence of its request.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`] or [`EngineError::FenceRequired`].
    pub(super) fn check_write(
        &self,
        writer: &Writer<'_>,
        fence: Option<&Fence>,
    ) -> EngineResult<()> {
        let Writer { role, source, bound_role } = *writer;
        if let Some(bound) = bound_role.filter(|bound| *bound != role) {
            return refuse(format!("this token writes as {bound:?} only"));
        }
        let Some(sources) = self.guards.get(role) else {
            let known: Vec<&str> = self.guards.keys().map(String::as_str).collect();
            return refuse(format!("the role is not known; there are {}", known.join(", ")));
        };
        if !sources.iter().any(|allowed| allowed == source) {
            let known = self.guards.values().flatten().any(|known| known == source);
            let why = if known { "may not be written by this role" } else { "is not known" };
            let allowed = sources.join(", ");
            return refuse(format!("the source {why}; {role:?} may write {allowed}"));
        }
        if role == self.leader_role { self.check_leader_fence(fence) } else { Ok(()) }
    }

    /// Checks that a caller whose access token is bound to `bound_role` may delete series, with the fence of its
    /// request. A token that is bound to no role is an operator's, and may.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`] or [`EngineError::FenceRequired`].
    pub(super) fn check_delete(
        &self,
        bound_role: Option<&str>,
        fence: Option<&Fence>,
    ) -> EngineResult<()> {
        let Some(role) = bound_role else { return Ok(()) };
        if role != self.leader_role {
            return refuse(format!("the role {role:?} may not delete series"));
        }
        self.check_leader_fence(fence)
    }

    /// Checks that a caller whose access token is bound to `bound_role` may acquire `lease`. Only the leader's role
    /// may have the leader lease, or a follower could fence the leader off.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`].
    pub(super) fn check_acquire(
        &self,
        bound_role: Option<&str>,
        lease: &LeaseName,
    ) -> EngineResult<()> {
        let is_leader_lease = self.leader_lease.as_deref() == Some(lease.as_str());
        match bound_role {
            Some(role) if is_leader_lease && role != self.leader_role => {
                refuse(format!("the role {role:?} may not acquire the leader lease"))
            }
            _ => Ok(()),
        }
    }

    fn check_leader_fence(&self, fence: Option<&Fence>) -> EngineResult<()> {
        let Some(lease) = &self.leader_lease else { return Ok(()) };
        match fence {
            Some(fence) if fence.lease.as_str() == lease => Ok(()),
            _ => Err(EngineError::FenceRequired { lease: lease.clone() }),
        }
    }
}

fn refuse(why: String) -> EngineResult<()> {
    Err(EngineError::GuardRefused(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::leases::FencingToken;

    fn roles() -> Roles {
        let guard = |role: &str, source: &str| (role.to_owned(), vec![source.to_owned()]);
        let guards = [guard("leader", "scrape"), guard("follower", "backfill")].into();
        Roles::new(guards, "leader".to_owned(), Some("lead".to_owned()))
    }

    fn lease(name: &str) -> LeaseName {
        LeaseName::parse(name).expect("valid")
    }

    fn fence(name: &str) -> Fence {
        Fence { lease: lease(name), token: FencingToken(1) }
    }

    #[test]
    fn a_role_writes_its_own_sources_and_the_leader_is_fenced() {
        let check = |role, source, bound_role, fence: Option<&Fence>| {
            roles().check_write(&Writer { role, source, bound_role }, fence)
        };
        assert!(check("follower", "backfill", None, None).is_ok());
        assert!(check("follower", "backfill", Some("follower"), None).is_ok());
        for (role, source, bound) in [
            ("follower", "scrape", None),
            ("follower", "x", None),
            ("x", "backfill", None),
            ("follower", "backfill", Some("leader")),
        ] {
            let refused = check(role, source, bound, None);
            assert!(matches!(refused, Err(EngineError::GuardRefused(_))), "{role} {source}");
        }
        assert!(check("leader", "scrape", None, Some(&fence("lead"))).is_ok());
        for other in [None, Some(&fence("other"))] {
            let refused = check("leader", "scrape", None, other);
            assert!(matches!(refused, Err(EngineError::FenceRequired { .. })));
        }
    }

    #[test]
    fn only_operators_and_the_fenced_leader_delete() {
        let check = |role, fence: Option<&Fence>| roles().check_delete(role, fence);
        assert!(check(None, None).is_ok());
        assert!(check(Some("leader"), Some(&fence("lead"))).is_ok());
        assert!(matches!(check(Some("leader"), None), Err(EngineError::FenceRequired { .. })));
        assert!(matches!(check(Some("follower"), None), Err(EngineError::GuardRefused(_))));
    }

    #[test]
    fn the_leader_lease_is_for_the_leaders_role() {
        let check = |role, name| roles().check_acquire(role, &lease(name));
        assert!(check(None, "lead").is_ok());
        assert!(check(Some("leader"), "lead").is_ok());
        assert!(check(Some("follower"), "other").is_ok());
        assert!(matches!(check(Some("follower"), "lead"), Err(EngineError::GuardRefused(_))));
    }
}
