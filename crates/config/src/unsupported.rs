//! What the contract knows and this version does not do yet: refused in words, never silently accepted.

/// Whether a key must be refused: the reason and the mend.
pub(super) fn refused(section: &str, key: &str, value: &str) -> Option<(&'static str, &'static str)> {
    let later = "is not supported by this version";
    match (section, key) {
        ("volume", "collector") if !matches!(value, "auto" | "fanotify") => {
            Some((later, "write \"auto\" or \"fanotify\", or leave it out"))
        }
        ("rule", "action") if !matches!(value, "delete" | "notify") => {
            Some((later, "write \"delete\" or \"notify\", or leave it out"))
        }
        ("", "archive") => Some((later, "take the whole table out")),
        _ => None,
    }
}
