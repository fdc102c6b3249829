//! `[access]`: who may ask what.

use super::{Form, Key, Table, keys};

keys! {
    VIEWER = Key::optional("viewer", Form::Tables(&VIEWER_TABLE), "{ users = [\"grafana\"], groups = [\"staff\"] }")
        .doc("Clients that may read: status, plans, runs, explain, find, usage, holds.");
    OPERATOR = Key::optional("operator", Form::Tables(&OPERATOR_TABLE), "{ users = [\"slurm\"] }")
        .doc("Clients that may also plan, hold and rescan.");
    ADMIN = Key::optional(
        "admin",
        Form::Tables(&ADMIN_TABLE),
        "{ groups = [\"storage-admins\"], certificates = [\"CN=backup,O=Example\"] }",
    )
    .doc("Clients that may also apply, restore and cancel.");
    SELF = Key::with_default("self", Form::Flag, "false")
        .doc("true: each local user may explain, find, sum up, hold and restore their own files, and nothing else.");
    SELF_HOLD_MAX = Key::with_default("self_hold_max", Form::Duration, "\"30d\"")
        .doc("A hold of such a user lasts at most this long.");
    SELF_RESTORE = Key::with_default("self_restore", Form::Flag, "true")
        .doc("With `self`: each user may restore what was theirs, to directories in which they may make entries.");
    MAX_PLAN_FILES = Key::with_default("max_plan_files", Form::Count, "0")
        .doc("A plan of a client other than root has at most this many candidates; 0 is unlimited.");
}

/// The table.
pub const ACCESS: Table = Table {
    kind: "access",
    shown_as: Some("access"),
    named_by: "",
    heading: "[access]",
    doc: "Roles of clients. Root has full access over the unix socket. All other clients are refused until this table gives them a role. \
          Each role includes those before it. A change takes effect at the next call, also for clients that are connected.",
    in_use: false,
    keys: KEYS,
};

/// Who has a role.
pub mod members {
    use crate::keys::{Form, Key, keys};

    keys! {
        USERS = Key::with_default("users", Form::Texts("users"), "[]").example("[\"alice\"]").doc("Users by name or number.");
        GROUPS = Key::with_default("groups", Form::Texts("groups"), "[]")
            .example("[\"staff\"]")
            .doc("Groups by name or number. A user who is removed from a group loses its role at the next call.");
        CERTIFICATES = Key::with_default("certificates", Form::Texts("subjects"), "[]")
            .example("[\"CN=backup,O=Example\"]")
            .doc("Certificates by their whole subject.");
    }
}

/// The tables in the lines of the roles.
pub const VIEWER_TABLE: Table = Table {
    kind: "viewer",
    shown_as: Some("access.viewer"),
    named_by: "",
    heading: "",
    doc: "",
    in_use: false,
    keys: members::KEYS,
};
/// See [`VIEWER_TABLE`].
pub const OPERATOR_TABLE: Table = Table {
    kind: "operator",
    shown_as: Some("access.operator"),
    ..VIEWER_TABLE
};
/// See [`VIEWER_TABLE`].
pub const ADMIN_TABLE: Table = Table {
    kind: "admin",
    shown_as: Some("access.admin"),
    ..VIEWER_TABLE
};
