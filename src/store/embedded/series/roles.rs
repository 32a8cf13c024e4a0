//! The roles that series have, each kept once, under a number that fits into a byte of a record.
//!
//! Not what a role may do: a writer brings the roles whose series it may change.
//! Invariant: a number means one role while the server runs. A start reads only the roles that series have, so the
//! numbers of others become free.

use crate::model::roles::RoleName;
use crate::store::{ErrorKind, SeriesWriter, StoreError, StoreResult};

/// No role: of a series, that nothing is known of who wrote it; of a writer, that it leaves the role of each.
pub(super) const NO_ROLE: u8 = 0;

const MOST_ROLES: usize = u8::MAX as usize;

/// All roles.
#[derive(Debug, Default)]
pub(super) struct RoleTable {
    /// By their numbers, from 1.
    names: Vec<Option<RoleName>>,
    /// Whether all of them are on disk.
    saved: bool,
}

impl RoleTable {
    /// Returns the number of a role, which is given one if it has none.
    ///
    /// # Errors
    /// [`ErrorKind::Full`] when all numbers are taken: so many roles at a time no configuration has.
    pub(super) fn number_of(&mut self, role: Option<&RoleName>) -> StoreResult<u8> {
        let Some(role) = role else { return Ok(NO_ROLE) };
        if let Some(at) = self.names.iter().position(|name| name.as_ref() == Some(role)) {
            return Ok(number_at(at));
        }
        let free = self.names.iter().position(Option::is_none).unwrap_or(self.names.len());
        if free >= MOST_ROLES {
            let detail = format!("series have {MOST_ROLES} different roles already");
            return Err(StoreError::new(ErrorKind::Full, detail));
        }
        self.put(free, role.clone());
        self.saved = false;
        Ok(number_at(free))
    }

    /// Takes a role that was read from disk, under the number that it has there.
    pub(super) fn load(&mut self, number: u8, role: RoleName) {
        if let Some(at) = usize::from(number).checked_sub(1) {
            self.put(at, role);
        }
    }

    fn put(&mut self, at: usize, role: RoleName) {
        if self.names.len() <= at {
            self.names.resize(at + 1, None);
        }
        self.names[at] = Some(role);
    }

    /// Returns the role of a number; `None` for [`NO_ROLE`].
    pub(super) fn get(&self, number: u8) -> Option<&RoleName> {
        self.names.get(usize::from(number).checked_sub(1)?)?.as_ref()
    }

    /// Returns the numbers of the roles whose series a writer may change. Each is given one, so roles that are met
    /// later are not among them.
    ///
    /// # Errors
    /// As [`Self::number_of`].
    pub(super) fn changeable_by(&mut self, writer: &SeriesWriter) -> StoreResult<Changeable> {
        let Some(roles) = &writer.may_change else { return Ok(Changeable::default()) };
        let mut by_number = [false; MOST_ROLES + 1];
        by_number[usize::from(NO_ROLE)] = true;
        for role in roles.iter() {
            by_number[usize::from(self.number_of(Some(role))?)] = true;
        }
        Ok(Changeable(Some(Box::new(by_number))))
    }

    /// Returns all roles when any may not be on disk, and notes that from now on they are.
    pub(super) fn drain(&mut self) -> Vec<(u8, RoleName)> {
        if std::mem::replace(&mut self.saved, true) {
            return Vec::new();
        }
        let numbered = self.names.iter().enumerate();
        numbered.filter_map(|(at, role)| Some((number_at(at), role.clone()?))).collect()
    }

    /// Notes that roles may not be on disk after all.
    pub(super) fn mark_unsaved(&mut self) {
        self.saved = false;
    }
}

fn number_at(position: usize) -> u8 {
    u8::try_from(position + 1).unwrap_or(u8::MAX)
}

/// The roles whose series a writer may change, by their numbers; `None` for all.
#[derive(Debug, Default)]
pub(super) struct Changeable(Option<Box<[bool; MOST_ROLES + 1]>>);

impl Changeable {
    /// Returns whether the series of this role are among them.
    pub(super) fn holds(&self, role: u8) -> bool {
        self.0.as_ref().is_none_or(|by_number| by_number[usize::from(role)])
    }

    /// Returns whether the series of all roles are.
    pub(super) fn holds_all(&self) -> bool {
        self.0.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> RoleName {
        RoleName::parse(name).expect("valid")
    }

    #[test]
    fn roles_keep_their_numbers_and_free_ones_are_used_again() {
        let mut table = RoleTable::default();
        table.load(3, role("c"));
        assert_eq!(table.number_of(Some(&role("c"))).ok(), Some(3));
        assert_eq!(table.number_of(Some(&role("a"))).ok(), Some(1));
        assert_eq!(table.number_of(None).ok(), Some(NO_ROLE));
        assert_eq!(
            (table.get(3), table.get(2), table.get(NO_ROLE)),
            (Some(&role("c")), None, None)
        );
        assert_eq!(table.drain(), [(1, role("a")), (3, role("c"))]);
        assert_eq!(table.drain(), []);
        table.mark_unsaved();
        assert_eq!(table.drain().len(), 2);
        for n in 0..MOST_ROLES - 2 {
            assert!(table.number_of(Some(&role(&format!("r{n}")))).is_ok(), "{n}");
        }
        assert!(table.number_of(Some(&role("one more"))).is_err());
        assert_eq!(table.number_of(Some(&role("a"))).ok(), Some(1));
    }

    #[test]
    fn a_writer_may_change_what_it_names_and_what_has_no_role() {
        let mut table = RoleTable::default();
        let [a, b] =
            ["a", "b"].map(|name| table.number_of(Some(&role(name))).expect("there is room"));
        let bound =
            SeriesWriter { may_change: Some([role("b")].into()), ..SeriesWriter::anybody() };
        let changeable = table.changeable_by(&bound).expect("there is room");
        assert_eq!([a, b, NO_ROLE].map(|role| changeable.holds(role)), [false, true, true]);
        assert!(!changeable.holds_all());
        let later = table.number_of(Some(&role("c"))).expect("there is room");
        assert!(!changeable.holds(later), "a role that is met later");
        let changeable = table.changeable_by(&SeriesWriter::anybody()).expect("there is room");
        assert!(changeable.holds_all() && changeable.holds(a) && changeable.holds(b));
    }
}
