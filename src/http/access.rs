//! Access: bearer tokens with scopes, and the addresses that may read /metrics.
//!
//! Not what a role may write: that is the engine's. Tokens have high entropy, so one fast hash of them is enough, and
//! only the hash is kept. Invariant: how long the check takes says nothing about the configured tokens: each of them
//! is compared as a whole, also after a match.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::problem::Problem;

/// What a token allows, and what a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// To read the resources.
    Read,
    /// To change the resources.
    Write,
    /// To read /metrics.
    Metrics,
    /// To operate the server.
    Admin,
}

impl Scope {
    /// Returns the name of the scope in settings and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

/// One token, as its hash.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// The name of the client that it was issued to, for people.
    pub name: String,
    /// The SHA-256 of the token.
    pub sha256: [u8; 32],
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// The only role that it may write series as.
    pub role: Option<String>,
}

/// Who has access. Without tokens, every client has access to everything.
#[derive(Debug, Clone, Default)]
pub struct AccessSettings {
    /// The tokens.
    pub tokens: Vec<TokenSettings>,
    /// The addresses that may read /metrics; all when empty.
    pub metrics_allow: Vec<IpNet>,
}

/// The role that the request's token is bound to, as a request extension.
#[derive(Debug, Clone)]
pub(crate) struct BoundRole(pub(crate) Arc<str>);

/// The address of the client, as a request extension set by the listener.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

/// Checks the access of each request.
#[derive(Debug)]
pub(crate) struct Access {
    tokens: Vec<(TokenSettings, Option<BoundRole>)>,
    metrics_allow: Vec<IpNet>,
}

impl Access {
    /// Builds the check.
    pub(crate) fn new(settings: &AccessSettings) -> Self {
        let tokens = settings
            .tokens
            .iter()
            .map(|t| (t.clone(), t.role.as_deref().map(|role| BoundRole(role.into()))))
            .collect();
        let metrics_allow = settings.metrics_allow.clone();
        Self { tokens, metrics_allow }
    }

    /// Returns whether requests need a token at all.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Checks that the request's token has the scope that its route requires; returns the role that the token is
    /// bound to.
    ///
    /// # Errors
    /// 401 for a missing or unknown token, 403 for one that lacks the scope.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        scope: Scope,
    ) -> Result<Option<&BoundRole>, Problem> {
        if self.is_open() {
            return Ok(None);
        }
        let token = bearer(headers).ok_or_else(Problem::unauthorized)?;
        let (found, role) = self.find(token).ok_or_else(Problem::unauthorized)?;
        if !found.scopes.contains(&scope) {
            return Err(Problem::forbidden(format!(
                "this token lacks the scope {:?}",
                scope.as_str()
            )));
        }
        Ok(role.as_ref())
    }

    fn find(&self, token: &[u8]) -> Option<&(TokenSettings, Option<BoundRole>)> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        // No early return: the time would tell how far down the list the token is.
        for entry in &self.tokens {
            let same: Choice = entry.0.sha256.ct_eq(&hash);
            if bool::from(same) {
                found = Some(entry);
            }
        }
        found
    }

    /// Checks that the address may read /metrics. An unknown address may not when there is a list.
    ///
    /// # Errors
    /// 403.
    pub(crate) fn check_metrics_address(&self, peer: Option<IpAddr>) -> Result<(), Problem> {
        let allowed = |ip: IpAddr| {
            // An IPv4 client of an IPv6 socket has a mapped address.
            let ip = ip.to_canonical();
            self.metrics_allow.iter().any(|net| net.contains(&ip))
        };
        if self.metrics_allow.is_empty() || peer.is_some_and(allowed) {
            return Ok(());
        }
        Err(Problem::forbidden("this address may not read the metrics"))
    }
}

/// Returns the bearer token. The scheme is case-insensitive (RFC 9110, 11.1); everything after it is the token,
/// including `=`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else { return None };
    let (scheme, token) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"Bearer ") {
        return None;
    }
    let token = token.trim_ascii();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, text: &str, scopes: &[Scope], role: Option<&str>) -> TokenSettings {
        TokenSettings {
            name: name.to_owned(),
            sha256: Sha256::digest(text.as_bytes()).into(),
            scopes: scopes.to_vec(),
            role: role.map(str::to_owned),
        }
    }

    fn access() -> Access {
        let tokens = vec![
            token("first", "one=1==", &[Scope::Read], None),
            token("second", "two", &[Scope::Read, Scope::Write], Some("follower")),
        ];
        let metrics_allow = vec!["10.0.0.0/8".parse().expect("a network")];
        Access::new(&AccessSettings { tokens, metrics_allow })
    }

    fn status(authorization: Option<&str>, scope: Scope) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        }
        match access().check(&headers, scope) {
            Ok(role) => Ok(role.map(|r| r.0.to_string())),
            Err(problem) => Err(problem.status().as_u16()),
        }
    }

    #[test]
    fn every_configured_token_is_known_also_one_with_equals_signs() {
        assert_eq!(status(Some("Bearer one=1=="), Scope::Read), Ok(None));
        assert_eq!(status(Some("Bearer two"), Scope::Write), Ok(Some("follower".to_owned())));
        assert_eq!(status(Some("bEARER two"), Scope::Read), Ok(Some("follower".to_owned())));
    }

    #[test]
    fn an_unknown_token_gets_401_and_a_missing_scope_403() {
        for header in [None, Some("Bearer"), Some("Bearer "), Some("Bearer one"), Some("Basic two")]
        {
            assert_eq!(status(header, Scope::Read), Err(401), "{header:?}");
        }
        assert_eq!(status(Some("Bearer one=1=="), Scope::Write), Err(403));
        assert_eq!(status(Some("Bearer two"), Scope::Admin), Err(403));
    }

    #[test]
    fn without_tokens_every_client_has_access() {
        let open = Access::new(&AccessSettings::default());
        assert!(open.check(&HeaderMap::new(), Scope::Admin).is_ok());
        assert!(open.check_metrics_address(None).is_ok());
    }

    #[test]
    fn only_listed_addresses_read_metrics() {
        let access = access();
        let check = |ip: &str| access.check_metrics_address(Some(ip.parse().expect("an address")));
        assert!(check("10.1.2.3").is_ok());
        assert!(check("::ffff:10.1.2.3").is_ok());
        assert!(check("192.0.2.1").is_err());
        assert!(access.check_metrics_address(None).is_err());
    }
}
