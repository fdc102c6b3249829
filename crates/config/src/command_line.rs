//! What `run --volume PATH` puts in force, for those who want to see it.

use std::path::Path;

use super::check::shown_of;
use super::{Shown, VolumeConfig, origin};

const COMMAND_LINE: &str = "command line";

/// Every value, as the file would have it that says the same.
pub(super) fn shown(volume: &VolumeConfig, ttl: Option<u64>, state_dir: &Path, socket: &Path) -> Vec<Shown> {
    let quoted = |path: &Path| toml::Value::from(path.to_string_lossy().as_ref()).to_string();
    let name = toml::Value::from(volume.name.as_str()).to_string();
    let mut text = format!(
        "state_dir = {}\n[listen]\nunix = {}\n[[volume]]\nname = {name}\npath = {}\n",
        quoted(state_dir),
        quoted(socket),
        quoted(&volume.path)
    );
    if let Some(ttl) = ttl {
        text.push_str(&format!(
            "[[rule]]\nname = \"ttl\"\nvolume = {name}\nttl = \"{ttl}s\"\n"
        ));
    }
    let mut all = shown_of(COMMAND_LINE, &text);
    origin::name_state_dir(&mut all, state_dir);
    for shown in &mut all {
        if shown.origin.starts_with(COMMAND_LINE) {
            shown.origin = COMMAND_LINE.into();
        }
    }
    all
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
