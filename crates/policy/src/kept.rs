//! Why files stay (values): each file of the volume that is no candidate, and lies in none, stays for one reason.

use purge_model::Seconds;

/// Why a file stays, by how near it is to going. Of what several rules say the last of these counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stays {
    /// It is in the scope of no rule: not its directories, owner, size or depth.
    #[default]
    OutOfScope,
    /// It has expired, and an exclude pattern or the agent's own protection keeps it.
    Excluded,
    /// It was used within the ttl, or something in the same directory was.
    Young,
    /// It is old, but the agent has not observed it for long enough.
    Uncovered,
    /// It has expired, and something is mounted in the directory that would go.
    Mounted,
    /// It has expired, and the rule waits until a list has named it for long enough.
    Announced,
    /// A limit of its rule, or of its owner, keeps it.
    Limit,
    /// A hold keeps it.
    Held,
}

/// Files that stay, by the reason. Together with the candidates, and what lies in these, they are all files of the volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// A hold keeps them.
    pub held: u64,
    /// Expired, and an exclude pattern or the agent's own protection keeps them.
    pub excluded: u64,
    /// Used within the ttl of a rule that has them in its scope.
    pub young: u64,
    /// The agent has not observed them for long enough.
    pub uncovered: u64,
    /// Beyond `max_files` or `max_bytes`, or of an owner who was left out.
    pub limit: u64,
    /// In the scope of no rule.
    pub out_of_scope: u64,
    /// Expired, and their rule waits until a list has named them for long enough.
    pub announced: u64,
    /// When the first of these may go, and when all of them may.
    pub ripe: Option<(Seconds, Seconds)>,
    /// Expired, in directories in which something is mounted.
    pub mounted: u64,
    /// Of a quota: of subjects that are within their limits.
    pub other_subjects: u64,
    /// Of a quota or watermark: more than has to go.
    pub not_needed: u64,
}

impl Kept {
    /// All of them.
    pub fn all(&self) -> u64 {
        let Self {
            held,
            excluded,
            young,
            uncovered,
            limit,
            out_of_scope,
            announced,
            ripe: _,
            mounted,
            other_subjects,
            not_needed,
        } = *self;
        let each = [
            held,
            excluded,
            young,
            uncovered,
            limit,
            out_of_scope,
            announced,
            mounted,
            other_subjects,
            not_needed,
        ];
        each.into_iter().fold(0, u64::saturating_add)
    }

    /// Counts files that stay.
    pub(super) fn count(&mut self, why: Stays, files: u64) {
        let count = match why {
            Stays::OutOfScope => &mut self.out_of_scope,
            Stays::Excluded => &mut self.excluded,
            Stays::Young => &mut self.young,
            Stays::Uncovered => &mut self.uncovered,
            Stays::Mounted => &mut self.mounted,
            Stays::Announced => &mut self.announced,
            Stays::Limit => &mut self.limit,
            Stays::Held => &mut self.held,
        };
        *count = count.saturating_add(files);
    }

    /// Notes when files may go that wait for a list.
    pub(super) fn ripens(&mut self, at: Seconds) {
        let (first, last) = self.ripe.unwrap_or((at, at));
        self.ripe = Some((first.min(at), last.max(at)));
    }

    /// Adds what another part of the index keeps.
    pub(super) fn add(&mut self, more: &Self) {
        let sum = |a: &mut u64, b: u64| *a = a.saturating_add(b);
        sum(&mut self.held, more.held);
        sum(&mut self.excluded, more.excluded);
        sum(&mut self.young, more.young);
        sum(&mut self.uncovered, more.uncovered);
        sum(&mut self.limit, more.limit);
        sum(&mut self.out_of_scope, more.out_of_scope);
        sum(&mut self.announced, more.announced);
        sum(&mut self.mounted, more.mounted);
        sum(&mut self.other_subjects, more.other_subjects);
        sum(&mut self.not_needed, more.not_needed);
        if let Some((first, last)) = more.ripe {
            self.ripens(first);
            self.ripens(last);
        }
    }
}
