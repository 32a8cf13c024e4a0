//! The text of a page as lines, read from the chunks that scrapes share.
//!
//! Invariant: a position stays valid, since the chunks never change.

use std::sync::Arc;

use bytes::Bytes;

/// The own metrics, and the chunks of the mirrored series behind them.
pub(super) struct Text {
    own: Bytes,
    mirrored: Arc<[Bytes]>,
}

/// Where a line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Position {
    /// The index of the chunk; the own metrics have the first.
    chunk: usize,
    /// In bytes.
    offset: usize,
}

impl Text {
    pub(super) fn new(own: Bytes, mirrored: Arc<[Bytes]>) -> Self {
        Self { own, mirrored }
    }

    /// Returns the line at a position without its line feed, and the position behind it; `None` at the end.
    pub(super) fn line(&self, mut at: Position) -> Option<(&[u8], Position)> {
        loop {
            let rest = &self.chunk(at.chunk)?[at.offset..];
            if rest.is_empty() {
                at = Position { chunk: at.chunk + 1, offset: 0 };
                continue;
            }
            let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let offset = (at.offset + length + 1).min(at.offset + rest.len());
            return Some((&rest[..length], Position { offset, ..at }));
        }
    }

    /// Returns the position of the next header line from a line on, or the end; and how many bytes are before it.
    pub(super) fn next_header(&self, mut at: Position) -> (Position, usize) {
        let mut skipped = 0;
        while let Some(chunk) = self.chunk(at.chunk) {
            let rest = &chunk[at.offset..];
            let found = match rest {
                [b'#', ..] => Some(0),
                // Label values have no line feeds: these are escaped.
                _ => memchr::memmem::find(rest, b"\n#").map(|before| before + 1),
            };
            if let Some(found) = found {
                return (Position { offset: at.offset + found, ..at }, skipped + found);
            }
            skipped += rest.len();
            at = Position { chunk: at.chunk + 1, offset: 0 };
        }
        (at, skipped)
    }

    fn chunk(&self, index: usize) -> Option<&Bytes> {
        match index.checked_sub(1) {
            None => Some(&self.own),
            Some(index) => self.mirrored.get(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_headers_are_found_across_chunks() {
        let chunks = ["# A\na 1\n", "", "a 2\na 3\n", "a 4\n", "# B\nb{x=\"\\n#\"} 1\n# C\n"];
        let chunks: Vec<Bytes> = chunks.iter().map(|&chunk| chunk.into()).collect();
        let text = Text::new("own 1\n".into(), chunks.clone().into());
        let mut lines = Vec::new();
        let mut at = Position::default();
        while let Some((line, next)) = text.line(at) {
            lines.push(String::from_utf8_lossy(line).into_owned());
            at = next;
        }
        assert_eq!(
            lines.join("\n") + "\n",
            "own 1\n".to_owned() + &String::from_utf8_lossy(&chunks.concat())
        );
        let mut headers = Vec::new();
        let mut at = Position::default();
        loop {
            let (found, _) = text.next_header(at);
            let Some((line, next)) = text.line(found) else { break };
            headers.push(line[2]);
            at = next;
        }
        assert_eq!(headers, b"ABC");
        let (_, behind_own) = text.line(Position::default()).expect("a line");
        assert_eq!(text.next_header(behind_own).1, 0);
    }
}
