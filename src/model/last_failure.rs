//! Tells a failure that is new from one that goes on, so that each is logged once.
//!
//! Not a log. Invariant: a cause is reported again only after a success, or after another cause.

/// The last failure of something that is tried again and again.
#[derive(Debug, Default)]
pub struct LastFailure(Option<String>);

/// What differs from the attempt before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureEvent {
    /// It failed, and not for the cause for which the last attempt failed.
    Began,
    /// It succeeded, and the last attempt had failed.
    Ended,
}

impl LastFailure {
    /// Records an attempt, with the cause where it failed; `None` when it went as the one before.
    pub fn record(&mut self, attempt: Result<(), &str>) -> Option<FailureEvent> {
        match attempt {
            Ok(()) => self.0.take().map(|_| FailureEvent::Ended),
            Err(cause) if self.0.as_deref() == Some(cause) => None,
            Err(cause) => {
                self.0 = Some(cause.to_owned());
                Some(FailureEvent::Began)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_new_once_while_it_lasts() {
        let mut last = LastFailure::default();
        let attempts = [Ok(()), Err("full"), Err("full"), Err("gone"), Ok(()), Ok(()), Err("gone")];
        let began = Some(FailureEvent::Began);
        let expected = [None, began, None, began, Some(FailureEvent::Ended), None, began];
        assert_eq!(attempts.map(|attempt| last.record(attempt)), expected);
    }
}
