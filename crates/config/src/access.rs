//! `[access]`: who may ask what. Root on the unix socket may everything; no one else may anything until it is said here.

use toml::de::DeTable;

use super::keys::access::{self as key, members};
use super::keys::{Form, Key};
use super::scope::read_ids;
use super::section::{Section, Source, value};
use super::subject::Subject;
use purge_base::accounts::{group_ids, user_ids};

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
    /// They may put back what was theirs.
    pub self_restore: bool,
    /// A plan of any user but root has at most this number of candidates; 0: no limit.
    pub max_plan_files: u64,
}

impl Default for Access {
    fn default() -> Self {
        let mut src = Source::of("", "");
        read_access(Section::new(&key::ACCESS, &DeTable::new(), 0..0), &mut src)
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

pub(super) fn read_access(s: Section<'_, '_>, src: &mut Source<'_>) -> Access {
    let access = Access {
        viewer: read_members(&s, src, key::VIEWER),
        operator: read_members(&s, src, key::OPERATOR),
        admin: read_members(&s, src, key::ADMIN),
        own: s.flag(src, key::SELF).unwrap_or(false),
        self_restore: s.flag(src, key::SELF_RESTORE).unwrap_or(true),
        max_plan_files: value(s.count(src, key::MAX_PLAN_FILES)),
        self_hold_max: value(s.duration(src, key::SELF_HOLD_MAX)),
    };
    if s.has(key::SELF_HOLD_MAX) && access.self_hold_max == 0 {
        let mend = "write a time such as \"30d\", or take `self = true` out";
        let span = s.span_of(key::SELF_HOLD_MAX);
        src.fault(&span, "self_hold_max is 0: no user could hold anything", mend);
    }
    s.finish(src);
    access
}

fn read_members(s: &Section<'_, '_>, src: &mut Source<'_>, role: &'static Key) -> Members {
    let mut all = Members::default();
    let Form::Tables(keys) = role.form else {
        return all;
    };
    for (table, span) in s.tables(src, role) {
        let s = Section::new(keys, table, span);
        all.users = read_ids(&s, src, (members::USERS, user_ids));
        all.groups = read_ids(&s, src, (members::GROUPS, group_ids));
        all.certificates = read_subjects(&s, src);
        s.finish(src);
    }
    all
}

fn read_subjects(s: &Section<'_, '_>, src: &mut Source<'_>) -> Vec<Subject> {
    let Some((names, _)) = s.strings(src, members::CERTIFICATES) else {
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
