//! `[[archive]]`: a store to which rules archive.

use super::{Form, Key, Table, Word, keys};

keys! {
    NAME = Key::required("name", Form::Text("a name"), "\"cold\"")
        .doc("The name of the store, in rules, commands and logs: letters, digits, '.', '_' and '-'.");
    URL = Key::required("url", Form::Text("a URL"), "\"file:///mnt/cold/scratch\"")
        .doc("Where copies go: the same tree as on the volume, below this place. file:///PATH is a directory, such as a mount of a tape \
              library's cache. It belongs to root, only root can write to it, and it is outside of every volume. s3:// and swift:// are not \
              supported in this version.");
    VERIFY = Key::with_default(
        "verify",
        Form::Choice(&[
            Word::means("readback", "each copy is fetched back, and its SHA-256 is compared with that of the bytes that were read"),
            Word::later("checksum"),
        ]),
        "\"readback\"",
    )
    .doc("What proves a copy before its file is deleted.");
    CONCURRENCY = Key::with_default("concurrency", Form::Count, "16").doc("Files that are copied at a time, 1 to 256.");
}

/// The table.
pub const ARCHIVE: Table = Table {
    kind: "archive",
    shown_as: Some("archive"),
    named_by: "name",
    heading: "[[archive]]",
    doc: "A store for rules with action = \"archive\". A file is copied, fetched back and compared, and only then removed by the guarded \
          delete. A catalogue in the store names every copy, with owner, mode, times, ACLs and extended attributes.",
    in_use: false,
    keys: KEYS,
};
