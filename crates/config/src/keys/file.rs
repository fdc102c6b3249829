//! The whole file.

use super::{Form, Key, Table, access, archive, keys, listen, notify, quota, rule, volume, watermark};

/// Where the index is, unless the configuration says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/purge-agent";

keys! {
    STATE_DIR = Key::with_default("state_dir", Form::Text("an absolute path"), "\"/var/lib/purge-agent\"")
        .at_restart()
        .in_use(true)
        .variable("PURGE_AGENT_STATE_DIR")
        .doc("The directory of the index. It must not be on a volume that may fill up.");
    AUDIT_LOG = Key::with_default("audit_log", Form::Text("an absolute path"), "\"STATE_DIR/audit.jsonl\"")
        .at_restart()
        .example("\"/var/lib/purge-agent/audit.jsonl\"")
        .variable("PURGE_AGENT_AUDIT_LOG")
        .doc("A file with a line of JSON for each item that was deleted, trashed, restored or left alone. A reload opens it again, for logrotate.");
    LISTEN = Key::optional("listen", Form::Tables(&listen::LISTEN), "");
    ACCESS = Key::optional("access", Form::Tables(&access::ACCESS), "");
    VOLUME = Key::optional("volume", Form::Tables(&volume::VOLUME), "");
    RULE = Key::optional("rule", Form::Tables(&rule::RULE), "");
    QUOTA = Key::optional("quota", Form::Tables(&quota::QUOTA), "");
    WATERMARK = Key::optional("watermark", Form::Tables(&watermark::WATERMARK), "");
    ARCHIVE = Key::optional("archive", Form::Tables(&archive::ARCHIVE), "");
    NOTIFY = Key::optional("notify", Form::Tables(&notify::NOTIFY), "");
}

/// The whole file.
pub const FILE: Table = Table {
    kind: "",
    shown_as: Some(""),
    named_by: "",
    heading: "",
    doc: "Validate with `purge-agent check`. Rules may also be in rules.d/*.toml beside this file. After a change of rules, quotas, \
          watermarks, archives, access, notices, certificates, or the socket's owner and group: systemctl reload purge-agent. Every other change \
          needs a restart.",
    in_use: true,
    keys: KEYS,
};

/// A file of `rules.d`.
pub const RULES_FILE: Table = Table {
    keys: &[*RULE],
    ..FILE
};
