//! The check of settings that are valid alone and must also fit together.
//!
//! Invariant: a check stops at no violation, so that all of them are reported at once.

use std::borrow::Cow;

/// Settings that a layer or a resource declares.
pub trait Settings {
    /// Reports every rule that the settings violate; reads the files that settings name, such as those
    /// of secrets.
    fn check(&mut self, violations: &mut Violations);
}

/// A rule that some settings violate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The full names of the settings that the rule is about. The first is the one to report.
    pub settings: Vec<Cow<'static, str>>,
    /// What is wrong, as the end of a sentence whose subject is the setting.
    pub what: String,
}

/// The rules that are violated.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Reports a violation of a rule about `settings`, unless the rule holds.
    pub fn require(
        &mut self,
        holds: bool,
        settings: &'static [&'static str],
        what: impl FnOnce() -> String,
    ) {
        if !holds {
            let settings = settings.iter().copied().map(Cow::Borrowed).collect();
            self.0.push(Violation { settings, what: what() });
        }
    }

    /// Reports a violation of a rule about a setting whose name the user chose.
    pub fn report(&mut self, setting: String, what: impl Into<String>) {
        self.0.push(Violation { settings: vec![Cow::Owned(setting)], what: what.into() });
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
