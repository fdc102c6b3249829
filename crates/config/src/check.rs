//! Sections -> typed configuration. Goes on after a fault, so that all of them are told at once.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::access::{Access, read_access};
use super::environment::{self, Overridden};
use super::exposed;
use super::fault::Fault;
use super::limit;
use super::listen::{Listen, read_listen};
use super::notify::read_notify;
use super::origin::{self, Shown};
use super::rule::read_rule;
use super::section::{Section, Source, suggest};
use super::volume::read_volume;
use super::{AUDIT_LOG, Config, DEFAULT_STATE_DIR, VolumeConfig};
use purge_notify::settings::Notify;
use purge_policy::rule::Rule;
use purge_policy::scope::Globs;
use purge_sys::trusted::{self, Distrust};

/// A configuration is not longer.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file's content, still to be checked against the other files.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) state_dir: Option<PathBuf>,
    pub(super) audit_log: Option<PathBuf>,
    pub(super) listen: Option<Listen>,
    pub(super) access: Option<Access>,
    pub(super) volumes: Vec<VolumeConfig>,
    pub(super) rules: Vec<Rule>,
    pub(super) faults: Vec<Fault>,
    pub(super) shown: Vec<Shown>,
    /// Where each rule named its volume, for the check that needs all files.
    pub(super) rule_places: Vec<Fault>,
    /// Where each rule without a ttl stands: only what a quota or a watermark triggers may do without.
    pub(super) without_ttl: Vec<(String, Fault)>,
    pub(super) limits: limit::Read,
    pub(super) notify: Option<Notify>,
}

pub(super) fn load(path: &Path) -> Result<Config, Vec<Fault>> {
    let mut parts = Parts::default();
    read_file(path, true, &mut parts);
    for file in rule_files(path, &mut parts.faults) {
        read_file(&file, false, &mut parts);
    }
    let config = finish(&path.display().to_string(), parts, |name| std::env::var_os(name))?;
    let exposed = exposed::faults(&config);
    match exposed.is_empty() {
        true => Ok(config),
        false => Err(exposed),
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
    finish(main, parts, variable)
}

/// What takes all files together, and the environment.
fn finish(
    main: &str,
    mut parts: Parts,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Config, Vec<Fault>> {
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
    if !parts.faults.is_empty() {
        return Err(parts.faults);
    }
    let state_dir = parts.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    origin::name_state_dir(&mut parts.shown, &state_dir);
    Ok(Config {
        audit_log: parts.audit_log.unwrap_or_else(|| state_dir.join(AUDIT_LOG)),
        state_dir,
        listen,
        access: parts.access.unwrap_or_default(),
        volumes: parts.volumes,
        rules: parts.rules,
        limits: parts.limits.limits,
        shown: parts.shown,
        notify: parts.notify.unwrap_or_default(),
    })
}

/// `rules.d/*.toml` beside the file, in name order.
fn rule_files(path: &Path, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let dir = path.parent().unwrap_or(Path::new(".")).join("rules.d");
    match trusted::look(&dir) {
        // Whatever it is instead is said by what reads it.
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
            parts
                .faults
                .push(Fault::elsewhere(&file, format!("cannot be read: {source}"), mend));
            return;
        }
        Err(e) => {
            parts
                .faults
                .push(exposed::fault(path, "the agent does as root what it says", &e));
            return;
        }
    };
    read_text(&file, &text, main, parts);
}

fn read_text(file: &str, text: &str, main: bool, parts: &mut Parts) {
    let mut src = Source {
        file,
        text,
        faults: Vec::new(),
        shown: Vec::new(),
    };
    match DeTable::parse(text) {
        Err(e) => {
            let span = e.span().unwrap_or(0..0);
            src.fault(&span, e.message().trim().replace('\n', ", "), "");
        }
        Ok(table) => {
            let mut top = Section::new("", table.get_ref(), 0..0);
            if main {
                read_main(&mut top, &mut src, parts);
            }
            for (table, span) in top.tables(&mut src, "rule") {
                read_rule(Section::new("rule", table, span), &mut src, parts);
            }
            top.finish(&mut src);
        }
    }
    parts.faults.append(&mut src.faults);
    parts.shown.append(&mut src.shown);
}

/// Every value of a text that has no fault.
pub(super) fn shown_of(file: &str, text: &str) -> Vec<Shown> {
    let mut parts = Parts::default();
    read_text(file, text, true, &mut parts);
    parts.shown
}

fn read_main(top: &mut Section<'_, '_>, src: &mut Source<'_>, parts: &mut Parts) {
    if let Some((dir, span)) = top.string(src, "state_dir") {
        if !dir.starts_with('/') {
            src.fault(
                &span,
                "state_dir is not absolute",
                "write a path that starts with /",
            );
        }
        parts.state_dir = Some(dir.into());
    }
    if let Some((file, span)) = top.string(src, "audit_log") {
        if !file.starts_with('/') {
            src.fault(
                &span,
                "audit_log is not absolute",
                "write a path that starts with /",
            );
        }
        parts.audit_log = Some(file.into());
    }
    let nothing = DeTable::new();
    let or_nothing = |mut tables: Vec<_>| tables.pop().unwrap_or((&nothing, 0..0));
    let (table, span) = or_nothing(top.tables(src, "listen"));
    parts.listen = Some(read_listen(Section::new("listen", table, span), src));
    let (table, span) = or_nothing(top.tables(src, "access"));
    parts.access = Some(read_access(Section::new("access", table, span), src));
    for (table, span) in top.tables(src, "volume") {
        read_volume(Section::new("volume", table, span), src, parts);
    }
    for (table, span) in top.tables(src, "quota") {
        limit::read_quota(Section::new("quota", table, span), src, &mut parts.limits);
    }
    for (table, span) in top.tables(src, "watermark") {
        limit::read_watermark(Section::new("watermark", table, span), src, &mut parts.limits);
    }
    for (table, span) in top.tables(src, "notify") {
        parts.notify = Some(read_notify(Section::new("notify", table, span), src));
    }
    top.refuse(src, "archive");
}

/// Characters of a name: it stands in file names, commands and metrics.
pub(super) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

pub(super) fn read_name(s: &mut Section<'_, '_>, src: &mut Source<'_>, taken: &[String]) -> Option<String> {
    let Some((name, span)) = s.string(src, "name") else {
        if !s.has("name") {
            src.fault(
                &s.span.clone(),
                "has no name",
                "add a line such as: name = \"scratch\"",
            );
        }
        return None;
    };
    if name.is_empty() || !name.chars().all(is_name_char) {
        src.fault(
            &span,
            format!("name {name:?} is none"),
            "use letters, digits and . _ -",
        );
        return None;
    }
    if taken.contains(&name) {
        src.fault(
            &span,
            format!("name {name:?} is given twice"),
            "give each its own",
        );
        return None;
    }
    Some(name)
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
        if !limit::triggers(&parts.limits, &rule) {
            parts.faults.push(fault);
        }
    }
    parts
        .faults
        .extend(limit::check_together(&parts.limits, &parts.volumes, &parts.rules));
    let known: Vec<&str> = parts.volumes.iter().map(|v| v.name.as_str()).collect();
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
        if !known.contains(&rule.volume.as_str()) {
            let what = format!(
                "rule {} names volume {:?}, which there is not",
                rule.name, rule.volume
            );
            parts.faults.push(Fault {
                what,
                mend: suggest(&rule.volume, &known),
                ..place.clone()
            });
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
