//! Where every value comes from: a place in a file, the command line, the environment, or nobody said otherwise.
//!
//! Sections are recorded as they are read, so what is shown is what was asked for, and nothing is listed twice by hand but the
//! defaults; a test reads these as configuration and compares.

use toml::de::DeValue;

use super::fault::Fault;
use purge_notify::url;

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
}

/// Stands for the state directory in a default.
const STATE_DIR: &str = "STATE_DIR";
/// Of what nobody has said.
const DEFAULT: &str = "default";

/// What holds where nothing is said; `None`: nothing of the kind. Sections, keys, values.
pub(super) const DEFAULTS: &[(&str, &str, Option<&str>)] = &[
    ("", "state_dir", Some("\"/var/lib/purge-agent\"")),
    ("", "audit_log", Some("\"STATE_DIR/audit.jsonl\"")),
    ("listen", "unix", Some("\"/run/purge-agent/agent.sock\"")),
    ("listen", "owner", Some("\"root\"")),
    ("listen", "group", Some("\"root\"")),
    ("listen", "tcp", None),
    ("listen", "tls", None),
    ("listen", "metrics", None),
    ("access", "viewer", None),
    ("access", "operator", None),
    ("access", "admin", None),
    ("access", "self", Some("false")),
    ("access", "self_hold_max", Some("\"30d\"")),
    ("access", "max_plan_files", Some("0")),
    ("volume", "baseline", Some("\"auto\"")),
    ("volume", "collector", Some("\"auto\"")),
    ("volume", "precision", Some("\"1h\"")),
    ("volume", "ignore_accessors", Some("[]")),
    ("volume", "gap_tolerance", Some("\"0s\"")),
    ("volume", "flush_interval", Some("\"1s\"")),
    ("volume", "checkpoint_interval", Some("\"5m\"")),
    ("volume", "sweep_interval", Some("\"7d\"")),
    ("volume", "sweep_rate", Some("5000")),
    ("volume", "adopt", Some("false")),
    ("volume", "reboots", Some("\"gap\"")),
    ("rule", "target", Some("\"file\"")),
    (
        "rule",
        "clock",
        Some("[\"access\", \"modify\", \"change\", \"birth\"]"),
    ),
    ("rule", "include", Some("[\"**\"]")),
    ("rule", "exclude", Some("[]")),
    ("rule", "remove_empty_dirs", Some("true")),
    ("rule", "max_empty_dirs", Some("500")),
    ("rule", "keep_depth", Some("0")),
    ("rule", "symlinks", Some("\"with-target\"")),
    ("rule", "action", Some("\"delete\"")),
    ("rule", "announce", Some("\"0s\"")),
    ("rule", "grace", Some("\"0s\"")),
    ("rule", "order", Some("\"oldest\"")),
    ("rule", "schedule", None),
    ("rule", "schedule_missed", Some("\"skip\"")),
    ("rule", "auto_apply", Some("false")),
    ("rule", "max_files", Some("0")),
    ("rule", "max_bytes", Some("\"0B\"")),
    ("rule", "max_errors", Some("0.05")),
    ("rule", "max_fraction", None),
    ("quota", "action", Some("\"notify\"")),
    ("quota", "low", Some("\"90%\"")),
    ("quota", "min_age", Some("\"2d\"")),
    ("watermark", "min_age", Some("\"2d\"")),
    ("watermark", "free_trash", Some("false")),
];

/// Of a section's kind, how its keys are called; none: its parent shows it whole.
pub(super) fn prefix(kind: &str) -> Option<&str> {
    match kind {
        "tls" => Some("listen.tls"),
        "viewer" => Some("access.viewer"),
        "operator" => Some("access.operator"),
        "admin" => Some("access.admin"),
        "" | "listen" | "access" | "volume" | "rule" | "quota" | "watermark" | "notify" | "archive" => {
            Some(kind)
        }
        _ => None,
    }
}

/// A section's key with its value, or with its default; none where there is nothing to be shown.
pub(super) fn shown(
    kind: &str,
    name: Option<&str>,
    key: &str,
    given: Option<(&DeValue<'_>, &Fault)>,
) -> Option<Shown> {
    let parts = [prefix(kind)?, name.unwrap_or_default(), key];
    let (value, origin) = match given {
        Some((value, place)) => (in_a_line(value), place_of(place)),
        None => {
            let (_, _, value) = DEFAULTS.iter().find(|(k, name, _)| *k == kind && *name == key)?;
            (value.unwrap_or("none").to_owned(), DEFAULT.to_owned())
        }
    };
    Some(Shown {
        key: parts
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect::<Vec<_>>()
            .join("."),
        value,
        origin,
        pending: None,
    })
}

/// The default of `audit_log` in full.
pub(super) fn name_state_dir(all: &mut [Shown], state_dir: &std::path::Path) {
    let dir = state_dir.to_string_lossy();
    for shown in all.iter_mut().filter(|s| s.origin == DEFAULT) {
        shown.value = shown.value.replace(STATE_DIR, &dir);
    }
}

fn place_of(place: &Fault) -> String {
    match place.position {
        Some((line, column)) => format!("{}:{line}:{column}", place.place),
        None => place.place.clone(),
    }
}

/// A value as TOML in one line, without the secrets that somebody has put into it after all: of an address only scheme and host, of
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
    let find = |all: &[Shown], key: &str| all.iter().find(|s| s.key == key).cloned();
    let of = |new: &Shown| {
        let old = find(started, &new.key).unwrap_or_else(|| Shown {
            value: "none".into(),
            origin: "not there at the start".into(),
            ..new.clone()
        });
        match needs_restart(&new.key) && old.value != new.value {
            true => Shown {
                pending: Some(new.value.clone()),
                ..old
            },
            false => new.clone(),
        }
    };
    let mut all: Vec<Shown> = read.iter().map(of).collect();
    for old in started.iter().filter(|old| needs_restart(&old.key)) {
        if find(read, &old.key).is_none() {
            all.push(Shown {
                pending: Some("none".into()),
                ..old.clone()
            });
        }
    }
    all
}

fn needs_restart(key: &str) -> bool {
    key.starts_with("volume.")
        || matches!(
            key,
            "state_dir" | "audit_log" | "listen.unix" | "listen.tcp" | "listen.metrics"
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Config;

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

    fn defaults_of(kind: &str) -> String {
        let of_kind = DEFAULTS.iter().filter(|(k, _, _)| *k == kind);
        of_kind
            .filter_map(|(_, key, value)| Some(format!("{key} = {}\n", (*value)?)))
            .collect::<String>()
            .replace("STATE_DIR", "/var/lib/purge-agent")
    }

    /// The list of defaults is only for people; this says that it is right.
    #[test]
    fn writing_every_default_out_changes_nothing() {
        let bare = load(&format!("{VOLUME}{RULE}{QUOTA}{WATERMARK}"));
        let full = load(&format!(
            "{}[listen]\n{}[access]\n{}{VOLUME}{}{RULE}{}{QUOTA}{}{WATERMARK}{}",
            defaults_of(""),
            defaults_of("listen"),
            defaults_of("access"),
            defaults_of("volume"),
            defaults_of("rule"),
            defaults_of("quota"),
            defaults_of("watermark"),
        ));
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
