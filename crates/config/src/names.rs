//! Names of volumes, rules, quotas and sinks: they stand in file names, commands and metrics.

use std::ops::Range;

use super::keys::Key;
use super::section::{Section, Source};

/// Characters of a name.
pub(super) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

/// A table's name, which no other of its kind may have.
pub(super) fn read_name(
    s: &Section<'_, '_>,
    src: &mut Source<'_>,
    key: &'static Key,
    taken: &[String],
) -> Option<String> {
    let (name, span) = s.needed(src, key)?;
    if !check_name(src, &name, &span) {
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

/// Whether it is a name; if not, says so.
pub(super) fn check_name(src: &mut Source<'_>, name: &str, span: &Range<usize>) -> bool {
    let is_name = !name.is_empty() && name.chars().all(is_name_char);
    if !is_name {
        src.fault(
            span,
            format!("invalid name {name:?}"),
            "use letters, digits, '.', '_' and '-'",
        );
    }
    is_name
}

/// A path that must be absolute.
pub(super) fn check_absolute(src: &mut Source<'_>, key: &Key, path: &str, span: &Range<usize>) -> bool {
    let is_absolute = path.starts_with('/');
    if !is_absolute {
        src.fault(
            span,
            format!("{} is not absolute", key.name),
            "write a path that starts with /",
        );
    }
    is_absolute
}
