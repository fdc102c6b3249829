//! What is sent: the bytes of an open file, read by position, so that they can be read again.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// A file of up to this many bytes is read once, into memory.
const HELD_MAX: u64 = 1 << 20;
/// Bytes that are read at a time.
const STEP: usize = 256 << 10;

/// The bytes of a file, or of the agent's own making.
#[derive(Debug)]
pub struct Content<'a> {
    from: From<'a>,
    size: u64,
    hash: Option<Hash>,
}

#[derive(Debug)]
enum From<'a> {
    Held(Vec<u8>),
    File(&'a File),
}

impl<'a> Content<'a> {
    /// The first `size` bytes of a file.
    ///
    /// # Errors
    /// What `read(2)` says; `UnexpectedEof` where there are fewer.
    pub fn of_file(file: &'a File, size: u64) -> io::Result<Self> {
        if size > HELD_MAX {
            return Ok(Self {
                from: From::File(file),
                size,
                hash: None,
            });
        }
        let mut held = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact_at(&mut held, 0)?;
        Ok(Self::of_bytes(held))
    }

    /// Bytes.
    pub fn of_bytes(held: Vec<u8>) -> Self {
        Self {
            size: held.len() as u64,
            hash: Some(Sha256::digest(&held).into()),
            from: From::Held(held),
        }
    }

    /// How many bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Their hash. What was not read yet is read for it.
    ///
    /// # Errors
    /// As for [`Content::of_file`].
    pub fn hash(&mut self) -> io::Result<Hash> {
        if let Some(hash) = self.hash {
            return Ok(hash);
        }
        self.send(|_| Ok(()))
    }

    /// Gives all bytes, one step after the other, and returns the hash of what was given. Bytes that differ from those that were read before
    /// are an error: the file has changed.
    ///
    /// # Errors
    /// As for [`Content::of_file`], and what `take` says.
    pub fn send<E: std::convert::From<io::Error>>(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<Hash, E> {
        let mut hasher = Sha256::new();
        match &self.from {
            From::Held(held) => {
                hasher.update(held);
                take(held)?;
            }
            From::File(file) => {
                let mut step = vec![0; STEP];
                let mut at = 0;
                while at < self.size {
                    let most = usize::try_from(self.size - at).unwrap_or(STEP).min(STEP);
                    let room = step.get_mut(..most).unwrap_or_default();
                    file.read_exact_at(room, at)?;
                    hasher.update(&*room);
                    take(room)?;
                    at += most as u64;
                }
            }
        }
        let hash: Hash = hasher.finalize().into();
        match self.hash {
            Some(before) if before != hash => Err(E::from(changed())),
            _ => {
                self.hash = Some(hash);
                Ok(hash)
            }
        }
    }
}

/// What is said of a file whose bytes differ from one reading to the next.
fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its bytes changed while it was read")
}

/// The hash of all that a reader gives; none: it gives more than `size` bytes, or fewer.
///
/// # Errors
/// What it says.
pub fn hash_of(mut from: impl Read, size: u64) -> io::Result<Option<Hash>> {
    let mut hasher = Sha256::new();
    let mut step = vec![0; STEP];
    let mut so_far = 0u64;
    loop {
        let read = match from.read(&mut step) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        so_far = so_far.saturating_add(read as u64);
        if so_far > size {
            return Ok(None);
        }
        hasher.update(step.get(..read).unwrap_or_default());
    }
    Ok((so_far == size).then(|| hasher.finalize().into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn sent(content: &mut Content<'_>) -> (Vec<u8>, Hash) {
        let mut all = Vec::new();
        let hash = content.send::<io::Error>(|step| {
            all.extend_from_slice(step);
            Ok(())
        });
        (all, hash.unwrap())
    }

    #[test]
    fn small_and_large_files_are_sent_whole_and_hashed() {
        for size in [0, 1, 4096, (1 << 20) + 1, 3_000_000] {
            let bytes: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
            let file = file_of(&bytes);
            let mut content = Content::of_file(&file, bytes.len() as u64).unwrap();
            let expected: Hash = Sha256::digest(&bytes).into();
            assert_eq!(content.hash().unwrap(), expected);
            assert_eq!(sent(&mut content), (bytes.clone(), expected));
            assert_eq!(hash_of(&*bytes, bytes.len() as u64).unwrap(), Some(expected));
            assert_eq!(hash_of(&*bytes, bytes.len() as u64 + 1).unwrap(), None);
            if size > 0 {
                assert_eq!(hash_of(&*bytes, bytes.len() as u64 - 1).unwrap(), None);
            }
        }
    }

    #[test]
    fn a_file_that_is_shorter_or_changes_is_not_sent() {
        let file = file_of(&vec![7; 2_000_000]);
        assert!(Content::of_file(&file_of(b"abc"), 4).is_err());
        let mut long = Content::of_file(&file, 2_000_001).unwrap();
        assert!(long.send::<io::Error>(|_| Ok(())).is_err());
        let mut content = Content::of_file(&file, 2_000_000).unwrap();
        content.hash().unwrap();
        file.write_all_at(b"x", 1_500_000).unwrap();
        assert!(content.send::<io::Error>(|_| Ok(())).is_err());
    }
}
