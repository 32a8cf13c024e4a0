//! What settings must be together, once each is valid alone.
//!
//! Each layer checks its own settings; here are only the rules between settings of different layers.

use super::composed::Config;
use crate::http::LimitSettings;
use crate::model::settings::Violations;

/// Reports every rule that the configuration violates, and reads the files that hold secrets.
pub(super) fn check(config: &mut Config) -> Violations {
    let mut violations = Violations::default();
    for layer in config.layers() {
        layer.check(&mut violations);
    }
    config.backend.check_series(&config.store.series, &mut violations);
    largest_cached_value(config, &mut violations);
    roles_of_tokens(config, &mut violations);
    violations
}

/// The largest cached value must fit into a request's body, and into the store.
fn largest_cached_value(config: &Config, violations: &mut Violations) {
    let largest = config.engine.cache.max_value_bytes;
    violations.require(
        config.http.limits.can_buffer(largest, largest),
        &["cache.max_value_bytes", "limits.buffered_body_bytes"],
        || LimitSettings::CAN_NOT_BUFFER.to_owned(),
    );
    config.backend.check_cached_value(largest, &config.store.cache, violations);
}

/// A token can only be bound to a role that exists.
fn roles_of_tokens(config: &Config, violations: &mut Violations) {
    let guards = &config.engine.series.guards;
    for (index, token) in config.http.access.tokens.iter().enumerate() {
        let Some(role) = &token.role else { continue };
        violations.require(guards.contains_key(role), &["access.tokens", "series.guards"], || {
            format!(
                "number {} ({:?}): {role:?} is not a role of series.guards",
                index + 1,
                token.name
            )
        });
    }
}
