//! Follows where the heads and bodies of a connection's requests end, and stops at a head that frames its body twice.
//!
//! `Content-Length` beside `Transfer-Encoding`, or a second `Content-Length`: two programs may read such a request
//! differently, and one of them then takes a part of the body for the next request (RFC 9112, 6.1 and 11.2). hyper drops
//! one of the headers before anybody else sees them, so the bytes are looked at before hyper reads them. Not a parser:
//! whatever else is wrong with a request, hyper refuses it and closes the connection. Invariant: as long as hyper
//! accepts the requests, each byte is taken for a part of the same head or body as hyper takes it.

/// The names that say how a body is framed.
const CONTENT_LENGTH: &[u8] = b"content-length";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding";
/// A name that is longer is none of them.
const MAX_NAME_BYTES: usize = TRANSFER_ENCODING.len();

/// Where in its requests a connection is.
#[derive(Debug)]
pub(super) struct Framing {
    at: At,
    /// What is known of the present head.
    length: Option<u64>,
    chunked: bool,
}

#[derive(Debug)]
enum At {
    /// Before a request line, where empty lines are skipped.
    Start,
    /// In a line whose content does not matter; `next` follows it.
    Line { next: Next },
    /// At the start of a header, or in its name.
    Name { name: [u8; MAX_NAME_BYTES], length: usize },
    /// In the value of `Content-Length`.
    Length,
    /// In a body, or in the data of a chunk with the line end behind it.
    Data { left: u64, next: Next },
    /// At the start of a chunk's size, or in it.
    Size { size: u64 },
    /// In what follows a chunk's size.
    Extension { size: u64 },
    /// At the start of a line behind the last chunk.
    Trailer,
    /// What follows is read by nobody.
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Start,
    Header,
    Size,
    Trailer,
}

impl Next {
    fn begin(self) -> At {
        match self {
            Self::Start => At::Start,
            Self::Header => At::Name { name: [0; MAX_NAME_BYTES], length: 0 },
            Self::Size => At::Size { size: 0 },
            Self::Trailer => At::Trailer,
        }
    }
}

impl Default for Framing {
    fn default() -> Self {
        Self { at: At::Start, length: None, chunked: false }
    }
}

impl Framing {
    /// Returns whether a head was refused.
    pub(super) fn has_refused(&self) -> bool {
        matches!(self.at, At::Refused)
    }

    /// Follows the next `bytes`, and returns how many of them hyper may read. If a head frames its body twice, the byte
    /// behind the name of the second header is replaced by one that no head may have, and is the last to be read.
    pub(super) fn follow(&mut self, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while done < bytes.len() && !self.has_refused() {
            done += self.step(&bytes[done..]);
            if self.has_refused() {
                bytes[done - 1] = 0;
            }
        }
        done
    }

    /// Follows some of `rest`, which is not empty, and returns how many bytes.
    fn step(&mut self, rest: &[u8]) -> usize {
        let line_end = || memchr::memchr(b'\n', rest);
        match &mut self.at {
            At::Start => {
                if rest[0] == b'\r' || rest[0] == b'\n' {
                    return 1;
                }
                (self.length, self.chunked) = (None, false);
                self.at = At::Line { next: Next::Header };
                0
            }
            At::Line { next } => {
                let Some(end) = line_end() else { return rest.len() };
                self.at = next.begin();
                end + 1
            }
            At::Name { name, length } => {
                let byte = rest[0];
                match byte {
                    // An empty line ends the head; a line without a colon is for hyper to refuse.
                    b'\n' => self.at = self.body(),
                    b'\r' => {}
                    b':' => {
                        let name = *name;
                        let length = (*length).min(MAX_NAME_BYTES);
                        self.at = self.value_of(&name[..length]);
                    }
                    _ if *length == MAX_NAME_BYTES => self.at = At::Line { next: Next::Header },
                    _ => {
                        name[*length] = byte.to_ascii_lowercase();
                        *length += 1;
                    }
                }
                1
            }
            At::Length => {
                let byte = rest[0];
                match (byte, &mut self.length) {
                    (b'\n', _) => self.at = Next::Header.begin(),
                    (b'0'..=b'9', Some(length)) => {
                        *length = length.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                    }
                    _ => {}
                }
                1
            }
            At::Data { left, next } => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= here as u64;
                if *left == 0 {
                    self.at = next.begin();
                }
                here
            }
            At::Size { size } => {
                let digit = char::from(rest[0]).to_digit(16);
                match digit {
                    Some(digit) => {
                        *size = size.saturating_mul(16).saturating_add(u64::from(digit));
                        1
                    }
                    None => {
                        self.at = At::Extension { size: *size };
                        0
                    }
                }
            }
            At::Extension { size } => {
                let Some(end) = line_end() else { return rest.len() };
                self.at = match *size {
                    0 => At::Trailer,
                    // The line end behind the data counts with it.
                    size => At::Data { left: size.saturating_add(2), next: Next::Size },
                };
                end + 1
            }
            At::Trailer => match rest[0] {
                b'\r' => 1,
                b'\n' => {
                    self.at = At::Start;
                    1
                }
                _ => {
                    self.at = At::Line { next: Next::Trailer };
                    0
                }
            },
            At::Refused => rest.len(),
        }
    }

    /// Returns what follows the name of a header.
    fn value_of(&mut self, name: &[u8]) -> At {
        let framed = self.length.is_some() || self.chunked;
        match name {
            CONTENT_LENGTH if framed => At::Refused,
            CONTENT_LENGTH => {
                self.length = Some(0);
                At::Length
            }
            TRANSFER_ENCODING if self.length.is_some() => At::Refused,
            TRANSFER_ENCODING => {
                // hyper refuses any other coding.
                self.chunked = true;
                At::Line { next: Next::Header }
            }
            _ => At::Line { next: Next::Header },
        }
    }

    /// Returns what follows the head.
    fn body(&self) -> At {
        match self.length {
            _ if self.chunked => At::Size { size: 0 },
            Some(left) if left > 0 => At::Data { left, next: Next::Start },
            _ => At::Start,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

    use super::*;

    /// Follows `text` in pieces; returns what may be read.
    fn read(text: &[u8], sizes: &[usize]) -> (Vec<u8>, Framing) {
        let (mut framing, mut seen, mut text) = (Framing::default(), Vec::new(), text.to_vec());
        let mut sizes = sizes.iter().copied().cycle();
        let mut rest = &mut text[..];
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
            let (piece, behind) = rest.split_at_mut(size);
            let passed = framing.follow(piece);
            seen.extend_from_slice(&piece[..passed]);
            rest = behind;
        }
        (seen, framing)
    }

    const TWICE: [&str; 5] = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "transfer-encoding: chunked\r\nX: y\r\ncontent-length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nCONTENT-LENGTH: 7\r\n",
        "Content-Length:5\nTransfer-Encoding:chunked\n",
    ];

    #[test]
    fn a_head_that_frames_its_body_twice_ends_behind_the_second_name() {
        for framing in TWICE {
            let head = format!("POST /x HTTP/1.1\r\nHost: x\r\n{framing}\r\n0\r\n\r\n");
            for size in [1, 2, 7, usize::MAX] {
                let (seen, state) = read(head.as_bytes(), &[size]);
                assert!(state.has_refused(), "{framing}");
                let (last, before) = seen.split_last().expect("something");
                assert_eq!(*last, 0);
                assert!(head.as_bytes().starts_with(before));
                assert!(before.ends_with(b"h") || before.ends_with(b"H") || before.ends_with(b"g"));
            }
        }
    }

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let body = prop::collection::vec(any::<u8>(), 0..300);
        // What would be refused if it were taken for a head.
        let tricky = || {
            let head = format!("GET / HTTP/1.1\r\n{}\r\n", TWICE[0]);
            prop_oneof![
                Just(TWICE.concat().into_bytes()),
                Just(format!("{head}{head}").into_bytes()),
                Just(format!("\r\n\r\n{head}").into_bytes()),
            ]
        };
        let chunk = prop_oneof![prop::collection::vec(any::<u8>(), 1..200), tricky()];
        let chunks = prop::collection::vec(chunk, 0..4);
        let tricky = prop_oneof![body, tricky()];
        prop_oneof![
            Just(b"GET / HTTP/1.1\r\nX-Content-Length: 5\r\nContent-Length-X: 5\r\n\r\n".to_vec()),
            Just(b"\r\nGET /content-length:5 HTTP/1.1\nA:content-length: 5\n\n".to_vec()),
            tricky.prop_map(|body| {
                let head = format!("PUT /x HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
                [head.as_bytes(), &body].concat()
            }),
            chunks.prop_map(|chunks| {
                let mut out = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for chunk in chunks {
                    out.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(&chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"000\r\nContent-Length: 9\r\nContent-Length: 9\r\n\r\n");
                out
            }),
        ]
    }

    proptest! {
        #[test]
        fn requests_that_frame_their_bodies_once_are_read_as_they_are(
            requests in prop::collection::vec(request(), 1..6),
            sizes in prop::collection::vec(1_usize..100, 1..10),
        ) {
            let text = requests.concat();
            let (seen, state) = read(&text, &sizes);
            assert!(seen == text && !state.has_refused());
            // Each of them has ended, so a further one is seen for what it is.
            let more = format!("POST /x HTTP/1.1\r\n{}\r\n", TWICE[0]);
            assert!(read(&[&text, more.as_bytes()].concat(), &sizes).1.has_refused());
        }
    }
}
