//! `purge-agent.toml(5)`, from the commented example: what a comment says stands before the key or table that it explains.

use std::fmt::Write;

const HEAD: &str = r#".TH purge\-agent.toml 5 "" "" "purge\-agent"
.SH NAME
purge\-agent.toml \- what purge\-agent watches, and what may go
.SH SYNOPSIS
/etc/purge\-agent/agent.toml
.PP
/etc/purge\-agent/rules.d/*.toml
.SH DESCRIPTION
"#;

const TAIL: &str = r#".SH FILES
/usr/share/purge\-agent/agent.toml is the example that this page was made from.
.SH SEE ALSO
.BR purge\-agent (8),
.BR purgectl (1)
"#;

/// A line of the example.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    /// Words of an explanation.
    Words(&'a str),
    /// A line that is set as it stands: a list.
    Fixed(&'a str),
    /// `[table]` or `[[table]]`.
    Table(&'a str),
    /// `key = value`.
    Key(&'a str),
    Blank,
}

fn line(text: &str) -> Line<'_> {
    let (comment, rest) = match text.strip_prefix('#') {
        Some(rest) => (true, rest.strip_prefix(' ').unwrap_or(rest)),
        None => (false, text),
    };
    if rest.trim().is_empty() {
        Line::Blank
    } else if rest.starts_with('[') && rest.ends_with(']') {
        Line::Table(rest)
    } else if is_key(rest) {
        Line::Key(rest)
    } else if comment && rest.starts_with("  ") || is_row(rest) {
        Line::Fixed(rest)
    } else {
        Line::Words(rest)
    }
}

/// `name = ...`, where the name is one word.
fn is_key(text: &str) -> bool {
    text.split_once(" = ")
        .or_else(|| text.split_once(" ="))
        .is_some_and(|(name, _)| {
            let name = name.trim_end();
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        })
}

/// A word, at least two blanks, and what it means.
fn is_row(text: &str) -> bool {
    let word = text.split(' ').next().unwrap_or_default();
    !word.is_empty() && text.get(word.len()..).is_some_and(|rest| rest.starts_with("  "))
}

/// The page.
pub fn page(example: &str) -> String {
    let mut page = HEAD.to_owned();
    // What was said since the last key or table, in roff.
    let mut said = String::new();
    let mut fixed = false;
    let mut begun = false;
    // Its first line is its name.
    for text in example.lines().skip_while(|l| l.starts_with("# /")) {
        let line = line(text);
        let is_fixed = matches!(line, Line::Fixed(_));
        if is_fixed != fixed {
            said.push_str(if is_fixed { ".nf\n" } else { ".fi\n" });
            fixed = is_fixed;
        }
        begun |= matches!(line, Line::Key(_) | Line::Table(_));
        match line {
            // What comes before everything is said of the whole file.
            Line::Blank if !begun => {
                page.push_str(&said);
                page.push_str(".PP\n");
                said.clear();
            }
            Line::Words(words) | Line::Fixed(words) => {
                let _ = writeln!(said, "{}", escape(words));
            }
            Line::Blank if !said.is_empty() => said.push_str(".PP\n"),
            Line::Blank => {}
            Line::Table(name) => {
                let _ = write!(page, ".SH {}\n{}", escape(name), paragraphs(&said));
                said.clear();
            }
            Line::Key(key) => {
                let _ = write!(page, ".TP\n\\fB{}\\fR\n{}", escape(key), paragraphs(&said));
                said.clear();
            }
        }
    }
    page.push_str(paragraphs(&said));
    page.push_str(TAIL);
    page
}

/// A paragraph that nothing follows or precedes is none.
fn paragraphs(said: &str) -> &str {
    let said = said.strip_prefix(".PP\n").unwrap_or(said);
    said.strip_suffix(".PP\n").unwrap_or(said)
}

/// Words that roff sets as they are.
fn escape(words: &str) -> String {
    let escaped = words.replace('\\', "\\e").replace('-', "\\-");
    match escaped.starts_with(['.', '\'']) {
        true => format!("\\&{escaped}"),
        false => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        assert_eq!(line("[[volume]]"), Line::Table("[[volume]]"));
        assert_eq!(line("# [[quota]]"), Line::Table("[[quota]]"));
        assert_eq!(line("# depth = 1"), Line::Key("depth = 1"));
        assert_eq!(line("unix    = \"/run\""), Line::Key("unix    = \"/run\""));
        assert_eq!(
            line("# A rule without a ttl is an error"),
            Line::Words("A rule without a ttl is an error")
        );
        assert_eq!(
            line("#   auto      the access time"),
            Line::Fixed("  auto      the access time")
        );
        assert_eq!(line("#"), Line::Blank);
    }

    #[test]
    fn what_is_said_stands_below_its_key() {
        let page = page("# The house.\n[house]\n# What it costs.\nprice = 1\n");
        assert!(page.contains(".SH [house]\nThe house.\n"), "{page}");
        assert!(page.contains("\\fBprice = 1\\fR\nWhat it costs.\n"), "{page}");
    }

    #[test]
    fn every_table_and_key_of_the_example_is_in_the_page() {
        let example = include_str!("../../systemd/agent.toml");
        let page = page(example);
        for text in example.lines() {
            if let Line::Key(key) | Line::Table(key) = line(text) {
                assert!(page.contains(&escape(key)), "{key}");
            }
        }
    }
}
