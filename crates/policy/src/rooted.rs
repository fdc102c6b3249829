//! Which project ids count where a project's quota deletes. Pure.
//!
//! The owner of a file can give it any project id. So an id counts only where it was inherited from a directory that root made the project's:
//!
//! ```text
//!   team/          id 42, root's, or named for 42 in /etc/projects    the project's root
//!   team/a/        id 42                                              each directory on the way has the same id
//!   team/a/file    id 42                                              counts
//!   alice/file     id 42, and alice/ has none                         counts for nothing, and is not taken
//!   alice/r/       id 42, root's                                      no project's root: above it is a directory that is not root's, whose
//!                                                                     owner gave the id, had it inherited, and can take it back
//! ```

use std::path::Path;

use purge_proto::units::{format_count, format_size};
use rustc_hash::FxHashMap;

use super::portion::Portion;
use purge_index::codec::DirEntry;
use purge_index::{Attributes, DirId, Index};

/// Directories of one volume that `/etc/projects` names: the project id, and the path below the volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named(Vec<(u32, Vec<u8>)>);

/// Directories that are named for one volume at most: the others count for nothing.
const NAMED_MAX: usize = 10_000;

impl Named {
    /// From the text of `/etc/projects`: lines `ID:PATH`.
    pub fn read(text: &str, volume: &Path) -> Self {
        let of_line = |line: &str| {
            let (id, path) = line.trim().split_once(':')?;
            let id = id.parse().ok().filter(|id| *id != 0)?;
            let below = Path::new(path).strip_prefix(volume).ok()?;
            // `strip_prefix` takes doubled and trailing slashes away.
            let names = below.components().map(|c| c.as_os_str().as_encoded_bytes());
            Some((id, names.collect::<Vec<_>>().join(&b'/')))
        };
        Self(text.lines().filter_map(of_line).take(NAMED_MAX).collect())
    }

    fn has(&self, index: &Index, dir: DirId, project: u32) -> bool {
        let mut of_project = self.0.iter().filter(|(id, _)| *id == project).peekable();
        if of_project.peek().is_none() {
            return false;
        }
        let path = index.dirs().path(dir);
        path.is_some_and(|path| of_project.any(|(_, named)| *named == path))
    }
}

/// The project of a directory.
#[derive(Debug, Clone, Copy, Default)]
struct Chain {
    id: u32,
    /// All directories up to the project's root have it.
    counts: bool,
    /// All directories up to the volume's root are root's, and this one.
    is_roots: bool,
}

/// Which projects count, by directory.
#[derive(Debug)]
pub(super) struct Rooted(Vec<Chain>);

impl Rooted {
    pub fn new(index: &Index, named: &Named) -> Self {
        let of = |id: DirId, dir: &DirEntry, above: Chain| chain(index, named, (id, dir), above);
        let dirs = index.dirs();
        let root = dirs.get(DirId::ROOT);
        let above = Chain {
            is_roots: true,
            ..Chain::default()
        };
        let root = root.map_or(Chain::default(), |dir| of(DirId::ROOT, dir, above));
        Self(dirs.inherit(root, of))
    }

    /// Whether the project of a file was given to it by root's word.
    pub fn counts(&self, entry: &Attributes) -> bool {
        let above = self.0.get(entry.parent.index());
        above.is_some_and(|above| above.counts && above.id == entry.project)
    }
}

fn chain(index: &Index, named: &Named, (id, dir): (DirId, &DirEntry), above: Chain) -> Chain {
    let Some((own, _)) = index.get(dir.ino) else {
        return Chain::default();
    };
    let is_roots = above.is_roots && own.uid == 0;
    if own.project == 0 {
        return Chain {
            is_roots,
            ..Chain::default()
        };
    }
    let goes_on = above.id == own.project;
    let counts = match goes_on {
        true => above.counts || named.has(index, id, own.project),
        false => is_roots || named.has(index, id, own.project),
    };
    Chain {
        id: own.project,
        counts,
        is_roots,
    }
}

/// Files with project ids that do not count.
#[derive(Debug, Default)]
pub(super) struct Outside(FxHashMap<u32, Portion>);

/// The number of ids that are named to a person.
const IDS_NAMED_MAX: usize = 5;

impl Outside {
    pub fn add(&mut self, entry: &Attributes) {
        let part = Portion {
            files: 1,
            bytes: entry.size,
            takes: entry.takes(),
        };
        let sum = self.0.entry(entry.project).or_default();
        *sum = sum.plus(part);
    }

    /// For a person; nothing where there are none.
    pub fn in_words(&self) -> Option<String> {
        let all = self
            .0
            .values()
            .fold(Portion::default(), |sum, part| sum.plus(*part));
        let mut ids: Vec<(u32, u64)> = self.0.iter().map(|(id, part)| (*id, part.takes)).collect();
        ids.sort_unstable_by_key(|(id, takes)| (std::cmp::Reverse(*takes), *id));
        let named = ids.iter().take(IDS_NAMED_MAX).map(|(id, _)| id.to_string());
        let mut named: Vec<String> = named.collect();
        if ids.len() > named.len() {
            named.push(format!("{} more", ids.len().saturating_sub(named.len())));
        }
        (all.files > 0).then(|| {
            format!(
                "{} files, {} on the disk, with project ids ({}) that they did not inherit from a directory which is named for the id \
                 in /etc/projects, or belongs to root with all directories above it: they count for nothing here, and stay",
                format_count(all.files),
                format_size(all.takes),
                named.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use purge_index::{Found, Store, VolumeId, testing};
    use purge_model::{Inode, Kind, LastUse, Seconds, Source, Stat};

    fn put(index: &mut Index, (ino, kind): (Inode, Kind), parent: Inode, (uid, project): (u32, u32)) {
        let parent = index.dirs().of_inode(parent).unwrap();
        let stat = Stat {
            uid,
            project,
            ..testing::stat(ino, kind, 10, 5)
        };
        let name = format!("n{ino}");
        let first_use = LastUse {
            at: Seconds(5),
            source: Source::Observed,
        };
        index
            .upsert(Found {
                stat,
                parent,
                name: name.as_bytes(),
                first_use,
            })
            .unwrap();
    }

    fn empty() -> Index {
        let mut index = Index::new(Store::temporary().unwrap(), VolumeId(1));
        index.set_root(&Stat {
            uid: 0,
            ..testing::stat(100, Kind::Directory, 0, 1)
        });
        index
    }

    #[test]
    fn lines_of_projects_are_read_as_the_tools_read_them() {
        let text = "# a comment\n42:/srv/v/team\n43:/srv/v//lab/x/\n44:/elsewhere\nx:/srv/v/y\n0:/srv/v/z\n45:/srv/v\n:\n46";
        let named = Named::read(text, Path::new("/srv/v"));
        let expected = [(42, b"team".to_vec()), (43, b"lab/x".to_vec()), (45, Vec::new())];
        assert_eq!(named.0, expected);
    }

    #[test]
    fn only_what_was_inherited_from_a_directory_of_roots_counts() {
        let mut index = empty();
        // Root's; below it another's directory of the same id; and one of another id.
        put(&mut index, (101, Kind::Directory), 100, (0, 42));
        put(&mut index, (102, Kind::Directory), 101, (7, 42));
        put(&mut index, (103, Kind::Directory), 102, (7, 43));
        put(&mut index, (104, Kind::Directory), 103, (7, 42));
        // A user's own, and what root has made below it.
        put(&mut index, (105, Kind::Directory), 100, (8, 42));
        put(&mut index, (106, Kind::Directory), 105, (0, 42));
        put(&mut index, (107, Kind::Directory), 100, (8, 0));
        // Made by root when the directory above had the id, which its owner has taken away since; and below one of root's.
        put(&mut index, (108, Kind::Directory), 107, (0, 42));
        put(&mut index, (109, Kind::Directory), 108, (0, 42));
        put(&mut index, (110, Kind::Directory), 100, (0, 0));
        put(&mut index, (111, Kind::Directory), 110, (0, 42));
        let rooted = |index: &Index, named: &str, dir: Inode, project: u32| {
            let named = Named::read(named, Path::new("/v"));
            let parent = index.dirs().of_inode(dir).unwrap();
            let (dir, _) = index.get(dir).unwrap();
            let file = Attributes {
                parent,
                project,
                kind: Kind::File,
                ..dir
            };
            Rooted::new(index, &named).counts(&file)
        };
        for (dir, counts) in [
            (101, true),
            (102, true),
            (103, false),
            (104, false),
            (105, false),
            (106, false),
            (107, false),
            (108, false),
            (109, false),
            (111, true),
            (100, false),
        ] {
            assert_eq!(rooted(&index, "", dir, 42), counts, "{dir}");
        }
        assert!(!rooted(&index, "", 101, 43));
        assert!(!rooted(&index, "", 103, 43));
        // Named for the id.
        assert!(rooted(&index, "42:/v/n105", 106, 42));
        assert!(rooted(&index, "42:/v/n105", 105, 42));
        assert!(!rooted(&index, "43:/v/n105", 105, 42));
        assert!(rooted(&index, "43:/v/n101/n102/n103", 103, 43));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([0-9]{0,11}[:/.a-z#\\n ]{0,8}){0,20}", volume in "/[a-z/]{0,4}") {
            let _ = Named::read(&text, Path::new(&volume));
        }

        /// A user who owns neither a directory of root's nor a named one has nothing counted: the ids on their own directories make no difference,
        /// nor do those of root's directories below.
        #[test]
        fn what_lies_below_a_users_own_directories_counts_for_nothing(
            ids in prop::collection::vec((0u32..3, 0usize..6, prop_oneof![Just(0u32), Just(7u32)]), 1..20),
        ) {
            let mut index = empty();
            for (n, (project, above, uid)) in ids.iter().enumerate() {
                let ino = 101 + n as u64;
                let parent = 100 + (*above).min(n) as u64;
                // The first is the user's; root may have made others below it.
                let (parent, uid) = if n == 0 { (100, 7) } else { (parent.max(101), *uid) };
                put(&mut index, (ino, Kind::Directory), parent, (uid, *project));
                let dir = index.get(ino).unwrap().0;
                let file = Attributes { parent: index.dirs().of_inode(ino).unwrap(), ..dir };
                prop_assert!(!Rooted::new(&index, &Named::default()).counts(&file) );
            }
        }
    }
}
