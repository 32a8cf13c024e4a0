//! Keys as text that sorts on disk as the keys sort in memory.
//!
//! The text is a JSON string, as the journal has it. It holds the parts of a key one after the
//! other: a text ends with `##`, an integer has 16 hexadecimal digits. Characters up to `#` are
//! escaped, so that a quotation mark, a control character or the end of a text never stands for
//! itself. A backslash is doubled, as in all JSON, which changes no order: two of them sort where
//! one does.
//!
//! Invariant: texts compare, byte by byte, as the keys do; and a key reads back as it was written.

use std::sync::Arc;

/// Begins an escaped character, and ends a text when there are two. The lowest that is ever written.
const MARK: char = '#';
/// An escaped character is written as one that is so much higher: above [`MARK`], so that a text sorts
/// before those that it begins, and below the backslash.
const SHIFT: u32 = MARK as u32 + 1;
const HEX_DIGITS: usize = 16;
/// A text for which no more room is needed, mostly.
const USUAL_BYTES: usize = 64;

/// What is written as a key is, or as a part of one.
pub(in crate::store::embedded) trait WriteKey {
    /// Appends the key to `text`.
    fn write(&self, text: &mut String);
}

/// A key, or a part of one.
pub(in crate::store::embedded) trait OrderedKey:
    WriteKey + Sized
{
    /// Takes a key from the front of `text`; `None` when none is there.
    fn read(text: &mut &str) -> Option<Self>;
}

impl WriteKey for &str {
    fn write(&self, text: &mut String) {
        for char in self.chars() {
            match char {
                '\0'..=MARK => {
                    text.push(MARK);
                    text.extend(char::from_u32(char as u32 + SHIFT));
                }
                '\\' => text.push_str("\\\\"),
                char => text.push(char),
            }
        }
        text.extend([MARK, MARK]);
    }
}

impl WriteKey for String {
    fn write(&self, text: &mut String) {
        self.as_str().write(text);
    }
}

impl OrderedKey for String {
    fn read(text: &mut &str) -> Option<Self> {
        let mut read = Self::new();
        let mut chars = text.chars();
        loop {
            match chars.next()? {
                MARK => match chars.next()? {
                    MARK => break,
                    char => read.push(char::from_u32((char as u32).checked_sub(SHIFT)?)?),
                },
                '\\' => read.extend(chars.next().filter(|char| *char == '\\')),
                char => read.push(char),
            }
        }
        *text = chars.as_str();
        Some(read)
    }
}

impl WriteKey for i64 {
    fn write(&self, text: &mut String) {
        // With the sign turned, the negative ones come first.
        let turned = self.cast_unsigned() ^ (1 << 63);
        for digit in (0..HEX_DIGITS).rev() {
            text.extend(char::from_digit((turned >> (4 * digit) & 15) as u32, 16));
        }
    }
}

impl OrderedKey for i64 {
    fn read(text: &mut &str) -> Option<Self> {
        let (digits, rest) = text.split_at_checked(HEX_DIGITS)?;
        *text = rest;
        let turned = u64::from_str_radix(digits, 16).ok()?;
        Some((turned ^ (1 << 63)).cast_signed())
    }
}

impl<A: WriteKey, B: WriteKey> WriteKey for (A, B) {
    fn write(&self, text: &mut String) {
        self.0.write(text);
        self.1.write(text);
    }
}

impl<A: OrderedKey, B: OrderedKey> OrderedKey for (A, B) {
    fn read(text: &mut &str) -> Option<Self> {
        Some((A::read(text)?, B::read(text)?))
    }
}

/// The text of a key. Cheap to clone.
pub(super) type KeyText = Arc<str>;

/// Returns the text of a key.
pub(super) fn key_text(key: &impl WriteKey) -> KeyText {
    let mut text = String::with_capacity(USUAL_BYTES);
    text.push('"');
    key.write(&mut text);
    text.push('"');
    text.into()
}

/// Returns the key of a text; `None` when it is none.
pub(super) fn read_key<K: OrderedKey>(text: &str) -> Option<K> {
    let mut rest = text.strip_prefix('"')?.strip_suffix('"')?;
    K::read(&mut rest).filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    type Key = ((String, i64), String);

    /// Texts of few characters, among them all that are treated in a way of their own.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof!["[\u{0}\u{1f} !\"#$@\\[\\\\\\]a\u{7f}é\u{10ffff}]{0,4}", ".{0,4}"]
    }

    fn keys() -> impl Strategy<Value = Key> {
        ((texts(), prop_oneof![any::<i64>(), -2..2_i64]), texts())
    }

    proptest! {
        #[test]
        fn texts_sort_as_keys_do(one in keys(), other in keys()) {
            prop_assert_eq!(key_text(&one).cmp(&key_text(&other)), one.cmp(&other));
        }

        #[test]
        fn keys_read_back_as_written_and_are_json(key in keys()) {
            let text = key_text(&key);
            prop_assert_eq!(read_key::<Key>(&text), Some(key));
            let plain: String = serde_json::from_str(&text).expect("is JSON");
            prop_assert_eq!(serde_json::to_string(&plain).expect("is written"), &*text);
        }
    }

    #[test]
    fn what_is_no_key_does_not_read() {
        for text in ["", "\"", "\"\"", "\"a\"", "\"a#\"", "\"a##b\"", "\"#!##\"", "a##"] {
            assert_eq!(read_key::<String>(text), None, "{text}");
        }
        assert_eq!(read_key::<i64>("\"800000000000000\""), None);
    }
}
