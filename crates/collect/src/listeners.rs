//! Processes that decide on the opens of others (`FAN_OPEN_PERM`: virus scanners), as `/proc/PID/fdinfo` tells. For a person.

use std::fs;
use std::path::Path;

use super::open_files::{Holder, SEARCH_MAX, Until, effective_uid, files_of, info_of, processes};

/// `FAN_OPEN_PERM` and `FAN_OPEN_EXEC_PERM`.
const DECIDES: u64 = 0x1_0000 | 0x4_0000;
/// What `/proc/PID/fd` shows of a group.
const GROUP: &str = "anon_inode:[fanotify]";

/// Who decides on opens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listeners {
    /// In words.
    pub those: Vec<String>,
    /// Not every process could be looked at.
    pub may_be_more: bool,
}

impl Listeners {
    /// Who, or who may; none: no process.
    pub fn words(&self) -> Option<String> {
        match (self.those.is_empty(), self.may_be_more) {
            (true, false) => None,
            (true, true) => Some("a process that could not be looked at may decide on opens".into()),
            (false, _) => Some(format!("decides on opens: {}", self.those.join(", "))),
        }
    }
}

/// Looks for processes that decide on opens.
pub fn that_decide_on_opens() -> Listeners {
    let until = Until::after(SEARCH_MAX);
    let mut found = Listeners::default();
    let Ok(processes) = processes() else {
        found.may_be_more = true;
        return found;
    };
    for process in processes.flatten() {
        if until.is_over() {
            found.may_be_more = true;
            break;
        }
        match files_of(process) {
            Ok(Some(base)) if decides(&base) => {
                let holder = effective_uid(process).map(|uid| Holder::new(process, uid));
                found.those.extend(holder.map(|holder| holder.words()));
            }
            Ok(_) => {}
            Err(_) => found.may_be_more = true,
        }
    }
    found
}

fn decides(base: &Path) -> bool {
    let files = fs::read_dir(base.join("fd")).into_iter().flatten().flatten();
    let groups = files.filter(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == GROUP));
    let mut infos = groups.filter_map(|group| info_of(base, &group.file_name()));
    infos.any(|info| has_decisions(&info))
}

/// Whether a group has a mark that asks for decisions on opens: `fanotify sdev:8 mflags:0 mask:10000 ignored_mask:0`.
fn has_decisions(info: &str) -> bool {
    let marks = info.lines().filter(|line| line.starts_with("fanotify "));
    let mut masks = marks.flat_map(|line| line.split(' ').filter_map(|word| word.strip_prefix("mask:")));
    masks.any(|mask| u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & DECIDES != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_asks_for_decisions_is_told_from_others() {
        let info = |mark: &str| {
            format!("pos:\t0\nflags:\t02000000\nfanotify flags:1 event-flags:0\nfanotify {mark}\n")
        };
        assert!(has_decisions(&info(
            "mnt_id:1e mflags:0 mask:10000 ignored_mask:0"
        )));
        assert!(has_decisions(&info(
            "sdev:800013 mflags:0 mask:40020 ignored_mask:0"
        )));
        assert!(!has_decisions(&info(
            "sdev:800013 mflags:0 mask:1000073b ignored_mask:10000"
        )));
        assert!(!has_decisions(
            "inotify wd:1 ino:1 sdev:1 mask:10000 ignored_mask:0"
        ));
    }

    #[test]
    fn what_was_not_looked_at_may_decide() {
        let none = Listeners::default();
        assert_eq!(none.words(), None);
        let unknown = Listeners {
            may_be_more: true,
            ..none
        };
        assert!(unknown.words().is_some_and(|words| words.contains("may decide")));
    }
}
