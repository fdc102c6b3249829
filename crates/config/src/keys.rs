//! Every key of the configuration, each defined once.
//!
//! A [`Table`] of TOML has [`Key`]s. A key's entry says how it is called, what is written there ([`Form`]), what holds where it is
//! left out ([`Preset`]), when a change takes effect ([`Reload`]), what it means, and an example. From this one entry come
//!
//! - the reader: [`Section`](super::section::Section) reads a key by its entry, which also gives the default, so that no reader has
//!   a default of its own. What a table's list does not name is an unknown key, and the fault names the nearest one;
//! - what this version does not do yet: [`Word::later`] and [`Form::Later`];
//! - `config show` with its defaults, and what waits for a restart after a reload ([`origin`](super::origin));
//! - the environment's variables ([`environment`](super::environment));
//! - the pages for people: [`pages::example`] is `systemd/agent.toml`, [`pages::reference`] is `docs/configuration.md`, and the
//!   package makes `purge-agent.toml(5)` of the same entries.
//!
//! To add a key: write its entry in the list of its table, read it in the module of that table, and run
//! `cargo run -p purge-config --example write-pages`. The tests fail when a key has an entry and no reader, when a default is not
//! what the reader takes, and when a page is not as the entries say.

pub mod access;
pub mod archive;
pub mod file;
pub mod listen;
pub mod notify;
pub mod pages;
pub mod quota;
pub mod rule;
pub mod volume;
pub mod watermark;

use toml::de::{DeTable, DeValue};

/// A table of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// As faults name it: `rule`, `notify.smtp`; empty: the whole file.
    pub kind: &'static str,
    /// Before the names of its keys in `config show`: `listen.tls`. None: the table above shows it whole.
    pub shown_as: Option<&'static str>,
    /// The key that tells one such table from the others; empty: there is one.
    pub named_by: &'static str,
    /// As TOML: `[[rule]]`. Empty for a table that stands in a line of the one above.
    pub heading: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// The example uses it; otherwise it stands there as a comment.
    pub in_use: bool,
    /// Its keys, in the order of the pages.
    pub keys: &'static [Key],
}

/// A key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What is written there.
    pub form: Form,
    /// What holds where it is left out.
    pub preset: Preset,
    /// What holds instead, if the rest of the table says so.
    pub unless: Option<Unless>,
    /// When a change takes effect.
    pub reload: Reload,
    /// What it means.
    pub doc: &'static str,
    /// A value for the example, as TOML; empty: the default.
    pub example: &'static str,
    /// The example uses it; otherwise it stands there as a comment.
    pub in_use: bool,
    /// The variable of the environment that says it instead of the file; empty: none.
    pub variable: &'static str,
}

/// What is written for a key.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// Words in quotes; for people, what kind of words.
    Text(&'static str),
    /// `"28d"`.
    Duration,
    /// `"40TB"`.
    Size,
    /// A whole number, 0 or more.
    Count,
    /// A number from 0 to 1.
    Share,
    /// `"85%"`.
    Percent,
    /// `true` or `false`.
    Flag,
    /// `true`, `false` or this word.
    FlagOr(&'static str),
    /// One of these words.
    Choice(&'static [Word]),
    /// A list of words in quotes, or one of them; for people, what kind of words.
    Texts(&'static str),
    /// A table, or where it may be given more than once a list of tables.
    Tables(&'static Table),
    /// A later version reads it: here it is refused.
    Later,
}

/// A word that may be chosen.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// As it is written.
    pub name: &'static str,
    /// What it means; empty where the key's text says so.
    pub doc: &'static str,
    /// A later version knows it: here it is refused.
    pub later: bool,
}

/// What holds where a key is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// It must not be left out.
    Required,
    /// Nothing of the kind.
    Nothing,
    /// This value, as TOML. [`STATE_DIR`] stands for the state directory.
    Value(&'static str),
}

/// A default that depends on other keys of the table.
#[derive(Debug, Clone, Copy)]
pub struct Unless {
    /// Whether it holds.
    pub holds: fn(&DeTable<'_>) -> bool,
    /// The same for people: `with target = "directory"`.
    pub words: &'static str,
    /// The value, as TOML.
    pub value: &'static str,
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// At a reload.
    AtOnce,
    /// At a restart.
    AtRestart,
}

/// Stands for the state directory in a default.
pub const STATE_DIR: &str = "STATE_DIR";

/// Entries of keys, and their list.
macro_rules! keys {
    ($($name:ident = $key:expr;)*) => {
        $(pub(crate) const $name: &$crate::keys::Key = &$key;)*
        pub(super) const KEYS: &[$crate::keys::Key] = &[$(*$name),*];
    };
}
pub(crate) use keys;

impl Key {
    /// A key that must not be left out.
    pub const fn required(name: &'static str, form: Form, example: &'static str) -> Self {
        Self {
            in_use: true,
            example,
            preset: Preset::Required,
            ..Self::optional(name, form, example)
        }
    }

    /// A key without a default.
    pub const fn optional(name: &'static str, form: Form, example: &'static str) -> Self {
        Self {
            name,
            form,
            preset: Preset::Nothing,
            unless: None,
            reload: Reload::AtOnce,
            doc: "",
            example,
            in_use: false,
            variable: "",
        }
    }

    /// A key with a default, as TOML.
    pub const fn with_default(name: &'static str, form: Form, value: &'static str) -> Self {
        Self {
            preset: Preset::Value(value),
            ..Self::optional(name, form, value)
        }
    }

    pub(crate) const fn doc(self, doc: &'static str) -> Self {
        Self { doc, ..self }
    }

    pub(crate) const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    pub(crate) const fn in_use(self, in_use: bool) -> Self {
        Self { in_use, ..self }
    }

    pub(crate) const fn at_restart(self) -> Self {
        Self {
            reload: Reload::AtRestart,
            ..self
        }
    }

    pub(crate) const fn variable(self, variable: &'static str) -> Self {
        Self { variable, ..self }
    }

    pub(crate) const fn unless(self, unless: Unless) -> Self {
        Self {
            unless: Some(unless),
            ..self
        }
    }

    /// What holds in this table where the key is left out, as TOML.
    pub(crate) fn default_in(&self, table: &DeTable<'_>) -> Option<&'static str> {
        match (self.unless, self.preset) {
            (Some(unless), _) if (unless.holds)(table) => Some(unless.value),
            (_, Preset::Value(value)) => Some(value),
            (_, Preset::Nothing | Preset::Required) => None,
        }
    }

    /// Every default that it may have.
    fn defaults(&self) -> impl Iterator<Item = &'static str> {
        let value = match self.preset {
            Preset::Value(value) => Some(value),
            Preset::Nothing | Preset::Required => None,
        };
        value.into_iter().chain(self.unless.map(|unless| unless.value))
    }
}

impl Word {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self {
            name,
            doc: "",
            later: false,
        }
    }

    pub(crate) const fn means(name: &'static str, doc: &'static str) -> Self {
        Self {
            name,
            doc,
            later: false,
        }
    }

    pub(crate) const fn later(name: &'static str) -> Self {
        Self {
            name,
            doc: "",
            later: true,
        }
    }
}

impl Table {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The names of its keys.
    pub fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }

    /// It, and every table below it, in the order of the pages.
    pub fn all(&self) -> Vec<Self> {
        let below = self.keys.iter().filter_map(|key| match key.form {
            Form::Tables(table) => Some(table.all()),
            _ => None,
        });
        [*self].into_iter().chain(below.flatten()).collect()
    }
}

/// Whether a key of a table says this word.
pub(crate) fn says(table: &DeTable<'_>, key: &Key, word: &str) -> bool {
    table.get(key.name).and_then(|value| value.get_ref().as_str()) == Some(word)
}

/// Whether a key of a table is false.
pub(crate) fn is_false(table: &DeTable<'_>, key: &Key) -> bool {
    table.get(key.name).and_then(|value| value.get_ref().as_bool()) == Some(false)
}

/// The defaults as the TOML reader sees them, by their text.
pub(crate) fn parsed_default(text: &'static str) -> Option<&'static toml::Spanned<DeValue<'static>>> {
    type Parsed = std::collections::BTreeMap<&'static str, toml::Spanned<DeValue<'static>>>;
    static ALL: std::sync::LazyLock<Parsed> = std::sync::LazyLock::new(|| {
        let tables = file::FILE.all();
        let keys = tables.iter().flat_map(|table| table.keys);
        let texts = keys.flat_map(Key::defaults);
        texts
            .filter_map(|text| Some((text, DeValue::parse(text).ok()?)))
            .collect()
    });
    ALL.get(text)
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
