//! What a role may do: write and delete series and checkpoints, or take the leader lease. `docs/access.md` has the table.
//!
//! Not who has which role: the access token says that, or the request where tokens are not bound to roles.
//! Invariant: every decision about a role is made here. The store only compares the roles of series with those that
//! are named to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::{EngineError, EngineResult};
use crate::model::leases::{Fence, LeaseName};
use crate::model::roles::RoleName;
use crate::store::SeriesWriter;

/// The rules of roles.
pub(super) struct Roles {
    guards: BTreeMap<RoleName, Guard>,
    leader_role: String,
    leader_lease: Option<String>,
}

/// What one role may do.
struct Guard {
    sources: Vec<String>,
    /// The roles whose series it may change: its own, and those that may write nothing that it may not write.
    may_change: Arc<[RoleName]>,
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
        // Settings that were checked have valid names only.
        let named = guards.into_iter();
        let named =
            named.filter_map(|(role, sources)| Some((RoleName::parse(&role).ok()?, sources)));
        let sources: BTreeMap<RoleName, Vec<String>> = named.collect();
        let may_change = |own: &Vec<String>| {
            let covers = |other: &Vec<String>| other.iter().all(|source| own.contains(source));
            let others = sources.iter().filter(|(_, other)| covers(other));
            others.map(|(role, _)| role.clone()).collect()
        };
        let guard = |(role, own): (&RoleName, &Vec<String>)| {
            (role.clone(), Guard { sources: own.clone(), may_change: may_change(own) })
        };
        Self { guards: sources.iter().map(guard).collect(), leader_role, leader_lease }
    }

    /// Checks that `writer` may write series with the fence of its request, and returns it as the store knows it.
    ///
    /// # Errors
    /// [`EngineError::GuardRefused`] or [`EngineError::FenceRequired`].
    pub(super) fn check_write(
        &self,
        writer: &Writer<'_>,
        fence: Option<Fence>,
    ) -> EngineResult<SeriesWriter> {
        let Writer { role, source, bound_role } = *writer;
        if let Some(bound) = bound_role.filter(|bound| *bound != role) {
            return refuse(format!("this token writes as {bound:?} only"));
        }
        let Some((name, guard)) = self.guards.get_key_value(role) else {
            let known: Vec<&str> = self.guards.keys().map(RoleName::as_str).collect();
            return refuse(format!("the role is not known; there are {}", known.join(", ")));
        };
        let sources = &guard.sources;
        if !sources.iter().any(|allowed| allowed == source) {
            let known =
                self.guards.values().any(|guard| guard.sources.iter().any(|known| known == source));
            let why = if known { "may not be written by this role" } else { "is not known" };
            let allowed = sources.join(", ");
            return refuse(format!("the source {why}; {role:?} may write {allowed}"));
        }
        if role == self.leader_role {
            self.check_leader_fence(fence.as_ref())?;
        }
        let may_change = bound_role.map(|_| Arc::clone(&guard.may_change));
        Ok(SeriesWriter { role: Some(name.clone()), may_change, fence })
    }

    /// Checks that a caller whose access token is bound to `bound_role` may delete series with the fence of its
    /// request, and returns it as the store knows it. A token that is bound to no role is an operator's, and may delete
    /// the series of all roles.
    ///
    /// # Errors
    /// [`EngineError::FenceRequired`].
    pub(super) fn check_delete(
        &self,
        bound_role: Option<&str>,
        fence: Option<Fence>,
    ) -> EngineResult<SeriesWriter> {
        if bound_role == Some(&self.leader_role) {
            self.check_leader_fence(fence.as_ref())?;
        }
        // A role that is not in the table has written nothing.
        let of = |role| self.guards.get(role).map(|guard| Arc::clone(&guard.may_change));
        let may_change = bound_role.map(|role| of(role).unwrap_or_default());
        Ok(SeriesWriter { role: None, may_change, fence })
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

    /// Checks that a caller whose access token is bound to `bound_role` may write or delete a checkpoint with the fence of
    /// its request. Where there is a leader lease, no bound writer does that unfenced, or one that was paused could move
    /// a checkpoint of its successor.
    ///
    /// # Errors
    /// [`EngineError::FenceRequired`].
    pub(super) fn check_checkpoint(
        &self,
        bound_role: Option<&str>,
        fence: Option<&Fence>,
    ) -> EngineResult<()> {
        match bound_role {
            Some(role) if role == self.leader_role => self.check_leader_fence(fence),
            // It can't have the leader lease, so that of what it works on.
            Some(_) if self.leader_lease.is_some() && fence.is_none() => {
                Err(EngineError::FenceRequired { lease: None })
            }
            _ => Ok(()),
        }
    }

    fn check_leader_fence(&self, fence: Option<&Fence>) -> EngineResult<()> {
        let Some(lease) = &self.leader_lease else { return Ok(()) };
        match fence {
            Some(fence) if fence.lease.as_str() == lease => Ok(()),
            _ => Err(EngineError::FenceRequired { lease: Some(lease.clone()) }),
        }
    }
}

fn refuse<T>(why: String) -> EngineResult<T> {
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
            roles().check_write(&Writer { role, source, bound_role }, fence.cloned())
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
    fn a_refusal_tells_a_source_of_another_role_from_one_that_nobody_has() {
        let why = |source| {
            let writer = Writer { role: "follower", source, bound_role: None };
            roles().check_write(&writer, None).expect_err("it is refused").to_string()
        };
        let [foreign, unknown] = ["scrape", "x"].map(why);
        assert!(foreign.contains("the source may not be written by this role"), "{foreign}");
        assert!(unknown.contains("the source is not known"), "{unknown}");
    }

    #[test]
    fn the_leader_deletes_with_its_fence() {
        let check = |role, fence: Option<&Fence>| roles().check_delete(role, fence.cloned());
        assert!(check(None, None).is_ok());
        assert!(check(Some("leader"), Some(&fence("lead"))).is_ok());
        assert!(check(Some("follower"), None).is_ok());
        assert!(matches!(check(Some("leader"), None), Err(EngineError::FenceRequired { .. })));
    }

    #[test]
    fn a_bound_role_changes_its_series_and_those_of_roles_that_it_covers() {
        let guard = |role: &str, sources: &[&str]| {
            (role.to_owned(), sources.iter().map(|source| (*source).to_owned()).collect())
        };
        let guards = [guard("all", &["a", "b"]), guard("one", &["a"]), guard("two", &["b", "c"])];
        let roles = Roles::new(guards.into(), "none".to_owned(), None);
        let changed_by = |bound_role, role, source| {
            let push = roles.check_write(&Writer { role, source, bound_role }, None);
            let push = push.unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(push.role.as_ref().map(RoleName::as_str), Some(role));
            let deletion = roles.check_delete(bound_role, None).expect("needs no fence");
            assert_eq!(push.may_change, deletion.may_change);
            let names = |roles: Arc<[RoleName]>| roles.iter().map(RoleName::to_string).collect();
            push.may_change.map(names).map(|names: Vec<String>| names.join(" "))
        };
        assert_eq!(changed_by(None, "one", "a"), None);
        assert_eq!(changed_by(Some("all"), "all", "a").as_deref(), Some("all one"));
        assert_eq!(changed_by(Some("one"), "one", "a").as_deref(), Some("one"));
        assert_eq!(changed_by(Some("two"), "two", "c").as_deref(), Some("two"));
        let stranger = roles.check_delete(Some("stranger"), None).expect("needs no fence");
        assert_eq!(stranger.may_change.as_deref(), Some(&[][..]), "no series of any role");
    }

    #[test]
    fn bound_writers_of_checkpoints_are_fenced_where_there_is_a_leader_lease() {
        let required = |role, fence: Option<&str>| {
            let fence = fence.map(super::tests::fence);
            match roles().check_checkpoint(role, fence.as_ref()) {
                Err(EngineError::FenceRequired { lease }) => Some(lease),
                _ => None,
            }
        };
        assert_eq!(required(None, None), None);
        assert_eq!(required(Some("leader"), None), Some(Some("lead".to_owned())));
        assert_eq!(required(Some("leader"), Some("other")), Some(Some("lead".to_owned())));
        assert_eq!(required(Some("leader"), Some("lead")), None);
        assert_eq!(required(Some("follower"), None), Some(None));
        assert_eq!(required(Some("follower"), Some("other")), None);
        let without_lease = Roles { leader_lease: None, ..roles() };
        for role in ["leader", "follower"] {
            assert!(without_lease.check_checkpoint(Some(role), None).is_ok());
        }
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
