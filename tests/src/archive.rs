//! A directory that serves as a store, and what its catalogue says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use crate::Config;
use crate::config::OLD;
use crate::files::{temp_dir, walk};

/// A store in a directory of its own.
#[derive(Debug)]
pub struct Store(TempDir);

/// An entry of a catalogue.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The path relative to the volume.
    pub path: Vec<u8>,
    /// The whole line.
    pub line: Value,
}

impl Store {
    /// An empty one.
    pub fn new() -> Self {
        Self(temp_dir())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// The table of the configuration.
    pub fn table(&self) -> String {
        format!(
            "[[archive]]\nname = \"cold\"\nurl = \"file://{}\"",
            self.path().display()
        )
    }

    /// [`Config::backdated`], with a rule that archives here; with further lines in the rule.
    pub fn config(&self, root: &Path, keys: &str) -> Config {
        Config::new(root, "baseline = \"mtime\"")
            .rule(
                OLD,
                &format!("ttl = \"1h\"\nclock = [\"access\"]\naction = \"archive\"\n{keys}"),
            )
            .tables(&self.table())
    }

    /// The object with a key.
    pub fn object(&self, key: &str) -> PathBuf {
        self.path().join(key)
    }

    /// All lines of the catalogues, with their order in time.
    ///
    /// # Panics
    /// When one is no JSON.
    pub fn catalogue(&self) -> Vec<Entry> {
        let catalogues = self.path().join(".purge-agent/catalogue");
        if !catalogues.exists() {
            return Vec::new();
        }
        let mut files: Vec<PathBuf> = walk(&catalogues)
            .into_iter()
            .map(|entry| entry.path)
            .filter(|path| path.extension().is_some_and(|e| e == "ndjson"))
            .collect();
        files.sort();
        let text = files
            .iter()
            .map(|file| fs::read_to_string(file).expect("a catalogue"));
        let lines: Vec<String> = text
            .flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        lines.iter().map(|line| entry(line)).collect()
    }

    /// The contents that the store has for each path: the bytes of every object that a line names.
    ///
    /// # Panics
    /// When a line names an object that is not there.
    pub fn contents(&self) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
        let mut all: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for entry in self.catalogue() {
            let Some(key) = entry.line.get("key").and_then(Value::as_str) else {
                continue;
            };
            let bytes = fs::read(self.object(key)).unwrap_or_else(|e| panic!("{key}: {e}"));
            all.entry(entry.path).or_default().push(bytes);
        }
        all
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

fn entry(line: &str) -> Entry {
    let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    let path = match line.get("path_bytes").and_then(Value::as_str) {
        Some(bytes) => STANDARD.decode(bytes).expect("base64"),
        None => line["path"].as_str().expect("a path").as_bytes().to_vec(),
    };
    Entry { path, line }
}
