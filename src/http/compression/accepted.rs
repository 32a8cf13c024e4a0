//! The codings that a client accepts, from `Accept-Encoding` (RFC 9110, 12.5.3).
//!
//! Not whether a response is compressed. Invariant: a coding that the client did not name, or refuses, is never used.

use axum::http::header::HeaderValue;

/// How a response may be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Zstd,
}

impl Coding {
    /// Returns its name in headers.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The qualities of the codings for one client. Without the header they are 0: more bytes do less harm than a response
/// that can't be read.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::http) struct Accepted {
    gzip: f32,
    zstd: f32,
    identity: f32,
}

impl Accepted {
    /// Reads the lines of the header.
    pub(in crate::http) fn of<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let (mut gzip, mut zstd, mut identity, mut other) = (None, None, None, None);
        let lines = lines.into_iter().filter_map(|line| line.to_str().ok());
        for coding in lines.flat_map(|line| line.split(',')) {
            let mut parts = coding.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let quality = match name.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => &mut gzip,
                "zstd" => &mut zstd,
                "identity" => &mut identity,
                "*" => &mut other,
                _ => continue,
            };
            let written = parts
                .filter_map(|part| part.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
            *quality = Some(written.map_or(1.0, |(_, text)| parse_quality(text.trim())));
        }
        let of = |named: Option<f32>| named.or(other).unwrap_or(0.0);
        // Identity is accepted unless it is refused, but only a client that names it may prefer it.
        Self { gzip: of(gzip), zstd: of(zstd), identity: identity.unwrap_or(0.0) }
    }

    /// Returns whether gzip is accepted.
    pub(in crate::http) fn gzip(self) -> bool {
        self.gzip > 0.0
    }

    /// Returns the codings that are accepted and not worse than none, the best first; of equals zstd, which is faster.
    pub(super) fn best_first(self) -> impl Iterator<Item = Coding> {
        let (gzip, zstd) = ((self.gzip, Coding::Gzip), (self.zstd, Coding::Zstd));
        let order = if self.gzip > self.zstd { [gzip, zstd] } else { [zstd, gzip] };
        order
            .into_iter()
            .filter(move |(quality, _)| *quality > 0.0 && *quality >= self.identity)
            .map(|(_, coding)| coding)
    }
}

fn parse_quality(text: &str) -> f32 {
    text.parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(lines: &[&str]) -> Accepted {
        let lines: Vec<_> = lines.iter().map(|l| HeaderValue::from_str(l).expect("text")).collect();
        Accepted::of(&lines)
    }

    #[test]
    fn gzip_is_used_only_if_it_is_accepted() {
        for yes in ["gzip", "deflate, gzip;q=0.5", "*", "identity;q=0, GZIP", "br;q=1, *;q=0.1"] {
            assert!(accepted(&[yes]).gzip(), "{yes}");
        }
        for no in ["", "identity", "gzip;q=0", "gzip;q=0, *", "*;q=0", "gzip; q=0.000", "br"] {
            assert!(!accepted(&[no]).gzip(), "{no}");
        }
        assert!(!accepted(&[]).gzip());
        assert!(accepted(&["br", "gzip"]).gzip(), "a list may have several lines");
    }

    #[test]
    fn the_best_coding_comes_first() {
        let best = |header: &str| {
            let codings = accepted(&[header]).best_first().map(Coding::as_str);
            codings.collect::<Vec<_>>().join(" ")
        };
        for (header, expected) in [
            ("gzip, deflate, br, zstd", "zstd gzip"),
            ("zstd;q=0.5, gzip", "gzip zstd"),
            ("gzip;q=0.5, zstd;Q=1.0", "zstd gzip"),
            ("zstd;q=0, *", "gzip"),
            ("*;q=0.5", "zstd gzip"),
            ("identity, gzip;q=0.5", ""),
            ("identity;q=0.5, gzip", "gzip"),
            ("gzip;q=2", ""),
            ("br", ""),
            ("", ""),
        ] {
            assert_eq!(best(header), expected, "{header}");
        }
    }
}
