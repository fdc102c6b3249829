//! How much there is of something, for people. A directory that goes as a whole stands for the files in it: those are counted and named first.

use purge_proto::units::format_size;
use purge_proto::v1::Totals;

use super::table::{count, plural, share};

/// All files: those by themselves, and those in directories that go as a whole.
pub fn files(t: &Totals) -> u64 {
    t.files.saturating_add(t.files_inside)
}

/// Whether there is nothing.
pub fn is_nothing(t: &Totals) -> bool {
    *t == Totals::default()
}

/// "1,200 files, 1,000 of them in 8 directories, 1 symbolic link"; what there is none of is left out.
pub fn things(t: &Totals) -> String {
    let mut parts = Vec::new();
    let directories = || plural(t.directories, "directory", "directories");
    let all = plural(files(t), "file", "files");
    match (t.files, t.directories, t.files_inside) {
        (0, 0, 0) if t.links > 0 => {}
        (0, d, 0) if d > 0 => parts.push(directories()),
        (_, 0, _) => parts.push(all),
        (0, ..) => parts.push(format!("{all} in {}", directories())),
        (_, _, 0) => parts.extend([all, directories()]),
        (.., inside) => {
            parts.push(all);
            parts.push(format!("{} of them in {}", count(inside), directories()));
        }
    }
    if t.links > 0 {
        parts.push(plural(t.links, "symbolic link", "symbolic links"));
    }
    parts.join(", ")
}

/// The same with its size.
pub fn words(t: &Totals) -> String {
    format!("{}, {}", things(t), format_size(t.bytes))
}

/// For a narrow column: the number of files, or of directories ("500 d") or links ("3 l") where there is nothing else.
pub fn short(t: &Totals) -> String {
    match (files(t), t.directories, t.links) {
        (0, 0, 0) => "-".into(),
        (0, 0, links) => format!("{} l", count(links)),
        (0, directories, _) => format!("{} d", count(directories)),
        (files, ..) => count(files),
    }
}

/// How much of what went to the trash is back; "-": nothing.
pub fn back(trashed: &Totals, restored: &Totals) -> String {
    let parts = |t: &Totals| match files(trashed) {
        0 => t.directories.saturating_add(t.links),
        _ => files(t),
    };
    let whole = parts(trashed);
    match parts(restored).min(whole) {
        0 => "-".into(),
        part => share(part, whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: u64, directories: u64, inside: u64, links: u64) -> Totals {
        Totals {
            files,
            directories,
            bytes: 0,
            links,
            files_inside: inside,
        }
    }

    #[test]
    fn directories_count_what_is_in_them() {
        let said = [
            (of(0, 0, 0, 0), "0 files", "-"),
            (of(1, 0, 0, 0), "1 file", "1"),
            (of(0, 811, 11_057, 0), "11,057 files in 811 directories", "11,057"),
            (of(0, 1, 1, 0), "1 file in 1 directory", "1"),
            (of(0, 500, 0, 0), "500 directories", "500 d"),
            (of(3, 2, 0, 0), "3 files, 2 directories", "3"),
            (
                of(3, 2, 9, 1),
                "12 files, 9 of them in 2 directories, 1 symbolic link",
                "12",
            ),
            (of(0, 0, 0, 2), "2 symbolic links", "2 l"),
            // A directory came back file by file.
            (of(0, 0, 7, 0), "7 files", "7"),
        ];
        for (totals, words, column) in said {
            assert_eq!(
                (things(&totals).as_str(), short(&totals).as_str()),
                (words, column)
            );
        }
    }

    #[test]
    fn what_is_back_is_a_share_of_the_files() {
        assert_eq!(back(&of(0, 10, 1000, 0), &of(90, 0, 0, 0)), "9.0%");
        assert_eq!(back(&of(0, 10, 1000, 0), &of(0, 10, 1000, 0)), "100%");
        assert_eq!(back(&of(1, 0, 0, 0), &of(0, 0, 0, 0)), "-");
        // A file of two names comes back by each.
        assert_eq!(back(&of(1, 0, 0, 0), &of(2, 0, 0, 0)), "100%");
        assert_eq!(back(&of(0, 4, 0, 0), &of(0, 1, 0, 0)), "25%");
    }
}
