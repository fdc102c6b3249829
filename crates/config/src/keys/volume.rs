//! `[[volume]]`: a directory tree that the agent watches.

use super::{Form, Key, Table, Word, keys};

keys! {
    NAME = Key::required("name", Form::Text("a name"), "\"scratch\"")
        .at_restart()
        .doc("The name of the volume, in rules, commands and metrics: letters, digits, '.', '_' and '-'.");
    PATH = Key::required("path", Form::Text("an absolute path"), "\"/export/scratch\"")
        .at_restart()
        .doc("Absolute and not \"/\". Mount points below it are not entered.");
    COLLECTOR = Key::with_default(
        "collector",
        Form::Choice(&[
            Word::new("auto"),
            Word::new("fanotify"),
            Word::means("inotify", "a watch on each directory, where fanotify cannot be had"),
            Word::means("fuse", "users come by a mount of the agent's (purge-agent mount); what lies behind it is watched as with auto, but not by scans"),
            Word::means("scan", "by scans only, for file systems that report no events"),
        ]),
        "\"auto\"",
    )
    .at_restart()
    .in_use(true)
    .doc("How the agent observes the volume. auto takes the first of these that the file system, the kernel and the agent's \
          privileges allow: fanotify for the whole file system, fanotify for each directory, fanotify with descriptors (only scans find names then), inotify, scan; the log and \"purgectl doctor\" say \
          which, and what the others refused. scan works everywhere: it knows of reads \
          only where a read moves the access time, which the agent tries with a file of its own. Where it does not, a rule must say \
          clock = [\"modify\", \"change\"].");
    MOUNT = Key::optional("mount", Form::Text("an absolute path"), "\"/scratch\"")
        .at_restart()
        .doc("With collector = \"fuse\": where users see the volume. `purge-agent mount` mounts it there (systemd: purge-agent-mount@NAME).");
    SCAN_INTERVAL = Key::with_default("scan_interval", Form::Duration, "\"6h\"")
        .at_restart()
        .in_use(true)
        .doc("Where only scans find names (collector = \"scan\", and fanotify with collector_mode = descriptors): how often the agent scans (1m to 7d).");
    SOLE_CLIENT = Key::with_default("sole_client", Form::Flag, "false")
        .at_restart()
        .in_use(true)
        .doc("true: you vouch that no other host uses the file system. Where other hosts may use it (NFS, SMB, FUSE, cluster file systems), \
              there is no plan without that.");
    BASELINE = Key::with_default(
        "baseline",
        Form::Choice(&[
            Word::means("auto", "the access time where the mount keeps it (relatime, strictatime), else nothing"),
            Word::means("observed", "nothing: clocks start when observation starts"),
            Word::means("atime", "the access time"),
            Word::means("mtime", "the modification time"),
        ]),
        "\"auto\"",
    )
    .at_restart()
    .in_use(true)
    .doc("What to believe about the time before observation.");
    PRECISION = Key::with_default("precision", Form::Duration, "\"1h\"")
        .at_restart()
        .in_use(true)
        .doc("A file that is used again within this time costs (nearly) nothing until the time is over: its use is recorded at the end \
              of the window, late but never early. \"0s\" or \"1s\": every use is recorded by itself, which is refused where collector_mode is \
              descriptors.");
    IGNORE_ACCESSORS = Key::with_default("ignore_accessors", Form::Tables(&ACCESSOR), "[]")
        .at_restart()
        .example("[ { comm = \"updatedb\" }, { exe = \"/usr/bin/restic\" }, { uid = \"backup\" } ]")
        .doc("Processes whose reads do not count as use of a file. Everything in one { } must hold. Their writes count. A read counts as \
              well if its process has exited before the agent looks it up: doubt counts as use. nfs-ganesha opens every file whose \
              attributes a client asks for; without { comm = \"ganesha.nfsd\", what = \"opens\" } a listing through it is a use of all \
              that is listed. With it, a client that reads a file only from its own cache is not seen.");
    GAP_TOLERANCE = Key::with_default("gap_tolerance", Form::Duration, "\"0s\"")
        .at_restart()
        .in_use(true)
        .doc("A gap (the agent was stopped, and systemd did not keep its event queues) that was longer than this counts as a use of every \
              file. 0s: each gap counts, however short. With more, files that were used in a shorter gap may be deleted; `purgectl plan` \
              says how many.");
    REBOOTS = Key::with_default(
        "reboots",
        Form::Choice(&[
            Word::means("gap", "a reboot is a gap, from the last moment that the agent recorded to the first"),
            Word::means("ordered", "an orderly reboot is no gap: you vouch that no process uses the volume before the agent starts or after it stops"),
        ]),
        "\"gap\"",
    )
    .at_restart()
    .doc("What a reboot of the host counts as.");
    ACCESS_TIMES = Key::with_default(
        "access_times",
        Form::Choice(&[
            Word::means("partial", "reads may leave no access time: access times close no gap"),
            Word::means("complete", "each read moves the access time as relatime says, on ext4; you vouch for that"),
        ]),
        "\"partial\"",
    )
    .at_restart()
    .doc("Whether the first scan after a stop of the agent may believe access times: then files whose access times show no use keep their \
          clocks, and all others count as used. WARNING: reads with O_NOATIME leave no access time (git, many backup programs), and neither \
          do reads through a mapping that a process made before the stop. With \"complete\", files that were read only in such a way \
          while the agent was stopped may be deleted.");
    FLUSH_INTERVAL = Key::with_default("flush_interval", Form::Duration, "\"1s\"")
        .at_restart()
        .in_use(true)
        .doc("How often the index is written to the disk: what a power cut may lose at most (1s to 60s). A crash of the agent loses nothing \
              of what it has read: a journal in the page cache has it.");
    CHECKPOINT_INTERVAL = Key::with_default("checkpoint_interval", Form::Duration, "\"5m\"")
        .at_restart()
        .in_use(true)
        .doc("How often the clocks are saved beside the index (1s to 1h; volumes/NAME.d/clocks.0 and .1 in the state directory). When the \
              index is damaged, the agent sets it aside. A scan builds a new one, with the clocks from the newest undamaged copy and the \
              journal since.");
    SWEEP_INTERVAL = Key::with_default("sweep_interval", Form::Duration, "\"7d\"")
        .at_restart()
        .in_use(true)
        .doc("A slow scan compares index and file system at this interval; \"0s\": never. A scan at full speed follows every start, and every \
              time in which events may have been missed.");
    SWEEP_RATE = Key::with_default("sweep_rate", Form::Count, "5000")
        .at_restart()
        .in_use(true)
        .doc("The slow scan looks at this many entries a second at most; 0 is unlimited.");
    ADOPT = Key::with_default("adopt", Form::Flag, "false")
        .at_restart()
        .in_use(true)
        .doc("true: when another file system is mounted at the path (a new disk, a new mkfs), the agent watches it instead of the one in the \
              index, and drops the history of that one. A tmpfs is a new file system with each mount, and is always watched.");
}

/// The table.
pub const VOLUME: Table = Table {
    kind: "volume",
    shown_as: Some("volume"),
    named_by: "name",
    heading: "[[volume]]",
    doc: "A directory tree that the agent watches. Its whole file system is marked; events from outside the path are dropped.",
    in_use: true,
    keys: KEYS,
};

/// Processes whose reads do not count.
pub mod accessor {
    use crate::keys::{Form, Key, Word, keys};

    keys! {
        COMM = Key::optional("comm", Form::Text("a name"), "\"updatedb\"")
            .doc("The name that `ps -o comm` shows, at most 15 bytes.")
            .at_restart();
        EXE = Key::optional("exe", Form::Text("an absolute path"), "\"/usr/bin/restic\"").doc("The program.")
            .at_restart();
        UID = Key::optional("uid", Form::Text("a user"), "\"backup\"").doc("The user, by name or number.")
            .at_restart();
        GID = Key::optional("gid", Form::Text("a group"), "\"backup\"").doc("The group, by name or number.")
            .at_restart();
        CGROUP = Key::optional("cgroup", Form::Text("an absolute path"), "\"/system.slice/backup.service\"")
            .doc("Its control group, or one above.")
            .at_restart();
        WHAT = Key::with_default("what", Form::Choice(&[Word::new("reads"), Word::new("opens")]), "\"reads\"")
            .example("\"opens\"")
            .doc("What does not count. \"opens\": reads of the process count, and only its opens do not.")
            .at_restart();
    }
}

/// The tables in the list of `ignore_accessors`.
pub const ACCESSOR: Table = Table {
    kind: "ignore_accessors",
    shown_as: None,
    named_by: "",
    heading: "",
    doc: "",
    in_use: false,
    keys: accessor::KEYS,
};
