//! What `run --volume PATH [--ttl DUR]` puts in force: the same as a file that says so.

use std::path::Path;

use super::check::parts_of;
use super::origin;
use super::parts::Parts;

const COMMAND_LINE: &str = "command line";

/// The content of such a file. What it says of paths is for people: one that is not UTF-8 cannot stand in TOML.
pub(super) fn parts(name: &str, path: &Path, ttl: Option<u64>, state_dir: &Path, socket: &Path) -> Parts {
    let quoted = |path: &Path| toml::Value::from(path.to_string_lossy().as_ref()).to_string();
    let name = toml::Value::from(name).to_string();
    let mut text = format!(
        "state_dir = {}\n[listen]\nunix = {}\n[[volume]]\nname = {name}\npath = {}\n",
        quoted(state_dir),
        quoted(socket),
        quoted(path)
    );
    if let Some(ttl) = ttl {
        text.push_str(&format!(
            "[[rule]]\nname = \"ttl\"\nvolume = {name}\nttl = \"{ttl}s\"\n"
        ));
    }
    let mut parts = parts_of(COMMAND_LINE, &text);
    origin::name_state_dir(&mut parts.shown, state_dir);
    for shown in &mut parts.shown {
        if shown.origin.starts_with(COMMAND_LINE) {
            shown.origin = COMMAND_LINE.into();
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::Config;

    #[test]
    fn what_the_command_line_says_is_shown_as_such() {
        let config = Config::for_volume(
            "/export/a b\u{1}".as_ref(),
            Some(60),
            "/state".into(),
            "/socket".into(),
        );
        let shown = config.unwrap().shown;
        let of = |key: &str| {
            let found = shown.iter().find(|s| s.key == key).unwrap();
            (found.value.clone(), found.origin.clone())
        };
        assert_eq!(of("rule.ttl.ttl"), ("\"60s\"".into(), "command line".into()));
        assert_eq!(of("state_dir"), ("\"/state\"".into(), "command line".into()));
        assert_eq!(of("volume.a_b_.precision"), ("\"1h\"".into(), "default".into()));
    }
}
