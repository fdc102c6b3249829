//! What a request asks for, checked, as the agent's own values. Pure but for the names of users and groups, which are looked up:
//! anything that a client sends is taken or refused here, before anything of the host is touched.

use purge_proto::v1;
use tonic::Status;

use crate::host::archive::Asked;
use crate::host::views::forecast::DAYS_MAX;
use crate::host::views::mine::Whose;
use crate::host::{Manner, Part, Wanted};
use purge_base::accounts::{Unclear, group_ids, user_ids, user_names};
use purge_model::Kind;
use purge_policy::forecast;
use purge_policy::scope::Globs;
use purge_query::find::{Filter, Order};
use purge_query::usage::By;
use purge_removal::holds::REASON_BYTES_MAX;

/// Days of a forecast, unless the client asks for another number.
const FORECAST_DAYS: u32 = 30;
/// How far ahead `mine` looks, in seconds, and how deep it tells directories apart, unless the client says otherwise.
const MINE_WITHIN: u64 = 30 * 86_400;
const MINE_DEPTH: u32 = 2;

/// Names of volumes, rules, users and the like have at most this number of bytes: a configuration or a system has no longer ones.
const NAME_BYTES_MAX: usize = 256;
/// Names that the agent gives have fewer bytes.
const ID_BYTES_MAX: usize = 64;
/// A glob is compiled, which takes a multiple of its length.
const GLOB_BYTES_MAX: usize = 4096;
/// Patterns that are looked for at once: each is tried on each path, with its other readings.
const PATTERNS_MAX: usize = 1000;
/// Rules that a request names, and paths that a restore does: each candidate is compared with each.
const RULES_NAMED_MAX: usize = 1000;
const PATHS_NAMED_MAX: usize = 10_000;

/// A plan that is asked for.
#[derive(Debug)]
pub struct PlanWish {
    /// For whom.
    pub asked: PlanAsked,
    /// Only for what lies below this directory; empty: for all of it.
    pub path: Vec<u8>,
    /// It is told, and not kept.
    pub is_draft: bool,
}

/// Whom a plan is made for.
#[derive(Debug)]
pub enum PlanAsked {
    /// The quota of this name.
    Quota(String),
    /// The watermark of this volume; empty: of the only one.
    Watermark(String),
    /// Rules, or a TTL.
    Rules(Wanted),
}

/// What is looked for in the index.
#[derive(Debug)]
pub struct FindAsked {
    /// Which entries.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
    /// At most this number; 0: all.
    pub limit: u64,
    /// Only what expires within this number of seconds.
    pub expiring: Option<u64>,
}

/// A plan that is to be made, with at most `candidates_max` candidates.
///
/// # Errors
/// When it is for several things at once.
pub fn plan(r: v1::CreatePlanRequest, candidates_max: Option<u64>) -> Result<PlanWish, Status> {
    names([("quota", &r.quota), ("volume", &r.volume), ("user", &r.user)])?;
    let of_rules = !r.rules.is_empty() || r.ttl_seconds.is_some();
    let asked = [!r.quota.is_empty(), r.watermark, of_rules];
    if asked.into_iter().filter(|a| *a).count() > 1 {
        return Err(Status::invalid_argument(
            "quota, watermark, rules: a plan is made for a quota, for a watermark, or for rules",
        ));
    }
    let of_limit = r.watermark || !r.quota.is_empty();
    if of_limit && !(r.path.is_empty() && r.user.is_empty()) {
        return Err(Status::invalid_argument(
            "path, user: a plan for a quota or a watermark is made for all that it limits; name rules, or a TTL",
        ));
    }
    let is_draft = r.no_save;
    let asked = if r.watermark {
        PlanAsked::Watermark(r.volume)
    } else if !r.quota.is_empty() {
        PlanAsked::Quota(r.quota)
    } else {
        PlanAsked::Rules(Wanted {
            rules: rules(r.rules)?,
            volume: r.volume,
            ttl: r.ttl_seconds,
            unattended: false,
            candidates_max,
            only: Part {
                below: None,
                owner: owner_of(r.user)?,
            },
            is_draft,
        })
    };
    Ok(PlanWish {
        asked,
        path: r.path,
        is_draft,
    })
}

/// A user by name or number, with all uids.
fn owner_of(user: String) -> Result<Option<(String, Vec<u32>)>, Status> {
    if user.is_empty() {
        return Ok(None);
    }
    match user_ids(&user) {
        Ok(uids) => Ok(Some((user, uids))),
        Err(_) => Err(Status::invalid_argument(super::convert::plain(format!(
            "user: {user:?} is unknown here"
        )))),
    }
}

/// How a plan is to be applied.
pub fn manner(r: &v1::ApplyRequest) -> Manner {
    Manner {
        max_rate: r.max_rate,
        no_grace: r.no_grace,
    }
}

/// What is looked for, of this user alone if the caller sees no more.
///
/// # Errors
/// When something is unknown or no glob, or the caller asks for what is not theirs.
pub fn find(r: &v1::FindRequest, only: Option<u32>) -> Result<FindAsked, Status> {
    let mut filter = filter_of(r, only.is_some())?;
    if let Some(uid) = only {
        if !is_named(uid, &r.user) {
            return Err(theirs("user"));
        }
        filter.uids = Some(vec![uid]);
    }
    let order = match r.sort() {
        v1::Sort::Unspecified => Order::None,
        v1::Sort::Age => Order::Age,
        v1::Sort::Size => Order::Size,
        v1::Sort::Path => Order::Path,
    };
    Ok(FindAsked {
        filter,
        order,
        limit: r.limit,
        expiring: r.expiring_seconds,
    })
}

/// Whether a client's words for a user mean the client's own user. Names of others are not looked up for them.
fn is_named(uid: u32, user: &str) -> bool {
    user.is_empty() || user == uid.to_string() || user_names(uid).iter().any(|name| name == user)
}

fn filter_of(r: &v1::FindRequest, of_own: bool) -> Result<Filter, Status> {
    names([("user", &r.user), ("group", &r.group)])?;
    let unknown =
        |field: &str, name: &str| Status::invalid_argument(format!("{field}: {name:?} is unknown here"));
    let ids = |field, name: &str, of: fn(&str) -> Result<Vec<u32>, Unclear>| match name {
        "" => Ok(None),
        name => of(name).map(Some).map_err(|_| unknown(field, name)),
    };
    let name = match r.name.as_str() {
        "" => None,
        glob => {
            at_most("name", glob, GLOB_BYTES_MAX)?;
            let globs = Globs::compile(&[glob.to_owned()]);
            Some(globs.map_err(|e| Status::invalid_argument(super::convert::plain(format!("name: {e}"))))?)
        }
    };
    let kind = match r.kind() {
        v1::Kind::Unspecified => None,
        v1::Kind::File => Some(Kind::File),
        v1::Kind::Directory => Some(Kind::Directory),
        v1::Kind::Symlink => Some(Kind::Symlink),
        v1::Kind::Special => Some(Kind::Special),
    };
    Ok(Filter {
        below: None,
        older: r.older_seconds,
        newer: r.newer_seconds,
        uids: match of_own {
            true => None,
            false => ids("user", &r.user, user_ids)?,
        },
        gids: ids("group", &r.group, group_ids)?,
        min_size: r.min_size,
        max_size: r.max_size,
        name,
        kind,
        expiring: None,
    })
}

/// Whose files are summed up: the caller's own, or those of whom they name.
///
/// # Errors
/// When the user is unknown or another, or the caller is none.
pub fn mine(r: v1::MineRequest, caller: Option<u32>, only: Option<u32>) -> Result<Whose, Status> {
    names([("user", &r.user), ("volume", &r.volume)])?;
    if only.is_some_and(|own| !is_named(own, &r.user)) {
        return Err(theirs("user"));
    }
    let unknown = || Status::invalid_argument(format!("user: {:?} is unknown here", r.user));
    let uid = match r.user.as_str() {
        "" => caller.ok_or_else(|| {
            Status::invalid_argument("user: a certificate owns no files; say whose you mean")
        })?,
        name => match only {
            Some(own) => own,
            None => match user_ids(name).unwrap_or_default().as_slice() {
                [] => return Err(unknown()),
                [one] => *one,
                several => {
                    let all: Vec<String> = several.iter().map(u32::to_string).collect();
                    let why = format!(
                        "user: {name:?} is the name of the users {}; give the number",
                        all.join(" and ")
                    );
                    return Err(Status::invalid_argument(super::convert::plain(why)));
                }
            },
        },
    };
    let or = |given: u64, default: u64| if given == 0 { default } else { given };
    Ok(Whose {
        uid,
        volume: r.volume,
        within: or(r.expiring_seconds, MINE_WITHIN),
        depth: if r.depth == 0 { MINE_DEPTH } else { r.depth },
        own: None,
    })
}

/// What is forecast, for how many days, and told by whom.
///
/// # Errors
/// When it cannot be told by that, or for so long.
pub fn forecast(r: v1::ForecastRequest) -> Result<(Wanted, u32, forecast::By), Status> {
    let by = match r.by() {
        v1::UsageBy::Unspecified => forecast::By::Nothing,
        v1::UsageBy::User => forecast::By::User,
        v1::UsageBy::Directory => forecast::By::Directory(r.depth.max(1)),
        v1::UsageBy::Group | v1::UsageBy::Project => {
            return Err(Status::invalid_argument(
                "by: a forecast lists users or directories",
            ));
        }
    };
    let days = match r.days {
        0 => FORECAST_DAYS,
        n if n > DAYS_MAX => {
            let why = format!("days: {n} is more than {DAYS_MAX}");
            return Err(Status::invalid_argument(why));
        }
        n => n,
    };
    names([("volume", &r.volume)])?;
    let wanted = Wanted {
        rules: rules(r.rules)?,
        volume: r.volume,
        ttl: r.ttl_seconds,
        ..Wanted::default()
    };
    Ok((wanted, days, by))
}

/// By what usage is told.
///
/// # Errors
/// When the caller may not see it.
pub fn usage(r: &v1::UsageRequest, only: Option<u32>) -> Result<By, Status> {
    names([("volume", &r.volume)])?;
    let by = match r.by() {
        v1::UsageBy::Unspecified | v1::UsageBy::User => By::User,
        v1::UsageBy::Group => By::Group,
        v1::UsageBy::Directory => By::Directory(r.depth.max(1)),
        v1::UsageBy::Project => By::Project,
    };
    if only.is_some() && by != By::User {
        return Err(theirs("by"));
    }
    Ok(by)
}

/// Whether a hold can be what it asks to be.
///
/// # Errors
/// When it says no reason or too long a one, or ends at once.
pub fn hold(r: &v1::AddHoldRequest) -> Result<(), Status> {
    at_most("reason", &r.reason, REASON_BYTES_MAX)?;
    if r.reason.trim().is_empty() {
        return Err(Status::invalid_argument(
            "reason: say why, so that others know when it may go",
        ));
    }
    if r.for_seconds == Some(0) {
        return Err(Status::invalid_argument(
            "for_seconds: is 0; leave it out for a hold without an end",
        ));
    }
    Ok(())
}

/// The name of a plan, run or hold: as the agent gives them.
///
/// # Errors
/// When it cannot be one.
pub fn id(field: &str, id: String) -> Result<String, Status> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    match id.len() <= ID_BYTES_MAX && id.bytes().all(fits) {
        true => Ok(id),
        false => Err(Status::invalid_argument(format!(
            "{field}: is no name that the agent gives; `purgectl plans`, `runs` and `hold list` name them"
        ))),
    }
}

/// Names of the configuration, of users and groups: they are looked up, and stand in errors.
///
/// # Errors
/// When one is too long.
pub fn names<'r>(given: impl IntoIterator<Item = (&'r str, &'r String)>) -> Result<(), Status> {
    given
        .into_iter()
        .try_for_each(|(field, name)| at_most(field, name, NAME_BYTES_MAX))
}

/// What an archive is asked for.
///
/// # Errors
/// When a name or the path is too long.
pub fn archived(r: v1::ListArchiveRequest) -> Result<Asked, Status> {
    names([
        ("archive", &r.archive),
        ("volume", &r.volume),
        ("run_id", &r.run_id),
    ])?;
    // A name is a part of keys in the store.
    for (field, name) in [("volume", &r.volume), ("run_id", &r.run_id)] {
        if name.contains('/') || name.starts_with('.') {
            return Err(Status::invalid_argument(format!("{field}: it is no name")));
        }
    }
    Ok(Asked {
        archive: r.archive,
        volume: r.volume,
        run: r.run_id,
        below: r.path,
    })
}

/// Patterns that are looked for on a volume.
///
/// # Errors
/// When they are too many, too long or no patterns.
pub fn patterns(r: v1::CheckPatternsRequest) -> Result<v1::CheckPatternsRequest, Status> {
    names([("volume", &r.volume)])?;
    let mut count = 0usize;
    for rule in &r.rules {
        at_most("rules", &rule.rule, NAME_BYTES_MAX)?;
        for pattern in &rule.exclude {
            at_most("exclude", pattern, GLOB_BYTES_MAX)?;
            count = count.saturating_add(1);
            let globs = Globs::compile(std::slice::from_ref(pattern));
            globs.map_err(|e| Status::invalid_argument(super::convert::plain(format!("exclude: {e}"))))?;
        }
    }
    match count {
        0..=PATTERNS_MAX => Ok(r),
        _ => {
            let why = format!("exclude: {count} patterns are asked for; {PATTERNS_MAX} may be");
            Err(Status::invalid_argument(why))
        }
    }
}

/// Rules by name, each once.
fn rules(given: Vec<String>) -> Result<Vec<String>, Status> {
    let mut rules: Vec<String> = Vec::new();
    for name in given {
        at_most("rules", &name, NAME_BYTES_MAX)?;
        if rules.contains(&name) {
            continue;
        }
        if rules.len() >= RULES_NAMED_MAX {
            let why = format!("rules: more than {RULES_NAMED_MAX} are named; name fewer");
            return Err(Status::invalid_argument(why));
        }
        rules.push(name);
    }
    Ok(rules)
}

/// What is to be put back; of which run, if one is named.
///
/// # Errors
/// When the run cannot be one, or too many paths are named.
pub fn restore(r: v1::RestoreRequest) -> Result<v1::RestoreRequest, Status> {
    if r.paths.len() > PATHS_NAMED_MAX {
        let why =
            format!("paths: more than {PATHS_NAMED_MAX} are named; name fewer, or a directory above them");
        return Err(Status::invalid_argument(why));
    }
    let run_id = match r.run_id.is_empty() {
        true => String::new(),
        false => id("run_id", r.run_id)?,
    };
    Ok(v1::RestoreRequest { run_id, ..r })
}

/// What the paths of such a request take in memory while the records of runs are asked for them.
pub fn restore_bytes(r: &v1::RestoreRequest) -> u64 {
    const EACH: u64 = 1 << 10;
    let bytes = |path: &Vec<u8>| EACH.saturating_add((path.len() as u64).saturating_mul(8));
    r.paths
        .iter()
        .map(bytes)
        .fold(0, |sum, bytes| sum.saturating_add(bytes))
}

fn at_most(field: &str, text: &str, bytes: usize) -> Result<(), Status> {
    match text.len() {
        n if n > bytes => Err(Status::invalid_argument(format!(
            "{field}: has {n} bytes; it may have {bytes}"
        ))),
        _ => Ok(()),
    }
}

fn theirs(field: &str) -> Status {
    Status::permission_denied(format!(
        "{field}: you may ask for what is yours alone; for more, [access] in agent.toml has to give you the role viewer"
    ))
}
