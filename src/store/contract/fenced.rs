//! How a fenced write ends. The fence itself is `model::leases::Fence`.

/// How a fenced write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fenced<T> {
    /// The fence held, or there was none.
    Done(T),
    /// The lease is not held under this token: nothing was changed.
    Refused,
}

impl<T, E> Fenced<Result<T, E>> {
    /// Makes the error of what was done the error of the whole.
    ///
    /// # Errors
    /// That error.
    pub fn transpose(self) -> Result<Fenced<T>, E> {
        match self {
            Self::Done(done) => done.map(Fenced::Done),
            Self::Refused => Ok(Fenced::Refused),
        }
    }
}
