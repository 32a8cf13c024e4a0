//! Hooks of pipelines: who is told about the updates that were merged.
//!
//! Not how they are told. Invariant: a hook that exists has a receiver: a webhook, readers of the stream, or both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Invalid;
use super::cursor::Cursor;
use super::settings::Secret;
use super::time::SteadyTime;

/// Who is told about the updates of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The receiver of requests, if there is one.
    pub webhook: Option<Webhook>,
    /// Notes are kept for readers of the stream, also when the webhook has them.
    pub stream: bool,
}

/// A receiver of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where requests are sent to.
    pub url: WebhookUrl,
    /// What requests are signed with.
    pub secret: Secret,
    /// How long a request may take.
    pub timeout: Duration,
    /// The most notes of one request.
    pub batch: usize,
    /// A merge waits for the delivery of its notes.
    pub propagate_errors: bool,
}

/// The address of a webhook: `http` or `https`, a host, and what is requested of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    /// Requests are encrypted, and the receiver's certificate is checked.
    pub is_https: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path and the query.
    pub target: String,
}

impl WebhookUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// When it is not one, or has a user name: secrets do not belong there, since it is shown.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = |why: &str| Invalid::new(format!("is not the URL of a webhook: {why}"));
        let (is_https, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            _ => return Err(invalid("it begins with neither http:// nor https://")),
        };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('#') {
            return Err(invalid("it has other characters than a URL may have, or a fragment"));
        }
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(invalid("it has a user name"));
        }
        let (host, port) = split_port(authority).ok_or_else(|| invalid("its port is no number"))?;
        if host.is_empty() || host.contains(['[', ']']) {
            return Err(invalid("it has no host"));
        }
        let target = if target.starts_with('/') { target.into() } else { format!("/{target}") };
        let port = port.unwrap_or(if is_https { 443 } else { 80 });
        Ok(Self { is_https, host: host.to_owned(), port, target })
    }

    /// Returns the host and the port, as the header `Host` has them.
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.is_https { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

/// Splits `host:port`, `[::1]:port` and the same without a port; `None` when the port is none.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':')?)),
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let number = |port: &str| port.parse().ok().filter(|port| *port > 0);
    match port {
        None => Some((host, None)),
        Some(port) => Some((host, Some(number(port)?))),
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// What the outbox has about one update that was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Greater than those of all earlier notes.
    pub sequence: u64,
    /// When it was merged.
    pub at: SteadyTime,
    /// What was merged: the text of a JSON object.
    pub text: Arc<str>,
}

impl Note {
    /// Writes the note as JSON: its text, with its sequence number as the first member.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let rest = self.text.strip_prefix('{').unwrap_or("}");
        let comma = if rest.starts_with('}') { "" } else { "," };
        out.extend_from_slice(format!("{{\"sequence\":{}{comma}", self.sequence).as_bytes());
        out.extend_from_slice(rest.as_bytes());
    }
}

/// How the outbox of a pipeline stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxState {
    /// Behind the newest note.
    pub newest: Cursor,
    /// Behind the last note that the webhook has.
    pub delivered: Cursor,
    /// The notes.
    pub notes: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// The notes that the webhook does not have yet.
    pub undelivered: u64,
    /// How long ago the oldest of these was merged.
    pub oldest_undelivered: Duration,
    /// The notes that were dropped before the webhook had them, since the outbox began.
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_back_as_printed_and_others_are_refused() {
        for (text, shown) in [
            ("http://a", "http://a/"),
            ("HTTPS://a.example:443/x?y=1", "https://a.example/x?y=1"),
            ("http://[::1]:8080?q", "http://[::1]:8080/?q"),
            ("https://127.0.0.1:80/", "https://127.0.0.1:80/"),
        ] {
            let url = WebhookUrl::parse(text).expect(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(WebhookUrl::parse(shown), Ok(url));
        }
        for text in [
            "",
            "a",
            "ftp://a",
            "http://",
            "http:///x",
            "http://a:0",
            "http://a:b",
            "http://u@a",
            "http://u:p@a/",
            "http://a/ b",
            "http://a/#x",
            "http://[::1",
            "http://[::1]8",
            "http://a:",
        ] {
            assert!(WebhookUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_note_is_its_text_with_its_number() {
        let json = |text: &str| {
            let at = SteadyTime::from_nanos(0);
            let mut out = Vec::new();
            Note { sequence: 7, at, text: text.into() }.write_json(&mut out);
            String::from_utf8(out).expect("UTF-8")
        };
        assert_eq!(json("{\"a\":1}"), "{\"sequence\":7,\"a\":1}");
        assert_eq!(json("{}"), "{\"sequence\":7}");
    }
}
