//! What an error of Redis means: its code, the kind that it has in the contract, and whether the connection is left.
//!
//! Invariant: an error of a script has the same meaning in every version. Redis 6.2 returns what a command of a
//! script failed with inside a message of its own; from 7.0 on the error itself is returned.

use std::time::Duration;

use redis::{RedisError, ServerErrorKind};

use crate::store::{ErrorKind, Limited, StoreError};

/// How a call failed.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// Redis does not know the SHA-1 of the script.
    NoScript,
    /// The script found that its shard was never used, or was wiped.
    Uninitialized,
    /// The script came after its deadline, and did nothing; the server's time in microseconds.
    Late(i64),
    /// Anything else.
    Store(StoreError),
}

impl CallError {
    /// Reads an error.
    pub(super) fn of(error: RedisError) -> Self {
        match (code(&error), error.detail()) {
            (Some("UNINITIALIZED"), _) => return Self::Uninitialized,
            (Some("NOSCRIPT"), _) => return Self::NoScript,
            (Some("LIMIT"), Some(resource)) => {
                let of = Limited::ALL.into_iter().find(|of| of.as_str() == resource.trim());
                if let Some(of) = of {
                    return Self::Store(StoreError::limit_reached(of));
                }
            }
            (Some("LATE"), Some(time)) => {
                if let Ok(server_us) = time.trim().parse() {
                    return Self::Late(server_us);
                }
            }
            _ => {}
        }
        Self::Store(StoreError::caused_by(kind(&error), "a command to redis failed", error))
    }

    /// Makes the error of a call whose reply did not come in time.
    pub(crate) fn no_reply(timeout: Duration) -> Self {
        let detail = format!("redis sent no reply within {timeout:?}");
        Self::Store(StoreError::new(ErrorKind::Timeout, detail))
    }
}

/// Returns whether the connection is replaced after this error. It is broken, or the server may be a demoted master,
/// or one that is cut off, behind an address that leads to the new one. In a cluster a timeout can mean a node that
/// is gone, to which the driver would go on sending.
pub(super) fn leaves(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_timeout()
        || matches!(code(error), Some("READONLY" | "NOREPLICAS" | "MASTERDOWN"))
}

/// Returns whether a node of a cluster did not carry the command out, because the slot is moving or has no master.
pub(super) fn not_done(error: &RedisError) -> bool {
    use redis::ErrorKind::{ClusterConnectionNotFound, Server};
    matches!(
        error.kind(),
        ClusterConnectionNotFound
            | Server(
                ServerErrorKind::Moved
                    | ServerErrorKind::Ask
                    | ServerErrorKind::TryAgain
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::BusyLoading
                    | ServerErrorKind::ReadOnly
            )
    )
}

/// Returns the code of an error, such as `OOM`.
fn code(error: &RedisError) -> Option<&str> {
    match error.code() {
        Some("ERR") => error.detail().and_then(wrapped_code).or(Some("ERR")),
        code => code,
    }
}

/// Returns the code of the error that a message of Redis 6.2 wraps:
/// `Error running script (call to f_..): @user_script:3: @user_script: 3: -OOM command not allowed ..`.
fn wrapped_code(detail: &str) -> Option<&str> {
    if !detail.starts_with("Error running script") {
        return None;
    }
    let (_, rest) = detail.rsplit_once("@user_script")?;
    let (_, error) = rest.split_once(": -")?;
    let code = error.split(' ').next()?;
    code.bytes().all(|byte| byte.is_ascii_uppercase()).then_some(code)
}

fn kind(error: &RedisError) -> ErrorKind {
    use redis::ErrorKind as Redis;
    if error.is_timeout() {
        return ErrorKind::Timeout;
    }
    match (error.kind(), code(error)) {
        (_, Some("OOM")) => ErrorKind::Full,
        (_, Some("BUSY")) => ErrorKind::Throttled,
        // The connection broke while the command or its reply was under way.
        (Redis::Io, _) => ErrorKind::Timeout,
        (
            Redis::ClusterConnectionNotFound
            | Redis::AuthenticationFailed
            | Redis::Parse
            | Redis::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::NoPerm,
            ),
            _,
        )
        | (
            _,
            Some("READONLY" | "MASTERDOWN" | "MISCONF" | "NOREPLICAS" | "NOAUTH" | "WRONGPASS"),
        ) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an error as a server sends it.
    fn error(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("a reply");
        value.extract_error().expect_err("an error")
    }

    fn kind_of(line: &str) -> ErrorKind {
        match CallError::of(error(line)) {
            CallError::Store(error) => error.kind,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn errors_of_scripts_mean_the_same_in_every_version() {
        let wrapped = |error: &str| {
            let at = "@user_script:34: @user_script: 34: ";
            format!("ERR Error running script (call to f_0123456789abcdef): {at}-{error}")
        };
        for (text, kind) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Full),
            ("READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
            ("MISCONF Redis is configured to save RDB snapshots", ErrorKind::Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", ErrorKind::Unavailable),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
            assert_eq!(kind_of(&wrapped(text)), kind, "{text}");
            assert_eq!(leaves(&error(text)), leaves(&error(&wrapped(text))), "{text}");
        }
        assert!(leaves(&error(&wrapped("READONLY You can't"))));
        assert!(!leaves(&error(&wrapped("OOM command"))));
        let defect = "ERR Error running script (call to f_0): @user_script:3: attempt to index nil";
        assert_eq!(kind_of(defect), ErrorKind::Internal);
        assert_eq!(kind_of("ERR a name with @user_script: -OOM in it"), ErrorKind::Internal);
    }

    #[test]
    fn a_late_script_tells_the_servers_time() {
        let late = CallError::of(error("LATE 1800000000000001"));
        assert!(matches!(late, CallError::Late(1_800_000_000_000_001)), "{late:?}");
        assert!(matches!(CallError::of(error("NOSCRIPT No matching")), CallError::NoScript));
        assert_eq!(kind_of("LATE never"), ErrorKind::Internal);
    }
}
