//! Lines of strace(1) -> calls, each judged: may a user who can write the directory make it do something else?

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What was seen of an agent.
pub struct Trace {
    root: String,
    /// The first half of a call that another thread's line has cut in two, by thread.
    begun: HashMap<String, String>,
    /// The names of all calls.
    pub seen: Vec<String>,
    /// Calls that must not be, each with why.
    pub wrong: Vec<String>,
}

impl Trace {
    /// Of an agent that watches `root`.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root
                .to_str()
                .expect("a volume that strace writes as it is")
                .to_owned(),
            begun: HashMap::new(),
            seen: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// How many of each.
    pub fn kinds(&self) -> BTreeMap<&str, usize> {
        let mut kinds = BTreeMap::new();
        self.seen
            .iter()
            .for_each(|k| *kinds.entry(k.as_str()).or_default() += 1);
        kinds
    }

    /// Takes a line.
    pub fn line(&mut self, line: &str) {
        let Some((thread, call)) = line.split_once(' ') else {
            return;
        };
        let call = call.trim_start();
        if call.starts_with("+++") || call.starts_with("---") {
            return;
        }
        if let Some(rest) = call.strip_prefix("<... ") {
            let (Some(begun), Some((_, rest))) = (self.begun.remove(thread), rest.split_once("resumed>"))
            else {
                return;
            };
            return self.call(&format!("{begun}{rest}"));
        }
        match call.split_once("<unfinished ...>") {
            Some((begun, _)) => {
                self.begun.insert(thread.to_owned(), begun.trim_end().to_owned());
            }
            None => self.call(call),
        }
    }

    /// What was cut off by the end of a thread is judged as far as it goes.
    pub fn end(&mut self) {
        for begun in std::mem::take(&mut self.begun).into_values() {
            self.call(&format!("{begun})"));
        }
    }

    fn call(&mut self, text: &str) {
        let Some((name, rest)) = text.split_once('(') else {
            return;
        };
        let arguments = arguments(rest);
        self.seen.push(name.to_owned());
        let call = Call {
            name,
            arguments: arguments.iter().map(String::as_str).collect(),
            root: &self.root,
        };
        if let Some(why) = call.wrong() {
            // Without names and numbers, so that one kind of call is one line.
            self.wrong
                .push(format!("{why}: {}", text.split(" = ").next().unwrap_or(text)));
        }
    }
}

/// What stands between the parentheses, cut at the commas that stand in nothing else.
fn arguments(text: &str) -> Vec<String> {
    let (mut all, mut one, mut depth, mut quoted, mut escaped) =
        (Vec::new(), String::new(), 0u32, false, false);
    for c in text.chars() {
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            one.push(c);
            continue;
        }
        match c {
            ')' if depth == 0 => break,
            ',' if depth == 0 => {
                all.push(one.trim().to_owned());
                one.clear();
                continue;
            }
            '"' => quoted = true,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        one.push(c);
    }
    all.push(one.trim().to_owned());
    all
}

struct Call<'a> {
    name: &'a str,
    arguments: Vec<&'a str>,
    root: &'a str,
}

impl Call<'_> {
    fn argument(&self, n: usize) -> &str {
        self.arguments.get(n).copied().unwrap_or("")
    }

    fn has(&self, word: &str) -> bool {
        self.arguments
            .iter()
            .any(|a| !a.starts_with('"') && a.contains(word))
    }

    /// The pairs of a directory and a name in it; a path alone counts from the working directory.
    fn places(&self) -> Vec<(&str, &str)> {
        let at = |dir: usize| (self.argument(dir), unquoted(self.argument(dir + 1)));
        match self.name {
            "renameat" | "renameat2" | "linkat" => vec![at(0), at(2)],
            "symlinkat" => vec![at(1)],
            "symlink" => vec![("AT_FDCWD", unquoted(self.argument(1)))],
            "rename" | "link" => (0..2).map(|n| ("AT_FDCWD", unquoted(self.argument(n)))).collect(),
            "fanotify_mark" => vec![(self.argument(3), unquoted(self.argument(4)))],
            "inotify_add_watch" => vec![("AT_FDCWD", unquoted(self.argument(1)))],
            _ if self.argument(0).starts_with('"') => vec![("AT_FDCWD", unquoted(self.argument(0)))],
            _ => vec![at(0)],
        }
    }

    fn wrong(&self) -> Option<String> {
        let by_name = self
            .places()
            .iter()
            .any(|(_, name)| !name.is_empty() && *name != "NULL");
        let itself = self
            .places()
            .iter()
            .all(|(_, name)| name.starts_with("/proc/self/fd/"));
        if by_name && !itself && self.changes_owner_mode_or_times() {
            return Some("owner, mode, times or attributes by name".into());
        }
        let places = self.places();
        places.iter().find_map(|(dir, name)| match *dir {
            _ if self.is_below(name) => Some("a path into the volume".into()),
            "AT_FDCWD" if *name == self.root => self.wrong_root(),
            "AT_FDCWD" => None,
            _ => self.wrong_in_directory(name),
        })
    }

    fn changes_owner_mode_or_times(&self) -> bool {
        matches!(
            self.name,
            "chmod"
                | "chown"
                | "lchown"
                | "fchmodat"
                | "fchmodat2"
                | "fchownat"
                | "utime"
                | "utimes"
                | "futimesat"
                | "utimensat"
                | "setxattr"
                | "lsetxattr"
                | "removexattr"
                | "lremovexattr"
                | "truncate"
        )
    }

    fn is_below(&self, name: &str) -> bool {
        name.strip_prefix(self.root)
            .is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
    }

    /// The root itself is what the configuration names; its own name is not followed.
    fn wrong_root(&self) -> Option<String> {
        let opens = matches!(self.name, "open" | "openat");
        (opens && !self.has("O_NOFOLLOW")).then(|| "the root of the volume, followed if it is a link".into())
    }

    fn wrong_in_directory(&self, name: &str) -> Option<String> {
        // Of the descriptor itself.
        if name.is_empty() || name == "NULL" {
            return None;
        }
        if self.name == "openat2" {
            let stays = self.has("RESOLVE_BENEATH") && self.has("RESOLVE_NO_SYMLINKS");
            return (!stays).then(|| "openat2 that may leave the directory".into());
        }
        if name.contains('/') {
            return Some("several names in one call".into());
        }
        if matches!(name, "." | "..") {
            return None;
        }
        let follows = match self.name {
            "open" | "openat" => !self.has("O_NOFOLLOW"),
            "newfstatat" | "statx" | "faccessat" | "faccessat2" => !self.has("AT_SYMLINK_NOFOLLOW"),
            "linkat" | "name_to_handle_at" => self.has("AT_SYMLINK_FOLLOW"),
            _ => false,
        };
        follows.then(|| "a name that is followed if it is a link".into())
    }
}

fn unquoted(text: &str) -> &str {
    text.trim_end_matches("...").trim_matches('"')
}
