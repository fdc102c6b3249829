//! Sections -> typed configuration. Goes on after a fault, so that all of them are told at once.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::Config;
use super::access::read_access;
use super::archive;
use super::environment::{self, Overridden};
use super::exposed;
use super::fault::Fault;
use super::keys::access::ACCESS;
use super::keys::archive::ARCHIVE;
use super::keys::file::{self as key, DEFAULT_STATE_DIR, FILE, RULES_FILE};
use super::keys::listen::LISTEN;
use super::keys::notify::NOTIFY;
use super::keys::quota::QUOTA;
use super::keys::rule::RULE;
use super::keys::volume::VOLUME;
use super::keys::watermark::WATERMARK;
use super::keys::{self, Key};
use super::limit;
use super::listen::{Listen, read_listen};
use super::names::check_absolute;
use super::notify::read_notify;
use super::origin;
use super::parts::Parts;
use super::rule::read_rule;
use super::section::{Section, Source};
use super::volume::read_volume;
use purge_policy::scope::Globs;
use purge_sys::trusted::{self, Distrust};

/// A configuration is not longer.
const FILE_BYTES_MAX: u64 = 16 << 20;

pub(super) fn load(path: &Path) -> Result<Config, Vec<Fault>> {
    let mut parts = Parts::default();
    read_file(path, true, &mut parts);
    for file in rule_files(path, &mut parts.faults) {
        read_file(&file, false, &mut parts);
    }
    let is_partial = parts.is_partial;
    let (config, mut faults) = finish(&path.display().to_string(), parts, |name| std::env::var_os(name));
    if !is_partial {
        faults.extend(exposed::faults(&config));
    }
    good(config, faults)
}

/// A configuration without faults.
fn good(config: Config, faults: Vec<Fault>) -> Result<Config, Vec<Fault>> {
    match faults.is_empty() {
        true => Ok(config),
        false => Err(faults),
    }
}

/// Texts instead of files: the configuration, then those of `rules.d`, each with its name.
pub(super) fn of_texts(
    texts: &[(&str, &str)],
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Config, Vec<Fault>> {
    let mut parts = Parts::default();
    for (position, (name, text)) in texts.iter().enumerate() {
        read_text(name, text, position == 0, &mut parts);
    }
    let main = texts.first().map_or("", |(name, _)| name);
    let (config, faults) = finish(main, parts, variable);
    good(config, faults)
}

/// What takes all files together, and the environment: as much of it as is good, and all that is not.
fn finish(main: &str, mut parts: Parts, variable: impl Fn(&str) -> Option<OsString>) -> (Config, Vec<Fault>) {
    check_together(main, &mut parts);
    let mut listen = parts
        .listen
        .unwrap_or_else(|| Listen::at(purge_proto::DEFAULT_SOCKET));
    let overridden = Overridden {
        state_dir: &mut parts.state_dir,
        audit_log: &mut parts.audit_log,
        listen: &mut listen,
        shown: &mut parts.shown,
    };
    environment::apply(overridden, variable, &mut parts.faults);
    let faults = parts.faults;
    let state_dir = parts.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    origin::name_state_dir(&mut parts.shown, &state_dir);
    let config = Config {
        audit_log: parts.audit_log.unwrap_or_else(|| audit_log_of(&state_dir)),
        state_dir,
        listen,
        access: parts.access.unwrap_or_default(),
        volumes: parts.volumes,
        rules: parts.rules,
        limits: parts.limits,
        archives: parts.archives,
        shown: parts.shown,
        notify: parts.notify.unwrap_or_default(),
    };
    (config, faults)
}

/// The audit log of a state directory, unless the configuration says otherwise.
pub(super) fn audit_log_of(state_dir: &Path) -> PathBuf {
    let default = key::AUDIT_LOG.default_in(&DeTable::new()).unwrap_or_default();
    let below = default
        .trim_matches('"')
        .strip_prefix(keys::STATE_DIR)
        .unwrap_or_default();
    state_dir.join(below.trim_start_matches('/'))
}

/// `rules.d/*.toml` beside the file, in name order.
fn rule_files(path: &Path, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let dir = path.parent().unwrap_or(Path::new(".")).join("rules.d");
    match trusted::look(&dir) {
        // If it is something else, its reader says what it is.
        Ok(()) | Err(Distrust::Kind { .. } | Distrust::Io { .. }) => {}
        Err(e) => faults.push(exposed::fault(&dir, "rules are taken from there", &e)),
    }
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            faults.push(Fault::elsewhere(
                &dir.display().to_string(),
                format!("cannot be read: {e}"),
                "",
            ));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
    files.retain(|f| f.extension().is_some_and(|x| x == "toml"));
    files.sort();
    files
}

fn read_file(path: &Path, main: bool, parts: &mut Parts) {
    let file = path.display().to_string();
    let text = match trusted::read(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(Distrust::Io { source, .. }) => {
            let mend = "give an existing file with --config; systemd/agent.toml is an example";
            parts.is_partial = true;
            parts
                .faults
                .push(Fault::elsewhere(&file, format!("cannot be read: {source}"), mend));
            return;
        }
        Err(e) => {
            parts.is_partial = true;
            parts
                .faults
                .push(exposed::fault(path, "the agent does as root what it says", &e));
            return;
        }
    };
    read_text(&file, &text, main, parts);
}

fn read_text(file: &str, text: &str, main: bool, parts: &mut Parts) {
    let mut src = Source::of(file, text);
    match DeTable::parse(text) {
        Err(e) => {
            let span = e.span().unwrap_or(0..0);
            src.fault(&span, e.message().trim().replace('\n', ", "), "");
            parts.is_partial = true;
        }
        Ok(table) => {
            let keys = if main { &FILE } else { &RULES_FILE };
            let top = Section::new(keys, table.get_ref(), 0..0);
            if main {
                read_main(&top, &mut src, parts);
            }
            for (table, span) in top.tables(&mut src, key::RULE) {
                read_rule(Section::new(&RULE, table, span), &mut src, parts);
            }
            top.finish(&mut src);
        }
    }
    parts.faults.append(&mut src.faults);
    parts.shown.append(&mut src.shown);
}

/// A text by itself, which is not checked as a whole.
pub(super) fn parts_of(file: &str, text: &str) -> Parts {
    let mut parts = Parts::default();
    read_text(file, text, true, &mut parts);
    parts
}

fn read_main(top: &Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    parts.state_dir = read_path(top, src, key::STATE_DIR);
    if top.has(key::AUDIT_LOG) {
        parts.audit_log = read_path(top, src, key::AUDIT_LOG);
    }
    let nothing = DeTable::new();
    let or_nothing = |mut tables: Vec<_>| tables.pop().unwrap_or((&nothing, 0..0));
    let (table, span) = or_nothing(top.tables(src, key::LISTEN));
    parts.listen = Some(read_listen(Section::new(&LISTEN, table, span), src));
    let (table, span) = or_nothing(top.tables(src, key::ACCESS));
    parts.access = Some(read_access(Section::new(&ACCESS, table, span), src));
    for (table, span) in top.tables(src, key::VOLUME) {
        read_volume(Section::new(&VOLUME, table, span), src, parts);
    }
    for (table, span) in top.tables(src, key::QUOTA) {
        limit::read_quota(Section::new(&QUOTA, table, span), src, parts);
    }
    for (table, span) in top.tables(src, key::WATERMARK) {
        limit::read_watermark(Section::new(&WATERMARK, table, span), src, parts);
    }
    for (table, span) in top.tables(src, key::ARCHIVE) {
        archive::read_archive(Section::new(&ARCHIVE, table, span), src, parts);
    }
    for (table, span) in top.tables(src, key::NOTIFY) {
        parts.notify = Some(read_notify(Section::new(&NOTIFY, table, span), src));
    }
}

fn read_path(top: &Section<'_, '_>, src: &mut Source<'_>, key: &'static Key) -> Option<PathBuf> {
    let (path, span) = top.string(src, key)?;
    check_absolute(src, key, &path, &span);
    Some(path.into())
}

/// What only all files together show.
fn check_together(main: &str, parts: &mut Parts) {
    if parts.volumes.is_empty() && parts.faults.is_empty() {
        let mend = "add a [[volume]] table with name and path";
        parts
            .faults
            .push(Fault::elsewhere(main, "there is no volume", mend));
    }
    for (rule, fault) in std::mem::take(&mut parts.without_ttl) {
        if !parts.mentions.names_rule(&rule) {
            parts.faults.push(fault);
        }
    }
    if !parts.is_partial {
        parts.faults.extend(parts.mentions.faults());
        archive::settle(parts);
    }
    for (rule, place) in parts.rules.iter().zip(&parts.rule_places) {
        let root = parts
            .volumes
            .iter()
            .find(|v| v.name == rule.volume)
            .map(|v| v.path.display().to_string());
        let is_inside = |dir: &Path| parts.volumes.iter().find(|v| dir.starts_with(&v.path));
        if let Some(volume) = rule.announce_to.as_deref().and_then(is_inside) {
            parts.faults.push(Fault {
                what: format!("rule {}: announce_to lies on volume {}", rule.name, volume.name),
                mend: "name a directory outside of every volume".into(),
                ..place.clone()
            });
        }
        let patterns = rule.scope.include.patterns().iter();
        let patterns = patterns.chain(rule.scope.exclude.iter().flat_map(Globs::patterns));
        for pattern in patterns.filter(|p| root.as_ref().is_some_and(|root| p.starts_with(root.as_str()))) {
            let what = format!(
                "rule {}: pattern {pattern:?} starts with the volume's own path, so it matches nothing",
                rule.name
            );
            let mend = "write it relative to the volume, such as \"/keep/**\"".into();
            parts.faults.push(Fault {
                what,
                mend,
                ..place.clone()
            });
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
