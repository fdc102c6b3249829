//! Notices by mail.

use std::collections::BTreeSet;
use std::fs;

use purge_tests::ctl::text;
use purge_tests::files::{temp_dir, write_secret};
use purge_tests::notices::{
    ALICE, AT_FIRST, BOB, PATIENCE, Tree, notices, told, until_nothing_waits, until_told,
};
use purge_tests::sinks::free_port;
use purge_tests::sinks::mail::{Mail, MailServer};
use purge_tests::wait::{let_pass, until};
use purge_tests::{Agent, Config, Fs, Mount, need};

#[test]
fn owners_get_one_mail_a_day_and_the_operator_each_at_once_though_the_server_was_down() {
    let mut mount = need!(Mount::sized(Fs::Ext4, 64, 2000));
    let tree = Tree::make(&mut mount);
    let mut server = need!(MailServer::new(free_port(), true));
    let dir = temp_dir();
    write_secret(&dir.path().join("password"), "pass word\n");
    fs::write(
        dir.path().join("addresses"),
        format!("# who\n{ALICE}  alice@example.org\n{BOB}: nobody@example.org\n"),
    )
    .unwrap();
    let sink = format!(
        "addresses = {:?}\nsmtp = {{ host = \"localhost\", port = {}, from = \"Purge <purge@host.example>\", \
         to = \"{{user}}@by-pattern.example\", operator = \"storage@example.org\", tls = \"starttls\", ca_file = {:?}, \
         user = \"purge\", password_file = {:?} }}",
        dir.path().join("addresses"),
        server.port(),
        server.certificate(),
        dir.path().join("password"),
    );
    let mut agent = Agent::tracking(&tree.config(&sink));
    let ctl = agent.ctl();
    until_told(&ctl, &AT_FIRST);
    agent.kill();
    agent.launch();
    agent.wait_until_tracking();
    server.start();
    // What happens at once goes out together: one mail for Alice.
    until_nothing_waits(&ctl, &[]);
    let to = |address: &str| -> Vec<Mail> {
        let mut all = server.mails();
        all.retain(|m| m.to == address);
        all
    };
    let alice = to("alice@example.org");
    assert_eq!(alice.len(), 1, "{alice:?}");
    assert!(
        alice[0].subject.contains("2 things to know"),
        "{}",
        alice[0].subject
    );
    for words in [
        "will be removed",
        "is over quota user",
        "purgectl hold add PATH",
        "the attachment",
    ] {
        assert!(
            alice[0].text.contains(words),
            "{words:?} is missing in\n{}",
            alice[0].text
        );
    }
    let soon = tree.root.join("alice/soon0");
    let (name, list) = &alice[0].attachments[0];
    assert!(
        name == "files.txt" && list.contains(soon.to_str().unwrap()),
        "{list}"
    );
    assert_eq!(to("54323@by-pattern.example").len(), 1, "by the pattern");

    // Bob has no mailbox.
    let failed = notices(&ctl, &["--state", "failed"]);
    assert_eq!(told(&failed), BTreeSet::from(["will-expire 54322".to_owned()]));
    assert!(text(&failed[0], "error").contains("550"), "{failed:?}");

    // What the run took gathers until tomorrow; what concerns the operator goes out now.
    let _ = ctl.apply(&ctl.plan_with(["--rule", "old"])).ends_with(5);
    let tomorrow = ["purged 54321", "back-under 54321", "purged 54322"];
    until_told(&ctl, &["purged 54321", "purged 54322", "run-failed operator"]);
    until_nothing_waits(&ctl, &tomorrow);
    assert_eq!(to("alice@example.org").len(), 1);
    let operator = to("storage@example.org");
    let subjects: Vec<&str> = operator.iter().map(|m| m.subject.as_str()).collect();
    assert!(
        subjects.iter().any(|s| s.contains("over its watermark")),
        "{subjects:?}"
    );
    assert!(subjects.iter().any(|s| s.contains("failed")), "{subjects:?}");

    agent.restart();
    let_pass(12);
    let mails = server.mails();
    assert!(
        mails.iter().all(|m| m.encrypted && m.login == "purge"),
        "{mails:?}"
    );
    let ids: BTreeSet<&str> = mails.iter().map(|m| m.id.as_str()).collect();
    assert_eq!(ids.len(), mails.len(), "a mail came twice: {mails:?}");
    assert_eq!(to("alice@example.org").len(), 1);
}

#[test]
fn a_mail_server_that_is_not_who_it_says_gets_no_mail_and_no_password() {
    let mount = need!(Mount::new(Fs::Ext4));
    let mut server = need!(MailServer::new(free_port(), true));
    server.start();
    let dir = temp_dir();
    write_secret(&dir.path().join("password"), "pass word");
    let sink = |more: &str| {
        let keys = format!(
            "smtp = {{ host = \"localhost\", port = {}, from = \"purge@host.example\", to = \"{{user}}@example.org\", {more} }}",
            server.port()
        );
        Config::backdated(&mount.path()).notifying(&keys)
    };
    let login = format!(
        "user = \"purge\", password_file = {:?}",
        dir.path().join("password")
    );
    let agent = Agent::tracking(&sink(&login));
    let test = |agent: &Agent| agent.ctl().run(["notices", "test", "--sink", "smtp"]);
    let refused = test(&agent).ends_with(1);
    assert!(
        refused.stderr.to_lowercase().contains("certificate"),
        "{}",
        refused.stderr
    );
    let trusted = format!("ca_file = {:?}", server.certificate());
    for (more, is_good) in [
        (format!("{login}, {trusted}"), true),
        // The server takes nothing without a login.
        (trusted.clone(), false),
    ] {
        agent.write_config(&sink(&more));
        agent.reload();
        until("the new configuration", PATIENCE, || {
            (test(&agent).code == i32::from(!is_good)).then_some(())
        });
    }
    let mails = server.mails();
    assert!(mails[0].text.contains("This is a test of sink smtp"));
    assert!(mails.iter().all(|m| m.login == "purge"), "{mails:?}");
    let _ = test(&agent).ends_with(1);
    assert_eq!(server.mails().len(), mails.len());
}
