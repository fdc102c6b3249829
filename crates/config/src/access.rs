//! `[access]`: who may ask what. Root on the unix socket may everything; nobody else is anything until it is said here.

use super::scope::read_ids;
use super::section::{Section, Source};
use super::subject::Subject;
use purge_base::accounts::{group_ids, user_ids};

/// A hold of an ordinary user lasts at most so many seconds, unless the configuration says otherwise.
pub(super) const DEFAULT_SELF_HOLD_MAX: u64 = 30 * 86_400;

/// Who may ask what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Those who may read.
    pub viewer: Members,
    /// Those who may plan, hold and rescan as well.
    pub operator: Members,
    /// Those who may apply, restore and cancel as well.
    pub admin: Members,
    /// Any local user may ask for, and hold, what is theirs.
    pub own: bool,
    /// Seconds that such a hold lasts at most.
    pub self_hold_max: u64,
    /// A plan of anybody but root has at most so many candidates; 0: no limit.
    pub max_plan_files: u64,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            viewer: Members::default(),
            operator: Members::default(),
            admin: Members::default(),
            own: false,
            self_hold_max: DEFAULT_SELF_HOLD_MAX,
            max_plan_files: 0,
        }
    }
}

impl Access {
    /// Whether being in a group gives a role.
    pub fn names_group(&self, gid: u32) -> bool {
        let roles = [&self.viewer, &self.operator, &self.admin];
        roles.iter().any(|members| members.groups.contains(&gid))
    }
}

/// Those who have a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// uids.
    pub users: Vec<u32>,
    /// gids.
    pub groups: Vec<u32>,
    /// Subjects of client certificates.
    pub certificates: Vec<Subject>,
}

pub(super) fn read_access(mut s: Section<'_, '_>, src: &mut Source<'_>) -> Access {
    let mut access = Access {
        viewer: read_members(&mut s, src, "viewer"),
        operator: read_members(&mut s, src, "operator"),
        admin: read_members(&mut s, src, "admin"),
        own: s.flag(src, "self").unwrap_or(false),
        max_plan_files: s.count(src, "max_plan_files").map_or(0, |(n, _)| n),
        ..Access::default()
    };
    if let Some((seconds, span)) = s.duration(src, "self_hold_max") {
        if seconds == 0 {
            let mend = "write a time such as \"30d\", or take `self = true` out";
            src.fault(&span, "self_hold_max is 0: nobody could hold anything", mend);
        }
        access.self_hold_max = seconds;
    }
    s.finish(src);
    access
}

fn read_members(s: &mut Section<'_, '_>, src: &mut Source<'_>, role: &'static str) -> Members {
    let mut members = Members::default();
    for (table, span) in s.tables(src, role) {
        let mut s = Section::new(role, table, span);
        members.users = read_ids(&mut s, src, ("users", user_ids));
        members.groups = read_ids(&mut s, src, ("groups", group_ids));
        members.certificates = read_subjects(&mut s, src);
        s.finish(src);
    }
    members
}

fn read_subjects(s: &mut Section<'_, '_>, src: &mut Source<'_>) -> Vec<Subject> {
    let Some((names, _)) = s.strings(src, "certificates") else {
        return Vec::new();
    };
    let mut subjects = Vec::new();
    for (name, span) in names {
        match Subject::parse(&name) {
            Ok(subject) => subjects.push(subject),
            Err(why) => {
                let mend = "write the certificate's whole subject, such as \"CN=slurm,O=Example\"";
                src.fault(&span, format!("certificates: {name:?}: {why}"), mend);
            }
        }
    }
    subjects
}
