//! Access: bearer tokens with scopes, and the addresses that may read /metrics.
//!
//! Not what a role may write: that is the engine's. Tokens have high entropy, so one fast hash of them is enough, and
//! only the hash is kept. Invariant: how long the check takes says nothing about the configured tokens: each of them
//! is compared as a whole, also after a match.

mod pages;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use ipnet::IpNet;
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

pub use self::settings::{AccessSettings, HostPattern, Scope, TokenSettings};
use super::clients::Client;
use super::problem::Problem;

/// The role that the request's token is bound to.
#[derive(Debug, Clone)]
pub(crate) struct BoundRole(pub(crate) Arc<str>);

/// Whose token a request showed, as a request extension; absent where there are no tokens.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The name of the token.
    pub(crate) name: Arc<str>,
    /// The role that it is bound to.
    pub(crate) role: Option<BoundRole>,
    /// Whether it has the scope `admin`.
    pub(crate) is_admin: bool,
}

/// A token as requests are compared with it.
#[derive(Debug)]
struct KnownToken {
    sha256: [u8; 32],
    scopes: Vec<Scope>,
    caller: Caller,
    client: Arc<Client>,
}

/// What the token of a request says about it.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    /// Whose token it is; `None` without tokens.
    pub(crate) caller: Option<Caller>,
    /// The client that the token stands for; `None` without tokens.
    pub(crate) client: Option<Arc<Client>>,
}

/// Checks the access of each request.
#[derive(Debug)]
pub struct Access {
    tokens: RwLock<Vec<KnownToken>>,
    metrics_allow: Vec<IpNet>,
    allowed_hosts: Vec<HostPattern>,
}

impl Access {
    /// Builds the check.
    pub fn new(settings: &AccessSettings) -> Self {
        let access = Self {
            tokens: RwLock::default(),
            metrics_allow: settings.metrics_allow.clone(),
            allowed_hosts: settings.allowed_hosts.clone(),
        };
        access.reload_tokens(settings);
        access
    }

    /// Replaces the tokens, for all requests from now on. A token that stays keeps what it has.
    pub fn reload_tokens(&self, settings: &AccessSettings) {
        let mut tokens = self.tokens.write();
        let known = |token: &TokenSettings| {
            // Every token has one, once the settings have been checked.
            let sha256 = token.sha256()?;
            let before = tokens.iter().find(|known| known.sha256 == sha256);
            Some(KnownToken {
                client: before.map(|known| Arc::clone(&known.client)).unwrap_or_default(),
                sha256,
                scopes: token.scopes.clone(),
                caller: Caller {
                    name: token.name.as_str().into(),
                    role: token.role.as_deref().map(|role| BoundRole(role.into())),
                    is_admin: token.scopes.contains(&Scope::Admin),
                },
            })
        };
        *tokens = settings.tokens.iter().filter_map(known).collect();
    }

    /// Checks that the request's token has the scope that its route requires; without tokens, that no foreign web page
    /// sent it.
    ///
    /// # Errors
    /// 401 for a missing or unknown token, 403 for one that lacks the scope, and for what a foreign web page
    /// could send.
    pub(crate) fn check(
        &self,
        method: &Method,
        headers: &HeaderMap,
        scope: Scope,
    ) -> Result<Allowed, Problem> {
        let tokens = self.tokens.read();
        if tokens.is_empty() {
            pages::check(method, headers, scope, &self.allowed_hosts)?;
            return Ok(Allowed::default());
        }
        let token = bearer(headers).ok_or_else(Problem::unauthorized)?;
        let found = find(&tokens, token).ok_or_else(Problem::unauthorized)?;
        if !found.scopes.contains(&scope) {
            return Err(Problem::forbidden(format!(
                "this token lacks the scope {:?}",
                scope.as_str()
            )));
        }
        Ok(Allowed { caller: Some(found.caller.clone()), client: Some(Arc::clone(&found.client)) })
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

fn find<'a>(tokens: &'a [KnownToken], token: &[u8]) -> Option<&'a KnownToken> {
    let hash: [u8; 32] = Sha256::digest(token).into();
    let mut found = None;
    // No early return: the time would tell how far down the list the token is.
    for known in tokens {
        let same: Choice = known.sha256.ct_eq(&hash);
        if bool::from(same) {
            found = Some(known);
        }
    }
    found
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

    fn access() -> Access {
        Access::new(&AccessSettings {
            tokens: vec![
                TokenSettings::for_tests("one=1==", &[Scope::Read], None),
                TokenSettings::for_tests("two", &[Scope::Read, Scope::Write], Some("follower")),
            ],
            metrics_allow: vec!["10.0.0.0/8".parse().expect("a network")],
            ..AccessSettings::default()
        })
    }

    fn status(authorization: Option<&str>, scope: Scope) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
        }
        match access().check(&Method::GET, &headers, scope) {
            Ok(allowed) => Ok(allowed.caller.and_then(|of| of.role).map(|role| role.0.to_string())),
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
        assert!(open.check(&Method::GET, &HeaderMap::new(), Scope::Admin).is_ok());
        assert!(open.check_metrics_address(None).is_ok());
    }

    #[test]
    fn two_tokens_at_a_time_are_none() {
        let mut headers = HeaderMap::new();
        for token in ["Bearer one=1==", "Bearer one=1=="] {
            headers.append(AUTHORIZATION, token.parse().expect("a header"));
        }
        let refused =
            access().check(&Method::GET, &headers, Scope::Read).expect_err("there are two");
        assert_eq!(refused.status().as_u16(), 401);
    }

    #[test]
    fn tokens_are_replaced_and_one_that_stays_is_the_same_client() {
        let access = access();
        let client = |token: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
            access
                .check(&Method::GET, &headers, Scope::Read)
                .ok()
                .and_then(|allowed| allowed.client)
        };
        let before = client("two").expect("it is known");
        let tokens = ["two", "three"];
        let tokens = tokens.map(|token| TokenSettings::for_tests(token, &[Scope::Read], None));
        let settings = AccessSettings { tokens: tokens.to_vec(), ..AccessSettings::default() };
        access.reload_tokens(&settings);
        assert!(client("two").is_some_and(|after| Arc::ptr_eq(&before, &after)));
        assert!(client("three").is_some_and(|other| !Arc::ptr_eq(&before, &other)));
        assert!(client("one=1==").is_none());
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
