//! Splits a body into numbered lines of UTF-8. Not a parser of their content.
//!
//! Invariant: each byte is examined a bounded number of times, however many lines are not UTF-8.

use memchr::{memchr, memrchr};

/// Iterates over the lines of a body from number 1, without their line ends (`\n` or `\r\n`). A line
/// that is not UTF-8 is `None`.
pub(crate) struct Lines<'a> {
    /// Text that is known to be UTF-8 and not returned yet.
    valid: &'a str,
    /// The rest of the body, not validated yet. Whole lines: it begins at the start of a line.
    unread: &'a [u8],
    number: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { valid: "", unread: body, number: 0 }
    }

    /// Validates `unread` up to its first invalid line. Returns `None`, and skips that line, when it is the
    /// very next one.
    fn validate(&mut self) -> Option<()> {
        let invalid_at = match std::str::from_utf8(self.unread) {
            Ok(text) => {
                self.valid = text;
                self.unread = &[];
                return Some(());
            }
            Err(error) => error.valid_up_to(),
        };
        // All lines before the invalid one are valid. They are returned first; the invalid line is found
        // again by the next call, which then starts at it: no byte is validated more than twice.
        let line_start = memrchr(b'\n', &self.unread[..invalid_at]).map_or(0, |at| at + 1);
        let (valid, unread) = self.unread.split_at(line_start);
        self.unread = unread;
        if valid.is_empty() {
            let line_end = memchr(b'\n', unread).map_or(unread.len(), |at| at + 1);
            self.unread = &unread[line_end..];
            return None;
        }
        self.valid = std::str::from_utf8(valid).unwrap_or_default();
        Some(())
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.valid.is_empty() {
            if self.unread.is_empty() {
                return None;
            }
            if self.validate().is_none() {
                self.number += 1;
                return Some((self.number, None));
            }
        }
        self.number += 1;
        let line = match memchr(b'\n', self.valid.as_bytes()) {
            Some(end) => {
                let line = &self.valid[..end];
                self.valid = &self.valid[end + 1..];
                line
            }
            None => std::mem::take(&mut self.valid),
        };
        Some((self.number, Some(line.strip_suffix('\r').unwrap_or(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn an_invalid_line_does_not_affect_its_neighbours() {
        let body = b"a\r\nb\xff\n\nc\n\xff\n\xe9";
        let lines: Vec<_> = Lines::new(body).collect();
        let expected = [Some("a"), None, Some(""), Some("c"), None, None];
        assert_eq!(lines, (1..).zip(expected).collect::<Vec<_>>());
        assert_eq!(Lines::new(b"").count(), 0);
        assert_eq!(Lines::new(b"a\n").count(), 1);
    }
}
