#![allow(clippy::unwrap_used)]

use super::*;
use crate::event::{Kind, List, Purged, What};
use crate::settings::{Exec, Means};
use purge_base::handover::Handover;

fn sink(name: &str, digest: u64) -> Sink {
    Sink {
        name: name.into(),
        events: Kind::ALL.to_vec(),
        digest,
        means: Means::Exec(Exec {
            command: vec!["/bin/true".into()],
            timeout: 1,
        }),
    }
}

fn event(id: &str, uid: u32) -> Event {
    Event {
        event_id: id.into(),
        at: String::new(),
        volume: "v".into(),
        path: "/v".into(),
        to: Audience::Owner {
            user: uid.to_string(),
            uid,
        },
        what: What::Purged(Purged::default()),
        list: Some(List {
            total: 2,
            shown: 1,
            file: String::new(),
        }),
    }
}

#[test]
fn an_event_is_taken_once_by_each_sink_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [sink("a", 0), sink("b", 0)];
    let entries = [Entry::new(b"/v/f", 3, None)];
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    outbox.add(event("e1", 1), &entries, &sinks[..1], 100).unwrap();
    outbox.add(event("e1", 1), &entries, &sinks, 100).unwrap();
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    outbox.add(event("e1", 1), &entries, &sinks, 100).unwrap();
    let all = outbox.list(|_| true);
    assert_eq!(all.len(), 2);
    assert_eq!(outbox.entries(&all[0].events[0]), entries);
    let (due, _) = outbox.due("a", 100, 10).unwrap();
    outbox.sent(outbox.begin(&due[0].notice_id), 101).unwrap();
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    assert!(outbox.due("a", 1000, 10).unwrap().0.is_empty(), "it was sent");
    assert_eq!(outbox.due("b", 1000, 10).unwrap().0.len(), 1);
    outbox.add(event("e1", 1), &entries, &sinks, 100).unwrap();
    assert_eq!(outbox.list(|_| true).len(), 2);
}

#[test]
fn a_digest_gathers_and_is_closed_when_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = [sink("mail", 1000)];
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    for n in 0..3 {
        outbox.add(event(&format!("e{n}"), 1), &[], &sinks, 100).unwrap();
        outbox.add(event(&format!("o{n}"), 2), &[], &sinks, 100).unwrap();
    }
    let (due, next) = outbox.due("mail", 100, 10).unwrap();
    assert!(due.is_empty() && next == Some(105));
    let (due, _) = outbox.due("mail", 105, 10).unwrap();
    assert_eq!(due.iter().map(|n| n.events.len()).collect::<Vec<_>>(), [3, 3]);
    // The sink is down; what happens meanwhile does not change what was closed.
    outbox
        .not_sent(outbox.begin(&due[0].notice_id), "down", Some(200), 106)
        .unwrap();
    outbox.add(event("later", 1), &[], &sinks, 107).unwrap();
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    let (again, next) = outbox.due("mail", 200, 10).unwrap();
    assert_eq!(again.len(), 2);
    let same = again.iter().find(|n| n.notice_id == due[0].notice_id).unwrap();
    assert_eq!((&same.events, same.attempts), (&due[0].events, 1));
    assert_eq!(next, Some(1105), "the next one of this owner is a digest later");
    outbox
        .not_sent(outbox.begin(&due[0].notice_id), "no such user", None, 201)
        .unwrap();
    assert_eq!(outbox.counts()["mail"], [2, 0, 1]);
}

#[test]
fn what_is_long_over_is_forgotten_with_its_lists() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    let entries = [Entry::new(b"/v/f", 3, None)];
    for id in ["e1", "e2"] {
        outbox.add(event(id, 1), &entries, &[sink("a", 0)], 100).unwrap();
    }
    let (due, _) = outbox.due("a", 100, 10).unwrap();
    outbox.sent(outbox.begin(&due[0].notice_id), 100).unwrap();
    outbox.tidy(100 + KEPT_SECONDS).unwrap();
    assert_eq!(outbox.list(|_| true).len(), 2);
    outbox.tidy(101 + KEPT_SECONDS).unwrap();
    assert_eq!(outbox.list(|_| true).len(), 1, "what waits is kept");
    assert_eq!(fs::read_dir(dir.path().join("lists")).unwrap().count(), 1);
    assert_eq!(
        Outbox::open(dir.path(), &mut Handover::default())
            .unwrap()
            .list(|_| true)
            .len(),
        1
    );
}

#[test]
fn a_damaged_notice_is_set_aside_and_the_others_live_on() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    outbox.add(event("e1", 1), &[], &[sink("a", 0)], 100).unwrap();
    fs::write(dir.path().join("nbad.json"), "{").unwrap();
    fs::write(dir.path().join("nhalf.new"), "{").unwrap();
    assert_eq!(
        Outbox::open(dir.path(), &mut Handover::default())
            .unwrap()
            .list(|_| true)
            .len(),
        1
    );
    assert!(dir.path().join("nbad.damaged").exists());
}

#[test]
fn an_answer_outlives_the_process_that_could_not_write_it_down() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    for id in ["e1", "e2", "e3"] {
        outbox.add(event(id, 1), &[], &[sink("a", 0)], 100).unwrap();
    }
    let (due, _) = outbox.due("a", 100, 10).unwrap();
    let begun: Vec<Receipt> = due.iter().map(|n| outbox.begin(&n.notice_id)).collect();
    begun[0].taken();
    begun[1].taken();
    let mut begun = begun.into_iter();
    outbox.sent(begun.next().unwrap(), 101).unwrap();
    // Killed: the second is answered, the third is not.
    drop((begun, outbox));
    fs::write(dir.path().join("nhalf.new"), "{").unwrap();
    let outbox = Outbox::open(dir.path(), &mut Handover::default()).unwrap();
    let (again, _) = outbox.due("a", 1000, 10).unwrap();
    assert_eq!(
        again.iter().map(|n| &n.notice_id).collect::<Vec<_>>(),
        [&due[2].notice_id]
    );
    assert_eq!(outbox.counts()["a"], [1, 2, 0]);
    assert!(!dir.path().join("nhalf.new").exists());
    // And is not only remembered once.
    assert_eq!(
        Outbox::open(dir.path(), &mut Handover::default())
            .unwrap()
            .counts()["a"],
        [1, 2, 0]
    );
}

#[test]
fn of_too_many_notices_the_person_who_has_most_loses_the_oldest() {
    let sink = sink("a", 0);
    let mut inner = Inner::default();
    let mut add = |n: u32, to: Audience| {
        inner.take(Notice::new(format!("n{n:05}"), &sink, &to, 1));
    };
    let owner = |uid: u32| Audience::Owner {
        user: uid.to_string(),
        uid,
    };
    // Bob's and the operator's are the oldest. The uids from 100,000 on are all of one user.
    add(0, owner(4002));
    add(1, Audience::Operator);
    (2..40).for_each(|n| add(n, owner(100_000 + n)));
    let persons = || Persons::read("mallory:100000:65536\n", "mallory:x:4001:4001::/:/bin/sh\n");
    let beyond = |most| inner.beyond("a", most, persons);
    assert!(beyond(40).is_empty());
    assert_eq!(beyond(38), ["n00002", "n00003"]);
    assert_eq!(beyond(1).len(), 39, "the operator's is the last");
    assert!(!beyond(1).contains(&"n00001".to_owned()));
    assert!(inner.beyond("other", 0, persons).is_empty());
}
