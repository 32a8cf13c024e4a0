//! How a fenced write ends. The fence itself is `model::leases::Fence`.

/// How a fenced write ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fenced<T> {
    /// The fence held, or there was none.
    Done(T),
    /// The lease is not held under this token: nothing was changed.
    Refused,
}
