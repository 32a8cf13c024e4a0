//! Regular expressions in the syntax of Prometheus, which is that of Go and RE2, as ones of the `regex` crate.
//!
//! Both run in linear time, but read some texts differently: for Prometheus `\w`, `\d` and `\s` are ASCII, `[a&&b]`
//! is a class of two characters, and `\Q` quotes. So an expression is read as
//! <https://pkg.go.dev/regexp/syntax> describes, and written anew. Not the matching.
//! Invariant: what is translated matches the same texts as in Prometheus; what can't be is an error.

use std::fmt::Write as _;
use std::str::Chars;

/// The most repetitions that an expression may ask for.
const MOST_REPETITIONS: u32 = 1000;

/// The general categories that both syntaxes have and mean the same by. `C` and `Cs` are not among them: Go knows
/// no unassigned characters, and `regex` no surrogates.
const CATEGORIES: &[&str] = &[
    "Cc", "Cf", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N", "Nd", "Nl",
    "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm", "So", "Z", "Zl",
    "Zp", "Zs",
];

const POSIX_CLASSES: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// Translates an expression. `regex` compiles the result, and finds what is left to be refused.
///
/// # Errors
/// In words, when the text is not an expression of Prometheus, or has no equal.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        rest: pattern.chars(),
        out: String::with_capacity(pattern.len() + 16),
        depth: 0,
    };
    translator.expression()?;
    Ok(translator.out)
}

struct Translator<'a> {
    rest: Chars<'a>,
    out: String,
    /// How many groups are open.
    depth: usize,
}

/// What came before, as far as a repetition must know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Something,
    Repetition,
}

impl Translator<'_> {
    fn expression(&mut self) -> Result<(), String> {
        let mut before = Before::Nothing;
        while let Some(c) = self.rest.next() {
            before = match c {
                '(' => self.group()?,
                ')' => {
                    self.depth = self.depth.checked_sub(1).ok_or("a `)` without its `(`")?;
                    self.out.push(')');
                    Before::Something
                }
                '|' => {
                    self.out.push('|');
                    Before::Nothing
                }
                '*' | '+' | '?' => {
                    self.out.push(c);
                    self.repetition(before)?
                }
                '{' => self.braces(before)?,
                '[' => {
                    self.class()?;
                    Before::Something
                }
                '.' | '^' | '$' => {
                    self.out.push(c);
                    Before::Something
                }
                '\\' => self.backslash(before)?,
                c => {
                    self.literal(c);
                    Before::Something
                }
            };
        }
        if self.depth > 0 { Err("a `(` without its `)`".to_owned()) } else { Ok(()) }
    }

    /// Reads what follows `(`.
    fn group(&mut self) -> Result<Before, String> {
        if !self.take("?") {
            self.depth += 1;
            self.out.push_str("(?:");
            return Ok(Before::Nothing);
        }
        if self.take("P<") || self.take("<") {
            let text = self.rest.as_str();
            let (name, _) = text.split_once('>').ok_or("the name of a group has no end")?;
            let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if name.is_empty() || !name.bytes().all(word) {
                return Err(format!("{name:?} is no name of a group"));
            }
            self.skip(name.len() + 1);
            self.depth += 1;
            self.out.push_str("(?:");
            return Ok(Before::Nothing);
        }
        let text = self.rest.as_str();
        let end = text.find([':', ')']).ok_or("a `(?` without its end")?;
        let (flags, opens) = (&text[..end], text.as_bytes()[end] == b':');
        let (on, off) = flags.split_once('-').unwrap_or((flags, "i"));
        let known = |flags: &str| flags.chars().all(|flag| "imsU".contains(flag));
        if !known(on) || !known(off) || off.is_empty() || flags.is_empty() && !opens {
            return Err(format!("unknown flags {flags:?}"));
        }
        let _ = write!(self.out, "(?{}", &text[..=end]);
        self.skip(end + 1);
        self.depth += usize::from(opens);
        // A repetition behind flags would repeat what stands before them, which `regex` can't say.
        Ok(Before::Nothing)
    }

    /// Reads what follows an operator of repetition.
    fn repetition(&mut self, before: Before) -> Result<Before, String> {
        match before {
            Before::Nothing => Err("a repetition of nothing".to_owned()),
            Before::Repetition => Err("a repetition of a repetition".to_owned()),
            Before::Something => {
                if self.take("?") {
                    self.out.push('?');
                }
                Ok(Before::Repetition)
            }
        }
    }

    /// Reads what follows `{`, which is literal unless it begins a repetition.
    fn braces(&mut self, before: Before) -> Result<Before, String> {
        let text = self.rest.as_str();
        let Some((bounds, _)) = text.split_once('}') else {
            self.literal('{');
            return Ok(Before::Something);
        };
        let (least, most) = bounds.split_once(',').unwrap_or((bounds, bounds));
        let plain = |text: &str| {
            text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
        };
        if least.is_empty() || !plain(least) || !plain(most) {
            self.literal('{');
            return Ok(Before::Something);
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= MOST_REPETITIONS);
        let too_many = || format!("more than {MOST_REPETITIONS} repetitions");
        let least = number(least).ok_or_else(too_many)?;
        let most = if most.is_empty() { None } else { Some(number(most).ok_or_else(too_many)?) };
        if most.is_some_and(|most| most < least) {
            return Err("a repetition with its bounds the wrong way round".to_owned());
        }
        let _ = write!(self.out, "{{{bounds}}}");
        self.skip(bounds.len() + 1);
        self.repetition(before)
    }

    /// Reads what follows a backslash outside of a class.
    fn backslash(&mut self, before: Before) -> Result<Before, String> {
        let mut ahead = self.rest.clone();
        let Some(c) = ahead.next() else { return Err("a `\\` at the end".to_owned()) };
        match c {
            'A' | 'z' => {
                self.out.push('\\');
                self.out.push(c);
            }
            'b' | 'B' => {
                let _ = write!(self.out, "(?-u:\\{c})");
            }
            'Q' => {
                self.rest = ahead;
                let text = self.rest.as_str();
                // Go quotes to the end where there is no `\E`, and in Prometheus its anchor with it.
                let (quoted, after) = text.split_once("\\E").ok_or("a `\\Q` without its `\\E`")?;
                quoted.chars().for_each(|c| self.literal(c));
                self.rest = after.chars();
                return Ok(if quoted.is_empty() { before } else { Before::Something });
            }
            _ if self.take_set()? => return Ok(Before::Something),
            _ => {
                let c = self.escape()?;
                self.literal(c);
                return Ok(Before::Something);
            }
        }
        self.rest = ahead;
        Ok(Before::Something)
    }

    /// Reads what follows `[`.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.take("^") {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if !std::mem::take(&mut first) && self.take("]") {
                self.out.push(']');
                return Ok(());
            }
            if let Some(named) = self.rest.as_str().strip_prefix("[:")
                && let Some((name, _)) = named.split_once(":]")
            {
                if !POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)) {
                    return Err(format!("an unknown class {name:?}"));
                }
                let _ = write!(self.out, "[:{name}:]");
                self.skip(name.len() + 4);
                continue;
            }
            let escaped = self.take("\\");
            if !(escaped && self.take_set()?) {
                self.range(escaped)?;
            }
        }
    }

    /// Reads a character of a class or a range of them; of an `escaped` one the backslash was read.
    fn range(&mut self, escaped: bool) -> Result<(), String> {
        let low = self.class_char(escaped)?;
        let mut high = low;
        let text = self.rest.as_str();
        if text.len() > 1 && text.starts_with('-') && !text.starts_with("-]") {
            self.skip(1);
            let escaped = self.take("\\");
            high = self.class_char(escaped)?;
        }
        if high < low {
            return Err("a range with its ends the wrong way round".to_owned());
        }
        let _ = write!(self.out, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(low), u32::from(high));
        Ok(())
    }

    fn class_char(&mut self, escaped: bool) -> Result<char, String> {
        if escaped {
            return self.escape();
        }
        self.rest.next().ok_or_else(|| "a `[` without its `]`".to_owned())
    }

    /// Reads the name of a set of characters behind a backslash, such as `d`; returns whether there is one.
    fn take_set(&mut self) -> Result<bool, String> {
        let mut ahead = self.rest.clone();
        let set = match ahead.next() {
            Some('d') => "[0-9]",
            Some('D') => "[^0-9]",
            // Without the vertical tab, as in Perl before 5.18.
            Some('s') => r"[\t\n\f\r ]",
            Some('S') => r"[^\t\n\f\r ]",
            Some('w') => "[0-9A-Za-z_]",
            Some('W') => "[^0-9A-Za-z_]",
            Some(sign @ ('p' | 'P')) => {
                self.rest = ahead;
                self.unicode_set(sign == 'P')?;
                return Ok(true);
            }
            _ => return Ok(false),
        };
        self.rest = ahead;
        self.out.push_str(set);
        Ok(true)
    }

    fn unicode_set(&mut self, mut negated: bool) -> Result<(), String> {
        let text = self.rest.as_str();
        let mut name = &text[..text.chars().next().map_or(0, char::len_utf8)];
        let mut length = name.len();
        if name == "{" {
            (name, _) = text[1..].split_once('}').ok_or("a `\\p{` without its `}`")?;
            length = name.len() + 2;
        }
        if let Some(opposite) = name.strip_prefix('^') {
            (name, negated) = (opposite, !negated);
        }
        // The names of scripts begin with a capital and have no other signs.
        let script = name.len() > 2
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        let known = name == "Any" || CATEGORIES.contains(&name);
        if !known && !script {
            return Err(format!("an unknown set of characters {name:?}"));
        }
        let property = if known { "" } else { "Script=" };
        let _ = write!(self.out, "\\{}{{{property}{name}}}", if negated { 'P' } else { 'p' });
        self.skip(length);
        Ok(())
    }

    /// Reads the character that is behind a backslash.
    fn escape(&mut self) -> Result<char, String> {
        let unknown = |c: char| format!("an unknown escape `\\{c}`");
        let c = self.rest.next().ok_or("a `\\` at the end")?;
        Ok(match c {
            'a' => '\u{7}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            'x' => return self.hexadecimal(),
            '0'..='7' => {
                let text = self.rest.as_str();
                let more = text.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                // A single digit other than 0 would refer to a group.
                if more == 0 && c != '0' {
                    return Err(unknown(c));
                }
                let code = u32::from_str_radix(&format!("{c}{}", &text[..more]), 8);
                self.skip(more);
                code.ok().and_then(char::from_u32).ok_or_else(|| unknown(c))?
            }
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => c,
            c => return Err(unknown(c)),
        })
    }

    fn hexadecimal(&mut self) -> Result<char, String> {
        let text = self.rest.as_str();
        let (digits, length) = match text.strip_prefix('{') {
            Some(braced) => {
                let (digits, _) = braced.split_once('}').ok_or("a `\\x{` without its `}`")?;
                (digits, digits.len() + 2)
            }
            None => (text.get(..2).ok_or("a `\\x` without two digits")?, 2),
        };
        let hexadecimal = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let code = u32::from_str_radix(digits, 16).ok().filter(|_| hexadecimal);
        self.skip(length);
        code.and_then(char::from_u32).ok_or_else(|| "a `\\x` that is no character".to_owned())
    }

    fn literal(&mut self, c: char) {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' {
            let _ = write!(self.out, "\\x{{{:x}}}", u32::from(c));
        } else {
            self.out.push(c);
        }
    }

    /// Takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        let found = self.rest.as_str().starts_with(token);
        if found {
            self.skip(token.len());
        }
        found
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.as_str()[bytes..].chars();
    }
}
