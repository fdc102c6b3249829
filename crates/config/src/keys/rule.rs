//! `[[rule]]`: which files may be deleted.

use toml::de::DeTable;

use super::{Form, Key, Table, Unless, Word, is_false, keys, says};

keys! {
    NAME = Key::required("name", Form::Text("a name"), "\"scratch-28d\"")
        .doc("The name of the rule, in commands, logs and notices: letters, digits, '.', '_' and '-'.");
    VOLUME = Key::required("volume", Form::Text("a volume"), "\"scratch\"").doc("The volume that it is for.");
    TARGET = Key::with_default(
        "target",
        Form::Choice(&[
            Word::means("file", "single files"),
            Word::means(
                "directory",
                "directories `depth` levels below the root, as a whole, when everything in them has expired",
            ),
        ]),
        "\"file\"",
    )
    .in_use(true)
    .doc("What the rule takes.");
    DEPTH = Key::optional("depth", Form::Count, "1")
        .unless(Unless {
            holds: takes_directories,
            words: "with target = \"directory\"",
            value: "1",
        })
        .doc("The level of the directories that a rule for directories takes: 1 is the level below the root.");
    TTL = Key::optional("ttl", Form::Duration, "\"28d\"")
        .in_use(true)
        .doc("The rule takes what was not used for longer than this. Only a rule that quotas and watermarks use may leave it out.");
    CLOCK = Key::with_default(
        "clock",
        Form::Texts("clocks"),
        "[\"access\", \"modify\", \"change\", \"birth\"]",
    )
    .in_use(true)
    .doc("Last use is the latest of these. access: what the agent saw. modify, change, birth: the file's own times.");
    INCLUDE = Key::with_default("include", Form::Texts("patterns"), "[\"**\"]")
        .in_use(true)
        .doc("What the rule is for: gitignore-style globs, relative to the volume. A matched directory covers everything in it.");
    EXCLUDE = Key::with_default("exclude", Form::Texts("patterns"), "[]")
        .in_use(true)
        .example("[\"**/.keep\", \"/software/**\"]")
        .doc("What the rule never takes, the same way. A pattern whose last name is a wildcard alone (\"/*/\", \"**/\"), or that ends in \
              \"/.\" (\"/home/.\"), keeps directories and nothing in them.");
    USERS = Key::optional("users", Form::Texts("users"), "[\"alice\"]")
        .doc("Only files of these owners, by name or number; a file must pass all four lists that are given.");
    GROUPS = Key::optional("groups", Form::Texts("groups"), "[\"students\"]").doc("Only files of these groups.");
    EXCLUDE_USERS = Key::with_default("exclude_users", Form::Texts("users"), "[]")
        .example("[\"root\"]")
        .doc("No file of these owners.");
    EXCLUDE_GROUPS = Key::with_default("exclude_groups", Form::Texts("groups"), "[]")
        .example("[\"staff\"]")
        .doc("No file of these groups.");
    MIN_SIZE = Key::optional("min_size", Form::Size, "\"1MB\"").doc("Only files of this apparent size or more.");
    MAX_SIZE = Key::optional("max_size", Form::Size, "\"1TB\"").doc("Only files of this apparent size or less.");
    REMOVE_EMPTY_DIRS = Key::with_default("remove_empty_dirs", Form::FlagOr("all"), "true")
        .in_use(true)
        .doc("true: the rule also removes directories that are empty, or become so, and have themselves not been changed within the ttl; \
              children first, never the root. A directory that its owner could not make again in the directory above, by modes and ACLs, \
              stays; so does a directory of root that others may write to, if they could not make it again. \"all\" removes these as well.");
    KEEP_DEPTH = Key::with_default("keep_depth", Form::Count, "0")
        .in_use(true)
        .doc("Directories of this number of levels below the root stay, also if they are empty.");
    MAX_EMPTY_DIRS = Key::with_default("max_empty_dirs", Form::Count, "500")
        .in_use(true)
        .doc("A run removes at most this many empty directories; 0 is unlimited.");
    SYMLINKS = Key::with_default(
        "symlinks",
        Form::Choice(&[
            Word::means("keep", "they stay"),
            Word::means(
                "with-target",
                "a link is removed when the same rule removes its target, or the target does not exist",
            ),
            Word::means(
                "expired",
                "a link is removed unless it was followed within the ttl, also if its target exists",
            ),
        ]),
        "\"with-target\"",
    )
    .in_use(true)
    .unless(Unless {
        holds: keeps_links,
        words: "with remove_empty_dirs = false or target = \"directory\"",
        value: "\"keep\"",
    })
    .doc("Symbolic links that were not changed within the ttl. The agent follows no link, and a link that leads out of the volume stays.");
    ACTION = Key::with_default(
        "action",
        Form::Choice(&[
            Word::means("delete", "candidates are deleted"),
            Word::means(
                "notify",
                "plans inform only and cannot be applied; with [notify], owners get a notice of what the rule finds",
            ),
            Word::means(
                "archive",
                "candidates are copied to a store, each copy is fetched back and compared, and then they are deleted",
            ),
        ]),
        "\"delete\"",
    )
    .in_use(true)
    .doc("What happens to what the rule finds.");
    ARCHIVE = Key::optional("archive", Form::Text("an archive"), "\"cold\"")
        .doc("With action = \"archive\": the [[archive]] to copy to. Where there is one, it may be left out.");
    AFTER = Key::optional("after", Form::Later, "");
    SELECT = Key::optional("select", Form::Later, "");
    ANNOUNCE = Key::with_default("announce", Form::Duration, "\"0s\"")
        .in_use(true)
        .doc("Above \"0s\": the rule takes a file only if a list that is at least this old named it, and every list since: with the last use \
              that it still has, in scope and not held. Lists name what will expire within this time. The agent publishes one at least every \
              day. `purgectl mine` and `purgectl find --expiring` show what will expire. This binds quotas and watermarks that use the rule \
              as well.");
    ANNOUNCE_TO = Key::optional("announce_to", Form::Text("an absolute path"), "\"/var/lib/purge-lists\"")
        .doc("Lists that people can read without the agent: a file for each owner, DIRECTORY/RULE/USER, which only the owner and root can \
              read, with a line a file: when it expires, bytes, path. The directory belongs to root, only root can write to it, and it is \
              outside of every volume.");
    GRACE = Key::with_default("grace", Form::Duration, "\"0s\"")
        .in_use(true)
        .example("\"24h\"")
        .doc("Files that the rule takes stay in the volume's trash for this time and can be restored (purgectl restore RUN); \"0s\" deletes \
              them at once.");
    SCHEDULE = Key::optional("schedule", Form::Text("a schedule"), "\"daily\"")
        .in_use(true)
        .doc("hourly, daily (02:00), weekly, or five cron fields, local time. Without it the agent makes plans only on request.");
    SCHEDULE_MISSED = Key::with_default(
        "schedule_missed",
        Form::Choice(&[
            Word::means("skip", "leaves it out"),
            Word::means("run", "makes it afterwards, once"),
        ]),
        "\"skip\"",
    )
    .in_use(true)
    .doc("A plan that came due while the agent was not running.");
    AUTO_APPLY = Key::with_default("auto_apply", Form::Flag, "false")
        .in_use(true)
        .doc("true: the agent applies plans of the schedule without a review.");
    ORDER = Key::with_default(
        "order",
        Form::Choice(&[
            Word::means("oldest", "the oldest last use, among equals the largest"),
            Word::means("largest", "the largest"),
            Word::means("byte-days", "the largest size x days since it was made"),
        ]),
        "\"oldest\"",
    )
    .in_use(true)
    .doc("The order in which files are taken where the limits below, a quota or a watermark do not take all of them.");
    MAX_FILES = Key::with_default("max_files", Form::Count, "0")
        .in_use(true)
        .doc("A plan takes at most this many files, in that order; 0 is unlimited.");
    MAX_BYTES = Key::with_default("max_bytes", Form::Size, "\"0B\"")
        .in_use(true)
        .doc("A plan takes at most this much, in that order; 0 is unlimited. For each file the smaller of its size and its space on the disk \
              counts.");
    MAX_ERRORS = Key::with_default("max_errors", Form::Share, "0.05")
        .in_use(true)
        .doc("A run stops when more than this share of its candidates (and more than ten) fails for faults of the system: a damaged, full or \
              read-only disk. Candidates that single users keep (leases, quotas, immutable files) are skipped, and never stop a run.");
    MAX_FRACTION = Key::optional("max_fraction", Form::Share, "0.25")
        .doc("A plan that would take more than this share of the volume's files, or of their space, is refused. Without this key there is no \
              such limit for a plan that a person applies, and it is 0.25 with auto_apply. If the agent makes the plan by itself, and the \
              files of a few owners are too many, the plan leaves these owners out and takes the rest.");
}

/// The table.
pub const RULE: Table = Table {
    kind: "rule",
    shown_as: Some("rule"),
    named_by: "name",
    heading: "[[rule]]",
    doc: "A rule says which files may be deleted. A rule without a ttl is an error, and so is an empty selector: nothing is selected by \
          omission.",
    in_use: true,
    keys: KEYS,
};

fn takes_directories(table: &DeTable<'_>) -> bool {
    says(table, TARGET, "directory")
}

/// A link keeps its directory from becoming empty, so links go where empty directories do. A directory rule takes what lies in its
/// directories with them, and by default nothing else.
fn keeps_links(table: &DeTable<'_>) -> bool {
    takes_directories(table) || is_false(table, REMOVE_EMPTY_DIRS)
}
