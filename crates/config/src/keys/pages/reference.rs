//! `docs/configuration.md`: every key, for reference.

use crate::keys::file::FILE;
use crate::keys::{Form, Key, Preset, Table};

const HEAD: &str = "# Configuration reference

**Which keys are there, and what does each mean?**

This page lists every key of `/etc/purge-agent/agent.toml` and of the files in `rules.d`. It is made from the entries that
the agent itself reads its configuration by (`cargo run -p purge-config --example write-pages`), as are
[`systemd/agent.toml`](../systemd/agent.toml) and `man purge-agent.toml`. The [handbook](README.md) explains how the keys work
together. `purge-agent check` tells what is wrong with a configuration, and `purgectl config show` which value is in force
and where it comes from.

Durations are written as in `\"28d\"` or `\"1h30m\"` (s, m, h, d, w, y), sizes as in `\"40TB\"` (B, kB, MB, GB, TB, PB are powers of
1000, KiB, MiB, GiB, TiB, PiB powers of 1024).
";

/// The page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for table in FILE.all() {
        push_table(&mut page, &table);
    }
    page
}

fn push_table(page: &mut String, table: &Table) {
    let keys: Vec<&Key> = table.keys.iter().filter(|key| is_listed(key)).collect();
    let title = match (table.kind, table.heading) {
        ("", _) => "The file".to_owned(),
        (_, "") => format!("`{}`", table.shown_as.unwrap_or(table.kind)),
        (_, heading) => format!("`{heading}`"),
    };
    page.push_str(&format!("\n## {title}\n"));
    if !table.doc.is_empty() {
        page.push_str(&format!("\n{}\n", table.doc));
    }
    page.push_str("\n| key | value | default | a change takes effect | meaning |\n|---|---|---|---|---|\n");
    for key in keys {
        let default = match key.preset {
            Preset::Required => "required".to_owned(),
            Preset::Nothing if key.unless.is_none() => "none".to_owned(),
            Preset::Nothing | Preset::Value(_) => key.default_in_words().replacen("default ", "", 1),
        };
        let cells = [
            format!("`{}`", key.name),
            key.form.in_words(),
            default,
            key.reload_in_words().to_owned(),
            meaning(key),
        ];
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        page.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

fn is_listed(key: &Key) -> bool {
    match key.form {
        Form::Tables(below) => below.heading.is_empty(),
        Form::Later => false,
        _ => true,
    }
}

fn meaning(key: &Key) -> String {
    let Form::Choice(words) = key.form else {
        return in_code(key.doc);
    };
    let words = words.iter().filter(|w| !w.doc.is_empty() && !w.later);
    let words = words.map(|w| format!("<br>`{}`: {}", w.name, in_code(w.doc)));
    format!("{}{}", in_code(key.doc), words.collect::<String>())
}

/// Patterns would be read as emphasis.
fn in_code(text: &str) -> String {
    let words = text.split(' ').map(|word| match word.contains(['*', '<']) {
        true => format!("`{word}`"),
        false => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
