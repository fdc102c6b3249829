//! What others chose (names of files and users, reasons, the words of servers) on its way to its reader. One function for
//! each kind of output; nothing else writes such text.
//!
//! | output | function |
//! |---|---|
//! | a terminal, a log, one line of text | [`Shown::name`] for paths, [`Shown::text`] for sentences |
//! | text of several lines of our own (a mail, help) | [`page`] |
//! | JSON | [`json`], over the finished JSON |
//! | a field of CSV | [`csv_field`] |
//!
//! What is escaped: control characters (C0, DEL, C1), what changes the direction of text, separators of lines and paragraphs, and
//! what has no picture of its own (zero-width and other format characters, Unicode's `Default_Ignorable_Code_Point`). A terminal obeys
//! the first; a person reads another name than there is because of the others.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// General category Cf, Zl and Zp, and what is default-ignorable (Unicode 15), reserved places included. First and last.
const UNSEEN: [(u32, u32); 25] = [
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x600, 0x605),
    (0x61C, 0x61C),
    (0x6DD, 0x6DD),
    (0x70F, 0x70F),
    (0x890, 0x891),
    (0x8E2, 0x8E2),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
];

/// Whether a character does something else than to be seen.
pub fn is_hostile(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    let code = u32::from(c);
    c.is_control()
        || UNSEEN
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&code))
}

/// Text without any character that [`is_hostile`]: it can only be made by escaping.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shown<'a>(Cow<'a, str>);

impl<'a> Shown<'a> {
    /// A name or a path. What is written tells exactly which bytes there are: `\` stands doubled, bytes that are no UTF-8 are
    /// `\xff`, characters `\n`, `\t`, `\x1b`, `\u{202e}`.
    pub fn name(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.chars().any(|c| c == '\\' || is_hostile(c)) => Self(Cow::Borrowed(text)),
            _ => Self(Cow::Owned(escaped_name(bytes))),
        }
    }

    /// A sentence, in which names may stand that are escaped already: `\` stays as it is.
    pub fn text(text: &'a str) -> Self {
        match text.chars().any(is_hostile) {
            false => Self(Cow::Borrowed(text)),
            true => Self(Cow::Owned(escaped(text, |_| false))),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as a value of its own.
    pub fn into_string(self) -> String {
        self.0.into_owned()
    }

    /// The same for longer than what it was made from.
    pub fn into_owned(self) -> Shown<'static> {
        Shown(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'a> From<&'a str> for Shown<'a> {
    fn from(text: &'a str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Shown<'_> {
    fn from(text: String) -> Self {
        match text.chars().any(is_hostile) {
            false => Self(Cow::Owned(text)),
            true => Self(Cow::Owned(escaped(&text, |_| false))),
        }
    }
}

/// So much of a path stands in a line of the log.
pub const LOGGED_MAX: usize = 1000;

/// As much of a path as a line of a log has room for: a user may make one of 32 KiB, and 100,000 files there. What is longer than
/// `bytes_max` loses its middle.
pub fn cut(path: &[u8], bytes_max: usize) -> Cow<'_, [u8]> {
    let rest = path.len().saturating_sub(bytes_max);
    let (Some(head), Some(tail)) = (
        path.get(..bytes_max - bytes_max / 3),
        path.get(path.len() - (bytes_max / 3).min(path.len())..),
    ) else {
        return Cow::Borrowed(path);
    };
    match rest {
        0 => Cow::Borrowed(path),
        rest => Cow::Owned([head, format!("...[{rest} bytes]...").as_bytes(), tail].concat()),
    }
}

/// Several lines: only their ends stay, each line is as by [`Shown::text`].
pub fn page(text: &str) -> Cow<'_, str> {
    let stays = |c| c == '\n';
    match text.chars().any(|c| is_hostile(c) && !stays(c)) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(escaped(text, stays)),
    }
}

/// JSON that a program has made, with what is hostile as `\uXXXX`: a parser finds the same values. Outside of strings there
/// is only ASCII, so every such character stands in a string.
pub fn json(text: &str) -> Cow<'_, str> {
    // Nearly every text: one look at each byte.
    if text.bytes().all(|b| b < 0x7f) {
        return Cow::Borrowed(text);
    }
    let is_meant = |c: char| is_hostile(c) && c >= '\x7f';
    if !text.chars().any(is_meant) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_meant(c) {
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    put(&mut out, format_args!("\\u{unit:04x}"));
                }
            }
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// What a spreadsheet takes for the beginning of a formula, and what keeps it from that.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{FF1D}', '\u{FF0B}', '\u{FF0D}', '\u{FF20}'];
const NO_FORMULA: char = '\'';

/// A text as a field of CSV, in quotes where it must be. What a spreadsheet would compute gets an apostrophe before it, as
/// OWASP advises against CSV injection; so does what begins with an apostrophe, so that no two texts become the same field. Numbers are
/// not for this function: a program may write `-5` as it is.
pub fn csv_field(text: &Shown<'_>) -> String {
    let text = text.as_str();
    let begins = text.trim_start().chars().next();
    let guarded = begins.is_some_and(|c| c == NO_FORMULA || FORMULA.contains(&c));
    // Some read `;` or tabs as the end of a field.
    let quoted = guarded || text.contains([',', ';', '"', '|', '\t']) || text.trim() != text;
    if !quoted {
        return text.to_owned();
    }
    let mark = if guarded { "'" } else { "" };
    format!("\"{mark}{}\"", text.replace('"', "\"\""))
}

fn escaped_name(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().saturating_add(8));
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c => push(&mut out, c),
            }
        }
        for byte in chunk.invalid() {
            put(&mut out, format_args!("\\x{byte:02x}"));
        }
    }
    out
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(8));
    for c in text.chars() {
        match stays(c) {
            true => out.push(c),
            false => push(&mut out, c),
        }
    }
    out
}

fn push(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        c if !is_hostile(c) => out.push(c),
        c if c.is_ascii() => put(out, format_args!("\\x{:02x}", u32::from(c))),
        // Not `\x85`: that is a byte.
        c => put(out, format_args!("\\u{{{:x}}}", u32::from(c))),
    }
}

/// Writing to a string cannot fail.
fn put(out: &mut String, what: fmt::Arguments<'_>) {
    let _ = out.write_fmt(what);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_form_shows_what_is_there() {
        let evil = "a\n\t\r\x1b[31m\x07\u{85}\u{202e}\u{2028}\u{200b}\u{e0041}\\é";
        let seen = "a\\n\\t\\x0d\\x1b[31m\\x07\\u{85}\\u{202e}\\u{2028}\\u{200b}\\u{e0041}";
        assert_eq!(Shown::name(evil.as_bytes()).as_str(), format!("{seen}\\\\é"));
        assert_eq!(Shown::text(evil).as_str(), format!("{seen}\\é"));
        assert_eq!(Shown::name(b"\xff\xc2").as_str(), "\\xff\\xc2");
        assert_eq!(page("a\nb\x1b"), "a\nb\\x1b");
        assert_eq!(
            json("{\"\u{202e}\u{e0041}\u{7f}\u{9b}é\"}\n"),
            "{\"\\u202e\\udb40\\udc41\\u007f\\u009bé\"}\n"
        );
        assert_eq!(format!("{:>4}|", Shown::text("é")), "   é|");
    }

    #[test]
    fn no_field_is_a_formula() {
        let field = |text: &str| csv_field(&Shown::text(text));
        for (text, expected) in [
            ("plain", "plain"),
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@x", "\"'@x\""),
            (" =1", "\"' =1\""),
            ("\u{ff1d}1", "\"'\u{ff1d}1\""),
            ("'=1", "\"''=1\""),
            ("a;=1", "\"a;=1\""),
            ("a\"b", "\"a\"\"b\""),
            ("\t=1", "\\t=1"),
            ("\r=1", "\\x0d=1"),
            ("a-b", "a-b"),
        ] {
            assert_eq!(field(text), expected);
        }
    }

    /// Text in which what matters is frequent.
    fn text() -> impl Strategy<Value = String> {
        let odd = prop::sample::select(vec![
            '\0',
            '\n',
            '\r',
            '\t',
            '\x1b',
            '\x7f',
            '\u{80}',
            '\u{9f}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0001}',
            '\\',
            '"',
            '\'',
            '=',
            ',',
            ';',
            'x',
            'u',
            'n',
            '{',
            '}',
            '8',
            '5',
            'é',
            '/',
        ]);
        prop::collection::vec(prop_oneof![odd, any::<char>()], 0..24)
            .prop_map(|all| all.into_iter().collect())
    }

    /// Bytes in which both text and what is none are frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            text().prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..4)
        ];
        prop::collection::vec(part, 0..4).prop_map(|parts| parts.concat())
    }

    /// What [`Shown::name`] wrote, read back.
    fn read(mut shown: &str) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(c) = shown.chars().next() {
            shown = &shown[c.len_utf8()..];
            if c != '\\' {
                out.extend(c.to_string().bytes());
                continue;
            }
            let kind = shown.chars().next().unwrap();
            shown = &shown[1..];
            match kind {
                'n' => out.push(b'\n'),
                't' => out.push(b'\t'),
                '\\' => out.push(b'\\'),
                'x' => {
                    out.push(u8::from_str_radix(&shown[..2], 16).unwrap());
                    shown = &shown[2..];
                }
                _ => {
                    let (code, rest) = shown.strip_prefix('{').unwrap().split_once('}').unwrap();
                    let c = char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap();
                    out.extend(c.to_string().bytes());
                    shown = rest;
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn nothing_hostile_is_left(text in text(), bytes in bytes()) {
            prop_assert!(!Shown::name(&bytes).as_str().chars().any(is_hostile));
            prop_assert!(!Shown::text(&text).as_str().chars().any(is_hostile));
            prop_assert!(!Shown::from(text.clone()).as_str().chars().any(is_hostile));
            prop_assert!(!page(&text).chars().any(|c| c != '\n' && is_hostile(c)));
            prop_assert!(!csv_field(&Shown::name(&bytes)).chars().any(is_hostile));
        }

        #[test]
        fn what_is_clean_stays(text in text()) {
            let once = Shown::text(&text).into_string();
            let (line, paged, safe) = (Shown::text(&once), page(&text).into_owned(), json(&text).into_owned());
            prop_assert_eq!(line.as_str(), &once);
            prop_assert_eq!(page(&paged), &*paged);
            prop_assert_eq!(json(&safe), &*safe);
            let clean: String = text.chars().filter(|c| *c != '\\' && !is_hostile(*c)).collect();
            let shown = Shown::name(clean.as_bytes());
            prop_assert_eq!(shown.as_str(), &clean);
        }

        /// So no two paths look the same.
        #[test]
        fn a_name_can_be_read_back(bytes in bytes()) {
            let shown = Shown::name(&bytes).into_string();
            prop_assert_eq!(read(&shown), bytes);
        }

        #[test]
        fn json_keeps_its_value(text in text()) {
            let written = serde_json::to_string(&serde_json::json!({ &text: [&text, 1] })).unwrap();
            let safe = json(&written);
            prop_assert!(!safe.chars().any(is_hostile));
            let before: serde_json::Value = serde_json::from_str(&written).unwrap();
            let after: serde_json::Value = serde_json::from_str(&safe).unwrap();
            prop_assert_eq!(before, after);
        }

        /// A reader of CSV finds the text, or an apostrophe and the text.
        #[test]
        fn a_field_is_no_formula_and_can_be_read_back(text in text()) {
            let shown = Shown::name(text.as_bytes());
            let field = csv_field(&shown);
            let inner = match field.strip_prefix('"') {
                Some(quoted) => quoted.strip_suffix('"').unwrap().replace("\"\"", "\""),
                None => field.clone(),
            };
            prop_assert!(!inner.trim_start().starts_with(FORMULA));
            prop_assert_eq!(inner.strip_prefix('\'').unwrap_or(&inner), shown.as_str());
        }
    }
}
