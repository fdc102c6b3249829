//! Subjects of certificates as people write them: `CN=slurm, O=Example`. All attributes that are named must be in the subject,
//! in any order; others may be there beside them.

use std::fmt;

/// Attributes of a name: (`CN`, `slurm`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject(Vec<(String, String)>);

impl Subject {
    /// The attributes of a certificate.
    pub fn new(attributes: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(attributes.into_iter().collect())
    }

    /// Reads what people write. A comma or backslash in a value is written with a backslash before it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut attributes = Vec::new();
        for part in split(text) {
            let (kind, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} has no `=`"))?;
            let (kind, value) = (kind.trim(), unescape(value.trim()));
            if kind.is_empty() || value.is_empty() {
                return Err(format!("{part:?} is half of an attribute"));
            }
            attributes.push((kind.to_ascii_uppercase(), value));
        }
        match attributes.is_empty() {
            true => Err("it names nobody".into()),
            false => Ok(Self(attributes)),
        }
    }

    /// Whether every attribute of `pattern` is in this subject. A pattern without attributes fits nobody.
    pub fn fits(&self, pattern: &Self) -> bool {
        !pattern.0.is_empty() && pattern.0.iter().all(|wanted| self.0.contains(wanted))
    }
}

fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (kind, value)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{kind}=")?;
            for c in value.chars() {
                match c {
                    ',' | '\\' => write!(f, "\\{c}")?,
                    c if c.is_control() => write!(f, "\u{fffd}")?,
                    c => write!(f, "{c}")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn subject(text: &str) -> Subject {
        Subject::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_fits_whoever_has_all_that_it_names() {
        let slurm = subject("CN=slurm,OU=hpc,O=Example");
        for pattern in ["CN=slurm", "cn = slurm", "O=Example, CN=slurm"] {
            assert!(slurm.fits(&subject(pattern)), "{pattern}");
        }
        for pattern in ["CN=slur", "CN=Slurm", "CN=slurm,OU=other", "OU=slurm", "CN=*"] {
            assert!(!slurm.fits(&subject(pattern)), "{pattern}");
        }
        assert!(!slurm.fits(&Subject::default()) && !Subject::default().fits(&slurm));
    }

    #[test]
    fn a_comma_in_a_value_makes_no_attribute() {
        let evil = Subject::new([("CN".into(), "eve,O=Example".into())]);
        assert!(!evil.fits(&subject("O=Example")));
        assert_eq!(evil.to_string(), "CN=eve\\,O=Example");
        assert!(evil.fits(&subject(&evil.to_string())));
        for bad in ["", "slurm", "CN=", "=x", "CN=a,,O=b"] {
            assert!(Subject::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(values in prop::collection::vec("[a-zA-Z,\\\\=é]{1,9}", 1..4)) {
            let all = Subject::new(values.into_iter().map(|v| ("CN".into(), v)));
            prop_assert_eq!(Subject::parse(&all.to_string()).unwrap(), all);
        }
    }
}
