//! `[access]`: the tokens and what they allow, as they are configured.
//!
//! Invariant: once checked, every token has exactly one secret, which no other token has, and a name of its
//! own.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

use crate::http::head::split_host;
use crate::model::hex;
use crate::model::settings::{self, List, Secret, Settings, Violations, one_of};

/// The shortest secret that is accepted, in characters: shorter ones can be guessed.
const MIN_TOKEN_CHARS: usize = 16;
const SHA256_HEX_CHARS: usize = 64;
/// The bits before an IPv4 address that is written as one of IPv6.
const V4_IN_V6_BITS: u8 = 96;
const TOKENS: &[&str] = &["access.tokens"];

/// Who may do what. Without tokens, everybody may do everything.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct AccessSettings {
    /// The tokens.
    #[serde(deserialize_with = "settings::list")]
    pub tokens: Vec<TokenSettings>,
    /// The addresses that may read /metrics; none means all.
    #[serde(deserialize_with = "networks")]
    pub metrics_allow: Vec<IpNet>,
    /// The host names that requests may name where there are no tokens, beside addresses and private names.
    #[serde(deserialize_with = "settings::list")]
    pub allowed_hosts: Vec<HostPattern>,
    /// Allows to listen on addresses of the network although there are no tokens.
    #[serde(deserialize_with = "settings::flag")]
    pub open_to_the_network_without_tokens: bool,
}

/// One of `[[access.tokens]]`. Nothing else checks the names of its fields, so unknown ones are refused here.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenSettings {
    /// Who it was given to, for the log.
    pub name: String,
    /// The secret itself ...
    pub token: Option<Secret>,
    /// ... or its SHA-256 in hexadecimal ...
    pub token_sha256: Option<Secret>,
    /// ... or a file that holds it.
    pub token_file: Option<PathBuf>,
    /// What it allows.
    #[serde(deserialize_with = "settings::list")]
    pub scopes: Vec<Scope>,
    /// The only role that it may write series as.
    pub role: Option<String>,
}

/// What a token allows, and what a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
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
    const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Metrics, Self::Admin];

    /// Returns the word that stands for it in settings and responses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        one_of(&text, &Self::ALL.map(|scope| (scope.as_str(), scope)))
    }
}

/// A host name that requests may name, `*.` and all names below a domain, or `*` for any.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct HostPattern(String);

impl HostPattern {
    /// Returns whether this can match anything: a name without port or path.
    pub(super) fn is_valid(&self) -> bool {
        let name = self.0.strip_prefix("*.").unwrap_or(&self.0);
        self.0 == "*" || (!name.contains('*') && matches!(split_host(name), Some((_, None))))
    }

    /// Returns whether `name` is one of the names.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => ends_with(name, suffix),
            None => name.eq_ignore_ascii_case(&self.0),
        }
    }
}

#[cfg(test)]
impl From<&str> for HostPattern {
    fn from(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }
}

/// Returns whether a host name ends with `suffix`.
pub(super) fn ends_with(name: &str, suffix: &str) -> bool {
    let start = name.len().checked_sub(suffix.len());
    let end = start.and_then(|start| name.get(start..));
    end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

impl AccessSettings {
    /// Returns whether a server may listen on this address: beyond loopback only with tokens, or with an explicit
    /// opt-out.
    pub fn may_serve(&self, listen: SocketAddr) -> bool {
        listen.ip().is_loopback()
            || !self.tokens.is_empty()
            || self.open_to_the_network_without_tokens
    }

    /// The settings that hold secrets.
    pub const SECRETS: &[&str] = &["access.tokens.token", "access.tokens.token_sha256"];
}

impl Settings for AccessSettings {
    fn check(&mut self, violations: &mut Violations) {
        violations.require(
            self.allowed_hosts.iter().all(HostPattern::is_valid),
            &["access.allowed_hosts"],
            || {
                "must be names such as \"holdall.example.com\", \"*.example.com\", or \"*\""
                    .to_owned()
            },
        );
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        for (index, token) in self.tokens.iter_mut().enumerate() {
            let which = format!("number {} ({:?})", index + 1, token.name);
            token.check(&which, violations);
            if let Some(hash) = token.sha256() {
                violations.require(hashes.insert(hash), TOKENS, || {
                    format!("{which} is the same token as an earlier one")
                });
            }
            let new = names.insert(token.name.clone());
            violations.require(new && !token.name.is_empty(), TOKENS, || {
                format!("{which} needs a name of its own")
            });
        }
    }
}

impl TokenSettings {
    /// Returns a token with this secret, which is also its name.
    #[cfg(test)]
    pub(crate) fn for_tests(secret: &str, scopes: &[Scope], role: Option<&str>) -> Self {
        Self {
            name: secret.to_owned(),
            token: Some(Secret::from(secret.to_owned())),
            token_sha256: None,
            token_file: None,
            scopes: scopes.to_vec(),
            role: role.map(str::to_owned),
        }
    }

    /// Returns the SHA-256 that the token is known by; `None` where it has no valid secret.
    pub(super) fn sha256(&self) -> Option<[u8; 32]> {
        match (&self.token, &self.token_sha256) {
            (Some(secret), _) => Some(Sha256::digest(secret.expose().as_bytes()).into()),
            (None, Some(hash)) => parse_hash(hash),
            (None, None) => None,
        }
    }

    fn check(&mut self, which: &str, violations: &mut Violations) {
        let ways = [self.token.is_some(), self.token_sha256.is_some(), self.token_file.is_some()];
        let ways = ways.into_iter().filter(|given| *given).count();
        violations.require(ways == 1, TOKENS, || {
            format!("{which} needs exactly one of token, token_sha256, token_file")
        });
        violations.require(!self.scopes.is_empty(), TOKENS, || format!("{which} has no scopes"));
        self.read_file(which, violations);
        if let Some(secret) = &self.token {
            let text = secret.expose();
            violations.require(text.chars().count() >= MIN_TOKEN_CHARS, TOKENS, || {
                format!("{which} is shorter than {MIN_TOKEN_CHARS} characters")
            });
            violations.require(text.bytes().all(|b| b.is_ascii_graphic()), TOKENS, || {
                format!("{which} contains characters that no Authorization header can carry")
            });
        }
        if let Some(hash) = &self.token_sha256 {
            violations.require(parse_hash(hash).is_some(), TOKENS, || {
                format!("{which}: token_sha256 has {SHA256_HEX_CHARS} hexadecimal digits")
            });
        }
    }

    /// Reads the secret from its file, where it is given so.
    fn read_file(&mut self, which: &str, violations: &mut Violations) {
        let Some(path) = &self.token_file else { return };
        match std::fs::read_to_string(path) {
            Ok(text) => self.token = Some(Secret::from(text.trim_end().to_owned())),
            Err(error) => violations.require(false, TOKENS, || {
                format!("{which}: {} can't be read: {error}", path.display())
            }),
        }
    }
}

/// Reads the 64 hexadecimal digits of a SHA-256.
fn parse_hash(hash: &Secret) -> Option<[u8; 32]> {
    hex::decode(hash.expose())?.try_into().ok()
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let List(networks) = List::<Network>::deserialize(deserializer)?;
    Ok(networks.into_iter().map(|network| network.0).collect())
}

/// Returns a range of IPv4 addresses that is written as one of IPv6 (`::ffff:10.0.0.0/104`) as what it is: clients are
/// known by their IPv4 addresses.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.network().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(V4_IN_V6_BITS));
    v4.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok()).map_or(network, IpNet::V4)
}

/// A range of addresses such as `10.0.0.0/8`, or one address.
struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map(|network| Self(canonical(network)))
            .map_err(|_| {
                D::Error::custom(format!("{text:?} is not an address range such as 10.0.0.0/8"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_mapped_addresses_is_one_of_ipv4() {
        for (written, meant) in [
            ("::ffff:127.0.0.1/128", "127.0.0.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::ffff:0:0/95"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            let network = canonical(written.parse().expect("a network"));
            assert_eq!(network, meant.parse::<IpNet>().expect("a network"), "{written}");
        }
    }
}
