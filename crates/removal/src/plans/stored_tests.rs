#![allow(clippy::unwrap_used)]
use super::*;
use purge_model::Totals;

fn plan() -> Plan {
    let totals = Totals {
        files: 1,
        directories: 2,
        links: 3,
        bytes: 4,
        files_inside: 5,
    };
    let share = |name: &str, because: Option<&str>| RuleShare {
        name: name.into(),
        totals,
        grace: 60,
        archive: None,
        because: because.map(str::to_owned),
        remark: "matched nothing".into(),
        goes_with: vec![("jobs".into(), 6)],
    };
    Plan {
        id: "p1".into(),
        created: Seconds(7),
        expires: Seconds(8),
        volume: "v".into(),
        by: "uid 0".into(),
        trigger: Some("quota q".into()),
        rules: vec![share("q/alice", Some("over")), share("q/bob", Some(""))],
        totals,
        takes: Some(0),
        kept: Kept {
            held: 1,
            excluded: 2,
            young: 3,
            uncovered: 4,
            limit: 5,
            out_of_scope: 6,
            announced: 7,
            ripe: Some((Seconds(8), Seconds(9))),
            mounted: 10,
            other_subjects: 11,
            not_needed: 12,
        },
        by_owner: vec![OwnerShare {
            owner: "alice".into(),
            uid: 7,
            files: 1,
            bytes: 2,
            takes: 3,
        }],
        mounted: 9,
        times_ahead: 10,
        left_out: vec!["bob".into()],
        forgiven: Some(Forgiven {
            stretches: 1,
            seconds: 2,
            taken: 3,
        }),
        idle: vec![IdlePattern {
            rule: "r".into(),
            pattern: "*.x".into(),
            did_you_mean: Some("*.y".into()),
        }],
        seconds: 0.5,
        index_files: 11,
        examined: 12,
        began: 13,
        guard: Some(Guard::Grace),
        grace: 60,
        refusal: Some("no".into()),
        run: Some("r1".into()),
        max_errors: 0.05,
        fingerprint: Fingerprint::stored("2:ab".into()),
        own_ttl: true,
        chunks: 14,
        first_empty_chunk: 3,
        bytes: 15,
        promise: Some(Promise {
            bytes: 1,
            files: 2,
            allocated: 3,
            wants_bytes: true,
            wants_files: false,
        }),
        drawn: vec![OwnerProbes {
            uid: 7,
            threshold: 8,
            probes: vec![Probe {
                ino: 1,
                takes: 2,
                kind: 3,
                handle: vec![4],
                weight: 5,
                uid: 6,
            }],
        }],
    }
}

fn read(bytes: &[u8]) -> Plan {
    let Head::Whole(plan) = decode(bytes).unwrap() else {
        unreachable!("it is whole")
    };
    *plan
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    let plan = plan();
    assert_eq!(read(&encode(&plan)), plan);
    assert_eq!(encode(&plan).len(), encoded_len(&plan));
    // What rules ask for has no reasons.
    let mut of_rules = plan;
    of_rules.trigger = None;
    of_rules.rules.iter_mut().for_each(|rule| rule.because = None);
    assert_eq!(read(&encode(&of_rules)), of_rules);
}

#[test]
fn an_earlier_version_refuses_a_plan_that_archives_and_this_one_does_not() {
    let mut plan = plan();
    plan.refusal = None;
    let to = Destination {
        name: "cold".into(),
        url: "file:///cold".into(),
    };
    plan.rules[1].archive = Some(to);
    assert_eq!(read(&encode(&plan)), plan);
    let stored = StoredPlan::decode(&*encode(&plan)).unwrap();
    assert_eq!(stored.shown.unwrap().refusal, ARCHIVES);
    // One that is refused is refused for its own reason.
    plan.refusal = Some("no".into());
    assert_eq!(read(&encode(&plan)), plan);
}

#[test]
fn a_head_that_says_nothing_of_its_plan_is_damaged() {
    assert!(matches!(decode(&[]), Err(Damaged::Lacks("plan"))));
    let no_time = StoredPlan {
        shown: Some(StoredShown::default()),
        ..StoredPlan::default()
    };
    let lacks = decode(&no_time.encode_to_vec());
    assert!(matches!(lacks, Err(Damaged::Lacks("time at which it was made"))));
    assert!(matches!(decode(b"\xff\xff"), Err(Damaged::Bytes(_))));
    let partial = encode_partial("p2", None);
    assert!(matches!(decode(&partial), Ok(Head::Partial(id)) if id == "p2"));
}
