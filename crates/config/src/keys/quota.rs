//! `[[quota]]`: how much users, groups, projects and directories may have.

use toml::de::DeTable;

use super::{Form, Key, Table, Unless, Word, keys, says};

keys! {
    NAME = Key::required("name", Form::Text("a name"), "\"user\"")
        .doc("The name of the quota, in commands, logs and notices: letters, digits, '.', '_' and '-'.");
    VOLUME = Key::required("volume", Form::Text("a volume"), "\"scratch\"").doc("The volume that it is for.");
    SUBJECT = Key::required(
        "subject",
        Form::Choice(&[
            Word::means("user", "a limit for each owner"),
            Word::means("group", "a limit for each group"),
            Word::means(
                "project",
                "a limit for each project id (xfs, ext4; before Linux 6.17 the agent opens every file to read its id)",
            ),
            Word::means("directory", "a limit for each directory at `depth`"),
        ]),
        "\"user\"",
    )
    .doc("Whose files are summed. A file without a project id belongs to no project. With action = \"purge\" a project counts only files that \
          have its id from a directory that belongs to root like all directories above it, or that /etc/projects names for the id (42:/scratch/team).");
    DEPTH = Key::optional("depth", Form::Count, "1")
        .unless(Unless {
            holds: sums_directories,
            words: "with subject = \"directory\"",
            value: "1",
        })
        .doc("The level of the directories: 1 is the level below the root. A file above it belongs to no subject.");
    HARD = Key::optional("hard", Form::Size, "\"40TB\"")
        .doc("The sum of apparent sizes; a file with several names counts once.");
    TEMPORAL = Key::optional("temporal", Form::Size, "\"300TB\"")
        .doc("The sum over files of size x (whole days since it was made + 1): \"300TB\" is 300 TB-days.");
    MAX_AGE = Key::optional("max_age", Form::Duration, "\"365d\"")
        .doc("A file is taken after this time on the volume, even if no sum is above its limit (but never while it was used within min_age).");
    ACTION = Key::with_default(
        "action",
        Form::Choice(&[
            Word::means("notify", "plans inform only and cannot be applied"),
            Word::means(
                "purge",
                "every ten minutes the agent applies what the quota asks for, as long as it takes no more than the rule's max_fraction, 0.25 if \
                 that is left out",
            ),
        ]),
        "\"notify\"",
    )
    .doc("What happens when a limit is passed.");
    LOW = Key::with_default("low", Form::Percent, "\"90%\"")
        .doc("Files are taken in the rule's order until no more than this share of the limit that was passed is left.");
    MIN_AGE = Key::with_default("min_age", Form::Duration, "\"2d\"").doc("No quota takes a file used within this time.");
    RULE = Key::optional("rule", Form::Text("a rule"), "\"scratch-28d\"")
        .doc("The rule whose scope, exclusions, order, max_files and max_bytes count. Needed where the volume has several rules; where it has \
              one, that rule is used. A rule that only quotas and watermarks use needs no ttl.");
    OVERRIDES = Key::with_default("overrides", Form::Tables(&OVERRIDE), "[]")
        .example("[ { match = \"alice\", hard = \"80TB\" } ]")
        .doc("Other limits for some subjects; the first that matches counts.");
}

/// The table.
pub const QUOTA: Table = Table {
    kind: "quota",
    shown_as: Some("quota"),
    named_by: "name",
    heading: "[[quota]]",
    doc: "Limits on what users, groups, projects or directories have, summed from the index. `purgectl plan --quota NAME` shows what it would \
          take.",
    in_use: false,
    keys: KEYS,
};

fn sums_directories(table: &DeTable<'_>) -> bool {
    says(table, SUBJECT, "directory")
}

/// Other limits for some.
pub mod other {
    use crate::keys::{Form, Key, keys};

    keys! {
        MATCH = Key::required("match", Form::Text("a name or pattern"), "\"alice\"")
            .doc("A glob for the user, the group or the directory's path.");
        HARD = Key::optional("hard", Form::Size, "\"80TB\"").doc("Instead of the quota's own.");
        TEMPORAL = Key::optional("temporal", Form::Size, "\"600TB\"").doc("Instead of the quota's own.");
    }
}

/// The tables in the list of `overrides`.
pub const OVERRIDE: Table = Table {
    kind: "quota.overrides",
    shown_as: None,
    named_by: "",
    heading: "",
    doc: "",
    in_use: false,
    keys: other::KEYS,
};
