//! Who may call what. Pure: (caller, call, configuration) -> whether, and how much of it they see.
//!
//! A call that is not in [`CALLS`] is for admins only: a change that adds one to the contract adds a row here.

use std::fmt::Debug;
use std::sync::Arc;

use purge_config::{Access, Members, Subject};

/// What a client is. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Plans, holds and rescans.
    Operator,
    /// Applies, restores and cancels.
    Admin,
}

impl Role {
    /// The configuration's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Whether ordinary users may make a call, for what is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfOwn {
    /// They may; the call itself looks at whose it is.
    May,
    /// They may not.
    MayNot,
}

/// Every call of `purge.v1.PurgeAgent`, the role it needs, and whether ordinary users may make it for what is theirs.
pub const CALLS: [(&str, Role, OfOwn); 37] = [
    ("GetStatus", Role::Viewer, OfOwn::MayNot),
    ("GetPlan", Role::Viewer, OfOwn::MayNot),
    ("ListPlans", Role::Viewer, OfOwn::MayNot),
    ("ShowPlan", Role::Viewer, OfOwn::MayNot),
    ("WatchRun", Role::Viewer, OfOwn::MayNot),
    ("GetRun", Role::Viewer, OfOwn::MayNot),
    ("ListRuns", Role::Viewer, OfOwn::MayNot),
    ("GetConfig", Role::Viewer, OfOwn::MayNot),
    ("Doctor", Role::Viewer, OfOwn::MayNot),
    ("GetForecast", Role::Viewer, OfOwn::MayNot),
    ("ListQuotas", Role::Viewer, OfOwn::MayNot),
    ("GetSchedule", Role::Viewer, OfOwn::MayNot),
    ("GetTouched", Role::Viewer, OfOwn::MayNot),
    ("ListNotices", Role::Viewer, OfOwn::MayNot),
    ("PreviewNotices", Role::Viewer, OfOwn::MayNot),
    ("ListArchive", Role::Viewer, OfOwn::MayNot),
    ("Mine", Role::Viewer, OfOwn::May),
    ("Explain", Role::Viewer, OfOwn::May),
    ("ListTrash", Role::Viewer, OfOwn::May),
    ("Find", Role::Viewer, OfOwn::May),
    ("Usage", Role::Viewer, OfOwn::May),
    ("ListUsage", Role::Viewer, OfOwn::May),
    ("ListHolds", Role::Viewer, OfOwn::May),
    ("CreatePlan", Role::Operator, OfOwn::MayNot),
    ("AddHold", Role::Operator, OfOwn::May),
    ("RemoveHold", Role::Operator, OfOwn::May),
    ("Rescan", Role::Operator, OfOwn::MayNot),
    ("VerifyArchive", Role::Operator, OfOwn::MayNot),
    ("CheckPatterns", Role::Operator, OfOwn::MayNot),
    ("TestNotice", Role::Admin, OfOwn::MayNot),
    ("ReleaseNotices", Role::Admin, OfOwn::MayNot),
    ("Apply", Role::Admin, OfOwn::MayNot),
    ("CancelRun", Role::Admin, OfOwn::MayNot),
    ("FetchArchived", Role::Admin, OfOwn::MayNot),
    ("Restore", Role::Admin, OfOwn::May),
    ("ResumeTrigger", Role::Admin, OfOwn::MayNot),
    ("ResetVolume", Role::Admin, OfOwn::MayNot),
];

/// Whether a certificate that was good when its client connected still is.
pub trait Standing: Debug + Send + Sync {
    /// Asks once more.
    ///
    /// # Errors
    /// Why not.
    fn check(&self) -> Result<(), &'static str>;
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A process of this host, on the unix socket.
    Local {
        /// Its effective uid when it connected.
        uid: u32,
        /// Its groups, the supplementary ones among them.
        gids: Vec<u32>,
    },
    /// A client with a certificate, on TCP.
    Certificate {
        /// Whom it names.
        subject: Subject,
        /// When it ends, in seconds since 1970.
        not_after: i64,
        /// Knows whether the authorities still vouch for it.
        standing: Arc<dyn Standing>,
    },
    /// The kernel does not say who it is.
    Unknown,
}

impl Peer {
    /// As it stands in records and logs.
    pub fn name(&self) -> String {
        match self {
            Self::Local { uid, .. } => format!("uid {uid}"),
            Self::Certificate { subject, .. } => format!("certificate {subject}"),
            Self::Unknown => "unknown".into(),
        }
    }

    /// Whether they still are who they were when they connected.
    ///
    /// # Errors
    /// Why not.
    pub fn still_stands(&self, now: i64) -> Result<(), &'static str> {
        match self {
            Self::Certificate { not_after, .. } if *not_after < now => {
                Err("the client's certificate has ended; connect with a new one")
            }
            Self::Certificate { standing, .. } => standing.check(),
            _ => Ok(()),
        }
    }
}

/// How much a caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    All,
    /// What this user owns.
    Own {
        /// Whose.
        uid: u32,
        /// Seconds that a hold of theirs lasts at most.
        hold_max: u64,
    },
}

/// The highest role of a client; none for an ordinary user.
pub fn role_of(peer: &Peer, access: &Access) -> Option<Role> {
    if matches!(peer, Peer::Local { uid: 0, .. }) {
        return Some(Role::Admin);
    }
    let roles = [
        (Role::Admin, &access.admin),
        (Role::Operator, &access.operator),
        (Role::Viewer, &access.viewer),
    ];
    roles
        .into_iter()
        .find(|(_, members)| is_member(peer, members))
        .map(|(role, _)| role)
}

/// What a client is let in as, and why, for the log.
pub fn standing(peer: &Peer, access: &Access) -> (&'static str, &'static str) {
    let Some(role) = role_of(peer, access) else {
        return ("self", "[access] lets ordinary users ask for what is theirs");
    };
    let members = match role {
        Role::Admin => &access.admin,
        Role::Operator => &access.operator,
        Role::Viewer => &access.viewer,
    };
    let because = match peer {
        Peer::Local { uid: 0, .. } => "root of this host is admin",
        Peer::Local { uid, .. } if members.users.contains(uid) => "[access] names the user",
        Peer::Local { .. } => "[access] names a group of the user",
        Peer::Certificate { .. } => "[access] names the certificate",
        Peer::Unknown => "unknown",
    };
    (role.word(), because)
}

fn is_member(peer: &Peer, members: &Members) -> bool {
    match peer {
        Peer::Local { uid, gids } => {
            members.users.contains(uid) || gids.iter().any(|gid| members.groups.contains(gid))
        }
        Peer::Certificate { subject, .. } => members.certificates.iter().any(|c| subject.is(c)),
        Peer::Unknown => false,
    }
}

/// Whether a client may make a call, and how much of it they see; or why not.
///
/// # Errors
/// What to tell them.
pub fn permit(peer: &Peer, access: &Access, call: &str) -> Result<Scope, String> {
    let (needed, own) = CALLS
        .iter()
        .find(|(name, _, _)| *name == call)
        .map_or((Role::Admin, OfOwn::MayNot), |(_, role, own)| (*role, *own));
    let role = role_of(peer, access);
    if role.is_some_and(|role| role >= needed) {
        return Ok(Scope::All);
    }
    let mut are = "have no role".to_owned();
    if let Peer::Local { uid, .. } = peer
        && access.own
    {
        let is_restore_off = call == "Restore" && !access.self_restore;
        if own == OfOwn::May && !is_restore_off {
            return Ok(Scope::Own {
                uid: *uid,
                hold_max: access.self_hold_max,
            });
        }
        are = match is_restore_off {
            true => "have no role, and users restore nothing themselves here (self_restore)".into(),
            false => "have no role, and ordinary users may only ask for what is theirs".into(),
        };
    }
    if let Some(role) = role {
        are = format!("are {}", role.word());
    }
    Err(format!(
        "{call} needs the role {}; you ({}) {are}: [access] in agent.toml",
        needed.word(),
        peer.name()
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    #[test]
    fn every_call_of_the_contract_has_a_row() {
        let files = prost_types::FileDescriptorSet::decode(purge_proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut named: Vec<String> = files
            .file
            .iter()
            .flat_map(|f| &f.service)
            .filter(|s| s.name() == "PurgeAgent")
            .flat_map(|s| s.method.iter().map(|m| m.name().to_owned()))
            .collect();
        let mut rows: Vec<String> = CALLS.iter().map(|(name, _, _)| (*name).to_owned()).collect();
        named.sort();
        rows.sort();
        assert_eq!(
            rows, named,
            "a call without a row is for admins only: give it its role here"
        );
    }

    #[test]
    fn the_contract_names_the_role_of_every_call() {
        let contract = include_str!("../../proto/purge/v1/purge.proto");
        for (name, role, own) in CALLS {
            let call = format!("rpc {name}(");
            let before = contract
                .lines()
                .take_while(|line| !line.trim().starts_with(&call));
            let said = before.last().unwrap_or_default();
            let theirs = match own {
                OfOwn::May => " or self, for what is theirs",
                OfOwn::MayNot => "",
            };
            let expected = format!("// Role: {}{theirs}. Retry: ", role.word());
            assert!(said.trim().starts_with(&expected), "{name}: {said}");
        }
    }

    fn access() -> Access {
        let of = |user: u32, group: u32| Members {
            users: vec![user],
            groups: vec![group],
            certificates: vec![Subject::parse(&format!("CN=c{user}")).unwrap()],
        };
        Access {
            viewer: of(10, 110),
            operator: of(20, 120),
            admin: of(30, 130),
            ..Access::default()
        }
    }

    fn local(uid: u32, gids: &[u32]) -> Peer {
        Peer::Local {
            uid,
            gids: gids.to_vec(),
        }
    }

    #[derive(Debug)]
    struct Stands(bool);

    impl Standing for Stands {
        fn check(&self) -> Result<(), &'static str> {
            if self.0 { Ok(()) } else { Err("no") }
        }
    }

    fn certificate(subject: &str, not_after: i64, trusted: bool) -> Peer {
        Peer::Certificate {
            subject: Subject::parse(subject).unwrap(),
            not_after,
            standing: Arc::new(Stands(trusted)),
        }
    }

    #[test]
    fn a_certificate_has_the_role_of_its_subject_and_is_no_local_user() {
        let access = Access {
            own: true,
            ..access()
        };
        let role = |subject| role_of(&certificate(subject, 0, true), &access);
        assert_eq!(role("CN=c20"), Some(Role::Operator));
        for other in [
            "O=c20",
            "CN=c20,O=x",
            "CN=eve,CN=c20",
            "CN=c20,CN=eve",
            "CN=c20+CN=eve",
        ] {
            assert_eq!(role(other), None, "{other}");
        }
        assert!(permit(&certificate("CN=other", 0, true), &access, "Find").is_err());
    }

    #[test]
    fn a_certificate_stands_until_it_ends_or_its_authority_goes() {
        assert!(certificate("CN=a", 100, true).still_stands(100).is_ok());
        assert!(certificate("CN=a", 100, true).still_stands(101).is_err());
        assert!(certificate("CN=a", 100, false).still_stands(1).is_err());
        assert!(local(1, &[]).still_stands(i64::MAX).is_ok());
    }

    #[test]
    fn the_highest_role_counts() {
        let role = |peer| role_of(&peer, &access());
        assert_eq!(role(local(0, &[])), Some(Role::Admin));
        assert_eq!(role(local(10, &[])), Some(Role::Viewer));
        assert_eq!(role(local(10, &[1, 120])), Some(Role::Operator));
        assert_eq!(role(local(99, &[110, 130])), Some(Role::Admin));
        assert_eq!(role(local(99, &[10, 20, 30])), None, "a gid is no uid");
        assert_eq!(role(Peer::Unknown), None);
    }

    proptest! {
        /// With any configuration, only what it names, and root, may do anything but ask for their own.
        #[test]
        fn no_user_has_a_role_until_the_configuration_gives_one(uid in 1u32.., own: bool, self_restore: bool, call in 0..CALLS.len()) {
            let access = Access { own, self_restore, ..Access::default() };
            let (name, _, of_own) = CALLS[call];
            let got = permit(&local(uid, &[0, uid]), &access, name);
            prop_assert_eq!(got.is_ok(), own && of_own == OfOwn::May && (name != "Restore" || self_restore));
            if let Ok(scope) = got {
                prop_assert_eq!(scope, Scope::Own { uid, hold_max: access.self_hold_max });
            }
            prop_assert!(permit(&Peer::Unknown, &access, name).is_err());
            prop_assert!(permit(&local(uid, &[]), &access, "NoSuchCall").is_err());
        }

        /// A higher role may do all that a lower one may.
        #[test]
        fn roles_are_nested(call in 0..CALLS.len()) {
            let may = |uid| permit(&local(uid, &[]), &access(), CALLS[call].0).is_ok();
            prop_assert!(!may(10) || may(20));
            prop_assert!(!may(20) || may(30));
            prop_assert!(may(30) && may(0) && !may(99));
        }
    }
}
