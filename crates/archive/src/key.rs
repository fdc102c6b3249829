//! A volume's path becomes a key, and back. Pure.
//!
//! A key is the path itself, as UTF-8: the same tree as on the volume, that people and other programs can read. A byte that is not UTF-8 is
//! written as U+201B and two hexadecimal digits, and U+201B itself twice; `rclone` writes and reads names in the same way. What has no such
//! key in a store (too long, or among the agent's own) has one by the hash of its path, and the catalogue says of which path it is.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The agent's own objects lie below this name.
pub const OWN: &str = ".purge-agent";
/// Begins what stands for a byte.
const QUOTE: char = '\u{201b}';
/// Digits of a hash that tell two contents of one path apart.
const TELLING_DIGITS: usize = 16;

/// What a store takes as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of each name in it.
    pub name: usize,
}

/// The key of a path, relative to its volume.
pub fn of_path(path: &[u8]) -> String {
    let mut key = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == QUOTE {
                key.push(QUOTE);
            }
            key.push(c);
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(key, "{QUOTE}{byte:02X}");
        }
    }
    key
}

/// The path whose key this is; none: no path has it.
pub fn path_of(key: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((plain, after)) = rest.split_once(QUOTE) {
        path.extend_from_slice(plain.as_bytes());
        rest = match after.strip_prefix(QUOTE) {
            Some(after) => {
                let mut quote = [0; 4];
                path.extend_from_slice(QUOTE.encode_utf8(&mut quote).as_bytes());
                after
            }
            None => {
                let digits = after.get(..2)?;
                path.push(u8::from_str_radix(digits, 16).ok()?);
                after.get(2..)?
            }
        };
    }
    path.extend_from_slice(rest.as_bytes());
    (of_path(&path) == key).then_some(path)
}

/// The key by which a path lies in the store's tree; none: it has none there.
pub fn in_tree(path: &[u8], limits: Limits) -> Option<String> {
    let key = of_path(path);
    let is_own = key.split('/').next() == Some(OWN);
    let fits = key.len() <= limits.key && key.split('/').all(|name| name.len() <= limits.name);
    (fits && !is_own).then_some(key)
}

/// The key by the hash of a path.
pub fn by_hash(path: &[u8]) -> String {
    format!("{OWN}/long/{}", hex(&Sha256::digest(path)))
}

/// The key of another content of the same path, beside the one that is there.
pub fn beside(key: &str, sha256: &[u8]) -> String {
    let hash = hex(sha256);
    format!("{key}~{}", hash.get(..TELLING_DIGITS).unwrap_or(&hash))
}

/// In hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_byte_of_a_name_comes_back() {
        for byte in (1..=255u8).filter(|byte| *byte != b'/') {
            for path in [
                vec![byte],
                vec![b'a', byte, b'b'],
                vec![b'd', b'/', byte, 0xe2, 0x80, 0x9b],
            ] {
                assert_eq!(path_of(&of_path(&path)).unwrap(), path);
            }
        }
    }

    #[test]
    fn bytes_are_written_as_rclone_writes_them() {
        assert_eq!(of_path(b"ff\xff\xfe"), "ff\u{201b}FF\u{201b}FE");
        assert_eq!(of_path("a\u{201b}b".as_bytes()), "a\u{201b}\u{201b}b");
        assert_eq!(of_path(b" a\\b/c "), " a\\b/c ");
        // A mark that is followed by digits is no byte.
        assert_eq!(of_path("\u{201b}41".as_bytes()), "\u{201b}\u{201b}41");
    }

    #[test]
    fn what_no_path_has_is_no_key() {
        for key in [
            "\u{201b}",
            "\u{201b}4",
            "\u{201b}41",
            "\u{201b}ff",
            "\u{201b}+1",
            "\u{201b}\u{e9}",
        ] {
            assert_eq!(path_of(key), None, "{key:?}");
        }
    }

    #[test]
    fn what_has_no_place_in_the_tree_is_known_by_its_hash() {
        let limits = Limits { key: 1024, name: 255 };
        assert_eq!(in_tree(b"a/b", limits).unwrap(), "a/b");
        assert_eq!(in_tree(b".purge-agent/x", limits), None);
        assert_eq!(in_tree(b".purge-agent", limits), None);
        assert!(in_tree(b".purge-agent-trash", limits).is_some());
        assert!(in_tree(b"d/.purge-agent/x", limits).is_some());
        assert!(in_tree(&[b'n'; 255], limits).is_some());
        assert_eq!(in_tree(&[0xff; 52], limits), None);
        assert_eq!(in_tree(&b"dir/".repeat(300), limits), None);
        assert_ne!(by_hash(b"a"), by_hash(b"b"));
        assert_eq!(beside("a/b", &[0xab; 32]), "a/b~abababababababab");
    }

    proptest! {
        #[test]
        fn a_path_is_read_from_its_key_as_it_was(path in prop::collection::vec(1u8..=255, 0..200)) {
            prop_assert_eq!(path_of(&of_path(&path)), Some(path));
        }

        #[test]
        fn two_paths_never_have_one_key(a in prop::collection::vec(any::<u8>(), 0..12), b in prop::collection::vec(any::<u8>(), 0..12)) {
            prop_assert_eq!(of_path(&a) == of_path(&b), a == b);
        }

        #[test]
        fn reading_any_key_never_fails_otherwise(key in "\\PC{0,20}") {
            if let Some(path) = path_of(&key) {
                prop_assert_eq!(of_path(&path), key);
            }
        }
    }
}
