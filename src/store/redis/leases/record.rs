//! How a lease is stored: `token end ttl_ms ttl_ns access holder`, as `core/lua/lease.lua` says.

use std::time::Duration;

use super::super::core::replies::number;
use super::super::core::time::time_of;
use crate::model::leases::{FencingToken, Holder, Lease, LeaseName};
use crate::store::{ErrorKind, StoreError, StoreResult};

/// Reads a lease as the scripts write it.
///
/// # Errors
/// When it is damaged.
pub(super) fn lease_of(record: &str) -> StoreResult<Lease> {
    let damaged = || StoreError::new(ErrorKind::Corrupt, format!("{record:?} is no lease"));
    let mut parts = record.splitn(6, ' ');
    let mut next = || parts.next().ok_or_else(damaged);
    let token = FencingToken(number(next()?)?);
    let expires_at = time_of(next()?)?;
    // The ttl in milliseconds, which only scripts read.
    next()?;
    let nanos: u128 = next()?.parse().map_err(|_| damaged())?;
    let second = 1_000_000_000;
    let seconds = u64::try_from(nanos / second).map_err(|_| damaged())?;
    let rest = u32::try_from(nanos % second).map_err(|_| damaged())?;
    // The access, which only scripts compare.
    next()?;
    let holder = Holder::parse(next()?).map_err(|_| damaged())?;
    Ok(Lease { holder, token, expires_at, ttl: Duration::new(seconds, rest) })
}

/// Reads a lease's name.
///
/// # Errors
/// When it is damaged.
pub(super) fn name_of(name: Vec<u8>) -> StoreResult<LeaseName> {
    let name = String::from_utf8(name).map_err(|error| {
        StoreError::caused_by(ErrorKind::Corrupt, "a lease's name is no text", error)
    })?;
    LeaseName::parse(name).map_err(|error| StoreError::new(ErrorKind::Corrupt, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_reads_back_with_spaces_in_its_holder() {
        let lease = lease_of("7 1500 500 500000001 -61 a holder").expect("valid");
        assert_eq!((lease.token, lease.holder.as_str()), (FencingToken(7), "a holder"));
        assert_eq!(lease.ttl, Duration::new(0, 500_000_001));
        assert_eq!(lease.expires_at.as_nanos(), 1_500_000_000);
    }

    #[test]
    fn a_damaged_lease_is_an_error() {
        for record in
            ["", "7", "7 1500 500 5 -", "x 1500 500 5 - me", "7 x 500 5 - me", "7 1 5 x - me"]
        {
            assert!(lease_of(record).is_err(), "{record:?}");
        }
    }
}
