//! What there is to tell, as values. They are stored and sent as JSON, so names here are names there.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use purge_model::Seconds;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An owner uses more than a quota allows.
    OverQuota,
    /// And no longer.
    BackUnder,
    /// Files will expire soon.
    WillExpire,
    /// Files have expired under a rule that only tells.
    Expired,
    /// Files were taken.
    Purged,
    /// A run failed, or was not made.
    RunFailed,
    /// Uses may have been missed.
    CoverageGap,
    /// A volume is fuller than its watermark.
    WatermarkReached,
    /// And no longer.
    WatermarkEnded,
    /// What a watermark deletes does not come free: it has stopped.
    TriggerStopped,
    /// Something does not work: a volume is degraded, or something in its trash cannot be freed.
    Trouble,
    /// It works again.
    TroubleEnded,
    /// Notices were switched on, and the first ones to owners wait.
    FirstNotices,
    /// A user tries whether a sink works.
    Test,
}

impl Kind {
    /// All kinds that a sink can be told of.
    pub const ALL: [Self; 13] = [
        Self::OverQuota,
        Self::BackUnder,
        Self::WillExpire,
        Self::Expired,
        Self::Purged,
        Self::RunFailed,
        Self::CoverageGap,
        Self::WatermarkReached,
        Self::WatermarkEnded,
        Self::TriggerStopped,
        Self::Trouble,
        Self::TroubleEnded,
        Self::FirstNotices,
    ];

    /// As configuration and JSON have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OverQuota => "over-quota",
            Self::BackUnder => "back-under",
            Self::WillExpire => "will-expire",
            Self::Expired => "expired",
            Self::Purged => "purged",
            Self::RunFailed => "run-failed",
            Self::CoverageGap => "coverage-gap",
            Self::WatermarkReached => "watermark-reached",
            Self::WatermarkEnded => "watermark-ended",
            Self::TriggerStopped => "trigger-stopped",
            Self::Trouble => "trouble",
            Self::TroubleEnded => "trouble-ended",
            Self::FirstNotices => "first-notices",
            Self::Test => "test",
        }
    }
}

/// Who is to hear of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "audience", rename_all = "lowercase")]
pub enum Audience {
    /// The owner of files.
    Owner {
        /// The user's name, or the uid in digits.
        user: String,
        /// The uid.
        uid: u32,
    },
    /// The person who keeps the storage.
    Operator,
}

impl Audience {
    /// In a word, for lists.
    pub fn name(&self) -> &str {
        match self {
            Self::Owner { user, .. } => user,
            Self::Operator => "operator",
        }
    }
}

/// One thing that happened, for one audience.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The same each time the event is found again, also after a crash: an event of this name is told once.
    pub event_id: String,
    /// When it was found, RFC 3339 UTC.
    pub at: String,
    /// The volume.
    pub volume: String,
    /// Its root.
    pub path: String,
    /// Who is to hear of it.
    pub to: Audience,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
    /// The entries concerned; they are stored beside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<List>,
}

/// The entries that an event speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// How many there are.
    pub total: u64,
    /// How many of them are named.
    pub shown: u64,
    /// The file in the outbox that names them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub file: String,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path; lossy where it is not UTF-8.
    pub path: String,
    /// The raw path in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// The rest of the path is in a directory that the owner cannot enter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
    /// The owner could see all of the path when it was noted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seen: bool,
    /// Apparent bytes.
    pub bytes: u64,
    /// When it expires, where that is still to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl Entry {
    /// An entry of this path.
    pub fn new(path: &[u8], bytes: u64, expires_at: Option<Seconds>) -> Self {
        use base64::Engine;
        let text = std::str::from_utf8(path);
        Self {
            path: String::from_utf8_lossy(path).into_owned(),
            path_bytes: text
                .is_err()
                .then(|| base64::engine::general_purpose::STANDARD.encode(path)),
            hidden: false,
            seen: false,
            bytes,
            expires_at: expires_at.map(rfc3339),
        }
    }

    /// Its path as bytes.
    pub fn raw_path(&self) -> Vec<u8> {
        use base64::Engine;
        let decode = |raw: &String| base64::engine::general_purpose::STANDARD.decode(raw).ok();
        let raw = self.path_bytes.as_ref().and_then(decode);
        raw.unwrap_or_else(|| self.path.clone().into_bytes())
    }

    /// The same, of which only this much of the path is told.
    #[must_use]
    pub fn cut(self, path: &[u8]) -> Self {
        let Self { path, path_bytes, .. } = Self::new(path, 0, None);
        Self {
            path,
            path_bytes,
            hidden: true,
            ..self
        }
    }
}

/// What happened, by its kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// See [`Kind::OverQuota`].
    OverQuota(Use),
    /// See [`Kind::BackUnder`].
    BackUnder(Use),
    /// See [`Kind::WillExpire`].
    WillExpire(Expiring),
    /// See [`Kind::Expired`].
    Expired(Expiring),
    /// See [`Kind::Purged`].
    Purged(Purged),
    /// See [`Kind::RunFailed`].
    RunFailed {
        /// The run; empty: there was none.
        run_id: String,
        /// Who asked for it: a rule, a quota, a watermark, or a caller.
        by: String,
        /// What went wrong.
        error: String,
        /// Candidates that could not be taken.
        failed: u64,
    },
    /// See [`Kind::CoverageGap`].
    CoverageGap {
        /// When observation stopped, RFC 3339 UTC.
        from: String,
        /// When it went on.
        until: String,
        /// As `status` says it.
        cause: String,
        /// It counts as a use of every file.
        counts: bool,
    },
    /// See [`Kind::WatermarkReached`].
    WatermarkReached(Fill),
    /// See [`Kind::WatermarkEnded`].
    WatermarkEnded(Fill),
    /// See [`Kind::TriggerStopped`].
    TriggerStopped {
        /// The watermark.
        by: String,
        /// What happened, for a person.
        reason: String,
        /// Apparent size of what was deleted.
        deleted_bytes: u64,
        /// What ought to have come free.
        promised_bytes: u64,
        /// What did.
        freed_bytes: u64,
    },
    /// See [`Kind::Trouble`].
    Trouble {
        /// What is concerned, as `doctor` names it: "filesystem", "collector", "agents", "trash", ...
        check: String,
        /// What is wrong.
        reason: String,
        /// What to do about it.
        cure: String,
    },
    /// See [`Kind::TroubleEnded`].
    TroubleEnded {
        /// What was concerned.
        check: String,
    },
    /// See [`Kind::FirstNotices`].
    FirstNotices {
        /// Notices that wait.
        notices: u64,
        /// The owners that they are for.
        owners: u64,
        /// When they are sent, RFC 3339 UTC.
        until: String,
    },
    /// See [`Kind::Test`].
    Test {
        /// The sink that is tried.
        sink: String,
    },
}

/// What a quota's subject uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// The quota.
    pub quota: String,
    /// "user", "group" or "directory".
    pub subject_kind: String,
    /// Whom or what it limits.
    pub subject: String,
    /// Files counted.
    pub files: u64,
    /// Apparent bytes.
    pub used_bytes: u64,
    /// What is allowed, if that limit was passed.
    pub limit_bytes: Option<u64>,
    /// Size x days.
    pub used_byte_days: u64,
    /// What is allowed, if that limit was passed.
    pub limit_byte_days: Option<u64>,
    /// The agent removes the oldest files by itself.
    pub purges: bool,
}

/// What an owner's files will come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiring {
    /// The rule.
    pub rule: String,
    /// Seconds without use after which it takes a file.
    pub ttl_seconds: u64,
    /// Files that expire within the time looked at.
    pub files: u64,
    /// Directories that do, as a whole.
    pub directories: u64,
    /// Files in those directories. `files` does not count them.
    #[serde(default)]
    pub files_inside: u64,
    /// Apparent bytes.
    pub bytes: u64,
    /// When the first of them expires, RFC 3339 UTC.
    pub first_at: String,
    /// The end of the time looked at.
    pub until: String,
    /// The rule deletes; otherwise it only tells.
    pub deletes: bool,
}

/// What an owner lost in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// The run.
    pub run_id: String,
    /// The rules, quotas or watermarks that asked for it.
    pub rules: Vec<String>,
    /// Files taken.
    pub files: u64,
    /// Directories taken.
    pub directories: u64,
    /// Apparent bytes.
    pub bytes: u64,
    /// Until when what lies in the trash can be restored, RFC 3339 UTC: the first end of a grace. None: nothing can be.
    pub restorable_until: Option<String>,
}

/// How full a volume is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fill {
    /// Percent of the space in use.
    pub space_percent: f64,
    /// Percent of the inodes in use.
    pub inodes_percent: f64,
    /// Above this the agent removes files.
    pub high_percent: f64,
    /// Down to this.
    pub low_percent: f64,
    /// Whose scope and order count.
    pub rule: String,
}

impl What {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::OverQuota(_) => Kind::OverQuota,
            Self::BackUnder(_) => Kind::BackUnder,
            Self::WillExpire(_) => Kind::WillExpire,
            Self::Expired(_) => Kind::Expired,
            Self::Purged(_) => Kind::Purged,
            Self::RunFailed { .. } => Kind::RunFailed,
            Self::CoverageGap { .. } => Kind::CoverageGap,
            Self::WatermarkReached(_) => Kind::WatermarkReached,
            Self::WatermarkEnded(_) => Kind::WatermarkEnded,
            Self::TriggerStopped { .. } => Kind::TriggerStopped,
            Self::Trouble { .. } => Kind::Trouble,
            Self::TroubleEnded { .. } => Kind::TroubleEnded,
            Self::FirstNotices { .. } => Kind::FirstNotices,
            Self::Test { .. } => Kind::Test,
        }
    }
}

/// A moment as JSON has it.
pub fn rfc3339(at: Seconds) -> String {
    DateTime::<Utc>::from_timestamp(at.unix(), 0)
        .map(|t| t.to_rfc3339_opts(SecondsFormat::Secs, true))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_comes_back_from_json_as_it_was() {
        let all = [
            What::Purged(Purged {
                run_id: "r1".into(),
                files: 3,
                ..Purged::default()
            }),
            What::WatermarkEnded(Fill {
                space_percent: 71.5,
                inodes_percent: 2.0,
                high_percent: 85.0,
                low_percent: 75.0,
                rule: "r".into(),
            }),
            What::OverQuota(Use {
                quota: "q".into(),
                subject_kind: "user".into(),
                subject: "alice".into(),
                files: 2,
                used_bytes: u64::MAX,
                limit_bytes: Some(5),
                used_byte_days: 7,
                limit_byte_days: None,
                purges: true,
            }),
        ];
        for what in all {
            let event = Event {
                event_id: "e".into(),
                at: rfc3339(Seconds(0)),
                volume: "v".into(),
                path: "/v".into(),
                to: Audience::Owner {
                    user: "alice".into(),
                    uid: 7,
                },
                list: Some(List {
                    total: 9,
                    shown: 3,
                    file: "l".into(),
                }),
                what,
            };
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!(json.get("event").unwrap(), event.what.kind().as_str());
            assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        }
    }

    #[test]
    fn a_path_that_is_no_text_keeps_its_bytes() {
        assert_eq!(Entry::new(b"/v/a", 1, None).path_bytes, None);
        assert_eq!(
            Entry::new(b"/v/\xff", 1, None).path_bytes.as_deref(),
            Some("L3Yv/w==")
        );
    }
}
