//! The variables that Kubernetes sets in every pod for each service beside it.
//!
//! For a service called `holdall-redis` they begin with `HOLDALL_REDIS_`, as settings do. Invariant: a variable is taken
//! for one of these only if both its name and its value are what Kubernetes writes, so that a setting with a typing
//! error is still an error.

use std::ffi::OsStr;
use std::net::IpAddr;

const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Returns whether Kubernetes sets `variable` to such a `value`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
pub(super) fn is_of_a_service(variable: &str, value: &OsStr) -> bool {
    let Some(value) = value.to_str() else { return false };
    let words: Vec<&str> = variable.split('_').collect();
    // Each form is the name of the service, and then the words of a pattern.
    (1..words.len()).any(|at| match &words[at..] {
        ["SERVICE", "HOST"] => is_address(value),
        ["SERVICE", "PORT"] => is_port(value),
        // The name of a port follows.
        ["SERVICE", "PORT", name @ ..] => !name.is_empty() && is_port(value),
        ["PORT"] => is_url(value),
        ["PORT", port, protocol] => is_port(port) && is_protocol(protocol) && is_url(value),
        ["PORT", port, protocol, part] if is_port(port) && is_protocol(protocol) => match *part {
            "PROTO" => is_protocol(value),
            "PORT" => is_port(value),
            "ADDR" => is_address(value),
            _ => false,
        },
        _ => false,
    })
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn is_protocol(text: &str) -> bool {
    PROTOCOLS.iter().any(|protocol| protocol.eq_ignore_ascii_case(text))
}

/// Returns whether a text is like `tcp://10.0.0.1:6379`.
fn is_url(text: &str) -> bool {
    let parts = text.split_once("://").and_then(|(protocol, rest)| {
        let (address, port) = rest.rsplit_once(':')?;
        Some((protocol, address.trim_start_matches('[').trim_end_matches(']'), port))
    });
    parts.is_some_and(|(protocol, address, port)| {
        is_protocol(protocol) && is_address(address) && is_port(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_services_are_known_by_name_and_value() {
        for (variable, value) in [
            ("HOLDALL_SERVICE_HOST", "10.0.0.1"),
            ("HOLDALL_SERVICE_PORT", "8720"),
            ("HOLDALL_SERVICE_PORT_HTTP", "8720"),
            ("HOLDALL_PORT", "tcp://10.0.0.1:8720"),
            ("HOLDALL_PORT_8720_TCP", "tcp://10.0.0.1:8720"),
            ("HOLDALL_REDIS_SERVICE_HOST", "fd00::1"),
            ("HOLDALL_REDIS_PORT", "tcp://[fd00::1]:6379"),
            ("HOLDALL_REDIS_PORT_6379_TCP_PROTO", "tcp"),
            ("HOLDALL_REDIS_PORT_6379_TCP_PORT", "6379"),
            ("HOLDALL_REDIS_PORT_6379_TCP_ADDR", "10.0.0.2"),
        ] {
            assert!(is_of_a_service(variable, value.as_ref()), "{variable}");
        }
        for (variable, value) in [
            ("HOLDALL_PORT", "8720"),
            ("HOLDALL_SERVER_PORT", "8720"),
            ("HOLDALL_SERVICE_HOST", "holdall.example"),
            ("HOLDALL_STORE_PATH", "/data"),
            ("HOLDALL_STORE_REDIS_URL", "redis://10.0.0.1:6379"),
            ("HOLDALL_REDIS_PORT_6379_TCP_NAME", "6379"),
        ] {
            assert!(!is_of_a_service(variable, value.as_ref()), "{variable}");
        }
    }
}
