//! Files and bytes by age, of many lines: only the ages that a line has take room, for most directories have one or two.

use crate::index::sums::AGES;

/// Files and apparent bytes by age.
pub type Ages = [(u64, u64); AGES];

/// No node, or none further.
const END: u32 = u32::MAX;

/// The ages of lines that are told apart by their number.
#[derive(Debug)]
pub(super) struct AgesOfLines {
    /// Of each line, where its nodes begin. Empty: nobody asked for ages.
    first: Vec<u32>,
    nodes: Vec<Node>,
}

/// One age of one line.
#[derive(Debug)]
struct Node {
    files: u64,
    bytes: u64,
    next: u32,
    bucket: u32,
}

impl AgesOfLines {
    /// Of so many lines, with no files yet.
    pub fn of(lines: usize) -> Self {
        Self {
            first: vec![END; lines],
            // Most have one at least, and growing costs.
            nodes: Vec::with_capacity(lines),
        }
    }

    /// Adds files of one age to a line.
    pub fn add(&mut self, line: u32, bucket: usize, (files, bytes): (u64, u64)) {
        let Some(first) = self.first.get_mut(line as usize) else {
            return;
        };
        let bucket = bucket as u32;
        let mut at = *first;
        while let Some(node) = self.nodes.get_mut(at as usize) {
            if node.bucket == bucket {
                node.files = node.files.saturating_add(files);
                node.bytes = node.bytes.saturating_add(bytes);
                return;
            }
            at = node.next;
        }
        // A line has at most seven, and there are fewer than 2^32 directories with files of so many ages in any memory.
        let Ok(place) = u32::try_from(self.nodes.len()) else {
            return;
        };
        self.nodes.push(Node {
            files,
            bytes,
            next: std::mem::replace(first, place),
            bucket,
        });
    }

    /// The ages of a line, if they were asked for.
    pub fn get(&self, line: u32) -> Option<Ages> {
        let mut ages = Ages::default();
        let mut at = *self.first.get(line as usize)?;
        while let Some(node) = self.nodes.get(at as usize) {
            if let Some(age) = ages.get_mut(node.bucket as usize) {
                *age = (node.files, node.bytes);
            }
            at = node.next;
        }
        Some(ages)
    }
}
