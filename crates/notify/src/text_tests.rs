#![allow(clippy::unwrap_used)]

use super::*;
use crate::event::{Event, Expiring, Fill, List, Purged, Use, What};
use crate::notice::Fate;

fn notice(to: Audience, events: Vec<What>) -> Notice {
    let event = |what| Event {
        event_id: "e".into(),
        at: "2026-11-21T08:00:00Z".into(),
        volume: "scratch".into(),
        path: "/export/scratch".into(),
        to: to.clone(),
        what,
        list: Some(List {
            total: 7,
            shown: 1,
            file: "secret-name".into(),
        }),
    };
    Notice {
        notice_id: "n1".into(),
        sink: "mail".into(),
        fate: Fate::Waiting,
        to: to.clone(),
        created_at: 0,
        due_at: 0,
        closed_at: 0,
        ended_at: 0,
        attempts: 0,
        error: String::new(),
        events: events.into_iter().map(event).collect(),
    }
}

fn alice() -> Audience {
    Audience::Owner {
        user: "alice".into(),
        uid: 7,
    }
}

const ABOUT: About<'_> = About {
    host: "stor1",
    warn_before: 7 * 86_400,
    list_place: "the attachment",
};

fn words(texts: &Texts, notice: &Notice) -> Words {
    let words = texts.words(notice, &[], &ABOUT);
    for text in [&words.subject, &words.body] {
        assert!(
            !text.contains("{{") && !text.contains("{%") && !text.contains("secret-name"),
            "{text}"
        );
        assert!(
            !text.contains("See `purgectl notices`"),
            "a built-in template fails: {text}"
        );
    }
    words
}

fn expiring(deletes: bool) -> Expiring {
    Expiring {
        rule: "scratch-28d".into(),
        ttl_seconds: 28 * 86_400,
        files: 12,
        directories: 1,
        files_inside: 2,
        bytes: 5 << 30,
        first_at: "2026-11-28T02:00:00Z".into(),
        until: "2026-12-05T00:00:00Z".into(),
        deletes,
    }
}

#[test]
fn a_warning_says_how_much_where_until_when_and_how_to_keep_it() {
    let texts = Texts::load(None).unwrap();
    let said = words(&texts, &notice(alice(), vec![What::WillExpire(expiring(true))]));
    assert_eq!(
        said.subject,
        "[scratch] 14 files and 1 directory of yours (5.0 GiB) will be removed from 2026-11-28"
    );
    for part in [
        "Hello alice",
        "/export/scratch",
        "5.0 GiB",
        "2026-11-28 02:00 UTC",
        "not been used for 28d",
        "purgectl hold add",
        "first 1 of 7 is in the attachment",
        "--user alice --older 21d",
        "stor1, notice n1",
    ] {
        assert!(said.body.contains(part), "{part:?} is missing in\n{}", said.body);
    }
}

#[test]
fn every_kind_has_words_of_its_own() {
    let texts = Texts::load(None).unwrap();
    let used = |purges| Use {
        quota: "user".into(),
        subject_kind: "user".into(),
        subject: "alice".into(),
        files: 3,
        used_bytes: 10 << 30,
        limit_bytes: Some(8 << 30),
        used_byte_days: 9,
        limit_byte_days: None,
        purges,
    };
    let purged = Purged {
        run_id: "r1".into(),
        rules: vec!["a".into(), "b".into()],
        files: 1,
        restorable_until: Some("2026-12-01T00:00:00Z".into()),
        ..Purged::default()
    };
    let fill = Fill {
        space_percent: 91.25,
        inodes_percent: 3.0,
        high_percent: 85.0,
        low_percent: 75.0,
        rule: "r".into(),
    };
    let failed = |run: &str| What::RunFailed {
        run_id: run.into(),
        by: "schedule".into(),
        error: "it was refused".into(),
        failed: 3,
    };
    let gap = What::CoverageGap {
        from: "2026-11-21T08:00:00Z".into(),
        until: "2026-11-21T09:00:00Z".into(),
        cause: "stopped".into(),
        counts: true,
    };
    let cases = [
        (alice(), What::WillExpire(expiring(false)), "nothing is removed"),
        (
            alice(),
            What::Expired(expiring(false)),
            "Nothing is removed by this rule",
        ),
        (alice(), What::Purged(purged), "can be put back"),
        (alice(), What::OverQuota(used(true)), "2.0 GiB too much"),
        (
            alice(),
            What::OverQuota(used(false)),
            "Nothing is removed by itself",
        ),
        (alice(), What::BackUnder(used(false)), "within quota user"),
        (
            Audience::Operator,
            What::OverQuota(used(false)),
            "purgectl plan --quota user",
        ),
        (
            Audience::Operator,
            What::BackUnder(used(false)),
            "within quota user",
        ),
        (Audience::Operator, failed("r9"), "purgectl run r9"),
        (Audience::Operator, failed(""), "no run was made for schedule"),
        (
            Audience::Operator,
            gap,
            "from 2026-11-21 08:00 UTC to 2026-11-21 09:00 UTC",
        ),
        (
            Audience::Operator,
            What::WatermarkReached(fill.clone()),
            "91.2% of the space",
        ),
        (
            Audience::Operator,
            What::WatermarkEnded(fill),
            "below its watermark again",
        ),
        (
            Audience::Operator,
            What::TriggerStopped {
                by: "watermark scratch".into(),
                reason: "deleted 12 GB, 0 B came free: snapshots?".into(),
                deleted_bytes: 12_000_000_000,
                promised_bytes: 12_000_000_000,
                freed_bytes: 0,
            },
            "purgectl resume scratch",
        ),
        (
            Audience::Operator,
            What::Trouble {
                check: "filesystem".into(),
                reason: "the file system is read-only".into(),
                cure: "mount -o remount,rw".into(),
            },
            "What to do:  mount -o remount,rw",
        ),
        (
            Audience::Operator,
            What::TroubleEnded {
                check: "filesystem".into(),
            },
            "filesystem: this is well again",
        ),
        (
            Audience::Operator,
            What::Test { sink: "mail".into() },
            "a test of sink mail",
        ),
    ];
    let mut all = Vec::new();
    for (to, what, part) in cases {
        let said = words(&texts, &notice(to, vec![what.clone()]));
        assert!(
            said.body.contains(part),
            "{what:?}: {part:?} is missing in\n{}",
            said.body
        );
        assert!(
            said.subject.len() > "[scratch] ".len()
                && said.subject.trim_start_matches("[scratch] ") != what.kind().as_str(),
            "{}",
            said.subject
        );
        all.push(what);
    }
    let said = words(&texts, &notice(alice(), all));
    assert_eq!(said.subject, "[scratch] 17 things to know about your files");
}

#[test]
fn a_template_can_be_replaced_and_a_broken_one_costs_no_notice() {
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("owner-body.txt");
    std::fs::write(
        &own,
        "Liebe {{ to.user }}: {{ events[0].list.total }} / {{ events[0].bytes|size }}",
    )
    .unwrap();
    let texts = Texts::load(Some(dir.path())).unwrap();
    let warning = notice(alice(), vec![What::WillExpire(expiring(true))]);
    assert_eq!(words(&texts, &warning).body, "Liebe alice: 7 / 5.0 GiB");
    for endless_or_wrong in [
        "{{ nothing.at.all }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    ] {
        std::fs::write(&own, endless_or_wrong).unwrap();
        let texts = Texts::load(Some(dir.path())).unwrap();
        assert!(words(&texts, &warning).body.contains("Hello alice"));
    }
    std::fs::write(&own, "{% if %}").unwrap();
    let wrong = Texts::load(Some(dir.path())).unwrap_err();
    assert!(wrong.contains("owner-body.txt"), "{wrong}");
    assert!(Texts::load(Some(&dir.path().join("none"))).is_err());
}
