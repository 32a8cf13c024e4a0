//! The clocks of the machine, and how the steady time goes on when the server is restarted.
//!
//! The steady time of a store begins at the system's time, and is then counted by the machine's clock since its boot.
//! Each durable write records it, with the boot. Invariant: the steady time never runs faster than time passes, also
//! across restarts, crashes and reboots; so nothing ends before its duration has passed.

use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest as _, Sha256};

use super::{Boot, Clock, LastCommit};
use crate::model::time::{SteadyTime, Timestamp};

/// Counts time also while the machine is suspended: a lease does not last longer because its server was
/// suspended.
#[cfg(target_os = "linux")]
const SINCE_BOOT: ClockId = ClockId::Boottime;
/// Other systems have only the monotonic clock.
#[cfg(not(target_os = "linux"))]
const SINCE_BOOT: ClockId = ClockId::Monotonic;

/// What identifies a boot, and the clock that counts from it: a container may have a time namespace in which it
/// counts from elsewhere.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const TIME_NAMESPACE: &str = "/proc/self/ns/time";

/// The clocks of the machine.
#[derive(Debug)]
pub struct SystemClock {
    boot: Boot,
}

impl SystemClock {
    /// Starts the steady time where `last`, the last durable write of all earlier runs, says that it is now; at the
    /// system's time when there was none.
    ///
    /// On the same boot of the machine, the time since that write is known, and has passed. After another boot, or on
    /// another machine, it is not: all that is known was written by clocks that may be wrong. So none of it has
    /// passed, and what was promised lasts longer by the time since that write, never shorter.
    pub fn resume(last: Option<&LastCommit>) -> Self {
        let id = boot_id();
        Self { boot: Boot { id, offset_nanos: resumed_offset(last, id, since_boot_nanos()) } }
    }
}

/// Returns how far the steady time is ahead of the time since the boot `id`, which is `since_boot`.
fn resumed_offset(last: Option<&LastCommit>, id: i64, since_boot: i64) -> i64 {
    let Some(last) = last else { return system_nanos().saturating_sub(since_boot) };
    let same_boot = id != Boot::UNKNOWN.id && last.boot.id == id;
    // A clock that is behind the write is not the one that it was read from.
    let goes_on = last.boot.offset_nanos.saturating_add(since_boot) >= last.at.steady.as_nanos();
    if same_boot && goes_on {
        last.boot.offset_nanos
    } else {
        last.at.steady.as_nanos().saturating_sub(since_boot)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(system_nanos())
    }

    fn steady(&self) -> SteadyTime {
        SteadyTime::from_nanos(self.boot.offset_nanos.saturating_add(since_boot_nanos()))
    }

    fn boot(&self) -> Boot {
        self.boot
    }
}

/// Returns a number that another boot does not have; 0 where the system does not say which one it is.
fn boot_id() -> i64 {
    let Ok(boot) = std::fs::read(BOOT_ID) else { return Boot::UNKNOWN.id };
    let namespace = std::fs::read_link(TIME_NAMESPACE).unwrap_or_default();
    let mut hasher = Sha256::new();
    hasher.update(boot);
    hasher.update(namespace.as_os_str().as_encoded_bytes());
    let hash: [u8; 32] = hasher.finalize().into();
    hash.first_chunk().map_or(Boot::UNKNOWN.id, |first| i64::from_le_bytes(*first))
}

fn since_boot_nanos() -> i64 {
    let time = clock_gettime(SINCE_BOOT);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

fn system_nanos() -> i64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;

    const SECOND: i64 = 1_000_000_000;

    /// A write at 1,000 s of the steady time, on boot 7, 100 s after that boot.
    fn last() -> LastCommit {
        LastCommit {
            at: Moment {
                steady: SteadyTime::from_nanos(1_000 * SECOND),
                system: Timestamp::from_nanos(5 * SECOND),
            },
            boot: Boot { id: 7, offset_nanos: 900 * SECOND },
        }
    }

    #[test]
    fn on_the_same_boot_the_time_of_a_restart_has_passed() {
        assert_eq!(resumed_offset(Some(&last()), 7, 160 * SECOND), 900 * SECOND);
    }

    #[test]
    fn on_another_boot_the_steady_time_goes_on_from_the_last_write() {
        // However long that boot has lasted: the files may have come from another machine a second ago.
        for (id, since_boot) in [(8, 3), (8, 9_000_000), (0, 160)] {
            let offset = resumed_offset(Some(&last()), id, since_boot * SECOND);
            assert_eq!(offset + since_boot * SECOND, 1_000 * SECOND, "{id}, {since_boot}");
        }
        let unknown = LastCommit { boot: Boot::UNKNOWN, ..last() };
        let offset = resumed_offset(Some(&unknown), 0, 160 * SECOND);
        assert_eq!(offset + 160 * SECOND, 1_000 * SECOND);
    }

    #[test]
    fn a_boot_whose_clock_is_behind_the_last_write_is_another_one() {
        let offset = resumed_offset(Some(&last()), 7, 99 * SECOND);
        assert_eq!(offset + 99 * SECOND, 1_000 * SECOND);
    }

    #[test]
    fn a_new_store_starts_at_the_system_time_and_knows_its_boot() {
        let clock = SystemClock::resume(None);
        let behind = clock.now().as_nanos() - clock.steady().as_nanos();
        assert!(behind.abs() < 3600 * SECOND, "{behind}");
        assert!(clock.steady() <= clock.steady());
        #[cfg(target_os = "linux")]
        assert_eq!((clock.boot().id != 0, clock.boot().id), (true, boot_id()));
    }
}
