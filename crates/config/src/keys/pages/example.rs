//! `systemd/agent.toml`: an example that says what each key means.

use super::wrapped;
use crate::keys::file::FILE;
use crate::keys::{Form, Key, Table, Word};

const HEAD: &str = "/etc/purge-agent/agent.toml";
const UNITS: &str = "#
# durations  s m h d w y (365 d), as in \"28d\", \"1h30m\"
# sizes      B kB MB GB TB PB (powers of 1000), KiB MiB GiB TiB PiB (powers of 1024)
";
/// Of a line, with the sign of a comment.
const WIDTH: usize = 130;

/// The page.
pub fn example() -> String {
    let mut page = Page(format!("# {HEAD}\n#\n"), Vec::new());
    page.words(FILE.doc, "");
    page.0.push_str(UNITS);
    for table in FILE
        .all()
        .iter()
        .filter(|t| t.kind.is_empty() || !t.heading.is_empty())
    {
        page.table(table);
    }
    page.0
}

/// The page, and the lists of keys that it has explained.
struct Page(String, Vec<Vec<&'static str>>);

impl Page {
    fn table(&mut self, table: &Table) {
        self.0.push('\n');
        if !table.heading.is_empty() {
            self.words(table.doc, "");
            self.line(table.heading, table.in_use);
        }
        for key in table.keys {
            match key.form {
                Form::Later => {}
                Form::Tables(below) if !below.heading.is_empty() => {}
                _ => self.key(key, table.in_use),
            }
        }
    }

    fn key(&mut self, key: &Key, in_use: bool) {
        self.words(key.doc, "");
        match key.form {
            Form::Choice(words) if words.iter().any(|w| !w.doc.is_empty()) => self.choice(words),
            Form::Choice(_) => self.words(&key.form.in_words(), ""),
            Form::Tables(below) if !self.1.contains(&below.names()) => self.below(below),
            _ => {}
        }
        let default = key.default_in_words();
        let is_plain =
            ["", "default []"].contains(&default.as_str()) || default == format!("default {}", key.example);
        if let Some(default) = default.strip_prefix("default ").filter(|_| !is_plain) {
            self.words(&format!("Default: {default}."), "");
        }
        self.line(&format!("{} = {}", key.name, key.example), in_use && key.in_use);
    }

    fn choice(&mut self, words: &[Word]) {
        let words: Vec<&Word> = words.iter().filter(|w| !w.later).collect();
        let wide = words.iter().map(|w| w.name.len()).max().unwrap_or(0);
        for word in words {
            self.words(word.doc, &format!("  {:wide$}  ", word.name));
        }
    }

    /// The keys of a table that stands in a line of its own.
    fn below(&mut self, table: &Table) {
        self.1.push(table.names());
        let wide = table.keys.iter().map(|k| k.name.len()).max().unwrap_or(0);
        for key in table.keys {
            let default = key.default_in_words();
            let words = match (key.form, default.is_empty()) {
                (Form::Choice(_), true) => format!("{}. {}", key.form.in_words(), key.doc),
                (Form::Choice(_), false) => format!("{}; {default}. {}", key.form.in_words(), key.doc),
                (_, true) => key.doc.to_owned(),
                (_, false) if default == "default []" => key.doc.to_owned(),
                (_, false) => format!("({default}) {}", key.doc),
            };
            self.words(&words, &format!("  {:wide$}  ", key.name));
        }
    }

    /// A comment; its first line begins with `title`, and the others below what follows it.
    fn words(&mut self, text: &str, title: &str) {
        let room = WIDTH.saturating_sub(title.len() + 2);
        for (place, line) in wrapped(text, room).iter().enumerate() {
            let before = match place {
                0 => title.to_owned(),
                _ => " ".repeat(title.len()),
            };
            self.0.push_str(&format!("# {before}{line}\n"));
        }
    }

    fn line(&mut self, text: &str, in_use: bool) {
        let sign = if in_use { "" } else { "# " };
        self.0.push_str(&format!("{sign}{text}\n"));
    }
}
