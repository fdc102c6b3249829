//! Paths from people, and paths for people and for JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use purge_proto::shown::Shown;
use serde_json::{Map, Value};

/// The absolute path, found from the words alone: `.` and `..` are taken out, symlinks are not followed, and the
/// volume is not touched.
pub fn absolute(path: &Path) -> Vec<u8> {
    let all = std::env::current_dir().unwrap_or_else(|_| "/".into()).join(path);
    let mut clean = PathBuf::from("/");
    for part in all.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean.as_os_str().as_bytes().to_vec()
}

/// For a terminal or a line of text; see [`Shown::name`].
pub fn printable(path: &[u8]) -> String {
    Shown::name(path).into_string()
}

/// For a command line that is shown: in quotes where a shell would take it apart.
pub fn quoted(path: &[u8]) -> String {
    let shown = printable(path);
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@%=:,".contains(c);
    match shown.chars().all(is_plain) {
        true => shown,
        false => format!("'{}'", shown.replace('\'', r"'\''")),
    }
}

/// The same of a path that may end above what the caller may know.
pub fn partly(path: &[u8], is_hidden: bool) -> String {
    match is_hidden {
        true => format!(
            "{} (the rest is in a directory that you cannot enter)",
            printable(path)
        ),
        false => printable(path),
    }
}

/// The key of a path in JSON.
pub const PATH: &str = "path";
/// The key of its bytes, where it is no UTF-8.
const PATH_BYTES: &str = "path_bytes";

/// Puts a path into a JSON object: `path`, and `path_bytes` where it is no UTF-8.
pub fn insert(object: &mut Map<String, Value>, path: &[u8]) {
    object.insert(PATH.into(), String::from_utf8_lossy(path).into());
    if std::str::from_utf8(path).is_err() {
        object.insert(
            PATH_BYTES.into(),
            base64::engine::general_purpose::STANDARD.encode(path).into(),
        );
    }
}

/// The bytes that [`insert`] put beside a path that is no UTF-8.
pub fn bytes_of(object: &Map<String, Value>) -> Option<Vec<u8>> {
    let text = object.get(PATH_BYTES)?.as_str()?;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// The path as the operating system takes it.
pub fn os(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_by_words_alone() {
        assert_eq!(absolute(Path::new("/a/./b/../c//d/")), b"/a/c/d");
        assert_eq!(absolute(Path::new("/../..")), b"/");
    }

    #[test]
    fn names_cannot_break_a_line() {
        assert_eq!(printable(b"a\nb\x1b[31m\xff\\"), "a\\nb\\x1b[31m\\xff\\\\");
    }
}
