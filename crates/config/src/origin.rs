//! Where every value comes from: a place in a file, the command line, the environment, or the default.
//!
//! Sections are recorded as they are read: each key of a table with its value, or with its default.

use toml::de::DeValue;

use super::fault::Fault;
use super::keys::{Form, Key, Reload, STATE_DIR, parsed_default};
use purge_notify::url;
use purge_proto::units::{parse_duration, parse_size};

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// `listen.unix`, `rule.scratch-28d.ttl`.
    pub key: String,
    /// As TOML.
    pub value: String,
    /// `/etc/purge-agent/agent.toml:12:7`, `default`, ...
    pub origin: String,
    /// The configuration says this by now, and a restart puts it in force.
    pub pending: Option<String>,
    /// When a change takes effect.
    pub reload: Reload,
    /// The same for values that mean the same.
    pub(super) meaning: String,
}

/// Of what is left out.
const DEFAULT: &str = "default";
/// Where a key has no default.
const NOTHING: &str = "none";

/// A key with its value.
pub(super) fn given(key: &Key, value: &DeValue<'_>, place: &Fault) -> Shown {
    Shown {
        key: key.name.into(),
        value: in_a_line(value),
        origin: place_of(place),
        pending: None,
        reload: key.reload,
        meaning: meaning(key, value),
    }
}

/// A key with its default, as TOML.
pub(super) fn default(key: &Key, value: Option<&'static str>) -> Shown {
    let parsed = value.and_then(parsed_default);
    Shown {
        key: key.name.into(),
        value: value.unwrap_or(NOTHING).to_owned(),
        origin: DEFAULT.to_owned(),
        pending: None,
        reload: key.reload,
        meaning: parsed.map_or_else(|| NOTHING.into(), |value| meaning(key, value.get_ref())),
    }
}

/// A key whose value a variable of the environment gives.
pub(super) fn of_environment(whole: &str, key: &Key, text: &str, variable: &str) -> Shown {
    let value = toml::Value::from(text).to_string();
    Shown {
        key: whole.into(),
        meaning: value.clone(),
        value,
        origin: format!("environment {variable}"),
        pending: None,
        reload: key.reload,
    }
}

/// The same for values that mean the same: `"60m"` is `"1h"`.
fn meaning(key: &Key, value: &DeValue<'_>) -> String {
    let number = value.as_str().and_then(|text| match key.form {
        Form::Duration => parse_duration(text).ok(),
        Form::Size => parse_size(text).ok(),
        _ => None,
    });
    number.map_or_else(|| in_a_line(value), |n| n.to_string())
}

impl Shown {
    /// The same with the whole name of its key.
    pub(super) fn of(self, table: &str, name: Option<&str>) -> Self {
        let parts = [table, name.unwrap_or_default(), &self.key];
        let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        Self {
            key: parts.join("."),
            ..self
        }
    }
}

/// Defaults that name the state directory, in full.
pub(super) fn name_state_dir(all: &mut [Shown], state_dir: &std::path::Path) {
    let dir = state_dir.to_string_lossy();
    for shown in all.iter_mut().filter(|s| s.origin == DEFAULT) {
        shown.value = shown.value.replace(STATE_DIR, &dir);
        shown.meaning = shown.meaning.replace(STATE_DIR, &dir);
    }
}

fn place_of(place: &Fault) -> String {
    match place.position {
        Some((line, column)) => format!("{}:{line}:{column}", place.place),
        None => place.place.clone(),
    }
}

/// A value as TOML in one line, without the secrets that a user has put into it after all: of an address only scheme and host, of
/// a program's command not the arguments. From what was read and not from the text, where `\u002f` is a slash as well.
fn in_a_line(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => string(text),
        DeValue::Integer(number) => match number.radix() {
            10 => number.as_str().to_owned(),
            _ => number.to_string(),
        },
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(is) => is.to_string(),
        DeValue::Datetime(at) => at.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|i| in_a_line(i.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        DeValue::Table(table) => {
            let mut pairs: Vec<_> = table.iter().collect();
            // As it is written.
            pairs.sort_by_key(|(key, _)| key.span().start);
            let pairs = pairs.into_iter().map(|(key, value)| {
                let value = match key.get_ref().as_ref() {
                    COMMAND => without_arguments(value.get_ref()),
                    _ => in_a_line(value.get_ref()),
                };
                format!("{} = {value}", key.get_ref())
            });
            let pairs: Vec<String> = pairs.collect();
            match pairs.is_empty() {
                true => "{}".into(),
                false => format!("{{ {} }}", pairs.join(", ")),
            }
        }
    }
}

/// The key of a program and its arguments.
const COMMAND: &str = "command";

fn without_arguments(command: &DeValue<'_>) -> String {
    let Some(words) = command.as_array() else {
        return in_a_line(command);
    };
    let shown = |(position, word): (usize, &toml::Spanned<DeValue<'_>>)| match position {
        0 => in_a_line(word.get_ref()),
        _ => string(STARS),
    };
    let words: Vec<String> = words.iter().enumerate().map(shown).collect();
    format!("[{}]", words.join(", "))
}

/// Stands for what is not shown.
const STARS: &str = "***";

fn string(text: &str) -> String {
    let text = match text.contains("://") {
        true => url::shown(text),
        false => text.to_owned(),
    };
    toml::Value::from(text).to_string()
}

/// What is in force after a reload: what needs a restart stays as it was, and says what it will be.
pub fn after_reload(started: &[Shown], read: &[Shown]) -> Vec<Shown> {
    let of = |new: &Shown| {
        let old = find(started, &new.key).cloned().unwrap_or_else(|| Shown {
            value: NOTHING.into(),
            meaning: NOTHING.into(),
            origin: "not there at the start".into(),
            ..new.clone()
        });
        if old.waits_for_restart() && old.meaning != new.meaning {
            Shown {
                pending: Some(new.value.clone()),
                ..old
            }
        } else {
            new.clone()
        }
    };
    let mut all: Vec<Shown> = read.iter().map(of).collect();
    let removed = started.iter().filter(|old| find(read, &old.key).is_none());
    all.extend(removed.filter(|old| old.waits_for_restart()).map(|old| Shown {
        pending: Some(NOTHING.into()),
        ..old.clone()
    }));
    all
}

/// What waits for a restart after a reload, for a person: keys, and volumes that are new or removed.
pub fn waiting(started: &[Shown], read: &[Shown]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for shown in after_reload(started, read).iter().filter(|s| s.pending.is_some()) {
        let table = shown.key.rsplit_once('.').map_or("", |(table, _)| table);
        let is_in = |all: &[Shown]| {
            all.iter()
                .any(|s| s.key.strip_prefix(table).is_some_and(|k| k.starts_with('.')))
        };
        let what = match (is_in(started), is_in(read)) {
            (false, true) => format!("{table} (new)"),
            (true, false) => format!("{table} (removed)"),
            _ => shown.key.clone(),
        };
        if !all.contains(&what) {
            all.push(what);
        }
    }
    all
}

fn find<'s>(all: &'s [Shown], key: &str) -> Option<&'s Shown> {
    all.iter().find(|s| s.key == key)
}

impl Shown {
    fn waits_for_restart(&self) -> bool {
        self.reload == Reload::AtRestart
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Config;
    use crate::keys::access::ACCESS;
    use crate::keys::file::{DEFAULT_STATE_DIR, FILE};
    use crate::keys::listen::LISTEN;
    use crate::keys::notify::NOTIFY;
    use crate::keys::{self, Preset, Table};
    use purge_notify::settings::Notify;

    fn load(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        let mut config = Config::load(&file).unwrap();
        for shown in &mut config.shown {
            shown.origin = shown.origin.replace(dir.path().to_str().unwrap(), "");
        }
        config
    }

    const VOLUME: &str = "[[volume]]\nname = \"s\"\npath = \"/export/s\"\n";
    const RULE: &str = "[[rule]]\nname = \"r\"\nvolume = \"s\"\nttl = \"28d\"\n";
    const QUOTA: &str = "[[quota]]\nname = \"q\"\nvolume = \"s\"\nsubject = \"user\"\nhard = \"1TB\"\n";
    const WATERMARK: &str = "[[watermark]]\nvolume = \"s\"\nrule = \"r\"\nhigh = \"85%\"\nlow = \"75%\"\n";

    /// Every default of a table, as it would be written.
    fn defaults_of(table: &Table) -> String {
        let keys = table.keys.iter();
        let written = keys.filter_map(|key| match (key.preset, key.form) {
            (_, Form::Tables(below)) if below.shown_as.is_some() => None,
            (Preset::Value(value), _) => Some(format!("{} = {value}\n", key.name)),
            (Preset::Nothing | Preset::Required, _) => None,
        });
        written.collect::<String>().replace(STATE_DIR, DEFAULT_STATE_DIR)
    }

    /// The readers take a default for what is written.
    #[test]
    fn writing_every_default_out_changes_nothing() {
        let exec = "[[notify.exec]]\ncommand = [\"/bin/true\"]\n";
        let bare = load(&format!("{VOLUME}{RULE}{QUOTA}{WATERMARK}[notify]\n{exec}"));
        let full = load(&format!(
            "{}[listen]\n{}[access]\n{}{VOLUME}{}{RULE}{}{QUOTA}{}{WATERMARK}{}[notify]\n{}{exec}{}",
            defaults_of(&FILE),
            defaults_of(&LISTEN),
            defaults_of(&ACCESS),
            defaults_of(&keys::volume::VOLUME),
            defaults_of(&keys::rule::RULE),
            defaults_of(&keys::quota::QUOTA),
            defaults_of(&keys::watermark::WATERMARK),
            defaults_of(&NOTIFY),
            defaults_of(&keys::notify::EXEC_TABLE),
        ));
        assert_eq!(bare.notify, full.notify);
        let sinks = bare.notify.sinks.clone();
        assert_eq!(
            bare.notify,
            Notify {
                sinks,
                ..Notify::default()
            }
        );
        // An owner that is named is the owner that is meant.
        let mut listen = full.listen.clone();
        assert_eq!((listen.owner, listen.group), (Some(0), Some(0)));
        (listen.owner, listen.group) = (None, None);
        assert_eq!(bare.listen, listen);
        assert_eq!(bare.access, full.access);
        assert_eq!(bare.volumes, full.volumes);
        assert_eq!(bare.state_dir, full.state_dir);
        assert_eq!(bare.audit_log, full.audit_log);
        assert_eq!(format!("{:?}", bare.rules), format!("{:?}", full.rules));
        assert_eq!(format!("{:?}", bare.limits), format!("{:?}", full.limits));
        let keys = |c: &Config| c.shown.iter().map(|s| s.key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&bare), keys(&full), "what is in force has the same names");
    }

    #[test]
    fn every_value_says_where_it_comes_from() {
        let text = format!(
            "{VOLUME}precision = \"5m\"\n{RULE}include = [\n  \"a/**\", # these\n  \"b\"]\n[access.viewer]\nusers = \"root\"\n"
        );
        let config = load(&text);
        let of = |key: &str| {
            let found = config.shown.iter().find(|s| s.key == key);
            found.map(|s| (s.value.as_str(), s.origin.as_str()))
        };
        assert_eq!(of("volume.s.precision"), Some(("\"5m\"", "/agent.toml:4:13")));
        assert_eq!(of("volume.s.gap_tolerance"), Some(("\"0s\"", "default")));
        assert_eq!(of("rule.r.ttl"), Some(("\"28d\"", "/agent.toml:8:7")));
        assert_eq!(of("access.viewer.users"), Some(("\"root\"", "/agent.toml:13:9")));
        assert_eq!(of("access.self"), Some(("false", "default")));
        assert_eq!(
            of("listen.unix"),
            Some(("\"/run/purge-agent/agent.sock\"", "default"))
        );
        assert_eq!(of("listen.tcp"), Some(("none", "default")));
        assert_eq!(
            of("audit_log"),
            Some(("\"/var/lib/purge-agent/audit.jsonl\"", "default"))
        );
    }

    #[test]
    fn what_waits_for_a_restart_is_named() {
        let shown = |text: &str| load(text).shown;
        let before = shown(&format!("{VOLUME}precision = \"1h\"\n{RULE}"));
        let same = shown(&format!("{VOLUME}precision = \"60m\"\n"));
        assert!(
            waiting(&before, &same).is_empty(),
            "the same time, and rules need no restart"
        );
        let other = VOLUME.replace("export", "srv").replace("\"s\"", "\"t.u\"");
        let now = format!("[listen]\nmetrics = \"127.0.0.1:9469\"\n{VOLUME}adopt = true\n{other}");
        assert_eq!(
            waiting(&before, &shown(&now)),
            ["listen.metrics", "volume.s.adopt", "volume.t.u (new)"]
        );
        assert_eq!(
            waiting(&before, &shown(&other)),
            ["volume.t.u (new)", "volume.s (removed)"]
        );
    }

    #[test]
    fn what_needs_a_restart_is_shown_as_it_is_and_as_it_will_be() {
        let before = load(&format!("{VOLUME}precision = \"5m\"\n{RULE}")).shown;
        let now = load(&format!(
            "{VOLUME}precision = \"6m\"\n{}",
            RULE.replace("28d", "9d")
        ))
        .shown;
        let after = after_reload(&before, &now);
        let of = |key: &str| after.iter().find(|s| s.key == key).unwrap();
        assert_eq!(of("rule.r.ttl").value, "\"9d\"");
        let precision = of("volume.s.precision");
        assert_eq!(
            (precision.value.as_str(), precision.pending.as_deref()),
            ("\"5m\"", Some("\"6m\""))
        );
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = |text: &str| {
            let text = format!("x = {text}");
            let table = toml::de::DeTable::parse(&text).unwrap();
            in_a_line(table.get_ref().get("x").unwrap().get_ref())
        };
        for (text, expected) in [
            (
                "\"amqp://me:secret@host:5672/%2f\"",
                "\"amqp://me:***@host:5672/%2f\"",
            ),
            ("[\"http://host:80/a@b\"]", "[\"http://host:80/…\"]"),
            (
                "{ url = \"https:\\u002f/u:secret@host/secret\", n = 1_000 }",
                "{ url = \"https://***@host/…\", n = 1000 }",
            ),
            (
                "{ url = '''https://host/secret''' }",
                "{ url = \"https://host/…\" }",
            ),
            (
                "[ { url = \"https://a/s1\" }, { url = \"https://b/s2\" } ]",
                "[{ url = \"https://a/…\" }, { url = \"https://b/…\" }]",
            ),
            (
                "{ command = [\"/bin/tell\", \"--token\", \"secret\"] }",
                "{ command = [\"/bin/tell\", \"***\", \"***\"] }",
            ),
            ("{}", "{}"),
            ("[\"a/**\", # these\n 'b']", "[\"a/**\", \"b\"]"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }
}
