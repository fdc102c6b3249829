//! Whom an override means: `match = "alice"`, `'DOM\user'`, `"user@example.org"`, `"proj/*"`.
//!
//! A word is first a name as it stands, and all that the host knows by that name. Only what has `*`, `?`, `[` or `{` in it is a glob as
//! well. Directory services write `DOM\user`, so a backslash stands for itself; where it stands before a glob's own character
//! it may also be meant to escape it, and both readings count.

use globset::{GlobBuilder, GlobMatcher};

/// Characters that make a glob of a word.
const MAKE_GLOBS: [char; 4] = ['*', '?', '[', '{'];
/// What a backslash can escape in a glob.
const ESCAPED: &str = "*?[]{}!,-\\";

/// By what a quota tells files apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaSubject {
    /// Owner.
    User,
    /// Owning group.
    Group,
    /// Project id; files without one belong to no subject.
    Project,
    /// Directories this many levels below the root; what lies above them belongs to no subject.
    Directory {
        /// At least 1.
        depth: u32,
    },
}

/// Whom an override means.
#[derive(Clone)]
pub struct Whom {
    pattern: String,
    /// Directories: without slashes at its ends.
    name: String,
    globs: Vec<GlobMatcher>,
    ids: Vec<u32>,
}

/// The words alone: what is compiled holds caches, and quotas are compared by these words.
impl std::fmt::Debug for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (&self.pattern, &self.ids).fmt(f)
    }
}

impl Whom {
    /// The word, and the accounts that it stands for: what tells two of these apart.
    pub fn words(&self) -> (&str, &[u32]) {
        (&self.pattern, &self.ids)
    }

    /// What a word means among subjects of a kind. `ids` are the accounts that the host knows by this word.
    ///
    /// # Errors
    /// When it is neither a name that the host knows nor a glob.
    pub fn new(pattern: &str, subject: QuotaSubject, ids: Vec<u32>) -> Result<Self, globset::Error> {
        let name = match subject {
            QuotaSubject::Directory { .. } => pattern.trim_matches('/'),
            _ => pattern,
        };
        let globs = match globs(name) {
            Err(_) if !ids.is_empty() => Vec::new(),
            globs => globs?,
        };
        Ok(Self {
            pattern: pattern.to_owned(),
            name: name.to_owned(),
            globs,
            ids,
        })
    }

    /// Whether it means this one: by its id if it has one, or by the name.
    pub fn is(&self, id: Option<u32>, name: &str) -> bool {
        id.is_some_and(|id| self.ids.contains(&id)) || self.is_name(name)
    }

    fn is_name(&self, name: &str) -> bool {
        self.name == name || self.globs.iter().any(|glob| glob.is_match(name))
    }

    /// Takes in an account that goes by a name that is meant, or by its number.
    pub fn meet(&mut self, id: u32, names: &[String]) {
        if !self.ids.contains(&id)
            && (names.iter().any(|name| self.is_name(name)) || self.is_name(&id.to_string()))
        {
            self.ids.push(id);
        }
    }

    /// The word, if it can only be an account's name and this host knows none such.
    pub fn unknown(&self, subject: QuotaSubject) -> Option<&str> {
        let is_account = matches!(subject, QuotaSubject::User | QuotaSubject::Group);
        let is_name = self.pattern.parse::<u32>().is_err() && !self.pattern.contains(MAKE_GLOBS);
        (is_account && is_name && self.ids.is_empty()).then_some(&self.pattern)
    }
}

/// The globs that a word may be meant as.
fn globs(word: &str) -> Result<Vec<GlobMatcher>, globset::Error> {
    let compile = |escapes: bool| {
        let glob = GlobBuilder::new(word).backslash_escape(escapes).build();
        glob.map(|glob| glob.compile_matcher())
    };
    let is_glob = word.contains(MAKE_GLOBS);
    let mut all = Vec::new();
    if is_glob {
        all.push(compile(false));
    }
    if word.contains('\\') && can_escape(word) {
        all.push(compile(true));
    }
    // One reading is enough.
    match all.iter().any(Result::is_ok) {
        true => Ok(all.into_iter().filter_map(Result::ok).collect()),
        false => all.into_iter().collect(),
    }
}

/// Whether each backslash of a word stands before something that it can escape.
fn can_escape(word: &str) -> bool {
    let mut rest = word.chars();
    while let Some(c) = rest.next() {
        if c == '\\' && !rest.next().is_some_and(|next| ESCAPED.contains(next)) {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn is(pattern: &str, name: &str) -> bool {
        let project = Whom::new(pattern, QuotaSubject::Project, vec![]).unwrap();
        project.is(None, name)
    }

    #[test]
    fn names_are_meant_as_they_stand() {
        for (pattern, name) in [
            (r"DOM\user", r"DOM\user"),
            (r"DOM\\user", r"DOM\user"),
            (r"DOM\*", r"DOM\user"),
            (r"DOM\[a-c]*", r"DOM\ben"),
            ("user@example.org", "user@example.org"),
            ("*@example.org", "user@example.org"),
            ("john smith", "john smith"),
            ("a[1]", "a[1]"),
            ("a[1]", "a1"),
            (r"a\[1\]", "a[1]"),
            ("{a,b}c", "bc"),
        ] {
            assert!(is(pattern, name), "{pattern} means {name}");
        }
        for (pattern, name) in [
            (r"DOM\user", "DOMuser"),
            (r"DOM\user", r"dom\user"),
            (r"DOM\*", "DOMINIC"),
            ("john smith", "johnsmith"),
            ("user", "user@example.org"),
        ] {
            assert!(!is(pattern, name), "{pattern} does not mean {name}");
        }
        assert!(Whom::new("a[", QuotaSubject::User, vec![]).is_err());
    }

    #[test]
    fn one_who_is_met_by_a_name_is_meant_by_number() {
        let mut whom = Whom::new(r"DOM\user", QuotaSubject::User, vec![]).unwrap();
        assert_eq!(whom.unknown(QuotaSubject::User), Some(r"DOM\user"));
        whom.meet(4_000_000_007, &["first".into(), r"DOM\user".into()]);
        whom.meet(4_000_000_008, &["first".into()]);
        assert!(whom.is(Some(4_000_000_007), "4000000007") && !whom.is(Some(4_000_000_008), "first"));
        assert!(
            Whom::new("root", QuotaSubject::User, vec![0])
                .unwrap()
                .is(Some(0), "whatever")
        );
        let directory = Whom::new("/proj/a/", QuotaSubject::Directory { depth: 2 }, vec![]).unwrap();
        assert!(directory.is(None, "proj/a"));
    }

    proptest! {
        #[test]
        fn each_name_means_itself(name in "[a-zA-Z0-9 @.$_\\\\-]{1,20}") {
            prop_assert!(is(&name, &name));
        }
    }
}
