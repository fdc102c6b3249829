//! What a rule speaks of: globs, owners, sizes. Pure.
//!
//! Globs are those of gitignore, relative to the volume: `*.tmp` matches at any depth, `/scratch/*` at the root,
//! `software/**` everything below; a matched directory covers everything in it. Names are bytes, not UTF-8.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// A list of patterns, compiled.
#[derive(Clone)]
pub struct Globs {
    patterns: Vec<String>,
    compiled: Gitignore,
    /// Patterns that mean directories and nothing in them.
    bare: Option<Gitignore>,
}

/// The patterns alone: what is compiled holds caches, and rules are compared by these words.
impl std::fmt::Debug for Globs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.patterns.fmt(f)
    }
}

/// Not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadGlob {
    /// Would match nothing, or be taken for a comment.
    #[error("pattern {0:?} is empty or a comment: write a gitignore-style glob such as \"**/*.tmp\"")]
    Empty(String),
    /// `!` in gitignore takes back what another pattern matched.
    #[error("pattern {0:?} starts with `!`: write it into the opposite list instead (include, exclude)")]
    Negated(String),
    /// Compiles, but no path relative to the volume can ever match it: an exclude that protects nothing.
    #[error(
        "pattern {0:?} can match nothing: write it relative to the volume, without \".\", \"..\", \"//\" or blanks at its ends"
    )]
    Idle(String),
    /// Cannot be compiled.
    #[error("pattern {pattern:?} is no glob: {why}")]
    Syntax {
        /// Which.
        pattern: String,
        /// Why.
        why: String,
    },
}

impl Globs {
    /// Compiles patterns.
    ///
    /// # Errors
    /// [`BadGlob`] for the first that is none.
    pub fn compile(patterns: &[String]) -> Result<Self, BadGlob> {
        let builder = Self::builder(patterns)?;
        Self::built(patterns, &builder, None)
    }

    /// The same for what is kept. A pattern whose last name is a wildcard alone and ends in `/`, as `/*/` does, means the directories and nothing
    /// in them; so does any pattern that ends in `/.`.
    ///
    /// # Errors
    /// [`BadGlob`] for the first that is none.
    pub fn compile_exclude(patterns: &[String]) -> Result<Self, BadGlob> {
        let (mut covering, mut bare) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match bare_directory(pattern) {
                Some(directory) => bare.push(directory),
                None => covering.push(pattern.clone()),
            }
        }
        let bare = match bare.is_empty() {
            true => None,
            false => Some(Self::builder(&bare)?),
        };
        Self::built(patterns, &Self::builder(&covering)?, bare.as_ref())
    }

    fn built(
        patterns: &[String],
        covering: &GitignoreBuilder,
        bare: Option<&GitignoreBuilder>,
    ) -> Result<Self, BadGlob> {
        let build = |builder: &GitignoreBuilder| {
            builder.build().map_err(|why| BadGlob::Syntax {
                pattern: patterns.join(", "),
                why: why.to_string(),
            })
        };
        Ok(Self {
            patterns: patterns.to_vec(),
            compiled: build(covering)?,
            bare: bare.map(build).transpose()?,
        })
    }

    fn builder(patterns: &[String]) -> Result<GitignoreBuilder, BadGlob> {
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            match pattern.trim() {
                "" => return Err(BadGlob::Empty(pattern.clone())),
                p if p.starts_with('#') => return Err(BadGlob::Empty(pattern.clone())),
                p if p.starts_with('!') => return Err(BadGlob::Negated(pattern.clone())),
                _ => {}
            }
            let syntax = |why: ignore::Error| BadGlob::Syntax {
                pattern: pattern.clone(),
                why: why.to_string(),
            };
            let inner = pattern.strip_prefix('/').unwrap_or(pattern);
            let inner = inner.strip_suffix('/').unwrap_or(inner);
            if pattern.trim() != pattern || inner.split('/').any(|part| matches!(part, "" | "." | "..")) {
                return Err(BadGlob::Idle(pattern.clone()));
            }
            // gitignore takes a mistyped glob for a name; a rule must not.
            globset::Glob::new(pattern).map_err(|why| BadGlob::Syntax {
                pattern: pattern.clone(),
                why: why.kind().to_string(),
            })?;
            builder.add_line(None, pattern).map_err(syntax)?;
        }
        Ok(builder)
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// The pattern that covers `path` (relative to the volume), if one does.
    pub fn matching(&self, path: &[u8], is_dir: bool) -> Option<&str> {
        let path = Path::new(OsStr::from_bytes(path));
        // Only names count: an absolute path or one that climbs is none of a volume's.
        let plain = path
            .components()
            .all(|c| matches!(c, std::path::Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() {
            return None;
        }
        let bare = self.bare.as_ref().filter(|_| is_dir);
        match self.compiled.matched_path_or_any_parents(path, is_dir) {
            ignore::Match::Ignore(glob) => Some(glob.original()),
            _ => bare.and_then(|bare| match bare.matched(path, true) {
                ignore::Match::Ignore(glob) => Some(glob.original()),
                _ => None,
            }),
        }
    }

    /// Whether a pattern means the directory `path` and nothing in it.
    fn names_bare(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        let bare = self.bare.as_ref().map(|bare| bare.matched(path, true));
        matches!(bare, Some(ignore::Match::Ignore(_)))
    }

    /// Whether a pattern names `path` itself; what covers a directory above it is not asked for.
    pub(super) fn names(&self, path: &[u8], is_dir: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        matches!(self.compiled.matched(path, is_dir), ignore::Match::Ignore(_))
    }

    fn is_everything(&self) -> bool {
        self.patterns.iter().any(|p| p == "**")
    }
}

/// Accounts of a scope as the configuration names them. A name may lead to more ids than the host told when it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Called {
    /// Of `users`.
    pub users: Vec<String>,
    /// Of `groups`.
    pub groups: Vec<String>,
    /// Of `exclude_users`.
    pub exclude_users: Vec<String>,
    /// Of `exclude_groups`.
    pub exclude_groups: Vec<String>,
}

/// The names from the root on that a pattern says without a wildcard; none if it matches at any depth.
fn literal_names(pattern: &str) -> Vec<&[u8]> {
    let inner = pattern.strip_suffix('/').unwrap_or(pattern);
    if !inner.contains('/') {
        return Vec::new();
    }
    let names = inner.strip_prefix('/').unwrap_or(inner).split('/');
    let is_literal = |name: &&str| !name.contains(['*', '?', '[', ']', '{', '}', '\\', '!']);
    names.take_while(is_literal).map(str::as_bytes).collect()
}

/// Of a pattern that means directories and nothing in them: the pattern that names these directories.
fn bare_directory(pattern: &str) -> Option<String> {
    if let Some(directory) = pattern.strip_suffix("/.") {
        return Some(format!("{directory}/"));
    }
    let last = pattern.strip_suffix('/')?.rsplit('/').next()?;
    (!last.is_empty() && last.bytes().all(|b| b == b'*')).then(|| pattern.to_owned())
}

/// What a rule speaks of.
#[derive(Debug, Clone)]
pub struct Scope {
    /// A path must be covered by one of these.
    pub include: Globs,
    /// And by none of these.
    pub exclude: Option<Globs>,
    /// If given, the owner must be one of these.
    pub users: Option<Vec<u32>>,
    /// If given, the group must be one of these.
    pub groups: Option<Vec<u32>>,
    /// The owner must be none of these.
    pub exclude_users: Vec<u32>,
    /// The group must be none of these.
    pub exclude_groups: Vec<u32>,
    /// The names that stand for some of these ids.
    pub called: Called,
    /// At least this many bytes.
    pub min_size: u64,
    /// At most this many bytes.
    pub max_size: u64,
}

impl Scope {
    /// Everything on the volume.
    pub fn all() -> Self {
        let include = Globs {
            patterns: vec!["**".into()],
            compiled: Gitignore::empty(),
            bare: None,
        };
        Self {
            include,
            exclude: None,
            users: None,
            groups: None,
            exclude_users: Vec::new(),
            exclude_groups: Vec::new(),
            called: Called::default(),
            min_size: 0,
            max_size: u64::MAX,
        }
    }

    /// Takes in a user that goes by a name of the scope.
    pub fn meet_user(&mut self, uid: u32, names: &[String]) {
        meet(self.users.as_mut(), &self.called.users, uid, names);
        meet(
            Some(&mut self.exclude_users),
            &self.called.exclude_users,
            uid,
            names,
        );
    }

    /// The same for a group.
    pub fn meet_group(&mut self, gid: u32, names: &[String]) {
        meet(self.groups.as_mut(), &self.called.groups, gid, names);
        meet(
            Some(&mut self.exclude_groups),
            &self.called.exclude_groups,
            gid,
            names,
        );
    }

    /// Whether owner and size are in scope.
    pub fn admits_attributes(&self, uid: u32, gid: u32, size: u64) -> bool {
        self.admits_owner(uid, gid) && (self.min_size..=self.max_size).contains(&size)
    }

    /// Whether the owner is in scope.
    pub fn admits_owner(&self, uid: u32, gid: u32) -> bool {
        self.users.as_ref().is_none_or(|u| u.contains(&uid))
            && self.groups.as_ref().is_none_or(|g| g.contains(&gid))
            && !self.exclude_users.contains(&uid)
            && !self.exclude_groups.contains(&gid)
    }

    /// Whether a path (relative to the volume, without a leading slash) is in scope.
    pub fn admits_path(&self, path: &[u8], is_dir: bool) -> bool {
        let included = self.include.is_everything() || self.include.matching(path, is_dir).is_some();
        included
            && self
                .exclude
                .as_ref()
                .is_none_or(|e| e.matching(path, is_dir).is_none())
    }

    /// Whether a pattern of `include` covers a path, also where `exclude` has one for it.
    pub(super) fn is_included(&self, path: &[u8], is_dir: bool) -> bool {
        self.include.is_everything() || self.include.matching(path, is_dir).is_some()
    }

    /// Whether `include` has every path.
    pub(super) fn has_all_paths(&self) -> bool {
        self.include.is_everything()
    }

    /// Where what it speaks of lies, by each pattern: names of directories and at last of an entry, from the root on; empty: anywhere.
    pub(super) fn places(&self) -> Vec<Vec<&[u8]>> {
        self.include.patterns.iter().map(|p| literal_names(p)).collect()
    }

    /// Whether a pattern of `include` names `path` itself.
    pub(super) fn includes(&self, path: &[u8], is_dir: bool) -> bool {
        self.include.names(path, is_dir)
    }

    /// Whether a pattern of `exclude` names `path` itself, and so all that lies in it.
    pub(super) fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        self.exclude.as_ref().is_some_and(|e| e.names(path, is_dir))
    }

    /// As [`Scope::admits_path`], for an entry of a directory that is not excluded, and `included` or not.
    pub(super) fn admits_below(&self, included: bool, path: &[u8], is_dir: bool) -> bool {
        let included = included || self.include.is_everything() || self.includes(path, is_dir);
        let bare = |e: &Globs| is_dir && e.names_bare(path);
        included && !self.excludes(path, is_dir) && !self.exclude.as_ref().is_some_and(bare)
    }

    /// Whether [`Scope::admits_below`] can say no.
    pub(super) fn needs_path_below(&self, included: bool) -> bool {
        self.exclude.is_some() || !(included || self.include.is_everything())
    }

    /// Whether [`Scope::admits_path`] can say no: without globs no path need be built.
    pub fn needs_path(&self) -> bool {
        self.exclude.is_some() || !self.include.is_everything()
    }

    /// What keeps an entry out of scope, in words; none if it is in.
    pub fn why_not(&self, path: &[u8], is_dir: bool, uid: u32, gid: u32, size: u64) -> Option<String> {
        if let Some(pattern) = self.exclude.as_ref().and_then(|e| e.matching(path, is_dir)) {
            return Some(format!("excluded by pattern {pattern:?}"));
        }
        if !self.admits_path(path, is_dir) {
            return Some("matches no pattern of include".into());
        }
        if !self.admits_owner(uid, gid) {
            return Some(format!(
                "its owner (uid {uid}, gid {gid}) is not in the rule's scope"
            ));
        }
        if !is_dir && size < self.min_size {
            return Some(format!("smaller than min_size ({} bytes)", self.min_size));
        }
        if !is_dir && size > self.max_size {
            return Some(format!("larger than max_size ({} bytes)", self.max_size));
        }
        None
    }
}

fn meet(ids: Option<&mut Vec<u32>>, called: &[String], id: u32, names: &[String]) {
    if let Some(ids) = ids
        && !ids.contains(&id)
        && names.iter().any(|name| called.contains(name))
    {
        ids.push(id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::compile(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn globs_are_those_of_gitignore() {
        let g = globs(&["**/.keep", "software/**", "*.tmp", "/top"]);
        for path in [
            "a/b/.keep",
            ".keep",
            "software/x/y",
            "a/b.tmp",
            "top",
            "top/below",
        ] {
            assert!(g.matching(path.as_bytes(), false).is_some(), "{path}");
        }
        for path in ["a/keep", "soft/x", "a/top", "b.tmpx"] {
            assert!(g.matching(path.as_bytes(), false).is_none(), "{path}");
        }
        assert!(globs(&["*.\u{ff}"]).matching(b"a.\xff\xfe", false).is_none());
        assert!(globs(&["a*"]).matching(b"a\xff\nb", false).is_some());
    }

    #[test]
    fn a_pattern_can_keep_a_directory_and_nothing_in_it() {
        let exclude = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|p| (*p).to_owned()).collect();
            Scope {
                exclude: Some(Globs::compile_exclude(&patterns).unwrap()),
                ..Scope::all()
            }
        };
        let top = exclude(&["/*/"]);
        assert!(!top.admits_path(b"alice", true));
        for inside in [&b"alice/data"[..], b"alice/sub/data", b"file"] {
            assert!(
                top.admits_path(inside, false),
                "{}",
                String::from_utf8_lossy(inside)
            );
        }
        assert!(top.admits_path(b"alice/sub", true));
        let two = exclude(&["/*/*/", "/shared/."]);
        assert!(!two.admits_path(b"a/b", true) && two.admits_path(b"a", true));
        assert!(!two.admits_path(b"shared", true) && two.admits_path(b"shared/data", false));
        // What names a directory goes on to cover what lies in it.
        let named = exclude(&["software/", "/a*/"]);
        assert!(!named.admits_path(b"software/bin/x", false) && !named.admits_path(b"ab/x", false));
        let any = exclude(&["**/"]);
        assert!(!any.admits_path(b"a/b/c", true) && any.admits_path(b"a/b/c", false));
        assert!(
            Globs::compile_exclude(&["/.".into()]).is_err()
                && Globs::compile_exclude(&["a/../.".into()]).is_err()
        );
    }

    #[test]
    fn patterns_that_select_by_accident_are_refused() {
        for bad in [
            "", "  ", "# x", "!a", "a[", "{a", "./keep", "a//b", "a/../b", " a", "/",
        ] {
            assert!(Globs::compile(&[bad.into()]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_reason_names_what_keeps_it_out() {
        let mut scope = Scope::all();
        assert_eq!(scope.why_not(b"a", false, 0, 0, 1), None);
        scope.exclude = Some(globs(&["software/**"]));
        assert_eq!(
            scope.why_not(b"software/a", false, 0, 0, 1).unwrap(),
            "excluded by pattern \"software/**\""
        );
        scope.min_size = 10;
        assert!(scope.why_not(b"a", false, 0, 0, 1).unwrap().contains("min_size"));
        scope.users = Some(vec![7]);
        assert!(scope.why_not(b"a", false, 0, 0, 11).unwrap().contains("uid 0"));
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in prop::collection::vec(any::<u8>(), 0..40), is_dir: bool) {
            let scope = Scope { exclude: Some(globs(&["**/x*", "/a/b", "c/"])), ..Scope::all() };
            let _ = scope.admits_path(&path, is_dir);
        }

        #[test]
        fn an_excluded_directory_excludes_everything_below(below in "[a-z\n\u{80}-\u{ff}]{1,8}(/[a-z ]{1,8}){0,3}") {
            let scope = Scope { exclude: Some(globs(&["/keep"])), ..Scope::all() };
            let path = format!("keep/{below}");
            prop_assert!(!scope.admits_path(path.as_bytes(), false));
        }

        #[test]
        fn everything_is_admitted_where_nothing_is_said(path in "[a-z/]{1,20}") {
            prop_assert!(Scope::all().admits_path(path.as_bytes(), false));
        }
    }
}
