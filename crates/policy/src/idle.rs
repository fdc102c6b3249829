//! Patterns that match nothing of a volume, and what may have been meant. Pure.
//!
//! An exclude pattern that matches nothing protects nothing. How people come to write one: `~/x`, the volume's own name in
//! front, another case, `[old]` for a name with brackets in it, an umlaut in another form. So other readings are looked for in the
//! same pass over all paths, and the first that matches is what may have been meant.

use std::borrow::Cow;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use icu_normalizer::ComposingNormalizerBorrowed;

use super::scope::BadGlob;

/// Other readings of one pattern.
const READINGS_MAX: usize = 24;
/// A name with as many letters is looked for with a letter or two wrong.
const TYPO_LETTERS_MIN: usize = 5;
const TYPOS_MAX: usize = 2;

/// A pattern that matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    /// As it was written.
    pub pattern: String,
    /// What matches something and may have been meant.
    pub did_you_mean: Option<String>,
}

/// What an index of the set stands for.
#[derive(Debug, Clone)]
struct Entry {
    /// The pattern's place.
    pattern: usize,
    /// None: the pattern itself. Else a reading and how far it is from the pattern.
    reading: Option<(usize, String)>,
    only_directories: bool,
    /// It names the directory in which the pattern's matches would lie.
    is_above: bool,
}

/// Globs that are tried together.
struct Set {
    globs: GlobSet,
    entries: Vec<Entry>,
}

/// Patterns that are looked for.
pub struct Search {
    patterns: Vec<String>,
    /// Which have matched something.
    met: Vec<bool>,
    /// The nearest reading that has matched something.
    meant: Vec<Option<(usize, String)>>,
    plain: Set,
    /// Against paths in lower case and one form of letters.
    folded: Set,
    /// First names of patterns, to be compared with the names in the root.
    firsts: Vec<(usize, String)>,
    matches: Vec<usize>,
}

impl Search {
    /// Looks for patterns on a volume that goes by some names, such as `scratch` and `export/scratch`.
    ///
    /// # Errors
    /// For the first that is no pattern.
    pub fn new(patterns: &[String], volume: &[String]) -> Result<Self, BadGlob> {
        let (mut plain, mut folded) = (Builder::default(), Builder::default());
        let mut firsts = Vec::new();
        for (place, pattern) in patterns.iter().enumerate() {
            plain.add(pattern, place, None).map_err(|why| BadGlob::Syntax {
                pattern: pattern.clone(),
                why: why.kind().to_string(),
            })?;
            let readings = readings(pattern, volume);
            for (rank, reading) in readings.iter().enumerate() {
                // What is no glob in another reading is not meant.
                let _ = plain.add(reading, place, Some((rank, reading.clone())));
            }
            let nearest = std::iter::once(pattern).chain(&readings);
            for (rank, reading) in nearest.enumerate() {
                let far = rank.saturating_add(READINGS_MAX);
                let _ = folded.add(&fold(reading), place, Some((far, String::new())));
            }
            firsts.extend(first_name(pattern).map(|first| (place, first)));
        }
        let broken = |why: globset::Error| BadGlob::Syntax {
            pattern: patterns.join(", "),
            why: why.kind().to_string(),
        };
        Ok(Self {
            met: vec![false; patterns.len()],
            meant: vec![None; patterns.len()],
            patterns: patterns.to_vec(),
            plain: plain.build().map_err(broken)?,
            folded: folded.build().map_err(broken)?,
            firsts,
            matches: Vec::new(),
        })
    }

    /// Whether each has matched something.
    pub fn is_done(&self) -> bool {
        self.met.iter().all(|met| *met)
    }

    /// Looks at a path, relative to the volume.
    pub fn look(&mut self, path: &[u8], is_dir: bool) {
        if path.is_empty() {
            return;
        }
        let path_as_is = as_path(path);
        let mut matches = std::mem::take(&mut self.matches);
        self.plain.globs.matches_into(path_as_is, &mut matches);
        for entry in matches.iter().filter_map(|at| self.plain.entries.get(*at)) {
            if entry.only_directories && !is_dir {
                continue;
            }
            match &entry.reading {
                None => set(&mut self.met, entry.pattern, true),
                Some((rank, text)) => nearer(&mut self.meant, entry.pattern, *rank, || text.clone()),
            }
        }
        if let Ok(text) = std::str::from_utf8(path) {
            let low = fold(text);
            self.folded.globs.matches_into(low.as_ref(), &mut matches);
            for entry in matches.iter().filter_map(|at| self.folded.entries.get(*at)) {
                if entry.only_directories && !is_dir {
                    continue;
                }
                let rank = entry.reading.as_ref().map_or(0, |(rank, _)| *rank);
                let below = if entry.is_above { "/**" } else { "" };
                nearer(&mut self.meant, entry.pattern, rank, || {
                    format!("/{}{below}", escaped(text))
                });
            }
            if is_dir && !text.contains('/') {
                self.look_for_typos(text);
            }
        }
        self.matches = matches;
    }

    fn look_for_typos(&mut self, name: &str) {
        for (place, first) in &self.firsts {
            let wrong = strsim::damerau_levenshtein(first, name);
            if (1..=TYPOS_MAX).contains(&wrong) {
                let pattern = self.patterns.get(*place).map_or("", String::as_str);
                let rank = READINGS_MAX.saturating_mul(3).saturating_add(wrong);
                nearer(&mut self.meant, *place, rank, || {
                    pattern.replacen(first.as_str(), name, 1)
                });
            }
        }
    }

    /// Those that have matched nothing.
    pub fn idle(self) -> Vec<Idle> {
        let all = self.patterns.into_iter().zip(self.met).zip(self.meant);
        all.filter(|((_, met), _)| !met)
            .map(|((pattern, _), meant)| Idle {
                pattern,
                did_you_mean: meant.map(|(_, text)| text),
            })
            .collect()
    }
}

fn as_path(path: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(path)
}

fn set(all: &mut [bool], place: usize, to: bool) {
    if let Some(one) = all.get_mut(place) {
        *one = to;
    }
}

/// Of several readings the nearest counts, of several paths the first met.
fn nearer(meant: &mut [Option<(usize, String)>], place: usize, rank: usize, text: impl FnOnce() -> String) {
    if let Some(known) = meant.get_mut(place)
        && known.as_ref().is_none_or(|(before, _)| rank < *before)
    {
        *known = Some((rank, text()));
    }
}

struct Builder {
    globs: GlobSetBuilder,
    entries: Vec<Entry>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            globs: GlobSetBuilder::new(),
            entries: Vec::new(),
        }
    }
}

impl Builder {
    fn add(
        &mut self,
        pattern: &str,
        place: usize,
        reading: Option<(usize, String)>,
    ) -> Result<(), globset::Error> {
        let (glob, only_directories) = compile(pattern)?;
        self.push(
            glob,
            Entry {
                pattern: place,
                reading: reading.clone(),
                only_directories,
                is_above: false,
            },
        );
        // `x/**` is right where there is a directory x, also while that is empty.
        let above = pattern
            .strip_suffix("/**")
            .filter(|above| !above.is_empty() && !above.ends_with("**"));
        if let Some(above) = above {
            // It is meant at its place, not at each depth.
            let (glob, _) = compile(&format!("/{}", above.trim_start_matches('/')))?;
            self.push(
                glob,
                Entry {
                    pattern: place,
                    reading,
                    only_directories: true,
                    is_above: true,
                },
            );
        }
        Ok(())
    }

    fn push(&mut self, glob: Glob, entry: Entry) {
        self.globs.add(glob);
        self.entries.push(entry);
    }

    fn build(self) -> Result<Set, globset::Error> {
        Ok(Set {
            globs: self.globs.build()?,
            entries: self.entries,
        })
    }
}

/// A line of gitignore as the glob that it means, and whether only directories are meant.
fn compile(line: &str) -> Result<(Glob, bool), globset::Error> {
    // A directory and nothing in it.
    let bare = line
        .strip_suffix('.')
        .filter(|directory| directory.ends_with('/'));
    let line = bare.unwrap_or(line);
    let (anchored, line) = match line.strip_prefix('/') {
        Some(rest) => (true, rest),
        None => (
            false,
            line.strip_prefix('\\')
                .filter(|l| l.starts_with(['!', '#']))
                .unwrap_or(line),
        ),
    };
    let (only_directories, line) = match line.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let mut glob = line.to_owned();
    if !anchored && !line.contains('/') && line != "**" {
        glob.insert_str(0, "**/");
    }
    if glob.ends_with("/**") {
        glob.push_str("/*");
    }
    let glob = GlobBuilder::new(&glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()?;
    Ok((glob, only_directories))
}

/// What may have been meant, the nearest reading first.
fn readings(pattern: &str, volume: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |reading: String| {
        if !reading.trim_matches('/').is_empty() && reading != pattern && !all.contains(&reading) {
            all.push(reading);
        }
    };
    let inner = pattern.trim_start_matches('/');
    let mut bases = vec![pattern.to_owned()];
    for name in volume {
        let rest = inner
            .strip_prefix(name.as_str())
            .and_then(|rest| rest.strip_prefix('/'));
        bases.extend(rest.map(|rest| format!("/{rest}")));
    }
    if let Some(rest) = below_home(pattern) {
        bases.push(format!("/{rest}"));
        bases.push(format!("**/{rest}"));
    }
    for base in bases {
        add(base.clone());
        add(escaped_brackets(&base));
        add(base.replace('\\', "/"));
        add(base.replace('\\', "\\\\"));
        add(base.trim_end_matches('/').to_owned());
        let inner = base.trim_start_matches('/');
        if inner.contains('/') && !inner.starts_with("**/") {
            add(format!("**/{inner}"));
        }
        add(base.to_lowercase());
    }
    all.truncate(READINGS_MAX);
    all
}

/// What follows `~/`, `~user/`, `$HOME/` and the like.
fn below_home(pattern: &str) -> Option<&str> {
    let (first, rest) = pattern.trim_start_matches('/').split_once('/')?;
    let is_home = first.starts_with('~') || first.starts_with('$') || first.starts_with("%");
    (is_home && !rest.is_empty()).then_some(rest)
}

/// Brackets, braces and question marks as they stand in names.
fn escaped_brackets(pattern: &str) -> String {
    let mut out = String::new();
    for c in pattern.chars() {
        if "[]{}?".contains(c) && !out.ends_with('\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A path as the pattern that means it.
fn escaped(path: &str) -> String {
    let mut out = String::new();
    for c in path.chars() {
        if "[]{}?*\\".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// In lower case, with each letter in its composed form.
fn fold(text: &str) -> Cow<'_, str> {
    let is_folded = text.is_ascii() && !text.bytes().any(|b| b.is_ascii_uppercase());
    match is_folded {
        true => Cow::Borrowed(text),
        false => {
            let composed = ComposingNormalizerBorrowed::new_nfc().normalize(text);
            Cow::Owned(composed.to_lowercase())
        }
    }
}

/// The first name of a pattern, if it is a plain and not too short one.
fn first_name(pattern: &str) -> Option<String> {
    let first = pattern.trim_start_matches('/').split('/').next()?;
    let is_plain = !first.contains(['*', '?', '[', '{', '\\']);
    (is_plain && first.chars().count() >= TYPO_LETTERS_MIN).then(|| first.to_owned())
}

#[cfg(test)]
#[path = "idle_tests.rs"]
mod tests;
