//! Name rows.

use super::{DirId, PAGE_INODES};
use purge_format::Damaged;
use purge_format::integers::{Cursor, put_difference, put_varint};

/// One name of one inode of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameEntry<'a> {
    /// `inode % 64`.
    pub offset: u8,
    /// The directory that holds the name.
    pub parent: DirId,
    /// The name, at most 255 bytes.
    pub name: &'a [u8],
}

/// Appends one entry to an unpacked name row. Names longer than 255 bytes do not exist on Linux (`NAME_MAX`).
pub fn put_name(out: &mut Vec<u8>, entry: NameEntry<'_>) {
    let name = entry.name.get(..entry.name.len().min(255)).unwrap_or(&[]);
    out.push(entry.offset);
    put_varint(out, entry.parent.0.into());
    out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(name);
}

/// The entries of an unpacked name row; ends with an error where it is damaged.
pub fn names(row: &[u8]) -> impl Iterator<Item = Result<NameEntry<'_>, Damaged>> {
    let mut from = Cursor::new(row, "name");
    let mut damaged = false;
    std::iter::from_fn(move || {
        if damaged || from.is_empty() {
            return None;
        }
        let entry = read_name(&mut from);
        damaged = entry.is_err();
        Some(entry)
    })
}

fn read_name<'a>(from: &mut Cursor<'a>) -> Result<NameEntry<'a>, Damaged> {
    let offset = from.byte()?;
    if u64::from(offset) >= PAGE_INODES {
        return Err(from.damaged());
    }
    let parent = DirId(from.varint32()?);
    let len = from.byte()?;
    Ok(NameEntry {
        offset,
        parent,
        name: from.take(len.into())?,
    })
}

/// Takes an entry out of an unpacked row, if it is there. Returns how many bytes that were.
pub fn cut_name(row: &mut Vec<u8>, entry: NameEntry<'_>) -> usize {
    let mut from = Cursor::new(row, "name");
    let found = loop {
        let begin = from.at();
        match read_name(&mut from) {
            Ok(other) if other == entry => break begin..from.at(),
            Ok(_) => {}
            Err(_) => return 0,
        }
    };
    let len = found.len();
    row.drain(found);
    len
}

/// The form in which a name row is stored: neighbours in inode order mostly lie in one directory and have names that
/// begin alike. Names of one inode stay in their order.
pub fn pack_names(unpacked: &[u8]) -> Vec<u8> {
    let mut entries: Vec<_> = names(unpacked).map_while(Result::ok).collect();
    entries.sort_by_key(|e| e.offset);
    let mut out = Vec::with_capacity(unpacked.len());
    let mut before: (DirId, &[u8]) = (DirId::ROOT, &[]);
    for entry in entries {
        let shared = entry
            .name
            .iter()
            .zip(before.1)
            .take_while(|(a, b)| a == b)
            .count();
        let rest = entry.name.get(shared..).unwrap_or(&[]);
        out.push(entry.offset);
        put_difference(&mut out, entry.parent.0, before.0.0);
        out.push(u8::try_from(shared).unwrap_or(u8::MAX));
        out.push(u8::try_from(rest.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(rest);
        before = (entry.parent, entry.name);
    }
    out
}

/// What [`pack_names`] made, unpacked.
///
/// # Errors
/// [`Damaged`] when it is none.
pub fn unpack_names(packed: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut from = Cursor::new(packed, "name");
    let mut out = Vec::with_capacity(packed.len().saturating_mul(2));
    let (mut parent, mut name) = (0, Vec::new());
    while !from.is_empty() {
        let offset = from.byte()?;
        parent = from.difference(parent)?;
        let (shared, rest) = (usize::from(from.byte()?), usize::from(from.byte()?));
        if u64::from(offset) >= PAGE_INODES || shared > name.len() || shared + rest > 255 {
            return Err(from.damaged());
        }
        name.truncate(shared);
        name.extend_from_slice(from.take(rest)?);
        let parent = DirId(parent);
        put_name(
            &mut out,
            NameEntry {
                offset,
                parent,
                name: &name,
            },
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn names_come_back_as_they_were_put(
            entries in prop::collection::vec((0u8..64, any::<u32>(), prop::collection::vec(any::<u8>(), 0..=255)), 0..20)
        ) {
            let mut row = Vec::new();
            for (offset, parent, name) in &entries {
                put_name(&mut row, NameEntry { offset: *offset, parent: DirId(*parent), name });
            }
            let back: Vec<_> = names(&row).map(|e| e.unwrap()).map(|e| (e.offset, e.parent.0, e.name.to_vec())).collect();
            prop_assert_eq!(&back, &entries);
            if let Some((offset, parent, name)) = entries.first() {
                let (mut cut, one) = (row.clone(), NameEntry { offset: *offset, parent: DirId(*parent), name });
                prop_assert_eq!(cut_name(&mut cut, one) + cut.len(), row.len());
                let left: Vec<_> = names(&cut).map(|e| e.unwrap()).map(|e| (e.offset, e.parent.0, e.name.to_vec())).collect();
                prop_assert_eq!(&left, &entries[1..]);
            }
            let packed = pack_names(&row);
            let unpacked = unpack_names(&packed).unwrap();
            let mut sorted = entries;
            sorted.sort_by_key(|e| e.0);
            let back: Vec<_> = names(&unpacked).map(|e| e.unwrap()).map(|e| (e.offset, e.parent.0, e.name.to_vec())).collect();
            prop_assert_eq!(back, sorted);
        }
    }
}
