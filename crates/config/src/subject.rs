//! Subjects of certificates as people write them: `CN=slurm,O=Example` (RFC 4514). A subject is meant whole: `CN=backup` is only the
//! certificate whose subject has this one attribute and no other.
//!
//! - The order of attributes does not matter, because it is written from either end, unless a type occurs more than once: then it is
//!   that of the certificate, as the agent's log writes it.
//! - `CN=a+OU=b`, two attributes in one step, is something else than `CN=a,OU=b`.
//! - Special characters are written with a backslash before them, or as `\` and two hexadecimal digits for each byte.

use std::collections::BTreeSet;
use std::fmt;

/// A name, from the end where the certificate begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject(Vec<Step>);

/// Attributes of one step of a name: one, as a rule. Sorted.
type Step = Vec<(String, Value)>;

/// What an attribute says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// A string.
    Text(String),
    /// Something else, as it is encoded.
    Encoded(Vec<u8>),
}

/// Short names of types, and their numbers (RFC 4514, RFC 4519, PKCS #9). Others are written as numbers.
const TYPES: [(&str, &str); 16] = [
    ("CN", "2.5.4.3"),
    ("SN", "2.5.4.4"),
    ("SERIALNUMBER", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("STREET", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("TITLE", "2.5.4.12"),
    ("GN", "2.5.4.42"),
    ("INITIALS", "2.5.4.43"),
    ("DNQUALIFIER", "2.5.4.46"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("EMAILADDRESS", "1.2.840.113549.1.9.1"),
];
/// Other names of the same, as programs print them.
const ALSO: [(&str, &str); 5] = [
    ("E", "EMAILADDRESS"),
    ("EMAIL", "EMAILADDRESS"),
    ("S", "ST"),
    ("GIVENNAME", "GN"),
    ("SURNAME", "SN"),
];

/// As a type is written: by its short name, or as a number.
fn type_of(text: &str) -> Option<String> {
    let word = text.to_ascii_uppercase();
    let word = word.strip_prefix("OID.").unwrap_or(&word);
    let word = ALSO
        .iter()
        .find(|(also, _)| *also == word)
        .map_or(word, |(_, short)| short);
    if TYPES.iter().any(|(short, _)| *short == word) {
        return Some(word.to_owned());
    }
    let is_number = word.contains('.')
        && word
            .split('.')
            .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let short = TYPES
        .iter()
        .find(|(_, number)| *number == word)
        .map(|(short, _)| (*short).to_owned());
    is_number.then(|| short.unwrap_or_else(|| word.to_owned()))
}

impl Subject {
    /// The steps of a certificate's name, in its order: numbers of types, and what they say. None: something in it is no name.
    pub fn new(steps: impl IntoIterator<Item = Vec<(String, Value)>>) -> Option<Self> {
        let steps = steps.into_iter().map(|step| {
            let attributes = step
                .into_iter()
                .map(|(kind, value)| Some((type_of(&kind)?, value)));
            let mut step = attributes.collect::<Option<Step>>()?;
            step.sort();
            Some(step)
        });
        Some(Self(steps.collect::<Option<_>>()?))
    }

    /// Reads what people write.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        for step in split(text, ',') {
            let mut attributes = Step::new();
            for part in split(step, '+') {
                attributes.push(attribute(part)?);
            }
            attributes.sort();
            steps.push(attributes);
        }
        Ok(Self(steps))
    }

    /// Whether this is the whole subject that `meant` writes. One without attributes belongs to no client.
    pub fn is(&self, meant: &Self) -> bool {
        if self.0.is_empty() || self.0.len() != meant.0.len() {
            return false;
        }
        if self.0 == meant.0 {
            return true;
        }
        let kinds = self.0.iter().flatten().map(|(kind, _)| kind);
        let is_plain = kinds.clone().collect::<BTreeSet<_>>().len() == kinds.count();
        // Each type once: the steps of both are the same if each is found in the other.
        is_plain && self.0.iter().all(|step| meant.0.contains(step))
    }
}

fn attribute(part: &str) -> Result<(String, Value), String> {
    let (kind, value) = part
        .split_once('=')
        .ok_or_else(|| format!("{part:?} has no `=`"))?;
    let kind = kind.trim();
    let known = type_of(kind).ok_or_else(|| {
        let all: Vec<&str> = TYPES.iter().map(|(short, _)| *short).collect();
        format!(
            "{kind:?} is no attribute of a subject; known are {} and numbers such as 2.5.4.3",
            all.join(", ")
        )
    })?;
    let value = trimmed(value);
    let value = match value.strip_prefix('#') {
        Some(digits) => {
            Value::Encoded(bytes_of(digits).ok_or_else(|| format!("{part:?} has no whole bytes after `#`"))?)
        }
        None => Value::Text(
            unescape(value)
                .ok_or_else(|| format!("{part:?} has a backslash before nothing that it could stand for"))?,
        ),
    };
    match value {
        Value::Text(text) if text.is_empty() => Err(format!("{part:?} is half of an attribute")),
        value => Ok((known, value)),
    }
}

/// Parts between separators that have no backslash before them.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begin, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        if c == separator && !escaped {
            parts.extend(text.get(begin..at));
            begin = at.saturating_add(c.len_utf8());
        }
        escaped = c == '\\' && !escaped;
    }
    parts.extend(text.get(begin..));
    parts
}

/// Without spaces around it, but for an escaped one.
fn trimmed(text: &str) -> &str {
    let begun = text.trim_start();
    let ended = begun.trim_end();
    let escapes = ended.bytes().rev().take_while(|b| *b == b'\\').count();
    let cut = begun.get(ended.len()..).and_then(|rest| rest.chars().next());
    match cut {
        // The backslash that is left over stands before a space.
        Some(c) if escapes % 2 == 1 => begun
            .get(..ended.len().saturating_add(c.len_utf8()))
            .unwrap_or(ended),
        _ => ended,
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            out.extend(c.to_string().into_bytes());
            continue;
        }
        let c = rest.next()?;
        match c.to_digit(16) {
            Some(high) => {
                let low = rest.next()?.to_digit(16)?;
                out.push(u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?);
            }
            None => out.extend(c.to_string().into_bytes()),
        }
    }
    String::from_utf8(out).ok()
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = digits.chars().map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let pairs = pairs
        .iter()
        .map(|[high, low]| u8::try_from(high.checked_mul(16)?.checked_add(*low)?).ok());
    (rest.is_empty() && !digits.is_empty()).then(|| pairs.collect())?
}

/// What may stand in a log or on a terminal as it is.
fn is_plain(c: char) -> bool {
    const INVISIBLE: [(char, char); 6] = [
        ('\u{ad}', '\u{ad}'),
        ('\u{61c}', '\u{61c}'),
        ('\u{200b}', '\u{200f}'),
        ('\u{2028}', '\u{202e}'),
        ('\u{2060}', '\u{206f}'),
        ('\u{feff}', '\u{feff}'),
    ];
    !c.is_control()
        && !INVISIBLE
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&c))
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            f.write_str(if i > 0 { "," } else { "" })?;
            for (j, (kind, value)) in step.iter().enumerate() {
                write!(f, "{}{kind}=", if j > 0 { "+" } else { "" })?;
                match value {
                    Value::Text(text) => write_text(f, text)?,
                    Value::Encoded(bytes) => {
                        f.write_str("#")?;
                        bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let last = text.chars().count().saturating_sub(1);
    for (i, c) in text.chars().enumerate() {
        let at_an_end = i == 0 || i == last;
        match c {
            ',' | '\\' | '+' | '"' | '<' | '>' | ';' => write!(f, "\\{c}")?,
            ' ' if at_an_end => write!(f, "\\ ")?,
            '#' if i == 0 => write!(f, "\\#")?,
            c if is_plain(c) && !(at_an_end && c.is_whitespace()) => write!(f, "{c}")?,
            c => c.to_string().bytes().try_for_each(|b| write!(f, "\\{b:02X}"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn subject(text: &str) -> Subject {
        Subject::parse(text).unwrap()
    }

    fn one(kind: &str, text: &str) -> Step {
        vec![(kind.into(), Value::Text(text.into()))]
    }

    #[test]
    fn a_subject_is_meant_whole() {
        let slurm = subject("CN=slurm,OU=hpc,O=Example");
        for same in [
            "CN=slurm,OU=hpc,O=Example",
            "o = Example, ou=hpc ,cn = slurm",
            "2.5.4.3=slurm,OID.2.5.4.11=hpc,O=Example",
        ] {
            assert!(slurm.is(&subject(same)), "{same}");
        }
        let others = [
            "CN=slurm",
            "CN=slurm,O=Example",
            "CN=Slurm,OU=hpc,O=Example",
            "CN=slurm,OU=hpc,O=Example,C=DE",
            "CN=slurm+OU=hpc,O=Example",
            "CN=slurm,OU=hpc,OU=Example",
            "CN=slurm,CN=slurm,CN=slurm",
            "CN=*,OU=hpc,O=Example",
        ];
        for other in others {
            assert!(
                !slurm.is(&subject(other)) && !subject(other).is(&slurm),
                "{other}"
            );
        }
        assert!(
            !Subject::default().is(&Subject::default()),
            "an empty subject is no subject"
        );
    }

    #[test]
    fn of_a_type_that_occurs_twice_the_order_counts() {
        let two = Subject::new([one("2.5.4.3", "eve"), one("2.5.4.3", "backup")]).unwrap();
        assert!(!two.is(&subject("CN=backup")) && !two.is(&subject("CN=eve")));
        assert!(!two.is(&subject("CN=backup,CN=eve")) && !two.is(&subject("CN=eve+CN=backup")));
        assert!(two.is(&subject("CN=eve,CN=backup")));
        assert_eq!(two.to_string(), "CN=eve,CN=backup");
    }

    #[test]
    fn what_is_in_a_value_makes_no_attribute() {
        for evil in [
            "eve,CN=backup",
            "eve+CN=backup",
            "backup\0",
            "backup\0.example.org",
            "backup ",
            " backup",
            "#62",
            "backup\u{202e}",
        ] {
            let shown = Subject::new([one("2.5.4.3", evil)]).unwrap();
            assert!(!shown.is(&subject("CN=backup")), "{evil:?}");
            let written = shown.to_string();
            assert!(shown.is(&subject(&written)), "{written}");
            assert!(written.chars().all(is_plain), "{written:?}");
        }
        let shown = Subject::new([one("2.5.4.3", "eve\0,")]).unwrap();
        assert_eq!(shown.to_string(), "CN=eve\\00\\,");
        let encoded =
            Subject::new([vec![("2.5.4.3".into(), Value::Encoded(vec![0x1e, 2, 0, 0x62]))]]).unwrap();
        assert_eq!(encoded.to_string(), "CN=#1e020062");
        assert!(encoded.is(&subject("CN=#1E020062")) && !encoded.is(&subject("CN=b")));
        assert!(Subject::new([one("no number", "x")]).is_none());
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for bad in [
            "",
            "slurm",
            "CN=",
            "=x",
            "CN=a,,O=b",
            "CN=a+",
            "NO=a",
            "CN=a\\",
            "CN=#6",
            "CN=#",
            "CN=\\ff",
            "CN=\\0",
            ".",
        ] {
            assert!(Subject::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(
            steps in prop::collection::vec(prop::collection::vec(("(CN|O|UID|1\\.2\\.3)", "[a-zA-Z,\\\\+=é #\0\u{2028}\"]{1,9}"), 1..3), 1..4)
        ) {
            let steps = steps.into_iter().map(|step| step.into_iter().map(|(kind, v)| (kind, Value::Text(v))).collect());
            let all = Subject::new(steps).unwrap();
            prop_assert_eq!(Subject::parse(&all.to_string()).unwrap(), all);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Ok(read) = Subject::parse(&text) {
                prop_assert_eq!(Subject::parse(&read.to_string()).unwrap(), read);
            }
        }
    }
}
