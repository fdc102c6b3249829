//! Turns the picks of an evaluation into the stored chunks of a plan.

use std::ffi::CString;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::chunk_key;
use crate::candidate::{CHUNK_CANDIDATES, CHUNK_DIR_BYTES, Candidate, encode};
use purge_index::{Batch, DirId, Index, Record, Store, StoreError};
use purge_model::{Clocks, LastUse, Seconds};
use purge_policy::evaluate::{Pick, Shape};
use purge_policy::last_use::last_use;
use purge_policy::links::own_change;

/// Bytes of one batch while a plan is being saved.
const BATCH_BYTES: usize = 4 << 20;

/// By offset: the first directory and name of one page's files.
type FirstNames = FxHashMap<u8, (DirId, Vec<u8>)>;

/// Turns picks into stored chunks.
pub(super) struct ChunkWriter<'a> {
    /// None: candidates are counted, and not kept.
    store: Option<&'a Store>,
    id: &'a str,
    index: &'a parking_lot::RwLock<Index>,
    now: Seconds,
    /// What each rule believes; a quota's or watermark's one rule stands for all.
    clocks: Vec<Clocks>,
    chunk: Vec<Candidate>,
    /// What the paths of its directories take.
    dir_bytes: usize,
    batch: Batch,
    batched: usize,
    /// Chunks that are stored.
    pub(super) chunks: u32,
    /// What they take.
    pub(super) bytes: u64,
    /// Names of the page looked at last, by offset.
    names: (Option<u64>, FirstNames),
    /// Path of the directory looked at last.
    dir: (Option<DirId>, Arc<[u8]>),
}

impl<'a> ChunkWriter<'a> {
    pub(super) fn new(
        store: Option<&'a Store>,
        id: &'a str,
        index: &'a parking_lot::RwLock<Index>,
        now: Seconds,
        clocks: Vec<Clocks>,
    ) -> Self {
        Self {
            store,
            id,
            index,
            now,
            clocks,
            chunk: Vec::with_capacity(CHUNK_CANDIDATES),
            dir_bytes: 0,
            batch: Batch::default(),
            batched: 0,
            chunks: 0,
            bytes: 0,
            names: Default::default(),
            dir: (None, Arc::default()),
        }
    }

    /// Adds a pick. False if it was deleted, used or moved since it was evaluated, and so is no candidate.
    pub(super) fn add(&mut self, pick: &Pick) -> Result<bool, StoreError> {
        let Some(candidate) = self.candidate(pick)? else {
            return Ok(false);
        };
        let is_same = self
            .chunk
            .last()
            .is_some_and(|last| Arc::ptr_eq(&last.dir, &candidate.dir));
        if !is_same {
            self.dir_bytes = self.dir_bytes.saturating_add(candidate.dir.len());
        }
        self.chunk.push(candidate);
        if self.chunk.len() >= CHUNK_CANDIDATES || self.dir_bytes >= CHUNK_DIR_BYTES {
            self.end_chunk()?;
        }
        Ok(true)
    }

    fn candidate(&mut self, pick: &Pick) -> Result<Option<Candidate>, StoreError> {
        let index = self.index.read();
        let Some((attributes, access)) = index.get(pick.ino) else {
            return Ok(None);
        };
        // What is saved here is what apply compares with: a use since the evaluation must not become part of it.
        let clocks = self.clocks.get(usize::from(pick.rule)).or(self.clocks.first());
        let clocks = clocks.copied().unwrap_or(Clocks::ALL);
        let last = match pick.shape {
            Shape::Link(_) => own_change((&attributes, access), clocks, self.now),
            _ => last_use(&attributes, access, clocks, self.now),
        };
        if pick.shape != Shape::Tree && last.at > pick.last.at {
            return Ok(None);
        }
        let (parent, name) = match pick.shape {
            Shape::File | Shape::Link(_) => {
                let (page, offset) = (pick.ino / 64, (pick.ino % 64) as u8);
                if self.names.0 != Some(page) {
                    let names = &mut self.names.1;
                    names.clear();
                    index.names_of_page(page, |offset, parent, name| {
                        names.entry(offset).or_insert_with(|| (parent, name.to_vec()));
                    })?;
                    self.names.0 = Some(page);
                }
                match self.names.1.get(&offset) {
                    Some((parent, name)) => (*parent, name.clone()),
                    None => return Ok(None),
                }
            }
            Shape::Tree | Shape::EmptyDirectory => {
                match index
                    .dirs()
                    .of_inode(pick.ino)
                    .and_then(|id| index.dirs().get(id))
                {
                    Some(dir) => (dir.parent, dir.name.to_vec()),
                    None => return Ok(None),
                }
            }
        };
        if self.dir.0 != Some(parent) {
            match index.dirs().path(parent) {
                Some(path) => self.dir = (Some(parent), path.into()),
                None => return Ok(None),
            }
        }
        // No name on a disk has a NUL in it.
        let Ok(name) = CString::new(name) else {
            return Ok(None);
        };
        // Uses of anything in a tree from the plan's own second on spare it.
        let access = match pick.shape {
            Shape::Tree => LastUse {
                at: self.now.minus(1),
                source: pick.last.source,
            },
            Shape::File | Shape::EmptyDirectory | Shape::Link(_) => access,
        };
        Ok(Some(Candidate {
            ino: pick.ino,
            shape: pick.shape,
            rule: pick.rule,
            dir: Arc::clone(&self.dir.1),
            name: name.into(),
            size: pick.bytes,
            files: pick.files.into(),
            uid: attributes.uid,
            links: attributes.links,
            mtime: attributes.mtime,
            ctime: attributes.ctime,
            ctime_nanos: attributes.ctime_nanos,
            birth: attributes.birth,
            access,
            last: pick.last,
        }))
    }

    pub(super) fn end_chunk(&mut self) -> Result<(), StoreError> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let encoded = encode(&self.chunk);
        self.bytes = self.bytes.saturating_add(encoded.len() as u64);
        let key = chunk_key(self.id, self.chunks);
        self.batch.put(Record::PlanChunk, &key, &encoded);
        self.chunk.clear();
        self.dir_bytes = 0;
        self.chunks += 1;
        self.batched = self.batched.saturating_add(encoded.len());
        if self.batched >= BATCH_BYTES {
            self.put()?;
            self.batched = 0;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<u32, StoreError> {
        self.end_chunk()?;
        self.put()?;
        Ok(self.chunks)
    }

    fn put(&mut self) -> Result<(), StoreError> {
        let batch = std::mem::take(&mut self.batch);
        self.store.map_or(Ok(()), |store| store.apply(batch))
    }
}
