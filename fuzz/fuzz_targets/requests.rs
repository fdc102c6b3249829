//! Anything that a client sends: each request of the contract, decoded from any bytes, is taken or refused before the host is touched, and
//! what is taken is what the caller may have. Requests that only name something look for it in a small store.
//!
//! The first byte chooses the request, or what a client says beside it: a deadline, the name of a call, the subject of a certificate.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use prost::Message;
use purge_agent::host::views::forecast::DAYS_MAX;
use purge_agent::roles::{self, Peer};
use purge_agent::serve::gate::parse_timeout;
use purge_agent::serve::requests::{self, PlanAsked};
use purge_config::{Access, Subject};
use purge_index::Store;
use purge_proto::v1;
use purge_query::usage::By;
use purge_removal::holds::Holds;
use purge_removal::plans::{Plan, Plans};
use purge_removal::runs::{Run, Runs};

/// An ordinary user.
const ORDINARY_USER: u32 = 4711;

struct Kept {
    plans: Plans,
    runs: Runs,
    holds: Holds,
}

static KEPT: LazyLock<Kept> = LazyLock::new(|| {
    let store = Store::temporary().expect("a temporary store");
    let plans = Plans::new(store.clone());
    let plan = Plan {
        id: "p1".into(),
        ..Plan::default()
    };
    plans.put(&plan).expect("a plan is saved");
    let runs = Runs::new(store.clone());
    let run = Run {
        id: "r1".into(),
        ..Run::default()
    };
    runs.save(&run).expect("a run is saved");
    let holds = Holds::open(store, &[]).expect("there are no holds");
    Kept { plans, runs, holds }
});

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 28 {
        0 => plan(bytes),
        1 => find(bytes),
        2 => mine(bytes),
        3 => forecast(bytes),
        4 => usage(bytes),
        5 => with::<v1::AddHoldRequest>(bytes, |r| {
            let taken = requests::hold(&r).is_ok();
            assert!(!taken || !r.reason.is_empty() && r.for_seconds != Some(0));
        }),
        6 => with::<v1::ApplyRequest>(bytes, |r| {
            let manner = requests::manner(&r);
            assert_eq!((manner.max_rate, manner.no_grace), (r.max_rate, r.no_grace));
            a_plan(&r.plan_id);
        }),
        7 => with::<v1::GetPlanRequest>(bytes, |r| a_plan(&r.plan_id)),
        8 => with::<v1::ShowPlanRequest>(bytes, |r| a_plan(&r.plan_id)),
        9 => with::<v1::GetRunRequest>(bytes, |r| a_run(&r.run_id)),
        10 => with::<v1::WatchRunRequest>(bytes, |r| a_run(&r.run_id)),
        11 => with::<v1::CancelRunRequest>(bytes, |r| a_run(&r.run_id)),
        12 => with::<v1::RestoreRequest>(bytes, |r| a_run(&r.run_id)),
        13 => with::<v1::RemoveHoldRequest>(bytes, |r| {
            assert!(KEPT.holds.remove(&r.hold_id, None).is_err(), "there are no holds");
        }),
        14 => with::<v1::ListPlansRequest>(bytes, |r| drop((r.page_size, r.page_token))),
        15 => with::<v1::ListRunsRequest>(bytes, |r| drop((r.page_size, r.page_token))),
        16 => with::<v1::ListNoticesRequest>(bytes, |r| drop((r.page_size, r.page_token))),
        17 => with::<v1::ExplainRequest>(bytes, drop),
        18 => with::<v1::TouchedRequest>(bytes, drop),
        19 => with::<v1::RescanRequest>(bytes, drop),
        20 => with::<v1::TestNoticeRequest>(bytes, drop),
        21 => with::<v1::GetStatusRequest>(bytes, drop),
        22 => with::<v1::GetConfigRequest>(bytes, drop),
        23 => with::<v1::DoctorRequest>(bytes, drop),
        24 => with::<v1::ListHoldsRequest>(bytes, drop),
        25 => timeout(bytes),
        26 => call(bytes),
        _ => subject(bytes),
    }
});

/// What was read is read the same again after it was written.
fn with<M: Message + Default + PartialEq + Clone>(bytes: &[u8], then: impl FnOnce(M)) {
    let Ok(message) = M::decode(bytes) else {
        return;
    };
    let written = message.encode_to_vec();
    let again = M::decode(written.as_slice()).expect("what was written is read");
    // A number that is none equals nothing.
    assert_eq!(again.encode_to_vec(), written);
    then(message);
}

fn plan(bytes: &[u8]) {
    with::<v1::CreatePlanRequest>(bytes, |r| {
        match requests::plan(r.clone(), Some(5)).map(|wish| wish.asked) {
            Ok(PlanAsked::Quota(name)) => assert!(name == r.quota && !r.watermark && r.rules.is_empty()),
            Ok(PlanAsked::Watermark(_)) => assert!(r.quota.is_empty() && r.ttl_seconds.is_none()),
            Ok(PlanAsked::Rules(wanted)) => {
                assert!(r.quota.is_empty() && !r.watermark);
                assert_eq!(wanted.candidates_max, Some(5));
                assert!(!wanted.unattended, "a client's plan is never the agent's own");
            }
            Err(status) => assert_eq!(status.code(), tonic::Code::InvalidArgument),
        }
    });
}

fn find(bytes: &[u8]) {
    with::<v1::FindRequest>(bytes, |r| {
        for only in [None, Some(ORDINARY_USER)] {
            match requests::find(&r, only) {
                Ok(asked) => assert!(only.is_none() || asked.filter.uids == only.map(|uid| vec![uid])),
                Err(status) => assert!(!status.message().is_empty()),
            }
        }
    });
}

fn mine(bytes: &[u8]) {
    with::<v1::MineRequest>(bytes, |r| {
        if let Ok(whose) = requests::mine(r.clone(), Some(ORDINARY_USER), Some(ORDINARY_USER)) {
            assert_eq!(whose.uid, ORDINARY_USER);
        }
        if let Ok(whose) = requests::mine(r, None, None) {
            assert!(whose.within > 0 && whose.depth > 0);
        }
    });
}

fn forecast(bytes: &[u8]) {
    with::<v1::ForecastRequest>(bytes, |r| {
        if let Ok((wanted, days, _)) = requests::forecast(r) {
            assert!((1..=DAYS_MAX).contains(&days));
            assert!(!wanted.unattended);
        }
    });
}

fn usage(bytes: &[u8]) {
    with::<v1::UsageRequest>(bytes, |r| {
        if let Ok(by) = requests::usage(&r, Some(ORDINARY_USER)) {
            assert_eq!(by, By::User);
        }
        if let Ok(By::Directory(depth)) = requests::usage(&r, None) {
            assert!(depth > 0);
        }
    });
}

fn a_plan(id: &str) {
    assert_eq!(KEPT.plans.get(id).is_ok(), id == "p1");
}

fn a_run(id: &str) {
    assert_eq!(KEPT.runs.get(id).is_ok(), id == "r1");
}

fn timeout(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = parse_timeout(text);
    }
}

/// A client that the configuration does not name may make no call, of any name.
fn call(bytes: &[u8]) {
    let name = String::from_utf8_lossy(bytes);
    let nobody = Peer::Local {
        uid: ORDINARY_USER,
        gids: vec![],
    };
    assert!(roles::permit(&nobody, &Access::default(), &name).is_err());
    assert!(roles::permit(&Peer::Unknown, &Access::default(), &name).is_err());
}

/// The first line is a pattern of the configuration, the second a certificate's subject.
fn subject(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, subject) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(pattern) = Subject::parse(pattern) else {
        return;
    };
    // Control characters are shown as such, and blanks at the ends of a value belong to no pattern.
    let shown = pattern.to_string();
    let is_plain = |c: char| c != '\u{fffd}' && !c.is_whitespace();
    if shown.chars().all(is_plain) {
        assert_eq!(Subject::parse(&shown).as_ref(), Ok(&pattern));
    }
    assert!(pattern.is(&pattern));
    if let Ok(subject) = Subject::parse(subject) {
        let _ = subject.is(&pattern);
    }
}
