//! `[[watermark]]`: how full a volume may be.

use super::{Form, Key, Table, keys};

keys! {
    VOLUME = Key::required("volume", Form::Text("a volume"), "\"scratch\"").doc("The volume that it is for. A volume has one watermark.");
    HIGH = Key::required("high", Form::Percent, "\"85%\"").doc("Above this share of its space or inodes, files are taken.");
    LOW = Key::required("low", Form::Percent, "\"75%\"").doc("Down to this share.");
    RULE = Key::required("rule", Form::Text("a rule"), "\"scratch-28d\"").doc("The rule whose scope, order and limits are used.");
    MIN_AGE = Key::with_default("min_age", Form::Duration, "\"2d\"").doc("No watermark takes a file used within this time.");
    FREE_TRASH = Key::with_default("free_trash", Form::Flag, "false")
        .doc("true: above high, the agent frees the trash before its grace ends, oldest first, before it takes other files. In any case the \
              content of the trash counts as free.");
}

/// The table.
pub const WATERMARK: Table = Table {
    kind: "watermark",
    shown_as: Some("watermark"),
    named_by: "volume",
    heading: "[[watermark]]",
    doc: "The agent looks every minute at the space and the inodes of the whole volume, as df counts them. Above high, it applies a plan of \
          the rule's files, in the rule's order, down to low; `purgectl plan --watermark` shows what it would take. The agent measures what \
          comes free: if less than half of it does, the watermark stops until space comes free or an administrator runs `purgectl resume \
          scratch`. The rule's max_fraction (0.25 if that is left out), max_files and max_bytes bind what quotas and watermarks take within \
          24 hours together.",
    in_use: false,
    keys: KEYS,
};
