//! What an evaluation found, with everything that a run compares later: the value. Pure.

use prost::Message;
use purge_model::{Seconds, Totals};
use purge_policy::evaluate::Kept;
use purge_policy::forgiven::Forgiven;
use purge_policy::rule::Destination;

use super::fingerprint::Fingerprint;
use crate::protection::Guard;

/// A plan can be applied for this long.
pub const EXPIRES_AFTER_SECONDS: u64 = 24 * 3600;

/// A saved plan, without its candidates: these lie beside it in chunks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Its name.
    pub id: String,
    /// When the rules were evaluated.
    pub created: Seconds,
    /// From when on it cannot be applied any more.
    pub expires: Seconds,
    /// The volume's name.
    pub volume: String,
    /// Who asked for it, as it stands in records.
    pub by: String,
    /// The quota or watermark that asked for it; none: the rules did.
    pub trigger: Option<String>,
    /// Every rule that took part, also those that took nothing; for a quota or watermark, its reasons. A candidate's `rule` points here.
    pub rules: Vec<RuleShare>,
    /// What it takes.
    pub totals: Totals,
    /// What its files take: of each the smaller of its size and its space on the disk. Limits count this. Older plans do not say it.
    pub takes: Option<u64>,
    /// Files that stay, by the reason.
    pub kept: Kept,
    /// Whose files it takes, most bytes first.
    pub by_owner: Vec<OwnerShare>,
    /// Candidates that were in use by mounts when it was made: a run keeps them.
    pub mounted: u64,
    /// Files with a time in the future, among those that were looked at.
    pub times_ahead: u64,
    /// What was left out besides what `kept` counts, and why, in words.
    pub left_out: Vec<String>,
    /// The forgiven stretches that it rests on.
    pub forgiven: Option<Forgiven>,
    /// Exclude patterns of its rules that match nothing on the volume.
    pub idle: Vec<IdlePattern>,
    /// How long the evaluation took, in seconds.
    pub seconds: f64,
    /// Files in the index at that time.
    pub index_files: u64,
    /// Files that were looked at.
    pub examined: u64,
    /// When the evaluation began, in nanoseconds since 1970, by the wall clock; 0: an older agent made the plan and did not note it.
    pub began: i64,
    /// What keeps a file that is used in the moment of its removal.
    pub guard: Option<Guard>,
    /// How long what it takes stays in the trash, by the rule with the longest grace.
    pub grace: u64,
    /// Why it cannot be applied (a safety limit).
    pub refusal: Option<String>,
    /// The run that applied it.
    pub run: Option<String>,
    /// A run stops when more than this share of its candidates fails.
    pub max_errors: f64,
    /// The rules as they were (see [`super::fingerprint`]).
    pub fingerprint: Fingerprint,
    /// The TTL came with the request, not from the rules.
    pub own_ttl: bool,
    /// Number of chunks.
    pub chunks: u32,
    /// First chunk of the directories that are empty only when everything before them is removed.
    pub first_empty_chunk: u32,
    /// What its chunks take in the store.
    pub bytes: u64,
    /// For a watermark: what comes free when all of it is removed, and what it is for.
    pub promise: Option<Promise>,
    /// For a watermark: some of the files, of the owners of whom most is taken.
    pub drawn: Vec<OwnerProbes>,
}

impl Plan {
    /// Number of candidates.
    pub fn candidates(&self) -> u64 {
        self.totals.entries()
    }

    /// When its evaluation began, in nanoseconds since 1970.
    pub fn evaluated(&self) -> i128 {
        match self.began {
            0 => i128::from(self.created.unix()) * 1_000_000_000,
            nanos => i128::from(nanos),
        }
    }

    /// Whether anything of it is copied before it is taken.
    pub fn archives(&self) -> bool {
        self.rules.iter().any(|rule| rule.archive.is_some())
    }

    /// The names of its rules, or of the reasons of its quota or watermark.
    pub fn rule_names(&self) -> Vec<String> {
        self.rules.iter().map(|rule| rule.name.clone()).collect()
    }
}

/// What a plan takes by one rule, or for one reason of a quota or watermark.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleShare {
    /// The rule's name, or the reason's: "QUOTA/alice".
    pub name: String,
    /// What it takes.
    pub totals: Totals,
    /// How long that stays in the trash, in seconds.
    pub grace: u64,
    /// Where it is copied to before it is taken; none: it goes without a copy.
    pub archive: Option<Destination>,
    /// Why a quota or watermark takes it, in words.
    pub because: Option<String>,
    /// Why it takes nothing, in words; empty where it takes something.
    pub remark: String,
    /// Files that it would take by itself and that go with directories of other rules: these rules, and how many.
    pub goes_with: Vec<(String, u64)>,
}

/// What a plan takes of one owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerShare {
    /// The user's name, or the uid in digits where the host knows no name.
    pub owner: String,
    /// The user.
    pub uid: u32,
    /// How many files.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// As in [`Plan::takes`].
    pub takes: u64,
}

/// An exclude pattern that matches nothing: it protects nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdlePattern {
    /// The rule that has it.
    pub rule: String,
    /// As it was written.
    pub pattern: String,
    /// A pattern that matches something and may have been meant.
    pub did_you_mean: Option<String>,
}

/// What comes free when everything that a plan names is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promise {
    /// Bytes on disk that nothing else uses.
    pub bytes: u64,
    /// Inodes.
    pub files: u64,
    /// Bytes on disk.
    pub allocated: u64,
    /// Space was to come free.
    pub wants_bytes: bool,
    /// Inodes were to come free.
    pub wants_files: bool,
}

/// Some of the files that a plan takes, which were drawn together (see `policy::sample`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnerProbes {
    /// The owner, in plans of earlier versions; 0: each file says.
    pub uid: u32,
    /// The first priority that was not drawn.
    pub threshold: u64,
    /// The files.
    pub probes: Vec<Probe>,
}

/// A file that can be found again once it has no name. It is made to be stored, with a plan and with what the agent knows of a watermark:
/// this is its stored form as well (see [`crate::stored`]).
#[derive(Clone, PartialEq, Message)]
pub struct Probe {
    /// Its inode.
    #[prost(uint64, tag = "1")]
    pub ino: u64,
    /// What it takes on disk.
    #[prost(uint64, tag = "2")]
    pub takes: u64,
    /// How its handle is laid out.
    #[prost(int32, tag = "3")]
    pub kind: i32,
    /// Its handle.
    #[prost(bytes = "vec", tag = "4")]
    pub handle: Vec<u8>,
    /// What it counted for when it was drawn.
    #[prost(uint64, tag = "5")]
    pub weight: u64,
    /// Whose it is.
    #[prost(uint32, tag = "6")]
    pub uid: u32,
}
