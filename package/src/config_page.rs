//! `purge-agent.toml(5)`, from the entries that the agent reads its configuration by.

use std::fmt::Write;

use purge_config::keys::file::FILE;
use purge_config::keys::{Form, Key, Table};

const HEAD: &str = r#".TH purge\-agent.toml 5 "" "" "purge\-agent"
.SH NAME
purge\-agent.toml \- what purge\-agent watches, and what may be deleted
.SH SYNOPSIS
/etc/purge\-agent/agent.toml
.PP
/etc/purge\-agent/rules.d/*.toml
.SH DESCRIPTION
"#;

const UNITS: &str = r#".PP
.nf
durations  s m h d w y (365 d), as in "28d", "1h30m"
sizes      B kB MB GB TB PB (powers of 1000), KiB MiB GiB TiB PiB (powers of 1024)
.fi
"#;

const TAIL: &str = r#".SH FILES
/usr/share/purge\-agent/agent.toml is an example with every key.
.SH SEE ALSO
.BR purge\-agent (8),
.BR purgectl (1)
"#;

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    let _ = writeln!(page, "{}", escape(FILE.doc));
    page.push_str(UNITS);
    page.push_str(".SH KEYS OF THE FILE\n");
    for table in FILE.all() {
        push_table(&mut page, &table);
    }
    page.push_str(TAIL);
    page
}

fn push_table(page: &mut String, table: &Table) {
    if !table.kind.is_empty() {
        let title = match table.heading {
            "" => table.shown_as.unwrap_or(table.kind),
            heading => heading,
        };
        let _ = writeln!(page, ".SH {}", escape(title));
        if !table.doc.is_empty() {
            let _ = writeln!(page, "{}", escape(table.doc));
        }
    }
    for key in table.keys {
        match key.form {
            Form::Later => {}
            Form::Tables(below) if !below.heading.is_empty() => {}
            _ => push_key(page, key),
        }
    }
}

fn push_key(page: &mut String, key: &Key) {
    let mut said = vec![key.form.in_words(), key.default_in_words()];
    said.retain(|words| !words.is_empty());
    said.push(format!("a change takes effect {}", key.reload_in_words()));
    let _ = write!(
        page,
        ".TP\n\\fB{}\\fR\n{}\n.RS\n.PP\n{}\n",
        escape(key.name),
        escape(&said.join("; ")),
        escape(key.doc)
    );
    if let Form::Choice(words) = key.form {
        for word in words.iter().filter(|w| !w.doc.is_empty() && !w.later) {
            let _ = write!(page, ".TP\n{}\n{}\n", escape(word.name), escape(word.doc));
        }
    }
    if key.default_in_words() != format!("default {}", key.example) {
        let _ = write!(
            page,
            ".PP\n{}\n",
            escape(&format!("Example: {} = {}", key.name, key.example))
        );
    }
    page.push_str(".RE\n");
}

/// Words that roff sets as they are.
fn escape(words: &str) -> String {
    let escaped = words.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) {
        format!("\\&{escaped}")
    } else {
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_and_key_is_in_the_page() {
        let page = page();
        for table in FILE.all() {
            assert!(page.contains(&escape(table.heading)), "{}", table.kind);
            for key in table.keys.iter().filter(|key| !key.doc.is_empty()) {
                assert!(
                    page.contains(&format!(".TP\n\\fB{}\\fR\n", escape(key.name))),
                    "{}",
                    key.name
                );
                assert!(page.contains(&escape(key.doc)), "{}", key.name);
            }
        }
    }

    #[test]
    fn no_word_of_a_key_is_a_command_of_roff() {
        for line in page().lines().filter(|line| line.starts_with(['.', '\''])) {
            let known = [".TH ", ".SH ", ".PP", ".TP", ".RS", ".RE", ".nf", ".fi", ".BR "];
            assert!(known.iter().any(|macro_| line.starts_with(macro_)), "{line}");
        }
    }
}
