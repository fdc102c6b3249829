//! Paths from people, and paths for people and for JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
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

/// For a terminal or a line of text: control characters and bytes that are no UTF-8 are written as escapes.
pub fn printable(path: &[u8]) -> String {
    let mut out = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\\' => out.push_str("\\\\"),
                c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c => out.push(c),
            }
        }
        chunk
            .invalid()
            .iter()
            .for_each(|b| out.push_str(&format!("\\x{b:02x}")));
    }
    out
}

/// Puts a path into a JSON object: `path`, and `path_bytes` where it is no UTF-8.
pub fn insert(object: &mut Map<String, Value>, path: &[u8]) {
    object.insert("path".into(), String::from_utf8_lossy(path).into());
    if std::str::from_utf8(path).is_err() {
        object.insert(
            "path_bytes".into(),
            base64::engine::general_purpose::STANDARD.encode(path).into(),
        );
    }
}

/// The path as the operating system takes it.
pub fn os(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_made_absolute_by_words_alone() {
        assert_eq!(absolute(Path::new("/a/./b/../c//d/")), b"/a/c/d");
        assert_eq!(absolute(Path::new("/../..")), b"/");
    }

    #[test]
    fn names_cannot_break_a_line() {
        assert_eq!(printable(b"a\nb\x1b[31m\xff\\"), "a\\nb\\x1b[31m\\xff\\\\");
    }

    proptest! {
        #[test]
        fn printable_has_no_control_characters(path in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(!printable(&path).chars().any(char::is_control));
        }
    }
}
